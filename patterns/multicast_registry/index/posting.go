package index

import (
	"math/bits"
	"slices"
)

// slots is how many documents a segment holds, so that a slot fits a uint16.
const slots = 1 << 16

// A posting is a list up to toBits slots, and a bitmap until it is down to toList again.
const (
	toBits = 4096
	toList = 2048
)

// bitmap has a bit for every slot of a segment.
type bitmap [slots / 64]uint64

func (b *bitmap) has(slot uint16) bool { return b[slot>>6]&(1<<(slot&63)) != 0 }
func (b *bitmap) set(slot uint16)      { b[slot>>6] |= 1 << (slot & 63) }
func (b *bitmap) clear(slot uint16)    { b[slot>>6] &^= 1 << (slot & 63) }

func (b *bitmap) count() int {
	n := 0
	for _, word := range b {
		n += bits.OnesCount64(word)
	}
	return n
}

// appendTo appends the slots, in order.
func (b *bitmap) appendTo(list []uint16) []uint16 {
	for i, word := range b {
		for ; word != 0; word &= word - 1 {
			list = append(list, uint16(i<<6|bits.TrailingZeros64(word)))
		}
	}
	return list
}

// A posting is the set of a segment's documents that have one thing in common. A single one, the commonest case of all,
// takes no memory beyond the posting itself. The zero posting is empty.
type posting struct {
	many *many // from two on
	n    uint32
	one  [1]uint16
}

// many is a sorted list or, when bits is set, a bitmap.
type many struct {
	list []uint16
	bits *bitmap
}

// What many and its parts take, for Index.Bytes.
const (
	manyBytes   = 32
	bitmapBytes = slots / 8
)

// bytes is what the posting takes besides itself.
func (p *posting) bytes() int {
	switch {
	case p.many == nil:
		return 0
	case p.many.bits != nil:
		return manyBytes + bitmapBytes
	default:
		return manyBytes + 2*cap(p.many.list)
	}
}

// add adds a slot and tells by how many bytes the posting has grown. Adding what is there changes nothing.
func (p *posting) add(slot uint16) (grown int) {
	before := p.bytes()
	switch {
	case p.n == 0:
		p.n, p.one[0] = 1, slot
	case p.many == nil:
		if p.one[0] != slot {
			p.many = &many{list: []uint16{min(p.one[0], slot), max(p.one[0], slot)}}
			p.n = 2
		}
	case p.many.bits != nil:
		if !p.many.bits.has(slot) {
			p.many.bits.set(slot)
			p.n++
		}
	default:
		p.addToList(slot)
	}
	return p.bytes() - before
}

func (p *posting) addToList(slot uint16) {
	list := p.many.list
	at, found := len(list), false
	if slot <= list[len(list)-1] {
		at, found = slices.BinarySearch(list, slot)
	}
	if found {
		return
	}
	p.many.list = slices.Insert(list, at, slot)
	if p.n++; p.n <= toBits {
		return
	}
	set := new(bitmap)
	for _, slot := range p.many.list {
		set.set(slot)
	}
	p.many.list, p.many.bits = nil, set
}

// remove removes a slot and tells by how many bytes the posting has grown: not a positive number. Removing what is not there
// changes nothing.
func (p *posting) remove(slot uint16) (grown int) {
	if !p.has(slot) {
		return 0
	}
	before := p.bytes()
	p.n--
	switch {
	case p.many == nil:
	case p.many.bits != nil:
		p.many.bits.clear(slot)
		if p.n <= toList {
			p.many.list = p.many.bits.appendTo(make([]uint16, 0, p.n))
			p.many.bits = nil
		}
	default:
		at, _ := slices.BinarySearch(p.many.list, slot)
		p.many.list = slices.Delete(p.many.list, at, at+1)
		if p.n == 1 {
			p.one[0], p.many = p.many.list[0], nil
		} else if cap(p.many.list) >= 64 && len(p.many.list) <= cap(p.many.list)/4 {
			p.many.list = append(make([]uint16, 0, 2*len(p.many.list)), p.many.list...)
		}
	}
	return p.bytes() - before
}

func (p *posting) has(slot uint16) bool {
	switch {
	case p.n == 0:
		return false
	case p.many == nil:
		return p.one[0] == slot
	case p.many.bits != nil:
		return p.many.bits.has(slot)
	default:
		_, found := slices.BinarySearch(p.many.list, slot)
		return found
	}
}

// view is the posting as a set, which is good until the posting changes.
func (p *posting) view() set {
	switch {
	case p == nil || p.n == 0:
		return set{}
	case p.many == nil:
		return set{list: p.one[:], n: 1}
	default:
		return set{list: p.many.list, bits: p.many.bits, n: int(p.n)}
	}
}
