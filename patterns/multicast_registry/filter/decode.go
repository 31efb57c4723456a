package filter

import (
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// decode reads JSON text into maps, slices and json.Numbers. Unlike json.Unmarshal it refuses duplicate keys and text
// after the value, and bounds the nesting before it descends.
func (p *parser) decode(src string) (any, error) {
	var top *pointer
	if len(src) > p.limits.SourceBytes {
		return nil, top.errorf("the filter is %d bytes long, the limit is %d", len(src), p.limits.SourceBytes)
	}
	if !utf8.ValidString(src) {
		return nil, top.errorf("the filter is not valid UTF-8")
	}
	d := decoder{json.NewDecoder(strings.NewReader(src))}
	d.UseNumber()
	// A filter at the depth limit, whose deepest field holds an operator with an array, needs twice its depth and one more.
	v, err := d.value(top, 2*p.limits.Depth+4)
	if err != nil {
		return nil, err
	}
	end := d.InputOffset()
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, top.errorf("expected nothing after the filter, got %q", shorten(strings.TrimSpace(src[end:])))
	}
	return v, nil
}

type decoder struct{ *json.Decoder }

func (d decoder) value(at *pointer, levels int) (any, error) {
	token, err := d.token(at)
	if err != nil {
		return nil, err
	}
	delim, nested := token.(json.Delim)
	if !nested {
		return token, nil
	}
	if levels == 0 {
		return nil, at.errorf("nested too deep for any filter")
	}
	if delim == '[' {
		return d.array(at, levels-1)
	}
	return d.object(at, levels-1)
}

func (d decoder) array(at *pointer, levels int) (any, error) {
	array := []any{}
	for d.More() {
		v, err := d.value(at.child(strconv.Itoa(len(array))), levels)
		if err != nil {
			return nil, err
		}
		array = append(array, v)
	}
	_, err := d.token(at)
	return array, err
}

func (d decoder) object(at *pointer, levels int) (any, error) {
	object := map[string]any{}
	for d.More() {
		token, err := d.token(at)
		if err != nil {
			return nil, err
		}
		key := token.(string) // the decoder admits nothing else here
		if _, twice := object[key]; twice {
			return nil, at.errorf("the key %q occurs twice in one object; join both conditions with $and", shorten(key))
		}
		if object[key], err = d.value(at.child(key), levels); err != nil {
			return nil, err
		}
	}
	_, err := d.token(at)
	return object, err
}

func (d decoder) token(at *pointer) (json.Token, error) {
	token, err := d.Token()
	if err == nil {
		return token, nil
	}
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, at.errorf("expected a JSON value, got the end of the text")
	case errors.As(err, &syntax):
		return nil, at.errorf("invalid JSON at byte %d: %v", syntax.Offset, err)
	default:
		return nil, at.errorf("invalid JSON at byte %d: %v", d.InputOffset(), err)
	}
}
