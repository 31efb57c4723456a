package filter

import (
	"encoding/json"
	"reflect"
	"slices"
)

// kind is the JSON type of a metadata value, in the order that Compare gives scalars.
type kind uint8

const (
	kindNone kind = iota // missing; of an operand: not compiled
	kindNull
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
	kindOther // a Go value that JSON does not have
)

var kindNames = [...]string{
	kindNull: "null", kindBool: "bool", kindNumber: "number", kindString: "string", kindArray: "array", kindObject: "object",
}

// scalar is a metadata value or an operand taken apart. A bool carries its spelling in str.
type scalar struct {
	kind kind
	str  string
	num  number
}

func (s scalar) value() any {
	switch s.kind {
	case kindBool:
		return s.str == "true"
	case kindNumber:
		return s.num.value()
	case kindString:
		return s.str
	default:
		return nil
	}
}

// Scalar gives a metadata value in the form that [Expr.Value] has (nil, bool, string, int64, uint64, float64), so that
// equal values are equal in Go too; ok is false for arrays, objects and Go values that JSON does not have.
func Scalar(value any) (canonical any, ok bool) {
	s := scalarOf(value)
	return s.value(), s.kind <= kindString
}

func kindOf(value any) kind { return scalarOf(value).kind }

func scalarOf(value any) scalar {
	switch v := value.(type) {
	case nil:
		return scalar{kind: kindNull}
	case string:
		return scalar{kind: kindString, str: v}
	case bool:
		return scalarBool(v)
	case float64:
		return scalar{kind: kindNumber, num: fromFloat(v)}
	case int:
		return scalar{kind: kindNumber, num: fromInt(int64(v))}
	case int64:
		return scalar{kind: kindNumber, num: fromInt(v)}
	case json.Number:
		if n, ok := parseNumber(string(v)); ok {
			return scalar{kind: kindNumber, num: n}
		}
		return scalar{kind: kindOther}
	case map[string]any:
		return scalar{kind: kindObject}
	case []any:
		return scalar{kind: kindArray}
	}
	v := reflect.ValueOf(value)
	switch {
	case v.CanInt():
		return scalar{kind: kindNumber, num: fromInt(v.Int())}
	case v.CanUint():
		return scalar{kind: kindNumber, num: fromUint(v.Uint())}
	case v.CanFloat():
		return scalar{kind: kindNumber, num: fromFloat(v.Float())}
	case v.Kind() == reflect.String:
		return scalar{kind: kindString, str: v.String()}
	case v.Kind() == reflect.Bool:
		return scalarBool(v.Bool())
	default:
		return scalar{kind: kindOther}
	}
}

func scalarBool(b bool) scalar {
	if b {
		return scalar{kind: kindBool, str: "true"}
	}
	return scalar{kind: kindBool, str: "false"}
}

// valueSet answers In and Nin: a few values by looking at each, many by hashing.
type valueSet struct {
	rest    []scalar // null and bools
	strings []string
	numbers []number
	strMap  map[string]struct{}
	numMap  map[number]struct{}
}

// hashFrom is the length from which a list is hashed.
const hashFrom = 12

func newValueSet(values []scalar) *valueSet {
	s := new(valueSet)
	for _, v := range values {
		switch v.kind {
		case kindString:
			s.strings = append(s.strings, v.str)
		case kindNumber:
			s.numbers = append(s.numbers, v.num)
		default:
			if !s.has(v) {
				s.rest = append(s.rest, v)
			}
		}
	}
	if len(s.strings) >= hashFrom {
		s.strMap = setOf(s.strings)
	}
	if len(s.numbers) >= hashFrom {
		s.numMap = setOf(s.numbers)
	}
	return s
}

func setOf[T comparable](values []T) map[T]struct{} {
	m := make(map[T]struct{}, len(values))
	for _, v := range values {
		m[v] = struct{}{}
	}
	return m
}

func (s *valueSet) has(v scalar) bool { return slices.Contains(s.rest, v) }

func (s *valueSet) hasString(v string) bool {
	if s.strMap != nil {
		_, ok := s.strMap[v]
		return ok
	}
	return slices.Contains(s.strings, v)
}

func (s *valueSet) hasNumber(v number) bool {
	if s.numMap != nil {
		_, ok := s.numMap[v]
		return ok
	}
	return slices.Contains(s.numbers, v)
}
