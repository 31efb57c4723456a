package index

import (
	"cmp"
	"context"
	"maps"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

// TestAgainstMatch changes an index and a map in the same random ways, and asks both the same random questions.
func TestAgainstMatch(t *testing.T) {
	t.Parallel()
	for seed := range uint64(5) {
		r := newRandom(seed)
		ix, m := newIndex(pick(r, []int{5, 100, slots})), &model{now: time.Unix(1_000_000, 0), identities: map[string]multicastregistry.Identity{}}
		n := 1 << (2 * r.IntN(6))
		for round := range slottest.Rounds(60) {
			for range 1 + r.IntN(20) {
				step(t, r, ix, m, n)
			}
			check(t, r, ix, m)
			if t.Failed() {
				t.Fatalf("seed %d, round %d", seed, round)
			}
		}
		ix.Reset()
		if n := ix.Len(m.now); n != 0 || ix.Bytes() != 0 || len(ix.Paths(m.now, 9)) != 0 {
			t.Errorf("after a reset there are %d of %d bytes", n, ix.Bytes())
		}
	}
}

// step makes one change.
func step(t *testing.T, r random, ix *Index, m *model, n int) {
	t.Helper()
	switch r.IntN(12) {
	case 0, 1, 2, 3, 4, 5:
		next := r.identity(m.now, n)
		before, was := m.identities[next.ID]
		if was && r.IntN(3) == 0 {
			next.Metadata = before.Metadata
		}
		given := next
		if r.IntN(2) == 0 {
			given.Encoded, given.Metadata = string(multicastregistry.AppendMetadata(nil, next.Metadata)), nil
		}
		previous, replaced := ix.Put(given)
		if replaced != was || was && !same(previous, before) {
			t.Errorf("put returns %v, %t for %v, %t", previous, replaced, before, was)
		}
		m.identities[next.ID] = next
	case 6, 7:
		id := r.id(n)
		before, was := m.identities[id]
		before.TTL = time.Duration(1+r.IntN(100)) * time.Second
		before.ExpiresAt = m.now.Add(before.TTL)
		if ix.Renew(id, before.TTL, before.ExpiresAt) != was {
			t.Errorf("renewal of %q is not %t", id, was)
		}
		if was {
			m.identities[id] = before
		}
	case 8, 9:
		id := r.id(n)
		before, was := m.identities[id]
		previous, ok := ix.Remove(id)
		if ok != was || was && !same(previous, before) {
			t.Errorf("removal returns %v, %t for %v, %t", previous, ok, before, was)
		}
		delete(m.identities, id)
	case 10:
		m.now = m.now.Add(time.Duration(r.IntN(10)) * time.Second)
	default:
		if r.IntN(10) > 0 {
			return
		}
		most := 1 + r.IntN(100)
		expired, more := ix.Sweep(m.now, most)
		for _, i := range expired {
			before := m.identities[i.ID]
			if !same(i, before) || before.ExpiresAt.IsZero() || before.ExpiresAt.After(m.now) {
				t.Errorf("%v is swept for %v at %v", i, before, m.now)
			}
			delete(m.identities, i.ID)
		}
		lapsed := 0
		for _, i := range m.identities {
			lapsed += truth(!i.ExpiresAt.IsZero() && !i.ExpiresAt.After(m.now))
		}
		if lapsed > 0 && (len(expired) < most || !more) {
			t.Errorf("%d of at most %d are swept, more %t, and %d are left", len(expired), most, more, lapsed)
		}
	}
}

func same(got, want multicastregistry.Identity) bool {
	return got.ID == want.ID && got.Encoded == string(multicastregistry.AppendMetadata(nil, want.Metadata)) && got.Metadata == nil &&
		got.TTL == want.TTL && got.ExpiresAt.Equal(want.ExpiresAt) && got.RegisteredAt.Equal(want.RegisteredAt) && got.Revision == want.Revision
}

// check asks one question.
func check(t *testing.T, r random, ix *Index, m *model) {
	t.Helper()
	ctx := context.Background()
	match := r.match()
	want := m.live(match)
	names := slices.Sorted(maps.Keys(want))
	found, err := ix.Find(ctx, m.now, match)
	if err != nil || !slices.Equal(found, names) {
		t.Errorf("%s finds %q, not %q: %v", match, found, names, err)
		return
	}
	if n := ix.Count(m.now, match); n != len(want) {
		t.Errorf("%s counts %d, not %d", match, n, len(want))
	}
	var scanned []string
	for i, err := range ix.Scan(ctx, m.now, match) {
		if err != nil || !same(i, want[i.ID]) {
			t.Errorf("%s scans %v, not %v: %v", match, i, want[i.ID], err)
		}
		scanned = append(scanned, i.ID)
	}
	if !slices.Equal(scanned, names) {
		t.Errorf("%s scans %q, not %q", match, scanned, names)
	}
	if n, all := ix.Len(m.now), len(m.live(nil)); n != all {
		t.Errorf("there are %d, not %d", n, all)
	}
	id := r.id(100)
	i, ok := m.identities[id]
	if got, there := ix.Get(id); there != ok || ok && !same(got, i) {
		t.Errorf("%q is %v, not %v", id, got, i)
	}
	_, ok = m.live(nil)[id]
	if live := ix.Live(m.now, []string{id, "none"}); live[0] != ok || live[1] {
		t.Errorf("%q lives: %v", id, live)
	}
	if earliest := ix.Earliest(); !earliest.IsZero() {
		for _, i := range m.identities {
			if !i.ExpiresAt.IsZero() && i.ExpiresAt.Before(earliest) {
				t.Errorf("%v ends before %v", i, earliest)
			}
		}
	}
	checkPages(t, r, ix, m, match, want)
	checkGroups(t, r, ix, m, match, want)
}

// checkPages walks through all pages of a query.
func checkPages(t *testing.T, r random, ix *Index, m *model, match *filter.Expr, want map[string]multicastregistry.Identity) {
	t.Helper()
	q := multicastregistry.Selection{Match: match, Limit: 1 + r.IntN(1+len(want)), Total: true}
	for range r.IntN(3) {
		q.Order = append(q.Order, multicastregistry.Order{Path: r.path(), Descending: r.IntN(2) == 0})
	}
	if r.IntN(3) == 0 {
		q.MaxBytes = 1 + r.IntN(1000)
	}
	sorted := slices.Collect(maps.Values(want))
	slices.SortFunc(sorted, func(a, b multicastregistry.Identity) int {
		for _, o := range q.Order {
			c := filter.Compare(scalarAt(a.Metadata, o.Path), scalarAt(b.Metadata, o.Path))
			if o.Descending {
				c = -c
			}
			if c != 0 {
				return c
			}
		}
		return cmp.Compare(a.ID, b.ID)
	})
	for more := true; more; {
		answer, err := ix.Query(context.Background(), m.now, q)
		size := 0
		for n, i := range answer.Identities {
			if size += 64 + len(i.ID) + len(i.Encoded); q.MaxBytes > 0 && n > 0 && size > q.MaxBytes {
				t.Errorf("a page is too large: %d", size)
			}
			if len(sorted) == 0 || !same(i, sorted[0]) {
				t.Errorf("%s in order %v: %v comes, not %v", match, q.Order, i, sorted[:min(1, len(sorted))])
				return
			}
			sorted = sorted[1:]
		}
		if err != nil || answer.Total != len(want) || answer.More != (len(sorted) > 0) || len(answer.Identities) > q.Limit {
			t.Errorf("%v: %d of %d, more %t: %v", q, len(answer.Identities), answer.Total, answer.More, err)
			return
		}
		if (answer.Last != nil) != (len(answer.Identities) > 0) || answer.More && answer.Last == nil {
			t.Errorf("the last is %v", answer.Last)
			return
		}
		if more = answer.More; more {
			last := answer.Identities[len(answer.Identities)-1]
			if answer.Last.ID != last.ID || len(answer.Last.Values) != len(q.Order) {
				t.Errorf("the last is %v", answer.Last)
			}
			for i, o := range q.Order {
				if !reflect.DeepEqual(answer.Last.Values[i], scalarAt(m.identities[last.ID].Metadata, o.Path)) {
					t.Errorf("the last is %v", answer.Last)
				}
			}
		}
		q.After = answer.Last
	}
}

// scalarAt is the scalar at a path, or Absent.
func scalarAt(metadata map[string]any, path []string) any {
	if s, ok := scalarOf(at(metadata, path)); ok {
		return s
	}
	return multicastregistry.Absent{}
}

func scalarOf(value any, present bool) (any, bool) {
	s, ok := filter.Scalar(value)
	return s, ok && present
}

func at(metadata map[string]any, path []string) (value any, present bool) {
	for i, key := range path {
		if value, present = metadata[key]; i < len(path)-1 {
			metadata, _ = value.(map[string]any)
		}
	}
	return value, present
}

func checkGroups(t *testing.T, r random, ix *Index, m *model, match *filter.Expr, want map[string]multicastregistry.Identity) {
	t.Helper()
	path := r.path()
	counts := map[any]int{}
	missing := 0
	for _, i := range want {
		value, present := at(i.Metadata, path)
		elements, ok := value.([]any)
		if !ok && present {
			elements = []any{value}
		}
		seen := map[any]bool{}
		for _, e := range elements {
			if s, ok := filter.Scalar(e); ok && !seen[s] {
				seen[s] = true
				counts[s]++
			}
		}
		missing += truth(len(seen) == 0)
	}
	most := r.IntN(10)
	answer, err := ix.Query(context.Background(), m.now, multicastregistry.Selection{Match: match, CountBy: [][]string{path}, MaxGroups: most})
	if err != nil || len(answer.Groups) != 1 || len(answer.Identities) > 0 || answer.Total != 0 {
		t.Errorf("groups are %v: %v", answer, err)
		return
	}
	got := answer.Groups[0]
	if got.Missing != missing || got.Omitted != len(counts)-len(got.Groups) || len(got.Groups) != min(most, len(counts)) {
		t.Errorf("%s by %q: %v, not %v and %d missing", match, path, got, counts, missing)
	}
	all := slices.SortedFunc(maps.Keys(counts), func(a, b any) int { return cmp.Or(counts[b]-counts[a], filter.Compare(a, b)) })
	for i, g := range got.Groups {
		if !reflect.DeepEqual(g.Value, all[i]) || g.Count != counts[g.Value] {
			t.Errorf("%s by %q: group %d is %v, not %v: %d", match, path, i, g, all[i], counts[all[i]])
		}
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	all := append(slices.Clone(numbers), math.Inf(1), math.Inf(-1), float64(math.MaxUint64), 1.5, 9007199254740993.0)
	for _, a := range all {
		x, ok := numberOf(a)
		want, _ := filter.Scalar(a)
		if got := x.value(); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%T %v becomes %T %v", a, a, got, got)
		}
		for _, b := range all {
			y, _ := numberOf(b)
			if got, want := x.compare(y), filter.Compare(a, b); got*want < 0 || (got == 0) != (want == 0) {
				t.Errorf("%T %v and %T %v compare as %d, not %d", a, a, b, b, got, want)
			}
		}
	}
	if _, ok := numberOf(math.NaN()); ok {
		t.Error("NaN is a number")
	}
	if _, ok := numberOf("1"); ok {
		t.Error("a string is a number")
	}
}

// TestQueryInto lends queries memory that is full of something else.
func TestQueryInto(t *testing.T) {
	t.Parallel()
	ix := newIndex(100)
	for i := range 50 {
		ix.Put(device(i, 50))
	}
	now := time.Unix(1_000_000, 0)
	for _, q := range []multicastregistry.Selection{
		{Limit: 20},
		{Limit: 100, Total: true},
		{Limit: 20, Order: []multicastregistry.Order{{Path: []string{"percent"}}}},
		{Total: true},
	} {
		want, err := ix.Query(ctx, now, q)
		if err != nil {
			t.Fatal(err)
		}
		q.Into = make([]multicastregistry.Identity, 60)
		for i := range q.Into {
			q.Into[i] = multicastregistry.Identity{
				ID: "old", Metadata: map[string]any{"old": true}, Encoded: "old", TTL: 1, RegisteredAt: now, ExpiresAt: now, Revision: 1,
			}
		}
		got, err := ix.Query(ctx, now, q)
		if err != nil || len(got.Identities) != len(want.Identities) || got.Total != want.Total {
			t.Fatalf("%+v: %d and %d, want %d and %d: %v", q.Order, len(got.Identities), got.Total, len(want.Identities), want.Total, err)
		}
		for i := range got.Identities {
			if !reflect.DeepEqual(got.Identities[i], want.Identities[i]) {
				t.Errorf("got %+v\nwant %+v", got.Identities[i], want.Identities[i])
			}
		}
		if len(got.Identities) > 0 && &got.Identities[0] != &q.Into[0] {
			t.Error("the memory is not used")
		}
	}
}
