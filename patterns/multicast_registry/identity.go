package multicastregistry

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// NoExpiry as a TTL says that the identity stays until it is removed. It is explicit: a TTL of 0 means the namespace's
// default.
const NoExpiry time.Duration = -1

// MaxIdentityBytes is the longest name of an identity.
const MaxIdentityBytes = 256

// maxMetadataDepth bounds the nesting of metadata, so that walking it can be recursive.
const maxMetadataDepth = 32

// Revision numbers the changes of a registry, upwards without gaps. 0 means that the backend keeps no revisions.
type Revision uint64

// Identity is a registered device, service, user or agent.
type Identity struct {
	// ID is the name, unique in the namespace: 1 to 256 bytes of UTF-8, any characters.
	ID string
	// Metadata is a JSON object: nil, bool, string, int64, uint64 (above the int64s), float64, []any and map[string]any.
	Metadata map[string]any
	// Encoded is Metadata as AppendMetadata writes it. A Querier hands it out in place of Metadata, and
	// a change feed and a Watcher may; elsewhere it is empty.
	Encoded string
	// TTL is the length of the lease, or NoExpiry.
	TTL time.Duration
	// RegisteredAt is when the identity was put, by the backend's clock.
	RegisteredAt time.Time
	// ExpiresAt is when the lease ends, by the backend's clock. Zero with NoExpiry.
	ExpiresAt time.Time
	// Revision is the registry's revision at which the identity was put. 0 when the backend keeps none.
	Revision Revision
}

// Lease is what a renewal returns.
type Lease struct {
	// TTL is the length of the lease, or NoExpiry.
	TTL time.Duration
	// ExpiresAt is when the lease ends, by the backend's clock. Zero with NoExpiry.
	ExpiresAt time.Time
	// Of is the Revision of the identity whose lease it is. 0 when the backend keeps none.
	Of Revision
}

// Topic returns the address of an identity in the messaging and durability slots: "prism.<namespace>.<name>". Names of
// letters, digits, '_' and '-' keep their spelling; every other byte becomes '=' and two hexadecimal digits. So distinct
// identities have distinct topics, and no identity can smuggle a wildcard, a separator or a line break into a backend.
func Topic(namespace, identity string) string {
	var b strings.Builder
	b.Grow(len("prism..") + len(namespace) + len(identity))
	b.WriteString("prism.")
	b.WriteString(namespace)
	b.WriteByte('.')
	encodeName(&b, identity)
	return b.String()
}

// ParseTopic is the inverse of Topic. It is not ok for a string that Topic does not return.
func ParseTopic(topic string) (namespace, identity string, ok bool) {
	rest, ok := strings.CutPrefix(topic, "prism.")
	if !ok {
		return "", "", false
	}
	namespace, encoded, ok := strings.Cut(rest, ".")
	if !ok {
		return "", "", false
	}
	identity, ok = DecodeName(encoded)
	return namespace, identity, ok
}

// EncodeName returns an identity's name as Topic spells it: letters, digits, '_', '-', and '=' with two hexadecimal digits
// for every other byte. Backends use it for keys.
func EncodeName(identity string) string {
	var b strings.Builder
	b.Grow(len(identity))
	encodeName(&b, identity)
	return b.String()
}

