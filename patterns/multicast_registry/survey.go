package multicastregistry

import (
	"math/bits"
	"slices"
	"time"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// surveyed are the fields of identities that were scanned. Only those that were asked for are known in detail.
type surveyed struct {
	identities int
	known      []*surveyedField
	found      [][]string // the names of all, up to mostFields
	names      map[string]struct{}
}

type surveyedField struct {
	path   []string
	types  [len(typeNames)]int
	shapes Shape
	values map[any]struct{}
}

// Len implements Fields.
func (s *surveyed) Len(time.Time) int { return s.identities }

// Has implements Fields, for fields that were asked for.
func (s *surveyed) Has(_ time.Time, path []string, shapes Shape) bool {
	f := s.look(path)
	return f != nil && f.shapes&shapes != 0
}

// Field implements Fields, for fields that were asked for.
func (s *surveyed) Field(_ time.Time, path []string) Field {
	out := Field{Path: path, Types: make(map[string]int)}
	if f := s.look(path); f != nil {
		out.Distinct = len(f.values)
		for i, n := range f.types {
			if n > 0 {
				out.Present += n
				out.Types[typeNames[i]] = n
			}
		}
	}
	return out
}

// Paths implements Fields: there are no more than were kept.
func (s *surveyed) Paths(_ time.Time, most int) [][]string {
	slices.SortFunc(s.found, slices.Compare[[]string])
	return s.found[:min(len(s.found), most)]
}

// ask makes a field one that is looked at.
func (s *surveyed) ask(path []string) {
	if s.look(path) == nil {
		s.known = append(s.known, &surveyedField{path: path, values: make(map[any]struct{})})
	}
}

func (s *surveyed) look(path []string) *surveyedField {
	i := slices.IndexFunc(s.known, func(f *surveyedField) bool { return slices.Equal(f.path, path) })
	if i < 0 {
		return nil
	}
	return s.known[i]
}

// add takes in one identity.
func (s *surveyed) add(metadata map[string]any) {
	s.identities++
	for _, f := range s.known {
		if value, present := dig(metadata, f.path); present {
			f.add(value)
		}
	}
	s.list(metadata, nil)
}

// list adds the names of fields that are new.
func (s *surveyed) list(object map[string]any, outer []string) {
	for key, value := range object {
		if len(s.found) >= mostFields {
			return
		}
		path := append(outer, key) //nolint:gocritic // it is copied when it is kept
		name := filter.FormatPath(path)
		if _, known := s.names[name]; !known {
			if s.names == nil {
				s.names = make(map[string]struct{})
			}
			s.names[name] = struct{}{}
			s.found = append(s.found, slices.Clone(path))
		}
		if inner, ok := value.(map[string]any); ok {
			s.list(inner, path)
		}
	}
}

// dig returns what stands at a path.
func dig(metadata map[string]any, path []string) (value any, present bool) {
	value = metadata
	for _, key := range path {
		object, _ := value.(map[string]any)
		if value, present = object[key]; !present {
			return nil, false
		}
	}
	return value, present
}

func (f *surveyedField) add(value any) {
	shape := ShapeOf(value)
	f.shapes |= shape
	f.types[bits.TrailingZeros16(uint16(shape&AnyShape))]++
	elements, ok := value.([]any)
	if !ok {
		elements = []any{value}
	}
	for _, element := range elements {
		if scalar, ok := filter.Scalar(element); ok && len(f.values) < MostDistinct {
			f.values[scalar] = struct{}{}
		}
	}
}
