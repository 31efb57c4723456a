package index

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

// devices is how many there are: enough for several segments.
var devices = slottest.Rounds(12_000)

// large is an index of several segments, of a reduced size, with postings of all forms, and its model.
func large() (*Index, *model) {
	ix, m := newIndex(devices*5/12), &model{now: time.Unix(1_000_000, 0), identities: map[string]multicastregistry.Identity{}}
	for i := range devices {
		d := device(i, devices)
		d.ExpiresAt = m.now.Add(time.Duration(1+i%50) * time.Second)
		d.Metadata["serial"] = fmt.Sprintf("s%05d", i)
		d.Metadata["mixed"] = []any{int64(i), fmt.Sprint(i), i%2 == 0, nil, []any{}, []any{int64(i % 100), "x"}, map[string]any{}}[i%7]
		ix.Put(d)
		m.identities[d.ID] = d
	}
	return ix, m
}

// TestLarge asks what takes the ways that only pay where there is much.
func TestLarge(t *testing.T) {
	t.Parallel()
	ix, m := large()
	r := newRandom(6)
	for i, src := range []string{
		`{}`, `{"percent": 5}`, `{"percent.lt": 50}`, `{"percent.gte": 10, "battery.lt": 0.7}`, `{"battery.gt": 0.01}`, `{"serial.regex": "7$"}`,
		`{"serial.semver": "1.x"}`, `{"serial.endswith": "77", "online": true}`, `{"serial.contains": "123", "group": "g-5"}`,
		`{"serial.startswith": "s0", "percent": 7}`, `{"online.ne": true}`, `{"mixed.exists": true, "mixed.type": "array"}`, `{"mixed.ne": null}`,
		`{"mixed.lt": 7000}`, `{"$not": {"serial.regex": "^s[1-6]"}}`, `{"$or": [{"serial.regex": "5.5$"}, {"group.in": ["g-1", "g-2"]}]}`,
		`{"$or": [{"percent.lt": 20}, {"percent.gt": 90}, {"mixed": "x"}]}`, `{"group": "g-3", "serial.regex": "[02468]$"}`, `{"group": "g-3", "none": 1}`,
		`{"none.ne": 1, "online": false}`, `{"percent.in": [1, 2, 3, 4, 5, 6, 7], "$not": {"group.endswith": "3"}}`,
	} {
		if i == 10 {
			for id := range m.identities { // holes, of which some are filled again
				if r.IntN(3) == 0 {
					ix.Remove(id)
					delete(m.identities, id)
				}
			}
			for i := range devices / 15 {
				d := device(i, devices)
				d.ID = "again-" + d.ID
				ix.Put(d)
				m.identities[d.ID] = d
			}
			m.now = m.now.Add(10 * time.Second)
		}
		checkLarge(t, r, ix, m, parse(src))
	}
	for swept := 0; ; {
		expired, more := ix.Sweep(m.now.Add(time.Hour), 10_000)
		if swept += len(expired); !more {
			break
		}
	}
	for id := range m.identities {
		ix.Remove(id)
	}
	if n := ix.Bytes(); n != 0 || !ix.Earliest().IsZero() || len(ix.Paths(time.Time{}, 9)) != 0 {
		t.Errorf("%d bytes are left in an empty index, and %d fields", n, len(ix.Paths(time.Time{}, 9)))
	}
}

func checkLarge(t *testing.T, r random, ix *Index, m *model, match *filter.Expr) {
	t.Helper()
	want := slices.Sorted(maps.Keys(m.live(match)))
	got, err := ix.Find(ctx, m.now, match)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%s finds %d, not %d: %v", match, len(got), len(want), err)
		return
	}
	paths := [][]string{{"percent"}, {"serial"}, {"online"}, {"mixed"}, {"none"}, {"battery"}}
	for _, limit := range []int{3, 700} {
		if path := pick(r, paths); r.IntN(2) == 0 {
			q := multicastregistry.Selection{Match: match, Limit: limit, Order: []multicastregistry.Order{{Path: path, Descending: r.IntN(2) == 0}}}
			checkOrder(t, ix, m, q, want)
		}
		var walked []string
		q := multicastregistry.Selection{Match: match, Limit: limit}
		for more := true; more; {
			answer, err := ix.Query(ctx, m.now, q)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range answer.Identities {
				walked = append(walked, i.ID)
			}
			more, q.After = answer.More && len(walked) < 5*limit, answer.Last
		}
		if n := min(len(walked), len(want)); n < min(5*limit, len(want)) || !slices.Equal(walked, want[:n]) {
			t.Errorf("%s walks through %d of %d", match, len(walked), len(want))
		}
	}
	answer, err := ix.Query(ctx, m.now, multicastregistry.Selection{Match: match, Total: true, CountBy: paths, MaxGroups: 100_000})
	if err != nil || answer.Total != len(want) {
		t.Errorf("%s counts %d, not %d: %v", match, answer.Total, len(want), err)
	}
	for i, path := range paths {
		counts := map[any]int{}
		for _, id := range want {
			s, ok := filter.Scalar(m.identities[id].Metadata[path[0]])
			if list, is := m.identities[id].Metadata[path[0]].([]any); is && len(list) > 0 {
				counts["x"]++
				s, ok = list[0], true
			}
			if _, present := m.identities[id].Metadata[path[0]]; ok && present {
				counts[s]++
			}
		}
		for _, g := range answer.Groups[i].Groups {
			if counts[g.Value] != g.Count {
				t.Errorf("%s by %q: %v, not %d", match, path, g, counts[g.Value])
				return
			}
			delete(counts, g.Value)
		}
		if len(counts) > 0 || answer.Groups[i].Omitted != 0 {
			t.Errorf("%s by %q lacks %v", match, path, counts)
		}
	}
}

