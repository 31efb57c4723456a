package acceptance

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
)

// follower keeps the set that a watch tells of, strictly: what contradicts what it was told before is a failure.
type follower struct {
	t testing.TB

	mu     sync.Mutex
	set    map[string]client.Revision
	synced bool
	token  string // of the last event
	resets int
	moves  int // JOINED, UPDATED and LEFT
}

// follow watches through a proxy until the test ends, or stop.
func (p *proxy) follow(t testing.TB, f *follower, q client.WatchQuery) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var watching sync.WaitGroup
	watching.Go(func() {
		for e, err := range p.Watch(ctx, q) {
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				t.Errorf("watch: %v", err)
				return
			}
			f.event(&e)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		watching.Wait()
	})
	t.Cleanup(stop)
	return stop
}

func (f *follower) event(e *client.WatchEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := e.Identity.ID
	_, known := f.set[id]
	right := true
	switch e.Type {
	case client.Present, client.Joined:
		right = !known
		f.set[id] = e.Identity.Revision
	case client.Updated:
		right = known && e.Identity.Revision > f.set[id]
		f.set[id] = e.Identity.Revision
	case client.Left:
		right = known
		delete(f.set, id)
	case client.Reset:
		clear(f.set)
		f.synced = false
		f.resets++
	case client.Synced:
		f.synced = true
	}
	if !right {
		f.t.Errorf("%v of %q at %d, which is known at %d", e.Type, id, e.Identity.Revision, f.set[id])
	}
	if e.Type == client.Joined || e.Type == client.Updated || e.Type == client.Left {
		f.moves++
	}
	f.token = e.ResumeToken
}

func newFollower(t testing.TB) *follower {
	t.Helper()
	return &follower{t: t, set: make(map[string]client.Revision)}
}

// await waits until the follower has the set that a proxy finds.
func (f *follower) await(t testing.TB, p *proxy, filter string) {
	t.Helper()
	eventually(t, "the watch has told who is there", func() bool {
		there := make(map[string]client.Revision)
		for _, i := range p.find(t, filter) {
			there[i.ID] = i.Revision
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.synced && maps.Equal(f.set, there)
	})
}

// TestWatch watches on every combination: who joins, changes, leaves and expires.
func TestWatch(t *testing.T) {
	onEach(t, func(t *testing.T, p *proxy) {
		p.register(t, 50, func(i int) map[string]any { return map[string]any{"room": fmt.Sprint(i % 5), "n": i} })
		filters := map[string]map[string]any{
			`{}`: nil, `{"room":"3"}`: {"room": "3"}, `{"n":{"$gte":40}}`: {"n": map[string]any{"$gte": 40}}, `{"room":"attic"}`: {"room": "attic"},
		}
		followers := make(map[string]*follower)
		for text, filter := range filters {
			followers[text] = newFollower(t)
			p.follow(t, followers[text], client.WatchQuery{Filter: filter})
			followers[text].await(t, p, text)
		}
		for i := range 20 {
			_, err := p.Register(t.Context(), client.Registration{
				ID: name(i), Metadata: map[string]any{"room": fmt.Sprint(i % 3), "n": 2 * i}, Mode: client.Replace, TTL: 2 * time.Second,
			})
			must(t, err)
			_, err = p.Heartbeat(t.Context(), name(i+20), 0)
			must(t, err)
		}
		for i := 45; i < 50; i++ {
			_, err := p.Unregister(t.Context(), name(i))
			must(t, err)
		}
		for text, f := range followers {
			f.await(t, p, text)
		}
		eventually(t, "what expired has left", func() bool {
			all := followers[`{}`]
			all.mu.Lock()
			defer all.mu.Unlock()
			return len(all.set) == 25
		})
		for text, f := range followers {
			f.await(t, p, text)
			f.mu.Lock()
			if f.resets > 0 {
				t.Errorf("%s: %d resets", text, f.resets)
			}
			f.mu.Unlock()
		}
		all := followers[`{}`]
		all.mu.Lock()
		defer all.mu.Unlock()
		if want := 20 + 5 + 20; all.moves != want { // replaced, unregistered, expired; no heartbeats
			t.Errorf("%d events after the snapshot, want %d", all.moves, want)
		}
	})
}

// TestWatchElsewhere has a watch go on at another proxy with what it has missed.
func TestWatchElsewhere(t *testing.T) {
	onShared(t, func(t *testing.T, slots string, _ ...string) {
		p := three(t, slots)
		p[0].register(t, 20, func(i int) map[string]any { return map[string]any{"room": fmt.Sprint(i % 2)} })
		for i := range p {
			p[i].find(t, `{}`) // each has them
		}
		room := client.WatchQuery{Filter: map[string]any{"room": "1"}}
		f := newFollower(t)
		stop := p[1].follow(t, f, room)
		f.await(t, p[1], `{"room":"1"}`)
		move := func(from int) {
			for i := range 10 {
				_, err := p[0].Register(t.Context(), client.Registration{
					ID: name(from + i), Metadata: map[string]any{"room": fmt.Sprint((i + 1) % 3)}, Mode: client.Replace,
				})
				must(t, err)
			}
		}
		move(0)
		f.await(t, p[1], `{"room":"1"}`)
		stop()
		move(10)
		room.ResumeToken = f.token
		f.synced = false
		p[2].follow(t, f, room)
		f.await(t, p[2], `{"room":"1"}`)
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.resets > 0 {
			t.Errorf("%d resets: the other proxy did not know what had happened", f.resets)
		}
	})
}
