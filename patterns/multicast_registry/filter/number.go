package filter

import (
	"cmp"
	"math"
	"strconv"
	"strings"
)

// numKind says which part of the number line a number lives on.
type numKind uint8

const (
	isInt   numKind = iota // an integer that fits int64
	isUint                 // an integer above math.MaxInt64 that fits uint64
	isFloat                // everything else, rounded to the nearest float64
)

const (
	two63 = 1 << 63          // as a float64: the first value above int64
	two64 = float64(1 << 64) // the first value above uint64
)

// A number is the one numeric type of the language. Equal values have equal representations whatever type they
// arrived in, so 5, 5.0 and uint8(5) are the same number and integers of 64 bits are never rounded.
type number struct {
	kind  numKind
	exact bool    // f is the very value, so comparing with a float64 needs no more than f
	bits  uint64  // of an isInt (two's complement) or an isUint
	f     float64 // the value, or for a large integer the float64 nearest to it
}

func fromInt(i int64) number {
	n := number{kind: isInt, bits: uint64(i), f: float64(i)}
	n.exact = n.f < two63 && int64(n.f) == i
	return n
}

func fromUint(u uint64) number {
	if u <= math.MaxInt64 {
		return fromInt(int64(u))
	}
	n := number{kind: isUint, bits: u, f: float64(u)}
	n.exact = n.f < two64 && uint64(n.f) == u
	return n
}

func fromFloat(f float64) number {
	switch {
	case f != math.Trunc(f) || f < -two63 || f >= two64: // NaN is unequal to itself and lands here
		return number{kind: isFloat, exact: true, f: f}
	case f < two63:
		return number{kind: isInt, exact: true, bits: uint64(int64(f)), f: f + 0} // -0 becomes 0
	default:
		return number{kind: isUint, exact: true, bits: uint64(f), f: f}
	}
}

// value is the number as the AST shows it: int64, uint64 above that, or float64.
func (n number) value() any {
	switch n.kind {
	case isInt:
		return int64(n.bits)
	case isUint:
		return n.bits
	default:
		return n.f
	}
}

func (n number) finite() bool { return !math.IsNaN(n.f) && !math.IsInf(n.f, 0) }

// compare orders two numbers by their mathematical value; ok is false when one of them is NaN.
func (n number) compare(m number) (order int, ok bool) {
	switch {
	case n.kind == isFloat && m.kind == isFloat, n.exact && m.exact:
		if math.IsNaN(n.f) || math.IsNaN(m.f) {
			return 0, false
		}
		return cmp.Compare(n.f, m.f), true
	case n.kind == isFloat:
		order, ok = m.compare(n)
		return -order, ok
	case m.kind == isFloat:
		switch {
		case math.IsNaN(m.f):
			return 0, false
		case m.f >= two64:
			return -1, true
		default:
			// Not an integer of 64 bits: so it has a fraction and is small, or lies below every int64. Rounding n cannot cross it.
			return cmp.Compare(n.f, m.f), true
		}
	case n.kind != m.kind: // every isUint lies above every isInt
		return cmp.Compare(n.kind, m.kind), true
	case n.kind == isInt:
		return cmp.Compare(int64(n.bits), int64(m.bits)), true
	default:
		return cmp.Compare(n.bits, m.bits), true
	}
}

// parseNumber reads a JSON number. Integers of 64 bits stay exact however they are spelled ("1e3", "5.0"); any other
// value is rounded to the nearest float64, to an infinity when it is too large for one.
func parseNumber(s string) (number, bool) {
	mant, exp, neg, fits, ok := scanDecimal(s)
	if !ok {
		return number{}, false
	}
	if fits {
		for ; exp < 0 && mant%10 == 0 && mant != 0; exp++ {
			mant /= 10
		}
		for ; exp > 0 && mant <= math.MaxUint64/10 && mant != 0; exp-- {
			mant *= 10
		}
		switch {
		case mant == 0:
			return fromInt(0), true
		case exp == 0 && !neg:
			return fromUint(mant), true
		case exp == 0 && mant <= 1<<63:
			return fromInt(int64(-mant)), true
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil && !math.IsInf(f, 0) {
		return number{}, false
	}
	return fromFloat(f), true
}

// scanDecimal checks the JSON grammar of a number and splits it into mantissa and decimal exponent; fits is false when
// the mantissa needs more than 64 bits or the exponent is absurd.
func scanDecimal(s string) (mant uint64, exp int, neg, fits, ok bool) {
	s, neg = strings.CutPrefix(s, "-")
	whole, s := scanDigits(s)
	fraction := ""
	dotted := strings.HasPrefix(s, ".")
	if dotted {
		fraction, s = scanDigits(s[1:])
	}
	if whole == "" || len(whole) > 1 && whole[0] == '0' || dotted && fraction == "" {
		return 0, 0, false, false, false
	}
	exp, fits, ok = scanExponent(s)
	for _, digits := range [...]string{whole, fraction} {
		for i := range len(digits) {
			d := uint64(digits[i] - '0')
			fits = fits && mant <= (math.MaxUint64-d)/10
			mant = mant*10 + d
		}
	}
	return mant, exp - len(fraction), neg, fits, ok
}

// scanExponent reads all of what follows the digits of a number: nothing, or an exponent.
func scanExponent(s string) (exp int, fits, ok bool) {
	if s == "" {
		return 0, true, true
	}
	if s[0] != 'e' && s[0] != 'E' {
		return 0, false, false
	}
	s, minus := strings.CutPrefix(s[1:], "-")
	if !minus {
		s = strings.TrimPrefix(s, "+")
	}
	digits, rest := scanDigits(s)
	for i := range len(digits) {
		exp = min(exp*10+int(digits[i]-'0'), absurd)
	}
	fits = exp < absurd
	if minus {
		exp = -exp
	}
	return exp, fits, digits != "" && rest == ""
}

// absurd is an exponent beyond which no float64 tells numbers apart.
const absurd = 1 << 20

func scanDigits(s string) (digits, rest string) {
	i := 0
	for i < len(s) && '0' <= s[i] && s[i] <= '9' {
		i++
	}
	return s[:i], s[i:]
}
