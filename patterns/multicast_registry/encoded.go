package multicastregistry

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Metadata is encoded once, when it is registered, and copied from then on: into an index, from there into every answer. The
// form is that of the wire, a google.protobuf.Struct, so that an answer takes it as it is. Struct has only float64s: a Go
// integer is written as one and, in a field of the Value that readers of Struct pass over, once more as itself.
const (
	tagFields  = 1<<3 | 2 // Struct.fields, an entry of the map
	tagKey     = 1<<3 | 2
	tagValue   = 2<<3 | 2
	tagNull    = 1 << 3
	tagNumber  = 2<<3 | 1
	tagString  = 3<<3 | 2
	tagBool    = 4 << 3
	tagStruct  = 5<<3 | 2
	tagList    = 6<<3 | 2
	tagElement = 1<<3 | 2 // ListValue.values
	tagInt     = 15 << 3  // ours, zigzag
	tagUint    = 16 << 3  // ours, of two bytes
)

var errEncoded = errors.New("metadata is not encoded as it should be")

// AppendMetadata appends metadata, as CopyMetadata returns it, in its wire form: a google.protobuf.Struct with sorted keys.
// Equal metadata has equal forms.
func AppendMetadata(b []byte, metadata map[string]any) []byte {
	var few [16]string
	keys := few[:0]
	for key := range metadata {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		b = append(b, tagFields, 0)
		start := len(b)
		b = append(b, tagKey)
		b = binary.AppendUvarint(b, uint64(len(key)))
		b = append(b, key...)
		b = append(b, tagValue, 0)
		inner := len(b)
		b = appendEncoded(b, metadata[key])
		b = setLength(b, inner)
		b = setLength(b, start)
	}
	return b
}

// setLength writes the length of all that stands from start on into the byte before, and makes room where one does not do.
func setLength(b []byte, start int) []byte {
	n := uint64(len(b) - start)
	if n < 0x80 {
		b[start-1] = byte(n)
		return b
	}
	size := 1
	for rest := n; rest >= 0x80; rest >>= 7 {
		size++
	}
	for range size - 1 {
		b = append(b, 0)
	}
	copy(b[start+size-1:], b[start:])
	binary.PutUvarint(b[start-1:], n)
	return b
}

func appendEncoded(b []byte, value any) []byte {
	switch v := value.(type) {
	case string:
		b = append(b, tagString)
		b = binary.AppendUvarint(b, uint64(len(v)))
		return append(b, v...)
	case float64:
		return appendNumber(b, v)
	case int64:
		b = append(appendNumber(b, float64(v)), tagInt)
		return binary.AppendVarint(b, v)
	case uint64:
		b = binary.AppendUvarint(appendNumber(b, float64(v)), tagUint)
		return binary.AppendUvarint(b, v)
	case bool:
		if v {
			return append(b, tagBool, 1)
		}
		return append(b, tagBool, 0)
	case map[string]any:
		b = append(b, tagStruct, 0)
		start := len(b)
		return setLength(AppendMetadata(b, v), start)
	case []any:
		b = append(b, tagList, 0)
		start := len(b)
		for _, element := range v {
			b = append(b, tagElement, 0)
			inner := len(b)
			b = setLength(appendEncoded(b, element), inner)
		}
		return setLength(b, start)
	default:
		return append(b, tagNull, 0)
	}
}

func appendNumber(b []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(append(b, tagNumber), math.Float64bits(v))
}

// DecodeMetadata is the inverse of AppendMetadata. It also reads what other writers of Struct have written.
func DecodeMetadata(encoded string) (map[string]any, error) {
	metadata, ok := decodeObject(encoded, 0)
	if !ok {
		return nil, fmt.Errorf("decode metadata of %d bytes: %w", len(encoded), errEncoded)
	}
	return metadata, nil
}

