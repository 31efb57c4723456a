package watch

import (
	"slices"
	"strings"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// group is the watchers of one filter.
type group struct {
	match    *filter.Expr
	keys     []key // an identity that matches has one of these values; none: it may have any
	watchers map[*watcher]struct{}
	seen     uint64 // seq+1 of the change it was compared with last
}

// key is a value of a field.
type key struct {
	path  string // joined by pathSeparator
	value any    // in the form of filter.Scalar
}

// pathSeparator joins the keys of a path. Two paths that look alike by it are compared in vain, nothing worse.
const pathSeparator = "\x00"

// field is a field of which some group has keys.
type field struct {
	path   []string
	groups map[any][]*group // by the value
}

// groups finds those that a change may concern.
type groups struct {
	byFilter map[string]*group
	byField  map[string]*field
	others   map[*group]struct{} // without keys
}

func newGroups() groups {
	return groups{
		byFilter: make(map[string]*group), byField: make(map[string]*field), others: make(map[*group]struct{}),
	}
}

// join adds a watcher to the group of its filter.
func (g *groups) join(w *watcher) {
	name := w.match.String()
	of, ok := g.byFilter[name]
	if !ok {
		of = &group{match: w.match, watchers: make(map[*watcher]struct{})}
		g.byFilter[name] = of
		if of.keys = g.choose(w.match); len(of.keys) == 0 {
			g.others[of] = struct{}{}
		}
		for _, k := range of.keys {
			f := g.byField[k.path]
			if f == nil {
				f = &field{path: strings.Split(k.path, pathSeparator), groups: make(map[any][]*group)}
				g.byField[k.path] = f
			}
			f.groups[k.value] = append(f.groups[k.value], of)
		}
	}
	of.watchers[w] = struct{}{}
}

// leave is the reverse of join.
func (g *groups) leave(w *watcher) {
	name := w.match.String()
	of := g.byFilter[name]
	if delete(of.watchers, w); len(of.watchers) > 0 {
		return
	}
	delete(g.byFilter, name)
	delete(g.others, of)
	for _, k := range of.keys {
		f := g.byField[k.path]
		rest := slices.DeleteFunc(f.groups[k.value], func(other *group) bool { return other == of })
		if f.groups[k.value] = rest; len(rest) == 0 {
			delete(f.groups, k.value)
		}
		if len(f.groups) == 0 {
			delete(g.byField, k.path)
		}
	}
}

// choose returns values of which every match has one: of the conditions that demand some, those of the one whose values are
// demanded by the fewest groups so far.
func (g *groups) choose(e *filter.Expr) (best []key) {
	args := []*filter.Expr{e}
	if e != nil && e.Op == filter.And {
		args = e.Args
	}
	least := 0
	for _, arg := range args {
		keys, ok := demanded(arg)
		if !ok {
			continue
		}
		taken := len(keys)
		for _, k := range keys {
			if f := g.byField[k.path]; f != nil {
				taken += len(f.groups[k.value])
			}
		}
		if best == nil || taken < least {
			best, least = keys, taken
		}
	}
	return best
}

// demanded returns the values of which a condition demands one.
func demanded(e *filter.Expr) (keys []key, ok bool) {
	if e == nil || len(e.Path) == 0 {
		return nil, false
	}
	var values []any
	switch e.Op {
	case filter.Eq:
		values = []any{e.Value}
	case filter.In:
		values = e.Values
	default:
		return nil, false
	}
	path := strings.Join(e.Path, pathSeparator)
	for _, v := range values {
		scalar, ok := filter.Scalar(v)
		if !ok {
			return nil, false
		}
		if k := (key{path, scalar}); !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys, len(keys) > 0
}

// concerned calls do once for each group that a change may concern.
func (g *groups) concerned(e *entry, do func(*group)) {
	once := func(of *group) {
		if of.seen != e.seq+1 {
			of.seen = e.seq + 1
			do(of)
		}
	}
	for of := range g.others {
		once(of)
	}
	for _, f := range g.byField {
		for _, i := range [...]*multicastregistry.Identity{e.before, e.after} {
			if i == nil {
				continue
			}
			value, ok := multicastregistry.LookUp(i.Encoded, f.path...)
			if !ok {
				continue
			}
			list, isList := value.([]any)
			if !isList {
				list = []any{value}
			}
			for _, element := range list {
				if scalar, ok := filter.Scalar(element); ok {
					for _, of := range f.groups[scalar] {
						once(of)
					}
				}
			}
		}
	}
}
