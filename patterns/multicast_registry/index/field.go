package index

import (
	"encoding/binary"
	"strings"
)

// kind is the JSON type of a value, as filter names them.
type kind uint8

const (
	null kind = iota
	boolean
	numeric
	textual
	array
	object
	kinds
)

var kindNames = [kinds]string{"null", "bool", "number", "string", "array", "object"}

// kindOf agrees with multicastregistry.AppendMetadata about values that metadata should not have.
func kindOf(value any) kind {
	switch value.(type) {
	case string:
		return textual
	case float64, int64, uint64:
		return numeric
	case bool:
		return boolean
	case []any:
		return array
	case map[string]any:
		return object
	default:
		return null
	}
}

// A field is what a segment knows of one path. A document that has the field is in one of types, so that being present needs
// no posting of its own. A scalar is a term of the document, and so is each scalar in an array: where only the former are
// meant, types tells.
type field struct {
	types   [kinds]posting
	nulls   posting // arrays with a null in them
	bools   [2]posting
	numbers dictionary[number]
	texts   dictionary[text]
	bare    posting // arrays without a scalar in them, and numbers that are none
}

// What fields and terms take, for Index.Bytes: with the map's entry and with half of the room that blocks have to spare.
const (
	fieldBytes  = 350
	numberBytes = 40
	textBytes   = 40
)

// present counts the documents that have the field.
func (f *field) present() int {
	n := 0
	for i := range f.types {
		n += int(f.types[i].n)
	}
	return n
}

// appendPath appends one more key to the name under which a path's field is found. No two paths have the same.
func appendPath(name []byte, key string) []byte {
	return append(binary.AppendUvarint(name, uint64(len(key))), key...)
}

// pathName is the name of a whole path.
func pathName(path []string) string {
	var name []byte
	for _, key := range path {
		name = appendPath(name, key)
	}
	return string(name)
}

// splitPath is the inverse of appendPath.
func splitPath(name string) (path []string) {
	for len(name) > 0 {
		n, size := binary.Uvarint([]byte(name[:min(len(name), binary.MaxVarintLen64)]))
		path = append(path, name[size:size+int(n)])
		name = name[size+int(n):]
	}
	return path
}

// An editor puts a document's fields into a segment, or takes them out.
type editor struct {
	segment *segment
	slot    uint16
	remove  bool
	clone   bool // terms must not share the memory of what they are part of
	grown   int  // bytes
}

// fields goes through all that was read of a document.
func (e *editor) fields(r *reading) {
	for i := 0; i < len(r.values); {
		end := i + 1
		for end < len(r.values) && r.values[end].element {
			end++
		}
		v := &r.values[i]
		e.field(r.names[v.from:v.to], v, r.values[i+1:end])
		i = end
	}
}

func (e *editor) field(name []byte, v *value, elements []value) {
	f := e.segment.fields[string(name)]
	if f == nil {
		if e.remove {
			return
		}
		f = new(field)
		e.segment.fields[string(name)] = f
		e.grown += fieldBytes + len(name)
	}
	e.edit(&f.types[v.kind])
	switch v.kind {
	case array:
		bare := true
		for i := range elements {
			if element := &elements[i]; element.kind == null {
				e.edit(&f.nulls)
				bare = false
			} else if e.term(f, element) {
				bare = false
			}
		}
		if bare {
			e.edit(&f.bare)
		}
	case numeric:
		if !e.term(f, v) {
			e.edit(&f.bare)
		}
	default:
		e.term(f, v)
	}
	if e.remove && f.present() == 0 {
		delete(e.segment.fields, string(name))
		e.grown -= fieldBytes + len(name)
	}
}

// term is false for what is no term: null has postings of its own.
func (e *editor) term(f *field, v *value) bool {
	switch v.kind {
	case boolean:
		e.edit(&f.bools[truth(v.yes)])
	case textual:
		edit(e, &f.texts, v.text, textBytes+len(v.text))
	case numeric:
		if v.number.isNaN() {
			return false
		}
		edit(e, &f.numbers, v.number, numberBytes)
	default:
		return false
	}
	return true
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (e *editor) edit(p *posting) {
	if e.remove {
		e.grown += p.remove(e.slot)
	} else {
		e.grown += p.add(e.slot)
	}
}

func edit[K key[K]](e *editor, d *dictionary[K], k K, size int) {
	if !e.remove {
		p, added := d.insert(k, func(k K) K { return ownTerm(e, k) })
		if added {
			e.grown += size
		}
		e.edit(p)
		return
	}
	at, found := d.seek(k)
	if !found {
		return // the same term twice in an array
	}
	p := &d.blocks[at.block].postings[at.term]
	if e.edit(p); p.n == 0 {
		d.remove(at)
		e.grown -= size
	}
}

// ownTerm keeps a term from holding on to a large document that is long gone.
func ownTerm[K key[K]](e *editor, k K) K {
	if t, ok := any(k).(text); ok && e.clone {
		return any(text(strings.Clone(string(t)))).(K)
	}
	return k
}
