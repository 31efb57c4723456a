package linearizability

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
)

const (
	// identities is how many identities are fought for at once.
	identities = 5
	// callTime is how long a client waits for an answer.
	callTime = 700 * time.Millisecond
	// pace is the longest wait between an answer and the next call, and setback the longest after a call that failed: the
	// more outcomes are unknown, the longer the check takes.
	pace, setback = 8 * time.Millisecond, 100 * time.Millisecond
	// patience is how long a proxy may take to work again after the last fault.
	patience = 20 * time.Second
	// lease is longer than any run.
	lease = 24 * time.Hour
)

// name returns the name of an identity. Each round has its own, so that no history is long.
func name(round, n int) string { return fmt.Sprintf("round-%03d-id-%d", round, n) }

// names returns all names of one round.
func names(round int) []string {
	all := make([]string, identities)
	for i := range all {
		all[i] = name(round, i)
	}
	return all
}

// registration is one that a client knows of.
type registration struct {
	value    string
	revision client.Revision
	call     int64 // when it was called for; 0: somebody else did
}

// worker is a client of one proxy, which does one thing after the other.
type worker struct {
	t          testing.TB
	number     int
	random     *rand.Rand
	own, other *client.Client
	history    *history
	round      *atomic.Int64

	registered int                     // how often
	latest     registration            // its own latest that is known to be stored
	known      map[string]registration // the latest that it knows of each identity
}

// run works until the context ends. The last call ends by itself, like every other.
func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		rest := pace
		if !w.act(context.WithoutCancel(ctx)) {
			rest = setback
		}
		wait(ctx, upTo(w.random, rest))
	}
}

// act does one thing, chosen at random, and tells whether there was an answer.
func (w *worker) act(ctx context.Context) bool {
	round := int(w.round.Load())
	id := name(round, w.random.IntN(identities))
	switch n := w.random.IntN(100); {
	case n < 24:
		return w.register(ctx, id, create)
	case n < 38:
		return w.register(ctx, id, replace)
	case n < 50:
		return w.unregister(ctx, input{kind: unregister, id: id}, 0)
	case n < 60:
		known, ok := w.known[id]
		if !ok {
			return true
		}
		return w.unregister(ctx, input{kind: unregisterIf, id: id, value: known.value}, known.revision)
	case n < 72:
		return w.heartbeat(ctx, id)
	case n < 84:
		return w.readStrong(ctx, map[string]any{"of": id}, id)
	case n < 90:
		return w.readStrong(ctx, nil, names(round)...)
	case w.latest.revision == 0:
		return true
	case n < 95: // what this client has registered, everybody can read who knows the revision
		return w.read(ctx, w.other, w.latest.call, client.Query{MinRevision: w.latest.revision}, names(round)...)
	default: // and it itself anyway
		return w.read(ctx, w.own, w.latest.call, client.Query{}, names(round)...)
	}
}

// settled tells what an error says about the outcome: that it is unknown, or that the answer was no.
func (w *worker) settled(err, no error) (out output) {
	switch {
	case err == nil:
		out.ok = true
	case no != nil && errors.Is(err, no):
	default:
		out.unknown = true
		if !errors.Is(err, client.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
			w.t.Errorf("client %d: %v", w.number, err)
		}
	}
	return out
}

// call makes a call with a deadline, and returns when that was.
func (w *worker) call(ctx context.Context, do func(ctx context.Context)) (began, ended int64) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	began = w.history.now()
	do(ctx)
	return began, w.history.now()
}

