package index

import (
	"math/bits"
	"slices"
	"sort"
	"sync"
)

// A set is what a filter, or a part of it, selects from a segment: a sorted list or, when bits is set, a bitmap of n slots;
// or everything but those. A complement stays one for as long as possible: most end in an intersection, which needs no
// more than taking away. A set may be borrowed from a posting, and is overwritten only when it is not.
type set struct {
	list []uint16
	bits *bitmap
	n    int
	not  bool
	own  bool // bits belong to the scratch
}

// everything is the complement of nothing.
var everything = set{not: true}

func (s set) complement() set {
	s.not = !s.not
	return s
}

// empty tells whether the set surely selects nothing.
func (s set) empty() bool { return s.n == 0 && !s.not }

// holds looks a slot up, without regard to not.
func (s set) holds(slot uint16) bool {
	if s.bits != nil {
		return s.bits.has(slot)
	}
	_, found := slices.BinarySearch(s.list, slot)
	return found
}

// scratch is the memory in which the sets of one segment are computed. It is used by one goroutine at a time.
type scratch struct {
	bitmaps []*bitmap
	taken   int
	list    []uint16
	found   []found
	named   []named
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// most is the largest list that a scratch keeps for later, in slots.
const most = 4 * slots

// reset makes all sets void that were computed before.
func (s *scratch) reset() {
	s.taken = 0
	if cap(s.list) > most {
		s.list = nil
	}
	s.list = s.list[:0]
}

// bitmap returns one with any content.
func (s *scratch) bitmap() *bitmap {
	if s.taken == len(s.bitmaps) {
		s.bitmaps = append(s.bitmaps, new(bitmap))
	}
	s.taken++
	return s.bitmaps[s.taken-1]
}

// empty returns an empty list with room for n slots.
func (s *scratch) empty(n int) []uint16 {
	if cap(s.list)-len(s.list) < n {
		s.list = make([]uint16, 0, max(2*cap(s.list), n, 4096)) // lists that are in use keep the memory before
	}
	start := len(s.list)
	s.list = s.list[:start+n]
	return s.list[start : start : start+n]
}

// and intersects two sets.
func (s *scratch) and(a, b set) set {
	switch {
	case a.not && b.not:
		return s.union(a, b).complement()
	case a.not:
		return s.subtract(b, a)
	case b.not:
		return s.subtract(a, b)
	default:
		return s.intersect(a, b)
	}
}

// or unites two sets.
func (s *scratch) or(a, b set) set {
	return s.and(a.complement(), b.complement()).complement()
}

// The following three have no regard to not, and what they return is no complement.

func (s *scratch) intersect(a, b set) set {
	if a.n > b.n {
		a, b = b, a
	}
	switch {
	case a.n == 0:
		return set{}
	case a.bits == nil && b.bits == nil:
		return listed(intersectLists(s.empty(a.n), a.list, b.list))
	case a.bits == nil || b.bits == nil:
		if a.bits != nil {
			a, b = b, a
		}
		out := s.empty(a.n)
		for _, slot := range a.list {
			if b.bits.has(slot) {
				out = append(out, slot)
			}
		}
		return listed(out)
	}
	out := s.target(a, b)
	n := 0
	for i := range out {
		word := a.bits[i] & b.bits[i]
		out[i] = word
		n += bits.OnesCount64(word)
	}
	return set{bits: out, n: n, own: true}
}

// target is a bitmap for a result: that of an operand which may be overwritten, or another one.
func (s *scratch) target(a, b set) *bitmap {
	switch {
	case a.own:
		return a.bits
	case b.own:
		return b.bits
	default:
		return s.bitmap()
	}
}

// intersectLists appends what both have; a is the shorter one.
func intersectLists(out, a, b []uint16) []uint16 {
	if len(a)*16 < len(b) {
		for _, slot := range a {
			at, found := slices.BinarySearch(b, slot)
			if found {
				out = append(out, slot)
			}
			b = b[at:]
		}
		return out
	}
	for len(a) > 0 && len(b) > 0 {
		switch x, y := a[0], b[0]; {
		case x < y:
			a = a[1:]
		case x > y:
			b = b[1:]
		default:
			out = append(out, x)
			a, b = a[1:], b[1:]
		}
	}
	return out
}

func (s *scratch) subtract(a, b set) set {
	a.not, b.not = false, false
	switch {
	case a.n == 0 || b.n == 0:
		return a
	case a.bits == nil:
		out := s.empty(a.n)
		rest := b.list
		for _, slot := range a.list {
			if b.bits != nil {
				if !b.bits.has(slot) {
					out = append(out, slot)
				}
				continue
			}
			rest = rest[sort.Search(min(len(rest), 1<<16), func(i int) bool { return rest[i] >= slot }):]
			if len(rest) == 0 || rest[0] != slot {
				out = append(out, slot)
			}
		}
		return listed(out)
	case b.bits == nil:
		out := s.owned(a)
		for _, slot := range b.list {
			if out.bits.has(slot) {
				out.bits.clear(slot)
				out.n--
			}
		}
		return out
	}
	out := s.target(a, b)
	n := 0
	for i := range out {
		word := a.bits[i] &^ b.bits[i]
		out[i] = word
		n += bits.OnesCount64(word)
	}
	return set{bits: out, n: n, own: true}
}

// owned is the same set, of bits that may be overwritten.
func (s *scratch) owned(a set) set {
	switch {
	case a.bits == nil:
		out := s.bitmap()
		clear(out[:])
		for _, slot := range a.list {
			out.set(slot)
		}
		return set{bits: out, n: a.n, own: true}
	case !a.own:
		out := s.bitmap()
		*out = *a.bits
		a.bits, a.own = out, true
	}
	return a
}

func (s *scratch) union(a, b set) set {
	a.not, b.not = false, false
	if a.bits == nil && b.bits != nil || !a.own && b.own {
		a, b = b, a
	}
	switch {
	case a.n == 0:
		return b
	case b.n == 0:
		return a
	case a.bits == nil && b.bits == nil && a.n+b.n <= toBits:
		return listed(uniteLists(s.empty(a.n+b.n), a.list, b.list))
	}
	out := s.owned(a)
	if b.bits == nil {
		for _, slot := range b.list {
			if !out.bits.has(slot) {
				out.bits.set(slot)
				out.n++
			}
		}
		return out
	}
	n := 0
	for i := range out.bits {
		word := out.bits[i] | b.bits[i]
		out.bits[i] = word
		n += bits.OnesCount64(word)
	}
	out.n = n
	return out
}

func uniteLists(out, a, b []uint16) []uint16 {
	for len(a) > 0 && len(b) > 0 {
		switch x, y := a[0], b[0]; {
		case x < y:
			out, a = append(out, x), a[1:]
		case x > y:
			out, b = append(out, y), b[1:]
		default:
			out = append(out, x)
			a, b = a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...)
}

func listed(list []uint16) set { return set{list: list, n: len(list)} }

// slots is the set, no complement, as a list.
func (s *scratch) slots(a set) []uint16 {
	if a.bits == nil {
		return a.list
	}
	return a.bits.appendTo(s.empty(a.n))
}

// overlap counts what two sets, no complements, have in common.
func overlap(a, b set) int {
	if a.n == 0 || b.n == 0 {
		return 0
	}
	if a.bits != nil && b.bits != nil {
		n := 0
		for i, word := range a.bits {
			n += bits.OnesCount64(word & b.bits[i])
		}
		return n
	}
	if a.bits != nil || b.bits == nil && a.n > b.n {
		a, b = b, a
	}
	n := 0
	rest := b.list
	for _, slot := range a.list {
		if b.bits != nil {
			n += int(b.bits[slot>>6] >> (slot & 63) & 1)
			continue
		}
		at, found := slices.BinarySearch(rest, slot)
		if found {
			n++
		}
		rest = rest[at:]
	}
	return n
}

// A sum unites many postings.
type sum struct {
	scratch *scratch
	few     [64]uint16
	n       int
	sorted  bool // few are in order, each once
	bits    *bitmap
}

func (u *sum) add(p *posting) {
	if p == nil || p.n == 0 {
		return
	}
	if u.bits == nil && u.n+int(p.n) <= len(u.few) {
		u.sorted = u.n == 0
		u.n += copy(u.few[u.n:], p.view().list)
		return
	}
	u.dense()
	switch {
	case p.n == 1:
		u.bits.set(p.one[0])
	case p.n > 1 && p.many.bits != nil:
		for i, word := range p.many.bits {
			u.bits[i] |= word
		}
	default:
		for _, slot := range p.view().list {
			u.bits.set(slot)
		}
	}
}

// addAll adds postings many of which have one document.
func (u *sum) addAll(postings []posting) {
	if len(postings) > len(u.few) {
		u.dense()
	}
	for i := range postings {
		if p := &postings[i]; p.n == 1 && u.bits != nil {
			u.bits.set(p.one[0])
		} else {
			u.add(p)
		}
	}
}

func (u *sum) dense() {
	if u.bits != nil {
		return
	}
	u.bits = u.scratch.bitmap()
	clear(u.bits[:])
	for _, slot := range u.few[:u.n] {
		u.bits.set(slot)
	}
}

func (u *sum) set() set {
	if u.bits != nil {
		return set{bits: u.bits, n: u.bits.count(), own: true}
	}
	list := append(u.scratch.empty(u.n), u.few[:u.n]...)
	if !u.sorted {
		slices.Sort(list)
		list = slices.Compact(list)
	}
	return listed(list)
}
