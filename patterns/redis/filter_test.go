package redis

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

func parse(t testing.TB, source string) *filter.Expr {
	t.Helper()
	e, err := filter.Parse(source)
	if err != nil {
		t.Fatalf("%s: %v", source, err)
	}
	return e
}

func TestTranslate(t *testing.T) {
	const never = `{"q":{"a":"\u0000[","o":"or"}}`
	for source, want := range map[string]struct {
		data  string
		exact bool
	}{
		`{}`:                     {``, true},
		`{"a":"x"}`:              {`{"q":{"o":"eq","p":["a"],"v":"x"},"w":["\"x\""]}`, true},
		`{"a.b":5.0}`:            {`{"q":{"o":"eq","p":["a","b"],"v":5},"w":["\"b\":"]}`, true},
		`{"a":{"$ne":null}}`:     {`{"q":{"n":true,"o":"eq","p":["a"],"v":null}}`, true},
		`{"a":9007199254740993}`: {`{"q":{"o":"eq","p":["a"],"v":"\u0000i9007199254740993"},"w":["\"a\":"]}`, true},
		`{"a.lt":"b"}`:           {`{"q":{"o":"lt","p":["a"],"v":"b"},"w":["\"a\":"]}`, true},
		`{"a.in":[]}`:            {`{"q":{"o":"in","p":["a"],"v":"\u0000["},"w":["\"a\":"]}`, true},
		`{"a.nin":["x"]}`:        {`{"q":{"n":true,"o":"in","p":["a"],"v":["x"]}}`, true},
		`{"a.exists":false}`:     {`{"q":{"n":true,"o":"exists","p":["a"],"v":true}}`, true},
		`{"a.type":"array"}`:     {`{"q":{"o":"type","p":["a"],"v":"array"},"w":["\"a\":"]}`, true},
		`{"a.regex":"x"}`:        {`{"q":{"o":"text","p":["a"],"v":null},"w":["\"a\":"]}`, false},
		`{"a.semver":"*"}`:       {`{"q":{"o":"text","p":["a"],"v":null},"w":["\"a\":"]}`, false},
		`{"a.startswith":"x\""}`: {`{"q":{"o":"startswith","p":["a"],"v":"x\""},"w":["\"x\\\""]}`, true},
		`{"a.endswith":"xyz"}`:   {`{"q":{"o":"endswith","p":["a"],"v":"xyz"},"w":["xyz\""]}`, true},
		`{"a.contains":"xyz"}`:   {`{"q":{"o":"contains","p":["a"],"v":"xyz"},"w":["xyz"]}`, true},
		`{"a.contains":5}`:       {`{"q":{"o":"contains","p":["a"],"v":5},"w":["\"a\":"]}`, true},

		`{"$not":{}}`:                                        {never, true},
		`{"$not":{"$not":{"a":1}}}`:                          {`{"q":{"o":"eq","p":["a"],"v":1},"w":["\"a\":"]}`, true},
		`{"$not":{"a.regex":"x"}}`:                           {``, false},
		`{"a":1,"b.regex":"x","$not":{"c.semver":"*"}}`:      {`{"q":{"a":[{"o":"eq","p":["a"],"v":1},{"o":"text","p":["b"],"v":null}],"o":"and"},"w":["\"a\":","\"b\":"]}`, false},
		`{"$or":[{"a":1},{"$not":{"b.regex":"x"}}]}`:         {``, false},
		`{"$not":{"$or":[{"a.regex":"x"},{"b":1}]}}`:         {`{"q":{"n":true,"o":"eq","p":["b"],"v":1}}`, false},
		`{"$not":{"$and":[{"a":1},{"b":{"$ne":2}}]}}`:        {`{"q":{"a":[{"n":true,"o":"eq","p":["a"],"v":1},{"o":"eq","p":["b"],"v":2}],"o":"or"}}`, true},
		`{"a":"longer than a needle is, so that it is cut"}`: {`{"q":{"o":"eq","p":["a"],"v":"longer than a needle is, so that it is cut"},"w":["\"longer than a needle is, so tha"]}`, true},
	} {
		data, exact := translate(parse(t, source))
		if data != want.data || exact != want.exact {
			t.Errorf("%s:\n got %s, %v\nwant %s, %v", source, data, exact, want.data, want.exact)
		}
	}
	if data, exact := translate(nil); data != "" || !exact {
		t.Errorf("nil: %s, %v", data, exact)
	}
}

