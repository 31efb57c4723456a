package index

import (
	"math"
	"slices"
	"unicode/utf8"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// A node is a part of a filter, made ready for any number of segments. Only one goroutine uses it.
type node struct {
	op   filter.Op
	expr *filter.Expr
	args []*node

	field   string // as appendPath has it
	operand operand
	list    []operand // of In and Nin
	never   bool      // the operand is one that no parser lets through: the positive form of the operator holds nowhere

	memo     *memo         // of what costs much to find out, about one segment
	verdicts map[text]bool // same, about a few strings
}

// operand is a scalar, or for Type the kind that is asked for.
type operand struct {
	kind   kind
	yes    bool
	number number
	text   text
}

// compile takes any filter, parsed or built by hand.
func compile(e *filter.Expr) *node {
	if e.MatchesAll() {
		return &node{op: filter.And}
	}
	n := &node{op: e.Op, expr: e}
	switch {
	case e.Op == filter.Not && len(e.Args) == 0:
		n.args = []*node{{op: filter.And}}
		return n
	case e.Op.Logical():
		for _, arg := range e.Args {
			n.args = append(n.args, compile(arg))
		}
		return n
	}
	n.field = pathName(e.Path)
	n.never = len(e.Path) == 0 || e.Op > filter.Semver || !n.operands(e)
	return n
}

// operands is false when an operand is none for the operator.
func (n *node) operands(e *filter.Expr) (ok bool) {
	if e.Op == filter.In || e.Op == filter.Nin {
		n.list = make([]operand, len(e.Values))
		for i, value := range e.Values {
			if n.list[i], ok = operandOf(value); !ok {
				return false
			}
		}
		return true
	}
	if n.operand, ok = operandOf(e.Value); !ok {
		return false
	}
	k := n.operand.kind
	switch e.Op {
	case filter.Lt, filter.Lte, filter.Gt, filter.Gte:
		return k == numeric || k == textual
	case filter.Exists:
		return k == boolean
	case filter.StartsWith, filter.EndsWith, filter.Regex, filter.Semver:
		return k == textual
	case filter.Type:
		at := slices.Index(kindNames[:], string(n.operand.text))
		n.operand.kind = kind(max(at, 0))
		return k == textual && at >= 0
	}
	return true
}

func operandOf(value any) (o operand, ok bool) {
	value, ok = filter.Scalar(value)
	switch v := value.(type) {
	case nil:
		return o, ok
	case bool:
		return operand{kind: boolean, yes: v}, true
	case string:
		return operand{kind: textual, text: text(v)}, utf8.ValidString(v)
	}
	o.kind = numeric
	o.number, ok = numberOf(value)
	return o, ok && !math.IsInf(o.number.near, 0)
}

// whereMissing tells whether a field operator holds where there is no such field.
func (n *node) whereMissing() bool {
	return n.op == filter.Ne || n.op == filter.Nin || n.op == filter.Exists && !n.never && !n.operand.yes
}

// matches is filter.Match for encoded metadata, of which it decodes only what it needs.
func (n *node) matches(encoded string) bool {
	switch n.op {
	case filter.And:
		for _, arg := range n.args {
			if !arg.matches(encoded) {
				return false
			}
		}
		return true
	case filter.Or:
		for _, arg := range n.args {
			if arg.matches(encoded) {
				return true
			}
		}
		return false
	case filter.Not:
		return !n.args[0].matches(encoded)
	}
	if n.never {
		return n.whereMissing()
	}
	value, present := multicastregistry.LookUp(encoded, n.expr.Path...)
	if !present {
		return n.whereMissing()
	}
	return filter.MatchValue(n.expr, value)
}
