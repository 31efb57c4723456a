package filter

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func mustParse(t testing.TB, src string) *Expr {
	t.Helper()
	e, err := Parse(src)
	if err != nil {
		t.Fatalf("Parse(%s): %v", src, err)
	}
	return e
}

// metadata decodes a JSON object the way a JSON client would; numbers become float64.
func metadata(t testing.TB, src string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(src), &m); err != nil {
		t.Fatalf("metadata %s: %v", src, err)
	}
	return m
}

// TestTruthTable is the table of missing, null and other types: every operator against every kind of field. The columns
// are those of docs-cms/reference/filter.md.
func TestTruthTable(t *testing.T) {
	const o, x = true, false
	tests := []struct {
		filter        string
		missing, null bool
		otherType     string
		other         bool
		arrayHit      string
		hit           bool
		arrayMiss     string
		miss          bool
		matching      string
		match         bool
		nonMatching   string
		nonMatch      bool
	}{
		{`{"f":{"$eq":3}}`, x, x, `"3"`, x, `[1,3]`, o, `[1,2]`, x, `3`, o, `4`, x},
		{`{"f":{"$eq":null}}`, x, o, `false`, x, `[null]`, o, `[0]`, x, `null`, o, `0`, x},
		{`{"f":{"$eq":true}}`, x, x, `"true"`, x, `[true]`, o, `[false]`, x, `true`, o, `false`, x},
		{`{"f":{"$eq":"a"}}`, x, x, `{"a":"a"}`, x, `["b","a"]`, o, `[]`, x, `"a"`, o, `"A"`, x},
		{`{"f":{"$ne":3}}`, o, o, `"3"`, o, `[1,3]`, x, `[1,2]`, o, `3`, x, `4`, o},
		{`{"f":{"$ne":null}}`, o, x, `false`, o, `[null]`, x, `[0]`, o, `null`, x, `0`, o},
		{`{"f":{"$lt":3}}`, x, x, `"2"`, x, `[9,2]`, o, `[9,3]`, x, `2`, o, `3`, x},
		{`{"f":{"$lt":"b"}}`, x, x, `1`, x, `["c","a"]`, o, `["b"]`, x, `"a"`, o, `"b"`, x},
		{`{"f":{"$lte":3}}`, x, x, `"3"`, x, `[9,3]`, o, `[9,4]`, x, `3`, o, `4`, x},
		{`{"f":{"$lte":"b"}}`, x, x, `true`, x, `["b"]`, o, `["ba"]`, x, `"b"`, o, `"ba"`, x},
		{`{"f":{"$gt":3}}`, x, x, `"4"`, x, `[1,4]`, o, `[1,3]`, x, `4`, o, `3`, x},
		{`{"f":{"$gt":"b"}}`, x, x, `{}`, x, `["ba"]`, o, `["b"]`, x, `"ba"`, o, `"b"`, x},
		{`{"f":{"$gte":3}}`, x, x, `"3"`, x, `[1,3]`, o, `[1,2]`, x, `3`, o, `2`, x},
		{`{"f":{"$gte":"b"}}`, x, x, `3`, x, `["b"]`, o, `["a"]`, x, `"b"`, o, `"a"`, x},
		{`{"f":{"$in":[3,"a"]}}`, x, x, `true`, x, `[1,"a"]`, o, `[1,"b"]`, x, `3`, o, `"3"`, x},
		{`{"f":{"$in":[null,true]}}`, x, o, `"true"`, x, `[null]`, o, `[false]`, x, `true`, o, `false`, x},
		{`{"f":{"$in":[]}}`, x, x, `true`, x, `[[]]`, x, `[]`, x, `{}`, x, `1`, x},
		{`{"f":{"$nin":[3,"a"]}}`, o, o, `true`, o, `[1,"a"]`, x, `[1,"b"]`, o, `3`, x, `"3"`, o},
		{`{"f":{"$startswith":"ab"}}`, x, x, `1`, x, `["x","abc"]`, o, `["xab"]`, x, `"abc"`, o, `"Abc"`, x},
		{`{"f":{"$endswith":"bc"}}`, x, x, `1`, x, `["x","abc"]`, o, `["bcx"]`, x, `"abc"`, o, `"abC"`, x},
		{`{"f":{"$contains":"b"}}`, x, x, `{"b":1}`, x, `["a","b"]`, o, `["abc"]`, x, `"abc"`, o, `"ac"`, x},
		{`{"f":{"$contains":3}}`, x, x, `"3"`, x, `["a",3]`, o, `["3"]`, x, `[3]`, o, `3`, x},
		{`{"f":{"$contains":null}}`, x, x, `""`, x, `[null]`, o, `[0]`, x, `[1,null]`, o, `"null"`, x},
		{`{"f":{"$regex":"^a.c$"}}`, x, x, `1`, x, `["x","abc"]`, o, `["xabc"]`, x, `"abc"`, o, `"abcd"`, x},
		{`{"f":{"$exists":true}}`, x, o, `{}`, o, `[1]`, o, `[]`, o, `1`, o, `null`, o},
		{`{"f":{"$exists":false}}`, o, x, `{}`, x, `[1]`, x, `[]`, x, `1`, x, `null`, x},
		{`{"f":{"$type":"number"}}`, x, x, `"1"`, x, `[1]`, x, `[]`, x, `1.5`, o, `"1.5"`, x},
		{`{"f":{"$type":"string"}}`, x, x, `1`, x, `["a"]`, x, `[]`, x, `""`, o, `1`, x},
		{`{"f":{"$type":"bool"}}`, x, x, `1`, x, `[true]`, x, `[]`, x, `false`, o, `0`, x},
		{`{"f":{"$type":"null"}}`, x, o, `1`, x, `[null]`, x, `[]`, x, `null`, o, `0`, x},
		{`{"f":{"$type":"array"}}`, x, x, `{}`, x, `[1]`, o, `[]`, o, `[[]]`, o, `{"a":[]}`, x},
		{`{"f":{"$type":"object"}}`, x, x, `[]`, x, `[{}]`, x, `[]`, x, `{}`, o, `"{}"`, x},
		{`{"f":{"$semver":">=1.2 <2"}}`, x, x, `1.5`, x, `["0.1.0","1.3.0"]`, o, `["2.0.0"]`, x, `"v1.2.0"`, o, `"1.2"`, x},
		{`{"f":{"$not":{"$lt":3}}}`, o, o, `"2"`, o, `[9,2]`, x, `[9,3]`, o, `2`, x, `3`, o},
		{`{"$not":{"f":3}}`, o, o, `"3"`, o, `[1,3]`, x, `[1,2]`, o, `3`, x, `4`, o},
		{`{"f":{"$gt":1,"$lt":3}}`, x, x, `"2"`, x, `[2]`, o, `[4]`, x, `2`, o, `3`, x},
		{`{"$or":[{"f":1},{"f":2}]}`, x, x, `"2"`, x, `[0,2]`, o, `[0]`, x, `2`, o, `3`, x},
		{`{"$and":[{"f":1},{"f":2}]}`, x, x, `"2"`, x, `[1,2]`, o, `[1]`, x, `[2,1]`, o, `1`, x},
		{`{}`, o, o, `1`, o, `[1]`, o, `[]`, o, `1`, o, `1`, o},
	}
	seen := map[string]bool{}
	for _, tt := range tests {
		e := mustParse(t, tt.filter)
		check := func(column, md string, want bool) {
			t.Helper()
			m := metadata(t, md)
			if got := Match(e, m); got != want {
				t.Errorf("%s on %s (%s) = %v, want %v", tt.filter, md, column, got, want)
			}
			if v, present := m["f"]; present && !e.Op.Logical() && MatchValue(e, v) != want {
				t.Errorf("MatchValue of %s on %s = %v, want %v", tt.filter, md, !want, want)
			}
		}
		check("missing", `{}`, tt.missing)
		check("missing", `{"g":{"f":3}}`, tt.missing)
		check("null", `{"f":null}`, tt.null)
		check("another type", `{"f":`+tt.otherType+`}`, tt.other)
		check("array with a match", `{"f":`+tt.arrayHit+`}`, tt.hit)
		check("array without", `{"f":`+tt.arrayMiss+`}`, tt.miss)
		check("match", `{"f":`+tt.matching+`}`, tt.match)
		check("no match", `{"f":`+tt.nonMatching+`}`, tt.nonMatch)
		for _, op := range Operators() {
			seen[op.Name] = seen[op.Name] || strings.Contains(tt.filter, `"`+op.Name+`"`)
		}
	}
	for name, ok := range seen {
		if !ok {
			t.Errorf("the table has no row for %s", name)
		}
	}
}