// checkOrder reads two pages, and compares them with everything sorted.
func checkOrder(t *testing.T, ix *Index, m *model, q multicastregistry.Selection, all []string) {
	t.Helper()
	o := q.Order[0]
	keys := make(map[string]sortKey, len(all))
	for _, id := range all {
		keys[id] = sortKeyOf(at(m.identities[id].Metadata, o.Path))
	}
	sorted := slices.Clone(all) // by name already
	slices.SortStableFunc(sorted, func(a, b string) int {
		if o.Descending {
			return keys[b].compare(keys[a])
		}
		return keys[a].compare(keys[b])
	})
	for range 2 {
		answer, err := ix.Query(ctx, m.now, q)
		if err != nil {
			t.Fatal(err)
		}
		n := min(q.Limit, len(sorted))
		for i, got := range answer.Identities {
			if i >= n || got.ID != sorted[i] {
				t.Errorf("%s by %v: place %d is %s", q.Match, o, i, got.ID)
				return
			}
		}
		if len(answer.Identities) != n || answer.More != (len(sorted) > n) {
			t.Errorf("%s by %v: %d of %d", q.Match, o, len(answer.Identities), len(sorted))
		}
		sorted, q.After = sorted[n:], answer.Last
	}
}

// TestTurn has few matches in the first segment and many later, so that a search changes its way.
func TestTurn(t *testing.T) {
	t.Parallel()
	ix := newIndex(1000)
	var want []string
	for i := range 20_000 {
		hit := i%10 == 0 || i > 2000
		id := fmt.Sprintf("%06d", i*7919%20_000)
		if ix.Put(multicastregistry.Identity{ID: id, Metadata: map[string]any{"hit": hit}}); hit {
			want = append(want, id)
		}
	}
	slices.Sort(want)
	q := multicastregistry.Selection{Match: parse(`{"hit": true}`), Limit: 3000, Total: true, MaxBytes: 100_000}
	for more := true; more; {
		answer, err := ix.Query(ctx, time.Now(), q)
		if err != nil || len(answer.Identities) == 0 || answer.Total < len(want) {
			t.Fatal(answer.Total, err)
		}
		for _, i := range answer.Identities {
			if i.ID != want[0] {
				t.Fatalf("%s comes, not %s", i.ID, want[0])
			}
			want = want[1:]
		}
		more, q.After = answer.More, answer.Last
	}
	if len(want) > 0 {
		t.Errorf("%d are left", len(want))
	}
}

// TestLongText keeps terms of long metadata, and forgets them.
func TestLongText(t *testing.T) {
	t.Parallel()
	ix := New()
	long := strings.Repeat("long ", 200)
	for i := range 200 {
		ix.Put(multicastregistry.Identity{ID: fmt.Sprint(i), Metadata: map[string]any{"text": long + fmt.Sprint(i/2), "n": int64(i)}})
	}
	for i := range 100 {
		ix.Put(multicastregistry.Identity{ID: fmt.Sprint(2 * i), Metadata: map[string]any{"text": "short"}})
	}
	for src, want := range map[string]int{`{"text.startswith": "long"}`: 100, `{"text.regex": "^s.*t$"}`: 100, `{"text.endswith": " 7"}`: 1} {
		if got := ix.Count(time.Now(), parse(src)); got != want {
			t.Errorf("%s counts %d", src, got)
		}
	}
}

