package index

import (
	"encoding/binary"
	"math"
	"sync"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// A reading is encoded metadata taken apart: its fields from the outside in, each with what is in it. It makes no maps, and its
// texts share the memory of what was read. The form that it reads is exactly that of multicastregistry.AppendMetadata.
type reading struct {
	values []value
	names  []byte
	copied bool // the texts are not those of what was read
}

// A value is a field of a document or, behind it, an element of the array that this is. Objects and arrays are no elements.
type value struct {
	kind     kind
	element  bool
	yes      bool
	from, to uint32 // of the field's name, as appendPath has it, in names
	number   number
	text     text
}

// deepest is how many objects and lists may lie in each other, for multicastregistry.DecodeMetadata too.
const deepest = 32

var readings = sync.Pool{New: func() any { return new(reading) }}

// close gives memory back. It must not hold on to documents.
func (r *reading) close() {
	if cap(r.values) > 4096 || cap(r.names) > 1<<16 {
		return
	}
	clear(r.values)
	readings.Put(r)
}

// read reads all of a document's metadata. When it is none, which includes what is too deep, there is nothing, and it is false.
func (r *reading) read(encoded string) bool {
	r.copied = false
	if r.whole(encoded) {
		return true
	}
	metadata, err := multicastregistry.DecodeMetadata(encoded)
	if err == nil { // as another writer has it
		r.copied = true
		r.whole(string(multicastregistry.AppendMetadata(nil, metadata)))
	}
	return err == nil
}

func (r *reading) whole(encoded string) bool {
	r.values, r.names = r.values[:0], r.names[:0]
	if !r.object(encoded, 0, 0, 0) {
		r.values = r.values[:0]
		return false
	}
	return true
}

// The tags of the form.
const (
	tagField   = 1<<3 | 2
	tagKey     = 1<<3 | 2
	tagValue   = 2<<3 | 2
	tagNull    = 1 << 3
	tagNumber  = 2<<3 | 1
	tagString  = 3<<3 | 2
	tagBool    = 4 << 3
	tagObject  = 5<<3 | 2
	tagList    = 6<<3 | 2
	tagElement = 1<<3 | 2
	tagInt     = 15 << 3
	tagUint    = 16 << 3 // of two bytes, 0x80 and 1
)

// object reads what is under the name from one place in names to another.
func (r *reading) object(encoded string, from, to, depth int) bool {
	if depth > deepest {
		return false
	}
	before, first := "", true
	for len(encoded) > 0 {
		field, rest, ok := cut(encoded, tagField)
		key, field, isKey := cut(field, tagKey)
		content, field, isValue := cut(field, tagValue)
		if !ok || !isKey || !isValue || field != "" || !first && key <= before {
			return false
		}
		encoded, before, first = rest, key, false
		start := len(r.names)
		r.names = appendPath(append(r.names, r.names[from:to]...), key)
		if !r.field(content, start, depth+1) {
			return false
		}
	}
	return true
}

// field reads the value of the field whose name is the last one.
func (r *reading) field(encoded string, name, depth int) bool {
	r.values = append(r.values, value{from: uint32(name), to: uint32(len(r.names))})
	v := &r.values[len(r.values)-1]
	if encoded == "" {
		return false
	}
	switch encoded[0] {
	case tagObject:
		v.kind = object
		inner, rest, ok := cut(encoded, tagObject)
		return ok && rest == "" && r.object(inner, name, len(r.names), depth)
	case tagList:
		v.kind = array
		inner, rest, ok := cut(encoded, tagList)
		return ok && rest == "" && r.elements(inner, depth)
	default:
		return v.read(encoded)
	}
}

func (r *reading) elements(encoded string, depth int) bool {
	if depth > deepest {
		return false
	}
	for len(encoded) > 0 {
		content, rest, ok := cut(encoded, tagElement)
		if !ok || content == "" {
			return false
		}
		if encoded = rest; content[0] == tagObject || content[0] == tagList {
			if !sound(content, depth+1) {
				return false
			}
			continue
		}
		r.values = append(r.values, value{element: true})
		if !r.values[len(r.values)-1].read(content) {
			return false
		}
	}
	return true
}

// sound tells whether an object or a list is encoded as it should be.
func sound(encoded string, depth int) bool {
	inner := readings.Get().(*reading)
	defer inner.close()
	inner.values, inner.names = inner.values[:0], inner.names[:0]
	return inner.field(encoded, 0, depth)
}

// read reads a scalar.
func (v *value) read(encoded string) (ok bool) {
	switch encoded[0] {
	case tagNull:
		v.kind = null
		return encoded[1:] == "\x00"
	case tagBool:
		v.kind, v.yes = boolean, encoded[1:] == "\x01"
		return v.yes || encoded[1:] == "\x00"
	case tagString:
		v.kind = textual
		content, rest, ok := cut(encoded, tagString)
		v.text = text(content)
		return ok && rest == ""
	case tagNumber:
		v.kind = numeric
		return v.readNumber(encoded[1:])
	default:
		return false
	}
}

// readNumber reads a float64 or, where it follows, the integer that was written as one.
func (v *value) readNumber(encoded string) bool {
	if len(encoded) < 8 {
		return false
	}
	bits, encoded := binary.LittleEndian.Uint64([]byte(encoded[:8])), encoded[8:]
	switch {
	case encoded == "":
		v.number = floatNumber(math.Float64frombits(bits))
		return true
	case encoded[0] == tagInt:
		n, size := binary.Uvarint([]byte(encoded[1:min(len(encoded), 1+binary.MaxVarintLen64)]))
		v.number = intNumber(int64(n>>1) ^ -int64(n&1))
		return size > 0 && 1+size == len(encoded)
	case len(encoded) > 2 && encoded[0] == tagUint&0x7f|0x80 && encoded[1] == tagUint>>7:
		n, size := binary.Uvarint([]byte(encoded[2:min(len(encoded), 2+binary.MaxVarintLen64)]))
		v.number = uintNumber(n)
		return size > 0 && 2+size == len(encoded)
	default:
		return false
	}
}

// cut splits what has a tag and a length off.
func cut(encoded string, tag byte) (content, rest string, ok bool) {
	if len(encoded) < 2 || encoded[0] != tag {
		return "", "", false
	}
	n, start := uint64(encoded[1]), 2
	if n >= 0x80 {
		var size int
		if n, size = binary.Uvarint([]byte(encoded[1:min(len(encoded), 1+binary.MaxVarintLen64)])); size <= 0 {
			return "", "", false
		}
		start = 1 + size
	}
	if n > uint64(len(encoded)-start) {
		return "", "", false
	}
	return encoded[start : start+int(n)], encoded[start+int(n):], true
}
