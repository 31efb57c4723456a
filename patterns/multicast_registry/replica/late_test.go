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

// TestLostWrites has a source that comes back without what was written through the copy: reads do not wait for it for ever, and
// wait for what is written from then on.
func TestLostWrites(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		r, err := replica.New(s, replica.Config{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { _ = r.Run(ctx); close(ended) }()
		defer func() { stop(); <-ended }()
		write := func(id string) {
			t.Helper()
			if _, err := r.Put(ctx, mr.Identity{ID: id, TTL: mr.NoExpiry}, mr.Create); err != nil {
				t.Fatal(err)
			}
		}
		write("a")
		write("b")
		s.feeds <- []mr.Change{reset, put("a", 1), put("b", 2), synced(2)}
		synctest.Wait()
		wantReach(t, r, 0, 2)

		s.Registry = newSource().Registry
		s.away.Store(true)
		s.live <- mr.Change{}                    // the feed ends
		s.feeds <- []mr.Change{reset, synced(0)} // and nobody can say what there is
		s.feeds <- []mr.Change{reset, synced(0)} // the same again
		<-time.After(time.Second)
		s.away.Store(false)
		s.feeds <- []mr.Change{reset, synced(0)}
		<-time.After(time.Second)
		wantReach(t, r, 0, 0)
		wantNames(t, r)

		write("c")
		waiting := make(chan error, 1)
		go func() {
			_, err := r.Reach(ctx, 0)
			waiting <- err
		}()
		synctest.Wait()
		select {
		case err := <-waiting:
			t.Fatalf("a read did not wait for what was written: %v", err)
		default:
		}
		s.live <- put("c", 1)
		if err := <-waiting; err != nil {
			t.Error(err)
		}
		wantNames(t, r, "c")
	})
}
