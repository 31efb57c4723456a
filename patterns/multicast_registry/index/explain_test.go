package index

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func TestField(t *testing.T) {
	t.Parallel()
	ix := New()
	ix.Put(multicastregistry.Identity{ID: "a", Metadata: map[string]any{"x": int64(1), "y": map[string]any{"z": "s"}, "l": []any{nil, true, "s", 2.5}}})
	ix.Put(multicastregistry.Identity{ID: "b", Metadata: map[string]any{"x": "1", "y": nil}})
	var lines []string
	for _, path := range ix.Paths(time.Now(), 10) {
		f := ix.Field(time.Now(), path)
		lines = append(lines, fmt.Sprint(f.Path, f.Present, f.Types, f.Distinct))
	}
	got := strings.Join(lines, "\n")
	want := "[l] 1 map[array:1] 4\n[x] 2 map[number:1 string:1] 2\n[y] 2 map[null:1 object:1] 1\n[y z] 1 map[string:1] 1"
	if got != want {
		t.Errorf("fields are %s", got)
	}
	if n := len(ix.Paths(time.Now(), 2)); n != 2 {
		t.Errorf("%d paths of at most 2", n)
	}
	if f := ix.Field(time.Now(), []string{"none"}); f.Present != 0 || f.Distinct != 0 || len(f.Types) != 0 || f.Path[0] != "none" {
		t.Errorf("a field that nobody has: %+v", f)
	}
}

// TestFieldsAgainstModel compares what an index says of fields with what the live identities of a model say.
func TestFieldsAgainstModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		r := newRandom(seed)
		ix, m := newIndex(pick(r, []int{5, 100, slots})), &model{now: time.Unix(1_000_000, 0), identities: map[string]multicastregistry.Identity{}}
		for range 10 {
			for range 1 + r.IntN(60) {
				step(t, r, ix, m, 40)
			}
			checkFields(t, ix, m)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func checkFields(t *testing.T, ix *Index, m *model) {
	t.Helper()
	live := m.live(nil)
	all := make(map[string]*multicastregistry.Field)
	shapes := make(map[string]multicastregistry.Shape)
	scalars := make(map[string]map[any]bool)
	for _, i := range live {
		sumUp(i.Metadata, nil, all, shapes, scalars)
	}
	var want [][]string
	for name, f := range all {
		want = append(want, f.Path)
		if got := ix.Field(m.now, f.Path); !reflect.DeepEqual(got, *f) {
			t.Errorf("%q: %+v, want %+v", f.Path, got, *f)
		}
		for shape := multicastregistry.IsNull; shape <= multicastregistry.HasString; shape <<= 1 {
			if got := ix.Has(m.now, f.Path, shape); got != (shapes[name]&shape != 0) {
				t.Errorf("%q has shape %b: %t", f.Path, shape, got)
			}
		}
	}
	slices.SortFunc(want, slices.Compare[[]string])
	if got := ix.Paths(m.now, 1000); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("paths %q, want %q", got, want)
	}
}

func sumUp(
	object map[string]any, outer []string, all map[string]*multicastregistry.Field, shapes map[string]multicastregistry.Shape,
	scalars map[string]map[any]bool,
) {
	for key, value := range object {
		path := append(slices.Clone(outer), key)
		name := pathName(path)
		f := all[name]
		if f == nil {
			f = &multicastregistry.Field{Path: path, Types: make(map[string]int)}
			all[name], scalars[name] = f, make(map[any]bool)
		}
		f.Present++
		f.Types[kindNames[kindOf(value)]]++
		shapes[name] |= multicastregistry.ShapeOf(value)
		elements, ok := value.([]any)
		if !ok {
			elements = []any{value}
		}
		for _, element := range elements {
			if n, ok := numberOf(element); ok {
				element = n
			}
			if k := kindOf(element); k < array || fmt.Sprintf("%T", element) == "index.number" {
				scalars[name][element] = true
			}
		}
		f.Distinct = len(scalars[name])
		if inner, ok := value.(map[string]any); ok {
			sumUp(inner, path, all, shapes, scalars)
		}
	}
}

// BenchmarkHas is what each condition of each filter costs to be looked over.
func BenchmarkHas(b *testing.B) {
	for _, row := range []struct {
		name, path string
		shape      multicastregistry.Shape
	}{
		{"fits", "battery", multicastregistry.HasNumber},
		{"mismatch", "battery", multicastregistry.HasString},
		{"unknown", "batery", multicastregistry.AnyShape},
	} {
		b.Run(row.name, func(b *testing.B) {
			ix, path, now := filled(1_000_000), []string{row.path}, time.Unix(1_800_000_000, 0)
			b.ReportAllocs()
			for b.Loop() {
				if ix.Has(now, path, row.shape) != (row.name == "fits") {
					b.Fatal("it does not tell")
				}
			}
		})
	}
}
