package index

import (
	"slices"
)

// MostDistinct is how many different values of a field are told apart.
const MostDistinct = 100_000

// Field is what an index knows of one path.
type Field struct {
	// Path are the keys from the outside in.
	Path []string
	// Present is how many identities have the field.
	Present int
	// Types counts them by the type that the field has there, under the names that filter.Type takes. Those that do not occur
	// are left out.
	Types map[string]int
	// Distinct is how many different scalars there are, as the field or in it: exact up to MostDistinct.
	Distinct int

	numbers map[number]struct{}
	texts   map[text]struct{}
	others  [3]bool // null, false, true
}

// Fields lists all fields, in order of their paths. Identities count whether their lease has ended or not.
func (ix *Index) Fields() []Field {
	all := make(map[string]*Field)
	for _, s := range *ix.content.Load().segments.Load() {
		s.addFields(all)
	}
	list := make([]Field, 0, len(all))
	for name, f := range all {
		f.Path = splitPath(name)
		f.Distinct = f.distinct()
		list = append(list, Field{Path: f.Path, Present: f.Present, Types: f.Types, Distinct: f.Distinct})
	}
	slices.SortFunc(list, func(a, b Field) int { return slices.Compare(a.Path, b.Path) })
	return list
}

func (s *segment) addFields(all map[string]*Field) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for name, f := range s.fields {
		sum := all[name]
		if sum == nil {
			sum = &Field{Types: make(map[string]int), numbers: make(map[number]struct{}), texts: make(map[text]struct{})}
			all[name] = sum
		}
		sum.add(f)
	}
}

func (f *Field) add(part *field) {
	f.Present += part.present()
	for k, p := range part.types {
		if p.n > 0 {
			f.Types[kindNames[k]] += int(p.n)
		}
	}
	f.others[0] = f.others[0] || part.types[null].n > 0 || part.nulls.n > 0
	f.others[1] = f.others[1] || part.bools[0].n > 0
	f.others[2] = f.others[2] || part.bools[1].n > 0
	part.numbers.between(position{}, part.numbers.end(), func(k number, _ *posting) bool {
		f.numbers[k] = struct{}{}
		return f.distinct() < MostDistinct
	})
	part.texts.between(position{}, part.texts.end(), func(k text, _ *posting) bool {
		f.texts[k] = struct{}{}
		return f.distinct() < MostDistinct
	})
}

func (f *Field) distinct() int {
	n := len(f.numbers) + len(f.texts)
	for _, there := range f.others {
		n += truth(there)
	}
	return min(n, MostDistinct)
}
