package index

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

// TestPosting goes through all forms of a posting, up and down, in different orders.
func TestPosting(t *testing.T) {
	t.Parallel()
	r := newRandom(1)
	var p posting
	want := map[uint16]bool{}
	bytes := 0
	compare := func() {
		t.Helper()
		s := new(scratch)
		got := s.slots(p.view())
		if !slices.Equal(got, slices.Sorted(maps.Keys(want))) || int(p.n) != len(want) || p.view().n != len(want) {
			t.Fatalf("%d slots, not %d", len(got), len(want))
		}
		if bytes != p.bytes() {
			t.Fatalf("%d bytes have been added, there are %d", bytes, p.bytes())
		}
	}
	for _, target := range []int{0, 1, 2, 1, 0, 100, 4095, 4097, 4096, 2049, 2047, 10, 1, 30_000, 0} {
		for len(want) != target {
			slot := uint16(r.IntN(slots))
			if len(want) < target {
				bytes += p.add(slot)
				want[slot] = true
				if r.IntN(5) == 0 && p.add(slot) != 0 {
					t.Fatal("a slot is added twice")
				}
				continue
			}
			if r.IntN(3) > 0 {
				for slot = range want {
					break
				}
			}
			bytes += p.remove(slot)
			delete(want, slot)
		}
		for range 100 {
			if slot := uint16(r.IntN(slots)); p.has(slot) != want[slot] {
				t.Fatalf("slot %d", slot)
			}
		}
		compare()
	}
	if bytes != 0 {
		t.Errorf("%d bytes are left", bytes)
	}
}

func (r random) set(s *scratch) (set, map[uint16]bool) {
	want := map[uint16]bool{}
	var p posting
	span := pick(r, []int{10, 300, 8000, slots})
	for range r.IntN(pick(r, []int{1, 2, 20, 300, 3000, 10_000})) {
		slot := uint16(r.IntN(span))
		p.add(slot)
		want[slot] = true
	}
	got := p.view()
	if got.n > 0 && r.IntN(3) == 0 {
		got = s.owned(got)
	}
	if r.IntN(2) == 0 {
		got.not = true
		all := map[uint16]bool{}
		for slot := range slots {
			if !want[uint16(slot)] {
				all[uint16(slot)] = true
			}
		}
		want = all
	}
	return got, want
}

// TestSets compares the algebra with that of maps.
func TestSets(t *testing.T) {
	t.Parallel()
	r := newRandom(2)
	for range slottest.Rounds(30) {
		s := new(scratch)
		a, inA := r.set(s)
		b, inB := r.set(s)
		if !a.not && !b.not {
			n := 0
			for slot := range inA {
				n += truth(inB[slot])
			}
			if got := overlap(a, b); got != n {
				t.Fatalf("overlap is %d, not %d", got, n)
			}
			if got := appendCommon(nil, a, b); len(got) != n || !slices.IsSorted(got) {
				t.Fatalf("in common are %d, not %d", len(got), n)
			}
		}
		or := r.IntN(2) == 0
		var got set
		if or {
			got = s.or(a, b)
		} else {
			got = s.and(a, b)
		}
		n := 0
		for slot := range slots {
			slot := uint16(slot)
			want := inA[slot] && inB[slot] || or && (inA[slot] || inB[slot])
			if n += truth(want); (got.holds(slot) != got.not) != want {
				t.Fatalf("slot %d is %t", slot, !want)
			}
		}
		if got.not {
			n = slots - n
		}
		if got.n != n || got.bits == nil && !slices.IsSorted(got.list) {
			t.Fatalf("%d slots are said to be %d", n, got.n)
		}
	}
}

// TestDictionary inserts and removes terms in different orders.
func TestDictionary(t *testing.T) {
	t.Parallel()
	r := newRandom(3)
	same := func(n number) number { return n }
	for _, order := range []func(i int) int{
		func(i int) int { return i }, func(i int) int { return -i }, func(int) int { return r.IntN(100_000) }, func(i int) int { return i * 7919 % 5003 },
	} {
		var d dictionary[number]
		want := map[number]bool{}
		for i := range 5000 {
			k := number{near: float64(order(i))}
			p, added := d.insert(k, same)
			if added == want[k] || added != (p.n == 0) {
				t.Fatalf("%v is added: %t", k, added)
			}
			p.add(uint16(i))
			want[k] = true
		}
		checkDictionary(t, r, &d, want)
		for len(want) > 0 {
			for k := range want {
				at, found := d.seek(k)
				if !found {
					t.Fatalf("%v is lost", k)
				}
				d.remove(at)
				if delete(want, k); len(want)%1000 == 0 {
					break
				}
			}
			checkDictionary(t, r, &d, want)
		}
	}
}

