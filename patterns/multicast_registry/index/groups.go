package index

import (
	"cmp"
	"slices"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// counts is how much is selected, in all and by the values of fields.
type counts struct {
	total int
	by    []*grouping
	most  int
}

// grouping is the groups of one field so far.
type grouping struct {
	path    []string
	field   string
	others  [3]int // null, false, true
	numbers tally[number]
	texts   tally[text]
	missing int
}

// A tally counts terms: what is new under the lock of a segment, in what order it comes, and all of it, in order, without.
type tally[K key[K]] struct {
	fresh, all, spare []counted[K]
}

type counted[K key[K]] struct {
	term K
	n    int
}

func (t *tally[K]) add(k K, n int) { t.fresh = append(t.fresh, counted[K]{k, n}) }

// merge makes what is new part of all.
func (t *tally[K]) merge() {
	if len(t.fresh) == 0 {
		return
	}
	byTerm := func(a, b counted[K]) int { return a.term.compare(b.term) }
	if !slices.IsSortedFunc(t.fresh, byTerm) {
		slices.SortFunc(t.fresh, byTerm)
	}
	out := slices.Grow(t.spare[:0], len(t.all)+len(t.fresh))
	for a, b := t.all, t.fresh; len(a) > 0 || len(b) > 0; {
		var next counted[K]
		if len(b) == 0 || len(a) > 0 && a[0].term.compare(b[0].term) <= 0 {
			next, a = a[0], a[1:]
		} else {
			next, b = b[0], b[1:]
		}
		if last := len(out) - 1; last >= 0 && out[last].term.compare(next.term) == 0 {
			out[last].n += next.n
		} else {
			out = append(out, next)
		}
	}
	t.all, t.spare, t.fresh = out, t.all, t.fresh[:0]
}

func newCounts(q multicastregistry.Selection) *counts {
	c := &counts{most: q.MaxGroups}
	for _, path := range q.CountBy {
		c.by = append(c.by, &grouping{path: path, field: pathName(path)})
	}
	return c
}

func (c *counts) count(e *evaluator, s *segment, selected set) {
	c.total += selected.n
	for _, g := range c.by {
		if selected.n > 0 {
			g.count(e, s.fields[g.field], selected)
		}
	}
}

// merge is called after count, with the segment not locked any more.
func (c *counts) merge() {
	for _, g := range c.by {
		g.numbers.merge()
		g.texts.merge()
	}
}

// count adds what is selected from one segment.
func (g *grouping) count(e *evaluator, f *field, selected set) {
	if f == nil {
		g.missing += selected.n
		return
	}
	whole := selected.n == e.segment.n
	shared := func(p *posting) int {
		if whole {
			return int(p.n)
		}
		return overlap(selected, p.view())
	}
	g.missing += selected.n + shared(&f.types[object]) + shared(&f.bare)
	for i := range f.types {
		g.missing -= shared(&f.types[i])
	}
	g.others[0] += shared(&f.types[null]) + shared(&f.nulls)
	g.others[1] += shared(&f.bools[0])
	g.others[2] += shared(&f.bools[1])
	terms := f.numbers.n + f.texts.n
	if !whole && selected.n < mostCandidates && selected.n*costLookUp < terms*2*costPosting {
		for _, slot := range e.slots(selected) {
			g.document(e.segment.records[slot].encoded())
		}
		return
	}
	countTerms(&g.numbers, &f.numbers, shared)
	countTerms(&g.texts, &f.texts, shared)
}

func countTerms[K key[K]](t *tally[K], d *dictionary[K], shared func(*posting) int) {
	for _, b := range d.blocks {
		for i := range b.postings {
			if n := shared(&b.postings[i]); n > 0 {
				t.add(b.keys[i], n)
			}
		}
	}
}

// document adds the numbers and strings of one document.
func (g *grouping) document(encoded string) {
	value, _ := multicastregistry.LookUp(encoded, g.path...)
	elements, ok := value.([]any)
	if !ok {
		g.scalar(value)
		return
	}
	for i, element := range elements {
		if !repeated(elements, i) {
			g.scalar(element)
		}
	}
}

// repeated tells whether a number or a string in an array was there before.
func repeated(elements []any, i int) bool {
	k := kindOf(elements[i])
	return (k == numeric || k == textual) && slices.ContainsFunc(elements[:i], func(before any) bool {
		return kindOf(before) == k && filter.Compare(before, elements[i]) == 0
	})
}

func (g *grouping) scalar(value any) {
	if s, ok := value.(string); ok {
		g.texts.add(text(s), 1)
	} else if n, ok := numberOf(value); ok {
		g.numbers.add(n, 1)
	}
}

func (c *counts) groups() (all []multicastregistry.Groups) {
	for _, g := range c.by {
		all = append(all, g.groups(c.most))
	}
	return all
}

// groups lists the largest ones. Places in others, numbers and texts, one after the other, are in the order of the values.
func (g *grouping) groups(most int) multicastregistry.Groups {
	type sized struct{ n, place int }
	sizes := make([]sized, 0, len(g.others)+len(g.numbers.all)+len(g.texts.all))
	place := 0
	add := func(n int) {
		if n > 0 {
			sizes = append(sizes, sized{n, place})
		}
		place++
	}
	for _, n := range g.others {
		add(n)
	}
	for _, c := range g.numbers.all {
		add(c.n)
	}
	for _, c := range g.texts.all {
		add(c.n)
	}
	slices.SortFunc(sizes, func(a, b sized) int { return cmp.Or(b.n-a.n, a.place-b.place) })
	shown := min(len(sizes), max(most, 0))
	groups := multicastregistry.Groups{Path: g.path, Omitted: len(sizes) - shown, Missing: g.missing}
	for _, s := range sizes[:shown] {
		groups.Groups = append(groups.Groups, multicastregistry.Group{Value: g.value(s.place), Count: s.n})
	}
	return groups
}

func (g *grouping) value(place int) any {
	switch {
	case place == 0:
		return nil
	case place < len(g.others):
		return place == 2
	case place < len(g.others)+len(g.numbers.all):
		return g.numbers.all[place-len(g.others)].term.value()
	default:
		return string(g.texts.all[place-len(g.others)-len(g.numbers.all)].term)
	}
}