func TestMatch(t *testing.T) {
	tests := []struct {
		filter, metadata string
		want             bool
	}{
		// Paths.
		{`{"a.b":1}`, `{"a":{"b":1}}`, true},
		{`{"a.b":1}`, `{"a.b":1}`, false},
		{`{"a\\.b":1}`, `{"a.b":1}`, true},
		{`{"a\\.b":1}`, `{"a":{"b":1}}`, false},
		{`{"a.b.c":1}`, `{"a":{"b":{"c":1}}}`, true},
		{`{"a.b.c":1}`, `{"a":{"b":1}}`, false},
		{`{"a.b":1}`, `{"a":[{"b":1}]}`, false},
		{`{"a.b":{"$ne":1}}`, `{"a":[{"b":1}]}`, true},
		{`{"a.b":{"$exists":false}}`, `{"a":null}`, true},
		{`{"a.b":{"$exists":true}}`, `{"a":{"b":null}}`, true},
		{`{"a.0":1}`, `{"a":[1]}`, false},
		{`{"a.0":1}`, `{"a":{"0":1}}`, true},
		{`{"\\$a":1}`, `{"$a":1}`, true},
		{`{"a\\\\b":1}`, `{"a\\b":1}`, true},
		{`{"lt":5}`, `{"lt":5}`, true},
		{`{"a.lt":5}`, `{"a":4}`, true},
		{`{"a.lt":5}`, `{"a":{"lt":5}}`, false},
		{`{"a.lt.eq":5}`, `{"a":{"lt":5}}`, true},
		{`{"a.\\lt":5}`, `{"a":{"lt":5}}`, true},
		{`{"a.\\lt":{"$gt":3}}`, `{"a":{"lt":5}}`, true},
		{`{"a.lt.gt":3}`, `{"a":{"lt":5}}`, true},
		{`{"a.not":3}`, `{"a":{"not":3}}`, true},
		// Suffixes.
		{`{"battery.lt":0.2}`, `{"battery":0.1}`, true},
		{`{"battery.gte":0.2}`, `{"battery":0.2}`, true},
		{`{"s.startswith":"a"}`, `{"s":"abc"}`, true},
		{`{"s.in":["a","b"]}`, `{"s":"b"}`, true},
		{`{"s.exists":false}`, `{"t":1}`, true},
		{`{"s.type":"array"}`, `{"s":[]}`, true},
		{`{"s.semver":"^1.2"}`, `{"s":"1.9.0"}`, true},
		// Numbers.
		{`{"n":5}`, `{"n":5.0}`, true},
		{`{"n":5.0}`, `{"n":5}`, true},
		{`{"n":5e0}`, `{"n":5}`, true},
		{`{"n":-0.0}`, `{"n":0}`, true},
		{`{"n":0}`, `{"n":-0.0}`, true},
		{`{"n":0.1}`, `{"n":0.1}`, true},
		{`{"n":1}`, `{"n":true}`, false},
		{`{"n":1}`, `{"n":"1"}`, false},
		{`{"n":"1"}`, `{"n":1}`, false},
		{`{"n":0}`, `{"n":false}`, false},
		{`{"n":0}`, `{"n":""}`, false},
		{`{"n":1e300}`, `{"n":1e300}`, true},
		{`{"n":{"$lt":1e300}}`, `{"n":1e299}`, true},
		{`{"n":{"$gt":-1e300}}`, `{"n":0}`, true},
		// Strings go by bytes.
		{`{"s":{"$lt":"a"}}`, `{"s":"Z"}`, true},
		{`{"s":{"$lt":"é"}}`, `{"s":"z"}`, true},
		{`{"s":"\u00e9"}`, `{"s":"e\u0301"}`, false},
		{`{"s":{"$lt":"ab"}}`, `{"s":"a"}`, true},
		{`{"s":{"$contains":""}}`, `{"s":""}`, true},
		{`{"s":{"$startswith":""}}`, `{"s":"x"}`, true},
		{`{"s":{"$regex":"(?i)ABC"}}`, `{"s":"xabcx"}`, true},
		{`{"s":{"$regex":"b"}}`, `{"s":"abc"}`, true},
		// Arrays.
		{`{"a":1}`, `{"a":[[1]]}`, false},
		{`{"a":{"$ne":1}}`, `{"a":[[1]]}`, true},
		{`{"a":{"$gt":1,"$lt":3}}`, `{"a":[0,9]}`, true}, // each operator may find an element of its own
		{`{"a":{"$gt":1,"$lt":3}}`, `{"a":[4,9]}`, false},
		{`{"a":{"$nin":[1,2]}}`, `{"a":[3,4]}`, true},
		{`{"a":{"$ne":1}}`, `{"a":[]}`, true},
		{`{"a":{"$contains":true}}`, `{"a":[true]}`, true},
		{`{"a":{"$contains":1}}`, `{"a":[1.0]}`, true},
		{`{"a":{"$contains":"a"}}`, `{"a":[["a"]]}`, false},
		{`{"a":{"$semver":"1.x"}}`, `{"a":["1.4.0"]}`, true},
		// Logic.
		{`{"a":1,"b":2}`, `{"a":1,"b":2}`, true},
		{`{"a":1,"b":2}`, `{"a":1,"b":3}`, false},
		{`{"$and":[{"a":1},{"b":2}]}`, `{"a":1,"b":2}`, true},
		{`{"$or":[{"a":1},{"b":2}]}`, `{"b":2}`, true},
		{`{"$or":[{"a":1},{"b":2}]}`, `{"b":1}`, false},
		{`{"$or":[{}]}`, `{}`, true},
		{`{"$not":{}}`, `{}`, false},
		{`{"$not":{"a":1,"b":2}}`, `{"a":1}`, true},
		{`{"a":{"$not":{"$gt":1,"$lt":3}}}`, `{"a":2}`, false},
		{`{"a":{"$not":{"$not":{"$lt":3}}}}`, `{"a":2}`, true},
		{`{"a":{"$gt":1,"$not":{"$gt":3}}}`, `{"a":2}`, true},
		{`{"a":{"$gt":1,"$not":{"$gt":3}}}`, `{"a":4}`, false},
		{`{"a":1,"$not":{"b":1},"$or":[{"c":1},{"c":2}],"$and":[{"d":1}]}`, `{"a":1,"c":2,"d":1}`, true},
	}
	for _, tt := range tests {
		if got := Match(mustParse(t, tt.filter), metadata(t, tt.metadata)); got != tt.want {
			t.Errorf("%s on %s = %v, want %v", tt.filter, tt.metadata, got, tt.want)
		}
	}
}

