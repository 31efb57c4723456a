package filter

import (
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

// String is the filter in canonical JSON: no spaces, fields in order, {} for the empty filter. Filters that are [Equal]
// print the same, and [Parse] reads it back to an Equal one.
func (e *Expr) String() string { return string(appendFilter(nil, e)) }

// appendFilter prints an expression as one object.
func appendFilter(dst []byte, e *Expr) []byte {
	if e.MatchesAll() {
		return append(dst, "{}"...)
	}
	args := []*Expr{e}
	if e.Op == And {
		args = e.Args
	}
	if o, ok := layOut(args); ok && (e.Op != And || len(args) > 1) {
		return o.append(dst)
	}
	dst = append(dst, `{"$and":`...)
	return append(appendList(dst, e.Args), '}')
}

// layout is one JSON object that means the AND of its members.
type layout struct {
	fields       []fieldLayout
	and, not, or *Expr
}

// fieldLayout is a field with its operators, in order, and what a $not inside it negates.
type fieldLayout struct {
	path []string
	ops  []*Expr
	not  *Expr
}

// layOut finds every condition a place of its own in one object. It fails when two compete for one place; parsing an
// object never gives such conditions, an explicit $and may.
func layOut(args []*Expr) (*layout, bool) {
	o := new(layout)
	for _, e := range args {
		if e == nil {
			e = all
		}
		var place **Expr
		switch e.Op {
		case And:
			if len(e.Args) == 0 {
				return nil, false // it prints as {}, which has no place inside an object
			}
			place = &o.and
		case Or:
			place = &o.or
		case Not:
			place = &o.not
			if path := fieldPath(e); path != nil {
				if f := o.field(path); f.not == nil {
					f.not = e.negated()
					continue
				}
			}
		default:
			f := o.field(e.Path)
			if slices.ContainsFunc(f.ops, func(old *Expr) bool { return old.Op == e.Op }) {
				return nil, false
			}
			f.ops = append(f.ops, e)
			continue
		}
		if *place != nil {
			return nil, false
		}
		*place = e
	}
	return o, true
}

func (o *layout) field(path []string) *fieldLayout {
	i, found := slices.BinarySearchFunc(o.fields, path, func(f fieldLayout, path []string) int {
		return slices.Compare(f.path, path)
	})
	if !found {
		o.fields = slices.Insert(o.fields, i, fieldLayout{path: path})
	}
	return &o.fields[i]
}

// fieldPath gives the field that all of an expression is about when it fits inside that field's object, and nil otherwise.
func fieldPath(e *Expr) []string {
	switch {
	case e == nil || e.Op == Or:
		return nil
	case e.Op == Not:
		return fieldPath(e.negated())
	case e.Op != And:
		return e.Path
	case len(e.Args) < 2:
		return nil
	}
	var path []string
	for i, arg := range e.Args {
		p := fieldPath(arg)
		if p == nil || arg.Op == And || i > 0 && (!slices.Equal(p, path) || arg.Op == e.Args[i-1].Op) {
			return nil
		}
		path = p
	}
	return path
}

func (o *layout) append(dst []byte) []byte {
	dst = append(dst, '{')
	for _, f := range o.fields {
		dst = appendString(dst, joinKey(f.path))
		dst = append(dst, ':')
		if len(f.ops) == 1 && f.ops[0].Op == Eq && f.not == nil {
			dst = appendScalar(dst, f.ops[0].Value)
		} else {
			dst = f.append(dst)
		}
		dst = append(dst, ',')
	}
	if o.and != nil {
		dst = append(appendList(append(dst, `"$and":`...), o.and.Args), ',')
	}
	if o.not != nil {
		dst = append(appendFilter(append(dst, `"$not":`...), o.not.negated()), ',')
	}
	if o.or != nil {
		dst = append(appendList(append(dst, `"$or":`...), o.or.Args), ',')
	}
	dst[len(dst)-1] = '}'
	return dst
}

// append prints the object of operators under a field.
func (f *fieldLayout) append(dst []byte) []byte {
	dst = append(dst, '{')
	for _, e := range f.ops {
		dst = append(dst, `"$`...)
		dst = append(dst, e.Op.String()...)
		dst = append(dst, `":`...)
		if e.Op == In || e.Op == Nin {
			dst = append(dst, '[')
			for i, v := range e.Values {
				if i > 0 {
					dst = append(dst, ',')
				}
				dst = appendScalar(dst, v)
			}
			dst = append(dst, ']')
		} else {
			dst = appendScalar(dst, e.Value)
		}
		dst = append(dst, ',')
	}
	if f.not != nil {
		args := []*Expr{f.not}
		if f.not.Op == And {
			args = f.not.Args
		}
		inner := fieldLayout{}
		for _, arg := range args {
			if arg.Op == Not {
				inner.not = arg.negated()
			} else {
				inner.ops = append(inner.ops, arg)
			}
		}
		dst = append(inner.append(append(dst, `"$not":`...)), ',')
	}
	dst[len(dst)-1] = '}'
	return dst
}

func appendList(dst []byte, args []*Expr) []byte {
	dst = append(dst, '[')
	for i, arg := range args {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendFilter(dst, arg)
	}
	return append(dst, ']')
}

func appendScalar(dst []byte, v any) []byte {
	switch s := scalarOf(v); s.kind {
	case kindBool:
		return append(dst, s.str...)
	case kindString:
		return appendString(dst, s.str)
	case kindNumber:
		switch n := s.num; {
		case n.kind == isInt:
			return strconv.AppendInt(dst, int64(n.bits), 10)
		case n.kind == isUint:
			return strconv.AppendUint(dst, n.bits, 10)
		case !n.finite():
			return append(dst, "null"...)
		case math.Abs(n.f) < 1e-6 || math.Abs(n.f) >= 1e21:
			return strconv.AppendFloat(dst, n.f, 'e', -1, 64)
		default:
			return strconv.AppendFloat(dst, n.f, 'f', -1, 64)
		}
	default:
		return append(dst, "null"...)
	}
}

// appendString quotes a string with the fewest escapes that JSON asks for.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}
