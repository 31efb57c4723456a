package slottest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// wantLease fails the test unless the lease that ends at an instant and began at another has exactly this TTL.
func wantLease(t *testing.T, what string, began, ends time.Time, ttl time.Duration) {
	t.Helper()
	if ttl == mr.NoExpiry {
		if !ends.IsZero() {
			t.Errorf("%s: ends at %v, should not end", what, ends)
		}
		return
	}
	if off := ends.Sub(began) - ttl; off <= -time.Millisecond || off >= time.Millisecond {
		t.Errorf("%s: a lease of %v lasts from %v to %v, %v off", what, ttl, began, ends, off)
	}
}

func (s *registrySuite) exactTTL(t *testing.T) {
	r := s.open(t)
	for i, ttl := range []time.Duration{
		time.Second, 1001 * time.Millisecond, 1234 * time.Millisecond, 59_999 * time.Millisecond, time.Hour,
		24*time.Hour + time.Millisecond, 100*365*24*time.Hour - time.Millisecond, 100 * 365 * 24 * time.Hour, mr.NoExpiry,
	} {
		what := fmt.Sprintf("put with %v", ttl)
		stored := put(t, r, mr.Identity{ID: fmt.Sprintf("id-%d", i), TTL: ttl}, mr.Create)
		if stored.TTL != ttl {
			t.Errorf("%s returns %v", what, stored.TTL)
		}
		wantLease(t, what, stored.RegisteredAt, stored.ExpiresAt, ttl)
		found, ok := scan(t, r, nil)[stored.ID]
		if !ok {
			t.Errorf("%s: not found", what)
			continue
		}
		wantSame(t, found, stored)
	}
}

// renew renews one identity with many TTLs: each renewal changes the lease, and nothing else.
func (s *registrySuite) renew(t *testing.T) {
	r := s.open(t)
	stored := put(t, r, mr.Identity{ID: "a", Metadata: rich(), TTL: time.Hour}, mr.Create)
	bystander := put(t, r, identity("b"), mr.Create)
	ttl := stored.TTL
	for i, with := range []time.Duration{
		0, 2 * time.Hour, 0, 1234 * time.Millisecond * 60, 0, mr.NoExpiry, 0, time.Minute, 0, mr.NoExpiry, mr.NoExpiry, time.Hour,
	} {
		what := fmt.Sprintf("renewal %d, with %v", i, with)
		if with != 0 {
			ttl = with
		}
		before := put(t, r, mr.Identity{ID: "clock", TTL: mr.NoExpiry}, mr.Replace).RegisteredAt
		lease, err := r.Renew(t.Context(), "a", with)
		noError(t, err, what)
		after := put(t, r, mr.Identity{ID: "clock", TTL: mr.NoExpiry}, mr.Replace).RegisteredAt
		if lease.Of != stored.Revision {
			t.Errorf("%s: the lease is of revision %d, want %d", what, lease.Of, stored.Revision)
		}
		if lease.TTL != ttl {
			t.Errorf("%s: the TTL is %v, want %v", what, lease.TTL, ttl)
		}
		if ttl == mr.NoExpiry {
			wantLease(t, what, before, lease.ExpiresAt, ttl)
		} else if began := lease.ExpiresAt.Add(-ttl); began.Before(before.Add(-s.ClockTolerance)) || began.After(after.Add(s.ClockTolerance)) {
			t.Errorf("%s: the lease begins at %v, the call lasted from %v to %v", what, began, before, after)
		}
		_, err = r.Delete(t.Context(), "clock", 0)
		noError(t, err, "delete")
		want := stored
		want.TTL, want.ExpiresAt, want.Metadata = lease.TTL, lease.ExpiresAt, rich()
		wantOnly(t, r, want, bystander)
	}
	if _, err := r.Renew(t.Context(), "absent", time.Hour); !errors.Is(err, mr.ErrNotFound) {
		t.Errorf("renewing what was never there: %v", err)
	}
	if _, ok := scan(t, r, nil)["absent"]; ok {
		t.Error("renewing creates")
	}
}

