package slottest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func (s *registrySuite) revisions(t *testing.T) {
	r := s.open(t)
	header, ok := r.(mr.Header)
	if !ok {
		if got := put(t, r, identity("a"), mr.Create); got.Revision != 0 {
			t.Errorf("a registry without revisions returns revision %d", got.Revision)
		}
		return
	}
	head := func() mr.Revision {
		t.Helper()
		revision, err := header.Head(t.Context())
		noError(t, err, "head")
		return revision
	}
	last := head()
	grown := func(what string, change func() mr.Revision) {
		t.Helper()
		revision := change()
		now := head()
		if now <= last || revision > now || revision != 0 && revision <= last {
			t.Errorf("%s: revision %d, head %d; the head was %d", what, revision, now, last)
		}
		last = now
	}
	same := func(what string, change func()) {
		t.Helper()
		change()
		if now := head(); now != last {
			t.Errorf("%s changes nothing, but the head goes from %d to %d", what, last, now)
		}
	}
	grown("create", func() mr.Revision { return put(t, r, identity("a"), mr.Create).Revision })
	grown("create another", func() mr.Revision { return put(t, r, identity("b"), mr.Create).Revision })
	grown("replace", func() mr.Revision { return put(t, r, identity("a"), mr.Replace).Revision })
	same("a refused create", func() { _, _ = r.Put(t.Context(), identity("a"), mr.Create) })
	same("a renewal in vain", func() { _, _ = r.Renew(t.Context(), "absent", time.Hour) })
	same("a deletion in vain", func() { _, _ = r.Delete(t.Context(), "absent", 0) })
	same("a scan", func() { scan(t, r, nil) })
	grown("delete", func() mr.Revision {
		_, err := r.Delete(t.Context(), "a", 0)
		noError(t, err, "delete")
		return 0
	})
	before := scan(t, r, nil)["b"]
	if _, err := r.Renew(t.Context(), "b", time.Minute); err != nil {
		t.Error(err)
	}
	if after := scan(t, r, nil)["b"]; after.Revision != before.Revision || after.Revision == 0 {
		t.Errorf("renewing takes the revision from %d to %d", before.Revision, after.Revision)
	}
	if now := head(); now < last {
		t.Errorf("the head goes back from %d to %d", last, now)
	}
}

func (s *registrySuite) ping(t *testing.T) { pingSlot(t, s.open(t)) }

// pingSlot checks the optional Pinger of any slot.
func pingSlot(t *testing.T, slot any) {
	t.Helper()
	p, ok := slot.(mr.Pinger)
	if !ok {
		return
	}
	if err := p.Ping(t.Context()); err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := p.Ping(cancelled(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("ping, cancelled: %v", err)
	}
}

// quota lets contenders race for the last places.
func (s *registrySuite) quota(t *testing.T) {
	if s.OpenLimited == nil {
		t.Skip("RegistryOptions.OpenLimited is not set")
	}
	const limit = 10
	r := s.OpenLimited(t, limit)
	var won, refused atomic.Int64
	var all sync.WaitGroup
	for n := range 3 * limit {
		all.Go(func() {
			_, err := r.Put(t.Context(), identity(fmt.Sprintf("id-%d", n)), mr.PutMode(n%2))
			switch {
			case err == nil:
				won.Add(1)
			case errors.Is(err, mr.ErrQuota):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won.Load() != limit || refused.Load() != 2*limit {
		t.Errorf("%d of %d places taken, %d refused", won.Load(), limit, refused.Load())
	}
	start := time.Now()
	for id := range scan(t, r, nil) {
		put(t, r, mr.Identity{ID: id, TTL: s.ShortestTTL}, mr.Replace)
	}
	end := time.Now()
	_, err := r.Put(t.Context(), identity("early"), mr.Create)
	switch inTime := time.Since(start) < s.ShortestTTL-s.ClockTolerance; {
	case err == nil && !inTime: // the machine is so slow that a place was free
		_, err = r.Delete(t.Context(), "early", 0)
		noError(t, err, "delete")
	case !errors.Is(err, mr.ErrQuota):
		t.Errorf("one more: %v", err)
	}
	waitUntil(end.Add(s.ShortestTTL + s.ClockTolerance))
	for n := range limit {
		put(t, r, identity(fmt.Sprintf("next-%d", n)), mr.Create)
	}
	if _, err := r.Put(t.Context(), identity("new"), mr.Replace); !errors.Is(err, mr.ErrQuota) {
		t.Errorf("one more: %v", err)
	}
}

// pair looks at one registry as two processes do.
func (s *registrySuite) pair(t *testing.T) {
	if s.OpenPair == nil {
		t.Skip("RegistryOptions.OpenPair is not set")
	}
	a, b := s.OpenPair(t)
	contend(t, a, b)
	stored := put(t, a, identity("through a"), mr.Create)
	wantSame(t, scan(t, b, nil)["through a"], stored)
	lease, err := b.Renew(t.Context(), "through a", time.Minute)
	noError(t, err, "renew through b")
	stored.TTL, stored.ExpiresAt = lease.TTL, lease.ExpiresAt
	wantSame(t, scan(t, a, nil)["through a"], stored)
	if existed, err := b.Delete(t.Context(), "through a", 0); !existed || err != nil {
		t.Errorf("delete through b: %v, %v", existed, err)
	}
	if _, ok := scan(t, a, nil)["through a"]; ok {
		t.Error("a sees what b deleted")
	}
}

func (s *registrySuite) neighbours(t *testing.T) {
	if s.OpenNeighbours == nil {
		t.Skip("RegistryOptions.OpenNeighbours is not set")
	}
	a, b := s.OpenNeighbours(t)
	ofA := put(t, a, mr.Identity{ID: "same", Metadata: map[string]any{"of": "a"}, TTL: time.Hour}, mr.Create)
	wantOnly(t, b)
	ofB := put(t, b, mr.Identity{ID: "same", Metadata: map[string]any{"of": "b"}, TTL: time.Minute}, mr.Create)
	wantOnly(t, a, ofA)
	wantOnly(t, b, ofB)
	if existed, err := b.Delete(t.Context(), "same", 0); !existed || err != nil {
		t.Errorf("delete: %v, %v", existed, err)
	}
	wantOnly(t, a, ofA)
	wantOnly(t, b)
}