// deep returns a filter that no parser would return.
func deep(e *filter.Expr, levels int) *filter.Expr {
	for range levels {
		e = &filter.Expr{Op: filter.Not, Args: []*filter.Expr{e}}
	}
	return e
}

// byHand are filters that were not parsed, legal and other ones.
func byHand() []*filter.Expr {
	leaf := func(op filter.Op, value any, path ...string) *filter.Expr {
		return &filter.Expr{Op: op, Path: path, Value: value}
	}
	var long []any
	for i := range 5000 {
		long = append(long, fmt.Sprintf("value number %d", i))
	}
	list := []*filter.Expr{
		leaf(filter.Eq, 5, "f"), leaf(filter.Eq, uint8(5), "f"), leaf(filter.Ne, float32(0.5), "f"), leaf(filter.Eq, json.Number("5e0"), "f"),
		leaf(filter.Eq, "a", "f"), leaf(filter.Eq, "a"), leaf(filter.Ne, "a"), leaf(filter.Eq, []any{1}, "f"), leaf(filter.Ne, struct{}{}, "f"),
		leaf(filter.Eq, math.NaN(), "f"), leaf(filter.Ne, math.NaN(), "f"), leaf(filter.Lt, math.Inf(1), "f"), leaf(filter.Gt, true, "f"),
		leaf(filter.Eq, "\xff", "f"), leaf(filter.Ne, "\xff", "f"), leaf(filter.Eq, "a", "\xff"), leaf(filter.Ne, "a", "\xff"),
		leaf(filter.StartsWith, 5, "f"), leaf(filter.EndsWith, nil, "f"), leaf(filter.Contains, map[string]any{}, "f"),
		leaf(filter.Exists, "yes", "f"), leaf(filter.Exists, true, "f"), leaf(filter.Exists, false, "f", "g"), leaf(filter.Type, "int", "f"),
		leaf(filter.Type, nil, "f"), leaf(filter.Regex, "(", "f"), leaf(filter.Semver, "x y z", "f"), leaf(filter.Op(99), "a", "f"),
		{Op: filter.In, Path: []string{"f"}},
		{Op: filter.Nin, Path: []string{"f"}},
		{Op: filter.In, Path: []string{"f"}, Values: []any{5, "a", nil, true}},
		{Op: filter.Nin, Path: []string{"f"}, Values: []any{5, []any{}}},
		{Op: filter.In, Path: []string{"f"}, Values: long},
		{Op: filter.Nin, Path: []string{"f"}, Values: long},
		{Op: filter.And, Args: []*filter.Expr{nil, leaf(filter.Eq, 5, "f")}},
		{Op: filter.Or, Args: []*filter.Expr{nil}},
		{Op: filter.Or},
		{Op: filter.Not},
		{Op: filter.Not, Args: []*filter.Expr{nil}},
		deep(leaf(filter.Eq, 5, "f"), 200), deep(nil, 20),
		{Op: filter.Eq, Path: strings.Split(strings.Repeat("f.", 200)+"f", "."), Value: 5},
	}
	for _, e := range slices.Clone(list) {
		list = append(list, deep(e, 1))
	}
	return list
}

// values are what fields hold in the tests of operators, and the scalars among them also operands.
func values() []any {
	list := []any{
		nil, true, false, "", "a", "ab", "b", "B", "abc", "é", "e\u0301", "z", "\x00", "\x00a", "a\x00", "\x00i5", "\x00[", "\x00\x00", "\"", "\\", "]]",
		"a\nb", "日本", "😀", "5", "true", "null", "0.5", "9007199254740993", strings.Repeat("long ", 40), strings.Repeat("long ", 40) + "a",
		"redis.call('FLUSHALL')", "]] redis.call('FLUSHALL') --[[", "\U0010ffff", "\u007f", "\u0080", "1.2.3",
		int64(0), int64(1), int64(-1), int64(5), 0.5, -0.5, 1e-7, 5e-324, 1e300, -1e300, math.MaxFloat64, -math.MaxFloat64,
	}
	for _, base := range []int64{1 << 53, -1 << 53, 1 << 60, -1 << 60, math.MaxInt64 - 1100, math.MinInt64 + 1100} {
		for d := int64(-3); d <= 3; d++ {
			list = append(list, base+d)
		}
	}
	list = append(list, int64(math.MaxInt64), int64(math.MinInt64), int64(math.MaxInt64-511), int64(math.MaxInt64-512), float64(1<<63),
		uint64(1<<63), uint64(1<<63+1), uint64(1<<63+1024), uint64(1<<63+1025), uint64(math.MaxUint64), uint64(math.MaxUint64-1023),
		uint64(math.MaxUint64-1024), float64(1<<64), -float64(1<<63)-2048, float64(1<<53), 4503599627370496.5, 9007199254740991.0)
	return list
}

