package multicastregistry

import "encoding/binary"

// AppendJSON appends metadata that is the text of a JSON object in its wire form, as AppendMetadata appends what DecodeJSON
// returns, and makes no maps of it. With an error b is as it was.
func AppendJSON(b []byte, text string, special Special) ([]byte, error) {
	t := transcriber{jsonText{text: text, special: special}, true}
	if err := t.begin(); err != nil {
		return b, err
	}
	out, err := t.object(b, 0)
	if err == nil {
		err = t.end()
	}
	if err != nil {
		return b, err
	}
	if t.ordered {
		return out, nil
	}
	metadata, err := DecodeMetadata(string(out[len(b):]))
	if err != nil {
		return b, err
	}
	return AppendMetadata(b, metadata), nil
}

// transcriber writes JSON in wire form while it reads it.
type transcriber struct {
	jsonText

	ordered bool // the keys of each object came in order so far, and once
}

// value appends the fields of a Value.
func (t *transcriber) value(b []byte, depth int) ([]byte, error) {
	switch t.next() {
	case '"':
		return t.stringValue(b)
	case '{':
		b = append(b, tagStruct, 0)
		start := len(b)
		b, err := t.object(b, depth)
		if err != nil {
			return nil, err
		}
		return setLength(b, start), nil
	case '[':
		b = append(b, tagList, 0)
		start := len(b)
		b, err := t.array(b, depth)
		if err != nil {
			return nil, err
		}
		return setLength(b, start), nil
	case 't':
		return append(b, tagBool, 1), t.word("true")
	case 'f':
		return append(b, tagBool, 0), t.word("false")
	case 'n':
		return append(b, tagNull, 0), t.word("null")
	}
	n, err := t.number()
	switch n.kind {
	case 'i':
		b = binary.AppendVarint(append(appendNumber(b, float64(n.i)), tagInt), n.i)
	case 'u':
		b = binary.AppendUvarint(binary.AppendUvarint(appendNumber(b, float64(n.u)), tagUint), n.u)
	default:
		b = appendNumber(b, n.f)
	}
	return b, err
}

func (t *transcriber) stringValue(b []byte) ([]byte, error) {
	start := t.at
	s, err := t.str()
	if err != nil {
		return nil, err
	}
	if !t.isSpecial(s) {
		return append(binary.AppendUvarint(append(b, tagString), uint64(len(s))), s...), nil
	}
	t.at = start
	value, err := t.jsonText.stringValue()
	if err != nil {
		return nil, err
	}
	return appendEncoded(b, value), nil
}

// object appends the fields of a Struct.
func (t *transcriber) object(b []byte, depth int) ([]byte, error) {
	before, first := "", true
	for more, err := t.enter('}', depth); more || err != nil; more, err = t.another('}') {
		if err != nil {
			return nil, err
		}
		key, err := t.key()
		if err != nil {
			return nil, err
		}
		t.ordered = t.ordered && (first || before < key)
		before, first = key, false
		b = append(b, tagFields, 0)
		start := len(b)
		b = append(binary.AppendUvarint(append(b, tagKey), uint64(len(key))), key...)
		b = append(b, tagValue, 0)
		inner := len(b)
		if b, err = t.value(b, depth+1); err != nil {
			return nil, err
		}
		b = setLength(setLength(b, inner), start)
	}
	return b, nil
}

// array appends the fields of a ListValue.
func (t *transcriber) array(b []byte, depth int) ([]byte, error) {
	for more, err := t.enter(']', depth); more || err != nil; more, err = t.another(']') {
		if err != nil {
			return nil, err
		}
		b = append(b, tagElement, 0)
		inner := len(b)
		if b, err = t.value(b, depth+1); err != nil {
			return nil, err
		}
		b = setLength(b, inner)
	}
	return b, nil
}
