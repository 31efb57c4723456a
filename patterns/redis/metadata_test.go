package redis

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

func TestMetadataSpelling(t *testing.T) {
	for _, row := range []struct {
		value any
		want  string
	}{
		{nil, `null`},
		{true, `true`},
		{false, `false`},
		{"", `""`},
		{"lab", `"lab"`},
		{"é日😀\u2028<&>\x7f", "\"é日😀\u2028<&>\x7f\""},
		{"\"\\/\n\r\t\b\x1f", `"\"\\/\n\r\t\u0008\u001f"`},
		{"a\x00", `"a\u0000"`},
		{"\x00", `"\u0000\u0000"`},
		{"\x00i5", `"\u0000\u0000i5"`},
		{"\x00[", `"\u0000\u0000["`},
		{"\x00\x00", `"\u0000\u0000\u0000"`},
		{int64(0), `0`},
		{int64(-5), `-5`},
		{int64(1 << 53), `9007199254740992`},
		{int64(1<<53 + 1), `"\u0000i9007199254740993"`},
		{int64(-1<<53 - 1), `"\u0000i-9007199254740993"`},
		{int64(1<<53 + 2), `9007199254740994`},
		{int64(math.MaxInt64), `"\u0000i9223372036854775807"`},
		{int64(math.MinInt64), `-9223372036854775808`},
		{uint64(1 << 63), `9223372036854775808`},
		{uint64(5), `5`},
		{uint64(1<<63 + 1), `"\u0000i9223372036854775809"`},
		{uint64(math.MaxUint64), `"\u0000i18446744073709551615"`},
		{float64(5), `5`},
		{math.Copysign(0, -1), `0`},
		{-0.5, `-0.5`},
		{1e-7, `1e-07`},
		{0.30000000000000004, `0.30000000000000004`},
		{123456.789, `123456.789`},
		{1e300, `1e+300`},
		{-1e300, `-1e+300`},
		{float64(1 << 60), `1152921504606846976`},
		{float64(1 << 63), `9223372036854775808`},
		{float64(1 << 64), `1.8446744073709552e+19`},
		{-float64(1 << 63), `-9223372036854775808`},
		{5e-324, `5e-324`},
		{math.MaxFloat64, `1.7976931348623157e+308`},
		{[]any{}, `"\u0000["`},
		{[]any{[]any{}, map[string]any{}, nil}, `["\u0000[",{},null]`},
		{map[string]any{"b": int64(1), "a\x00\"": "x"}, `{"a\u0000\"":"x","b":1}`},
	} {
		t.Run(row.want, func(t *testing.T) {
			text, err := encodeMetadata(map[string]any{"k": row.value})
			if want := `{"k":` + row.want + `}`; text != want || err != nil {
				t.Fatalf("got %s, %v; want %s", text, err, want)
			}
			if !json.Valid([]byte(text)) {
				t.Errorf("%s is not JSON", text)
			}
			back, err := decodeMetadata(text)
			if err != nil || !sameValue(back["k"], row.value) {
				t.Errorf("%#v comes back as %#v, %v", row.value, back["k"], err)
			}
		})
	}
	if text, err := encodeMetadata(nil); text != `{}` || err != nil {
		t.Errorf("nil: %s, %v", text, err)
	}
}

// sameValue tells whether two values are the same JSON, numbers by value, and each of a type that Identity.Metadata lists.
func sameValue(a, b any) bool {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for key := range x {
			if inner, ok := y[key]; !ok || !sameValue(x[key], inner) {
				return false
			}
		}
		return true
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for i := range x {
			if !sameValue(x[i], y[i]) {
				return false
			}
		}
		return true
	case uint64:
		if x <= math.MaxInt64 {
			return false
		}
	}
	_, scalar := filter.Scalar(b)
	return scalar && filter.Compare(a, b) == 0
}

