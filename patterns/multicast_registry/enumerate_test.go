package multicastregistry_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// mixed registers identities whose field "v" has every kind of value, and one that has none.
func mixed(t *testing.T, c *mr.Coordinator) {
	t.Helper()
	for id, v := range map[string]any{
		"null": nil, "false": false, "true": true, "minus": -1, "half": 0.5, "two": 2, "two-too": 2.0, "text": "x", "upper": "X",
		"list": []any{"x", "x", 2, []any{}}, "empty": []any{}, "object": map[string]any{"x": 1},
	} {
		_, err := c.Register(t.Context(), mr.Registration{ID: id, Metadata: map[string]any{"v": v, "deep": map[string]any{"n": len(id)}}})
		noError(t, err)
	}
	_, err := c.Register(t.Context(), mr.Registration{ID: "none"})
	noError(t, err)
}

// walk returns the names that a query finds, page by page.
func walk(t *testing.T, c *mr.Coordinator, q mr.Query) (names []string) {
	t.Helper()
	for {
		page, err := c.Enumerate(t.Context(), q)
		noError(t, err)
		for _, i := range page.Identities {
			names = append(names, i.ID)
		}
		if page.Total < len(names) {
			t.Errorf("%d of %d", len(names), page.Total)
		}
		if q.PageToken = page.NextPageToken; q.PageToken == "" {
			return names
		}
	}
}

// onBoth runs a test on a registry with an index and on one that can only be scanned.
func onBoth(t *testing.T, test func(t *testing.T, c *mr.Coordinator)) {
	t.Helper()
	t.Parallel()
	for name, plain := range map[string]bool{"index": false, "scan": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			slots := memorySlots()
			if plain {
				slots.Registry = struct{ mr.Registry }{slots.Registry}
			}
			c := open(t, mr.Config{}, slots)
			mixed(t, c)
			test(t, c)
		})
	}
}

func TestEnumerateSorted(t *testing.T) { onBoth(t, enumerateSorted) }

func enumerateSorted(t *testing.T, c *mr.Coordinator) {
	t.Helper()
	up := strings.Fields("null false true minus half two two-too upper text empty list none object")
	down := strings.Fields("empty list none object text upper two two-too half minus true false null")
	for size := 1; size < 15; size++ {
		if got := walk(t, c, mr.Query{PageSize: size, SortBy: []mr.Order{{Path: []string{"v"}}}}); !slices.Equal(got, up) {
			t.Errorf("by %d: %v, want %v", size, got, up)
		}
		got := walk(t, c, mr.Query{PageSize: size, SortBy: []mr.Order{{Path: []string{"v"}, Descending: true}}})
		if !slices.Equal(got, down) {
			t.Errorf("by %d from the largest: %v, want %v", size, got, down)
		}
		deep := walk(t, c, mr.Query{PageSize: size, SortBy: []mr.Order{{Path: []string{"deep", "n"}, Descending: true}, {Path: []string{"v"}}}})
		if want := strings.Fields("none two-too object false minus upper empty null true half text list two"); !slices.Equal(deep, want) {
			t.Errorf("by %d and two fields: %v, want %v", size, deep, want)
		}
	}
	first, err := c.Enumerate(t.Context(), mr.Query{PageSize: 1, SortBy: []mr.Order{{Path: []string{"v"}}}})
	noError(t, err)
	for _, q := range []mr.Query{
		{PageToken: first.NextPageToken},
		{PageToken: first.NextPageToken, SortBy: []mr.Order{{Path: []string{"v"}, Descending: true}}},
		{PageToken: "AAAA"},
		{PageToken: "CgA"},
	} {
		if _, err := c.Enumerate(t.Context(), q); !errors.Is(err, mr.ErrInvalid) {
			t.Errorf("a token of another query: %v", err)
		}
	}
}

func TestEnumerateCounted(t *testing.T) { onBoth(t, enumerateCounted) }

func enumerateCounted(t *testing.T, c *mr.Coordinator) {
	t.Helper()
	page, err := c.Enumerate(t.Context(), mr.Query{CountOnly: true, CountBy: [][]string{{"v"}, {"none"}}})
	noError(t, err)
	const want = "{[v] [{2 3} {x 2} {<nil> 1} {false 1} {true 1} {-1 1} {0.5 1} {X 1}] 0 3}"
	if got := fmt.Sprint(page.Groups[0]); got != want || page.Total != 13 || len(page.Identities) != 0 || page.NextPageToken != "" {
		t.Errorf("%s in %+v", got, page)
	}
	if none := page.Groups[1]; len(none.Groups) != 0 || none.Missing != 13 {
		t.Errorf("by a field that nobody has: %+v", none)
	}
	page, err = c.Enumerate(t.Context(), mr.Query{Filter: parse(t, `{"v": 2}`), CountBy: [][]string{{"deep", "n"}}, MaxGroups: 1})
	noError(t, err)
	if g := page.Groups[0]; fmt.Sprint(g) != "{[deep n] [{3 1}] 2 0}" || len(page.Identities) != 3 {
		t.Errorf("%+v", g)
	}
}

func TestEnumerateFields(t *testing.T) {
	t.Parallel()
	c := open(t, mr.Config{}, memorySlots())
	metadata := map[string]any{"a": map[string]any{"b": 1, "c": []any{2}}, "d": nil, "e": "x"}
	_, err := c.Register(t.Context(), mr.Registration{ID: "x", Metadata: metadata})
	noError(t, err)
	page, err := c.Enumerate(t.Context(), mr.Query{Fields: [][]string{{"a", "c"}, {"d"}, {"d", "none"}, {"none"}}})
	noError(t, err)
	got, err := mr.DecodeMetadata(page.Identities[0].Encoded)
	if err != nil || fmt.Sprint(got) != "map[a:map[c:[2]] d:<nil>]" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestRecency(t *testing.T) {
	t.Parallel()
	c := open(t, mr.Config{}, memorySlots())
	mixed(t, c)
	page, err := c.Enumerate(t.Context(), mr.Query{Recency: mr.Recency{Consistency: mr.Strong}})
	noError(t, err)
	for at, want := range map[mr.Revision]error{page.Revision: nil, page.Revision + 1: mr.ErrUnavailable} {
		if _, err := c.Enumerate(t.Context(), mr.Query{Recency: mr.Recency{AtLeast: at}}); !errors.Is(err, want) {
			t.Errorf("at revision %d: %v", at, err)
		}
		if _, err := c.Multicast(t.Context(), mr.Request{DryRun: true, Recency: mr.Recency{AtLeast: at}}); !errors.Is(err, want) {
			t.Errorf("multicast at revision %d: %v", at, err)
		}
	}
}
