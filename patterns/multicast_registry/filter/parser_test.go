package filter

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
)

// TestCanonical states the canonical form of filters; each must also survive being printed and parsed.
func TestCanonical(t *testing.T) {
	tests := []struct{ src, want string }{
		{`{}`, `{}`},
		{" \n{ }\t", `{}`},
		{`{"a":1}`, `{"a":1}`},
		{`{"a":{"$eq":1}}`, `{"a":1}`},
		{`{"a.eq":1}`, `{"a":1}`},
		{`{"a":null}`, `{"a":null}`},
		{`{"a":"x"}`, `{"a":"x"}`},
		{`{"b":1,"a":2}`, `{"a":2,"b":1}`},
		{`{"$and":[{"b":1},{"a":2}]}`, `{"a":2,"b":1}`},
		{`{"a":{"$lt":5,"$gt":1}}`, `{"a":{"$lt":5,"$gt":1}}`},
		{`{"a.gt":1,"a.lt":5}`, `{"a":{"$lt":5,"$gt":1}}`},
		{`{"a":1,"a.lt":5}`, `{"a":{"$eq":1,"$lt":5}}`},
		{`{"$and":[{"a":{"$gt":1}},{"a":{"$lt":5}}]}`, `{"a":{"$lt":5,"$gt":1}}`},
		{`{"$and":[{"a":1},{"a":2}]}`, `{"$and":[{"a":1},{"a":2}]}`},
		{`{"$and":[{"a":1}]}`, `{"$and":[{"a":1}]}`},
		{`{"$and":[{}]}`, `{"$and":[{}]}`},
		{`{"$and":[{},{"a":1}]}`, `{"$and":[{"a":1},{}]}`},
		{`{"$and":[{"$and":[{"a":1},{"b":1}]},{"c":1}]}`, `{"c":1,"$and":[{"a":1},{"b":1}]}`},
		{`{"$and":[{"$or":[{"a":1}]},{"$or":[{"b":1}]}]}`, `{"$and":[{"$or":[{"a":1}]},{"$or":[{"b":1}]}]}`},
		{`{"$or":[{"b":1},{"a":2}]}`, `{"$or":[{"b":1},{"a":2}]}`},
		{`{"$or":[{"b":1,"a":2}]}`, `{"$or":[{"a":2,"b":1}]}`},
		{`{"$not":{"a":1}}`, `{"a":{"$not":{"$eq":1}}}`},
		{`{"$not":{"a":1,"b":2}}`, `{"$not":{"a":1,"b":2}}`},
		{`{"$not":{}}`, `{"$not":{}}`},
		{`{"$not":{"$not":{"a":1}}}`, `{"a":{"$not":{"$not":{"$eq":1}}}}`},
		{`{"$not":{"$or":[{"a":1}]}}`, `{"$not":{"$or":[{"a":1}]}}`},
		{`{"$not":{"$and":[{"a":1}]}}`, `{"$not":{"$and":[{"a":1}]}}`},
		{`{"$not":{"$and":[{"a":1},{"a":2}]}}`, `{"$not":{"$and":[{"a":1},{"a":2}]}}`},
		{`{"a":{"$not":{"$gt":1,"$lt":3}}}`, `{"a":{"$not":{"$lt":3,"$gt":1}}}`},
		{`{"a":{"$not":{"$gt":1,"$not":{"$lt":3}},"$ne":2}}`, `{"a":{"$ne":2,"$not":{"$gt":1,"$not":{"$lt":3}}}}`},
		{`{"a":{"$not":{"$lt":1}},"b":{"$not":{"$lt":1}}}`, `{"a":{"$not":{"$lt":1}},"b":{"$not":{"$lt":1}}}`},
		{`{"a":{"$not":{"$lt":1}},"$not":{"a":1}}`, `{"a":{"$not":{"$eq":1}},"$not":{"a":{"$lt":1}}}`},
		{`{"a":{"$not":{"$lt":1}},"$not":{"a":1,"b":2}}`, `{"a":{"$not":{"$lt":1}},"$not":{"a":1,"b":2}}`},
		{`{"$and":[{"$not":{"a":1}},{"$not":{"a":2}},{"$not":{"a":3}}]}`, `{"$and":[{"a":{"$not":{"$eq":1}}},{"a":{"$not":{"$eq":2}}},{"a":{"$not":{"$eq":3}}}]}`},
		{`{"a.b.c":1}`, `{"a.b.c":1}`},
		{`{"a\\.b":1}`, `{"a\\.b":1}`},
		{`{"a\\\\b":1}`, `{"a\\\\b":1}`},
		{`{"\\$a.\\$b":1}`, `{"\\$a.\\$b":1}`},
		{`{"a$":1}`, `{"a$":1}`},
		{`{"\\a":1}`, `{"a":1}`},
		{`{"lt":5}`, `{"lt":5}`},
		{`{"\\lt":5}`, `{"lt":5}`},
		{`{"a.lt.eq":5}`, `{"a.\\lt":5}`},
		{`{"a.\\lt":5}`, `{"a.\\lt":5}`},
		{`{"a.l\\t":5}`, `{"a.\\lt":5}`},
		{`{"a.\\lt":{"$gt":5}}`, `{"a.\\lt":{"$gt":5}}`},
		{`{"a.lt.lt":5}`, `{"a.\\lt":{"$lt":5}}`},
		{`{"a.lt.b":5}`, `{"a.lt.b":5}`},
		{`{"lt.lt":5}`, `{"lt":{"$lt":5}}`},
		{`{"a.and":5}`, `{"a.and":5}`},
		{`{"a.LT":5}`, `{"a.LT":5}`},
		{`{"a":5.0}`, `{"a":5}`},
		{`{"a":-0}`, `{"a":0}`},
		{`{"a":-0.0}`, `{"a":0}`},
		{`{"a":1e3}`, `{"a":1000}`},
		{`{"a":1.50}`, `{"a":1.5}`},
		{`{"a":0.0000001}`, `{"a":1e-07}`},
		{`{"a":1e21}`, `{"a":1e+21}`},
		{`{"a":9007199254740993}`, `{"a":9007199254740993}`},
		{`{"a":9007199254740993.0}`, `{"a":9007199254740993}`},
		{`{"a":-9223372036854775808}`, `{"a":-9223372036854775808}`},
		{`{"a":18446744073709551615}`, `{"a":18446744073709551615}`},
		{`{"a":18446744073709551616}`, `{"a":18446744073709552000}`},
		{`{"a":1e-400}`, `{"a":0}`},
		{`{"a":"\u003c\u00e9\ud83d\ude00\n\"\\\u2028"}`, `{"a":"<é😀\u000a\"\\` + "\u2028" + `"}`},
		{`{"a":{"$in":[1,"x",null,true,1.5,1]}}`, `{"a":{"$in":[1,"x",null,true,1.5,1]}}`},
		{`{"a":{"$nin":[]}}`, `{"a":{"$nin":[]}}`},
		{
			`{"a.startswith":"x","a.endswith":"y","a.contains":false,"a.regex":"^x","a.exists":true,"a.type":"null","a.semver":"^1 || 2 - 3"}`,
			`{"a":{"$startswith":"x","$endswith":"y","$contains":false,"$regex":"^x","$exists":true,"$type":"null","$semver":"^1 || 2 - 3"}}`,
		},
	}
	for _, tt := range tests {
		e := mustParse(t, tt.src)
		if got := e.String(); got != tt.want {
			t.Errorf("%s prints as %s, want %s", tt.src, got, tt.want)
			continue
		}
		if again := mustParse(t, e.String()); !Equal(e, again) || !Equal(again, e) {
			t.Errorf("%s prints as %s, which parses as %s", tt.src, e, again)
		}
	}
}

