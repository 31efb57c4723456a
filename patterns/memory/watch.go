package memory

import (
	"context"
	"iter"
	"sync"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// sweepEvery is how often expiries are looked for while somebody watches; else writes do that.
const sweepEvery = 20 * time.Millisecond

// Watch implements multicastregistry.Watcher. Tokens are good for as long as the process lives.
func (r *Registry) Watch(ctx context.Context, w multicastregistry.Watch) iter.Seq2[multicastregistry.News, error] {
	return func(yield func(multicastregistry.News, error) bool) {
		end := r.sweeper.begin(r.sweepDue)
		defer end()
		r.sweepDue() // nobody did while nobody watched
		r.hub.Watch(ctx, w)(yield)
	}
}

// sweepDue removes what has expired, some at a time so that others get their turn.
func (r *Registry) sweepDue() {
	for more := true; more; {
		now := r.now()
		if earliest := r.index.Earliest(); earliest.IsZero() || earliest.After(now) {
			return
		}
		r.hub.Lock()
		more = r.sweep(now)
		r.unlock()
	}
}

// sweeper sweeps from time to time while somebody wants it.
type sweeper struct {
	mu      sync.Mutex
	wanted  int
	stop    chan struct{}
	running sync.WaitGroup
}

// begin sees to sweeping until the function that it returns is called.
func (s *sweeper) begin(sweep func()) (end func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted++; s.wanted == 1 {
		stop := make(chan struct{})
		s.stop = stop
		s.running.Go(func() { every(sweepEvery, stop, sweep) })
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.wanted--; s.wanted == 0 {
			close(s.stop)
			s.running.Wait()
		}
	}
}

func every(period time.Duration, stop <-chan struct{}, do func()) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			do()
		case <-stop:
			return
		}
	}
}

// watched is the registry as those see it who watch.
type watched struct{ r *Registry }

// Current implements watch.Source: it always is.
func (watched) Current() error { return nil }

// Query implements watch.Source.
func (w watched) Query(
	ctx context.Context, now time.Time, q multicastregistry.Selection,
) (multicastregistry.Selected, error) {
	return w.r.index.Query(ctx, now, q)
}

// Reach implements watch.Source: there is nothing else to know.
func (w watched) Reach(ctx context.Context, _ multicastregistry.Revision) error { return ctx.Err() }
