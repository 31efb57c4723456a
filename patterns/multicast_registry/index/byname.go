package index

import (
	"context"
	"math/bits"
	"slices"
	"strings"
	"sync"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// byName is what a search selects, in order of the names. Few documents are collected and sorted. When it would cost less, the
// ordering of all documents is walked through, and each looked up in what was selected.
type byName struct {
	*search

	after    string // leave out names up to this one
	from     bool   // there is an after
	wanted   int    // about how many will be read; 0: all
	found    []found
	kept     []kept
	walking  bool
	bitmaps  []*bitmap
	selected int
	used     int // of found, at least
}

// kept is what was selected from a segment, with the segment's version at that time.
type kept struct {
	set     set
	version uint64
}

var bitmaps = sync.Pool{New: func() any { return new(bitmap) }}

func newByName(c *content, now int64, match *filter.Expr) *byName {
	b := &byName{search: c.search(now, match)}
	b.found = b.eval.found[:0]
	b.eval.found = nil
	return b
}

// collect looks through all segments, and has also look at what is selected from each.
func (b *byName) collect(ctx context.Context, also func(s *segment, selected set)) error {
	return b.each(ctx, func(s *segment, selected set) {
		also(s, selected)
		b.selected += selected.n
		if !b.walking && b.walk(b.selected*len(b.segments)/(len(b.kept)+1)) {
			b.rewind()
		}
		k := kept{version: s.version}
		if b.walking {
			k.set = b.keep(selected)
		} else {
			b.gather(s, b.eval.slots(selected))
		}
		b.kept = append(b.kept, k)
	})
}

// gather adds documents to those found. It asks for the memory of one after the other and waits for none of it: what counts is
// that it follows no pointer.
func (b *byName) gather(s *segment, list []uint16) {
	start := len(b.found)
	b.found = slices.Grow(b.found, len(list))[:start+len(list)]
	for i, slot := range list {
		b.found[start+i].read(s, slot)
	}
	if b.from {
		added := b.found[start:]
		b.found = b.found[:start+len(slices.DeleteFunc(added, func(f found) bool { return f.id() <= b.after }))]
	}
}

// walk tells whether walking is better when about n documents are selected.
func (b *byName) walk(n int) bool {
	const least, step, emit, gather, compare = 500, 8, 150, 100, 15 // nanoseconds, all but the first
	if n < least {
		return false
	}
	steps, emitted := int(b.content.n.Load()), n
	if b.wanted > 0 && b.wanted < n {
		steps, emitted = steps/n*b.wanted, b.wanted
	}
	return 3*(steps*step+emitted*emit)/2 < n*(gather+compare*bits.Len(uint(n)))
}

// rewind turns what was found into what was kept.
func (b *byName) rewind() {
	b.walking = true
	for _, f := range b.found {
		list := &b.kept[f.ref.segment()].set.list
		*list = append(*list, f.ref.slot())
	}
	clear(b.found)
	b.found = b.found[:0]
}

func (b *byName) keep(selected set) set {
	if selected.bits == nil {
		return set{list: slices.Clone(selected.list)}
	}
	own := bitmaps.Get().(*bitmap)
	b.bitmaps = append(b.bitmaps, own)
	*own = *selected.bits
	return set{bits: own}
}

func (b *byName) close() {
	for _, m := range b.bitmaps {
		bitmaps.Put(m)
	}
	b.bitmaps, b.kept = nil, nil
	if cap(b.found) <= 4*mostCandidates {
		clear(b.found[:max(b.used, len(b.found))]) // which holds on to documents
		b.eval.found = b.found[:0]
	}
	b.search.close()
}

// emit calls yield with each document, in order, no name twice, until it returns false or the context ends.
func (b *byName) emit(ctx context.Context, yield func(f *found) bool) {
	if b.walking {
		b.emitWalking(ctx, yield)
		return
	}
	b.eval.named = sortNames(b.found, b.eval.named)
	for i, e := range b.eval.named {
		f := &b.found[e.at]
		if i > 0 && b.eval.named[i-1].head == e.head && b.found[b.eval.named[i-1].at].id() == f.id() {
			continue // removed and put again while segments were looked through
		}
		if !yield(f) {
			return
		}
	}
}

func (b *byName) emitWalking(ctx context.Context, yield func(f *found) bool) {
	var refs []ref
	batch := b.found[:0]
	from, more := b.after, true
	for more && ctx.Err() == nil {
		var next string
		refs, next, more = b.content.order.read(from, refs)
		batch = batch[:0]
		for _, r := range refs {
			f, ok := b.look(r)
			id := f.id()
			if ok && id >= from && (!more || id < next) && (!b.from || id > b.after) {
				batch = append(batch, f)
			}
		}
		b.found, b.used = batch, max(b.used, len(batch))
		inOrder := func(f, g found) int { return strings.Compare(f.id(), g.id()) }
		if !slices.IsSortedFunc(batch, inOrder) { // slots were used again since refs were read
			slices.SortFunc(batch, inOrder)
		}
		for i := range batch {
			if i > 0 && batch[i].id() == batch[i-1].id() {
				continue
			}
			if !yield(&batch[i]) {
				return
			}
		}
		from = next
	}
}

// look reads a document that was selected, unless it has changed since and no longer is.
func (b *byName) look(r ref) (f found, ok bool) {
	if r.segment() >= len(b.kept) {
		return f, false
	}
	k := &b.kept[r.segment()]
	if !k.set.holds(r.slot()) {
		return f, false
	}
	s := b.segments[r.segment()]
	s.mu.RLock()
	defer s.mu.RUnlock()
	if int(r.slot()) >= len(s.records) || !s.live.has(r.slot()) || s.lapsed(r.slot(), b.now) {
		return f, false
	}
	f = s.found(r.slot())
	return f, s.records[r.slot()].stamp <= k.version || b.root.matches(f.encoded())
}
