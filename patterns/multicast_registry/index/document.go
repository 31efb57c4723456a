package index

import (
	"math"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// A ref names a document: the number of its segment, and its slot there.
type ref uint32

func refOf(segment int, slot uint16) ref { return ref(segment<<16 | int(slot)) }

func (r ref) segment() int { return int(r >> 16) }
func (r ref) slot() uint16 { return uint16(r) }

// A record is a document as a segment keeps it: one pointer, to the name with the encoded metadata behind it. Where documents
// are put in order, the head of the name saves following it.
type record struct {
	head       head
	text       string
	name       uint32 // length
	ttl        int64  // nanoseconds; atomic
	registered int64  // as nanos has it
	revision   uint64
	stamp      uint64 // of the last change, which no renewal is
	expires    int64  // atomic; the segment's expires has it too
}

// newRecord is without lease and stamp.
func newRecord(text string, name int) record {
	return record{head: headOf(text[:name]), text: text, name: uint32(name)}
}

func (r *record) id() string      { return r.text[:r.name] }
func (r *record) encoded() string { return r.text[r.name:] }

// What a document takes, for Index.Bytes: record, end of lease, place in the order, entry of the map of names, room to spare.
const recordBytes = 80 + 8 + 9 + 40 + 20

// size is what a document takes without its postings.
func (r *record) size() int { return recordBytes + (len(r.text)+15)&^15 }

// A found is a document as it was when a segment was looked through.
type found struct {
	head       head
	text       string
	name       uint32
	ref        ref
	ttl        int64
	registered int64
	expires    int64
	revision   uint64
}

func (f *found) id() string      { return f.text[:f.name] }
func (f *found) encoded() string { return f.text[f.name:] }

func (f *found) identity() (i multicastregistry.Identity) {
	f.write(&i)
	return i
}

// write overwrites an identity, field by field: that is cheaper than to copy one.
func (f *found) write(i *multicastregistry.Identity) {
	i.Metadata = nil
	i.ID, i.Encoded, i.TTL, i.Revision = f.id(), f.encoded(), time.Duration(f.ttl), multicastregistry.Revision(f.revision)
	i.RegisteredAt, i.ExpiresAt = instant(f.registered), instant(f.expires)
}

// never is the end of a lease that has none, in both directions of nanos.
const never = math.MaxInt64

// nanos is a time in nanoseconds since 1970; the zero time is never.
func nanos(t time.Time) int64 {
	const from, to = -9_183_024_000, 9_214_646_400 // 1679 and 2262
	switch seconds := t.Unix(); {
	case seconds >= to || t.IsZero():
		return never
	case seconds < from:
		return math.MinInt64
	default:
		return t.UnixNano()
	}
}

// clock is nanos of the present, which is never never.
func clock(now time.Time) int64 {
	if now.IsZero() {
		return math.MinInt64
	}
	return min(nanos(now), never-1)
}

func instant(nanos int64) time.Time {
	if nanos == never {
		return time.Time{}
	}
	return time.Unix(0, nanos)
}

// encode returns the text of a document, which shares no memory with the identity, and reads its metadata. Encoded metadata that
// is none counts as empty.
func encode(identity multicastregistry.Identity, metadata *reading) string {
	if identity.Metadata == nil {
		whole := identity.ID + identity.Encoded
		if metadata.read(whole[len(identity.ID):]) {
			return whole
		}
	}
	var few [512]byte
	buffer := multicastregistry.AppendMetadata(append(few[:0], identity.ID...), identity.Metadata)
	whole := string(buffer)
	metadata.read(whole[len(identity.ID):]) // nothing, when it is deeper than metadata goes
	return whole
}
