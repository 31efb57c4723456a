package multicastregistry

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// WarningKind is what is suspicious about a condition of a filter.
type WarningKind uint8

// The kinds of warning.
const (
	// UnknownField means that no identity has the field.
	UnknownField WarningKind = iota + 1
	// TypeMismatch means that identities have the field, but none of a type that the condition could tell apart: it holds for
	// all of them or for none.
	TypeMismatch
)

// Warning says what is suspicious about a filter, which nevertheless is applied as it stands.
//
// A condition on an unknown field is suspicious when it asks for what is there. One that asks for what is not, such as $ne,
// {"$exists": false} or something within a $not, is suspicious only when there is a field of a similar name. A type never is
// wrong for $exists, $type, and where null is compared with.
type Warning struct {
	// Kind is what is suspicious.
	Kind WarningKind
	// Field is the field, as filter.FormatPath spells it.
	Field string
	// Pointer is the JSON pointer to the condition: of an unknown field, to the first that names it.
	Pointer string
	// Message says it in words, the suggestions too. It may quote what callers have written, in quotes as in Go.
	Message string
	// Suggestions are fields of similar names that identities have, the likeliest first.
	Suggestions []string
}

// warnings tells what is suspicious about a filter, where that is known without looking at each identity.
func (c *Coordinator) warnings(match *filter.Expr) []Warning {
	if c.fielder == nil || match.MatchesAll() {
		return nil
	}
	fields, now := c.fielder.Fields()
	if fields == nil {
		return nil
	}
	return warningsOf(match, fields, now)
}

func warningsOf(match *filter.Expr, fields Fields, now time.Time) []Warning {
	i := inspection{fields: fields, now: now}
	i.inspect(match, false)
	return i.found
}

// inspection looks for what is suspicious about a filter. While there is nothing, it allocates nothing.
type inspection struct {
	fields Fields
	now    time.Time
	paths  [][]string // all fields, once they are listed
	looked int        // how many of them were compared with a name, all names together
	found  []Warning
}

// inspect looks at a condition that stands within an odd number of $not, or not.
func (i *inspection) inspect(e *filter.Expr, negated bool) {
	switch {
	case e == nil:
	case e.Op.Logical():
		for _, arg := range e.Args {
			i.inspect(arg, negated != (e.Op == filter.Not))
		}
	case len(e.Path) > 0:
		i.field(e, negated)
	}
}

func (i *inspection) field(e *filter.Expr, negated bool) {
	want, within := looksFor(e)
	switch {
	case i.has(e, want) && (within == 0 || i.has(e, within)):
	case i.has(e, AnyShape):
		i.mismatch(e, want, within)
	default:
		i.unknown(e, asksForAbsence(e) != negated)
	}
}

func (i *inspection) has(e *filter.Expr, shapes Shape) bool {
	return i.fields.Has(i.now, e.Path, shapes)
}

func asksForAbsence(e *filter.Expr) bool {
	there, _ := e.Value.(bool)
	return e.Op == filter.Ne || e.Op == filter.Nin || e.Op == filter.Exists && !there
}

// looksFor tells in which shapes of its field a condition can hold, or its complement if it is one; and, if that is not 0, which
// shape the field has to have besides.
func looksFor(e *filter.Expr) (want, within Shape) {
	switch e.Op {
	case filter.Exists, filter.Type:
		return AnyShape, 0
	case filter.StartsWith, filter.EndsWith, filter.Regex, filter.Semver:
		return HasString, 0
	case filter.In, filter.Nin:
		for _, value := range e.Values {
			want |= hasScalar(value)
		}
		if len(e.Values) == 0 {
			return AnyShape, 0
		}
	default:
		want = hasScalar(e.Value)
		if e.Op == filter.Contains && want != HasString {
			within = IsArray
		}
	}
	if want&HasNull != 0 || want == 0 { // null is a value that any field may have
		return AnyShape, 0
	}
	return want, within
}

func (i *inspection) mismatch(e *filter.Expr, want, within Shape) {
	var is Shape
	for shape := IsNull; shape <= HasString; shape <<= 1 {
		if i.has(e, shape) {
			is |= shape
		}
	}
	looked, never := want.scalars(), "is never one"
	if within == IsArray {
		looked = "an array with " + looked + " in it"
	} else if is&IsArray != 0 {
		never = "never is or has one"
	}
	field := filter.FormatPath(e.Path)
	i.found = append(i.found, Warning{
		Kind: TypeMismatch, Field: field, Pointer: e.Pointer(),
		Message: fmt.Sprintf("$%s looks for %s, and the field %q %s: it is %s", e.Op, looked, field, never, is.inWords()),
	})
}

func (i *inspection) unknown(e *filter.Expr, absence bool) {
	field := filter.FormatPath(e.Path)
	if slices.ContainsFunc(i.found, func(w Warning) bool { return w.Kind == UnknownField && w.Field == field }) {
		return
	}
	if i.paths == nil {
		if i.fields.Len(i.now) == 0 {
			return
		}
		i.paths = i.fields.Paths(i.now, mostFields)
	}
	w := Warning{Kind: UnknownField, Field: field, Pointer: e.Pointer(), Message: fmt.Sprintf("no identity has the field %q", field)}
	var quoted []string
	if i.looked += len(i.paths); i.looked <= mostFields {
		for _, path := range similar(e.Path, i.paths) {
			name := filter.FormatPath(path)
			w.Suggestions = append(w.Suggestions, name)
			quoted = append(quoted, strconv.Quote(name))
		}
	}
	if len(quoted) > 0 {
		w.Message += "; did you mean " + alternatives(quoted) + "?"
	} else if absence {
		return
	}
	i.found = append(i.found, w)
}
