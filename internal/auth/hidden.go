package auth

import (
	"maps"
	"slices"
	"strings"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// paths are fields of metadata, by their keys from the outside in. A field covers all that is in it.
type paths [][]string

func (p paths) cover(path []string) bool {
	return slices.ContainsFunc(p, func(hidden []string) bool { return startsWith(path, hidden) })
}

func startsWith(path, start []string) bool {
	return len(path) >= len(start) && slices.Equal(path[:len(start)], start)
}

// both are the fields that are covered by one and by the other.
func (p paths) both(other paths) paths {
	var out paths
	for _, a := range p {
		for _, b := range other {
			switch {
			case startsWith(a, b):
				out = append(out, a)
			case startsWith(b, a):
				out = append(out, b)
			}
		}
	}
	return out
}

// Redact returns metadata without the hidden fields. It changes nothing that it is given, and may return that itself. It looks
// into lists of objects too, where filters do not reach.
func (g *Grant) Redact(metadata map[string]any) map[string]any {
	for _, path := range g.hidden {
		metadata = without(metadata, path)
	}
	return metadata
}

func without(object map[string]any, path []string) map[string]any {
	value, present := object[path[0]]
	if !present {
		return object
	}
	if len(path) == 1 {
		object = maps.Clone(object)
		delete(object, path[0])
		return object
	}
	object = maps.Clone(object)
	object[path[0]] = withoutIn(value, path[1:])
	return object
}

func withoutIn(value any, path []string) any {
	switch v := value.(type) {
	case map[string]any:
		return without(v, path)
	case []any:
		v = slices.Clone(v)
		for i := range v {
			v[i] = withoutIn(v[i], path)
		}
		return v
	}
	return value
}

// CheckFields returns a DeniedError if metadata that the caller sends has a hidden field: who cannot see one cannot set it.
func (g *Grant) CheckFields(metadata map[string]any) error {
	for _, path := range g.hidden {
		if has(metadata, path) {
			return g.deniedField(path)
		}
	}
	return nil
}

// has tells whether something is at a path, lists of objects included.
func has(value any, path []string) bool {
	if len(path) == 0 {
		return true
	}
	switch v := value.(type) {
	case map[string]any:
		inner, present := v[path[0]]
		return present && has(inner, path[1:])
	case []any:
		return slices.ContainsFunc(v, func(element any) bool { return has(element, path) })
	}
	return false
}

// RedactEncoded is Redact for metadata as multicastregistry.AppendMetadata writes it. What has no hidden field is returned as it
// is, and mostly not even decoded.
func (g *Grant) RedactEncoded(encoded string) (string, error) {
	// A key that is in it is in it byte by byte.
	if !slices.ContainsFunc(g.hidden, func(path []string) bool { return strings.Contains(encoded, path[0]) }) {
		return encoded, nil
	}
	metadata, err := multicastregistry.DecodeMetadata(encoded)
	if err != nil {
		return "", err
	}
	return string(multicastregistry.AppendMetadata(nil, g.Redact(metadata))), nil
}
