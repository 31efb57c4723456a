package redis

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

func TestLedger(t *testing.T) {
	t.Parallel()
	slottest.Ledger(t, func(t *testing.T) mr.Ledger { return durability(t, shared(t), DurabilityConfig{}) }, slottest.LedgerOptions{
		OpenPair: func(t *testing.T) (a, b mr.Ledger) {
			cfg := DurabilityConfig{Namespace: testenv.Prefix(t)}
			return durability(t, shared(t), cfg), durability(t, shared(t), cfg)
		},
		OpenBounded: func(t *testing.T, retention time.Duration, most int) mr.Ledger {
			return durability(t, shared(t), DurabilityConfig{Retention: retention, MaxMulticasts: most})
		},
	})
}

func ids(records []mr.Record) []string {
	var out []string
	for _, r := range records {
		out = append(out, r.ID)
	}
	return out
}

// TestLedgerKeys stores records and settlements under all kinds of names: every key expires, and trimming leaves no key of what
// it lets go, of nobody else's either.
func TestLedgerKeys(t *testing.T) {
	t.Parallel()
	d := durability(t, shared(t), DurabilityConfig{MaxMulticasts: 3, Retention: time.Hour})
	names := slottest.HostileIdentities()
	slices.Sort(names)
	for _, name := range names {
		record := mr.Record{ID: name, Key: name, Summary: []byte(name), Targets: [][]byte{[]byte("t"), bytes.Repeat([]byte("x"), mr.MaxChunk)}}
		if _, began, err := d.Begin(t.Context(), mr.Record{ID: name, Key: name}); err != nil || !began {
			t.Fatalf("begin %q: %v, %v", name, began, err)
		}
		noError(t, d.Finish(t.Context(), record))
		noError(t, errors.Join(d.Settle(t.Context(), []mr.Settlement{{ID: name, Identity: name, Data: []byte(name)}, {ID: name}})...))
		got, settled, err := d.Get(t.Context(), name)
		if err != nil || got.Key != name || string(got.Summary) != name || len(got.Targets) != 2 || len(got.Targets[1]) != mr.MaxChunk || len(settled) != 2 {
			t.Fatalf("%q: %+v, %+v, %v", name, got, settled, err)
		}
	}
	slices.Reverse(names)
	list, err := d.List(t.Context(), "", 100)
	if err != nil || !slices.Equal(ids(list), names[:3]) {
		t.Errorf("kept are %q, %v", ids(list), err)
	}
	keys := keysOfNamespace(t, d)
	if len(keys) != 3*3+1 {
		t.Errorf("%q are kept", keys)
	}
	for _, key := range keys {
		if ms, err := do(t, d.conn, "PTTL", key).AsInt64(); err != nil || ms <= 0 || ms > 3600_000 {
			t.Errorf("%q expires in %d ms, %v", key, ms, err)
		}
	}
}

// TestLedgerRetention has records go: their keys are free again, and neither Finish nor a list brings them back.
func TestLedgerRetention(t *testing.T) {
	t.Parallel()
	d := durability(t, shared(t), DurabilityConfig{Retention: time.Second})
	_, _, err := d.Begin(t.Context(), mr.Record{ID: "1", Key: "k"})
	noError(t, err)
	start := time.Now()
	eventually(t, "half of its time is up", func() bool { return time.Since(start) > 500*time.Millisecond })
	noError(t, d.Finish(t.Context(), mr.Record{ID: "1", Key: "k", Summary: []byte("done")}))
	noError(t, d.Finish(t.Context(), mr.Record{ID: "2"}))
	eventually(t, "the first one is gone", func() bool {
		_, _, err := d.Get(t.Context(), "1")
		return errors.Is(err, mr.ErrNotFound)
	})
	if list, err := d.List(t.Context(), "", 1); err != nil || !slices.Equal(ids(list), []string{"2"}) {
		t.Errorf("list: %q, %v", ids(list), err)
	}
	if list, err := d.List(t.Context(), "2", 1); err != nil || len(list) != 0 {
		t.Errorf("list: %q, %v", ids(list), err)
	}
	if held, began, err := d.Begin(t.Context(), mr.Record{ID: "3", Key: "k"}); err != nil || !began || held.ID != "3" {
		t.Errorf("begin: %+v, %v, %v", held, began, err)
	}
	eventually(t, "everything is gone", func() bool { return len(keysOfNamespace(t, d)) == 0 })
}

// TestLedgerPages lists more records than are read at once.
func TestLedgerPages(t *testing.T) {
	t.Parallel()
	d := durability(t, shared(t), DurabilityConfig{})
	const many = 2*listAtOnce + 10
	for n := range many {
		_, _, err := d.Begin(t.Context(), mr.Record{ID: fmt.Sprintf("%04d", n), Summary: []byte(strconv.Itoa(n))})
		noError(t, err)
	}
	for n := range many {
		if n%3 == 0 { // as if their time were up
			noError(t, do(t, d.conn, "DEL", d.tag+":m:"+fmt.Sprintf("%04d", n)).Error())
		}
	}
	list, err := d.List(t.Context(), "", many)
	if err != nil || len(list) != many-(many+2)/3 || list[0].ID != fmt.Sprintf("%04d", many-1) {
		t.Errorf("%d are listed, %v", len(list), err)
	}
	some, err := d.List(t.Context(), list[9].ID, 5)
	if err != nil || !slices.Equal(ids(some), ids(list[10:15])) {
		t.Errorf("%q are listed, want %q, %v", ids(some), ids(list[10:15]), err)
	}
	if none, err := d.List(t.Context(), "", 0); err != nil || len(none) != 0 {
		t.Errorf("%q are listed, %v", ids(none), err)
	}
}

// TestTenThousandSettlements settles every target of a multicast.
func TestTenThousandSettlements(t *testing.T) {
	t.Parallel()
	d := durability(t, shared(t), DurabilityConfig{})
	noError(t, d.Finish(t.Context(), mr.Record{ID: "a"}))
	settlements := make([]mr.Settlement, 10_000)
	for i := range settlements {
		settlements[i] = mr.Settlement{ID: "a", Identity: fmt.Sprint(i), Final: i%2 == 0, Data: []byte("final")}
	}
	start := time.Now()
	noError(t, errors.Join(d.Settle(t.Context(), settlements)...))
	t.Logf("settled after %v", time.Since(start))
	for i := range settlements {
		settlements[i].Final, settlements[i].Data = false, []byte("not final")
	}
	noError(t, errors.Join(d.Settle(t.Context(), settlements)...))
	_, got, err := d.Get(t.Context(), "a")
	noError(t, err)
	for _, s := range got {
		n, err := strconv.Atoi(s.Identity)
		if want := n%2 == 0; err != nil || s.Final != want || (string(s.Data) == "final") != want || s.ID != "a" {
			t.Fatalf("%+v", s)
		}
	}
	if len(got) != len(settlements) {
		t.Errorf("%d settlements", len(got))
	}
}