// TestConcurrent has readers next to writers. What nobody touches is always there, once, in order.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	const fixed, moving = 1000, 200
	now := time.Unix(1_000_000, 0)
	ix := newIndex(400)
	for i := range fixed {
		ix.Put(multicastregistry.Identity{ID: fmt.Sprintf("fixed-%05d", i), Metadata: map[string]any{"n": int64(i), "fixed": true, "name": fmt.Sprint("f", i)}})
	}
	var done atomic.Bool
	var workers sync.WaitGroup
	for w := range uint64(2) {
		workers.Go(func() {
			r := newRandom(w)
			for !done.Load() {
				id := fmt.Sprintf("%s-%05d", pick(r, []string{"fixed-00500", "a", "z"}), r.IntN(moving))
				switch r.IntN(5) {
				case 0, 1:
					ix.Put(multicastregistry.Identity{
						ID: id, Metadata: map[string]any{"n": int64(r.IntN(fixed)), "name": pick(r, words)}, ExpiresAt: now.Add(time.Duration(r.IntN(3)-1) * time.Hour),
					})
				case 2:
					ix.Remove(id)
				case 3:
					ix.Renew(id, time.Hour, now.Add(time.Duration(r.IntN(3)-1)*time.Hour))
					ix.Get(id)
					ix.Live(now, []string{id})
				default:
					ix.Sweep(now, 1+r.IntN(200))
					ix.Len(now)
					ix.Earliest()
					ix.Bytes()
				}
			}
		})
	}
	for w, src := range []string{`{}`, `{"n.gte": 0}`, `{"name.regex": "^f?[0-9a-z.]*$"}`} {
		workers.Go(func() {
			r := newRandom(uint64(w))
			match := parse(src)
			for !done.Load() {
				readConcurrently(t, r, ix, now, match, fixed)
			}
		})
	}
	<-time.After(2 * time.Second)
	done.Store(true)
	workers.Wait()
}

func readConcurrently(t *testing.T, r random, ix *Index, now time.Time, match *filter.Expr, fixed int) {
	t.Helper()
	ids, err := ix.Find(ctx, now, match)
	checkFixed(t, "found", ids, fixed, err)
	ids = nil
	for i, err := range ix.Scan(ctx, now, match) {
		if ids = append(ids, i.ID); err != nil {
			t.Error(err)
		}
	}
	checkFixed(t, "scanned", ids, fixed, nil)
	for _, order := range [][]multicastregistry.Order{nil, {{Path: []string{"n"}, Descending: r.IntN(2) == 0}}, {{Path: []string{"fixed"}}, {Path: []string{"name"}}}} {
		ids = nil
		q := multicastregistry.Selection{Match: match, Order: order, Limit: 20 + r.IntN(700), CountBy: [][]string{{"fixed"}}, MaxGroups: 1}
		for more := true; more; {
			answer, err := ix.Query(ctx, now, q)
			if err != nil || len(answer.Groups[0].Groups) != 1 || answer.Groups[0].Groups[0].Count != fixed {
				t.Errorf("%v: %v", answer.Groups, err)
				return
			}
			for _, i := range answer.Identities {
				ids = append(ids, i.ID)
			}
			more, q.After = answer.More, answer.Last
		}
		slices.Sort(ids)
		if order != nil {
			ids = slices.DeleteFunc(ids, func(id string) bool { return len(id) != len("fixed-00000") }) // others move in this order
		}
		checkFixed(t, "paged", ids, fixed, nil)
	}
}

func checkFixed(t *testing.T, how string, ids []string, fixed int, err error) {
	t.Helper()
	n := 0
	for i, id := range ids {
		if i > 0 && ids[i-1] >= id {
			t.Errorf("%s: %q comes before %q", how, ids[i-1], id)
			return
		}
		n += truth(strings.HasPrefix(id, "fixed-") && len(id) == len("fixed-00000"))
	}
	if n != fixed || err != nil {
		t.Errorf("%s %d of %d: %v", how, n, fixed, err)
	}
}

