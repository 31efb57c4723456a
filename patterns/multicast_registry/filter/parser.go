package filter

import (
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// parser turns decoded JSON into an Expr and counts what the limits bound.
type parser struct {
	limits  Limits
	clauses int
	bytes   int
}

func (p *parser) root(v any) (*Expr, error) {
	var top *pointer
	m, ok := v.(map[string]any)
	if !ok {
		return nil, top.errorf(`expected a JSON object such as {"room": "lab"}, got %s`, describe(v))
	}
	if len(m) == 0 {
		return &Expr{}, nil
	}
	return p.filter(m, top, 1)
}

// conditions are the members of one object, which are ANDed.
type conditions []*Expr

// add refuses to give one field the same operator twice: the canonical form could not say so without $and.
func (c *conditions) add(e *Expr, at *pointer) error {
	for _, old := range *c {
		if old.Op == e.Op && slices.Equal(old.Path, e.Path) {
			return at.errorf("the field has the operator $%s twice in one object; join both conditions with $and", e.Op)
		}
	}
	*c = append(*c, e)
	return nil
}

func (c conditions) joined(at *pointer) *Expr {
	if len(c) == 1 {
		return c[0]
	}
	return newAnd(c, at)
}

func newAnd(args []*Expr, at *pointer) *Expr {
	slices.SortStableFunc(args, compare)
	return &Expr{Op: And, Args: args, at: at}
}

// All returns the filter that holds where all of the given ones do; nil, which matches everything, when none asks for anything.
// It changes none of them.
func All(filters ...*Expr) *Expr {
	var args []*Expr
	for _, f := range filters {
		switch {
		case f.MatchesAll():
		case f.Op == And:
			args = append(args, f.Args...)
		default:
			args = append(args, f)
		}
	}
	switch len(args) {
	case 0:
		return nil
	case 1:
		return args[0]
	}
	return newAnd(args, nil)
}

// filter parses an object whose keys are fields and logical operators.
func (p *parser) filter(m map[string]any, at *pointer, depth int) (*Expr, error) {
	if err := p.checkDepth(at, depth); err != nil {
		return nil, err
	}
	if len(m) == 0 {
		return &Expr{at: at}, p.countClause(at)
	}
	var fields conditions
	var others []*Expr
	negated := map[string]bool{} // canonical names of fields with a $not inside
	for _, key := range sortedKeys(m) {
		if strings.HasPrefix(key, "$") {
			e, err := p.logical(key, m[key], at, depth)
			if err != nil {
				return nil, err
			}
			others = append(others, e)
			continue
		}
		path, es, err := p.field(key, m[key], at, depth)
		if err != nil {
			return nil, err
		}
		for _, e := range es {
			if e.Op == Not {
				name := joinKey(path)
				if negated[name] {
					return nil, at.child(key).errorf("the field has the operator $not twice in one object; join both conditions with $and")
				}
				negated[name] = true
				others = append(others, e)
				continue
			}
			if err := fields.add(e, at.child(key)); err != nil {
				return nil, err
			}
		}
	}
	return append(fields, others...).joined(at), nil
}

// logical parses one of $and, $or and $not with its operand.
func (p *parser) logical(key string, v any, at *pointer, depth int) (*Expr, error) {
	switch key {
	case "$and", "$or":
		at = at.child(key)
		list, ok := v.([]any)
		if !ok || len(list) == 0 {
			return nil, at.errorf("expected an array with at least one filter, got %s", describeLen(v, len(list)))
		}
		var args []*Expr
		for i, item := range list {
			arg, err := p.nested(item, at.child(strconv.Itoa(i)), depth+1)
			if err != nil {
				return nil, err
			}
			args = append(args, arg)
		}
		if key == "$and" {
			return newAnd(args, at), nil
		}
		return &Expr{Op: Or, Args: args, at: at}, nil
	case "$not":
		at = at.child(key)
		arg, err := p.nested(v, at, depth+1)
		if err != nil {
			return nil, err
		}
		return &Expr{Op: Not, Args: []*Expr{arg}, at: at}, nil
	}
	if op, ok := fieldOp(key[1:]); ok {
		return nil, p.under(at, key).errorf(`expected a field first: {"field": {"$%s": …}}`, op)
	}
	return nil, p.under(at, key).errorf(`unknown operator %q: %s (a field whose name starts with $ is written \$)`,
		shorten(key), unknown(key, []string{"$and", "$or", "$not"}))
}

func (p *parser) nested(v any, at *pointer, depth int) (*Expr, error) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, at.errorf(`expected a filter such as {"room": "lab"}, got %s`, describe(v))
	}
	return p.filter(m, at, depth)
}

