package replica_test

import (
	"context"
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