// TestChangeWhileScanning changes everything that can change under a scan, from within.
func TestChangeWhileScanning(t *testing.T) {
	t.Parallel()
	ix, m := large()
	match := parse(`{"percent.lt": 50}`)
	want := m.live(match)
	var got []string
	for i, err := range ix.Scan(ctx, m.now, match) {
		if err != nil || !same(i, want[i.ID]) {
			t.Fatalf("%v, not %v: %v", i, want[i.ID], err)
		}
		got = append(got, i.ID)
		if n := len(got); n%10 == 0 && n < devices/3 {
			var number int
			fmt.Sscanf(i.ID, "device-%d", &number)
			ahead := fmt.Sprintf("device-%07d", number+1000+n%7)
			switch n % 30 {
			case 0:
				ix.Remove(ahead)
			case 10:
				ix.Put(multicastregistry.Identity{ID: ahead, Metadata: map[string]any{"percent": int64(60)}})
			default:
				ix.Put(multicastregistry.Identity{ID: ahead + "-new", Metadata: map[string]any{"percent": int64(60)}})
				continue
			}
			delete(want, ahead)
		}
	}
	if !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
		t.Errorf("%d are scanned, not %d", len(got), len(want))
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	ix, m := large()
	ended, cancel := context.WithCancel(ctx)
	defer cancel()
	n := 0
	for _, err := range ix.Scan(ended, m.now, nil) {
		if n++; n == 500 {
			cancel()
		}
		if err != nil && (!errors.Is(err, context.Canceled) || n < 500) {
			t.Errorf("after %d: %v", n, err)
		}
	}
	if n > 2000 {
		t.Errorf("the scan goes on to %d", n)
	}
	for range ix.Scan(ended, m.now, nil) {
		n = -1
	}
	if n != -1 {
		t.Error("a scan yields no error")
	}
	for range ix.Scan(ctx, m.now, nil) {
		break
	}
	if _, err := ix.Find(ended, m.now, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("find: %v", err)
	}
	for _, order := range [][]multicastregistry.Order{nil, {{Path: []string{"a"}}}} {
		for _, limit := range []int{0, 10} {
			answer, err := ix.Query(ended, m.now, multicastregistry.Selection{Limit: limit, Order: order})
			if !errors.Is(err, context.Canceled) || answer.Identities != nil || answer.Last != nil {
				t.Errorf("query: %v, %v", answer, err)
			}
		}
	}
}

// TestHostile puts what no registry would let through.
func TestHostile(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000, 0)
	ix := New()
	ix.Put(multicastregistry.Identity{ID: "broken", Encoded: "\xff\xff"})
	ix.Put(multicastregistry.Identity{ID: "nan", Encoded: string(multicastregistry.AppendMetadata(nil, map[string]any{"a": math.NaN(), "b": []any{math.NaN()}}))})
	ix.Put(multicastregistry.Identity{ID: "odd", Metadata: map[string]any{"a": 5, "b": struct{}{}}})
	var deep any = "end"
	for range 40 {
		deep = map[string]any{"a": deep}
	}
	ix.Put(multicastregistry.Identity{ID: "deep", Metadata: map[string]any{"deep": deep}})
	ix.Put(multicastregistry.Identity{ID: "late", ExpiresAt: time.Date(5000, 1, 1, 0, 0, 0, 0, time.UTC), RegisteredAt: time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC)})
	for src, want := range map[string][]string{
		`{}`: {"broken", "deep", "late", "nan", "odd"}, `{"a.gte": -1e300}`: nil, `{"a.type": "number"}`: {"nan"}, `{"a": null}`: {"odd"}, `{"b": null}`: {"odd"},
		`{"b.type": "array"}`: {"nan"}, `{"deep.exists": true}`: nil,
	} {
		if got, err := ix.Find(ctx, now, parse(src)); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s finds %q: %v", src, got, err)
		}
	}
	answer, err := ix.Query(ctx, now, multicastregistry.Selection{Limit: 9, Order: []multicastregistry.Order{{Path: []string{"a"}}}, CountBy: [][]string{{"a"}}, MaxGroups: -1})
	if err != nil || len(answer.Identities) != 5 || answer.Identities[0].ID != "odd" || answer.Groups[0].Missing != 4 || answer.Groups[0].Omitted != 1 {
		t.Errorf("%v, %v", answer, err)
	}
	if n := ix.Len(time.Time{}); n != 5 {
		t.Errorf("%d live at no time", n)
	}
	for _, id := range []string{"broken", "nan", "odd", "deep", "late"} {
		ix.Remove(id)
	}
	if n := ix.Bytes(); n != 0 {
		t.Errorf("%d bytes are left", n)
	}
}

// FuzzQuery compares any filter on any metadata with filter.Match, among documents that differ from it.
func FuzzQuery(f *testing.F) {
	for seed := range uint64(30) {
		r := newRandom(seed)
		f.Add(r.match().String(), string(multicastregistry.AppendMetadata(nil, r.object(2))))
	}
	f.Fuzz(func(t *testing.T, src, encoded string) {
		match, err := filter.Parse(src)
		metadata, bad := multicastregistry.DecodeMetadata(encoded)
		if err != nil || bad != nil {
			return
		}
		ix := New()
		r := newRandom(1)
		for i := range 20 {
			ix.Put(multicastregistry.Identity{ID: fmt.Sprint("z", i), Metadata: r.object(1)})
		}
		ix.Put(multicastregistry.Identity{ID: "a", Encoded: encoded})
		found, err := ix.Find(ctx, time.Now(), match)
		if got, want := slices.Contains(found, "a"), filter.Match(match, metadata); err != nil || got != want {
			t.Errorf("%s on %v is %t: %v", match, metadata, got, err)
		}
		ix.Remove("a")
		if ix.Count(time.Now(), match) != len(found)-truth(slices.Contains(found, "a")) {
			t.Errorf("%s leaves something of %v", match, metadata)
		}
	})
}
