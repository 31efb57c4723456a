package index

import (
	"slices"
	"sort"
	"strings"
	"sync"
)

// orderBlock is the most documents of a block.
const orderBlock = 128

// An ordering is all documents in order of their names: blocks of refs, each of which holds what is not below its first and
// below the first of the next one. Only the writer changes it; it may read without the lock.
type ordering struct {
	mu     sync.RWMutex
	blocks []orderedRefs // at least one, the first with an empty first
}

type orderedRefs struct {
	first string
	refs  []ref
}

func newOrdering() *ordering { return &ordering{blocks: make([]orderedRefs, 1)} }

// block finds the block in which a name belongs.
func (o *ordering) block(id string) int {
	return sort.Search(len(o.blocks)-1, func(i int) bool { return o.blocks[i+1].first > id })
}

// place finds where a name is, or belongs.
func (o *ordering) place(id string, name func(ref) string) (b, i int) {
	b = o.block(id)
	refs := o.blocks[b].refs
	return b, sort.Search(len(refs), func(i int) bool { return name(refs[i]) >= id })
}

func (o *ordering) insert(id string, r ref, name func(ref) string) {
	b, i := o.place(id, name)
	o.mu.Lock()
	defer o.mu.Unlock()
	block := &o.blocks[b]
	if len(block.refs) < orderBlock {
		block.refs = slices.Insert(block.refs, i, r)
		return
	}
	half := orderBlock / 2
	if b == len(o.blocks)-1 && i == orderBlock { // names that only ever grow leave full blocks
		half = orderBlock
	}
	next := orderedRefs{first: id, refs: append(make([]ref, 0, orderBlock*3/4), block.refs[half:]...)}
	block.refs = block.refs[:half:half]
	if len(next.refs) > 0 {
		next.first = strings.Clone(name(next.refs[0]))
	} else {
		next.first = strings.Clone(id)
	}
	if i > half || half == orderBlock {
		next.refs = slices.Insert(next.refs, i-half, r)
	} else {
		block.refs = slices.Insert(block.refs, i, r)
	}
	o.blocks = slices.Insert(o.blocks, b+1, next)
}

// remove removes the document of that name, which is there.
func (o *ordering) remove(id string, name func(ref) string) {
	b, i := o.place(id, name)
	o.mu.Lock()
	defer o.mu.Unlock()
	block := &o.blocks[b]
	block.refs = slices.Delete(block.refs, i, i+1)
	if b+1 < len(o.blocks) && len(block.refs)+len(o.blocks[b+1].refs) <= orderBlock/4 {
		block.refs = append(block.refs, o.blocks[b+1].refs...)
		o.blocks = slices.Delete(o.blocks, b+1, b+2)
	}
}

// read copies the block in which a name belongs, and tells where the next one begins.
func (o *ordering) read(from string, buffer []ref) (refs []ref, next string, more bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	b := o.block(from)
	buffer = append(buffer[:0], o.blocks[b].refs...)
	if b+1 < len(o.blocks) {
		return buffer, o.blocks[b+1].first, true
	}
	return buffer, "", false
}
