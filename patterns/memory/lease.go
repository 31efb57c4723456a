package memory

import (
	"container/heap"
	"time"
)

// sweep removes up to limit expired entries. Expiring is a change, so it takes a revision. The caller holds r.mu.
func (r *Registry) sweep(now time.Time, limit int) {
	for range limit {
		if len(r.leases) == 0 || !expired(r.leases[0].identity, now) {
			return
		}
		r.drop(r.leases[0])
	}
}

// count sweeps all that has expired, and counts what is left. The caller holds r.mu.
func (r *Registry) count(now time.Time) int {
	r.sweep(now, len(r.leases))
	return len(r.entries)
}

// drop removes an entry. The caller holds r.mu.
func (r *Registry) drop(e *entry) {
	r.revision++
	delete(r.entries, e.identity.ID)
	if e.place >= 0 {
		heap.Remove(&r.leases, e.place)
	}
}

// reschedule puts an entry where its lease's end belongs. The caller holds r.mu.
func (r *Registry) reschedule(e *entry) {
	switch endless := e.identity.ExpiresAt.IsZero(); {
	case endless && e.place >= 0:
		heap.Remove(&r.leases, e.place)
	case endless:
	case e.place >= 0:
		heap.Fix(&r.leases, e.place)
	default:
		heap.Push(&r.leases, e)
	}
}

// leases is a heap with the entry that expires first on top.
type leases []*entry

func (l leases) Len() int           { return len(l) }
func (l leases) Less(i, j int) bool { return l[i].identity.ExpiresAt.Before(l[j].identity.ExpiresAt) }

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
