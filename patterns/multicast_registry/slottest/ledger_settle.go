package slottest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// settle adds settlements before the record is begun, as the ack of a message can overtake it, while it runs, and afterwards.
func (s *ledgerSuite) settle(t *testing.T) {
	l, ids := s.open(t), newMulticasts()
	r, other := ids.record("key"), ids.record("")
	of := func(identity, data string) mr.Settlement {
		return mr.Settlement{ID: r.ID, Identity: identity, Data: []byte(data)}
	}
	early := of("early", "before Begin")
	settle(t, l)
	settle(t, l, early)
	wantNotKept(t, l, r.ID)
	if got := listed(t, l, "", 10); len(got) != 0 {
		t.Errorf("listed %q", got)
	}
	begin(t, l, r, other)
	wantKept(t, l, r, early)
	itself, running := of("", "the multicast itself"), of("running", "before Finish")
	settle(t, l, itself, running)
	wantKept(t, l, r, early, itself, running)
	r.Summary, r.Targets = []byte("finished"), [][]byte{[]byte("targets")}
	finish(t, l, r)
	wantKept(t, l, r, early, itself, running)
	late, again, empty := of("late", "after Finish"), of("running", "said again"), of("empty", "")
	settle(t, l, late, again, empty)
	wantKept(t, l, r, early, itself, again, late, empty)
	finish(t, l, r)
	wantKept(t, l, r, early, itself, again, late, empty)
	wantKept(t, l, other)

	unbegun := ids.record("")
	before := mr.Settlement{ID: unbegun.ID, Identity: "a", Final: true, Data: []byte("before Finish, and no Begin")}
	settle(t, l, before)
	finish(t, l, unbegun)
	wantKept(t, l, unbegun, before)
}

// settleFinal: what is final gives way only to what is final too, in one call, in several, and before the record.
func (s *ledgerSuite) settleFinal(t *testing.T) {
	l, ids := s.open(t), newMulticasts()
	r := ids.record("")
	of := func(identity string, final bool, data string) mr.Settlement {
		return mr.Settlement{ID: r.ID, Identity: identity, Final: final, Data: []byte(data)}
	}
	settle(t, l, of("early", true, "1"), of("early", false, "2"))
	settle(t, l, of("early", false, "3"))
	begin(t, l, r)
	settle(t, l, of("early", false, "4"))
	rows := []struct {
		identity string
		in       []mr.Settlement
		want     int
	}{
		{"final last", []mr.Settlement{of("final last", false, "1"), of("final last", true, "2")}, 1},
		{"final first", []mr.Settlement{of("final first", true, "1"), of("final first", false, "2")}, 0},
		{"both final", []mr.Settlement{of("both final", true, "1"), of("both final", true, "2")}, 1},
		{"none final", []mr.Settlement{of("none final", false, "1"), of("none final", false, "2")}, 1},
		{"three", []mr.Settlement{of("three", true, "1"), of("three", false, "2"), of("three", true, "3")}, 2},
		{"", []mr.Settlement{of("", true, "1"), of("", false, "2")}, 0},
	}
	for _, atOnce := range []bool{true, false} {
		want := []mr.Settlement{of("early", true, "1")}
		for _, row := range rows {
			if atOnce {
				settle(t, l, row.in...)
			} else {
				for _, one := range row.in {
					settle(t, l, one)
				}
			}
			want = append(want, row.in[row.want])
		}
		wantKept(t, l, r, want...)
	}
	finish(t, l, r)
	settle(t, l, of("final last", false, "too late"), of("three", false, "too late"))
	_, settled, err := l.Get(t.Context(), r.ID)
	noError(t, err, "get")
	for _, got := range settled {
		if string(got.Data) == "too late" {
			t.Errorf("%q: what is final gave way", got.Identity)
		}
	}
}

func (s *ledgerSuite) settleHostileIdentities(t *testing.T) {
	l, ids := s.open(t), newMulticasts()
	r, other := ids.record(""), ids.record("")
	begin(t, l, r, other)
	var all []mr.Settlement
	for n, identity := range append(HostileIdentities(), "") {
		all = append(all, mr.Settlement{ID: r.ID, Identity: identity, Final: n%2 == 0, Data: append([]byte(identity), 0, byte(n))})
	}
	settle(t, l, all...)
	wantKept(t, l, r, all...)
	wantKept(t, l, other)
}

