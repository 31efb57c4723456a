package index

import (
	"encoding/binary"
	"slices"
	"strings"
)

// A head is 16 bytes of a name, the first ones as a rule, with zeros behind its end. Of two names the one with the lower head
// comes first; names with the same head may differ behind it, and in zeros.
type head struct{ high, low uint64 }

func headOf(name string) head { return head{keyAt(name, 0), keyAt(name, 8)} }

func (h head) compare(g head) int {
	switch {
	case h == g:
		return 0
	case h.high < g.high || h.high == g.high && h.low < g.low:
		return -1
	default:
		return 1
	}
}

// named is a document among others, with 16 bytes of its name.
type named struct {
	head

	at uint32
}

// sortNames returns places in order of the names there. It uses the memory of entries.
func sortNames(list []found, entries []named) []named {
	entries = slices.Grow(entries[:0], 2*len(list))[:2*len(list)]
	entries, spare := entries[:len(list)], entries[len(list):]
	high, low := uint64(0), uint64(0)
	for i := range list {
		f := &list[i]
		entries[i] = named{f.head, uint32(i)}
		high |= f.head.high ^ list[0].head.high
		low |= f.head.low ^ list[0].head.low
	}
	sortHeads(entries, spare, high, low)
	sortEqual(list, entries, spare)
	return entries
}

// sortEqual sorts those among sorted names that are equal in the bytes they are sorted by.
func sortEqual(list []found, entries, spare []named) {
	for start := 0; start < len(entries); {
		end := start + 1
		for end < len(entries) && entries[end].head == entries[start].head {
			end++
		}
		if end-start > 1 {
			sortRun(list, entries[start:end], spare)
		}
		start = end
	}
}

// sortRun sorts by 16 bytes behind what all names have in common, then those that are equal in them the same way.
func sortRun(list []found, entries, spare []named) {
	first := list[entries[0].at].id()
	common, shortest := len(first), len(first)
	for _, e := range entries[1:] {
		id := list[e.at].id()
		shortest = min(shortest, len(id))
		if common = min(common, len(id)); id[:common] != first[:common] {
			common = sharedPrefix(id, first)
		}
	}
	if len(entries) < 32 || shortest < common+16 { // few, or the bytes might end with a name
		slices.SortFunc(entries, func(a, b named) int { return strings.Compare(list[a.at].id(), list[b.at].id()) })
		return
	}
	high, low := uint64(0), uint64(0)
	for i := range entries {
		e := &entries[i]
		id := list[e.at].id()
		e.high, e.low = keyAt(id, common), keyAt(id, common+8)
		high |= e.high ^ entries[0].high
		low |= e.low ^ entries[0].low
	}
	sortHeads(entries, spare, high, low)
	sortEqual(list, entries, spare)
}

func sharedPrefix(a, b string) int {
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	return i
}

// keyAt are eight bytes of a name from a place on, with zeros behind its end.
func keyAt(id string, at int) uint64 {
	if len(id) >= at+8 {
		return binary.BigEndian.Uint64([]byte(id[at : at+8]))
	}
	key := uint64(0)
	for i := at; i < len(id); i++ {
		key |= uint64(id[i]) << (56 - 8*(i-at))
	}
	return key
}

// sortHeads sorts by the 16 bytes, byte by byte from the last one, leaving out those in which no two differ.
func sortHeads(entries, spare []named, high, low uint64) {
	if len(entries) < 128 {
		slices.SortFunc(entries, func(a, b named) int { return a.compare(b.head) })
		return
	}
	from, to := entries, spare[:len(entries)]
	for shift := 0; shift < 128; shift += 8 {
		differ, by := low, shift
		if shift >= 64 {
			differ, by = high, shift-64
		}
		if differ>>by&0xff == 0 {
			continue
		}
		var starts [256]int
		for i := range from {
			starts[from[i].byte(shift)]++
		}
		sum := 0
		for i, n := range &starts {
			starts[i] = sum
			sum += n
		}
		for i := range from {
			b := from[i].byte(shift)
			to[starts[b]] = from[i]
			starts[b]++
		}
		from, to = to, from
	}
	if &from[0] != &entries[0] {
		copy(entries, from)
	}
}

func (e *named) byte(shift int) byte {
	if shift >= 64 {
		return byte(e.high >> (shift - 64))
	}
	return byte(e.low >> shift)
}