// renewContention lets renewals, replaces and a delete of one identity race: a renewal never brings back what a replace
// or a delete has taken away.
func (s *registrySuite) renewContention(t *testing.T) {
	r := s.open(t)
	for round := range 20 {
		put(t, r, mr.Identity{ID: "a", Metadata: map[string]any{"v": "old"}, TTL: time.Hour}, mr.Create)
		start := make(chan struct{})
		var all sync.WaitGroup
		race := func(f func() error) {
			all.Go(func() {
				<-start
				if err := f(); err != nil {
					t.Error(err)
				}
			})
		}
		for range 8 {
			race(func() error {
				_, err := r.Renew(t.Context(), "a", 2*time.Hour)
				if round%2 == 1 && errors.Is(err, mr.ErrNotFound) {
					return nil
				}
				return err
			})
		}
		race(func() error {
			if round%2 == 1 {
				_, err := r.Delete(t.Context(), "a", 0)
				return err
			}
			_, err := r.Put(t.Context(), mr.Identity{ID: "a", Metadata: map[string]any{"v": "new"}, TTL: time.Minute}, mr.Replace)
			return err
		})
		close(start)
		all.Wait()
		if round%2 == 1 {
			wantOnly(t, r)
			continue
		}
		wantMetadata(t, scan(t, r, nil)["a"], map[string]any{"v": "new"})
		_, err := r.Delete(t.Context(), "a", 0)
		noError(t, err, "delete")
	}
}

// liveUntilExpiry looks at a short lease all its life. Before put began plus TTL it must be live; after put returned plus
// TTL it must be absent; between the two nobody can tell.
func (s *registrySuite) liveUntilExpiry(t *testing.T) {
	r := s.open(t)
	began := time.Now()
	put(t, r, mr.Identity{ID: "a", TTL: s.ShortestTTL}, mr.Create)
	mustLive := began.Add(s.ShortestTTL - s.ClockTolerance)
	mustNot := time.Now().Add(s.ShortestTTL + s.ClockTolerance)
	eventually(t, s.Patience, "the lease ends", func() bool {
		start := time.Now()
		_, live := scan(t, r, nil)["a"]
		end := time.Now()
		if !live && end.Before(mustLive) {
			t.Errorf("gone %v before its time", mustLive.Sub(end))
		}
		if live && start.After(mustNot) {
			t.Errorf("live %v after its time", start.Sub(mustNot))
		}
		return start.After(mustNot)
	})
}

// absentFromExpiry asks each method first, in a registry of its own, so that no other call can have swept before.
func (s *registrySuite) absentFromExpiry(t *testing.T) {
	checks := map[string]func(r mr.Registry){
		"scan":  func(r mr.Registry) { wantOnly(t, r) },
		"count": func(r mr.Registry) { wantCount(t, r, 0) },
		"renew": func(r mr.Registry) {
			for _, ttl := range []time.Duration{0, time.Hour, mr.NoExpiry} {
				if lease, err := r.Renew(t.Context(), "a", ttl); !errors.Is(err, mr.ErrNotFound) {
					t.Errorf("renewing what has expired: %+v, %v", lease, err)
				}
			}
			wantOnly(t, r)
		},
		"delete": func(r mr.Registry) {
			if existed, err := r.Delete(t.Context(), "a", 0); existed || err != nil {
				t.Errorf("deleting what has expired: %v, %v", existed, err)
			}
			wantOnly(t, r)
		},
		"create": func(r mr.Registry) { wantOnly(t, r, put(t, r, identity("b"), mr.Create)) },
	}
	open := map[string]mr.Registry{}
	for name := range checks {
		open[name] = s.open(t)
		for n := range 100 { // a backend that sweeps a few on each call comes to these first
			put(t, open[name], mr.Identity{ID: fmt.Sprint(n), Metadata: map[string]any{"x": true}, TTL: s.ShortestTTL}, mr.Create)
		}
		put(t, open[name], mr.Identity{ID: "a", Metadata: map[string]any{"x": true}, TTL: s.ShortestTTL}, mr.Create)
	}
	waitUntil(time.Now().Add(s.ShortestTTL + s.ClockTolerance))
	for name, check := range checks {
		check(open[name])
	}
}

