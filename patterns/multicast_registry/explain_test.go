package multicastregistry_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

func explain(t *testing.T, c *mr.Coordinator, source string) *mr.Explanation {
	t.Helper()
	out, err := c.Explain(t.Context(), mr.Inquiry{Filter: parse(t, source), NearMisses: 5})
	noError(t, err)
	return out
}

// onBothDevices runs a test on a registry with an index and on one that can only be scanned.
func onBothDevices(t *testing.T, test func(t *testing.T, c *mr.Coordinator)) {
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
			devices(t, c)
			test(t, c)
			want := map[bool]mr.Source{false: mr.SourceIndex, true: mr.SourceScan}[plain]
			if got := explain(t, c, `{"room": "lab"}`).Source; got != want {
				t.Errorf("source %d, want %d", got, want)
			}
		})
	}
}

func TestExplainClauses(t *testing.T) {
	onBothDevices(t, func(t *testing.T, c *mr.Coordinator) {
		t.Helper()
		out := explain(t, c, `{"room": "lab", "$or": [{"battery.gt": 0.4}, {"tags": {"$contains": "lift"}}], "weather": {"$ne": "bad"}}`)
		var got []string
		for _, clause := range out.Clauses {
			f := clause.Field
			got = append(got, fmt.Sprint(clause.Depth, " "+clause.Expr.Pointer()+" ", clause.Matches, f.Path, f.Present, f.Types, f.Distinct))
		}
		want := []string{
			`0  2 [] 0 map[] 0`, `1 /room 2 [room] 3 map[string:3] 2`, `1 /weather/$ne 3 [weather] 0 map[] 0`, `1 /$or 3 [] 0 map[] 0`,
			`2 /$or/0/battery.gt 2 [battery] 3 map[number:3] 3`, `2 /$or/1/tags/$contains 1 [tags] 2 map[array:2] 2`,
		}
		if !slices.Equal(got, want) || out.Identities != 3 || out.Matches != 2 || out.Elapsed <= 0 {
			t.Errorf("%+v:\n%s, want\n%s", out, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// misses shows near misses, each with the pointers of what it fails.
func misses(out *mr.Explanation) string {
	var all []string
	for _, miss := range out.NearMisses {
		var failed []string
		for _, at := range miss.Failed {
			failed = append(failed, out.Clauses[at].Expr.Pointer())
		}
		all = append(all, miss.Identity.ID+" "+strings.Join(failed, " "))
	}
	return strings.Join(all, "; ")
}

func TestExplainNearMisses(t *testing.T) {
	onBothDevices(t, func(t *testing.T, c *mr.Coordinator) {
		t.Helper()
		for source, want := range map[string]string{
			`{"room": "hall", "battery.lt": 0.2}`:                            `dev-1 /room; dev-3 /battery.lt`,
			`{"room": "lab", "battery.lt": 0.2}`:                             `dev-2 /battery.lt`,
			`{"room": "lab", "on": true, "firmware": "9"}`:                   `dev-2 /firmware; dev-1 /firmware /on`,
			`{"room": "lab", "$and": [{"on": true}, {"firmware": "9"}]}`:     `dev-2 /$and/1/firmware; dev-1 /$and/1/firmware /$and/0/on`,
			`{"room": "lab", "$or": [{"on": true}, {"firmware": "1.2.3"}]}`:  `dev-1 /$or; dev-3 /room`,
			`{"room": "lab", "$not": {"on": true}}`:                          `dev-2 /$not; dev-3 /room`,
			`{"room": "lab", "$and": [{}]}`:                                  ``,
			`{"room": "attic"}`:                                              ``,
			`{"room": "attic", "battery": 7}`:                                ``,
			`{"$or": [{"room": "attic", "battery": 0.1}]}`:                   ``,
			`{"a": 1, "b": 1, "c": 1}`:                                       ``,
			`{"a": 1, "b": 1, "battery": 0.1}`:                               `dev-1 /a /b`,
			`{"a": 1, "b": 1, "c": 1, "battery": 0.1}`:                       ``,
			`{"a": 1, "b": 1, "battery.gt": 0, "room.ne": "x"}`:              `dev-1 /a /b; dev-2 /a /b; dev-3 /a /b`,
			`{"room": "lab", "battery.gt": 0.3, "on": true, "mixed": "xxx"}`: `dev-2 /mixed`,
			`{}`: ``,
		} {
			if got := misses(explain(t, c, source)); got != want {
				t.Errorf("%s: %s, want %s", source, got, want)
			}
		}
		for _, most := range []int{0, 1} {
			out, err := c.Explain(t.Context(), mr.Inquiry{Filter: parse(t, `{"room": "hall", "battery.lt": 0.2}`), NearMisses: most})
			noError(t, err)
			if len(out.NearMisses) != most || most > 0 && out.NearMisses[0].Identity.Encoded == "" {
				t.Errorf("at most %d: %+v", most, out.NearMisses)
			}
		}
	})
}

// TestExplainMany has matches too many for near misses to be of interest, conditions too many for two to be missed, and metadata
// too large.
func TestExplainMany(t *testing.T) {
	t.Parallel()
	for name, plain := range map[string]bool{"index": false, "scan": true} {
		slots := memorySlots()
		if plain {
			slots.Registry = struct{ mr.Registry }{slots.Registry}
		}
		c := open(t, mr.Config{}, slots)
		register(t, c, 150, func(i int) map[string]any {
			return map[string]any{"n": i, "even": i%2 == 0, "pad": strings.Repeat("x", 30_000)}
		})
		if out := explain(t, c, `{"n.lt": 102, "pad.startswith": "x"}`); out.NearMisses != nil || out.Matches != 102 {
			t.Errorf("%s: %d near misses of %d matches", name, len(out.NearMisses), out.Matches)
		}
		if out := explain(t, c, `{"n.lt": 100, "pad.startswith": "x"}`); len(out.NearMisses) != 5 || out.NearMisses[0].Identity.ID != "id-00100" {
			t.Errorf("%s: %s", name, misses(out))
		}
		out, err := c.Explain(t.Context(), mr.Inquiry{Filter: parse(t, `{"n.lt": 0, "pad.startswith": "x"}`), NearMisses: 100})
		noError(t, err)
		if n := len(out.NearMisses); n != 34 || out.NearMisses[n-1].Identity.ID != "id-00033" {
			t.Errorf("%s: %d near misses of 30 kB", name, n)
		}
		twenty := []string{`{"n": 0}`}
		for i := range 17 {
			twenty = append(twenty, fmt.Sprintf(`{"n": {"$ne": %d}}`, i+1000))
		}
		for _, also := range []struct{ clauses, want string }{
			{`{"even": true}, {"n": 0}`, ""}, {`{"even": false}, {"n": 0}`, "id-00000 /$and/18/even"}, {`{"even": false}, {"n": 2}`, ""},
		} {
			got := misses(explain(t, c, `{"$and": [`+strings.Join(twenty, ",")+","+also.clauses+`]}`))
			if got != also.want {
				t.Errorf("%s: of twenty conditions %s: %q", name, also.clauses, got)
			}
		}
	}
}

func TestExplainEmpty(t *testing.T) {
	t.Parallel()
	c := open(t, mr.Config{}, memorySlots())
	if out := explain(t, c, `{"batery": 1, "x": 2}`); out.Matches+out.Identities+len(out.Warnings)+len(out.NearMisses) != 0 || len(out.Clauses) != 3 {
		t.Errorf("an empty registry: %+v", out)
	}
	devices(t, c)
	out := explain(t, c, `{}`)
	if out.Matches != 3 || out.Identities != 3 || len(out.Clauses)+len(out.Warnings)+len(out.NearMisses) != 0 || out.Revision != 3 {
		t.Errorf("an empty filter: %+v", out)
	}
	none, err := c.Explain(t.Context(), mr.Inquiry{})
	noError(t, err)
	if none.Elapsed = out.Elapsed; !reflect.DeepEqual(none, out) {
		t.Errorf("no filter: %+v", none)
	}
	inner := explain(t, c, `{"$or": [{}, {"room": "x"}]}`)
	if inner.Clauses[1].Matches != 3 || inner.Matches != 3 {
		t.Errorf("an empty filter inside: %+v", inner)
	}
}

func TestExplainRefused(t *testing.T) {
	t.Parallel()
	slots := memorySlots()
	c := open(t, mr.Config{}, slots)
	for field, q := range map[string]mr.Inquiry{
		"near_misses": {NearMisses: 101}, "consistency": {Recency: mr.Recency{Consistency: 2}},
	} {
		var bad *mr.InvalidError
		if _, err := c.Explain(t.Context(), q); !errors.As(err, &bad) || bad.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := c.Explain(t.Context(), mr.Inquiry{NearMisses: -1}); !errors.Is(err, mr.ErrInvalid) {
		t.Error(err)
	}
	if _, err := c.Explain(t.Context(), mr.Inquiry{Recency: mr.Recency{AtLeast: 9}}); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("a revision that is not there yet: %v", err)
	}
	devices(t, c)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	q := mr.Inquiry{Filter: parse(t, `{"room": "x", "on": true}`), NearMisses: 5}
	if _, err := c.Explain(ended, q); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
	slots.Registry = failingScan{slots.Registry}
	if _, err := open(t, mr.Config{}, slots).Explain(t.Context(), q); !errors.Is(err, errBroken) {
		t.Errorf("a scan that breaks off: %v", err)
	}
}

// failingScan breaks off after the first identity.
type failingScan struct{ mr.Registry }

func (f failingScan) Scan(ctx context.Context, match *filter.Expr) iter.Seq2[mr.Identity, error] {
	return func(yield func(mr.Identity, error) bool) {
		for identity := range f.Registry.Scan(ctx, match) {
			if yield(identity, nil) {
				yield(mr.Identity{}, errBroken)
			}
			return
		}
	}
}

// TestExplainAgainstMatch explains random filters on random metadata: from an index, by a scan, and as filter.Match has it.
func TestExplainAgainstMatch(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 8))
	for round := range 20 {
		slots := memorySlots()
		index := open(t, mr.Config{}, slots)
		slots.Registry = struct{ mr.Registry }{slots.Registry}
		scan := open(t, mr.Config{}, slots)
		all := make([]map[string]any, 1+rng.IntN(40))
		for i := range all {
			all[i] = slottest.RandomMetadata(rng)
		}
		register(t, index, len(all), func(i int) map[string]any { return all[i] })
		for range 20 {
			source := slottest.RandomFilter(rng)
			q := mr.Inquiry{Filter: parse(t, source), NearMisses: rng.IntN(10)}
			fast, err := index.Explain(t.Context(), q)
			noError(t, err)
			slow, err := scan.Explain(t.Context(), q)
			noError(t, err)
			for _, clause := range fast.Clauses {
				want := 0
				for _, metadata := range all {
					if filter.Match(clause.Expr, metadata) {
						want++
					}
				}
				if clause.Matches != want {
					t.Errorf("%s in %s matches %d, not %d", clause.Expr, source, clause.Matches, want)
				}
			}
			fast.Elapsed, fast.Source, fast.Revision = slow.Elapsed, slow.Source, slow.Revision
			if !reflect.DeepEqual(fast, slow) {
				t.Fatalf("round %d: %s:\n%+v by the index,\n%+v by a scan", round, source, fast, slow)
			}
		}
	}
}
