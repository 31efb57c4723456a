package filter

import (
	"regexp"
	"strings"
)

// operand is the operand of a field operator in the form that evaluation wants.
type operand struct {
	key  string   // Path[0]
	rest []string // Path[1:]
	kind kind     // of the operand; for Type the kind asked for; never kindNone once compiled
	str  string
	num  number
	yes  bool
	set  *valueSet      // of In and Nin
	re   *regexp.Regexp // of Regex
	rng  versionRange   // of Semver
}

// Match tells whether metadata satisfies the filter; a nil filter matches everything. It is total: whatever Go values the
// metadata holds it neither fails nor panics, and for every operator but Regex it does not allocate.
func Match(e *Expr, metadata map[string]any) bool {
	if e == nil {
		return true
	}
	if !e.Op.Logical() {
		return e.matchField(metadata)
	}
	switch e.Op {
	case And:
		for _, arg := range e.Args {
			if !Match(arg, metadata) {
				return false
			}
		}
		return true
	case Or:
		for _, arg := range e.Args {
			if Match(arg, metadata) {
				return true
			}
		}
		return false
	default:
		return !Match(e.negated(), metadata)
	}
}

func (e *Expr) matchField(metadata map[string]any) bool {
	value, present := metadata[e.key]
	if len(e.rest) > 0 {
		value, present = descend(value, e.rest)
	}
	// The commonest comparisons are decided here; whatever falls out of the switch takes the general way below.
	switch v := value.(type) {
	case string:
		if e.Op == Eq && e.kind == kindString {
			return v == e.str
		}
	case float64:
		if e.kind != kindNumber || !e.num.exact {
			break
		}
		switch e.Op {
		case Eq:
			return v == e.num.f
		case Lt:
			return v < e.num.f
		case Lte:
			return v <= e.num.f
		case Gt:
			return v > e.num.f
		case Gte:
			return v >= e.num.f
		}
	}
	switch {
	case e.kind == kindNone:
		return matchUncompiled(e, metadata)
	case !present:
		return e.matchMissing()
	default:
		return e.matchPresent(value)
	}
}

// descend follows the rest of a path through objects.
func descend(value any, path []string) (any, bool) {
	present := true
	for _, key := range path {
		object, ok := value.(map[string]any)
		if !ok {
			return nil, false
		}
		value, present = object[key]
	}
	return value, present
}

// MatchValue tells whether a field operator holds for a field that is present with this value, whatever its Path. It
// decides for one value what [Match] decides for metadata. For a logical operator it is false.
func MatchValue(e *Expr, value any) bool {
	if e == nil || e.Op.Logical() {
		return false
	}
	if e.kind == kindNone {
		c, err := compile(e)
		if err != nil {
			return e.negative()
		}
		e = c
	}
	return e.matchPresent(value)
}

// matchUncompiled evaluates an Expr that was built by hand rather than parsed. An operand that the parser would have
// refused holds nowhere.
func matchUncompiled(e *Expr, metadata map[string]any) bool {
	c, err := compile(e)
	if err != nil {
		return e.negative()
	}
	return Match(c, metadata)
}

func (e *Expr) negative() bool { return e.Op == Ne || e.Op == Nin }

func (e *Expr) matchMissing() bool {
	return e.Op == Ne || e.Op == Nin || e.Op == Exists && !e.yes
}

func (e *Expr) matchPresent(value any) bool {
	switch e.Op {
	case Exists:
		return e.yes
	case Type:
		return kindOf(value) == e.kind
	case Ne, Nin:
		return !e.any(value)
	default:
		return e.any(value)
	}
}

// any tells whether the positive form of the operator holds for the value or, when that is an array, for an element.
func (e *Expr) any(value any) bool {
	elements, ok := value.([]any)
	if !ok {
		return e.one(value)
	}
	for _, element := range elements {
		if e.Op == Contains {
			if e.equals(element) {
				return true
			}
		} else if e.one(element) {
			return true
		}
	}
	return false
}

// one is the positive form of the operator for one value that is not looked into.
func (e *Expr) one(value any) bool {
	switch v := value.(type) {
	case string:
		return e.holdsString(v)
	case float64:
		return e.holdsNumber(fromFloat(v))
	case int:
		return e.holdsNumber(fromInt(int64(v)))
	case int64:
		return e.holdsNumber(fromInt(v))
	}
	s := scalarOf(value)
	switch s.kind {
	case kindString:
		return e.holdsString(s.str)
	case kindNumber:
		return e.holdsNumber(s.num)
	case kindBool, kindNull:
		if e.set != nil {
			return e.set.has(s)
		}
		return (e.Op == Eq || e.Op == Ne) && e.kind == s.kind && e.str == s.str
	default:
		return false
	}
}

func (e *Expr) holdsString(v string) bool {
	switch e.Op {
	case In, Nin:
		return e.set.hasString(v)
	case Semver:
		return e.rng.admits(v)
	}
	if e.kind != kindString {
		return false
	}
	switch e.Op {
	case Eq, Ne:
		return v == e.str
	case Lt:
		return v < e.str
	case Lte:
		return v <= e.str
	case Gt:
		return v > e.str
	case Gte:
		return v >= e.str
	case StartsWith:
		return strings.HasPrefix(v, e.str)
	case EndsWith:
		return strings.HasSuffix(v, e.str)
	case Contains:
		return strings.Contains(v, e.str)
	case Regex:
		return e.re.MatchString(v)
	default:
		return false
	}
}

func (e *Expr) holdsNumber(v number) bool {
	if e.set != nil {
		return e.set.hasNumber(v)
	}
	if e.kind != kindNumber {
		return false
	}
	order, ok := v.compare(e.num)
	if !ok {
		return false
	}
	switch e.Op {
	case Eq, Ne:
		return order == 0
	case Lt:
		return order < 0
	case Lte:
		return order <= 0
	case Gt:
		return order > 0
	case Gte:
		return order >= 0
	default:
		return false
	}
}

// equals tells whether a value is the scalar operand itself.
func (e *Expr) equals(value any) bool {
	s := scalarOf(value)
	if s.kind != e.kind {
		return false
	}
	if s.kind == kindNumber {
		order, ok := s.num.compare(e.num)
		return ok && order == 0
	}
	return s.kind <= kindString && s.str == e.str
}
