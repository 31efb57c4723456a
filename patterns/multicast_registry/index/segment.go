package index

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// A segment is up to 65,536 documents with an inverted index of their own.
type segment struct {
	number int
	most   int // documents

	// mu is held shared by queries and renewals, and for the few microseconds of one change by the writer.
	mu      sync.RWMutex
	records []record // by slot; as long as the highest slot needs, rounded up
	expires []int64  // same; when leases end, or never; atomic
	live    bitmap   // slots in use
	n       int      // of them
	fields  map[string]*field
	version uint64 // the highest stamp there has been
	lowest  int    // no slot below 64 times this is free
	lease   sync.Mutex

	// earliest is not after the end of any lease. It may be long before.
	earliest atomic.Int64
}

func newSegment(number, most int) *segment {
	s := &segment{number: number, most: most, fields: make(map[string]*field)}
	s.earliest.Store(never)
	return s
}

// free finds a free slot. The writer calls it.
func (s *segment) free() (slot uint16, ok bool) {
	if s.n == s.most {
		return 0, false
	}
	for s.live[s.lowest] == ^uint64(0) {
		s.lowest++
	}
	return uint16(s.lowest<<6 | bits.TrailingZeros64(^s.live[s.lowest])), true
}

// put stores a document in a slot, in place of the one that is there. mu is held.
func (s *segment) put(slot uint16, next record, expires int64, metadata *reading) (grown int) {
	for int(slot) >= len(s.records) {
		s.records = append(s.records, make([]record, max(64, len(s.records)))...)
		s.expires = append(s.expires, make([]int64, len(s.records)-len(s.expires))...)
	}
	e := editor{segment: s, slot: slot}
	before := &s.records[slot]
	used := s.live.has(slot)
	if used {
		e.grown -= before.size()
	}
	if !used || before.encoded() != next.encoded() {
		if used {
			e.clear(before)
		}
		e.remove, e.clone = false, len(next.text) > 512 || metadata.copied
		e.fields(metadata)
	}
	if !used {
		s.live.set(slot)
		s.n++
	}
	e.grown += next.size()
	*before = next
	before.expires = expires
	s.version = next.stamp
	s.expires[slot] = expires
	s.lower(expires)
	return e.grown
}

// drop removes the document in a slot. mu is held.
func (s *segment) drop(slot uint16, stamp uint64) (grown int) {
	e := editor{segment: s, slot: slot}
	r := &s.records[slot]
	e.grown -= r.size()
	e.clear(r)
	*r = record{}
	s.expires[slot] = never
	s.live.clear(slot)
	s.version = stamp
	s.lowest = min(s.lowest, int(slot>>6))
	if s.n--; s.n == 0 {
		s.records, s.expires, s.fields = nil, nil, make(map[string]*field)
		s.earliest.Store(never)
	}
	return e.grown
}

// clear takes the fields of a document out.
func (e *editor) clear(r *record) {
	metadata := readings.Get().(*reading)
	defer metadata.close()
	metadata.read(r.encoded())
	e.remove = true
	e.fields(metadata)
}

// lower makes earliest take an end of a lease into account.
func (s *segment) lower(expires int64) {
	for {
		old := s.earliest.Load()
		if expires >= old || s.earliest.CompareAndSwap(old, expires) {
			return
		}
	}
}

// lapsed tells whether the lease in a slot has ended.
func (s *segment) lapsed(slot uint16, now int64) bool {
	return atomic.LoadInt64(&s.expires[slot]) <= now
}

// is tells whether a slot holds the document of that name. mu is held.
func (s *segment) is(slot uint16, id string) bool {
	return int(slot) < len(s.records) && s.live.has(slot) && s.records[slot].id() == id
}

// found is the document in a slot. mu is held.
func (s *segment) found(slot uint16) (f found) {
	f.read(s, slot)
	return f
}

func (f *found) read(s *segment, slot uint16) {
	r := &s.records[slot]
	f.head, f.text, f.name, f.ref = r.head, r.text, r.name, refOf(s.number, slot)
	f.ttl, f.registered, f.expires, f.revision = atomic.LoadInt64(&r.ttl), r.registered, atomic.LoadInt64(&r.expires), r.revision
}

// renew restarts a lease. mu is held, perhaps shared.
func (s *segment) renew(slot uint16, ttl time.Duration, expires int64) {
	s.lease.Lock() // of two renewals at once one counts, not a part of each
	defer s.lease.Unlock()
	s.renewLocked(slot, ttl, expires)
}

// renewIf is renew of what has not changed. mu is held, perhaps shared.
func (s *segment) renewIf(slot uint16, was *multicastregistry.Identity, ttl time.Duration, expires int64) bool {
	s.lease.Lock()
	defer s.lease.Unlock()
	r := &s.records[slot]
	if r.revision != uint64(was.Revision) || r.ttl != int64(was.TTL) || r.expires != nanos(was.ExpiresAt) {
		return false
	}
	s.renewLocked(slot, ttl, expires)
	return true
}

func (s *segment) renewLocked(slot uint16, ttl time.Duration, expires int64) {
	atomic.StoreInt64(&s.records[slot].ttl, int64(ttl))
	atomic.StoreInt64(&s.records[slot].expires, expires)
	atomic.StoreInt64(&s.expires[slot], expires)
	s.lower(expires)
}

// identity is the document in a slot. mu is held.
func (s *segment) identity(slot uint16) multicastregistry.Identity {
	f := s.found(slot)
	return f.identity()
}

// lapsedSlots lists up to limit documents whose lease has ended, and tells whether there are more. When it has them all,
// earliest becomes exact but for them. mu is held.
func (s *segment) lapsedSlots(now int64, limit int) (list []uint16, more bool) {
	earliest := int64(never)
	for i, word := range s.live {
		for ; word != 0; word &= word - 1 {
			slot := uint16(i<<6 | bits.TrailingZeros64(word))
			switch expires := atomic.LoadInt64(&s.expires[slot]); {
			case expires > now:
				earliest = min(earliest, expires)
			case len(list) == limit:
				return list, true
			default:
				list = append(list, slot)
			}
		}
	}
	if len(list) == 0 {
		s.earliest.Store(earliest)
	}
	return list, false
}
