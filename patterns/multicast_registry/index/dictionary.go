package index

import (
	"slices"
	"sort"
)

// blockTerms is the most terms of a block.
const blockTerms = 256

// A key is a term that a dictionary orders.
type key[K any] interface {
	compare(other K) int
}

// A dictionary holds the distinct values of one kind of one field, in order, each with the posting of the documents that
// have it: blocks of up to blockTerms, so that neither a search nor an insertion touches much. The zero dictionary is empty.
type dictionary[K key[K]] struct {
	blocks []*block[K] // none is empty
	n      int
}

type block[K key[K]] struct {
	keys     []K
	postings []posting
}

// A position is that of a term, or of the end: the block after the last one.
type position struct{ block, term int }

func (d *dictionary[K]) end() position { return position{block: len(d.blocks)} }

// seek finds the first term that is not below a key, and whether it is the key itself.
func (d *dictionary[K]) seek(k K) (at position, found bool) {
	b := sort.Search(len(d.blocks), func(i int) bool { return d.blocks[i].keys[0].compare(k) > 0 }) - 1
	if b < 0 {
		return position{}, false
	}
	keys := d.blocks[b].keys
	t := sort.Search(len(keys), func(i int) bool { return keys[i].compare(k) >= 0 })
	if t == len(keys) {
		return position{block: b + 1}, false
	}
	return position{b, t}, keys[t].compare(k) == 0
}

// after finds the first term above a key.
func (d *dictionary[K]) after(k K) position {
	at, found := d.seek(k)
	if found {
		at = d.next(at)
	}
	return at
}

func (d *dictionary[K]) next(at position) position {
	if at.term++; at.term == len(d.blocks[at.block].keys) {
		return position{block: at.block + 1}
	}
	return at
}

// find returns the posting of a term, or nil.
func (d *dictionary[K]) find(k K) *posting {
	at, found := d.seek(k)
	if !found {
		return nil
	}
	return &d.blocks[at.block].postings[at.term]
}

// terms tells about how many terms lie between two positions.
func (d *dictionary[K]) terms(from, to position) int {
	switch {
	case from.block > to.block || from.block == to.block && from.term >= to.term:
		return 0
	case from.block == to.block:
		return to.term - from.term
	default:
		n := len(d.blocks[from.block].keys) - from.term + to.term
		if between := to.block - from.block - 1; between > 0 {
			n += between * d.n / len(d.blocks)
		}
		return n
	}
}

// between calls yield for the terms from one position up to, not including, another one, until it returns false.
func (d *dictionary[K]) between(from, to position, yield func(k K, p *posting) bool) {
	for ; from.block < to.block || from.block == to.block && from.term < to.term; from = (position{block: from.block + 1}) {
		b := d.blocks[from.block]
		last := len(b.keys)
		if from.block == to.block {
			last = to.term
		}
		for i := from.term; i < last; i++ {
			if !yield(b.keys[i], &b.postings[i]) {
				return
			}
		}
	}
}

// unite adds the postings from one position up to, not including, another one.
func (d *dictionary[K]) unite(from, to position, all *sum) {
	for ; from.block < to.block || from.block == to.block && from.term < to.term; from = (position{block: from.block + 1}) {
		postings := d.blocks[from.block].postings
		if from.block == to.block {
			postings = postings[:to.term]
		}
		all.addAll(postings[from.term:])
	}
}

// backward calls yield for the terms from, not including, one position down to another one, until it returns false.
func (d *dictionary[K]) backward(from, to position, yield func(k K, p *posting) bool) {
	for from != to {
		if from.term == 0 {
			from.block--
			from.term = len(d.blocks[from.block].keys)
		}
		from.term--
		if b := d.blocks[from.block]; !yield(b.keys[from.term], &b.postings[from.term]) {
			return
		}
	}
}

// insert returns the posting of a term, which may be a new one. It is good until the next insertion or removal.
func (d *dictionary[K]) insert(k K, own func(K) K) (p *posting, added bool) {
	at, found := d.seek(k)
	if found {
		return &d.blocks[at.block].postings[at.term], false
	}
	k = own(k)
	d.n++
	if at.term == 0 && at.block > 0 { // no term of this block is below it, so it may as well be the last one of the block before
		at = position{at.block - 1, len(d.blocks[at.block-1].keys)}
	}
	if len(d.blocks) == 0 {
		d.blocks = []*block[K]{{}}
	}
	b := d.blocks[at.block]
	if len(b.keys) == blockTerms {
		half := blockTerms / 2
		if at.block == len(d.blocks)-1 && at.term == blockTerms { // values that only ever grow leave full blocks
			half = blockTerms
		}
		next := new(block[K])
		b.keys, next.keys = splitList(b.keys, half)
		b.postings, next.postings = splitList(b.postings, half)
		d.blocks = slices.Insert(d.blocks, at.block+1, next)
		if at.term > half || half == blockTerms {
			at = position{at.block + 1, at.term - half}
			b = d.blocks[at.block]
		}
	}
	b.keys = slices.Insert(withRoom(b.keys, blockTerms), at.term, k)
	b.postings = slices.Insert(withRoom(b.postings, blockTerms), at.term, posting{})
	return &b.postings[at.term], true
}

// withRoom returns a list that has room for one more. What grows by itself would take more than the most there can be.
func withRoom[T any](list []T, most int) []T {
	if len(list) < cap(list) || len(list) >= most {
		return list
	}
	return append(make([]T, 0, min(max(4, 2*len(list)), most)), list...)
}

// splitList splits a list that has all it can have, and leaves either part some room. The first one may be all of it.
func splitList[T any](list []T, at int) (first, second []T) {
	second = append(make([]T, 0, len(list)*3/4), list[at:]...)
	if at == len(list) {
		return list, second
	}
	return append(make([]T, 0, len(list)*3/4), list[:at]...), second
}

// remove removes a term.
func (d *dictionary[K]) remove(at position) {
	d.n--
	b := d.blocks[at.block]
	b.keys = slices.Delete(b.keys, at.term, at.term+1)
	b.postings = slices.Delete(b.postings, at.term, at.term+1)
	if len(b.keys) == 0 {
		d.blocks = slices.Delete(d.blocks, at.block, at.block+1)
		return
	}
	if at.block+1 < len(d.blocks) { // two that are thinly filled become one
		if next := d.blocks[at.block+1]; len(b.keys)+len(next.keys) <= blockTerms/4 {
			b.keys, b.postings = append(b.keys, next.keys...), append(b.postings, next.postings...)
			d.blocks = slices.Delete(d.blocks, at.block+1, at.block+2)
		}
	}
}
