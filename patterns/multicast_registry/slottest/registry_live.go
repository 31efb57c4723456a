package slottest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// prober returns the optional ability, and skips the test without it.
func prober(t *testing.T, r mr.Registry) mr.Prober {
	t.Helper()
	p, ok := r.(mr.Prober)
	if !ok {
		t.Skip("the registry is no Prober")
	}
	return p
}

// wantLive fails the test unless exactly the wanted identities are live, in a single call.
func wantLive(t *testing.T, p mr.Prober, ids []string, want func(i int) bool) {
	t.Helper()
	got, err := p.Live(t.Context(), ids)
	if err != nil || len(got) != len(ids) {
		t.Fatalf("live: %d answers for %d names, %v", len(got), len(ids), err)
	}
	for i, id := range ids {
		if got[i] != want(i) {
			t.Errorf("%q, at place %d: live %v", id, i, got[i])
		}
	}
}

// live asks for every kind of name: live, deleted, replaced, never registered, hostile, twice, and none at all.
func (s *registrySuite) live(t *testing.T) {
	r := s.open(t)
	p := prober(t, r)
	wantLive(t, p, nil, nil)
	wantLive(t, p, []string{"never"}, func(int) bool { return false })

	put(t, r, identity("live"), mr.Create)
	put(t, r, mr.Identity{ID: "forever", TTL: mr.NoExpiry}, mr.Create)
	put(t, r, identity("replaced"), mr.Create)
	put(t, r, mr.Identity{ID: "replaced", TTL: mr.NoExpiry}, mr.Replace)
	put(t, r, identity("deleted"), mr.Create)
	_, err := r.Delete(t.Context(), "deleted", 0)
	noError(t, err, "delete")
	ids := []string{"live", "never", "forever", "deleted", "replaced", "live", "never", "Live", "liv", "live ", ""}
	wantLive(t, p, ids, func(i int) bool { return i%2 == 0 && i < 5 || i == 5 })
	put(t, r, identity("deleted"), mr.Create)
	wantLive(t, p, []string{"deleted"}, func(int) bool { return true })

	hostile := HostileIdentities()
	for i, id := range hostile {
		_, err := r.Delete(t.Context(), id, 0)
		noError(t, err, "delete")
		if i%2 == 0 {
			put(t, r, identity(id), mr.Create)
		}
	}
	wantLive(t, p, hostile, func(i int) bool { return i%2 == 0 })

	for _, ctx := range []context.Context{cancelled(t), past(t)} {
		if got, err := p.Live(ctx, ids); !isContextError(err) {
			t.Errorf("live, with an ended context: %v, %v", got, err)
		}
	}
	if s.OpenPair == nil {
		return
	}
	a, b := s.OpenPair(t)
	put(t, a, identity("x"), mr.Create)
	wantLive(t, prober(t, b), []string{"x", "y"}, func(i int) bool { return i == 0 })
	_, err = a.Delete(t.Context(), "x", 0)
	noError(t, err, "delete")
	wantLive(t, prober(t, b), []string{"x"}, func(int) bool { return false })
}

// liveAndExpired looks at leases before they end, right after, and once they are swept.
func (s *registrySuite) liveAndExpired(t *testing.T) {
	r := s.open(t)
	p := prober(t, r)
	ids := []string{"short", "shortened", "renewed", "long"}
	put(t, r, identity("shortened"), mr.Create)
	put(t, r, identity("long"), mr.Create)
	start := time.Now()
	put(t, r, mr.Identity{ID: "short", TTL: s.ShortestTTL}, mr.Create)
	put(t, r, mr.Identity{ID: "shortened", TTL: s.ShortestTTL}, mr.Replace)
	put(t, r, mr.Identity{ID: "renewed", TTL: s.ShortestTTL}, mr.Create)
	_, err := r.Renew(t.Context(), "renewed", time.Hour)
	renewed := err == nil || time.Since(start) < s.ShortestTTL-s.ClockTolerance
	if renewed {
		noError(t, err, "renew")
	}
	end := time.Now()
	got, err := p.Live(t.Context(), ids)
	noError(t, err, "live")
	if time.Since(start) < s.ShortestTTL-s.ClockTolerance {
		for i, live := range got {
			if !live {
				t.Errorf("%q is not live before its lease ends", ids[i])
			}
		}
	}
	waitUntil(end.Add(s.ShortestTTL + s.ClockTolerance))
	expired := func(i int) bool { return i == 2 && renewed || i == 3 }
	wantLive(t, p, ids, expired)
	for swept := end.Add(s.ShortestTTL + s.SweptWithin); time.Now().Before(swept); {
		put(t, r, identity("other"), mr.Replace)
		waitUntil(time.Now().Add(s.SweptWithin / 10))
	}
	wantLive(t, p, ids, expired)
	put(t, r, identity("short"), mr.Create)
	wantLive(t, p, ids[:1], func(int) bool { return true })
}

// liveManyAtOnce asks for 10,000 names in one call, of which some are live.
func (s *registrySuite) liveManyAtOnce(t *testing.T) {
	r := s.open(t)
	p := prober(t, r)
	const many, every = 10_000, 97
	ids := make([]string, many)
	for i := range ids {
		ids[i] = fmt.Sprintf("device/%d", i)
		if i%every == 0 {
			put(t, r, identity(ids[i]), mr.Create)
		}
	}
	wantLive(t, p, ids, func(i int) bool { return i%every == 0 })
}

// liveWhileMutating asks while identities come and go: those that stay are live in every answer, those that never came in none.
func (s *registrySuite) liveWhileMutating(t *testing.T) {
	r := s.open(t)
	p := prober(t, r)
	put(t, r, identity("stays"), mr.Create)
	ctx := within(t, s.Patience)
	done := make(chan struct{})
	var working, asking sync.WaitGroup
	for g := range 4 {
		id := fmt.Sprint("comes and goes ", g)
		working.Go(func() {
			for range 50 {
				if _, err := r.Put(ctx, identity(id), mr.Replace); err != nil {
					t.Errorf("put: %v", err)
				}
				if _, err := r.Renew(ctx, "stays", time.Hour); err != nil {
					t.Errorf("renew: %v", err)
				}
				if _, err := r.Delete(ctx, id, 0); err != nil {
					t.Errorf("delete: %v", err)
				}
			}
		})
	}
	for range 2 {
		asking.Go(func() {
			for {
				got, err := p.Live(ctx, []string{"never", "stays", "comes and goes 0", "comes and goes 3", "stays"})
				if err != nil || len(got) != 5 || got[0] || !got[1] || !got[4] {
					t.Errorf("live: %v, %v", got, err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	working.Wait()
	close(done)
	asking.Wait()
	wantLive(t, p, []string{"stays", "comes and goes 0"}, func(i int) bool { return i == 0 })
}
