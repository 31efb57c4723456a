package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prism-data-layer/prism/client"
)

// work does operations. Its methods may be called concurrently.
type work struct {
	plan    *Plan
	clients []*client.Client
	prefix  string // of the identities
	run     string // that their metadata have
	tally   *tally
	hearers *audience

	turn    atomic.Uint64 // of the clients
	beat    atomic.Uint64 // of the identities that heartbeats go to
	created atomic.Uint64 // identities that were registered by operations
	free    chan int      // identities that are attached to by operations, and are not just now
}

// mostAttached is how many operations at most attach to an identity at once.
const mostAttached = 128

func newWork(p *Plan, clients []*client.Client, t *tally, hearers *audience, run string) *work {
	w := &work{plan: p, clients: clients, prefix: "bench-" + run + "-", run: run, tally: t, hearers: hearers}
	if p.Shares[Attach] > 0 {
		w.free = make(chan int, min(p.Concurrency, mostAttached))
		for i := range cap(w.free) {
			w.free <- p.Identities + i
		}
	}
	return w
}

// prepared is how many identities there are before the load: the groups', and those that operations attach to.
func (w *work) prepared() int { return w.plan.Identities + cap(w.free) }

func (w *work) name(n int) string { return w.prefix + strconv.Itoa(n) }

// indexOf is the other way round.
func indexOf(prefix string) func(identity string) (n int, ok bool) {
	return func(identity string) (n int, ok bool) {
		rest, ok := strings.CutPrefix(identity, prefix)
		if !ok {
			return 0, false
		}
		n, err := strconv.Atoi(rest)
		return n, err == nil && n >= 0
	}
}

// groups is how many whole groups there are; the identities beyond are in none.
func (w *work) groups() int { return w.plan.Identities / w.plan.Targets }

func (w *work) registration(id string, n int) client.Registration {
	group := "none"
	if n >= 0 && n < w.groups()*w.plan.Targets {
		group = strconv.Itoa(n / w.plan.Targets)
	}
	status := []string{"online", "away", "busy"}[max(n, 0)%3]
	return client.Registration{ID: id, TTL: w.plan.TTL, Metadata: map[string]any{
		"bench": w.run, "group": group, "n": n, "status": status, "battery": float64(max(n, 0)%100) / 100,
	}}
}

// client is the next one in turn.
func (w *work) client() *client.Client { return w.clients[w.turn.Add(1)%uint64(len(w.clients))] }

func (w *work) consistency() client.Consistency {
	if w.plan.Strong {
		return client.Strong
	}
	return client.Eventual
}

// errWrong says that an answer came that is not right.
var errWrong = errors.New("wrong answer")

// failure names why an operation failed; "" when it did not.
func failure(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, errWrong):
		return "WRONG_ANSWER"
	}
	return client.Code(err)
}

// do does one operation.
func (w *work) do(ctx context.Context, op string, due time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, w.plan.Timeout)
	defer cancel()
	switch op {
	case Register:
		n := w.created.Add(1)
		_, err := w.client().Register(ctx, w.registration(w.prefix+"new-"+strconv.FormatUint(n, 10), -1))
		return err
	case Enumerate:
		return w.enumerate(ctx)
	case Multicast:
		return w.multicast(ctx, due)
	case Heartbeat:
		n := int(w.beat.Add(1) % uint64(w.plan.Identities))
		_, err := w.client().Heartbeat(ctx, w.name(n), 0)
		return err
	case Attach:
		return w.attach(ctx, due)
	}
	return fmt.Errorf("%q is no operation", op)
}

// mostPage is the most identities that one call returns.
const mostPage = 10_000

func (w *work) enumerate(ctx context.Context) error {
	match, _ := w.group()
	query := client.Query{Filter: match, PageSize: min(w.plan.Targets, mostPage), Consistency: w.consistency()}
	page, err := w.client().Enumerate(ctx, query)
	if err == nil && (len(page.Identities) != query.PageSize || page.Total != w.plan.Targets) {
		err = fmt.Errorf("%w: %d identities of %d, want %d", errWrong, len(page.Identities), page.Total, w.plan.Targets)
	}
	return err
}

// find checks that a server knows all that was prepared.
func (w *work) find(ctx context.Context, c *client.Client, want int) error {
	ctx, cancel := context.WithTimeout(ctx, w.plan.Timeout)
	defer cancel()
	page, err := c.Enumerate(ctx, client.Query{
		Filter: map[string]any{"bench": w.run}, CountOnly: true, Consistency: client.Strong,
	})
	if err == nil && page.Total != want {
		err = fmt.Errorf("server %s knows %d of %d identities that were registered", c.Server(), page.Total, want)
	}
	return err
}

// group selects a group at random, and returns its first identity.
func (w *work) group() (match map[string]any, first int) {
	group := rand.IntN(w.groups())
	return map[string]any{"bench": w.run, "group": strconv.Itoa(group)}, group * w.plan.Targets
}

func (w *work) multicast(ctx context.Context, due time.Time) error {
	match, first := w.group()
	_, err := w.send(ctx, due, match, first, w.plan.Targets)
	return err
}

// send multicasts to identities from first on and takes down what is reported.
func (w *work) send(ctx context.Context, due time.Time, match map[string]any, first, targets int) (*client.Result, error) {
	number, payload := w.tally.send(due, first, targets)
	result, err := w.client().Multicast(ctx, client.MulticastRequest{
		Filter: match, Payload: payload, Delivery: w.plan.Delivery, Timeout: w.plan.Timeout * 9 / 10, Report: client.ReportUndelivered,
		Consistency: w.consistency(),
	})
	w.tally.reported(number, result)
	return result, err
}

// attach attaches to an identity, sends it a message, which must arrive, and detaches.
func (w *work) attach(ctx context.Context, due time.Time) error {
	var n int
	select {
	case n = <-w.free:
		defer func() { w.free <- n }()
	case <-ctx.Done():
		return ctx.Err()
	}
	stream := w.hearers.streams[n%len(w.hearers.streams)].current()
	if err := stream.Attach(ctx, false, w.name(n)); err != nil {
		return err
	}
	result, err := w.send(ctx, due, map[string]any{"bench": w.run, "n": n}, n, 1)
	if err == nil && result.Delivered != 1 {
		err = fmt.Errorf("%w: attached, but not delivered to", errWrong)
	}
	return errors.Join(err, stream.Detach(ctx, w.name(n)))
}