type (
	celsius float32
	label   string
	flag    bool
)

func TestMatchGoValues(t *testing.T) {
	cyclic := map[string]any{}
	cyclic["self"] = cyclic
	var nilMap map[string]any
	var nilPointer *int
	tests := []struct {
		filter string
		value  any
		want   bool
	}{
		{`{"f":7}`, 7, true},
		{`{"f":7}`, int8(7), true},
		{`{"f":7}`, int16(7), true},
		{`{"f":7}`, int32(7), true},
		{`{"f":7}`, int64(7), true},
		{`{"f":7}`, uint(7), true},
		{`{"f":7}`, uint8(7), true},
		{`{"f":7}`, uint16(7), true},
		{`{"f":7}`, uint32(7), true},
		{`{"f":7}`, uint64(7), true},
		{`{"f":7}`, uintptr(7), true},
		{`{"f":7}`, float32(7), true},
		{`{"f":7}`, float64(7), true},
		{`{"f":7}`, json.Number("7"), true},
		{`{"f":7}`, json.Number("7.0"), true},
		{`{"f":700}`, json.Number("7e2"), true},
		{`{"f":7}`, celsius(7), true},
		{`{"f":{"$lt":7.5}}`, celsius(7), true},
		{`{"f":7}`, "7", false},
		{`{"f":"a"}`, label("a"), true},
		{`{"f":true}`, flag(true), true},
		{`{"f":true}`, flag(false), false},
		{`{"f":{"$in":[false]}}`, flag(false), true},
		{`{"f":7}`, json.Number("seven"), false},
		{`{"f":{"$type":"number"}}`, json.Number("seven"), false},
		{`{"f":{"$type":"string"}}`, json.Number("7"), false},
		{`{"f":{"$type":"number"}}`, json.Number("1e999"), true},
		{`{"f":{"$gt":1e308}}`, json.Number("1e999"), true},
		{`{"f":{"$lt":-1e308}}`, math.Inf(-1), true},
		// Integers beyond 2^53, where float64 has gaps.
		{`{"f":9007199254740993}`, int64(9007199254740993), true},
		{`{"f":9007199254740993}`, int64(9007199254740992), false},
		{`{"f":9007199254740993}`, float64(9007199254740992), false},
		{`{"f":9007199254740992}`, float64(9007199254740992), true},
		{`{"f":{"$gt":9007199254740992}}`, int64(9007199254740993), true},
		{`{"f":{"$gt":9007199254740993}}`, float64(9007199254740992), false},
		{`{"f":{"$lt":9007199254740993}}`, float64(9007199254740992), true},
		{`{"f":{"$gte":9007199254740993}}`, int64(9007199254740993), true},
		{`{"f":{"$lte":9007199254740993}}`, int64(9007199254740993), true},
		{`{"f":{"$ne":9007199254740993}}`, float64(9007199254740992), true},
		{`{"f":{"$in":[9007199254740993]}}`, float64(9007199254740992), false},
		{`{"f":{"$in":[9007199254740993]}}`, json.Number("9007199254740993"), true},
		{`{"f":9223372036854775807}`, int64(math.MaxInt64), true},
		{`{"f":9223372036854775807}`, float64(math.MaxInt64), false},
		{`{"f":9223372036854775808}`, float64(math.MaxInt64), true},
		{`{"f":-9223372036854775808}`, int64(math.MinInt64), true},
		{`{"f":18446744073709551615}`, uint64(math.MaxUint64), true},
		{`{"f":18446744073709551615}`, float64(math.MaxUint64), false},
		{`{"f":{"$lt":18446744073709551616}}`, uint64(math.MaxUint64), true},
		{`{"f":{"$gt":18446744073709551615}}`, 1e300, true},
		{`{"f":{"$gt":9223372036854775807}}`, uint64(math.MaxUint64), true},
		{`{"f":{"$lt":9223372036854775808}}`, int64(-1), true},
		// NaN is a number that has no order.
		{`{"f":{"$type":"number"}}`, math.NaN(), true},
		{`{"f":{"$lte":0}}`, math.NaN(), false},
		{`{"f":{"$lte":9223372036854775807}}`, math.NaN(), false},
		{`{"f":{"$gte":0}}`, math.NaN(), false},
		{`{"f":{"$ne":0}}`, math.NaN(), true},
		{`{"f":{"$contains":0}}`, []any{math.NaN()}, false},
		// What JSON does not have is another type.
		{`{"f":{"$eq":null}}`, nilPointer, false},
		{`{"f":{"$type":"null"}}`, nilPointer, false},
		{`{"f":{"$exists":true}}`, nilPointer, true},
		{`{"f":1}`, []int{1}, false},
		{`{"f":"a"}`, []byte("a"), false},
		{`{"f":{"$ne":1}}`, func() {}, true},
		{`{"f":{"$in":[1,"a",null,true]}}`, map[string]int{"a": 1}, false},
		{`{"f":{"$nin":[1]}}`, make(chan int), true},
		{`{"f":1}`, complex(1, 0), false},
		{`{"f":1}`, struct{ f []int }{}, false},
		{`{"f":{"$contains":1}}`, []any{[]int{1}, struct{}{}, 1}, true},
		{`{"f":{"$type":"object"}}`, nilMap, true},
		{`{"f.x":1}`, nilMap, false},
		{`{"f.self.self.self":{"$type":"object"}}`, cyclic, true},
	}
	for _, tt := range tests {
		if got := Match(mustParse(t, tt.filter), map[string]any{"f": tt.value}); got != tt.want {
			t.Errorf("%s on %T(%v) = %v, want %v", tt.filter, tt.value, tt.value, got, tt.want)
		}
	}
}

