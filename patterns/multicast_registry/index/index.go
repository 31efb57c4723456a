package index

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// Index keeps identities and answers queries about them. All methods may be called concurrently.
type Index struct {
	write   sync.Mutex // held by whoever changes more than a lease
	content atomic.Pointer[content]
	most    int // documents in a segment
}

// content is all that an index holds, so that Reset is one step.
type content struct {
	most     int // documents in a segment
	names    *names
	order    *ordering
	segments atomic.Pointer[[]*segment] // only ever grows
	stamp    atomic.Uint64              // numbers the changes
	lowest   int                        // no segment below it has a free slot
	bytes    atomic.Int64
	n        atomic.Int64 // documents, lapsed or not
}

// New returns an empty index.
func New() *Index { return newIndex(slots) }

func newIndex(most int) *Index {
	ix := &Index{most: most}
	ix.content.Store(newContent(most))
	return ix
}

func newContent(most int) *content {
	c := &content{most: most, names: newNames(), order: newOrdering()}
	c.segments.Store(new([]*segment))
	return c
}

// Reset forgets everything. Queries that are under way answer from what there was.
func (ix *Index) Reset() {
	ix.write.Lock()
	defer ix.write.Unlock()
	ix.content.Store(newContent(ix.most))
}

// Put stores an identity and returns the one whose place it has taken, with Encoded only, whether its lease had ended or not.
// Of Metadata and Encoded it needs one; the former counts when both are set. Nothing is shared with the caller.
func (ix *Index) Put(identity multicastregistry.Identity) (previous multicastregistry.Identity, replaced bool) {
	metadata := readings.Get().(*reading)
	defer metadata.close()
	whole := encode(identity, metadata)
	next := newRecord(whole, len(identity.ID))
	next.ttl, next.registered, next.revision = int64(identity.TTL), nanos(identity.RegisteredAt), uint64(identity.Revision)
	expires := nanos(identity.ExpiresAt)
	ix.write.Lock()
	defer ix.write.Unlock()
	c := ix.content.Load()
	next.stamp = c.stamp.Add(1)
	named := c.names.part(identity.ID)
	r, replaced := named.refs[identity.ID] // which nobody else changes
	if !replaced {
		r = c.free()
	}
	s := c.segment(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if replaced {
		previous = s.identity(r.slot())
	}
	c.bytes.Add(int64(s.put(r.slot(), next, expires, metadata)))
	named.set(next.id(), r, replaced)
	if !replaced {
		c.order.insert(&next, r, c.record)
		c.n.Add(1)
	}
	return previous, replaced
}

// Renew restarts a lease. It is false when there is no such identity; whether its lease had ended is not looked at. Renewals
// go next to queries and to each other.
func (ix *Index) Renew(id string, ttl time.Duration, expiresAt time.Time) bool {
	return ix.content.Load().look(id, func(s *segment, slot uint16) { s.renew(slot, ttl, nanos(expiresAt)) })
}

// RenewIf is Renew of an identity that is still what Get returned before: the same registration with the same lease.
func (ix *Index) RenewIf(was multicastregistry.Identity, ttl time.Duration, expiresAt time.Time) (renewed bool) {
	ix.content.Load().look(was.ID, func(s *segment, slot uint16) { renewed = s.renewIf(slot, &was, ttl, nanos(expiresAt)) })
	return renewed
}

// Remove removes an identity, and returns it with Encoded only.
func (ix *Index) Remove(id string) (previous multicastregistry.Identity, ok bool) {
	ix.write.Lock()
	defer ix.write.Unlock()
	c := ix.content.Load()
	r, ok := c.names.find(id)
	if !ok {
		return previous, false
	}
	s := c.segment(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.remove(s, r.slot()), true
}

// remove removes a document. The segment is locked.
func (c *content) remove(s *segment, slot uint16) multicastregistry.Identity {
	previous := s.identity(slot)
	c.order.remove(previous.ID, c.record)
	c.names.remove(previous.ID)
	c.bytes.Add(int64(s.drop(slot, c.stamp.Add(1))))
	c.n.Add(-1)
	c.lowest = min(c.lowest, s.number)
	return previous
}

// Get returns an identity with Encoded only, whether its lease has ended or not.
func (ix *Index) Get(id string) (identity multicastregistry.Identity, ok bool) {
	ok = ix.content.Load().look(id, func(s *segment, slot uint16) { identity = s.identity(slot) })
	return identity, ok
}

// Live tells of each identity whether it is there and its lease has not ended.
func (ix *Index) Live(now time.Time, ids []string) []bool {
	c, at := ix.content.Load(), clock(now)
	live := make([]bool, len(ids))
	for i, id := range ids {
		c.look(id, func(s *segment, slot uint16) { live[i] = !s.lapsed(slot, at) })
	}
	return live
}

// look calls do with the document of that name, its segment locked shared; do may change its lease. It is false when there is
// none.
func (c *content) look(id string, do func(s *segment, slot uint16)) bool {
	for {
		r, ok := c.names.find(id)
		if !ok {
			return false
		}
		if s := c.segment(r); s.doAt(r.slot(), id, do) {
			return true
		}
		// It was removed since, and perhaps put again.
	}
}

func (s *segment) doAt(slot uint16, id string, do func(s *segment, slot uint16)) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.is(slot, id) {
		return false
	}
	do(s, slot)
	return true
}

func (c *content) segment(r ref) *segment { return (*c.segments.Load())[r.segment()] }

// record is for the writer, which needs no lock to read.
func (c *content) record(r ref) *record { return &c.segment(r).records[r.slot()] }

// free finds a place for one more document.
func (c *content) free() ref {
	segments := *c.segments.Load()
	for ; c.lowest < len(segments); c.lowest++ {
		if slot, ok := segments[c.lowest].free(); ok {
			return refOf(c.lowest, slot)
		}
	}
	grown := append(slices.Clone(segments), newSegment(len(segments), c.most)) // readers have the others
	c.segments.Store(&grown)
	return refOf(c.lowest, 0)
}

// Len counts the identities whose lease has not ended.
func (ix *Index) Len(now time.Time) int {
	c, at := ix.content.Load(), clock(now)
	n := 0
	for _, s := range *c.segments.Load() {
		n += s.count(at)
	}
	return n
}

func (s *segment) count(now int64) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := s.n
	if s.earliest.Load() <= now {
		for slot := range s.records {
			if s.live.has(uint16(slot)) && s.lapsed(uint16(slot), now) {
				n--
			}
		}
	}
	return n
}

// Earliest returns a time before which no lease ends: zero when none ever does.
func (ix *Index) Earliest() time.Time {
	earliest := int64(never)
	for _, s := range *ix.content.Load().segments.Load() {
		earliest = min(earliest, s.earliest.Load())
	}
	return instant(earliest)
}

// Bytes estimates the memory that the index takes.
func (ix *Index) Bytes() int64 { return ix.content.Load().bytes.Load() }