func TestNativeOperators(t *testing.T) {
	t.Parallel()
	scalars := values()
	fields := slices.Clone(scalars)
	for i, v := range some(scalars, 0) {
		fields = append(fields, []any{v}, []any{map[string]any{"f": v}, []any{v}, scalars[(i+7)%len(scalars)]}, map[string]any{"f": v})
	}
	fields = append(fields, []any{}, []any{[]any{}}, map[string]any{}, []any{map[string]any{}}, map[string]any{"1": "a"})
	c := shared(t)
	r := registry(t, c, RegistryConfig{})
	all := map[string]map[string]any{"missing": {}, "deeper": {"f": map[string]any{"f": map[string]any{"f": "a"}}}}
	for i, v := range fields {
		all[strconv.Itoa(i)] = map[string]any{"f": v}
	}
	fill(t, c, r, all)
	for _, op := range filter.Operators() {
		if op.Op.Logical() {
			continue
		}
		t.Run(op.Name[1:], func(t *testing.T) {
			wantOperator(t, r, all, op.Op, []string{"f"}, some(scalars, int(op.Op)))
			for i := int(op.Op) % 9; i < len(scalars); i += 9 { // what differs is only how a value is reached
				wantOperator(t, r, all, op.Op, []string{"f", "f"}, scalars[i:i+1])
				wantOperator(t, r, all, op.Op, []string{"f", "1"}, scalars[i:i+1])
			}
		})
	}
}

// some returns some of a list, others for another turn, and all of them after a few turns.
func some[T any](list []T, turn int) []T {
	few := slottest.Rounds(len(list))
	step := (len(list) + few - 1) / few
	var out []T
	for i := turn % step; i < len(list); i += step {
		out = append(out, list[i])
	}
	return out
}

// wantOperator looks for everything with an operator on a path, with all its operands.
func wantOperator(t *testing.T, r *Registry, all map[string]map[string]any, op filter.Op, path []string, scalars []any) {
	t.Helper()
	switch op {
	case filter.In, filter.Nin:
		for i := range scalars {
			list := slices.Concat(scalars[i:], scalars)[:min(len(scalars), i%20)]
			wantExactly(t, r, all, &filter.Expr{Op: op, Path: path, Values: list})
		}
		return
	case filter.Exists:
		scalars = []any{true, true, false, false}
	case filter.Type:
		scalars = []any{"null", "bool", "number", "string", "array", "object", "null", "null", "bool", "number", "string", "array", "object"}
	case filter.Regex:
		scalars = []any{"^a", "^a", "b$", "."}
	case filter.Semver:
		scalars = []any{"1.x", "1.x", ">=2"}
	}
	for i, v := range scalars {
		e := &filter.Expr{Op: op, Path: path, Value: v}
		wantExactly(t, r, all, deep(e, i%2))
	}
}

// wantExactly scans and compares with filter.Match: every match must come, and nothing else if the translation is exact.
func wantExactly(t testing.TB, r *Registry, all map[string]map[string]any, e *filter.Expr) {
	t.Helper()
	_, exact := translate(e)
	found := make(map[string]bool)
	for identity, err := range r.Scan(t.Context(), e) {
		noError(t, err)
		found[identity.ID] = true
	}
	for id, metadata := range all {
		if want := filter.Match(e, metadata); found[id] != want && (want || exact) {
			data, _ := translate(e)
			t.Errorf("%s, translated to %.300s, on %#v: %v, want %v", describe(e), data, metadata, found[id], want)
		}
	}
}

