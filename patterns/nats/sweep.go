package nats

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// sweepAtOnce is how many leases a sweeper ends at a time.
	sweepAtOnce = 16
	// sweepSpread is by how much sweepers keep apart, so that as a rule one of them does the work.
	sweepSpread = 20 * time.Millisecond
	// sweepLook is the longest time between two looks: by then a better reading of the clock counts.
	sweepLook = time.Second
)

// sweeper turns the ends of leases into changes, for as long as a change feed is read. Each feed has one; that several do the
// same work does no harm, because an end is written under the condition that the record is still the key's last message. A
// lease that no sweeper comes to in time is over all the same, and the server removes the record without a word.
//
// It does not write on the word of the clock alone that a lease has ended: what it sends might be delivered behind an outage that
// began before. First the server must be known to have been reached after the end.
type sweeper struct {
	registry *Registry
	delay    time.Duration
	wake     chan struct{}

	mu     sync.Mutex
	leases map[string]uint64 // key to the sequence of its record
	due    leaseHeap         // has outdated ones too
}

// leaseEnd is when the lease of a record ends, or at least may.
type leaseEnd struct {
	at      int64 // microseconds of the Unix epoch; without the outages of late
	expires int64 // as the record says
	ttl     int64
	name    string
	seq     uint64
}

func newSweeper(r *Registry) *sweeper {
	return &sweeper{registry: r, delay: rand.N(sweepSpread), wake: make(chan struct{}, 1), leases: make(map[string]uint64)}
}

// note takes a key's state into account, unless a newer one is known. Expires and TTL are those of its record; 0 when it has
// none, or never ends.
func (s *sweeper) note(name string, seq uint64, expires, ttl int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases[name] > seq {
		return
	}
	if expires == 0 {
		delete(s.leases, name)
		return
	}
	s.leases[name] = seq
	if len(s.due) > 2*len(s.leases)+1000 {
		s.compact()
	}
	heap.Push(&s.due, leaseEnd{at: expires, expires: expires, ttl: ttl, name: name, seq: seq})
	if s.due[0].seq == seq {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// compact drops what is outdated. The caller holds s.mu.
func (s *sweeper) compact() {
	kept := s.due[:0]
	for _, l := range s.due {
		if s.leases[l.name] == l.seq {
			kept = append(kept, l)
		}
	}
	clear(s.due[len(kept):])
	s.due = kept
	heap.Init(&s.due)
}

// take returns what is due now, up to sweepAtOnce, and how long to wait when that is nothing. What an outage has prolonged comes
// later.
func (s *sweeper) take(now time.Time, known outages) (due []leaseEnd, pause time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.due) > 0 && len(due) < sweepAtOnce {
		l := s.due[0]
		if pause = instant(l.at).Add(s.delay).Sub(now); pause > 0 && s.leases[l.name] == l.seq {
			return due, min(pause, sweepLook)
		}
		heap.Pop(&s.due)
		if s.leases[l.name] != l.seq {
			continue
		}
		if end := known.end(l.expires, l.ttl); end > l.at {
			l.at = end
			heap.Push(&s.due, l)
			continue
		}
		delete(s.leases, l.name)
		due = append(due, l)
	}
	return due, sweepLook
}

// ended is take with the outages, once the server has been reached after the last end.
func (s *sweeper) ended(ctx context.Context) (due []leaseEnd, pause time.Duration, err error) {
	r := s.registry
	for {
		known, err := r.keeper.current(ctx)
		if err != nil {
			return nil, 0, err
		}
		now := r.clock.estimate()
		if due, pause = s.take(now, known); len(due) == 0 {
			return due, pause, nil
		}
		last := int64(0)
		for _, l := range due {
			last = max(last, l.at)
		}
		if last <= r.clock.contact().UnixMicro() {
			return due, pause, nil
		}
		for _, l := range due { // not yet
			s.note(l.name, l.seq, l.expires, l.ttl)
		}
		if _, err := r.bucket.info(ctx, "", 0); err != nil {
			return nil, 0, err
		}
	}
}

// run sweeps until the context ends.
func (s *sweeper) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		due, pause, err := s.ended(ctx)
		if err != nil { // an outage, in which nothing ends: the feed that this serves ends too
			pause = headEvery
		}
		var all sync.WaitGroup
		for _, l := range due {
			all.Go(func() {
				// An error is another change that came first, or an outage: then the feed that this serves ends too.
				_, _ = s.registry.expire(ctx, l.name, &last{state: state{seq: l.seq}})
			})
		}
		all.Wait()
		if len(due) > 0 {
			continue
		}
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-s.wake:
		case <-ctx.Done():
		}
	}
}

// leaseHeap is a heap with the lease that ends first on top.
type leaseHeap []leaseEnd

func (h leaseHeap) Len() int           { return len(h) }
func (h leaseHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h leaseHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *leaseHeap) Push(x any) { *h = append(*h, x.(leaseEnd)) }

// Pop implements heap.Interface.
func (h *leaseHeap) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = leaseEnd{}
	*h = (*h)[:last]
	return l
}