func TestAST(t *testing.T) {
	e := mustParse(t, `{"room.x\\.y":"lab","$or":[{"n":{"$in":[1,18446744073709551615,0.5]}},{"$not":{"z":null}}]}`)
	if e.Op != And || len(e.Args) != 2 || e.Args[1].Op != Or || e.Args[1].Args[1].Op != Not || e.MatchesAll() {
		t.Fatalf("the tree of %s is wrong", e)
	}
	if room := e.Args[0]; room.Op != Eq || !slices.Equal(room.Path, []string{"room", "x.y"}) || room.Value != "lab" {
		t.Errorf("room = %v %q %v", room.Op, room.Path, room.Value)
	}
	if in := e.Args[1].Args[0]; !slices.Equal(in.Values, []any{int64(1), uint64(math.MaxUint64), 0.5}) || in.Value != nil {
		t.Errorf("in = %#v", in.Values)
	}
	if root := mustParse(t, `{}`); root == nil || root.Op != And || len(root.Args) != 0 || !root.MatchesAll() || !(*Expr)(nil).MatchesAll() {
		t.Error("{} is not an And without Args")
	}
	if got := (*Expr)(nil).String(); got != "{}" {
		t.Errorf("nil prints as %s", got)
	}
}

func TestEqual(t *testing.T) {
	tests := []struct {
		a, b string
		want bool
	}{
		{`{"a":1,"b":2}`, `{"$and":[{"b":2},{"a":1.0}]}`, true},
		{`{"a":1}`, `{"a":2}`, false},
		{`{"a":1}`, `{"b":1}`, false},
		{`{"a":1}`, `{"a":"1"}`, false},
		{`{"a":1}`, `{"a":{"$ne":1}}`, false},
		{`{"a":true}`, `{"a":false}`, false},
		{`{"a":{"$in":[1,2]}}`, `{"a":{"$in":[1]}}`, false},
		{`{"$or":[{"a":1},{"b":1}]}`, `{"$or":[{"b":1},{"a":1}]}`, false},
		{`{"$or":[{"a":1}]}`, `{"$and":[{"a":1}]}`, false},
		{`{"$not":{"a":1,"b":1}}`, `{"a":1}`, false},
	}
	for _, tt := range tests {
		a, b := mustParse(t, tt.a), mustParse(t, tt.b)
		if Equal(a, b) != tt.want || Equal(b, a) != tt.want {
			t.Errorf("Equal(%s, %s) is not %v", tt.a, tt.b, tt.want)
		}
		if (a.String() == b.String()) != tt.want {
			t.Errorf("%s and %s print as %s and %s", tt.a, tt.b, a, b)
		}
	}
	if !Equal(nil, &Expr{}) || !Equal(nil, nil) || Equal(nil, mustParse(t, tests[0].a)) {
		t.Error("nil is not the empty filter")
	}
}

