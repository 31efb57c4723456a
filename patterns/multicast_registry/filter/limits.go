package filter

import "cmp"

// Limits bounds what a filter may ask for, so that a hostile one costs no more than an ordinary one. A field that is zero
// means its value in [DefaultLimits].
type Limits struct {
	// Depth is how deep filters nest. The filter itself is at depth 1 and every operand of $and, $or and $not is one
	// deeper. Default 5.
	Depth int
	// Clauses is how many field operators a filter holds; an empty object among the operands of $and, $or and $not counts
	// as one. Default 20.
	Clauses int
	// InValues is how many values one $in or $nin lists. Default 1000.
	InValues int
	// RegexBytes is the length of one $regex. Default 256.
	RegexBytes int
	// PathParts is how many objects deep a field may lie. Default 16.
	PathParts int
	// StringBytes is the length of one string operand, of one field's path and of one version range. Default 4096.
	StringBytes int
	// SourceBytes is the length of the whole filter as text; of a decoded one the total length of its operands and paths.
	// Default 1 MiB.
	SourceBytes int
}

// DefaultLimits are the limits of [Parse] and [ParseValue], and of every zero field of a [Limits].
var DefaultLimits = Limits{
	Depth: 5, Clauses: 20, InValues: 1000, RegexBytes: 256, PathParts: 16, StringBytes: 4096, SourceBytes: 1 << 20,
}

func (l Limits) filled() Limits {
	d := DefaultLimits
	return Limits{
		Depth:       cmp.Or(l.Depth, d.Depth),
		Clauses:     cmp.Or(l.Clauses, d.Clauses),
		InValues:    cmp.Or(l.InValues, d.InValues),
		RegexBytes:  cmp.Or(l.RegexBytes, d.RegexBytes),
		PathParts:   cmp.Or(l.PathParts, d.PathParts),
		StringBytes: cmp.Or(l.StringBytes, d.StringBytes),
		SourceBytes: cmp.Or(l.SourceBytes, d.SourceBytes),
	}
}

// Parse reads a filter from JSON text within [DefaultLimits].
func Parse(src string) (*Expr, error) { return DefaultLimits.Parse(src) }

// ParseValue reads a filter from decoded JSON within [DefaultLimits].
func ParseValue(v any) (*Expr, error) { return DefaultLimits.ParseValue(v) }

// Parse reads a filter from JSON text. Numbers of 64 bits stay exact; a key that occurs twice in one object, invalid UTF-8
// and text after the filter are refused. Every error is a [*SyntaxError].
func (l Limits) Parse(src string) (*Expr, error) {
	p := parser{limits: l.filled()}
	v, err := p.decode(src)
	if err != nil {
		return nil, err
	}
	return p.root(v)
}

// ParseValue reads a filter that is decoded already: a map[string]any of nil, bool, string, numbers of any Go type,
// json.Number, []any and map[string]any. It keeps nothing of what it is given. Every error is a [*SyntaxError].
func (l Limits) ParseValue(v any) (*Expr, error) {
	p := parser{limits: l.filled()}
	return p.root(v)
}