func TestMatchNil(t *testing.T) {
	if !Match(nil, nil) || !Match(&Expr{}, nil) || !Match(nil, map[string]any{"a": 1}) {
		t.Error("the empty filter does not match everything")
	}
	if Match(mustParse(t, `{"a":1}`), nil) || !Match(mustParse(t, `{"a":{"$ne":1}}`), nil) {
		t.Error("nil metadata is not empty metadata")
	}
	if MatchValue(nil, 1) || MatchValue(mustParse(t, `{"$not":{"a":1}}`), 2) {
		t.Error("MatchValue answers for a logical operator")
	}
}

// TestMatchHandBuilt covers expressions that no parser has checked: Match stays total.
func TestMatchHandBuilt(t *testing.T) {
	md := map[string]any{"a": int64(5), "s": "1.4.0"}
	tests := []struct {
		name string
		expr *Expr
		want bool
	}{
		{"eq", &Expr{Op: Eq, Path: []string{"a"}, Value: 5}, true},
		{"in", &Expr{Op: In, Path: []string{"a"}, Values: []any{4, 5.0}}, true},
		{"semver", &Expr{Op: Semver, Path: []string{"s"}, Value: "^1"}, true},
		{"bad regex", &Expr{Op: Regex, Path: []string{"s"}, Value: "("}, false},
		{"bad operand", &Expr{Op: Lt, Path: []string{"a"}, Value: []int{}}, false},
		{"bad operand of ne", &Expr{Op: Ne, Path: []string{"a"}, Value: []int{}}, true},
		{"no path", &Expr{Op: Eq, Value: 5}, false},
		{"unknown operator", &Expr{Op: 99, Path: []string{"a"}, Value: 5}, false},
		{"not of nothing", &Expr{Op: Not}, false},
		{"or of nothing", &Expr{Op: Or}, false},
		{"and of nil", &Expr{Op: And, Args: []*Expr{nil}}, true},
	}
	for _, tt := range tests {
		if got := Match(tt.expr, md); got != tt.want {
			t.Errorf("%s = %v, want %v", tt.name, got, tt.want)
		}
		if len(tt.expr.Path) > 0 {
			if got := MatchValue(tt.expr, md[tt.expr.Path[0]]); got != tt.want {
				t.Errorf("MatchValue of %s = %v, want %v", tt.name, got, tt.want)
			}
		}
		_ = tt.expr.String()
	}
	if s := Op(99).String(); s != "invalid" {
		t.Errorf("Op(99) = %q", s)
	}
}