func checkDictionary(t *testing.T, r random, d *dictionary[number], want map[number]bool) {
	t.Helper()
	sorted := slices.SortedFunc(maps.Keys(want), number.compare)
	var got []number
	collect := func(k number, p *posting) bool {
		if p.n == 0 {
			t.Errorf("%v has nothing", k)
		}
		got = append(got, k)
		return true
	}
	d.between(position{}, d.end(), collect)
	if !slices.Equal(got, sorted) || d.n != len(sorted) {
		t.Fatalf("%d terms, not %d", len(got), len(sorted))
	}
	got = nil
	d.backward(d.end(), position{}, collect)
	if slices.Reverse(got); !slices.Equal(got, sorted) {
		t.Fatalf("%d terms backwards, not %d", len(got), len(sorted))
	}
	for range 20 {
		a, b := number{near: float64(r.IntN(10_000) - 5000)}, number{near: float64(r.IntN(10_000) - 5000)}
		i, foundA := slices.BinarySearchFunc(sorted, a, number.compare)
		j, foundB := slices.BinarySearchFunc(sorted, b, number.compare)
		from, found := d.seek(a)
		to := d.after(b)
		j += truth(foundB)
		got = nil
		d.between(from, to, collect)
		if found != foundA || !slices.Equal(got, sorted[i:max(i, j)]) {
			t.Fatalf("%d terms from %v to %v, not %d", len(got), a, b, j-i)
		}
		all := sum{scratch: new(scratch)}
		d.unite(from, to, &all)
		if n := d.terms(from, to); (n == 0) != (len(got) == 0) || (all.set().n == 0) != (n == 0) {
			t.Fatalf("about %d terms from %v to %v, not %d", n, a, b, j-i)
		}
	}
	for _, b := range d.blocks {
		if len(b.keys) == 0 || len(b.keys) > blockTerms || len(b.keys) != len(b.postings) {
			t.Fatalf("a block of %d", len(b.keys))
		}
	}
}

// TestOrdering inserts and removes names in different orders, and reads them block by block.
func TestOrdering(t *testing.T) {
	t.Parallel()
	r := newRandom(4)
	for _, order := range []func(i int) int{
		func(i int) int { return i }, func(i int) int { return 5000 - i }, func(i int) int { return i * 7919 % 5003 },
	} {
		o := newOrdering()
		ids := map[ref]string{}
		record := func(r ref) *record {
			rec := newRecord(ids[r], len(ids[r]))
			return &rec
		}
		compare := func() {
			t.Helper()
			var got []string
			from := ""
			for more := true; more; {
				var refs []ref
				refs, from, more = o.read(from, nil)
				for _, r := range refs {
					got = append(got, ids[r])
				}
			}
			if !slices.Equal(got, slices.Sorted(maps.Values(ids))) {
				t.Fatalf("%d of %d names", len(got), len(ids))
			}
		}
		for i := range 5000 {
			id := fmt.Sprintf("%06d", order(i))
			ids[ref(i)] = id
			o.insert(record(ref(i)), ref(i), record)
		}
		compare()
		for r0 := range ids {
			o.remove(ids[r0], record)
			if delete(ids, r0); len(ids)%2000 == 0 {
				compare()
			}
			if r.IntN(10) == 0 {
				id := fmt.Sprintf(pick(r, []string{"x%06d", "x\x00%x", "a long name, longer than a head %d", "\x00\x00%b"}), r.IntN(1<<30))
				next := ref(5000 + len(ids) + r.IntN(1<<30))
				ids[next] = id
				o.insert(record(next), next, record)
				if len(ids) > 6000 {
					break
				}
			}
		}
		compare()
	}
}

// TestSortNames sorts names that differ early, late and not at all.
func TestSortNames(t *testing.T) {
	t.Parallel()
	r := newRandom(5)
	for _, n := range []int{0, 1, 2, 11, 100, 300, 3000} {
		for _, form := range []func() string{
			func() string { return fmt.Sprintf("device-%07d", r.IntN(1_000_000)) },
			func() string { return fmt.Sprintf("device-%d", r.IntN(1000)) },
			func() string { return strings.Repeat("long", 20) + fmt.Sprintf("%040d", r.IntN(1_000_000)) },
			func() string { return strings.Repeat("\x00", r.IntN(40)) + strings.Repeat("a", r.IntN(2)) },
			func() string { return strings.Repeat("x", r.IntN(60)) + strings.Repeat("y", r.IntN(60)) },
			func() string {
				return strings.Repeat("z", 16*r.IntN(5)) + fmt.Sprintf("%d%030d", r.IntN(5), r.IntN(1000))
			},
		} {
			list := make([]found, n)
			for i := range list {
				id := form()
				list[i] = found{text: id + "behind", name: uint32(len(id)), head: headOf(id)}
			}
			entries := sortNames(list, nil)
			if len(entries) != n || !slices.IsSortedFunc(entries, func(a, b named) int { return cmp.Compare(list[a.at].id(), list[b.at].id()) }) {
				t.Fatalf("%d names like %q are not sorted", n, form())
			}
			seen := map[uint32]bool{}
			for _, e := range entries {
				seen[e.at] = true
			}
			if len(seen) != n {
				t.Fatalf("%d of %d names", len(seen), n)
			}
		}
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, path := range [][]string{{""}, {"", ""}, {"a"}, {"a", "b"}, {"a\x01b"}, {"a.b"}, {"\x01a"}, {"", "a"}, {strings.Repeat("x", 300), "y"}} {
		name := pathName(path)
		if seen[name] || !slices.Equal(splitPath(name), path) {
			t.Errorf("%q becomes %q", path, splitPath(name))
		}
		seen[name] = true
	}
}