// settleMany settles 10,000 targets of a multicast, and one target each of many, in few calls.
func (s *ledgerSuite) settleMany(t *testing.T) {
	l, ids := s.open(t), newMulticasts()
	r := ids.record("")
	begin(t, l, r)
	all := make([]mr.Settlement, 10_000)
	for n := range all {
		all[n] = mr.Settlement{ID: r.ID, Identity: fmt.Sprintf("device/%d", n), Final: true, Data: fmt.Appendf(nil, "ack %d", n)}
	}
	settle(t, l, all[:5000]...)
	settle(t, l, all[5000:]...)
	wantKept(t, l, r, all...)
	var records []mr.Record
	var each []mr.Settlement
	for n := range 200 {
		records = append(records, ids.record(""))
		each = append(each, mr.Settlement{ID: records[n].ID, Identity: "same", Data: []byte{byte(n)}})
	}
	begin(t, l, records...)
	reused := slices.Clone(each)
	settle(t, l, reused...)
	clear(reused)
	for n, record := range records {
		wantKept(t, l, record, each[n])
	}
}

// settleUnknown settles what nobody began, hostile ids included: no error, and nothing to be seen.
func (s *ledgerSuite) settleUnknown(t *testing.T) {
	l, ids := s.open(t), newMulticasts()
	r := ids.record("")
	begin(t, l, r)
	unknown := append(HostileIdentities(), ids.id(), r.ID[:35], r.ID+"0", r.ID+" ", r.ID+"\x00")
	var all []mr.Settlement
	for _, id := range unknown {
		all = append(all, mr.Settlement{ID: id, Identity: "a", Final: true, Data: []byte("x")}, mr.Settlement{ID: id})
	}
	known := mr.Settlement{ID: r.ID, Identity: "a", Data: []byte("in the same call")}
	settle(t, l, append(all, known)...)
	for _, id := range unknown {
		wantNotKept(t, l, id)
	}
	wantKept(t, l, r, known)
	if got := listed(t, l, "", 100); !slices.Equal(got, []string{r.ID}) {
		t.Errorf("listed %q", got)
	}
}

// settleContention has many settle the same targets, over two processes: of each target one final settlement remains.
func (s *ledgerSuite) settleContention(t *testing.T) {
	ledgers, ids := []mr.Ledger{s.open(t)}, newMulticasts()
	if s.OpenPair != nil {
		a, b := s.OpenPair(t)
		ledgers = []mr.Ledger{a, b}
	}
	const targets, settlers = 20, 8
	r := ids.record("")
	begin(t, ledgers[0], r)
	var settling sync.WaitGroup
	for g := range settlers {
		settling.Go(func() {
			for _, n := range rand.Perm(targets) {
				one := mr.Settlement{ID: r.ID, Identity: fmt.Sprint(n), Final: g == n%settlers, Data: fmt.Append(nil, g)}
				if err := errors.Join(ledgers[g%len(ledgers)].Settle(t.Context(), []mr.Settlement{one})...); err != nil {
					t.Errorf("settle: %v", err)
				}
			}
		})
	}
	settling.Wait()
	var want []mr.Settlement
	for n := range targets {
		want = append(want, mr.Settlement{ID: r.ID, Identity: fmt.Sprint(n), Final: true, Data: fmt.Append(nil, n%settlers)})
	}
	wantKept(t, ledgers[0], r, want...)
}

// list begins records out of order: they are listed by id, latest first.
func (s *ledgerSuite) list(t *testing.T) {
	l, ids := s.open(t), newMulticasts()
	if got := listed(t, l, "", 10); len(got) != 0 {
		t.Errorf("an empty ledger lists %q", got)
	}
	var all []mr.Record
	for range 20 {
		all = append(all, ids.record(""))
	}
	for _, i := range rand.Perm(len(all)) {
		begin(t, l, all[i])
		if i%3 == 0 {
			all[i].Summary, all[i].Targets = []byte("finished"), [][]byte{[]byte("part")}
			finish(t, l, all[i])
		}
		settle(t, l, mr.Settlement{ID: all[i].ID, Identity: "a"})
	}
	slices.Reverse(all)
	records, err := l.List(t.Context(), "", 100)
	if err != nil || len(records) != len(all) {
		t.Fatalf("%d records, want %d, %v", len(records), len(all), err)
	}
	for i, got := range records {
		wantRecord(t, got, all[i])
		if len(got.Targets) > 0 {
			t.Errorf("%q is listed with its targets", got.ID)
		}
	}
}

