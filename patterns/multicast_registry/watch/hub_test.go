package watch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/index"
)

// board is a registry of the simplest kind: an index, a hub, and a number.
type board struct {
	index    *index.Index
	hub      *Hub
	revision mr.Revision
	away     atomic.Pointer[error]
}

func newBoard(cfg Config) *board {
	b := &board{index: index.New()}
	b.hub = New(b, cfg)
	return b
}

func (b *board) Query(ctx context.Context, now time.Time, q mr.Selection) (mr.Selected, error) {
	return b.index.Query(ctx, now, q)
}

func (b *board) Reach(context.Context, mr.Revision) error { return b.Current() }

func (b *board) Current() error {
	if away := b.away.Load(); away != nil {
		return *away
	}
	return nil
}

func (b *board) put(id string, ttl time.Duration, metadata map[string]any) {
	b.hub.Lock()
	defer b.hub.Unlock()
	b.revision++
	after := mr.Identity{
		ID: id, Encoded: string(mr.AppendMetadata(nil, metadata)), TTL: ttl, RegisteredAt: time.Now(), Revision: b.revision,
	}
	if ttl != mr.NoExpiry {
		after.ExpiresAt = time.Now().Add(ttl)
	}
	if before, replaced := b.index.Put(after); replaced {
		b.hub.Append(b.revision, &before, &after, 0)
	} else {
		b.hub.Append(b.revision, nil, &after, 0)
	}
}

func (b *board) remove(id string) {
	b.hub.Lock()
	defer b.hub.Unlock()
	b.revision++
	if before, ok := b.index.Remove(id); ok {
		b.hub.Append(b.revision, &before, nil, mr.LeftUnregistered)
	}
}

func (b *board) sweep() {
	b.hub.Lock()
	defer b.hub.Unlock()
	expired, _ := b.index.Sweep(time.Now(), 100)
	for i := range expired {
		b.revision++
		b.hub.Append(b.revision, &expired[i], nil, mr.LeftExpired)
	}
}

func (b *board) renew(id string, ttl time.Duration) {
	b.hub.Lock()
	defer b.hub.Unlock()
	b.revision++
	b.index.Renew(id, ttl, time.Now().Add(ttl))
	b.hub.Advance(b.revision, "")
}

func parse(t *testing.T, text string) *filter.Expr {
	t.Helper()
	e, err := filter.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// reader keeps the set that it is told of, strictly: what contradicts what it was told before is a failure.
type reader struct {
	t    *testing.T
	name string

	set     map[string]mr.Revision
	synced  bool
	token   string                 // of the last news
	atToken map[string]mr.Revision // the set then
	resets  int
	updates int
}

func (r *reader) news(n mr.News) {
	r.t.Helper()
	if len(n.Events) == 0 {
		r.t.Errorf("%s: news without events", r.name)
	}
	for i := range n.Events {
		r.event(&n.Events[i])
	}
	if n.Token != "" && !r.synced && r.token == "" {
		r.t.Errorf("%s: a token before SYNCED", r.name)
	}
	if n.Token != r.token {
		r.token, r.atToken = n.Token, maps.Clone(r.set)
	}
}

func (r *reader) event(e *mr.WatchEvent) {
	r.t.Helper()
	id, revision := e.Identity.ID, e.Identity.Revision
	old, known := r.set[id]
	fail := func() {
		r.t.Errorf("%s: %v %q at %d, which it knows: %t, of %d", r.name, e.Type, id, revision, known, old)
	}
	switch e.Type {
	case mr.WatchPresent, mr.WatchJoined:
		if known || e.Type == mr.WatchPresent && r.synced {
			fail()
		}
		r.set[id] = revision
	case mr.WatchUpdated:
		if !known || revision <= old {
			fail()
		}
		r.updates++
		r.set[id] = revision
	case mr.WatchLeft:
		if !known {
			fail()
		}
		delete(r.set, id)
	case mr.WatchSynced:
		r.synced = true
	case mr.WatchReset:
		r.set, r.synced, r.token = make(map[string]mr.Revision), false, ""
		r.resets++
	case mr.WatchBookmark:
	default:
		fail()
	}
}

// back makes the reader one that comes back with its token.
func (r *reader) back() {
	r.synced = false
	if r.set = maps.Clone(r.atToken); r.token == "" {
		r.set = make(map[string]mr.Revision)
	}
}

// TestRandomly has readers of any pace watch random changes, break off and come back: what they have been told is never
// contradictory, and is what is there once they are still.
func TestRandomly(t *testing.T) {
	t.Parallel()
	filters := []string{
		`{}`, `{"room":"a"}`, `{"room":{"$in":["a","b"]}}`, `{"n":{"$gt":2}}`, `{"room":"b","n":{"$lt":4}}`, `{"tags":"x"}`,
		`{"room":{"$ne":"a"}}`, `{"$or":[{"room":"c"},{"n":1}]}`, `{"n":3}`, `{"a.b":true}`,
	}
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { randomly(t, seed, filters) })
		})
	}
}

