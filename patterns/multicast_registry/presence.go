package multicastregistry

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"time"
)

const (
	// firstLook is how long a flight waits for acks before it asks the registry whether its open targets are still registered.
	// The time to the next look doubles up to lookEvery.
	firstLook = 100 * time.Millisecond
	lookEvery = time.Second
)

// presence looks for targets of a flight that are not registered any more. Those that unregister through this process are
// told by it; the others are found by asking the registry now and then.
type presence struct {
	prober Prober // nil when the registry cannot be asked
	flight *flight
	timer  *time.Timer
	wait   time.Duration
	asking sync.WaitGroup
	end    context.CancelFunc
}

func (c *Coordinator) watchPresence(f *flight) *presence {
	p := &presence{flight: f, wait: firstLook, end: func() {}}
	if c.prober != nil && f.inbox != nil {
		p.prober, p.timer = c.prober, time.NewTimer(p.wait)
	}
	return p
}

func (p *presence) due() <-chan time.Time {
	if p.timer == nil {
		return nil
	}
	return p.timer.C
}

// look asks about all targets that are open, without waiting for the answer. A registry that does not answer is asked again
// later: meanwhile the targets stay open.
func (p *presence) look(ctx context.Context) {
	p.asking.Wait() // ended long ago: the timer is set when it does
	ctx, p.end = context.WithCancel(ctx)
	end := p.end
	p.asking.Go(func() {
		defer end()
		which, ids := p.flight.openTargets()
		live, err := p.prober.Live(ctx, ids)
		if err == nil {
			p.flight.left(which, live)
		}
		p.wait = min(2*p.wait, lookEvery)
		p.timer.Reset(p.wait)
	})
}

func (p *presence) stop() {
	p.end()
	p.asking.Wait()
	if p.timer != nil {
		p.timer.Stop()
	}
}

func (f *flight) openTargets() (which []int, ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.targets {
		if f.targets[i].Status == 0 {
			which, ids = append(which, i), append(ids, f.targets[i].Identity)
		}
	}
	return which, ids
}

// left settles those of the targets that are not live. What is being stored by now has its own end, see forget.
func (f *flight) left(which []int, live []bool) {
	now := time.Since(f.start)
	f.mu.Lock()
	defer f.mu.Unlock()
	for n, i := range which {
		switch {
		case live[n]:
		case f.landed:
			f.gone = append(f.gone, i)
		case f.targets[i].Status == 0:
			f.settle(i, Target{Status: f.unregisteredStatus(i), Reason: Gone, Err: errUnregistered}, now)
		}
	}
}

// unregisteredStatus is what a target becomes that is not registered any more.
func (f *flight) unregisteredStatus(i int) Status {
	if f.attempts[i].reached > 0 {
		return Timeout
	}
	return Failed
}

// unregistered tells all flights that an identity is not registered any more.
func (c *Coordinator) unregistered(id string) {
	c.mu.Lock()
	flights := make([]*flight, 0, len(c.flights))
	for _, f := range c.flights {
		if f.inbox != nil {
			flights = append(flights, f)
		}
	}
	c.mu.Unlock()
	for _, f := range flights {
		i := sort.Search(len(f.targets), func(i int) bool { return f.targets[i].Identity >= id }) // names never change
		if i < len(f.targets) && f.targets[i].Identity == id {
			f.left([]int{i}, []bool{false})
		}
	}
}

var errUnregistered = fmt.Errorf("%w: the identity is not registered any more", ErrGone)