func (s *ledgerSuite) listPages(t *testing.T) {
	l, ids := s.open(t), newMulticasts()
	var want []string
	for range 25 {
		r := ids.record("")
		begin(t, l, r)
		want = append([]string{r.ID}, want...)
	}
	for _, limit := range []int{1, 7, 24, 25, 26, 1000} {
		var got []string
		for before, more := "", true; more; {
			page := listed(t, l, before, limit)
			if len(page) > limit || len(got) > len(want) {
				t.Fatalf("%d records on a page of %d, %d on those before; there are %d", len(page), limit, len(got), len(want))
			}
			if more = len(page) == limit; len(page) > 0 {
				before = page[len(page)-1]
			}
			got = append(got, page...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %d records, want %d, or another order", limit, len(got), len(want))
		}
	}
	for _, row := range []struct {
		before string
		limit  int
		want   []string
	}{
		{want[10], 3, want[11:14]},
		{want[24], 3, nil},               // the earliest
		{ids.id(), 3, want[:3]},          // later than all, and not there
		{want[10] + "0", 2, want[10:12]}, // between two
		{want[10][:35], 2, want[11:13]},  // between two
		{"0", 3, nil},                    // before all
		{"~", 3, want[:3]},               // behind all
		{"", 0, nil},                     // none
		{strings.Repeat("f", 256), 1, want[:1]},
	} {
		if got := listed(t, l, row.before, row.limit); !slices.Equal(got, row.want) {
			t.Errorf("%d before %q: %q, want %q", row.limit, row.before, got, row.want)
		}
	}
}

// prefixesOfIDs has ids that begin like others.
func (s *ledgerSuite) prefixesOfIDs(t *testing.T) {
	l, ids := s.open(t), newMulticasts()
	id := ids.id()
	var want []string
	kept := map[string][]mr.Settlement{}
	records := map[string]mr.Record{}
	for n, id := range []string{id, id[:35], id + "0", id + "00", id[:8], id[:9]} {
		r := mr.Record{ID: id, Summary: []byte(id)}
		begin(t, l, r)
		for part := range n {
			r.Targets = append(r.Targets, fmt.Appendf(nil, "%d of %s", part, id))
		}
		finish(t, l, r)
		kept[id] = []mr.Settlement{{ID: id, Identity: "0", Data: []byte(id)}, {ID: id, Identity: "", Data: []byte(id)}}
		settle(t, l, kept[id]...)
		records[id] = r
		want = append(want, id)
	}
	for id, r := range records {
		wantKept(t, l, r, kept[id]...)
	}
	slices.Sort(want)
	slices.Reverse(want)
	if got := listed(t, l, "", 10); !slices.Equal(got, want) {
		t.Errorf("listed %q\nwant %q", got, want)
	}
}

// concurrent has everything happen at once: each sees its own records whole, and lists are in order.
func (s *ledgerSuite) concurrent(t *testing.T) {
	l, ids := s.open(t), newMulticasts()
	shared := ids.record("shared")
	begin(t, l, shared)
	ctx := within(t, s.Patience)
	var working sync.WaitGroup
	const workers, each = 8, 15
	for g := range workers {
		var mine []mr.Record
		for n := range each {
			mine = append(mine, ids.record(fmt.Sprint("key ", g, n)))
		}
		working.Go(func() {
			for _, r := range mine {
				if err := oneMulticast(ctx, l, shared, r, g); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	working.Wait()
	if got := listed(t, l, "", 1000); len(got) != workers*each+1 {
		t.Errorf("%d records are listed, want %d", len(got), workers*each+1)
	}
	_, settled, err := l.Get(t.Context(), shared.ID)
	if err != nil || len(settled) != workers {
		t.Errorf("the shared record has %d settlements, want %d, %v", len(settled), workers, err)
	}
}

// oneMulticast goes through what happens to a record.
func oneMulticast(ctx context.Context, l mr.Ledger, shared, r mr.Record, g int) error {
	if _, began, err := l.Begin(ctx, r); err != nil || !began {
		return fmt.Errorf("begin: %v, %w", began, err)
	}
	if held, began, err := l.Begin(ctx, mr.Record{ID: r.ID + "0", Key: "shared"}); err != nil || began || held.ID != shared.ID {
		return fmt.Errorf("begin with the shared key: %v, %q, %w", began, held.ID, err)
	}
	if err := errors.Join(l.Settle(ctx, []mr.Settlement{
		{ID: r.ID, Identity: "a", Final: true, Data: []byte(r.ID)}, {ID: shared.ID, Identity: fmt.Sprint(g)},
	})...); err != nil {
		return fmt.Errorf("settle: %w", err)
	}
	r.Targets = [][]byte{[]byte(r.ID)}
	if err := l.Finish(ctx, r); err != nil {
		return fmt.Errorf("finish: %w", err)
	}
	got, settled, err := l.Get(ctx, r.ID)
	if err != nil || got.Key != r.Key || len(got.Targets) != 1 || !bytes.Equal(got.Targets[0], r.Targets[0]) || len(settled) != 1 {
		return fmt.Errorf("get: record %q with %d parts, %d settlements, %w", got.ID, len(got.Targets), len(settled), err)
	}
	records, err := l.List(ctx, "", 50)
	if err != nil || !slices.IsSortedFunc(records, func(a, b mr.Record) int { return strings.Compare(b.ID, a.ID) }) {
		return fmt.Errorf("%d records are listed, or out of order: %w", len(records), err)
	}
	return nil
}
