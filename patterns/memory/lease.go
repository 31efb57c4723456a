package memory

import (
	"container/heap"
	"time"
)

// How leases end. Whoever finds an identity looks at its lease, so an expired one is absent whether it was swept or not:
// the heap below is for memory and for counting only. It is ordered by when an entry is due for a look. A renewal that makes
// a lease last longer leaves the heap alone; the sweep finds the entry alive when it is due, and puts it back further down.
// So a renewal costs the sweep one step at the most, and a write takes few steps however many leases end at once.

// sweepAtOnce is how many due entries one write looks at.
const sweepAtOnce = 32

// sweep looks at entries that are due, drops those that have expired, and tells whether more are due. The caller holds r.mu.
func (r *Registry) sweep(now time.Time) (more bool) {
	for range sweepAtOnce {
		if !r.leases.due(now) {
			return false
		}
		e := r.leases[0]
		switch identity := e.identity.Load(); {
		case !live(identity, now):
			r.drop(e)
		case identity.ExpiresAt.IsZero():
			heap.Pop(&r.leases)
		default:
			e.due = identity.ExpiresAt
			heap.Fix(&r.leases, 0)
		}
	}
	return r.leases.due(now)
}

// drop removes an entry, which is a change whether it was deleted or has expired. The caller holds r.mu.
func (r *Registry) drop(e *entry) {
	r.revision.Add(1)
	delete(r.entries, e.identity.Load().ID)
	last := len(r.list) - 1
	r.list[e.listed] = r.list[last]
	r.list[e.listed].listed = e.listed
	r.list[last] = nil
	r.list = r.list[:last]
	if e.place >= 0 {
		heap.Remove(&r.leases, e.place)
	}
	e.identity.Store(nil)
}

// fits tells whether an entry's place in the heap does for a lease that ends at an instant; zero means never.
func (e *entry) fits(expiresAt time.Time) bool {
	return expiresAt.IsZero() || e.place >= 0 && !expiresAt.Before(e.due)
}

// leases is a heap with the entry that is due first on top.
type leases []*entry

func (l leases) due(now time.Time) bool { return len(l) > 0 && !now.Before(l[0].due) }

// schedule gives an entry a place that does for its lease.
func (l *leases) schedule(e *entry, expiresAt time.Time) {
	switch {
	case e.fits(expiresAt):
	case e.place >= 0:
		e.due = expiresAt
		heap.Fix(l, e.place)
	default:
		e.due = expiresAt
		heap.Push(l, e)
	}
}

func (l leases) Len() int           { return len(l) }
func (l leases) Less(i, j int) bool { return l[i].due.Before(l[j].due) }

func (l leases) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].place, l[j].place = i, j
}

// Push implements heap.Interface.
func (l *leases) Push(x any) {
	e := x.(*entry)
	e.place = len(*l)
	*l = append(*l, e)
}

// Pop implements heap.Interface.
func (l *leases) Pop() any {
	last := len(*l) - 1
	e := (*l)[last]
	e.place = -1
	(*l)[last] = nil
	*l = (*l)[:last]
	return e
}
