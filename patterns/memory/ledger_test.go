package memory

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// takes tells how much a ledger holds.
func (l *ledger) takes() string {
	return fmt.Sprintf("%d records of %d bytes, %d keys, %d in order, %d in line; early: %d of %d bytes, %d in line",
		len(l.records), l.bytes, len(l.keys), len(l.byID), l.begun.Len(), len(l.early), l.apart, l.earlyAge.Len())
}

const nothing = "0 records of 0 bytes, 0 keys, 0 in order, 0 in line; early: 0 of 0 bytes, 0 in line"

// TestLedgerRetention checks the instant at which records and early settlements go, and that they leave nothing behind.
func TestLedgerRetention(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const retention = time.Hour
		l := newLedger(retention, 10)
		_, began, err := l.Begin(t.Context(), mr.Record{ID: "b", Key: "key", Summary: []byte("x")})
		check(t, err)
		if !began {
			t.Fatal("not begun")
		}
		check(t, errors.Join(l.Settle(t.Context(), []mr.Settlement{{ID: "a", Identity: "early"}, {ID: "b", Identity: "x"}})...))
		<-time.After(retention / 2)
		check(t, l.Finish(t.Context(), mr.Record{ID: "b", Key: "other", Targets: [][]byte{{1, 2, 3}}})) // does not prolong it
		check(t, l.Finish(t.Context(), mr.Record{ID: "a"}))                                             // the retention of a begins
		<-time.After(retention/2 - 1)
		if _, settled, err := l.Get(t.Context(), "b"); err != nil || len(settled) != 1 {
			t.Errorf("before its time: %d settlements, %v", len(settled), err)
		}
		<-time.After(1)
		if _, _, err := l.Get(t.Context(), "b"); !errors.Is(err, mr.ErrNotFound) {
			t.Errorf("after its time: %v", err)
		}
		if _, settled, err := l.Get(t.Context(), "a"); err != nil || len(settled) != 1 {
			t.Errorf("%d settlements, %v", len(settled), err)
		}
		check(t, errors.Join(l.Settle(t.Context(), []mr.Settlement{{ID: "late", Identity: "x", Data: []byte("x")}})...))
		<-time.After(retention)
		records, err := l.List(t.Context(), "", 10)
		if got := l.takes(); got != nothing || len(records) != 0 || err != nil {
			t.Errorf("left behind: %s", got)
		}
	})
}

// TestLedgerBytes fills a ledger with records, and with settlements for records that nobody begins: neither grows without
// bound, and late settlements push no record out.
func TestLedgerBytes(t *testing.T) {
	t.Parallel()
	l := newLedger(time.Hour, 10_000)
	chunk := make([]byte, mr.MaxChunk)
	const each = 20
	for n := range 80 {
		record := mr.Record{ID: fmt.Sprintf("%03d", n), Key: fmt.Sprint(n)}
		for range each {
			record.Targets = append(record.Targets, chunk)
		}
		check(t, l.Finish(t.Context(), record))
	}
	fit := ledgerBytes / (each * mr.MaxChunk)
	records, err := l.List(t.Context(), "", 100)
	check(t, err)
	if len(records) > fit || len(records) < fit-1 || records[0].ID != "079" || len(l.keys) != len(records) {
		t.Errorf("%d records are kept, %d fit; %s", len(records), fit, l.takes())
	}
	before := len(records)
	data := make([]byte, 2*mr.MaxReplyBytes)
	for n := range 4000 {
		check(t, l.Settle(t.Context(), []mr.Settlement{{ID: fmt.Sprint("never ", n), Identity: "x", Data: data}})[0])
	}
	if len(l.records) != before || l.apart > earlyBytes || l.apart < earlyBytes/2 {
		t.Errorf("after early settlements: %s", l.takes())
	}
	for n := range 6000 { // of one record, the oldest but one: both go, as they make no room otherwise
		check(t, l.Settle(t.Context(), []mr.Settlement{{ID: records[before-2].ID, Identity: fmt.Sprint(n), Data: data}})[0])
	}
	if l.bytes > ledgerBytes {
		t.Errorf("after settlements: %s", l.takes())
	}
	// One record may take more than all of it, as long as it is alone.
	huge := mr.Record{ID: "huge"}
	for range ledgerBytes/mr.MaxChunk + 1 {
		huge.Targets = append(huge.Targets, chunk)
	}
	check(t, l.Finish(t.Context(), huge))
	if got, _, err := l.Get(t.Context(), "huge"); err != nil || len(got.Targets) != len(huge.Targets) || len(l.records) != 1 {
		t.Errorf("%d parts, %v; %s", len(got.Targets), err, l.takes())
	}
}

// TestLedgerMost keeps few records, begun in any order: what was begun first goes first. Early settlements are bounded, too.
func TestLedgerMost(t *testing.T) {
	t.Parallel()
	const most = 8
	l := newLedger(time.Hour, most)
	id := func(n int) string { return fmt.Sprintf("%03d", n*37%101) }
	for n := range 100 {
		if _, began, err := l.Begin(t.Context(), mr.Record{ID: id(n), Key: id(n)}); err != nil || !began {
			t.Fatal(began, err)
		}
		check(t, l.Settle(t.Context(), []mr.Settlement{{ID: fmt.Sprint("never ", n)}})[0])
		for _, known := range []int{max(n-most+1, 0), n} {
			if _, _, err := l.Get(t.Context(), id(known)); err != nil {
				t.Fatalf("after %d: %d: %v", n, known, err)
			}
		}
		records, err := l.List(t.Context(), "", 100)
		check(t, err)
		for i := 1; i < len(records); i++ {
			if records[i-1].ID <= records[i].ID {
				t.Fatalf("%s before %s", records[i-1].ID, records[i].ID)
			}
		}
		want := min(n+1, most)
		if len(records) != want || len(l.keys) != want || len(l.byID) != want || l.begun.Len() != want || len(l.early) > most {
			t.Fatalf("after %d: %s", n, l.takes())
		}
	}
}