func TestEncodeMetadataRefuses(t *testing.T) {
	loop := map[string]any{}
	loop["loop"] = []any{loop}
	for name, metadata := range map[string]map[string]any{
		"int":       {"a": 1},
		"NaN":       {"a": math.NaN()},
		"Inf":       {"a": []any{math.Inf(-1)}},
		"struct":    {"a": map[string]any{"b": struct{}{}}},
		"[]string":  {"a": []string{}},
		"loop":      loop,
		"array":     {"a": nested(100)},
		"float32":   {"a": float32(1)},
		"channel":   {"a": make(chan int)},
		"interface": {"a": []any{error(nil), &loop}},
	} {
		if text, err := encodeMetadata(metadata); err == nil {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func nested(depth int) any {
	var value any = "bottom"
	for range depth {
		value = []any{value}
	}
	return value
}

func TestMetadataNesting(t *testing.T) {
	metadata := map[string]any{"a": nested(31)}
	if _, err := mr.CopyMetadata(metadata); err != nil {
		t.Fatal(err)
	}
	text, err := encodeMetadata(metadata)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := decodeMetadata(text); err != nil || !reflect.DeepEqual(back, metadata) {
		t.Errorf("%v, %v", back, err)
	}
}

func TestDecodeMetadata(t *testing.T) {
	for text, want := range map[string]map[string]any{
		"{\n\t\"a\" : [ 1 , -2.5e1 ,\r\n true,false , null ] , \"b\":{ }}": {
			"a": []any{int64(1), -25.0, true, false, nil}, "b": map[string]any{},
		},
		`{"a":[],"a":1e2}`: {"a": 100.0},
		`{"\u0041\/\b\f":"\u00e9\uD83D\ude00\u65e5"}`:                            {"A/\b\f": "é😀日"},
		`{"a":"\ud83d","b":"\ud83dx","c":"\ude00\ud83d\u0041","d":"\ud83d\u00"}`: nil,
		`{"a":"\ud83d","b":"\ud83dx","c":"\ude00\ud83d\u0041"}`: {
			"a": "\ufffd", "b": "\ufffdx", "c": "\ufffd\ufffdA",
		},
		`{"a":9223372036854775808,"b":18446744073709551616}`: {"a": uint64(1 << 63), "b": float64(1 << 64)},
		`{"a":"\u0000\u0000["}`:                              {"a": "\x00["},
	} {
		got, err := decodeMetadata(text)
		if want == nil {
			if err == nil {
				t.Errorf("%s is understood: %v", text, got)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %#v, %v; want %#v", text, got, err, want)
		}
	}
}

func TestDecodeMetadataRefuses(t *testing.T) {
	for _, text := range []string{
		``, ` `, `null`, `[]`, `"a"`, `1`, `{`, `}`, `{}}`, `{} x`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{"a" 1}`, `{a:1}`,
		`{"a":[}`, `{"a":[1,]}`, `{"a":[1 2]}`, `{"a":[`, `{"a":[1`, `{"a":1`, `{"a":"`, `{"a":"\`, `{"a":"\"`, `{"a":"\x"}`, `{"a":"\u12"}`,
		`{"a":"\u12g4"}`, `{"a":tru}`, `{"a":nul`, `{"a":+1}`, `{"a":01}`, `{"a":-}`, `{"a":-01}`, `{"a":.5}`, `{"a":1e}`, `{"a":1e999}`,
		`{"a":1-2}`, `{"a":--1}`, `{"a":NaN}`, `{"a":0x10}`, `{"a":"\u0000"}`, `{"a":"\u0000i"}`, `{"a":"\u0000ix"}`, `{"a":"\u0000[["}`,
		`{"a":"\u0000i18446744073709551616"}`, "{\"a\":\"\n\"}", "{\"a\":\"\\\\\n\"}", "{\"a\":\"\xff\"}", "{\"a\x00\":1}", "{\"a\":1}\x00",
		`{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
		strings.Repeat(`{"a":`, 100) + `1` + strings.Repeat("}", 100),
	} {
		if got, err := decodeMetadata(text); err == nil {
			t.Errorf("%q is understood as %#v", text, got)
		} else if got != nil {
			t.Errorf("%q gives %#v and %v", text, got, err)
		}
	}
}

func TestMetadataRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		metadata := slottest.RandomMetadata(rng)
		wantRoundTrip(t, metadata)
	}
}

func wantRoundTrip(t *testing.T, metadata map[string]any) {
	t.Helper()
	text, err := encodeMetadata(metadata)
	if err != nil {
		t.Fatalf("%#v: %v", metadata, err)
	}
	if !json.Valid([]byte(text)) {
		t.Fatalf("%s is not JSON", text)
	}
	back, err := decodeMetadata(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if !sameValue(back, metadata) {
		t.Fatalf("%#v comes back as %#v through %s", metadata, back, text)
	}
	if again, err := encodeMetadata(back); again != text || err != nil {
		t.Fatalf("%s becomes %s, %v", text, again, err)
	}
}

// FuzzMetadata reads any text, compares with encoding/json where that is possible, and round-trips what it was understood as.
func FuzzMetadata(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		text, err := encodeMetadata(slottest.RandomMetadata(rng))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add(`{"a":"\ud83d\ude00\u00e9","b":[1e300,-0.5,9223372036854775808,-0],"c":{"":[[],{}]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		metadata, err := decodeMetadata(text)
		if err != nil {
			return
		}
		clean, err := mr.CopyMetadata(metadata)
		if err != nil {
			return // nested deeper than a registration may be
		}
		wantRoundTrip(t, clean)
		if strings.Contains(text, `\u0000`) {
			return // an escape of ours, perhaps
		}
		var want map[string]any
		if json.Unmarshal([]byte(text), &want) == nil && !reflect.DeepEqual(asFloats(metadata), any(want)) {
			t.Fatalf("%q is read as %#v, and by encoding/json as %#v", text, metadata, want)
		}
	})
}

// asFloats makes every number what encoding/json makes of it.
func asFloats(value any) any {
	switch v := value.(type) {
	case int64:
		return float64(v)
	case uint64:
		return float64(v)
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, inner := range v {
			out[key] = asFloats(inner)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = asFloats(inner)
		}
		return out
	}
	return value
}

// BenchmarkMetadata encodes and decodes five fields, next to encoding/json.
func BenchmarkMetadata(b *testing.B) {
	metadata := map[string]any{
		"battery": 0.73, "firmware": "1.4.2", "floor": int64(3), "room": "lab-17", "tags": []any{"gps", "cam"},
	}
	text, err := encodeMetadata(metadata)
	if err != nil {
		b.Fatal(err)
	}
	wire := asEncoded()
	for name, run := range map[string]func() error{
		"encode/own":  func() error { _, err := encodeMetadata(metadata); return err },
		"encode/json": func() error { _, err := json.Marshal(metadata); return err },
		"decode/own":  func() error { _, err := decodeMetadata(text); return err },
		"decode/wire": func() error { var i mr.Identity; return wire(&i, text) },
		"decode/json": func() error { var into map[string]any; return json.Unmarshal([]byte(text), &into) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Logf("%d bytes: %s", len(text), fmt.Sprintf("%.60s…", text))
}
