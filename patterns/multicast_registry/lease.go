package multicastregistry

import (
	"container/heap"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// renewalsAtOnce bounds the renewals of one keeper that are under way at the same time: enough that a backend which renews
	// many with one call, because they come at once, has many.
	renewalsAtOnce = 64
	// renewalRetry is the wait after a renewal that the backend could not answer.
	renewalRetry = 250 * time.Millisecond
	// renewalTimeout bounds one renewal, because the others of its round wait for it.
	renewalTimeout = 2 * time.Second
	// endlessCheck is the time between two looks at an identity that never expires: it may be gone all the same.
	endlessCheck = 30 * time.Second
)

// keeper renews leases, each about three times per TTL, and collects those that are lost.
type keeper struct {
	registry Registry
	wake     chan struct{} // there is something new to renew
	lostSome chan struct{} // takeLost has something to take

	mu    sync.Mutex
	kept  map[string]*renewal
	queue renewals
	lost  []string
}

// renewal is the next renewal of one identity.
type renewal struct {
	id    string
	due   time.Time
	place int  // in the queue; -1 while it is being renewed
	again bool // keep was called while it was being renewed: what that finds may be out of date
}

func newKeeper(registry Registry) *keeper {
	return &keeper{
		registry: registry, kept: make(map[string]*renewal),
		wake: make(chan struct{}, 1), lostSome: make(chan struct{}, 1),
	}
}

// keep renews identities at once and from then on. Those that are kept already may have been registered anew, with
// another TTL, so they are renewed at once too.
func (k *keeper) keep(ids []string) {
	now := time.Now()
	k.mu.Lock()
	for _, id := range ids {
		r := k.kept[id]
		switch {
		case r == nil:
			r = &renewal{id: id, due: now}
			k.kept[id] = r
			heap.Push(&k.queue, r)
		case r.place >= 0:
			r.due = now
			heap.Fix(&k.queue, r.place)
		default:
			r.again = true
		}
	}
	k.mu.Unlock()
	signal(k.wake)
}

// drop stops renewing identities.
func (k *keeper) drop(ids []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range ids {
		if r := k.kept[id]; r != nil {
			k.forget(r)
		}
	}
}

func (k *keeper) forget(r *renewal) {
	delete(k.kept, r.id)
	if r.place >= 0 {
		heap.Remove(&k.queue, r.place)
	}
}

// takeLost returns the identities whose leases were lost since the last call.
func (k *keeper) takeLost() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	lost := k.lost
	k.lost = nil
	return lost
}

// run renews until ctx ends.
func (k *keeper) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		due, next := k.takeDue(time.Now())
		if len(due) > 0 {
			k.renewAll(ctx, due)
			continue
		}
		timer.Reset(next)
		select {
		case <-timer.C:
		case <-k.wake:
		case <-ctx.Done():
			return
		}
	}
}

// takeDue takes what is due out of the queue, or tells how long it is until something will be.
func (k *keeper) takeDue(now time.Time) (due []*renewal, next time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.queue) > 0 && !k.queue[0].due.After(now) {
		due = append(due, heap.Pop(&k.queue).(*renewal))
	}
	if len(k.queue) == 0 {
		return due, time.Hour
	}
	return due, k.queue[0].due.Sub(now)
}

func (k *keeper) renewAll(ctx context.Context, due []*renewal) {
	var workers sync.WaitGroup
	work := make(chan *renewal)
	for range min(renewalsAtOnce, len(due)) {
		workers.Go(func() {
			for r := range work {
				k.renew(ctx, r)
			}
		})
	}
	for _, r := range due {
		work <- r
	}
	close(work)
	workers.Wait()
}

// renew renews one lease and puts it back into the queue, unless it is lost, endless, or no longer wanted.
func (k *keeper) renew(ctx context.Context, r *renewal) {
	call, cancel := context.WithTimeout(ctx, renewalTimeout)
	lease, err := k.registry.Renew(call, r.id, 0)
	cancel()
	if ctx.Err() != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept[r.id] != r {
		return
	}
	switch {
	case r.again:
		r.again, r.due = false, time.Now()
	case errors.Is(err, ErrNotFound):
		k.forget(r)
		k.lost = append(k.lost, r.id)
		signal(k.lostSome)
		return
	case err != nil:
		r.due = time.Now().Add(renewalRetry)
	case lease.TTL == NoExpiry:
		r.due = time.Now().Add(endlessCheck)
	default:
		// A third of the TTL, a tenth more or less, so that leases that began together do not stay together.
		r.due = time.Now().Add(time.Duration(float64(lease.TTL) / 3 * (0.9 + 0.2*rand.Float64())))
	}
	heap.Push(&k.queue, r)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// renewals is a heap with the earliest renewal on top.
type renewals []*renewal

func (q renewals) Len() int           { return len(q) }
func (q renewals) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q renewals) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push implements heap.Interface.
func (q *renewals) Push(x any) {
	r := x.(*renewal)
	r.place = len(*q)
	*q = append(*q, r)
}

// Pop implements heap.Interface.
func (q *renewals) Pop() any {
	r := (*q)[len(*q)-1]
	r.place = -1
	*q = (*q)[:len(*q)-1]
	return r
}