func randomly(t *testing.T, seed uint64, filters []string) {
	random := rand.New(rand.NewPCG(seed, 1))
	cfg := Config{Queue: 1 + random.IntN(6), LogEntries: 10 + random.IntN(200), Unordered: seed%5 == 4}
	b := newBoard(cfg)
	b.hub.page = 1 + random.IntN(9)
	change := func() {
		id := fmt.Sprintf("id-%02d", random.IntN(40))
		switch random.IntN(10) {
		case 0, 1:
			b.remove(id)
		case 2:
			b.sweep()
		case 3:
			if _, ok := b.index.Get(id); ok {
				b.sweep()
				b.renew(id, time.Second)
			}
		default:
			metadata := map[string]any{"room": string(rune('a' + random.IntN(3))), "n": int64(random.IntN(6))}
			if random.IntN(2) == 0 {
				metadata["tags"], metadata["a"] = []any{"x", "y"}[:random.IntN(3)], map[string]any{"b": random.IntN(2) == 0}
			}
			ttl := mr.NoExpiry
			if random.IntN(3) == 0 {
				ttl = time.Duration(1+random.IntN(100)) * time.Millisecond
			}
			b.put(id, ttl, metadata)
		}
	}
	for range 100 {
		change()
	}
	ctx, stop := context.WithCancel(t.Context())
	var reading sync.WaitGroup
	readers := make([]*reader, 2*len(filters))
	for n := range readers {
		r := &reader{t: t, name: fmt.Sprintf("%d %s", n, filters[n%len(filters)]), set: make(map[string]mr.Revision)}
		readers[n] = r
		match, pace := parse(t, filters[n%len(filters)]), rand.New(rand.NewPCG(seed, uint64(n)))
		reading.Go(func() { read(ctx, b, match, r, pace) })
	}
	for range 1000 {
		change()
		if random.IntN(4) == 0 {
			<-time.After(time.Duration(random.IntN(3)) * time.Millisecond)
		}
	}
	<-time.After(time.Second)
	b.sweep()
	<-time.After(2 * time.Second)
	synctest.Wait()
	for n, r := range readers {
		want := make(map[string]mr.Revision)
		for identity, err := range b.index.Scan(t.Context(), time.Now(), parse(t, filters[n%len(filters)])) {
			if err != nil {
				t.Fatal(err)
			}
			want[identity.ID] = identity.Revision
		}
		if !maps.Equal(r.set, want) || !r.synced {
			t.Errorf("%s: synced %t, was told %v, there is %v", r.name, r.synced, r.set, want)
		}
	}
	stop()
	reading.Wait()
}

