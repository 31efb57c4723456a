package auth

import (
	"fmt"
	"slices"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// Grant is what a caller may do with an operation, as all rules that give it to them say together. It is immutable. The zero
// Grant owns nothing.
type Grant struct {
	operation Operation
	namespace string
	rules     []granted
	filter    *filter.Expr
	hidden    paths
}

// granted is what one rule says, filled in for the caller.
type granted struct {
	identities []glob
	filter     *filter.Expr
}

// add takes a rule that matches. A filter that the caller lacks something for admits nothing, so the rule grants nothing.
func (g *Grant) add(r *rule, c Caller) {
	var own granted
	if r.filter != nil {
		var ok bool
		if own.filter, ok = r.filter.of(c); !ok {
			return
		}
	}
	for _, t := range r.identities {
		if identity, ok := t.glob(c); ok {
			own.identities = append(own.identities, identity)
		}
	}
	if len(g.rules) == 0 {
		g.hidden = r.hidden
	} else {
		g.hidden = g.hidden.both(r.hidden)
	}
	g.rules = append(g.rules, own)
}

// either admits what one of the rules' filters admits.
func either(rules []granted) *filter.Expr {
	var some []*filter.Expr
	for _, r := range rules {
		if r.filter.MatchesAll() {
			return nil
		}
		if !slices.ContainsFunc(some, func(e *filter.Expr) bool { return filter.Equal(e, r.filter) }) {
			some = append(some, r.filter)
		}
	}
	if len(some) == 1 {
		return some[0]
	}
	return &filter.Expr{Op: filter.Or, Args: some}
}

// Owns tells whether the caller may act as an identity: register it, keep it, remove it, receive and acknowledge its messages.
func (g *Grant) Owns(identity string) bool {
	for _, r := range g.rules {
		if r.owns(identity) {
			return true
		}
	}
	return false
}

func (r *granted) owns(identity string) bool {
	for _, pattern := range r.identities {
		if pattern.match(identity) {
			return true
		}
	}
	return false
}

// CheckIdentity returns a DeniedError unless the caller owns the identity.
func (g *Grant) CheckIdentity(identity string) error {
	if g.Owns(identity) {
		return nil
	}
	err := g.denied("the caller does not own the identity")
	err.Identity = identity
	return err
}

// CheckMetadata returns a DeniedError unless a rule that lets the caller own the identity has a filter that admits the metadata,
// or none. Otherwise they could register what is for others to see and receive. A list in a field that the filter looks at is
// admitted only if each of its elements is: ["a", "b"] is what the filters of both a and b admit.
func (g *Grant) CheckMetadata(identity string, metadata map[string]any) error {
	for _, r := range g.rules {
		if r.owns(identity) && filter.Match(r.filter, metadata) && ofOneMind(r.filter, metadata) {
			return nil
		}
	}
	err := g.denied("the caller's own filter does not admit the metadata, or they do not own the identity")
	err.Identity = identity
	return err
}

// ofOneMind tells whether each condition of a filter holds for every element of a list that it looks into, or for none.
func ofOneMind(f *filter.Expr, metadata map[string]any) bool {
	for e := range f.All() {
		if e.Op.Logical() || e.Op == filter.Exists || e.Op == filter.Type {
			continue
		}
		var value any = metadata
		for _, key := range e.Path {
			object, _ := value.(map[string]any)
			value = object[key]
		}
		list, _ := value.([]any)
		holds, alone := filter.MatchValue(e, list), make([]any, 1)
		for _, alone[0] = range list {
			if filter.MatchValue(e, alone) != holds {
				return false
			}
		}
	}
	return true
}

// Filter is the filter that is ANDed onto every query. Nil: none.
func (g *Grant) Filter() *filter.Expr { return g.filter }

// Restrict returns the filter that holds where both asked and the grant's own do.
func (g *Grant) Restrict(asked *filter.Expr) *filter.Expr {
	if g.filter == nil {
		return asked
	}
	return filter.All(g.filter, asked)
}

// Restricted tells whether there is something in the namespace that the caller does not see: identities that the filter does not
// admit, or hidden fields.
func (g *Grant) Restricted() bool { return g.filter != nil || len(g.hidden) > 0 }

// Hides tells whether a field, or an object that it is in, is hidden.
func (g *Grant) Hides(path []string) bool { return g.hidden.cover(path) }

// CheckFilter returns a DeniedError if the filter looks at a hidden field, anywhere and with any operator. It is about the
// caller's own filter, not about what Restrict returns. Whether any identity has the field makes no difference.
func (g *Grant) CheckFilter(asked *filter.Expr) error {
	if len(g.hidden) == 0 {
		return nil
	}
	for e := range asked.All() {
		if !e.Op.Logical() && g.Hides(e.Path) {
			return g.deniedField(e.Path)
		}
	}
	return nil
}

// CheckPaths is CheckFilter for fields that are sorted by, counted by or asked for.
func (g *Grant) CheckPaths(fields ...[]string) error {
	for _, path := range fields {
		if g.Hides(path) {
			return g.deniedField(path)
		}
	}
	return nil
}

func (g *Grant) deniedField(path []string) error {
	err := g.denied(fmt.Sprintf("the field %q is hidden from the caller", filter.FormatPath(path)))
	err.Field = true
	return err
}

func (g *Grant) denied(detail string) *DeniedError {
	return &DeniedError{Operation: g.operation, Namespace: g.namespace, Detail: shorten(detail)}
}