func (w *worker) register(ctx context.Context, id string, as kind) bool {
	w.registered++
	value := fmt.Sprintf("%d.%d", w.number, w.registered)
	r := client.Registration{ID: id, TTL: lease, Metadata: map[string]any{"value": value, "of": id}, Mode: client.Replace}
	no := error(nil)
	if as == create {
		r.Mode, no = client.Create, client.ErrAlreadyExists
	}
	var stored client.Identity
	var err error
	began, ended := w.call(ctx, func(ctx context.Context) { stored, err = w.own.Register(ctx, r) })
	out := w.settled(err, no)
	if out.ok {
		out.revision, out.expires = stored.Revision, stored.ExpiresAt.UnixMilli()
		w.latest = registration{value: value, revision: stored.Revision, call: began}
		w.known[id] = w.latest
	}
	w.history.add(operation{client: w.number, call: began, end: ended, in: input{kind: as, id: id, value: value}, out: out})
	return !out.unknown
}

func (w *worker) unregister(ctx context.Context, in input, only client.Revision) bool {
	var existed bool
	var err error
	began, ended := w.call(ctx, func(ctx context.Context) { existed, err = w.own.UnregisterIf(ctx, in.id, only) })
	out := w.settled(err, nil)
	out.ok = out.ok && existed
	w.history.add(operation{client: w.number, call: began, end: ended, in: in, out: out})
	return !out.unknown
}

// heartbeat makes a lease last longer, which is never wrong: one that failed is left out.
func (w *worker) heartbeat(ctx context.Context, id string) bool {
	var renewed client.Lease
	var err error
	began, ended := w.call(ctx, func(ctx context.Context) { renewed, err = w.own.Heartbeat(ctx, id, 0) })
	out := w.settled(err, client.ErrNotFound)
	if out.ok {
		out.expires = renewed.ExpiresAt.UnixMilli()
	}
	if !out.unknown {
		w.history.add(operation{client: w.number, call: began, end: ended, in: input{kind: heartbeat, id: id}, out: out})
	}
	return !out.unknown
}

// readStrong reads what is so now.
func (w *worker) readStrong(ctx context.Context, filter map[string]any, ids ...string) bool {
	return w.read(ctx, w.own, w.history.now(), client.Query{Consistency: client.Strong, Filter: filter}, ids...)
}

// readAtLast is readStrong as soon as the proxy works again.
func (w *worker) readAtLast(ctx context.Context, ids ...string) {
	for deadline := time.Now().Add(patience); !w.readStrong(ctx, nil, ids...); wait(ctx, pace) {
		if time.Now().After(deadline) {
			w.t.Fatalf("client %d: the proxy does not work %v after the last fault", w.number, patience)
		}
	}
}

// read enumerates, and notes what that says of some identities. The answer is what was so at some time from the given one on:
// of a STRONG read, since its call; else since the client's latest registration was called for, which it reflects. A read
// that failed is left out.
func (w *worker) read(
	ctx context.Context, from *client.Client, since int64, query client.Query, ids ...string,
) bool {
	query.PageSize = 10_000
	var page client.Page
	var err error
	began, ended := w.call(ctx, func(ctx context.Context) { page, err = from.Enumerate(ctx, query) })
	if w.settled(err, nil).unknown {
		return false
	}
	var reflects client.Revision
	if query.Consistency != client.Strong {
		began, reflects = since, w.latest.revision
	}
	found := make(map[string]output, len(page.Identities))
	for i := range page.Identities {
		one := &page.Identities[i]
		if _, twice := found[one.ID]; twice || query.Filter != nil && one.ID != ids[0] {
			w.t.Errorf("client %d asked for %v and got %s, twice: %t", w.number, ids, one.ID, twice)
		}
		found[one.ID] = output{ok: true, value: value(one), revision: one.Revision, expires: one.ExpiresAt.UnixMilli()}
	}
	w.history.answered(answer{call: began, since: reflects, revision: page.Revision})
	for _, id := range ids {
		out := found[id]
		if out.ok {
			w.known[id] = registration{value: out.value, revision: out.revision}
		}
		w.history.add(operation{
			client: w.number, call: began, end: ended, in: input{kind: read, id: id}, out: out, since: reflects,
		})
	}
	return true
}

// value returns what a registration was told apart by.
func value(i *client.Identity) string {
	text, _ := i.Metadata()["value"].(string)
	return text
}
