package index

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

// TestReading compares what is read with what is decoded: of metadata as we write it, as others may, and of what is none.
func TestReading(t *testing.T) {
	t.Parallel()
	r := newRandom(6)
	var read reading
	good, bad := 0, 0
	for range slottest.Rounds(30_000) {
		encoded := multicastregistry.AppendMetadata(nil, r.object(3))
		switch r.IntN(4) {
		case 0:
			encoded = append(encoded, multicastregistry.AppendMetadata(nil, r.object(2))...) // keys out of order, and twice
		case 1:
			for range 1 + r.IntN(2) {
				if len(encoded) > 0 {
					encoded[r.IntN(len(encoded))] = byte(pick(r, []int{0, 1, 2, 0x80, r.IntN(256)}))
				}
			}
		}
		checkReading(t, &read, string(encoded))
		if _, err := multicastregistry.DecodeMetadata(string(encoded)); err == nil {
			good++
		} else {
			bad++
		}
	}
	if good < 1000 || bad < 1000 {
		t.Errorf("%d are metadata and %d are not", good, bad)
	}
	for depth := deepest - 3; depth < deepest+3; depth++ {
		for _, list := range []bool{false, true} {
			value := any("x")
			for range depth {
				if list {
					value = []any{value}
				} else {
					value = map[string]any{"k": value}
				}
			}
			checkReading(t, &read, string(multicastregistry.AppendMetadata(nil, map[string]any{"a": value, "b": []any{value}})))
		}
	}
}

func checkReading(t *testing.T, read *reading, encoded string) {
	t.Helper()
	metadata, err := multicastregistry.DecodeMetadata(encoded)
	var want []string
	if err == nil {
		want = meant(nil, metadata, nil)
	}
	ok := read.read(encoded)
	var got []string
	for i := range read.values {
		v := &read.values[i]
		got = append(got, fmt.Sprintf("%x %d %t %v %q", read.names[v.from:v.to], v.kind, v.yes, v.number, v.text))
	}
	if ok != (err == nil) || !slices.Equal(got, want) {
		t.Fatalf("%x is read, %t, as\n%q, and not as\n%q, %v", encoded, ok, got, want, err)
	}
}

// meant is what a reading should be.
func meant(lines []string, object map[string]any, outer []string) []string {
	line := func(name string, value any) {
		v := scalarValue(value)
		lines = append(lines, fmt.Sprintf("%x %d %t %v %q", name, v.kind, v.yes, v.number, v.text))
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		path := append(slices.Clone(outer), key)
		line(pathName(path), object[key])
		switch inner := object[key].(type) {
		case map[string]any:
			lines = meant(lines, inner, path)
		case []any:
			for _, element := range inner {
				if kindOf(element) < array {
					line("", element)
				}
			}
		}
	}
	return lines
}

func scalarValue(of any) value {
	v := value{kind: kindOf(of)}
	switch of := of.(type) {
	case bool:
		v.yes = of
	case string:
		v.text = text(of)
	default:
		v.number, _ = numberOf(of)
	}
	return v
}
