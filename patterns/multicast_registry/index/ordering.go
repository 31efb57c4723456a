package index

import (
	"slices"
	"strings"
	"sync"
)

// mostRefs is the most documents of a block.
const mostRefs = 128

// An ordering is all documents in order of their names: blocks, each of which holds what is not below its first and below the
// first of the next one. Only the writer changes it; it may read without the lock.
type ordering struct {
	mu     sync.RWMutex
	blocks []orderBlock // at least one, the first with an empty first
}

type orderBlock struct {
	head  head // of first
	first string
	refs  []ref
	keys  []uint16 // two bytes of each name, so that few names have to be looked at
	skip  int      // bytes before those, which all names that belong here have in common
}

func newOrdering() *ordering { return &ordering{blocks: make([]orderBlock, 1)} }

// block finds the block in which a name belongs.
func (o *ordering) block(h head, id string) int {
	low, high := 0, len(o.blocks)-1
	for low < high {
		middle := int(uint(low+high) / 2)
		next := &o.blocks[middle+1]
		if c := next.head.compare(h); c > 0 || c == 0 && next.first > id {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low
}

func (b *orderBlock) key(id string) uint16 { return uint16(keyAt(id, b.skip) >> 48) }

// find finds where a name is, or belongs.
func (b *orderBlock) find(h head, id string, at func(ref) *record) int {
	key := b.key(id)
	low, high := 0, len(b.keys)
	for low < high {
		middle := int(uint(low+high) / 2)
		below := b.keys[middle] < key
		if b.keys[middle] == key {
			r := at(b.refs[middle])
			c := r.head.compare(h)
			below = c < 0 || c == 0 && r.id() < id
		}
		if below {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// bound takes note of what the names that belong in a block have in common by now: what its bounds have.
func (o *ordering) bound(n int, at func(ref) *record) {
	b, common := &o.blocks[n], 0
	if n+1 < len(o.blocks) {
		common = sharedPrefix(b.first, o.blocks[n+1].first)
	}
	if common == b.skip {
		return
	}
	b.skip = common
	for i, r := range b.refs {
		b.keys[i] = b.key(at(r).id())
	}
}

// insert adds a document, whose record need not be where at looks yet.
func (o *ordering) insert(document *record, r ref, at func(ref) *record) {
	id := document.id()
	n := o.block(document.head, id)
	b := &o.blocks[n]
	i := b.find(document.head, id, at)
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(b.refs) == mostRefs {
		half := mostRefs / 2
		if n == len(o.blocks)-1 && i == mostRefs { // names that only ever grow leave full blocks
			half = mostRefs
		}
		o.split(n, half, id, at)
		if i > half || half == mostRefs {
			n, i = n+1, i-half
		}
		b = &o.blocks[n]
	}
	b.refs = slices.Insert(withRoom(b.refs, mostRefs), i, r)
	b.keys = slices.Insert(withRoom(b.keys, mostRefs), i, b.key(id))
}

// split makes a block of what a block has from a place on or, when that is nothing, one for a name.
func (o *ordering) split(n, from int, id string, at func(ref) *record) {
	b := &o.blocks[n]
	next := orderBlock{first: id, skip: b.skip}
	b.refs, next.refs = splitList(b.refs, from)
	b.keys, next.keys = splitList(b.keys, from)
	if len(next.refs) > 0 {
		next.first = at(next.refs[0]).id()
	}
	next.head, next.first = headOf(next.first), strings.Clone(next.first)
	o.blocks = slices.Insert(o.blocks, n+1, next)
	o.bound(n, at)
	o.bound(n+1, at)
}

// remove removes the document of that name, which is there.
func (o *ordering) remove(id string, at func(ref) *record) {
	h := headOf(id)
	n := o.block(h, id)
	b := &o.blocks[n]
	i := b.find(h, id, at)
	o.mu.Lock()
	defer o.mu.Unlock()
	b.refs, b.keys = slices.Delete(b.refs, i, i+1), slices.Delete(b.keys, i, i+1)
	if n+1 < len(o.blocks) && len(b.refs)+len(o.blocks[n+1].refs) <= mostRefs/4 {
		b.refs, b.keys = append(b.refs, o.blocks[n+1].refs...), append(b.keys, o.blocks[n+1].keys...)
		b.skip = -1 // the keys are of two kinds
		o.blocks = slices.Delete(o.blocks, n+1, n+2)
		o.bound(n, at)
	}
}

// read copies the block in which a name belongs, and tells where the next one begins.
func (o *ordering) read(from string, buffer []ref) (refs []ref, next string, more bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	n := o.block(headOf(from), from)
	buffer = append(buffer[:0], o.blocks[n].refs...)
	if n+1 < len(o.blocks) {
		return buffer, o.blocks[n+1].first, true
	}
	return buffer, "", false
}