// read watches until the context ends, at some pace, and breaks off from time to time.
func read(ctx context.Context, b *board, match *filter.Expr, r *reader, pace *rand.Rand) {
	slow := pace.IntN(3)
	for began := time.Now(); ctx.Err() == nil; {
		r.back()
		for news, err := range b.hub.Watch(ctx, mr.Watch{Match: match, After: r.token}) {
			if err != nil {
				if ctx.Err() == nil {
					r.t.Errorf("%s: %v", r.name, err)
				}
				return
			}
			r.news(news)
			if slow > 0 {
				<-time.After(time.Duration(pace.IntN(10*slow)) * time.Millisecond)
			}
			if pace.IntN(20) == 0 && time.Since(began) < time.Second {
				break
			}
		}
	}
}

// follow watches until the test ends; next returns the events, one by one.
func follow(t *testing.T, b *board, w mr.Watch) (next func() mr.WatchEvent, token func() string, failed func() error) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	type step struct {
		event mr.WatchEvent
		token string
		err   error
	}
	steps := make(chan step)
	var reading sync.WaitGroup
	reading.Go(func() {
		for news, err := range b.hub.Watch(ctx, w) {
			if err != nil {
				news.Events = append(news.Events, mr.WatchEvent{})
			}
			for _, e := range news.Events {
				select {
				case steps <- step{e, news.Token, err}:
				case <-ctx.Done():
					return
				}
			}
		}
	})
	t.Cleanup(func() {
		stop()
		reading.Wait()
	})
	var last step
	next = func() mr.WatchEvent {
		t.Helper()
		select {
		case last = <-steps:
		case <-time.After(30 * time.Second):
			t.Fatal("nothing comes")
		}
		return last.event
	}
	return next, func() string { return last.token }, func() error { next(); return last.err }
}

func want(t *testing.T, got mr.WatchEvent, typ mr.WatchEventType, id string, reason mr.LeftReason) {
	t.Helper()
	if got.Type != typ || got.Identity.ID != id || got.Reason != reason {
		t.Errorf("got %v %q %v, want %v %q %v", got.Type, got.Identity.ID, got.Reason, typ, id, reason)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBoard(Config{})
		next, token, _ := follow(t, b, mr.Watch{Match: parse(t, `{"room":"a"}`)})
		want(t, next(), mr.WatchSynced, "", 0) // of nobody
		b.put("x", mr.NoExpiry, map[string]any{"room": "a"})
		want(t, next(), mr.WatchJoined, "x", 0)
		b.put("x", mr.NoExpiry, map[string]any{"room": "a", "n": int64(1)})
		e := next()
		want(t, e, mr.WatchUpdated, "x", 0)
		if n, _ := mr.LookUp(e.Identity.Encoded, "n"); n != int64(1) {
			t.Errorf("n is %v", n)
		}
		b.put("other", mr.NoExpiry, map[string]any{"room": "b"})
		b.put("x", mr.NoExpiry, map[string]any{"room": "b"})
		e = next()
		want(t, e, mr.WatchLeft, "x", mr.LeftFilter)
		if room, _ := mr.LookUp(e.Identity.Encoded, "room"); room != "a" {
			t.Errorf("who leaves is shown with room %v, not as it matched last", room)
		}
		b.put("x", mr.NoExpiry, map[string]any{"room": "a"})
		want(t, next(), mr.WatchJoined, "x", 0)
		b.renew("x", time.Hour)
		b.remove("x")
		want(t, next(), mr.WatchLeft, "x", mr.LeftUnregistered)
		b.put("y", 10*time.Millisecond, map[string]any{"room": "a"})
		want(t, next(), mr.WatchJoined, "y", 0)
		<-time.After(20 * time.Millisecond)
		b.put("y", 10*time.Millisecond, map[string]any{"room": "a"}) // in place of one that has expired
		want(t, next(), mr.WatchLeft, "y", mr.LeftExpired)
		want(t, next(), mr.WatchJoined, "y", 0)
		<-time.After(20 * time.Millisecond)
		b.sweep()
		want(t, next(), mr.WatchLeft, "y", mr.LeftExpired)
		before := token()
		b.renew("other", time.Hour)
		want(t, next(), mr.WatchBookmark, "", 0)
		if token() == before || token() == "" {
			t.Error("the bookmark has the same token as the event before")
		}
	})
}