func encodeName(b *strings.Builder, identity string) {
	const hex = "0123456789ABCDEF"
	for i := range len(identity) {
		c := identity[i]
		if plain(c) {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('=')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
}

// plain tells whether a byte keeps its spelling in a topic.
func plain(c byte) bool {
	return c == '_' || c == '-' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// DecodeName is the inverse of EncodeName. It is not ok for a string that EncodeName does not return.
func DecodeName(encoded string) (identity string, ok bool) {
	if strings.IndexByte(encoded, '=') < 0 {
		for i := range len(encoded) {
			if !plain(encoded[i]) {
				return "", false
			}
		}
		return encoded, true
	}
	out := make([]byte, 0, len(encoded))
	for i := 0; i < len(encoded); i++ {
		c := encoded[i]
		if c != '=' {
			if !plain(c) {
				return "", false
			}
			out = append(out, c)
			continue
		}
		if i+2 >= len(encoded) {
			return "", false
		}
		high, low := hexDigit(encoded[i+1]), hexDigit(encoded[i+2])
		if high < 0 || low < 0 || plain(byte(high<<4|low)) {
			return "", false
		}
		out = append(out, byte(high<<4|low))
		i += 2
	}
	return string(out), true
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// CheckIdentity returns an InvalidError when id cannot name an identity.
func CheckIdentity(id string) error {
	if id == "" {
		return invalid("identity", "must not be empty")
	}
	if len(id) > MaxIdentityBytes {
		return invalid("identity", "is %d bytes long, at most %d are allowed", len(id), MaxIdentityBytes)
	}
	if !utf8.ValidString(id) {
		return invalid("identity", "is not valid UTF-8")
	}
	return nil
}

// CopyMetadata returns a deep copy in which every number is an int64, a uint64 (above the int64s) or a float64, as
// described at Identity.Metadata. It also accepts Go's other integer and float kinds, json.Number and []string, and
// returns an InvalidError, with a JSON pointer to the value, for anything that is not JSON. A nil map becomes an empty one.
func CopyMetadata(metadata map[string]any) (map[string]any, error) {
	out, bad := copyValue(metadata, 0)
	if bad != nil {
		return nil, bad.asInvalid()
	}
	return out.(map[string]any), nil
}

// MetadataSize returns how large metadata are, as MaxMetadata bounds them.
func MetadataSize(metadata map[string]any) int { return metadataSize(metadata) }

// metadataSize returns how large a value of metadata is: the text of its keys and strings, 12 bytes for each value whatever
// it is, and 4 for each key. That is about what it takes as protobuf, and never much less.
func metadataSize(value any) int {
	size := 12
	switch v := value.(type) {
	case string:
		size += len(v)
	case map[string]any:
		for key, inner := range v {
			size += 4 + len(key) + metadataSize(inner)
		}
	case []any:
		for _, inner := range v {
			size += metadataSize(inner)
		}
	}
	return size
}

// fault is a bad value, with the way to it collected from the inside out.
type fault struct {
	path    []string
	problem string
}

func (f *fault) under(part string) *fault {
	f.path = append(f.path, part)
	return f
}

func (f *fault) asInvalid() error {
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	field := []string{"metadata"}
	for _, part := range slices.Backward(f.path) {
		field = append(field, escape.Replace(part))
	}
	return invalid(strings.Join(field, "/"), "%s", f.problem)
}

func copyValue(value any, depth int) (any, *fault) {
	if depth > maxMetadataDepth {
		return nil, &fault{problem: fmt.Sprintf("is nested deeper than %d levels", maxMetadataDepth)}
	}
	switch v := value.(type) {
	case nil, bool, int64:
		return v, nil
	case string:
		if !utf8.ValidString(v) {
			return nil, &fault{problem: "is not valid UTF-8"}
		}
		return v, nil
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, inner := range v {
			if !utf8.ValidString(key) {
				return nil, &fault{problem: fmt.Sprintf("key %q is not valid UTF-8", key)}
			}
			copied, bad := copyValue(inner, depth+1)
			if bad != nil {
				return nil, bad.under(key)
			}
			out[key] = copied
		}
		return out, nil
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			copied, bad := copyValue(inner, depth+1)
			if bad != nil {
				return nil, bad.under(strconv.Itoa(i))
			}
			out[i] = copied
		}
		return out, nil
	case []string:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = inner
		}
		return copyValue(out, depth)
	case json.Number:
		return copyJSONNumber(v)
	default:
		return copyNumber(value)
	}
}

func copyNumber(value any) (any, *fault) {
	switch v := value.(type) {
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, &fault{problem: "is not a finite number"}
		}
		return v, nil
	case float32:
		return copyNumber(float64(v))
	case int:
		return int64(v), nil
	case int8:
		return int64(v), nil
	case int16:
		return int64(v), nil
	case int32:
		return int64(v), nil
	case uint:
		return copyUint(uint64(v)), nil
	case uint8:
		return int64(v), nil
	case uint16:
		return int64(v), nil
	case uint32:
		return int64(v), nil
	case uint64:
		return copyUint(v), nil
	}
	return nil, &fault{problem: fmt.Sprintf("is a Go %T, which is not a JSON value", value)}
}

func copyUint(v uint64) any {
	if v > math.MaxInt64 {
		return v
	}
	return int64(v)
}

func copyJSONNumber(v json.Number) (any, *fault) {
	if i, err := v.Int64(); err == nil {
		return i, nil
	}
	var u uint64
	if err := json.Unmarshal([]byte(v), &u); err == nil {
		return u, nil
	}
	f, err := v.Float64()
	if err != nil {
		return nil, &fault{problem: fmt.Sprintf("%q is not a number", v)}
	}
	return copyNumber(f)
}
