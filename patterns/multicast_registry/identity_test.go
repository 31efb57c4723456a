package multicastregistry_test

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func TestTopic(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ identity, want string }{
		{"user-1", "prism.presence.user-1"},
		{"A_z-09", "prism.presence.A_z-09"},
		{"*", "prism.presence.=2A"},
		{">", "prism.presence.=3E"},
		{"a.b", "prism.presence.a=2Eb"},
		{"a b", "prism.presence.a=20b"},
		{"a\r\nPUB x", "prism.presence.a=0D=0APUB=20x"},
		{"=2A", "prism.presence.=3D2A"},
		{"é", "prism.presence.=C3=A9"},
		{"\x00", "prism.presence.=00"},
	} {
		if got := mr.Topic("presence", row.identity); got != row.want {
			t.Errorf("Topic(%q) = %q, want %q", row.identity, got, row.want)
		}
		if namespace, identity, ok := mr.ParseTopic(row.want); namespace != "presence" || identity != row.identity || !ok {
			t.Errorf("ParseTopic(%q) = %q, %q, %v", row.want, namespace, identity, ok)
		}
	}
}

func TestParseTopicRefuses(t *testing.T) {
	t.Parallel()
	for _, topic := range []string{
		"", "prism", "prism.", "prism.presence", "other.presence.a", "prism.presence.a.b", "prism.presence.a b", "prism.presence.é",
		"prism.presence.=", "prism.presence.=2", "prism.presence.=2a", "prism.presence.=61", "prism.presence.=ZZ", "prism.presence.*",
	} {
		if namespace, identity, ok := mr.ParseTopic(topic); ok {
			t.Errorf("ParseTopic(%q) = %q, %q", topic, namespace, identity)
		}
	}
}

// FuzzDecodeName checks that what decodes is what EncodeName returns, and nothing else.
func FuzzDecodeName(f *testing.F) {
	f.Add("a=2Eb")
	f.Add("=61")
	f.Fuzz(func(t *testing.T, s string) {
		if name, ok := mr.DecodeName(s); ok && mr.EncodeName(name) != s {
			t.Errorf("%q decodes to %q, which is spelled %q", s, name, mr.EncodeName(name))
		}
		if name, ok := mr.DecodeName(mr.EncodeName(s)); !ok || name != s {
			t.Errorf("%q comes back as %q, %v", s, name, ok)
		}
	})
}

// FuzzTopic checks that distinct identities have distinct topics, of harmless characters only.
func FuzzTopic(f *testing.F) {
	f.Add("a", "=61")
	f.Add("a.b", "a=2Eb")
	f.Fuzz(func(t *testing.T, a, b string) {
		ta, tb := mr.Topic("n", a), mr.Topic("n", b)
		if (ta == tb) != (a == b) {
			t.Errorf("%q and %q have the topics %q and %q", a, b, ta, tb)
		}
		if rest := strings.TrimPrefix(ta, "prism.n."); strings.ContainsAny(rest, "*>. \t\r\n\x00") {
			t.Errorf("topic %q of %q holds a special character", ta, a)
		}
	})
}

