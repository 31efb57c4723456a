package redis

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Metadata is stored as JSON that a person can read and that cjson, the decoder in Redis' Lua, understands without loss.
// cjson makes every number a float64 and tells an empty array from an empty object no more, so three values are written as
// strings that begin with NUL:
//
//	"\u0000i9007199254740993"  the integer, where float64 does not hold it
//	"\u0000["                  an empty array
//	"\u0000\u0000…"            the string "\u0000…"
//
// A value has one spelling only (keys are sorted, and only what must be escaped is): scans look for the spelling of an
// operand before they decode.
const (
	escape        = "\x00"
	escapeInteger = escape + "i"
	emptyArray    = escape + "["
)

// maxNesting is how deep metadata nests at most, so that walking it can be recursive. Registrations stay far below.
const maxNesting = 64

// encodeMetadata returns the stored form of metadata.
func encodeMetadata(metadata map[string]any) (string, error) {
	var buffer [512]byte
	b, err := appendObject(buffer[:0], metadata, maxNesting)
	if err != nil {
		return "", fmt.Errorf("encode metadata: %w", err)
	}
	return string(b), nil
}

func appendValue(b []byte, value any, depth int) ([]byte, error) {
	switch v := value.(type) {
	case string:
		return appendString(b, v), nil
	case int64:
		return appendInt(b, v), nil
	case float64:
		return appendFloat(b, v)
	case bool:
		return strconv.AppendBool(b, v), nil
	case nil:
		return append(b, "null"...), nil
	case uint64:
		return appendUint(b, v), nil
	case map[string]any:
		return appendObject(b, v, depth-1)
	case []any:
		return appendArray(b, v, depth-1)
	default:
		return nil, fmt.Errorf("a Go %T is not a JSON value", value)
	}
}

var errNesting = errors.New("nested too deep")

func appendObject(b []byte, object map[string]any, depth int) ([]byte, error) {
	if depth < 0 {
		return nil, errNesting
	}
	var buffer [16]string
	keys := buffer[:0]
	for key := range object {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	b = append(b, '{')
	for i, key := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendText(b, key), ':')
		var err error
		if b, err = appendValue(b, object[key], depth); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func appendArray(b []byte, array []any, depth int) ([]byte, error) {
	if depth < 0 {
		return nil, errNesting
	}
	if len(array) == 0 {
		return appendText(b, emptyArray), nil
	}
	b = append(b, '[')
	for i, element := range array {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendValue(b, element, depth); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

const (
	two53 = 1 << 53
	two63 = float64(1 << 63)
	two64 = float64(1 << 64)
)

func appendInt(b []byte, i int64) []byte {
	if f := float64(i); -two53 <= i && i <= two53 || f < two63 && int64(f) == i {
		return strconv.AppendInt(b, i, 10)
	}
	b = append(b, `"\u0000i`...)
	return append(strconv.AppendInt(b, i, 10), '"')
}

func appendUint(b []byte, u uint64) []byte {
	if u <= math.MaxInt64 {
		return appendInt(b, int64(u))
	}
	if f := float64(u); f < two64 && uint64(f) == u {
		return strconv.AppendUint(b, u, 10)
	}
	b = append(b, `"\u0000i`...)
	return append(strconv.AppendUint(b, u, 10), '"')
}

// appendFloat spells an integer as an integer of 64 bits is spelled, and marks anything else by a point or an exponent.
func appendFloat(b []byte, f float64) ([]byte, error) {
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return nil, fmt.Errorf("%v is not a JSON number", f)
	case f != math.Trunc(f) && 1e-5 <= math.Abs(f):
		return strconv.AppendFloat(b, f, 'f', -1, 64), nil
	case f != math.Trunc(f) || f < -two63 || f >= two64:
		return strconv.AppendFloat(b, f, 'e', -1, 64), nil
	case f < two63:
		return strconv.AppendInt(b, int64(f), 10), nil
	default:
		return strconv.AppendUint(b, uint64(f), 10), nil
	}
}

// appendString appends a string value.
func appendString(b []byte, s string) []byte {
	if strings.HasPrefix(s, escape) {
		s = escape + s
	}
	return appendText(b, s)
}

// appendText appends a JSON string: a key, or a value with our own escapes.
func appendText(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(append(b, s[from:]...), '"')
}