// TestExpired takes a snapshot while an expired identity is not swept: it is in it, and leaves as it does for everybody.
func TestExpired(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBoard(Config{})
		b.put("gone", time.Millisecond, nil)
		b.put("here", time.Hour, nil)
		<-time.After(10 * time.Millisecond)
		next, token, _ := follow(t, b, mr.Watch{})
		want(t, next(), mr.WatchPresent, "gone", 0)
		want(t, next(), mr.WatchPresent, "here", 0)
		want(t, next(), mr.WatchSynced, "", 0)
		from := token()
		b.sweep()
		want(t, next(), mr.WatchLeft, "gone", mr.LeftExpired)
		again, _, _ := follow(t, b, mr.Watch{After: from})
		want(t, again(), mr.WatchLeft, "gone", mr.LeftExpired)
		want(t, again(), mr.WatchSynced, "", 0)
	})
}

func TestTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBoard(Config{LogEntries: 5})
		_, token, _ := func() (func() mr.WatchEvent, func() string, func() error) {
			next, token, failed := follow(t, b, mr.Watch{})
			want(t, next(), mr.WatchSynced, "", 0)
			return next, token, failed
		}()
		start := token()
		for n := range 5 {
			b.put(fmt.Sprint(n), mr.NoExpiry, nil)
		}
		next, _, _ := follow(t, b, mr.Watch{After: start})
		for n := range 5 {
			want(t, next(), mr.WatchJoined, fmt.Sprint(n), 0)
		}
		want(t, next(), mr.WatchSynced, "", 0)
		b.put("5", mr.NoExpiry, nil)
		want(t, next(), mr.WatchJoined, "5", 0)
		synctest.Wait()
		late, _, _ := follow(t, b, mr.Watch{After: start}) // the log has lost one
		want(t, late(), mr.WatchReset, "", 0)
		for n := range 6 {
			want(t, late(), mr.WatchPresent, fmt.Sprint(n), 0)
		}
		want(t, late(), mr.WatchSynced, "", 0)
		omitted, _, _ := follow(t, b, mr.Watch{After: start, OmitSnapshot: true})
		want(t, omitted(), mr.WatchReset, "", 0)
		want(t, omitted(), mr.WatchSynced, "", 0)
		b.remove("5")
		want(t, omitted(), mr.WatchLeft, "5", mr.LeftUnregistered)

		other := newBoard(Config{})
		foreign, _, _ := follow(t, other, mr.Watch{After: start})
		want(t, foreign(), mr.WatchReset, "", 0)
		want(t, foreign(), mr.WatchSynced, "", 0)
		for _, bad := range []string{"x", "!", start[1:], token()[:len(token())-3]} {
			_, _, failed := follow(t, b, mr.Watch{After: bad})
			if err := failed(); !errors.Is(err, mr.ErrInvalid) {
				t.Errorf("token %q: %v", bad, err)
			}
		}
		_, _, failed := follow(t, b, mr.Watch{After: start, Match: parse(t, `{"a":1}`)})
		if err := failed(); !errors.Is(err, mr.ErrInvalid) {
			t.Errorf("a token of another filter: %v", err)
		}
	})
}

