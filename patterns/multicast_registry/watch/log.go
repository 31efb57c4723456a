package watch

import (
	"sort"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// entry is one change in the log.
type entry struct {
	seq    uint64 // place in the log
	at     uint64 // revision, or seq where the registry has no order of its own
	before *multicastregistry.Identity
	after  *multicastregistry.Identity
	reason multicastregistry.LeftReason // when there is no after
}

func (e *entry) id() string {
	if e.after != nil {
		return e.after.ID
	}
	return e.before.ID
}

// entryBytes is what an entry takes besides names and metadata, about.
const entryBytes = 400

func (e *entry) size() int {
	n := entryBytes
	for _, i := range [...]*multicastregistry.Identity{e.before, e.after} {
		if i != nil {
			n += len(i.ID) + len(i.Encoded)
		}
	}
	return n
}

// history is the log: the latest changes, up to a number and a size.
type history struct {
	maxEntries, maxBytes int

	entries []*entry // the first ones are dropped from time to time
	dropped int      // of entries, from its begin on
	next    uint64   // seq of the next entry
	bytes   int
	floor   uint64 // everything behind this revision is in the log
}

// first is the seq of the oldest entry.
func (l *history) first() uint64 { return l.next - uint64(len(l.entries)-l.dropped) }

func (l *history) append(e *entry) {
	e.seq = l.next
	l.next++
	l.entries = append(l.entries, e)
	l.bytes += e.size()
	for kept := len(l.entries) - l.dropped; kept > l.maxEntries || l.bytes > l.maxBytes && kept > 1; kept-- {
		oldest := l.entries[l.dropped]
		l.bytes -= oldest.size()
		l.floor = oldest.at
		l.entries[l.dropped] = nil
		l.dropped++
	}
	if l.dropped > 64 && l.dropped > len(l.entries)/2 {
		l.entries = append(make([]*entry, 0, len(l.entries)), l.entries[l.dropped:]...)
		l.dropped = 0
	}
}

// clear forgets everything; from now on the log has what comes behind a revision.
func (l *history) clear(floor uint64) {
	l.entries, l.dropped, l.bytes, l.floor = nil, 0, 0, floor
}

// from returns the entries from a seq on, up to most of them and those of the same revision as the last; not ok if they were
// dropped.
func (l *history) from(seq uint64, most int) (entries []*entry, ok bool) {
	if seq < l.first() {
		return nil, false
	}
	rest := l.entries[l.dropped+int(seq-l.first()):]
	n := min(most, len(rest))
	for n > 0 && n < len(rest) && rest[n].at == rest[n-1].at {
		n++
	}
	return append([]*entry(nil), rest[:n]...), true
}

// behind returns the seq of the first entry behind a revision; not ok if the log does not reach back so far.
func (l *history) behind(at uint64) (seq uint64, ok bool) {
	if at < l.floor {
		return 0, false
	}
	kept := l.entries[l.dropped:]
	n := sort.Search(len(kept), func(i int) bool { return kept[i].at > at })
	return l.first() + uint64(n), true
}
