package index

import (
	"maps"
	"math/bits"
	"slices"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

var _ multicastregistry.Fields = (*Index)(nil)

// Has implements multicastregistry.Fields. As a rule the first segment tells.
func (ix *Index) Has(now time.Time, path []string, shapes multicastregistry.Shape) bool {
	var few [128]byte
	name := few[:0]
	for _, key := range path {
		name = appendPath(name, key)
	}
	at := clock(now)
	for _, s := range *ix.content.Load().segments.Load() {
		if s.has(at, name, shapes) {
			return true
		}
	}
	return false
}

func (s *segment) has(now int64, name []byte, shapes multicastregistry.Shape) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f := s.fields[string(name)]
	if f == nil {
		return false
	}
	for k := range f.types {
		if shapes&(multicastregistry.IsNull<<k) != 0 && s.anyLive(&f.types[k], now) {
			return true
		}
	}
	return shapes&multicastregistry.HasNull != 0 && (s.anyLive(&f.types[null], now) || s.anyLive(&f.nulls, now)) ||
		shapes&multicastregistry.HasBool != 0 && (s.anyLive(&f.bools[0], now) || s.anyLive(&f.bools[1], now)) ||
		shapes&multicastregistry.HasNumber != 0 && hasTerm(s, &f.numbers, now) ||
		shapes&multicastregistry.HasString != 0 && hasTerm(s, &f.texts, now)
}

func hasTerm[K key[K]](s *segment, d *dictionary[K], now int64) (has bool) {
	if s.earliest.Load() > now {
		return d.n > 0
	}
	d.between(position{}, d.end(), func(_ K, p *posting) bool {
		has = s.anyLive(p, now)
		return !has
	})
	return has
}

// anyLive tells whether any of a posting's leases has not ended. mu is held.
func (s *segment) anyLive(p *posting, now int64) bool {
	if p.n == 0 || s.earliest.Load() > now {
		return p.n > 0
	}
	for slot := range p.each {
		if !s.lapsed(slot, now) {
			return true
		}
	}
	return false
}

// countLive counts a posting's leases that have not ended. mu is held.
func (s *segment) countLive(p *posting, now int64) int {
	n := int(p.n)
	if n == 0 || s.earliest.Load() > now {
		return n
	}
	for slot := range p.each {
		n -= truth(s.lapsed(slot, now))
	}
	return n
}

// each yields the slots, in order.
func (p *posting) each(yield func(slot uint16) bool) {
	v := p.view()
	for _, slot := range v.list {
		if !yield(slot) {
			return
		}
	}
	if v.bits == nil {
		return
	}
	for i, word := range v.bits {
		for ; word != 0; word &= word - 1 {
			if !yield(uint16(i<<6 | bits.TrailingZeros64(word))) {
				return
			}
		}
	}
}

// Field implements multicastregistry.Fields.
func (ix *Index) Field(now time.Time, path []string) multicastregistry.Field {
	f := summed{now: clock(now), numbers: make(map[number]struct{}), texts: make(map[text]struct{})}
	name := pathName(path)
	for _, s := range *ix.content.Load().segments.Load() {
		f.add(s, name)
		f.merge()
	}
	out := multicastregistry.Field{Path: path, Types: make(map[string]int), Distinct: f.distinct()}
	for k, n := range f.types {
		if n > 0 {
			out.Present += n
			out.Types[kindNames[k]] = n
		}
	}
	return out
}

// summed is what all segments know of one field.
type summed struct {
	now     int64
	types   [kinds]int
	numbers map[number]struct{}
	texts   map[text]struct{}
	others  [3]bool // null, false, true

	newNumbers []number // of the segment that was added last
	newTexts   []text
}

func (f *summed) add(s *segment, name string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	part := s.fields[name]
	if part == nil {
		return
	}
	for k := range part.types {
		f.types[k] += s.countLive(&part.types[k], f.now)
	}
	f.others[0] = f.others[0] || s.anyLive(&part.types[null], f.now) || s.anyLive(&part.nulls, f.now)
	f.others[1] = f.others[1] || s.anyLive(&part.bools[0], f.now)
	f.others[2] = f.others[2] || s.anyLive(&part.bools[1], f.now)
	if f.distinct() < multicastregistry.MostDistinct {
		f.newNumbers = appendTerms(f.newNumbers, s, &part.numbers, f.now)
		f.newTexts = appendTerms(f.newTexts, s, &part.texts, f.now)
	}
}

func appendTerms[K key[K]](to []K, s *segment, d *dictionary[K], now int64) []K {
	d.between(position{}, d.end(), func(k K, p *posting) bool {
		if s.anyLive(p, now) {
			to = append(to, k)
		}
		return true
	})
	return to
}

// merge takes in the terms of a segment that is not locked any more.
func (f *summed) merge() {
	for _, k := range f.newNumbers {
		f.numbers[k] = struct{}{}
	}
	for _, k := range f.newTexts {
		f.texts[k] = struct{}{}
	}
	f.newNumbers, f.newTexts = f.newNumbers[:0], f.newTexts[:0]
}

func (f *summed) distinct() int {
	n := len(f.numbers) + len(f.texts)
	for _, there := range f.others {
		n += truth(there)
	}
	return min(n, multicastregistry.MostDistinct)
}

// Paths implements multicastregistry.Fields.
func (ix *Index) Paths(now time.Time, most int) [][]string {
	names := make(map[string]struct{})
	at := clock(now)
	for _, s := range *ix.content.Load().segments.Load() {
		s.addNames(at, names, most)
	}
	paths := make([][]string, 0, len(names))
	for name := range maps.Keys(names) {
		paths = append(paths, splitPath(name))
	}
	slices.SortFunc(paths, slices.Compare[[]string])
	return paths
}

func (s *segment) addNames(now int64, names map[string]struct{}, most int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for name, f := range s.fields {
		if len(names) >= most {
			return
		}
		if _, known := names[name]; !known && s.anyPresent(f, now) {
			names[name] = struct{}{}
		}
	}
}

func (s *segment) anyPresent(f *field, now int64) bool {
	for k := range f.types {
		if s.anyLive(&f.types[k], now) {
			return true
		}
	}
	return false
}
