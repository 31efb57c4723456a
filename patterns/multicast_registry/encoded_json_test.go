package multicastregistry

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestAppendJSON(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(hard())
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]map[string]any{
		`{}`:                               {},
		"\n{ \"a\" : 1 ,\t\"b\": [] }\r\n": {"a": int64(1), "b": []any{}},
		string(text):                       nil, // what DecodeJSON says
		`{"b":1,"a":{"d":2,"c":[{"f":3,"e":4}]}}`: {
			"a": map[string]any{"c": []any{map[string]any{"e": int64(4), "f": int64(3)}}, "d": int64(2)}, "b": int64(1),
		},
		`{"a":1,"a":"2"}`: {"a": "2"},
		`{"a":{"b":0,"b":1},"c":-0,"d":1e2,"e":18446744073709551615,"f":18446744073709551616,"g":9007199254740993}`: {
			"a": map[string]any{"b": int64(1)}, "c": int64(0), "d": 100.0, "e": uint64(1<<64 - 1), "f": float64(1 << 64),
			"g": int64(1<<53 + 1),
		},
		`{"":"\u0000","\u00e9":"\ud83d\ude00"}`: {"": "\x00", "é": "😀"},
	} {
		slow, err := DecodeJSON(text, nil)
		if err != nil || want != nil && !reflect.DeepEqual(slow, want) {
			t.Errorf("%.100s: %v, %v", text, slow, err)
		}
		got, err := AppendJSON([]byte("before"), text, nil)
		if want := AppendMetadata([]byte("before"), slow); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%.100s: %q, %v\nwant %q", text, got, err, want)
		}
	}
}

func TestJSONRefused(t *testing.T) {
	t.Parallel()
	refuse := func(string) (any, bool) { return nil, false }
	for _, text := range []string{
		``, `1`, `{`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1}x`, `{"a":01}`, `{"a":1e999}`, `{"a":[1}`, `{"a":"\u0000"}`, `{"a":[{"b":"\x"}]}`,
		"{\"a\":\"\xff\"}", strings.Repeat(`{"a":`, 34) + `1` + strings.Repeat("}", 34), `{"a":` + strings.Repeat("[", 33) + strings.Repeat("]", 33) + `}`,
	} {
		got, err := AppendJSON([]byte("before"), text, refuse)
		if err == nil || string(got) != "before" || !strings.Contains(err.Error(), "at byte ") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
		if slow, same := DecodeJSON(text, refuse); slow != nil || same == nil || same.Error() != err.Error() {
			t.Errorf("%q: %v, and %v", text, err, same)
		}
	}
	deep := strings.Repeat(`{"a":`, 33) + `1` + strings.Repeat("}", 33)
	encoded, err := AppendJSON(nil, deep, refuse)
	if err != nil {
		t.Error(err)
	}
	if _, err := DecodeMetadata(string(encoded)); err != nil {
		t.Error(err)
	}
}

// FuzzAppendJSON reads any text both ways.
func FuzzAppendJSON(f *testing.F) {
	f.Add(`{"a":[1,-2.5e1,"x",null,true,{"b":{}}],"b":9223372036854775808,"c":"\u0000i9007199254740993","\u00e9":"\ud83d\ude00"}`)
	f.Add(`{"b":"` + strings.Repeat("long ", 100) + `","a":{"b":1,"a":[` + strings.Repeat(`"x",`, 100) + `0]},"a":"\u0000["}`)
	special := func(s string) (any, bool) {
		if s == "\x00[" {
			return []any{}, true
		}
		return s[1:], len(s) < 9
	}
	f.Fuzz(func(t *testing.T, text string) {
		slow, slowErr := DecodeJSON(text, special)
		fast, err := AppendJSON(nil, text, special)
		if (err == nil) != (slowErr == nil) {
			t.Fatalf("%q: %v, and %v", text, err, slowErr)
		}
		if want := AppendMetadata(nil, slow); err == nil && !bytes.Equal(fast, want) {
			t.Fatalf("%q: %q, want %q", text, fast, want)
		}
		var into map[string]any
		if err == nil && !strings.Contains(text, `\u0000`) && json.Unmarshal([]byte(text), &into) != nil {
			t.Fatalf("%q is understood as %v", text, slow)
		}
	})
}

func BenchmarkAppendJSON(b *testing.B) {
	const text = `{"battery":0.5,"country":"DE","fw":"1.2.3","online":true,"room":"lab"}`
	var buffer []byte
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buffer, _ = AppendJSON(buffer[:0], text, nil)
		}
	})
	b.Run("by maps", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			metadata, _ := DecodeJSON(text, nil)
			buffer = AppendMetadata(buffer[:0], metadata)
		}
	})
}
