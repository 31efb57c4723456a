package redis

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// decodeMetadata is the inverse of encodeMetadata. It reads any JSON object, so that one written by hand is understood. The
// strings it returns are parts of the text.
func decodeMetadata(text string) (map[string]any, error) {
	d := decoder{text: text}
	if !utf8.ValidString(text) {
		return nil, d.fault("not valid UTF-8")
	}
	if d.next() != '{' {
		return nil, d.fault("expected an object")
	}
	object, err := d.object(maxNesting)
	if err != nil {
		return nil, err
	}
	if d.next() != 0 || d.at < len(text) {
		return nil, d.fault("expected the end")
	}
	return object, nil
}

// decoder reads JSON text from the position at.
type decoder struct {
	text string
	at   int
}

func (d *decoder) fault(problem string) error {
	return fmt.Errorf("decode metadata: at byte %d: %s", d.at, problem)
}

// next passes over white space and returns the byte that follows, without passing over it; 0 at the end.
func (d *decoder) next() byte {
	for d.at < len(d.text) {
		switch c := d.text[d.at]; c {
		case ' ', '\t', '\n', '\r':
			d.at++
		default:
			return c
		}
	}
	return 0
}

func (d *decoder) value(depth int) (any, error) {
	switch c := d.next(); c {
	case '"':
		s, err := d.str()
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(s, escape) {
			return d.unescape(s)
		}
		return s, nil
	case '{':
		return d.object(depth - 1)
	case '[':
		return d.array(depth - 1)
	case 't':
		return true, d.word("true")
	case 'f':
		return false, d.word("false")
	case 'n':
		return nil, d.word("null")
	default:
		return d.number()
	}
}

func (d *decoder) word(word string) error {
	if !strings.HasPrefix(d.text[d.at:], word) {
		return d.fault("expected a value")
	}
	d.at += len(word)
	return nil
}

func (d *decoder) object(depth int) (map[string]any, error) {
	if depth < 0 {
		return nil, d.fault(errNesting.Error())
	}
	object := make(map[string]any)
	d.at++
	if d.next() == '}' {
		d.at++
		return object, nil
	}
	for {
		if d.next() != '"' {
			return nil, d.fault("expected a key")
		}
		key, err := d.str()
		if err != nil {
			return nil, err
		}
		if d.next() != ':' {
			return nil, d.fault("expected a colon")
		}
		d.at++
		value, err := d.value(depth)
		if err != nil {
			return nil, err
		}
		object[key] = value
		switch d.next() {
		case ',':
			d.at++
		case '}':
			d.at++
			return object, nil
		default:
			return nil, d.fault("expected a comma or the end of an object")
		}
	}
}

func (d *decoder) array(depth int) ([]any, error) {
	if depth < 0 {
		return nil, d.fault(errNesting.Error())
	}
	array := []any{}
	d.at++
	if d.next() == ']' {
		d.at++
		return array, nil
	}
	for {
		value, err := d.value(depth)
		if err != nil {
			return nil, err
		}
		array = append(array, value)
		switch d.next() {
		case ',':
			d.at++
		case ']':
			d.at++
			return array, nil
		default:
			return nil, d.fault("expected a comma or the end of an array")
		}
	}
}

// number reads digits, and leaves it to strconv what they mean.
func (d *decoder) number() (any, error) {
	start, whole := d.at, true
	for ; d.at < len(d.text); d.at++ {
		c := d.text[d.at]
		if '0' <= c && c <= '9' || c == '-' {
			continue
		}
		if c != '.' && c != 'e' && c != 'E' && c != '+' {
			break
		}
		whole = false
	}
	token := d.text[start:d.at]
	if digits := strings.TrimPrefix(token, "-"); digits == "" || digits[0] < '0' || digits[0] > '9' ||
		len(digits) > 1 && digits[0] == '0' && '0' <= digits[1] && digits[1] <= '9' {
		d.at = start
		return nil, d.fault("expected a value")
	}
	if whole {
		if i, ok := parseInteger(token); ok {
			return i, nil
		}
	}
	f, err := strconv.ParseFloat(token, 64)
	if err != nil {
		d.at = start
		return nil, d.fault("expected a number that a float64 holds")
	}
	return f, nil
}

// parseInteger reads an integer of 64 bits.
func parseInteger(s string) (any, bool) {
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return i, true
	}
	u, err := strconv.ParseUint(s, 10, 64)
	return u, err == nil
}

// unescape returns the value behind a string that begins with NUL.
func (d *decoder) unescape(s string) (any, error) {
	if digits, ok := strings.CutPrefix(s, escapeInteger); ok {
		if i, ok := parseInteger(digits); ok {
			return i, nil
		}
	}
	if s == emptyArray {
		return []any{}, nil
	}
	if strings.HasPrefix(s[len(escape):], escape) {
		return s[len(escape):], nil
	}
	return nil, d.fault("unknown escape")
}

// str reads a string: a part of the text, when nothing in it is escaped.
func (d *decoder) str() (string, error) {
	d.at++
	start := d.at
	for ; d.at < len(d.text); d.at++ {
		switch c := d.text[d.at]; {
		case c == '"':
			d.at++
			return d.text[start : d.at-1], nil
		case c == '\\':
			return d.escaped(start)
		case c < ' ':
			return "", d.fault("control character in a string")
		}
	}
	return "", d.fault("expected the end of a string")
}

var shortEscapes = [256]byte{
	'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t',
}

// escaped reads the rest of a string that has begun at start, from its first backslash on.
func (d *decoder) escaped(start int) (string, error) {
	b := append(make([]byte, 0, 2*(d.at-start)+16), d.text[start:d.at]...)
	for d.at+1 < len(d.text) {
		switch c := d.text[d.at]; {
		case c == '"':
			d.at++
			return string(b), nil
		case c < ' ':
			return "", d.fault("control character in a string")
		case c != '\\':
			b = append(b, c)
			d.at++
		case d.text[d.at+1] == 'u':
			r, ok := d.codeUnit()
			if !ok {
				return "", d.fault(`expected \u and four hexadecimal digits`)
			}
			if utf16.IsSurrogate(r) {
				before := d.at
				low, _ := d.codeUnit()
				if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
					d.at = before
				}
			}
			b = utf8.AppendRune(b, r)
		default:
			c = shortEscapes[d.text[d.at+1]]
			if c == 0 {
				return "", d.fault("unknown escape")
			}
			b = append(b, c)
			d.at += 2
		}
	}
	if strings.HasSuffix(d.text[d.at:], `"`) {
		d.at++
		return string(b), nil
	}
	return "", d.fault("expected the end of a string")
}

// codeUnit passes over \uXXXX.
func (d *decoder) codeUnit() (rune, bool) {
	if !strings.HasPrefix(d.text[d.at:], `\u`) || d.at+6 > len(d.text) {
		return 0, false
	}
	var r rune
	for _, c := range []byte(d.text[d.at+2 : d.at+6]) {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	d.at += 6
	return r, true
}