// field parses the conditions of one key, a scalar or an object of operators, all of them on the field at path.
func (p *parser) field(key string, v any, at *pointer, depth int) (path []string, es []*Expr, err error) {
	at = p.under(at, key)
	if !utf8.ValidString(key) {
		return nil, nil, at.errorf("the name of the field is not valid UTF-8")
	}
	path, op, suffixed, err := splitKey(key)
	if err != nil {
		return nil, nil, at.errorf("%v", err)
	}
	if err := p.checkPath(path, at); err != nil {
		return nil, nil, err
	}
	m, isObject := v.(map[string]any)
	switch {
	case isObject && suffixed:
		name := joinKey(path)
		return nil, nil, at.errorf("expected an operand, for the key ends in the operator %s; "+
			"write %q with the operators in its object, or %q for a field called %s", op, name, name+`.\`+op.String(), op)
	case isObject:
		es, err = p.operators(path, m, at, depth)
		return path, es, err
	default:
		e, err := p.leaf(op, path, v, at)
		if err != nil {
			return nil, nil, err
		}
		return path, []*Expr{e}, nil
	}
}

// operators parses the object under a field, such as {"$gte": 1, "$lt": 2}.
func (p *parser) operators(path []string, m map[string]any, at *pointer, depth int) ([]*Expr, error) {
	if len(m) == 0 {
		return nil, at.errorf(`expected an operator such as {"$lt": 3}, got an empty object; {"$exists": true} asks for presence`)
	}
	var es []*Expr
	for _, key := range sortedKeys(m) {
		at := p.under(at, key)
		if key == "$not" {
			inner, ok := m[key].(map[string]any)
			if !ok {
				return nil, at.errorf(`expected an object of operators such as {"$lt": 3}, got %s; "is not this value" is $ne`,
					describe(m[key]))
			}
			if err := p.checkDepth(at, depth+1); err != nil {
				return nil, err
			}
			args, err := p.operators(path, inner, at, depth+1)
			if err != nil {
				return nil, err
			}
			es = append(es, &Expr{Op: Not, Args: []*Expr{conditions(args).joined(at)}, at: at})
			continue
		}
		op, ok := fieldOp(strings.TrimPrefix(key, "$"))
		if !ok || key[0] != '$' {
			return nil, badOperator(key, path, ok, at)
		}
		e, err := p.leaf(op, path, m[key], at)
		if err != nil {
			return nil, err
		}
		es = append(es, e)
	}
	return es, nil
}

func badOperator(key string, path []string, isOp bool, at *pointer) error {
	field := joinKey(path)
	switch {
	case isOp:
		return at.errorf("expected an operator: did you mean $%s?", key)
	case key == "$and" || key == "$or":
		return at.errorf(`%s joins whole filters, not operators of a field: {"%s": [{%q: …}, {%q: …}]}`, key, key, field, field)
	case !strings.HasPrefix(key, "$"):
		inner := joinKey(append(slices.Clip(path), key))
		return at.errorf("objects cannot be compared: expected an operator such as $lt; to reach into the object write %q",
			shorten(inner))
	}
	var legal []string
	for _, name := range opNames[Not:] {
		legal = append(legal, "$"+name)
	}
	return at.errorf("unknown operator %q: %s", shorten(key), unknown(key, legal))
}

func (p *parser) checkDepth(at *pointer, depth int) error {
	if depth > p.limits.Depth {
		return at.errorf("the filter nests deeper than %d levels", p.limits.Depth)
	}
	return nil
}

func (p *parser) countClause(at *pointer) error {
	if p.clauses++; p.clauses > p.limits.Clauses {
		return at.errorf("the filter has more than %d clauses", p.limits.Clauses)
	}
	return nil
}

func (p *parser) countBytes(n int, at *pointer) error {
	if p.bytes += n; p.bytes > p.limits.SourceBytes {
		return at.errorf("the operands and names of the filter are longer than %d bytes", p.limits.SourceBytes)
	}
	return nil
}

func (p *parser) checkPath(path []string, at *pointer) error {
	if len(path) > p.limits.PathParts {
		return at.errorf("the name of the field has %d parts, the limit is %d", len(path), p.limits.PathParts)
	}
	n := 0
	for _, part := range path {
		n += len(part)
	}
	if n > p.limits.StringBytes {
		return at.errorf("the name of the field is %d bytes long, the limit is %d", n, p.limits.StringBytes)
	}
	return p.countBytes(n, at)
}

// under points to the value under a key, or to the object itself when the key is too long to quote.
func (p *parser) under(at *pointer, key string) *pointer {
	if len(key) > 2*p.limits.StringBytes {
		return at
	}
	return at.child(key)
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

func describeLen(v any, n int) string {
	if _, ok := v.([]any); ok && n == 0 {
		return "an empty array"
	}
	return describe(v)
}
