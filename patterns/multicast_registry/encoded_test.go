package multicastregistry

import (
	"math"
	"reflect"
	"strings"
	"testing"
)

func hard() map[string]any {
	return map[string]any{
		"": "", "null": nil, "yes": true, "no": false, "text": "é\x00" + strings.Repeat("long ", 100), "int": int64(-5),
		"least": int64(math.MinInt64), "most": int64(math.MaxInt64), "large": uint64(math.MaxUint64), "float": 5.0, "tiny": -5e-324,
		"list": []any{}, "lists": []any{nil, "a", []any{int64(1), map[string]any{"x": strings.Repeat("y", 300)}}, 2.5},
		"object": map[string]any{}, "objects": map[string]any{"a": map[string]any{"b": map[string]any{"c": strings.Repeat("z", 20_000)}}},
	}
}

func TestEncodedMetadata(t *testing.T) {
	t.Parallel()
	for _, metadata := range []map[string]any{{}, {"a": int64(1)}, hard()} {
		encoded := string(AppendMetadata([]byte("before"), metadata))
		encoded = strings.TrimPrefix(encoded, "before")
		decoded, err := DecodeMetadata(encoded)
		if err != nil || !reflect.DeepEqual(decoded, metadata) {
			t.Errorf("%v becomes %v: %v", metadata, decoded, err)
		}
		for key, want := range metadata {
			if got, ok := LookUp(encoded, key); !ok || !reflect.DeepEqual(got, want) {
				t.Errorf("%s is %v: %t", key, got, ok)
			}
		}
	}
	encoded := string(AppendMetadata(nil, hard()))
	if got, ok := LookUp(encoded, "objects", "a", "b", "c"); !ok || len(got.(string)) != 20_000 {
		t.Errorf("a deep field is %v: %t", got, ok)
	}
	for _, path := range [][]string{{}, {"none"}, {"objects", "b"}, {"text", "a"}, {"null", "a"}, {"list", "0"}} {
		if got, ok := LookUp(encoded, path...); ok {
			t.Errorf("%q is %v", path, got)
		}
	}
}

// FuzzDecodeMetadata decodes anything without panicking, and what it decodes comes back.
func FuzzDecodeMetadata(f *testing.F) {
	f.Add(string(AppendMetadata(nil, map[string]any{"a": map[string]any{"b": []any{int64(-5), uint64(1 << 63), 0.5, nil, true, "x"}}})))
	f.Add("\n\x02\n\x00")
	f.Add(strings.Repeat("\n\x05\n\x00\x12", 40))
	f.Fuzz(func(t *testing.T, encoded string) {
		LookUp(encoded, "a", "b")
		metadata, err := DecodeMetadata(encoded)
		if err != nil {
			return
		}
		again, err := DecodeMetadata(string(AppendMetadata(nil, metadata)))
		if err != nil || len(again) != len(metadata) {
			t.Errorf("%v becomes %v: %v", metadata, again, err)
		}
	})
}

func BenchmarkAppendMetadata(b *testing.B) {
	metadata := map[string]any{"room": "lab", "battery": 0.5, "fw": "1.2.3", "country": "DE", "online": true}
	buffer := AppendMetadata(nil, metadata)
	b.ReportAllocs()
	for b.Loop() {
		buffer = AppendMetadata(buffer[:0], metadata)
	}
}