// createOverExpired lets creates race for identities that expired an instant ago.
func (s *registrySuite) createOverExpired(t *testing.T) {
	r := s.open(t)
	const ids = 20
	old := map[string]mr.Identity{}
	for n := range ids {
		id := fmt.Sprintf("id-%d", n)
		old[id] = put(t, r, mr.Identity{ID: id, Metadata: map[string]any{"old": true}, TTL: s.ShortestTTL}, mr.Create)
	}
	replaced := put(t, r, mr.Identity{ID: "replaced", Metadata: map[string]any{"old": true}, TTL: s.ShortestTTL}, mr.Create)
	waitUntil(time.Now().Add(s.ShortestTTL + s.ClockTolerance))
	var won atomic.Int64
	var all sync.WaitGroup
	for n := range ids * 5 {
		id := fmt.Sprintf("id-%d", n%ids)
		all.Go(func() {
			stored, err := r.Put(t.Context(), mr.Identity{ID: id, Metadata: map[string]any{"new": true}, TTL: time.Hour}, mr.Create)
			switch {
			case err == nil:
				won.Add(1)
				if stored.RegisteredAt.Before(old[id].ExpiresAt) {
					t.Errorf("%s: registered at %v, while the lease before lasts until %v", id, stored.RegisteredAt, old[id].ExpiresAt)
				}
			case !errors.Is(err, mr.ErrAlreadyExists):
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won.Load() != ids {
		t.Errorf("%d creates succeeded over %d expired identities", won.Load(), ids)
	}
	again := put(t, r, mr.Identity{ID: "replaced", Metadata: map[string]any{"new": true}, TTL: time.Hour}, mr.Replace)
	if again.RegisteredAt.Before(replaced.ExpiresAt) {
		t.Errorf("registered at %v, while the lease before lasts until %v", again.RegisteredAt, replaced.ExpiresAt)
	}
	live := scan(t, r, nil)
	if len(live) != ids+1 {
		t.Errorf("%d identities are live", len(live))
	}
	for _, i := range live {
		wantMetadata(t, i, map[string]any{"new": true})
	}
	wantCount(t, r, ids+1)
}

// staleExpiry gives identities a short lease and then another one: the expiry of the first must take nothing away, however
// late the backend comes to sweep.
func (s *registrySuite) staleExpiry(t *testing.T) {
	r := s.open(t)
	short := func(id string) mr.Identity {
		return mr.Identity{ID: id, Metadata: map[string]any{"x": true}, TTL: s.ShortestTTL}
	}
	long := func(id string) mr.Identity {
		return mr.Identity{ID: id, Metadata: map[string]any{"x": true}, TTL: time.Hour}
	}
	renewWith := func(id string, ttl time.Duration) {
		t.Helper()
		_, err := r.Renew(t.Context(), id, ttl)
		noError(t, err, "renew "+id)
	}
	for n := range 200 {
		put(t, r, short(fmt.Sprintf("bystander-%d", n)), mr.Create)
	}
	put(t, r, short("re-created"), mr.Create)
	put(t, r, long("shortened"), mr.Create)
	renewWith("shortened", s.ShortestTTL)
	put(t, r, mr.Identity{ID: "no longer endless", TTL: mr.NoExpiry}, mr.Create)
	renewWith("no longer endless", s.ShortestTTL)
	put(t, r, long("replaced by a shorter one"), mr.Create)
	put(t, r, short("replaced by a shorter one"), mr.Replace)

	// These three live on, so the change must come before the first lease ends: they get a lease with time to spare.
	spare := 10 * s.ShortestTTL
	begin := func(id string) { put(t, r, mr.Identity{ID: id, TTL: spare}, mr.Create) }
	begin("renewed")
	renewWith("renewed", time.Hour)
	begin("replaced")
	put(t, r, long("replaced"), mr.Replace)
	begin("endless")
	renewWith("endless", mr.NoExpiry)
	begin("deleted and created")
	if existed, err := r.Delete(t.Context(), "deleted and created", 0); !existed || err != nil {
		t.Errorf("delete: %v, %v", existed, err)
	}
	put(t, r, long("deleted and created"), mr.Create)
	end := time.Now().Add(spare + s.ClockTolerance)

	waitUntil(time.Now().Add(s.ShortestTTL + s.ClockTolerance))
	put(t, r, long("re-created"), mr.Create)
	swept := time.Now().Add(s.SweptWithin)
	if swept.Before(end) {
		swept = end
	}
	live := []string{"re-created", "renewed", "replaced", "endless", "deleted and created"}
	eventually(t, s.Patience+time.Until(swept), "sweeps have come by", func() bool {
		start := time.Now()
		put(t, r, mr.Identity{ID: "passing", TTL: mr.NoExpiry}, mr.Replace)
		_, err := r.Delete(t.Context(), "passing", 0)
		noError(t, err, "delete")
		found := scan(t, r, nil)
		for _, id := range live {
			if _, ok := found[id]; !ok {
				t.Fatalf("%q is gone", id)
			}
		}
		if len(found) != len(live) {
			t.Fatalf("%d are live, want %v", len(found), live)
		}
		return start.After(swept)
	})
	wantCount(t, r, len(live))
}
