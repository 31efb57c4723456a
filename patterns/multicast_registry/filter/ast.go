package filter

import (
	"slices"
	"strings"
)

// Op is the operator of an [Expr]: three logical ones, then those that look at one field.
type Op uint8

// The logical operators combine [Expr.Args]; every other one looks at the field at [Expr.Path].
const (
	And        Op = iota // all Args hold; with no Args it matches everything, so the zero Expr does
	Or                   // at least one of Args holds
	Not                  // Args[0] does not hold
	Eq                   // equals Value: nil, bool, string, int64, uint64 or float64
	Ne                   // the complement of Eq
	Lt                   // below Value, a string or a number
	Lte                  // below or equal
	Gt                   // above
	Gte                  // above or equal
	In                   // equals one of Values
	Nin                  // the complement of In
	StartsWith           // a string with the prefix Value
	EndsWith             // a string with the suffix Value
	Contains             // a string with the substring Value, or an array with an element equal to Value
	Regex                // a string in which the RE2 expression Value is found
	Exists               // present (a null counts), or absent when Value is false
	Type                 // of the JSON type that Value, a string, names
	Semver               // a version inside the range Value
)

// String is the operator's name in the language without its dollar sign, such as "startswith".
func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return "invalid"
}

// Logical tells whether the operator combines Args rather than looking at a field.
func (o Op) Logical() bool { return o <= Not }

var opNames = [...]string{
	And: "and", Or: "or", Not: "not",
	Eq: "eq", Ne: "ne", Lt: "lt", Lte: "lte", Gt: "gt", Gte: "gte", In: "in", Nin: "nin",
	StartsWith: "startswith", EndsWith: "endswith", Contains: "contains", Regex: "regex",
	Exists: "exists", Type: "type", Semver: "semver",
}

// fieldOp finds a field operator by its bare name.
func fieldOp(name string) (Op, bool) {
	i := slices.Index(opNames[Eq:], name)
	return Eq + Op(i), i >= 0
}

// Operator describes one operator for people: a help text or a page of documentation.
type Operator struct {
	Op      Op
	Name    string // as written in a filter, such as "$lt"
	Operand string // what it takes
	Summary string // when it holds
	Example string // a whole filter that uses it
}

// Operators lists every operator of the language, the logical ones first, in the order of their [Op].
func Operators() []Operator {
	return []Operator{
		{And, "$and", "an array of filters", "all of them hold", `{"$and": [{"room": "lab"}, {"floor": 3}]}`},
		{Or, "$or", "an array of filters", "at least one of them holds", `{"$or": [{"room": "lab"}, {"floor": 3}]}`},
		{Not, "$not", "a filter, or operators inside a field", "it does not hold", `{"battery": {"$not": {"$lt": 0.2}}}`},
		{Eq, "$eq", "a scalar", "the field equals it (also written without the operator)", `{"room": "lab"}`},
		{Ne, "$ne", "a scalar", "the field does not equal it, or is missing", `{"room": {"$ne": "lab"}}`},
		{Lt, "$lt", "a number or a string", "the field is below it", `{"battery": {"$lt": 0.2}}`},
		{Lte, "$lte", "a number or a string", "the field is below it or equal", `{"floor": {"$lte": 3}}`},
		{Gt, "$gt", "a number or a string", "the field is above it", `{"floor": {"$gt": 3}}`},
		{Gte, "$gte", "a number or a string", "the field is above it or equal", `{"floor": {"$gte": 3}}`},
		{In, "$in", "an array of scalars", "the field equals one of them", `{"room": {"$in": ["lab", "hall"]}}`},
		{Nin, "$nin", "an array of scalars", "the field equals none of them, or is missing", `{"room": {"$nin": ["lab"]}}`},
		{StartsWith, "$startswith", "a string", "the field is a string that starts with it", `{"name": {"$startswith": "dev-"}}`},
		{EndsWith, "$endswith", "a string", "the field is a string that ends with it", `{"name": {"$endswith": "-eu"}}`},
		{
			Contains, "$contains", "a scalar", "the field is a string that contains it, or an array with an element equal to it",
			`{"tags": {"$contains": "gps"}}`,
		},
		{Regex, "$regex", "a regular expression (RE2)", "it is found in the field, a string", `{"name": {"$regex": "^dev-[0-9]+$"}}`},
		{
			Exists, "$exists", "true or false", "the field is present, even as null (true), or missing (false)",
			`{"battery": {"$exists": true}}`,
		},
		{
			Type, "$type", "string, number, bool, null, array or object", "the field is present and of that type",
			`{"tags": {"$type": "array"}}`,
		},
		{Semver, "$semver", "a version range", "the field is a version inside it", `{"firmware": {"$semver": ">=1.2 <2"}}`},
	}
}

// An Expr is one node of a parsed filter. It is immutable: the exported fields are there to be read, by translators that
// walk the tree and by nobody else, and an Expr may be used by any number of goroutines.
//
// The canonical filter that matches everything is an And without Args, which is what parsing {} gives; a nil *Expr means
// the same wherever this package takes one. And keeps its Args in one canonical order, whatever order the source had.
type Expr struct {
	Op Op

	operand // compiled from Value or Values; here because evaluation wants it close to Op

	Path   []string // of a field operator: object keys from the outside in, unescaped, at least one
	Value  any      // the operand: nil, bool, string, int64, uint64 (above int64 only) or float64 (no such integer)
	Values []any    // the operands of In and Nin, in source order, each as in Value
	Args   []*Expr  // of And and Or any number, of Not exactly one

	at *pointer // see Pointer
}

// MatchesAll tells whether the filter is the empty one, which needs no look at the metadata.
func (e *Expr) MatchesAll() bool { return e == nil || e.Op == And && len(e.Args) == 0 }

// Equal tells whether two filters are the same: the same operators on the same operands, in any order where they are ANDed.
func Equal(a, b *Expr) bool { return compare(a, b) == 0 }

var all = &Expr{}

// negated is what a Not negates.
func (e *Expr) negated() *Expr {
	if len(e.Args) == 0 {
		return all
	}
	return e.Args[0]
}

// compare is a total order over expressions, and the order of the Args of an And.
func compare(a, b *Expr) int {
	if a == nil {
		a = all
	}
	if b == nil {
		b = all
	}
	switch al, bl := a.Op.Logical(), b.Op.Logical(); {
	case al && !bl:
		return 1
	case !al && bl:
		return -1
	case al:
		if c := int(a.Op) - int(b.Op); c != 0 {
			return c
		}
		return slices.CompareFunc(a.Args, b.Args, compare)
	}
	if c := slices.Compare(a.Path, b.Path); c != 0 {
		return c
	}
	if c := int(a.Op) - int(b.Op); c != 0 {
		return c
	}
	if c := Compare(a.Value, b.Value); c != 0 {
		return c
	}
	return slices.CompareFunc(a.Values, b.Values, Compare)
}

// Compare is a total order over scalars that agrees with the operators: null, then false and true, then numbers by value,
// then strings by bytes. What is no scalar (an array, an object, any other Go value) comes last, all of it equal.
func Compare(a, b any) int {
	x, y := scalarOf(a), scalarOf(b)
	if x.kind != y.kind {
		return int(x.kind) - int(y.kind)
	}
	switch x.kind {
	case kindBool, kindString:
		return strings.Compare(x.str, y.str)
	case kindNumber:
		c, ok := x.num.compare(y.num)
		if !ok { // NaN below every other number, so that the order stays total
			return boolToInt(y.num.f != y.num.f) - boolToInt(x.num.f != x.num.f)
		}
		return c
	default:
		return 0
	}
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