// TestMatchLongList checks that a list that is hashed answers like one that is not.
func TestMatchLongList(t *testing.T) {
	var list []any
	for i := range 1000 {
		list = append(list, []any{i, float64(i) + 0.5, "s" + string(rune('a'+i%26))}[i%3])
	}
	e, err := ParseValue(map[string]any{"f": map[string]any{"$in": list}})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range list {
		if !Match(e, map[string]any{"f": v}) {
			t.Errorf("%v is not found", v)
		}
	}
	for _, v := range []any{-1, 0.25, "zz", nil, true, []any{}, math.NaN(), json.Number("2")} {
		if Match(e, map[string]any{"f": v}) {
			t.Errorf("%v is found", v)
		}
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	md := metadata(t, `{"s":"1.4.2-rc.1+b","n":5,"big":1e300,"b":true,"z":null,"a":["x",1,"y"],"o":{"p":{"q":7}}}`)
	md["i"] = 5
	md["u8"] = uint8(5)
	md["num"] = json.Number("123.5")
	filters := []string{
		`{}`, `{"s":"x"}`, `{"n":5}`, `{"n":9007199254740993}`, `{"b":true}`, `{"z":null}`, `{"missing":1}`,
		`{"n":{"$ne":5}}`, `{"n":{"$lt":9}}`, `{"s":{"$gte":"a"}}`, `{"i":{"$gt":1,"$lte":5}}`, `{"u8":5}`, `{"num":123.5}`,
		`{"n":{"$in":[1,2,5]}}`, `{"n":{"$in":[1,2,3,4,6,7,8,9,10,11,12,13,14,15,16,5]}}`, `{"s":{"$nin":["a","b"]}}`,
		`{"s":{"$startswith":"1."}}`, `{"s":{"$endswith":"b"}}`, `{"s":{"$contains":"rc"}}`, `{"a":{"$contains":"y"}}`,
		`{"a":"y"}`, `{"a":{"$ne":"y"}}`, `{"s":{"$exists":true}}`, `{"a":{"$type":"array"}}`,
		`{"s":{"$semver":">=1.4.2-beta <2 || ^3"}}`, `{"o.p.q":7}`, `{"o.p.q.r":7}`, `{"s":{"$regex":"^1"}}`,
		`{"$or":[{"n":1},{"$not":{"n":2}}],"b":true}`,
	}
	for _, src := range filters {
		e := mustParse(t, src)
		if n := testing.AllocsPerRun(100, func() { Match(e, md) }); n != 0 {
			t.Errorf("%s allocates %v times", src, n)
		}
	}
}
