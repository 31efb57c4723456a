package multicastregistry

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Special tells what a string of JSON stands for that begins with NUL, where a backend has values that JSON does not. Nil: each
// stands for itself.
type Special func(s string) (value any, ok bool)

// DecodeJSON returns metadata that is the text of a JSON object. Integers of 64 bits are exact, other numbers are float64s, and
// of a key that comes twice the last value counts. The strings it returns are parts of the text. An error says at which byte the
// text is no JSON, or is nested deeper than metadata.
func DecodeJSON(text string, special Special) (map[string]any, error) {
	r := jsonText{text: text, special: special}
	if err := r.begin(); err != nil {
		return nil, err
	}
	object, err := r.object(0)
	if err != nil {
		return nil, err
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return object, nil
}

// jsonText is JSON that is read from the position at.
type jsonText struct {
	text    string
	at      int
	special Special
}

// begin makes sure that the text may be an object.
func (r *jsonText) begin() error {
	if !utf8.ValidString(r.text) {
		return r.fault("not valid UTF-8")
	}
	if r.next() != '{' {
		return r.fault("expected an object")
	}
	return nil
}

// end makes sure that nothing is left.
func (r *jsonText) end() error {
	if r.next() != 0 || r.at < len(r.text) {
		return r.fault("expected the end")
	}
	return nil
}

func (r *jsonText) value(depth int) (any, error) {
	switch r.next() {
	case '"':
		return r.stringValue()
	case '{':
		return r.object(depth)
	case '[':
		return r.array(depth)
	case 't':
		return true, r.word("true")
	case 'f':
		return false, r.word("false")
	case 'n':
		return nil, r.word("null")
	default:
		n, err := r.number()
		if err != nil {
			return nil, err
		}
		return n.value(), nil
	}
}

func (r *jsonText) stringValue() (any, error) {
	start := r.at
	s, err := r.str()
	if err != nil {
		return nil, err
	}
	if !r.isSpecial(s) {
		return s, nil
	}
	value, ok := r.special(s)
	if !ok {
		r.at = start
		return nil, r.fault("unknown escape")
	}
	return value, nil
}

func (r *jsonText) isSpecial(s string) bool { return r.special != nil && strings.HasPrefix(s, "\x00") }

func (r *jsonText) object(depth int) (map[string]any, error) {
	object := make(map[string]any)
	for more, err := r.enter('}', depth); more || err != nil; more, err = r.another('}') {
		if err != nil {
			return nil, err
		}
		key, err := r.key()
		if err != nil {
			return nil, err
		}
		if object[key], err = r.value(depth + 1); err != nil {
			return nil, err
		}
	}
	return object, nil
}

func (r *jsonText) array(depth int) ([]any, error) {
	array := []any{}
	for more, err := r.enter(']', depth); more || err != nil; more, err = r.another(']') {
		if err != nil {
			return nil, err
		}
		element, err := r.value(depth + 1)
		if err != nil {
			return nil, err
		}
		array = append(array, element)
	}
	return array, nil
}

// enter passes over the beginning of an object or an array, and tells whether it has something in it.
func (r *jsonText) enter(end byte, depth int) (more bool, err error) {
	if depth > maxMetadataDepth {
		return false, r.fault("nested too deep")
	}
	r.at++
	if r.next() == end {
		r.at++
		return false, nil
	}
	return true, nil
}

// another passes over a comma, or the end, and tells which.
func (r *jsonText) another(end byte) (more bool, err error) {
	switch r.next() {
	case ',':
		r.at++
		return true, nil
	case end:
		r.at++
		return false, nil
	default:
		return false, r.fault("expected a comma or " + string(end))
	}
}

// key reads the name of a field, and passes over the colon.
func (r *jsonText) key() (string, error) {
	if r.next() != '"' {
		return "", r.fault("expected a key")
	}
	key, err := r.str()
	if err != nil {
		return "", err
	}
	if r.next() != ':' {
		return "", r.fault("expected a colon")
	}
	r.at++
	return key, nil
}

func (r *jsonText) fault(problem string) error {
	return fmt.Errorf("decode metadata: at byte %d: %s", r.at, problem)
}

// next passes over white space and returns the byte that follows, without passing over it; 0 at the end.
func (r *jsonText) next() byte {
	for r.at < len(r.text) {
		switch c := r.text[r.at]; c {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return c
		}
	}
	return 0
}

func (r *jsonText) word(word string) error {
	if !strings.HasPrefix(r.text[r.at:], word) {
		return r.fault("expected a value")
	}
	r.at += len(word)
	return nil
}

// jsonNumber is a number: an integer of 64 bits, or a float64.
type jsonNumber struct {
	kind byte // 'i', 'u' or 'f'
	i    int64
	u    uint64
	f    float64
}

func (n jsonNumber) value() any {
	switch n.kind {
	case 'i':
		return n.i
	case 'u':
		return n.u
	default:
		return n.f
	}
}

// number reads digits, and leaves it to strconv what they mean.
func (r *jsonText) number() (n jsonNumber, err error) {
	start, whole := r.at, true
	for ; r.at < len(r.text); r.at++ {
		c := r.text[r.at]
		if '0' <= c && c <= '9' || c == '-' {
			continue
		}
		if c != '.' && c != 'e' && c != 'E' && c != '+' {
			break
		}
		whole = false
	}
	token := r.text[start:r.at]
	if !startsNumber(strings.TrimPrefix(token, "-")) {
		r.at = start
		return n, r.fault("expected a value")
	}
	if whole {
		if n.i, err = strconv.ParseInt(token, 10, 64); err == nil {
			n.kind = 'i'
			return n, nil
		}
		if n.u, err = strconv.ParseUint(token, 10, 64); err == nil {
			n.kind = 'u'
			return n, nil
		}
	}
	n.kind = 'f'
	if n.f, err = strconv.ParseFloat(token, 64); err != nil {
		r.at = start
		return n, r.fault("expected a number that a float64 holds")
	}
	return n, nil
}

// startsNumber tells whether a number of JSON may begin like that, behind its sign.
func startsNumber(digits string) bool {
	return digits != "" && '0' <= digits[0] && digits[0] <= '9' &&
		(len(digits) == 1 || digits[0] != '0' || digits[1] < '0' || digits[1] > '9')
}

// str reads a string: a part of the text, when nothing in it is escaped.
func (r *jsonText) str() (string, error) {
	r.at++
	start := r.at
	for ; r.at < len(r.text); r.at++ {
		switch c := r.text[r.at]; {
		case c == '"':
			r.at++
			return r.text[start : r.at-1], nil
		case c == '\\':
			return r.escaped(start)
		case c < ' ':
			return "", r.fault("control character in a string")
		}
	}
	return "", r.fault("expected the end of a string")
}

var shortEscapes = [256]byte{
	'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t',
}

// escaped reads the rest of a string that has begun at start, from its first backslash on.
func (r *jsonText) escaped(start int) (string, error) {
	b := append(make([]byte, 0, 2*(r.at-start)+16), r.text[start:r.at]...)
	for r.at+1 < len(r.text) {
		switch c := r.text[r.at]; {
		case c == '"':
			r.at++
			return string(b), nil
		case c < ' ':
			return "", r.fault("control character in a string")
		case c != '\\':
			b = append(b, c)
			r.at++
		case r.text[r.at+1] == 'u':
			unit, ok := r.codeUnit()
			if !ok {
				return "", r.fault(`expected \u and four hexadecimal digits`)
			}
			if utf16.IsSurrogate(unit) {
				before := r.at
				low, _ := r.codeUnit()
				if unit = utf16.DecodeRune(unit, low); unit == utf8.RuneError {
					r.at = before
				}
			}
			b = utf8.AppendRune(b, unit)
		default:
			c = shortEscapes[r.text[r.at+1]]
			if c == 0 {
				return "", r.fault("unknown escape")
			}
			b = append(b, c)
			r.at += 2
		}
	}
	if strings.HasSuffix(r.text[r.at:], `"`) {
		r.at++
		return string(b), nil
	}
	return "", r.fault("expected the end of a string")
}

// codeUnit passes over \uXXXX.
func (r *jsonText) codeUnit() (rune, bool) {
	if !strings.HasPrefix(r.text[r.at:], `\u`) || r.at+6 > len(r.text) {
		return 0, false
	}
	var unit rune
	for _, c := range []byte(r.text[r.at+2 : r.at+6]) {
		switch {
		case '0' <= c && c <= '9':
			unit = unit<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			unit = unit<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	r.at += 6
	return unit, true
}