// TestReset replaces the index while readers watch.
func TestReset(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBoard(Config{})
		b.put("a", mr.NoExpiry, nil)
		next, token, failed := follow(t, b, mr.Watch{})
		want(t, next(), mr.WatchPresent, "a", 0)
		want(t, next(), mr.WatchSynced, "", 0)
		old := token()
		fresh := index.New()
		fresh.Put(mr.Identity{ID: "b", TTL: mr.NoExpiry, Metadata: map[string]any{}, Revision: 7})
		b.hub.Reset(7, "shared", func() { b.index, b.revision = fresh, 7 })
		want(t, next(), mr.WatchReset, "", 0)
		want(t, next(), mr.WatchPresent, "b", 0)
		want(t, next(), mr.WatchSynced, "", 0)
		b.put("c", mr.NoExpiry, nil)
		want(t, next(), mr.WatchJoined, "c", 0)
		at := token()
		again, _, _ := follow(t, b, mr.Watch{After: old})
		want(t, again(), mr.WatchReset, "", 0)

		// Another hub that has the same changes goes on with the token.
		twin := newBoard(Config{})
		twin.hub.Reset(7, "shared", func() { twin.revision = 7 })
		twin.put("c", mr.NoExpiry, nil)
		twin.put("d", mr.NoExpiry, nil)
		there, _, _ := follow(t, twin, mr.Watch{After: at})
		want(t, there(), mr.WatchJoined, "d", 0)
		want(t, there(), mr.WatchSynced, "", 0)

		b.hub.Fail(mr.ErrUnsupported)
		if err := failed(); !errors.Is(err, mr.ErrUnsupported) {
			t.Errorf("after Fail: %v", err)
		}
		_, _, failed = follow(t, b, mr.Watch{})
		if err := failed(); !errors.Is(err, mr.ErrUnsupported) {
			t.Errorf("a watch after Fail: %v", err)
		}
		twin.away.Store(&mr.ErrUnavailable)
		_, _, failed = follow(t, twin, mr.Watch{})
		if err := failed(); !errors.Is(err, mr.ErrUnavailable) {
			t.Errorf("a watch of what is not current: %v", err)
		}
	})
}

// TestAway ends a watch when nothing current is known any more.
func TestAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBoard(Config{})
		next, _, failed := follow(t, b, mr.Watch{})
		want(t, next(), mr.WatchSynced, "", 0)
		b.away.Store(&mr.ErrUnavailable)
		if err := failed(); !errors.Is(err, mr.ErrUnavailable) {
			t.Errorf("the watch ended with %v", err)
		}
	})
}

// TestOwnChangesOnly has many watchers, each of a room of its own, and counts who is woken.
func TestOwnChangesOnly(t *testing.T) {
	t.Parallel()
	b := newBoard(Config{})
	watchers := make([]*watcher, 1000)
	for n := range watchers {
		watchers[n] = &watcher{
			match: parse(t, fmt.Sprintf(`{"room":"r%d","kind":"user","n":{"$gte":0}}`, n)), wake: make(chan struct{}, 1),
		}
		b.hub.join(watchers[n])
	}
	b.put("x", mr.NoExpiry, map[string]any{"room": "r5", "kind": "user", "n": int64(1)})
	b.put("y", mr.NoExpiry, map[string]any{"room": "none", "kind": "user", "n": int64(1)})
	b.put("x", mr.NoExpiry, map[string]any{"room": "r6", "kind": "user", "n": int64(1)})
	compared := 0
	for _, e := range b.hub.log.entries {
		again := *e
		again.seq += 1000 // dispatching compares it once more
		b.hub.groups.concerned(&again, func(*group) { compared++ })
	}
	if compared != 6 { // one; none; two; and each with the first, when nothing told yet that every user is watched
		t.Errorf("3 changes were compared with %d filters", compared)
	}
	b.hub.dispatch()
	var woken []int
	for n, w := range watchers {
		select {
		case <-w.wake:
			woken = append(woken, n)
		default:
		}
	}
	if !slices.Equal(woken, []int{5, 6}) {
		t.Errorf("woken: %v", woken)
	}
	for _, w := range watchers {
		b.hub.leave(w)
	}
	if g := &b.hub.groups; len(g.byField)+len(g.byFilter)+len(g.others) > 0 {
		t.Errorf("after all have left, %d fields and %d filters remain", len(g.byField), len(g.byFilter))
	}
}
