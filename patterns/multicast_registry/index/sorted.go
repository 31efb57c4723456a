package index

import (
	"cmp"
	"container/heap"
	"math/bits"
	"slices"
	"strings"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// rank orders values of different types, as filter.Compare does.
type rank uint8

const (
	rankNull rank = iota
	rankFalse
	rankTrue
	rankNumber
	rankText
	rankAbsent
)

// A sortKey is the value of a field to sort by.
type sortKey struct {
	rank   rank
	number number
	text   text
}

func sortKeyOf(value any, present bool) sortKey {
	scalar, ok := filter.Scalar(value)
	if !ok || !present {
		return sortKey{rank: rankAbsent}
	}
	switch v := scalar.(type) {
	case nil:
		return sortKey{rank: rankNull}
	case bool:
		return sortKey{rank: rankFalse + rank(truth(v))}
	case string:
		return sortKey{rank: rankText, text: text(v)}
	}
	if n, ok := numberOf(scalar); ok {
		return sortKey{rank: rankNumber, number: n}
	}
	return sortKey{rank: rankAbsent}
}

func (k sortKey) compare(l sortKey) int {
	switch {
	case k.rank != l.rank:
		return int(k.rank) - int(l.rank)
	case k.rank == rankNumber:
		return k.number.compare(l.number)
	default:
		return cmp.Compare(k.text, l.text)
	}
}

func (k sortKey) value() any {
	switch k.rank {
	case rankNull:
		return nil
	case rankFalse, rankTrue:
		return k.rank == rankTrue
	case rankNumber:
		return k.number.value()
	case rankText:
		return string(k.text)
	default:
		return multicastregistry.Absent{}
	}
}

// sorted is the first limit documents, and one more, in an order by fields.
type sorted struct {
	order []multicastregistry.Order
	field string // of the first of them
	limit int
	after *item
	began uint64 // what was changed later may be met twice

	// items are a heap with the last of them at its root, until emit sorts them.
	items  []item
	keys   []sortKey // spare
	common []uint16  // same
}

// item is a document with the values of the fields to sort by.
type item struct {
	keys  []sortKey
	stamp uint64
	found found
}

func newSorted(q multicastregistry.Selection, began uint64) *sorted {
	s := &sorted{order: q.Order, field: pathName(q.Order[0].Path), limit: q.Limit + 1, began: began}
	if q.After != nil {
		s.after = &item{found: found{text: q.After.ID, name: uint32(len(q.After.ID))}}
		for i := range q.Order {
			k := sortKey{rank: rankAbsent}
			if i < len(q.After.Values) {
				k = sortKeyOf(q.After.Values[i], true)
			}
			s.after.keys = append(s.after.keys, k)
		}
	}
	return s
}

// Len is for package heap.
func (s *sorted) Len() int { return len(s.items) }

// Less is for package heap, whose first is our last.
func (s *sorted) Less(i, j int) bool { return s.compare(&s.items[i], &s.items[j]) > 0 }

// Swap is for package heap.
func (s *sorted) Swap(i, j int) { s.items[i], s.items[j] = s.items[j], s.items[i] }

// Push is for package heap.
func (s *sorted) Push(x any) { s.items = append(s.items, x.(item)) }

// Pop is for package heap, and not needed.
func (s *sorted) Pop() any { return nil }

func (s *sorted) compare(a, b *item) int {
	for i := range s.order {
		if c := s.compareField(i, a.keys[i], b.keys[i]); c != 0 {
			return c
		}
	}
	return strings.Compare(a.found.id(), b.found.id())
}

func (s *sorted) compareField(i int, a, b sortKey) int {
	if s.order[i].Descending {
		a, b = b, a
	}
	return a.compare(b)
}

// offer takes what is selected from a segment into account. Where it pays it reads the dictionary of the first field in
// order, until no other value can matter.
func (s *sorted) offer(e *evaluator, selected set) {
	if selected.n == 0 {
		return
	}
	f := e.segment.fields[s.field]
	if f == nil {
		f = new(field)
	}
	const step = 40 // nanoseconds to go through a term
	terms := f.numbers.n + f.texts.n
	if selected.n > mostCandidates ||
		selected.n > s.limit && terms*s.limit/selected.n*step+s.limit*costLookUp < selected.n*costLookUp {
		s.inOrder(e, f, selected)
		return
	}
	for _, slot := range e.slots(selected) {
		value, present := multicastregistry.LookUp(e.segment.records[slot].encoded(), s.order[0].Path...)
		s.consider(e.segment, slot, sortKeyOf(value, present))
	}
}

// late tells whether nothing with that value of the first field can be among the items any more.
func (s *sorted) late(k sortKey) bool {
	return len(s.items) == s.limit && s.compareField(0, k, s.items[0].keys[0]) > 0
}

// early tells whether all with that value of the first field come before what is wanted.
func (s *sorted) early(k sortKey) bool {
	return s.after != nil && s.compareField(0, k, s.after.keys[0]) < 0
}

func (s *sorted) consider(segment *segment, slot uint16, first sortKey) {
	if s.early(first) || s.late(first) {
		return
	}
	r := &segment.records[slot]
	it := item{keys: append(s.keys[:0], first), stamp: r.stamp, found: found{text: r.text, name: r.name}}
	for _, o := range s.order[1:] {
		it.keys = append(it.keys, sortKeyOf(multicastregistry.LookUp(r.encoded(), o.Path...)))
	}
	s.keys = it.keys
	if s.after != nil && s.compare(&it, s.after) <= 0 {
		return
	}
	full := len(s.items) == s.limit
	if full && s.compare(&it, &s.items[0]) >= 0 {
		return
	}
	it.found = segment.found(slot)
	if full {
		s.keys, s.items[0] = s.items[0].keys, it
		heap.Fix(s, 0)
		return
	}
	s.keys = nil
	heap.Push(s, it)
}

// bucket considers what has a value of the first field. It is false when no later value can matter.
func (s *sorted) bucket(e *evaluator, k sortKey, selected, having set) bool {
	if s.late(k) {
		return false
	}
	if !s.early(k) {
		s.common = appendCommon(s.common[:0], selected, having)
		for _, slot := range s.common {
			s.consider(e.segment, slot, k)
		}
	}
	return true
}

// appendCommon appends what two sets have in common.
func appendCommon(list []uint16, a, b set) []uint16 {
	switch {
	case a.bits == nil && b.bits == nil:
		if a.n > b.n {
			a, b = b, a
		}
		return intersectLists(list, a.list, b.list)
	case a.bits != nil && b.bits != nil:
		for i, word := range a.bits {
			for word &= b.bits[i]; word != 0; word &= word - 1 {
				list = append(list, uint16(i<<6|bits.TrailingZeros64(word)))
			}
		}
		return list
	case a.bits != nil:
		a, b = b, a
	}
	for _, slot := range a.list {
		if b.bits.has(slot) {
			list = append(list, slot)
		}
	}
	return list
}

// inOrder goes through the values of the first field.
func (s *sorted) inOrder(e *evaluator, f *field, selected set) {
	scalars := set{}
	for _, k := range [...]kind{null, boolean, numeric, textual} {
		scalars = e.or(scalars, f.types[k].view())
	}
	scalars = e.and(scalars, f.bare.view().complement())
	scalars.own, selected.own = false, false // they are used twice
	absent := e.and(selected, scalars.complement())
	selected = e.and(selected, scalars) // without arrays, whose elements are terms too
	steps := []func() bool{
		func() bool { return s.bucket(e, sortKey{rank: rankNull}, selected, f.types[null].view()) },
		func() bool { return s.bucket(e, sortKey{rank: rankFalse}, selected, f.bools[0].view()) },
		func() bool { return s.bucket(e, sortKey{rank: rankTrue}, selected, f.bools[1].view()) },
		func() bool {
			return walkTerms(s, &f.numbers, rankNumber, func(k sortKey) number { return k.number }, func(k number, p *posting) bool {
				return s.bucket(e, sortKey{rank: rankNumber, number: k}, selected, p.view())
			})
		},
		func() bool {
			return walkTerms(s, &f.texts, rankText, func(k sortKey) text { return k.text }, func(k text, p *posting) bool {
				return s.bucket(e, sortKey{rank: rankText, text: k}, selected, p.view())
			})
		},
		func() bool { return s.bucket(e, sortKey{rank: rankAbsent}, absent, absent) },
	}
	if s.order[0].Descending {
		slices.Reverse(steps)
	}
	for _, step := range steps {
		if !step() {
			return
		}
	}
}

// walkTerms goes through a dictionary in order, from the value of after on. It is false when do was.
func walkTerms[K key[K]](s *sorted, d *dictionary[K], r rank, of func(sortKey) K, do func(K, *posting) bool) bool {
	more := true
	visit := func(k K, p *posting) bool {
		more = do(k, p)
		return more
	}
	from, to := position{}, d.end()
	starts := s.after != nil && s.after.keys[0].rank == r
	switch descending := s.order[0].Descending; {
	case starts && descending:
		to = d.after(of(s.after.keys[0]))
	case starts:
		from, _ = d.seek(of(s.after.keys[0]))
	}
	if s.order[0].Descending {
		d.backward(to, from, visit)
	} else {
		d.between(from, to, visit)
	}
	return more
}

// emit calls yield with each document, in order, until it returns false.
func (s *sorted) emit(yield func(f *found) bool) {
	slices.SortFunc(s.items, func(a, b item) int { return s.compare(&a, &b) })
	if slices.ContainsFunc(s.items, func(it item) bool { return it.stamp > s.began }) {
		seen := make(map[string]bool, len(s.items))
		s.items = slices.DeleteFunc(s.items, func(it item) bool {
			again := seen[it.found.id()]
			seen[it.found.id()] = true
			return again
		})
	}
	for i := range s.items {
		if !yield(&s.items[i].found) {
			return
		}
	}
}

// place is that of the nth document that emit has yielded, counted from 1; nil for 0.
func (s *sorted) place(n int) *multicastregistry.Place {
	if n == 0 {
		return nil
	}
	place := &multicastregistry.Place{ID: s.items[n-1].found.id()}
	for _, k := range s.items[n-1].keys {
		place.Values = append(place.Values, k.value())
	}
	return place
}
