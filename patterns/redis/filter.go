package redis

import (
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// lua/scan.lua evaluates filters that it gets as data: JSON, spelled as metadata is, of these clauses.
//
//	{"o":"and","a":[…]}  {"o":"or","a":[…]}       all of the clauses a hold, one of them does; an or of none never holds
//	{"o":"eq","p":["a","b"],"v":5,"n":true}       a field operator, the path, the operand; n: it must not hold
//
// The field operators are eq, lt, lte, gt, gte, in, startswith, endswith, contains, exists and type as DESIGN.md's section on
// filters has them, and text: a string, or an array with one. Negation stands at field operators only.

const (
	// maxFilterBytes bounds the data, because it is sent and read with every batch.
	maxFilterBytes = 32 << 10
	// maxFilterDepth bounds the nesting, for filters built by hand.
	maxFilterDepth = 24
	// maxNeedles and maxNeedleBytes bound what is looked for before decoding.
	maxNeedles, maxNeedleBytes = 4, 32
)

// clause is one node of a filter for lua/scan.lua. Nil holds everywhere.
type clause struct {
	op    string
	not   bool
	path  []string
	value any
	args  []*clause
}

// translate returns a filter as data for lua/scan.lua, "" when it is to match everything. The translation holds wherever the
// filter does; exact says that it holds nowhere else.
func translate(e *filter.Expr) (data string, exact bool) {
	c, exact := translateExpr(e, false, maxFilterDepth)
	if c == nil {
		return "", exact
	}
	root := map[string]any{"q": c.data()}
	if needles := c.needles(); len(needles) > 0 {
		root["w"] = anys(needles)
	}
	data, err := encodeMetadata(root)
	if err != nil || len(data) > maxFilterBytes {
		return "", false
	}
	return data, exact
}

// translateExpr translates a filter, or its complement. That moves every negation down to the field operators, where it is
// known whether what is negated is exact: the complement of something wider would be narrower.
func translateExpr(e *filter.Expr, not bool, depth int) (c *clause, exact bool) {
	switch {
	case e == nil:
		return constant(!not), true
	case depth == 0:
		return nil, false
	case e.Op == filter.Not:
		if len(e.Args) == 0 {
			return constant(not), true
		}
		return translateExpr(e.Args[0], !not, depth-1)
	case e.Op.Logical():
		return translateArgs(e.Args, not, (e.Op == filter.And) != not, depth-1)
	default:
		return translateField(e, not)
	}
}

// constant is the clause that always or never holds.
func constant(holds bool) *clause {
	if holds {
		return nil
	}
	return &clause{op: "or"}
}

// translateArgs translates an and (all) or an or of filters, or of their complements.
func translateArgs(args []*filter.Expr, not, all bool, depth int) (c *clause, exact bool) {
	c, exact = &clause{op: "or"}, true
	if all {
		c.op = "and"
	}
	for _, arg := range args {
		inner, innerExact := translateExpr(arg, not, depth)
		exact = exact && innerExact
		switch {
		case inner != nil:
			c.args = append(c.args, inner)
		case !all:
			return nil, innerExact
		}
	}
	switch {
	case all && len(c.args) == 0:
		return nil, exact
	case len(c.args) == 1:
		return c.args[0], exact
	default:
		return c, exact
	}
}

var fieldOps = map[filter.Op]string{
	filter.Eq: "eq", filter.Ne: "eq", filter.Lt: "lt", filter.Lte: "lte", filter.Gt: "gt", filter.Gte: "gte",
	filter.In: "in", filter.Nin: "in", filter.StartsWith: "startswith", filter.EndsWith: "endswith",
	filter.Contains: "contains", filter.Exists: "exists", filter.Type: "type",
}

// translateField translates a field operator. What the parser would have refused, in a filter built by hand, is widened.
func translateField(e *filter.Expr, not bool) (c *clause, exact bool) {
	if len(e.Path) == 0 || slices.ContainsFunc(e.Path, func(key string) bool { return !utf8.ValidString(key) }) {
		return nil, false
	}
	op, known := fieldOps[e.Op]
	if !known {
		if not || e.Op != filter.Regex && e.Op != filter.Semver {
			return nil, false
		}
		return &clause{op: "text", path: e.Path}, false
	}
	value, ok := operandOf(e)
	if !ok {
		return nil, false
	}
	c = &clause{op: op, path: e.Path, value: value, not: not != (e.Op == filter.Ne || e.Op == filter.Nin)}
	if e.Op == filter.Exists {
		c.not, c.value = not == value.(bool), true
	}
	return c, true
}

// operandOf returns an operand in its canonical form. It is not ok when the operator does not take such a one.
func operandOf(e *filter.Expr) (value any, ok bool) {
	if e.Op == filter.In || e.Op == filter.Nin {
		values := make([]any, len(e.Values))
		for i, v := range e.Values {
			if values[i], ok = scalar(v); !ok {
				return nil, false
			}
		}
		return values, true
	}
	if value, ok = scalar(e.Value); !ok {
		return nil, false
	}
	_, isString := value.(string)
	switch e.Op {
	case filter.Lt, filter.Lte, filter.Gt, filter.Gte:
		_, isBool := value.(bool)
		return value, value != nil && !isBool
	case filter.StartsWith, filter.EndsWith:
		return value, isString
	case filter.Type:
		return value, isString && slices.Contains(typeNames, value.(string))
	case filter.Exists:
		_, ok = value.(bool)
	}
	return value, ok
}

var typeNames = []string{"null", "bool", "number", "string", "array", "object"}

func scalar(value any) (canonical any, ok bool) {
	canonical, ok = filter.Scalar(value)
	switch v := canonical.(type) {
	case string:
		ok = ok && utf8.ValidString(v)
	case float64:
		ok = ok && !math.IsNaN(v) && !math.IsInf(v, 0)
	}
	return canonical, ok
}

// data returns the clause as JSON that encodeMetadata takes.
func (c *clause) data() map[string]any {
	data := map[string]any{"o": c.op}
	if c.path == nil {
		args := make([]any, len(c.args))
		for i, arg := range c.args {
			args[i] = arg.data()
		}
		data["a"] = args
		return data
	}
	data["p"], data["v"] = anys(c.path), c.value
	if c.not {
		data["n"] = true
	}
	return data
}

func anys(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

// needles returns texts that are all part of the stored form of any metadata for which the clause holds. Looking for them
// costs a fifth of decoding. Operands tell more than keys.
func (c *clause) needles() []string {
	operands, keys := c.collect(nil, nil)
	if len(operands) == 0 {
		operands = keys
	}
	slices.Sort(operands)
	operands = slices.Compact(operands)
	return operands[:min(len(operands), maxNeedles)]
}

func (c *clause) collect(operands, keys []string) (moreOperands, moreKeys []string) {
	if c.op == "and" {
		for _, arg := range c.args {
			operands, keys = arg.collect(operands, keys)
		}
	}
	if c.path == nil || c.not {
		return operands, keys
	}
	key := string(appendText(nil, c.path[len(c.path)-1])) + ":"
	keys = append(keys, key[:min(len(key), maxNeedleBytes)])
	if needle := c.needle(); len(needle) > 2 {
		operands = append(operands, needle)
	}
	return operands, keys
}

// needle returns how the operand shows in the stored form, as far as that is a part of a string.
func (c *clause) needle() string {
	operand, ok := c.value.(string)
	if !ok {
		return ""
	}
	text := string(appendText(nil, operand))
	switch c.op {
	case "eq":
		text = string(appendString(nil, operand))
	case "startswith":
		text = strings.TrimSuffix(string(appendString(nil, operand)), `"`)
	case "endswith":
		text = strings.TrimPrefix(text, `"`)
		return text[max(0, len(text)-maxNeedleBytes):]
	case "contains":
		text = text[1 : len(text)-1]
	default:
		return ""
	}
	return text[:min(len(text), maxNeedleBytes)]
}
