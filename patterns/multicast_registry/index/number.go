package index

import (
	"cmp"
	"math"
)

// A number is the exact value of a JSON number, in an order that is that of filter.Compare: the nearest float64 and, of an
// integer beyond 2^53, what rounding has taken away. Equal values are equal in Go.
type number struct {
	near float64
	rest int64
}

// numberOf takes an int64, a uint64 or a float64. It is not ok for anything else, and for NaN, which equals nothing.
func numberOf(value any) (n number, ok bool) {
	switch v := value.(type) {
	case float64:
		return floatNumber(v), v == v
	case int64:
		return intNumber(v), true
	case uint64:
		return uintNumber(v), true
	default:
		return n, false
	}
}

func floatNumber(v float64) number { return number{near: v + 0} } // adding makes 0 of -0

func intNumber(v int64) number {
	n := number{near: float64(v)}
	if n.near == 1<<63 { // is no int64
		n.rest = v - math.MaxInt64 - 1
	} else {
		n.rest = v - int64(n.near)
	}
	return n
}

func uintNumber(v uint64) number {
	n := number{near: float64(v)}
	if n.near == 1<<64 { // is no uint64, and v less than that by 1024 at most
		n.rest = int64(v)
	} else {
		n.rest = int64(v - uint64(n.near))
	}
	return n
}

// isNaN tells whether it is none.
func (n number) isNaN() bool { return n.near != n.near }

// compare implements key.
func (n number) compare(m number) int {
	if n.near == m.near {
		return cmp.Compare(n.rest, m.rest)
	}
	if n.near < m.near {
		return -1
	}
	return 1
}

// value is the number in the form of filter.Scalar.
func (n number) value() any {
	switch {
	case n.near != math.Trunc(n.near) || n.near < -1<<63 || n.near > 1<<64 || n.near == 1<<64 && n.rest == 0:
		return n.near
	case n.near < 1<<63:
		return int64(n.near) + n.rest
	case n.near == 1<<63 && n.rest < 0:
		return math.MaxInt64 + (n.rest + 1)
	case n.near == 1<<64:
		return uint64(n.rest)
	default:
		return uint64(n.near) + uint64(n.rest)
	}
}

// text is a string as a key.
type text string

// compare implements key.
func (t text) compare(u text) int { return cmp.Compare(t, u) }