func decodeObject(encoded string, depth int) (map[string]any, bool) {
	object := make(map[string]any, 8)
	if depth > maxMetadataDepth {
		return nil, false
	}
	for len(encoded) > 0 {
		key, value, rest, ok := cutField(encoded)
		if !ok {
			return nil, false
		}
		encoded = rest
		if object[key], ok = decodeValue(value, depth+1); !ok {
			return nil, false
		}
	}
	return object, true
}

// cutField splits the first entry off an encoded object.
func cutField(encoded string) (key, value, rest string, ok bool) {
	tag, entry, rest, ok := cutBytes(encoded)
	if !ok || tag != tagFields {
		return "", "", "", false
	}
	for len(entry) > 0 && ok {
		var part string
		if tag, part, entry, ok = cutBytes(entry); tag == tagKey {
			key = part
		} else {
			value = part
		}
	}
	return key, value, rest, ok
}

// cutBytes splits a field of the wire type "length-delimited" off, with its tag.
func cutBytes(encoded string) (tag uint64, content, rest string, ok bool) {
	tag, encoded, ok = cutUvarint(encoded)
	if !ok || tag&7 != 2 {
		return 0, "", "", false
	}
	n, encoded, ok := cutUvarint(encoded)
	if !ok || n > uint64(len(encoded)) {
		return 0, "", "", false
	}
	return tag, encoded[:n], encoded[n:], true
}

func cutUvarint(encoded string) (v uint64, rest string, ok bool) {
	for i := range min(len(encoded), binary.MaxVarintLen64) {
		c := encoded[i]
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v, encoded[i+1:], true
		}
	}
	return 0, "", false
}

// decodeValue decodes a Value; of several fields that belong to it the last one counts.
func decodeValue(encoded string, depth int) (value any, ok bool) {
	for len(encoded) > 0 {
		var tag, v uint64
		var content string
		if encoded[0]&7 == 2 {
			tag, content, encoded, ok = cutBytes(encoded)
		} else if tag, encoded, ok = cutUvarint(encoded); ok && tag&7 == 0 {
			v, encoded, ok = cutUvarint(encoded)
		}
		if !ok {
			return nil, false
		}
		switch tag {
		case tagNull:
			value = nil
		case tagNumber:
			if len(encoded) < 8 {
				return nil, false
			}
			value, encoded = math.Float64frombits(binary.LittleEndian.Uint64([]byte(encoded[:8]))), encoded[8:]
		case tagString:
			value = content
		case tagBool:
			value = v != 0
		case tagInt:
			value = int64(v>>1) ^ -int64(v&1)
		case tagUint:
			value = v
		case tagStruct:
			value, ok = decodeObject(content, depth)
		case tagList:
			value, ok = decodeList(content, depth)
		default:
			return nil, false
		}
		if !ok {
			return nil, false
		}
	}
	return value, true
}

func decodeList(encoded string, depth int) ([]any, bool) {
	list := make([]any, 0, 4)
	if depth > maxMetadataDepth {
		return nil, false
	}
	for len(encoded) > 0 {
		tag, content, rest, ok := cutBytes(encoded)
		if !ok || tag != tagElement {
			return nil, false
		}
		encoded = rest
		element, ok := decodeValue(content, depth+1)
		if !ok {
			return nil, false
		}
		list = append(list, element)
	}
	return list, true
}

// LookUp finds a field in encoded metadata, by its keys from the outside in, and decodes nothing else.
func LookUp(encoded string, path ...string) (value any, present bool) {
	for i, want := range path {
		found := ""
		present = false
		for len(encoded) > 0 {
			key, content, rest, ok := cutField(encoded)
			if !ok {
				return nil, false
			}
			if encoded = rest; key == want {
				found, present = content, true
			}
		}
		if !present {
			return nil, false
		}
		if i == len(path)-1 {
			return decodeValue(found, i)
		}
		tag, inner, _, ok := cutBytes(found)
		if !ok || tag != tagStruct {
			return nil, false
		}
		encoded = inner
	}
	return nil, false
}
