package index

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// A search looks for what a filter selects, segment by segment.
type search struct {
	content  *content
	segments []*segment
	root     *node
	now      int64
	eval     evaluator
	unlocked func() // called after each segment
}

func (c *content) search(now int64, match *filter.Expr) *search {
	return &search{
		content: c, segments: *c.segments.Load(), root: compile(match), now: now, eval: evaluator{scratch: scratches.Get().(*scratch)},
	}
}

// close gives memory back. No set of the search is used after it.
func (q *search) close() {
	q.eval.reset()
	scratches.Put(q.eval.scratch)
	q.eval.scratch = nil
}

// each calls do with what is selected from each segment, which is locked shared. The set is no complement, and good until
// do returns.
func (q *search) each(ctx context.Context, do func(s *segment, selected set)) error {
	for _, s := range q.segments {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("index: %w", err)
		}
		for pending := q.one(s, do); pending != nil; pending = q.one(s, do) {
			if err := pending.learn(ctx, s); err != nil {
				return fmt.Errorf("index: %w", err)
			}
		}
		if q.unlocked != nil {
			q.unlocked()
		}
	}
	return nil
}

// one returns what has to be learned first, if anything.
func (q *search) one(s *segment, do func(s *segment, selected set)) *node {
	e := &q.eval
	s.mu.RLock()
	defer s.mu.RUnlock()
	e.reset()
	e.segment, e.pending = s, nil
	selected := e.selected(q.root)
	if e.pending == nil {
		do(s, e.unlapsed(selected, q.now))
	}
	return e.pending
}

// selected returns the set of what a filter selects, no complement.
func (e *evaluator) selected(root *node) set {
	selected := e.eval(root)
	if !selected.not {
		return selected
	}
	return e.subtract(set{bits: &e.segment.live, n: e.segment.n}, selected)
}

// unlapsed takes away what has a lease that has ended.
func (e *evaluator) unlapsed(selected set, now int64) set {
	if e.segment.earliest.Load() > now || selected.n == 0 {
		return selected
	}
	slots := e.slots(selected)
	first := slices.IndexFunc(slots, func(slot uint16) bool { return e.segment.lapsed(slot, now) })
	if first < 0 {
		return selected
	}
	out := e.empty(len(slots))
	out = append(out, slots[:first]...)
	for _, slot := range slots[first:] {
		if atomic.LoadInt64(&e.segment.expires[slot]) > now {
			out = append(out, slot)
		}
	}
	if selected.bits == nil {
		return listed(out)
	}
	return e.owned(listed(out))
}