func describe(e *filter.Expr) string {
	if !e.Op.Logical() {
		return fmt.Sprintf("%v %q %#v %#v", e.Op, e.Path, e.Value, e.Values)
	}
	var args []string
	for _, arg := range e.Args {
		if arg != nil {
			args = append(args, describe(arg))
		}
	}
	return fmt.Sprintf("%v(%s)", e.Op, strings.Join(args, ", "))
}

func TestNativeByHand(t *testing.T) {
	t.Parallel()
	c := shared(t)
	r := registry(t, c, RegistryConfig{})
	all := map[string]map[string]any{"missing": {}}
	for i, v := range values() {
		all[strconv.Itoa(i)] = map[string]any{"f": v}
		all[fmt.Sprint(i, "list")] = map[string]any{"f": []any{v}}
	}
	fill(t, c, r, all)
	for _, e := range byHand() {
		wantExactly(t, r, all, e)
	}
}

// hostileStrings are keys and values that break whoever pastes them into code, a pattern or a path.
func hostileStrings() []string {
	return append(slottest.HostileIdentities(), "redis.call('FLUSHALL')", "]]", "[[", "]]..redis.call('FLUSHALL')..[[", "\x00", "\x00i", "\x00i5",
		"\x00[", "\x00\x00", `"`, `\"`, `\u0000`, "KEYS[1]", "ARGV[1]", "%s", "%", "^$().%*+-?", "o", "p", "v", "q", "w", "n", "1", "__index")
}

// TestNativeHostile has every hostile string as key, as value, and as both, in a filter of every operator that takes strings.
func TestNativeHostile(t *testing.T) {
	t.Parallel()
	c := shared(t)
	r := registry(t, c, RegistryConfig{})
	all := map[string]map[string]any{}
	hostile := hostileStrings()
	for i, s := range hostile {
		all[fmt.Sprintf("key-%d", i)] = map[string]any{s: "plain", "sub": map[string]any{s: map[string]any{s: s}}}
		all[fmt.Sprintf("value-%d", i)] = map[string]any{"plain": s, "list": []any{"x", s}}
	}
	fill(t, c, r, all)
	for turn, s := range hostile {
		for _, e := range some([]*filter.Expr{
			{Op: filter.Eq, Path: []string{s}, Value: "plain"},
			{Op: filter.Eq, Path: []string{"sub", s, s}, Value: s},
			{Op: filter.Contains, Path: []string{"list"}, Value: s},
			{Op: filter.In, Path: []string{"list"}, Values: []any{s, "y"}},
			{Op: filter.StartsWith, Path: []string{"plain"}, Value: s},
			{Op: filter.EndsWith, Path: []string{"plain"}, Value: s},
			{Op: filter.Contains, Path: []string{"plain"}, Value: s},
			{Op: filter.Gte, Path: []string{"plain"}, Value: s},
		}, turn) {
			wantExactly(t, r, all, e)
		}
	}
}

// FuzzNative compares random filters over random metadata with filter.Match.
func FuzzNative(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed)
	}
	c := shared(f)
	r := registry(f, c, RegistryConfig{})
	f.Fuzz(func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, seed))
		all := map[string]map[string]any{}
		for i := range 60 {
			all[strconv.Itoa(i)] = slottest.RandomMetadata(rng)
		}
		fill(t, c, r, all)
		for range 40 {
			wantExactly(t, r, all, parse(t, slottest.RandomFilter(rng)))
		}
	})
}

// TestRandomIsMostlyExact makes sure that the differential tests test something.
func TestRandomIsMostlyExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	exact := 0
	for range 1000 {
		if _, ok := translate(parse(t, slottest.RandomFilter(rng))); ok {
			exact++
		}
	}
	if exact < 300 {
		t.Errorf("%d of 1000 filters are translated exactly", exact)
	}
}

func TestTranslateKeepsNothing(t *testing.T) {
	e := parse(t, `{"a":"x","b.in":[1,2]}`)
	again := parse(t, `{"a":"x","b.in":[1,2]}`)
	translate(e)
	if !reflect.DeepEqual(e, again) {
		t.Errorf("translating changes a filter: %#v", e)
	}
}
