package client

import (
	"encoding/json"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Identity is a registered device, service, user or agent. Its metadata stays in the form in which it came until it is asked
// for. An Identity is a value that never changes: all of its methods may be called concurrently, copies included. Identities
// that arrive together share memory: one that is kept holds up to 16 KiB of its neighbours.
type Identity struct {
	// ID is the name, unique in the namespace: 1 to 256 bytes of UTF-8, any characters.
	ID string
	// TTL is the length of the lease, or NoExpiry.
	TTL time.Duration
	// RegisteredAt is when the identity was registered, by the backend's clock.
	RegisteredAt time.Time
	// ExpiresAt is when the lease ends, by the backend's clock. Zero with NoExpiry.
	ExpiresAt time.Time
	// Revision is the registry's revision at which the identity was registered. 0 when the backend keeps none.
	Revision Revision

	metadata string // a google.protobuf.Struct that checkObject has found right
	has      bool   // metadata is set, though it may be empty
}

// Metadata decodes the metadata, anew with each call: the caller may keep and change what it gets, and keeps it who needs it
// more than once. The values are nil, bool, string, int64, uint64 (above the int64s), float64, []any and map[string]any. Nil
// when metadata was not asked for.
func (i Identity) Metadata() map[string]any {
	if !i.has {
		return nil
	}
	metadata := make(map[string]any, 8)
	decodeObject(metadata, i.metadata)
	return metadata
}

// Lookup returns one value of the metadata, by its keys from the outside in, and decodes nothing else. It is not present where
// a key is missing, or stands in something that is no object.
func (i Identity) Lookup(path ...string) (value any, present bool) { return lookUp(i.metadata, path) }

// Encoded returns the metadata as it travels, a google.protobuf.Struct, for programs that pass it on. Empty for an empty object
// and when metadata was not asked for.
func (i Identity) Encoded() string { return i.metadata }

// MarshalJSON shows the metadata decoded.
func (i Identity) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		ID           string         `json:"ID"`
		Metadata     map[string]any `json:"Metadata"`
		TTL          time.Duration  `json:"TTL"`
		RegisteredAt time.Time      `json:"RegisteredAt"`
		ExpiresAt    time.Time      `json:"ExpiresAt"`
		Revision     Revision       `json:"Revision"`
	}{i.ID, i.Metadata(), i.TTL, i.RegisteredAt, i.ExpiresAt, i.Revision})
}

// The fields of Identity.
const (
	tagID           = 1<<3 | bytesType
	tagMetadata     = 2<<3 | bytesType
	tagRegisteredAt = 3<<3 | bytesType
	tagExpiresAt    = 4<<3 | bytesType
	tagTTL          = 5<<3 | bytesType
	tagRevision     = 6<<3 | varintType
)

// decodeIdentity reads an identity off the wire. Its texts are parts of the message. What is unset is a lease without an end.
func decodeIdentity(message string) (Identity, error) {
	identity := Identity{TTL: NoExpiry}
	var registered, expires, ttl seconds
	var err error
	r := wireReader{message: message}
	for r.next() && err == nil {
		switch r.tag {
		case tagID:
			identity.ID, err = r.text()
		case tagMetadata:
			err = checkObject(r.content(), 0)
			identity.metadata, identity.has = join(identity.metadata, r.content()), true
		case tagRegisteredAt:
			err = registered.decode(r.content())
			identity.RegisteredAt = registered.time()
		case tagExpiresAt:
			err = expires.decode(r.content())
			identity.ExpiresAt = expires.time()
		case tagTTL:
			err = ttl.decode(r.content())
			identity.TTL = ttl.duration()
		case tagRevision:
			identity.Revision = Revision(r.number)
		}
	}
	if err == nil {
		err = r.err()
	}
	return identity, err
}

// seconds is a Timestamp or a Duration: both have seconds and nanoseconds.
type seconds struct {
	whole int64
	nanos int32
}

func (s *seconds) decode(message string) error {
	r := wireReader{message: message}
	for r.next() {
		switch r.tag {
		case 1<<3 | varintType:
			s.whole = int64(r.number)
		case 2<<3 | varintType:
			s.nanos = int32(r.number)
		}
	}
	return r.err()
}

func (s *seconds) time() time.Time {
	t := timestamppb.Timestamp{Seconds: s.whole, Nanos: s.nanos}
	return t.AsTime()
}

func (s *seconds) duration() time.Duration {
	d := durationpb.Duration{Seconds: s.whole, Nanos: s.nanos}
	return d.AsDuration()
}
