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

// A record is a document as a segment keeps it: one pointer, to the name with the encoded metadata behind it, and all in one
// line of the processor's cache.
type record struct {
	text       string
	name       uint32 // length
	ttl        int64  // nanoseconds; atomic
	registered int64  // as nanos has it
	revision   uint64
	stamp      uint64 // of the last change, which no renewal is
	expires    int64  // atomic; the segment's expires has it too
}

func (r *record) id() string      { return r.text[:r.name] }
func (r *record) encoded() string { return r.text[r.name:] }

// What a document takes, for Index.Bytes: record, end of lease, place in the order, entry of the map of names, room to spare.
const recordBytes = 64 + 8 + 6 + 40 + 20

// size is what a document takes without its postings.
func (r *record) size() int { return recordBytes + (len(r.text)+15)&^15 }

// A found is a document as it was when a segment was looked through.
type found struct {
	text       string
	name       uint32
	ref        ref
	ttl        int64
	registered int64
	expires    int64
	revision   uint64
	high, low  uint64 // the first 16 bytes of the name, when there is an order to find
}

func (f *found) id() string      { return f.text[:f.name] }
func (f *found) encoded() string { return f.text[f.name:] }

func (f *found) identity() (i multicastregistry.Identity) {
	f.write(&i)
	return i
}

// write fills in an empty identity, field by field: that is cheaper than to copy one.
func (f *found) write(i *multicastregistry.Identity) {
	i.ID, i.Encoded, i.TTL, i.Revision = f.id(), f.encoded(), time.Duration(f.ttl), multicastregistry.Revision(f.revision)
	i.RegisteredAt, i.ExpiresAt = instant(f.registered), instant(f.expires)
}

// never is the end of a lease that has none, in both directions of nanos.
const never = math.MaxInt64

// nanos is a time in nanoseconds since 1970; the zero time is never.
func nanos(t time.Time) int64 {
	switch {
	case t.IsZero() || t.Year() > 2261:
		return never
	case t.Year() < 1679:
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

// encode returns the text of a document and its metadata in a form that shares no memory with the identity. Encoded metadata
// that is none counts as empty.
func encode(identity multicastregistry.Identity) (string, map[string]any) {
	if identity.Metadata == nil {
		whole := identity.ID + identity.Encoded
		if metadata, err := multicastregistry.DecodeMetadata(whole[len(identity.ID):]); err == nil {
			return whole, metadata
		}
	}
	var few [512]byte
	buffer := multicastregistry.AppendMetadata(append(few[:0], identity.ID...), identity.Metadata)
	whole := string(buffer)
	return whole, decode(whole[len(identity.ID):])
}

// decode takes what encode has written.
func decode(encoded string) map[string]any {
	metadata, err := multicastregistry.DecodeMetadata(encoded)
	if err != nil {
		return nil // deeper than metadata goes
	}
	return metadata
}