func TestSyntaxErrors(t *testing.T) {
	tests := []struct{ src, pointer, msg string }{
		// The text.
		{``, ``, `got the end of the text`},
		{`{`, ``, `got the end of the text`},
		{`{"a"`, `/a`, `got the end of the text`},
		{`{"a":`, `/a`, `got the end of the text`},
		{`{"a":[1,`, `/a/1`, `got the end of the text`},
		{`{"a":1,}`, ``, `invalid JSON at byte 7: invalid character '}'`},
		{`{"a":[1,]}`, `/a/1`, `invalid JSON`},
		{`{"a" 1}`, `/a`, `invalid JSON`},
		{`{"a":tru}`, `/a`, `invalid JSON`},
		{`{"a":01}`, ``, `invalid JSON`},
		{`{"a":"` + "\x01" + `"}`, `/a`, `invalid JSON`},
		{`{a:1}`, ``, `invalid JSON`},
		{`{1:1}`, ``, `invalid JSON`},
		{"{\"a\":\"\xff\"}", ``, `not valid UTF-8`},
		{`{} {}`, ``, `expected nothing after the filter, got "{}"`},
		{`{"a":1}x`, ``, `expected nothing after the filter, got "x"`},
		{`{}]`, ``, `expected nothing after the filter`},
		{`{"a":1,"a":2}`, ``, `"a" occurs twice`},
		{`{"$or":[{"a":{"$lt":1,"$lt":2}}]}`, `/$or/0/a`, `"$lt" occurs twice`},
		{strings.Repeat(`{"$not":`, 10000), `/$not/$not/$not/$not/$not/$not/$not/$not/$not/$not/$not/$not/$not/$not`, `too deep`},
		{strings.Repeat(`[`, 10000), strings.Repeat(`/0`, 14), `too deep`},
		// The whole filter.
		{`null`, ``, `expected a JSON object such as {"room": "lab"}, got null`},
		{`[]`, ``, `got an array`},
		{`"a"`, ``, `got a string`},
		{`5`, ``, `got a number`},
		{`true`, ``, `got a bool`},
		// Logical operators.
		{`{"$and":{}}`, `/$and`, `expected an array with at least one filter, got an object`},
		{`{"$and":[]}`, `/$and`, `got an empty array`},
		{`{"$or":null}`, `/$or`, `got null`},
		{`{"$or":[1]}`, `/$or/0`, `expected a filter such as {"room": "lab"}, got a number`},
		{`{"$or":[{"a":1},{"b":[]}]}`, `/$or/1/b`, `expected a scalar, got an array`},
		{`{"$not":[]}`, `/$not`, `expected a filter`},
		{`{"$not":{"$and":[{"a":{"$lt":null}}]}}`, `/$not/$and/0/a/$lt`, `expected a number or a string, got null`},
		{`{"$lt":5}`, `/$lt`, `expected a field first: {"field": {"$lt": …}}`},
		{`{"$nor":[]}`, `/$nor`, `did you mean $not?`},
		{`{"$an":[]}`, `/$an`, `did you mean $and?`},
		{`{"$xyzzy":[]}`, `/$xyzzy`, `expected one of $and, $or, $not`},
		{`{"$":1}`, `/$`, `unknown operator "$"`},
		{`{"$where":1}`, `/$where`, `a field whose name starts with $ is written \$`},
		// Names of fields.
		{`{"":1}`, `/`, `an empty part`},
		{`{"a.":1}`, `/a.`, `an empty part`},
		{`{".a":1}`, `/.a`, `an empty part`},
		{`{"a..b":1}`, `/a..b`, `an empty part`},
		{`{".lt":1}`, `/.lt`, `an empty part`},
		{`{"a\\":1}`, `/a\`, `expected a character after the last \`},
		{`{"a.$lt":1}`, `/a.$lt`, `write \$ for a literal one`},
		{`{"a/b~c":[]}`, `/a~1b~0c`, `expected a scalar`},
		{`{"a.lt":{"$gt":3}}`, `/a.lt`, `write "a" with the operators in its object, or "a.\\lt" for a field called lt`},
		{`{"a":1,"a.eq":2}`, `/a.eq`, `operator $eq twice`},
		{`{"a":{"$lt":1},"a.lt":2}`, `/a.lt`, `operator $lt twice`},
		{`{"a":1,"\\a":2}`, `/a`, `operator $eq twice`},
		{`{"\\a":{"$not":{"$lt":1}},"a":{"$not":{"$lt":2}}}`, `/a`, `operator $not twice`},
		// Operators of a field.
		{`{"a":{}}`, `/a`, `expected an operator such as {"$lt": 3}, got an empty object`},
		{`{"a":{"b":1}}`, `/a/b`, `to reach into the object write "a.b"`},
		{`{"a":{"b.c":1}}`, `/a/b.c`, `write "a.b\\.c"`},
		{`{"a":{"":1}}`, `/a/`, `objects cannot be compared`},
		{`{"a":{"lt":1}}`, `/a/lt`, `did you mean $lt?`},
		{`{"a":{"$startwith":"x"}}`, `/a/$startwith`, `did you mean $startswith?`},
		{`{"a":{"$startsWith":"x"}}`, `/a/$startsWith`, `did you mean $startswith?`},
		{`{"a":{"$starts":"x"}}`, `/a/$starts`, `did you mean $startswith?`},
		{`{"a":{"$neq":1}}`, `/a/$neq`, `did you mean $ne?`},
		{`{"a":{"$lte ":1}}`, `/a/$lte `, `did you mean $lte?`},
		{`{"a":{"$ni":1}}`, `/a/$ni`, `did you mean $ne?`},
		{`{"a":{"$regexp":"x"}}`, `/a/$regexp`, `did you mean $regex?`},
		{`{"a":{"$exits":true}}`, `/a/$exits`, `did you mean $exists?`},
		{`{"a":{"$ytpe":"null"}}`, `/a/$ytpe`, `did you mean $type?`},
		{`{"a":{"$between":[1,2]}}`, `/a/$between`, `expected one of $not, $eq, $ne, $lt, $lte, $gt, $gte, $in, $nin, $startswith, $endswith, $contains, $regex, $exists, $type, $semver`},
		{`{"a":{"$or":[{"$lt":1}]}}`, `/a/$or`, `{"$or": [{"a": …}, {"a": …}]}`},
		{`{"a":{"$not":5}}`, `/a/$not`, `"is not this value" is $ne`},
		{`{"a":{"$not":{}}}`, `/a/$not`, `got an empty object`},
		{`{"a":{"$not":{"$lt":true}}}`, `/a/$not/$lt`, `got a bool`},
		// Operands.
		{`{"a":[1,2]}`, `/a`, `$in asks for one of several values, $contains for an element`},
		{`{"a":{"$eq":{"b":1}}}`, `/a/$eq`, `reach into them with a dotted name`},
		{`{"a":{"$eq":[1]}}`, `/a/$eq`, `$in asks for one of several values`},
		{`{"a":{"$ne":[1]}}`, `/a/$ne`, `expected a scalar, got an array`},
		{`{"a":{"$lt":true}}`, `/a/$lt`, `expected a number or a string, got a bool`},
		{`{"a":{"$lte":null}}`, `/a/$lte`, `expected a number or a string, got null`},
		{`{"a.gt":true}`, `/a.gt`, `expected a number or a string, got a bool`},
		{`{"a":{"$gte":[1]}}`, `/a/$gte`, `got an array`},
		{`{"a":{"$in":1}}`, `/a/$in`, `expected an array of scalars, got a number`},
		{`{"a":{"$in":[1,[2]]}}`, `/a/$in/1`, `expected a scalar, got an array`},
		{`{"a":{"$nin":{"b":1}}}`, `/a/$nin`, `expected an array of scalars, got an object`},
		{`{"a":{"$nin":[{}]}}`, `/a/$nin/0`, `expected a scalar, got an object`},
		{`{"a":{"$startswith":1}}`, `/a/$startswith`, `expected a string, got a number`},
		{`{"a":{"$endswith":null}}`, `/a/$endswith`, `expected a string, got null`},
		{`{"a":{"$contains":[1]}}`, `/a/$contains`, `expected a scalar, got an array`},
		{`{"a":{"$regex":1}}`, `/a/$regex`, `expected a string, got a number`},
		{`{"a":{"$regex":"a(b"}}`, `/a/$regex`, `expected a regular expression (RE2): missing closing )`},
		{`{"a":{"$regex":"(?=a)"}}`, `/a/$regex`, `invalid or unsupported Perl syntax`},
		{`{"a":{"$exists":1}}`, `/a/$exists`, `expected true or false, got a number`},
		{`{"a":{"$exists":"true"}}`, `/a/$exists`, `expected true or false, got a string`},
		{`{"a":{"$type":1}}`, `/a/$type`, `expected a string, got a number`},
		{`{"a":{"$type":"numbr"}}`, `/a/$type`, `did you mean number?`},
		{`{"a":{"$type":"date"}}`, `/a/$type`, `expected one of null, bool, number, string, array, object`},
		{`{"a":{"$semver":1.2}}`, `/a/$semver`, `expected a string, got a number`},
		{`{"a":{"$semver":">=banana"}}`, `/a/$semver`, `expected a version range such as >=1.2 <2: "banana" is not a version`},
		{`{"a":{"$semver":""}}`, `/a/$semver`, `it is empty`},
		{`{"a":{"$semver":"=>1"}}`, `/a/$semver`, `unknown operator "=>"`},
		{`{"a":1e999}`, `/a`, `expected a finite number`},
		{`{"a":{"$in":[-1e999]}}`, `/a/$in/0`, `expected a finite number`},
	}
	for _, tt := range tests {
		e, err := Parse(tt.src)
		checkSyntaxError(t, shorten(tt.src), e, err, tt.pointer, tt.msg)
	}
}

func checkSyntaxError(t *testing.T, name string, e *Expr, err error, pointer, msg string) {
	t.Helper()
	var syntax *SyntaxError
	if !errors.As(err, &syntax) || e != nil {
		t.Errorf("%s: got %v, %v, want a SyntaxError", name, e, err)
		return
	}
	if syntax.Pointer != pointer || !strings.Contains(syntax.Msg, msg) {
		t.Errorf("%s: got %q: %s\nwant %q: …%s", name, syntax.Pointer, syntax.Msg, pointer, msg)
	}
	if want := "filter: " + pointer; !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), syntax.Msg) {
		t.Errorf("%s: Error() = %s", name, err)
	}
}

func TestParseValue(t *testing.T) {
	tests := []struct {
		value any
		want  string
	}{
		{map[string]any(nil), `{}`},
		{map[string]any{}, `{}`},
		{map[string]any{"a": int8(1), "b": uint16(2), "c": float32(0.5), "d": uint64(math.MaxUint64), "e": json.Number("1.0")}, `{"a":1,"b":2,"c":0.5,"d":18446744073709551615,"e":1}`},
		{map[string]any{"a": map[string]any{"$in": []any{1, 2.0, "x", nil, false}}}, `{"a":{"$in":[1,2,"x",null,false]}}`},
		{map[string]any{"$or": []any{map[string]any{"a.lt": 1}, map[string]any{"b": true}}}, `{"$or":[{"a":{"$lt":1}},{"b":true}]}`},
	}
	for _, tt := range tests {
		e, err := ParseValue(tt.value)
		if err != nil || e.String() != tt.want {
			t.Errorf("ParseValue(%v) = %v, %v, want %s", tt.value, e, err, tt.want)
		} else if !Equal(e, mustParse(t, tt.want)) {
			t.Errorf("ParseValue(%v) is not Parse(%s)", tt.value, tt.want)
		}
	}
	cyclic := map[string]any{}
	cyclic["$not"] = cyclic
	field := map[string]any{}
	field["$not"] = field
	bad := []struct {
		value        any
		pointer, msg string
	}{
		{nil, ``, `got null`},
		{[]any{}, ``, `got an array`},
		{map[string]int{}, ``, `got a Go value of type map[string]int`},
		{map[string]any{"a": []string{"x"}}, `/a`, `got a Go value of type []string`},
		{map[string]any{"a": map[string]any{"$in": []string{"x"}}}, `/a/$in`, `expected an array of scalars, got a Go value of type []string`},
		{map[string]any{"a": func() {}}, `/a`, `got a Go value of type func()`},
		{map[string]any{"a": math.NaN()}, `/a`, `expected a finite number`},
		{map[string]any{"a": math.Inf(1)}, `/a`, `expected a finite number`},
		{map[string]any{"a": json.Number("x")}, `/a`, `got a Go value of type json.Number`},
		{map[string]any{"a": "\xff"}, `/a`, `not valid UTF-8`},
		{map[string]any{"a\xff": 1}, "/a\xff", `not valid UTF-8`},
		{cyclic, `/$not/$not/$not/$not/$not`, `nests deeper than 5 levels`},
		{map[string]any{"a": field}, `/a/$not/$not/$not/$not/$not`, `nests deeper than 5 levels`},
	}
	for _, tt := range bad {
		e, err := ParseValue(tt.value)
		checkSyntaxError(t, fmt.Sprintf("%T", tt.value), e, err, tt.pointer, tt.msg)
	}
}

// TestLimits goes exactly to each bound, and one over it.
func TestLimits(t *testing.T) {
	and := func(depth int) string {
		return strings.Repeat(`{"$and":[`, depth-1) + `{"a":1}` + strings.Repeat(`]}`, depth-1)
	}
	not := func(depth int) string {
		return strings.Repeat(`{"$not":`, depth-1) + `{"a":{"$in":[1]}}` + strings.Repeat(`}`, depth-1)
	}
	fieldNot := func(depth int) string {
		return `{"a":` + strings.Repeat(`{"$not":`, depth-1) + `{"$in":[1]}` + strings.Repeat(`}`, depth-1) + `}`
	}
	clauses := func(n int) string {
		var parts []string
		for i := range n {
			parts = append(parts, fmt.Sprintf(`"f%02d":1`, i))
		}
		return `{` + strings.Join(parts, ",") + `}`
	}
	list := func(open, item, end string) func(int) string {
		return func(n int) string { return open + strings.Repeat(item+",", n-1) + item + end }
	}
	text := func(before, after string) func(int) string {
		return func(n int) string { return before + strings.Repeat("x", n) + after }
	}
	padded := func(n int) string { return `{"a":1` + strings.Repeat(" ", n-7) + `}` }
	none := Limits{}
	tests := []struct {
		name   string
		limits Limits
		src    func(int) string
		most   int
		msg    string
	}{
		{"depth of $and", none, and, 5, "nests deeper than 5 levels"},
		{"depth of $not", none, not, 5, "nests deeper than 5 levels"},
		{"depth of $not in a field", none, fieldNot, 5, "nests deeper than 5 levels"},
		{"other depth", Limits{Depth: 9}, and, 9, "nests deeper than 9 levels"},
		{"depth 1", Limits{Depth: 1}, and, 1, "nests deeper than 1 levels"},
		{"clauses", none, clauses, 20, "more than 20 clauses"},
		{"other clauses", Limits{Clauses: 3}, clauses, 3, "more than 3 clauses"},
		{"clauses in $or", none, list(`{"$or":[`, `{"a":1}`, `]}`), 20, "more than 20 clauses"},
		{"empty clauses", none, list(`{"$or":[`, `{}`, `]}`), 20, "more than 20 clauses"},
		{"values of $in", none, list(`{"a":{"$in":[`, `1`, `]}}`), 1000, "the list has 1001 values, the limit is 1000"},
		{"values of $nin", Limits{InValues: 2}, list(`{"a":{"$nin":[`, `1`, `]}}`), 2, "the list has 3 values, the limit is 2"},
		{"regex", none, text(`{"a":{"$regex":"`, `"}}`), 256, "257 bytes long, the limit is 256"},
		{"other regex", Limits{RegexBytes: 4}, text(`{"a":{"$regex":"`, `"}}`), 4, "5 bytes long, the limit is 4"},
		{"string", none, text(`{"a":"`, `"}`), 4096, "4097 bytes long, the limit is 4096"},
		{"version range", Limits{StringBytes: 3}, func(n int) string { return `{"a":{"$semver":"` + strings.Repeat("1", n) + `"}}` }, 3, "the limit is 3"},
		{"name", none, text(`{"`, `":1}`), 4096, "the name of the field is 4097 bytes long, the limit is 4096"},
		{"source", none, padded, 1 << 20, "the filter is 1048577 bytes long, the limit is 1048576"},
		{"other source", Limits{SourceBytes: 100}, padded, 100, "the limit is 100"},
	}
	for _, tt := range tests {
		e, err := tt.limits.Parse(tt.src(tt.most))
		if err != nil {
			t.Errorf("%s: %d is refused: %v", tt.name, tt.most, err)
		} else if again, err := tt.limits.Parse(e.String()); err != nil || !Equal(e, again) {
			t.Errorf("%s: the canonical form does not come back: %v", tt.name, err)
		}
		if _, err := tt.limits.Parse(tt.src(tt.most + 1)); err == nil || !strings.Contains(err.Error(), tt.msg) {
			t.Errorf("%s: %d gives %v, want …%s", tt.name, tt.most+1, err, tt.msg)
		}
	}

	dotted := func(n int) map[string]any { return map[string]any{"a" + strings.Repeat(".a", n-1): 1} }
	if _, err := ParseValue(dotted(16)); err != nil {
		t.Errorf("16 parts: %v", err)
	}
	if _, err := ParseValue(dotted(17)); err == nil || !strings.Contains(err.Error(), "17 parts, the limit is 16") {
		t.Errorf("17 parts: %v", err)
	}
	small := Limits{SourceBytes: 10}
	if _, err := small.ParseValue(map[string]any{"a": "123456789"}); err != nil {
		t.Errorf("10 bytes: %v", err)
	}
	if _, err := small.ParseValue(map[string]any{"ab": "123456789"}); err == nil || !strings.Contains(err.Error(), "longer than 10 bytes") {
		t.Errorf("11 bytes: %v", err)
	}
	_, err := ParseValue(map[string]any{strings.Repeat("x", 1<<20): map[string]any{"$lt": 1}})
	if err == nil || len(err.Error()) > 200 {
		t.Errorf("an error about a huge name is huge itself, or missing")
	}
}

func TestOperators(t *testing.T) {
	ops := Operators()
	if len(ops) != len(opNames) {
		t.Errorf("%d operators are listed, there are %d", len(ops), len(opNames))
	}
	for i, op := range ops {
		if op.Op != Op(i) || op.Name != "$"+op.Op.String() || op.Summary == "" || op.Operand == "" {
			t.Errorf("operator %d is listed as %+v", i, op)
		}
		if !strings.Contains(op.Example, op.Name) && op.Op != Eq {
			t.Errorf("the example of %s does not use it: %s", op.Name, op.Example)
		}
		mustParse(t, op.Example)
	}
}

func TestCompareScalars(t *testing.T) {
	order := []any{
		nil, false, true, math.NaN(), math.Inf(-1), -1e300, int64(math.MinInt64), -1.5, -1, 0, json.Number("0.5"), uint8(1), 1.5,
		float64(1 << 53), int64(1<<53 + 1), int64(math.MaxInt64), float64(1 << 63), uint64(1<<63 + 1), uint64(math.MaxUint64), float64(1 << 64),
		math.Inf(1), "", "A", "a", "ab", "é",
	}
	for i, a := range order {
		for j, b := range order {
			if got, want := sign(Compare(a, b)), sign(i-j); got != want {
				t.Errorf("Compare(%v, %v) = %d, want %d", a, b, got, want)
			}
		}
		if Compare(a, []any{}) >= 0 || Compare(struct{}{}, a) <= 0 {
			t.Errorf("%v does not come before what is no scalar", a)
		}
	}
}

func TestScalar(t *testing.T) {
	tests := []struct {
		in, want any
		ok       bool
	}{
		{nil, nil, true},
		{true, true, true},
		{false, false, true},
		{"a", "a", true},
		{5, int64(5), true},
		{5.0, int64(5), true},
		{uint8(5), int64(5), true},
		{uint64(math.MaxUint64), uint64(math.MaxUint64), true},
		{0.5, 0.5, true},
		{float32(0.5), 0.5, true},
		{json.Number("10e-1"), int64(1), true},
		{json.Number("-0"), int64(0), true},
		{math.Copysign(0, -1), int64(0), true},
		{[]any{1}, nil, false},
		{map[string]any{}, nil, false},
		{struct{}{}, nil, false},
		{json.Number(""), nil, false},
	}
	for _, tt := range tests {
		if got, ok := Scalar(tt.in); got != tt.want || ok != tt.ok {
			t.Errorf("Scalar(%T %v) = %T %v, %v", tt.in, tt.in, got, got, ok)
		}
	}
	if v, _ := Scalar(math.Copysign(0, -1)); 1/fromFloat(math.Copysign(0, -1)).f < 0 {
		t.Errorf("negative zero keeps its sign: %v", v)
	}
}

func TestParseNumber(t *testing.T) {
	good := map[string]any{
		"0": int64(0), "-0": int64(0), "0e5": int64(0), "1.0": int64(1), "100e-2": int64(1), "1e18": int64(1e18), "1e19": uint64(1e19),
		"9223372036854775807": int64(math.MaxInt64), "9223372036854775808": uint64(1 << 63), "-9223372036854775808": int64(math.MinInt64),
		"18446744073709551615": uint64(math.MaxUint64), "18446744073709551615.000": float64(1 << 64), "-9223372036854775809": int64(math.MinInt64),
		"1.5": 1.5, "1E-1": 0.1, "1e+2": int64(100), "1e-5000000": int64(0), "123456789012345678901234567890": 123456789012345678901234567890.0,
	}
	for _, s := range slices.Sorted(maps.Keys(good)) {
		if n, ok := parseNumber(s); !ok || n.value() != good[s] {
			t.Errorf("parseNumber(%s) = %T %v, %v, want %T %v", s, n.value(), n.value(), ok, good[s], good[s])
		}
	}
	for _, s := range []string{"", "-", "+1", "01", "1.", ".5", "1e", "1e+", "0x1", "1_0", "Inf", "NaN", "1 ", " 1", "--1", "1.e1"} {
		if n, ok := parseNumber(s); ok {
			t.Errorf("parseNumber(%q) = %v", s, n.value())
		}
	}
}
