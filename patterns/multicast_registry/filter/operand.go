package filter

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// leaf checks the operand of a field operator and builds its node.
func (p *parser) leaf(op Op, path []string, v any, at *pointer) (*Expr, error) {
	if err := p.countClause(at); err != nil {
		return nil, err
	}
	e := &Expr{Op: op, Path: path, at: at, operand: operand{key: path[0], rest: path[1:]}}
	if op == In || op == Nin {
		if err := p.list(e, v, at); err != nil {
			return nil, err
		}
		return e, nil
	}
	s, err := p.scalar(op, v, at)
	if err != nil {
		return nil, err
	}
	e.Value, e.kind, e.str, e.num = s.value(), s.kind, s.str, s.num
	switch op {
	case Lt, Lte, Gt, Gte:
		if s.kind != kindNumber && s.kind != kindString {
			return nil, at.errorf("expected a number or a string, got %s", describe(v))
		}
	case Exists:
		if s.kind != kindBool {
			return nil, at.errorf("expected true or false, got %s", describe(v))
		}
		e.yes = s.str == "true"
	case StartsWith, EndsWith, Regex, Type, Semver:
		if s.kind != kindString {
			return nil, at.errorf("expected a string, got %s", describe(v))
		}
	}
	switch op {
	case Type:
		i := slices.Index(kindNames[kindNull:], s.str)
		if i < 0 {
			return nil, at.errorf("unknown type %q: %s", shorten(s.str), unknown(s.str, kindNames[kindNull:]))
		}
		e.kind = kindNull + kind(i)
	case Regex:
		if len(s.str) > p.limits.RegexBytes {
			return nil, at.errorf("the expression is %d bytes long, the limit is %d", len(s.str), p.limits.RegexBytes)
		}
		if e.re, err = regexp.Compile(s.str); err != nil {
			return nil, at.errorf("expected a regular expression (RE2): %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		}
	case Semver:
		if e.rng, err = parseRange(s.str); err != nil {
			return nil, at.errorf("expected a version range such as >=1.2 <2: %v", err)
		}
	}
	return e, nil
}

// list checks the operand of In and Nin.
func (p *parser) list(e *Expr, v any, at *pointer) error {
	list, ok := v.([]any)
	if !ok {
		return at.errorf("expected an array of scalars, got %s", describe(v))
	}
	if len(list) > p.limits.InValues {
		return at.errorf("the list has %d values, the limit is %d", len(list), p.limits.InValues)
	}
	scalars := make([]scalar, len(list))
	e.Values = make([]any, len(list))
	for i, item := range list {
		s, err := p.scalar(e.Op, item, at.child(strconv.Itoa(i)))
		if err != nil {
			return err
		}
		scalars[i], e.Values[i] = s, s.value()
	}
	e.kind, e.set = kindArray, newValueSet(scalars)
	return nil
}

// scalar refuses what no operator takes as an operand.
func (p *parser) scalar(op Op, v any, at *pointer) (scalar, error) {
	s := scalarOf(v)
	switch s.kind {
	case kindArray:
		if op == Eq {
			return s, at.errorf("expected a scalar, got an array: $in asks for one of several values, $contains for an element")
		}
		return s, at.errorf("expected a scalar, got an array")
	case kindObject:
		return s, at.errorf("expected a scalar, got an object: objects cannot be compared, reach into them with a dotted name")
	case kindOther:
		return s, at.errorf("expected a scalar, got %s", describe(v))
	case kindNumber:
		if !s.num.finite() {
			return s, at.errorf("expected a finite number within the range of a 64-bit float")
		}
	case kindString:
		if len(s.str) > p.limits.StringBytes {
			return s, at.errorf("the string is %d bytes long, the limit is %d", len(s.str), p.limits.StringBytes)
		}
		if !utf8.ValidString(s.str) {
			return s, at.errorf("the string is not valid UTF-8")
		}
	}
	return s, p.countBytes(len(s.str), at)
}

// compile gives an Expr that was built by hand what the parser would have given it.
func compile(e *Expr) (*Expr, error) {
	const most = math.MaxInt
	p := parser{limits: Limits{most, most, most, most, most, most, most}}
	var top *pointer
	if len(e.Path) == 0 || e.Op > Semver {
		return nil, top.errorf("not a field operator with a path")
	}
	if e.Op == In || e.Op == Nin {
		return p.leaf(e.Op, e.Path, append([]any{}, e.Values...), top)
	}
	return p.leaf(e.Op, e.Path, e.Value, top)
}
