package replica_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/replica"
)

// lateSource answers a renewal later than it has made it.
type lateSource struct {
	*source
	answer chan struct{}
}

func (s lateSource) Renew(ctx context.Context, id string, ttl time.Duration) (mr.Lease, error) {
	lease, err := s.source.Renew(ctx, id, ttl)
	<-s.answer
	return lease, err
}

// TestLateRenewal has the answer to a renewal come after the feed has told of a later registration, which never expires.
func TestLateRenewal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := lateSource{newSource(), make(chan struct{})}
		r, err := replica.New(s, replica.Config{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { _ = r.Run(ctx); close(ended) }()
		defer func() { stop(); <-ended }()
		if _, err := s.Put(t.Context(), mr.Identity{ID: "a", TTL: time.Second}, mr.Create); err != nil {
			t.Fatal(err)
		}
		first := put("a", 1)
		first.Identity.TTL, first.Identity.ExpiresAt = time.Second, time.Now().Add(time.Second)
		s.feeds <- []mr.Change{reset, first, synced(1)}
		renewed := make(chan struct{})
		go func() { _, _ = r.Renew(ctx, "a", 0); close(renewed) }()
		synctest.Wait()
		s.live <- put("a", 3) // replaced, for ever
		synctest.Wait()
		close(s.answer)
		<-renewed
		<-time.After(2 * time.Second)
		s.live <- synced(3)
		wantReach(t, r, 3, 3)
		wantNames(t, r, "a")
	})
}

// hurriedSource counts how often somebody is in a hurry.
type hurriedSource struct {
	*source
	hurried *atomic.Int64
}

func (s hurriedSource) Hurry() { s.hurried.Add(1) }

// TestHurry has a reader wait for what was written through the copy: the source is told that somebody waits, and only then.
func TestHurry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := hurriedSource{newSource(), new(atomic.Int64)}
		r, err := replica.New(s, replica.Config{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { _ = r.Run(ctx); close(ended) }()
		defer func() { stop(); <-ended }()
		s.feeds <- []mr.Change{reset, synced(0)}
		synctest.Wait()
		wantReach(t, r, 0, 0)
		if n := s.hurried.Load(); n != 0 {
			t.Errorf("nobody waits, and the source is told %d times to hurry", n)
		}
		reached := make(chan error, 1)
		go func() {
			_, err := r.Reach(ctx, 1)
			reached <- err
		}()
		synctest.Wait()
		if n := s.hurried.Load(); n != 1 {
			t.Errorf("somebody waits, and the source is told %d times to hurry", n)
		}
		s.live <- put("a", 1)
		if err := <-reached; err != nil {
			t.Error(err)
		}
	})
}