func TestCheckIdentity(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"a", "*", "a b", "\r\n", strings.Repeat("x", 256), "日本"} {
		if err := mr.CheckIdentity(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
	for _, id := range []string{"", strings.Repeat("x", 257), "\xff"} {
		var bad *mr.InvalidError
		if err := mr.CheckIdentity(id); !errors.As(err, &bad) || bad.Field != "identity" || !errors.Is(err, mr.ErrInvalid) {
			t.Errorf("%q: got %v", id, err)
		}
	}
}

func TestCopyMetadata(t *testing.T) {
	t.Parallel()
	type object = map[string]any
	type array = []any
	for name, row := range map[string]struct{ in, want object }{
		"nil":             {nil, object{}},
		"scalars":         {object{"n": nil, "b": true, "s": "x"}, object{"n": nil, "b": true, "s": "x"}},
		"ints":            {object{"a": 1, "b": int8(2), "c": int16(3), "d": int32(4)}, object{"a": int64(1), "b": int64(2), "c": int64(3), "d": int64(4)}},
		"uints":           {object{"a": uint(1), "b": uint8(2), "c": uint16(3), "d": uint32(4), "e": uint64(5)}, object{"a": int64(1), "b": int64(2), "c": int64(3), "d": int64(4), "e": int64(5)}},
		"large uint":      {object{"a": uint64(math.MaxUint64)}, object{"a": uint64(math.MaxUint64)}},
		"beyond 2^53":     {object{"a": int64(9007199254740993)}, object{"a": int64(9007199254740993)}},
		"floats":          {object{"a": 1.5, "b": float32(0.5)}, object{"a": 1.5, "b": 0.5}},
		"json.Number int": {object{"a": json.Number("9007199254740993")}, object{"a": int64(9007199254740993)}},
		"json.Number big": {object{"a": json.Number("18446744073709551615")}, object{"a": uint64(math.MaxUint64)}},
		"json.Number":     {object{"a": json.Number("1e3")}, object{"a": 1000.0}},
		"strings":         {object{"a": []string{"x", "y"}}, object{"a": array{"x", "y"}}},
		"nested":          {object{"a": object{"b": array{1, object{"c": "d"}}}}, object{"a": object{"b": array{int64(1), object{"c": "d"}}}}},
	} {
		got, err := mr.CopyMetadata(row.in)
		if err != nil || !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s: got %#v, %v; want %#v", name, got, err, row.want)
		}
	}
	deep := object{}
	for inner, i := deep, 0; i < 40; i++ {
		next := object{}
		inner["x"] = next
		inner = next
	}
	for field, in := range map[string]object{
		"metadata/a":                          {"a": math.NaN()},
		"metadata/b/c":                        {"b": object{"c": math.Inf(1)}},
		"metadata/l/1":                        {"l": array{1, struct{}{}}},
		"metadata/a~1b/c~0d":                  {"a/b": object{"c~d": make(chan int)}},
		"metadata/s":                          {"s": "\xff"},
		"metadata/n":                          {"n": json.Number("nonsense")},
		"metadata":                            {"\xff": 1},
		"metadata/o":                          {"o": object{"\xff": 1}},
		"metadata/f":                          {"f": func() {}},
		"metadata/t/0":                        {"t": []string{"\xff"}},
		"metadata/huge":                       {"huge": json.Number("1e999")},
		"metadata" + strings.Repeat("/x", 33): deep,
	} {
		_, err := mr.CopyMetadata(in)
		var bad *mr.InvalidError
		if !errors.As(err, &bad) || bad.Field != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

func TestCopyMetadataSharesNothing(t *testing.T) {
	t.Parallel()
	in := map[string]any{"o": map[string]any{"k": "v"}, "l": []any{"x"}}
	out, err := mr.CopyMetadata(in)
	if err != nil {
		t.Fatal(err)
	}
	in["o"].(map[string]any)["k"] = "changed"
	in["l"].([]any)[0] = "changed"
	want := map[string]any{"o": map[string]any{"k": "v"}, "l": []any{"x"}}
	if !reflect.DeepEqual(out, want) {
		t.Errorf("the copy changed with the original: %v", out)
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	if err := (mr.Config{}).Validate(); err != nil {
		t.Errorf("the zero configuration: %v", err)
	}
	for field, cfg := range map[string]mr.Config{
		"name":        {Namespace: "Upper"},
		"ttl_default": {TTLDefault: -5},
		"delivery":    {Delivery: "maybe"},
		"timeout":     {Timeout: -1},
		"max_payload": {MaxPayload: -1},
	} {
		var bad *mr.InvalidError
		if err := cfg.Validate(); !errors.As(err, &bad) || bad.Field != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
	for _, name := range []string{"-a", "_a", "a.b", "a b", strings.Repeat("a", 64), "ä"} {
		if err := (mr.Config{Namespace: name}).Validate(); err == nil {
			t.Errorf("namespace %q is accepted", name)
		}
	}
}
