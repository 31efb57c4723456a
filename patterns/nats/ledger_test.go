package nats

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

func listed1(t *testing.T, d *Durability, before string, limit int) []string {
	t.Helper()
	records, err := d.List(within(t), before, limit)
	if err != nil {
		t.Fatal(err)
	}
	return mapped(records, func(r mr.Record) string { return r.ID })
}

// TestLedgerParts stores the largest record, finishes it again with another number of chunks, and reads all of it.
func TestLedgerParts(t *testing.T) {
	t.Parallel()
	d := durability(t, opening(t, testenv.NATS(t).URL), DurabilityConfig{Namespace: testenv.Prefix(t)})
	for _, replicas := range []int64{1, 3} { // with 3 it asks the leader
		d.ledger.stream.replicas.Store(replicas)
		record := mr.Record{ID: "id *>.\r\n", Key: "key *>.\r\n\xff", Summary: bytes.Repeat([]byte{'s'}, mr.MaxChunk)}
		for range 20 {
			record.Targets = append(record.Targets, bytes.Repeat([]byte{byte(len(record.Targets) + 1)}, mr.MaxChunk))
		}
		for n := len(record.Targets); n >= 0; n -= 10 {
			record.Targets = record.Targets[:n]
			if err := d.Finish(within(t), record); err != nil {
				t.Fatal(err)
			}
			got, _, err := d.Get(within(t), record.ID)
			if err != nil || got.ID != record.ID || got.Key != record.Key || !bytes.Equal(got.Summary, record.Summary) ||
				!slices.EqualFunc(got.Targets, record.Targets, bytes.Equal) {
				t.Fatalf("%d chunks: got %d, %v", n, len(got.Targets), err)
			}
		}
		subjects, _, err := d.ledger.stream.subjects(within(t), d.ledger.parts(record.ID)+">")
		if err != nil || len(subjects) > 0 {
			t.Errorf("chunks of earlier versions are left: %v, %v", subjects, err)
		}
		if held, began, err := d.Begin(within(t), mr.Record{ID: "another", Key: record.Key}); began || err != nil || held.ID != record.ID {
			t.Errorf("%q, %v, %v", held.ID, began, err)
		}
	}
}

// TestLedgerBegins lets processes begin with the same key at once: one of them does, and nothing is left of the others.
func TestLedgerBegins(t *testing.T) {
	t.Parallel()
	url, ns := testenv.NATS(t).URL, testenv.Prefix(t)
	for round := range 10 {
		key := fmt.Sprint("key ", round)
		var working sync.WaitGroup
		var began atomic.Int64
		var first atomic.Value
		for n := range 4 {
			d := durability(t, opening(t, url), DurabilityConfig{Namespace: ns})
			working.Go(func() {
				held, mine, err := d.Begin(within(t), mr.Record{ID: fmt.Sprint(round, "-", n), Key: key, Summary: []byte("x")})
				if err != nil {
					t.Error(err)
				}
				if mine {
					began.Add(1)
				}
				if before := first.Swap(held.ID); before != nil && before != held.ID {
					t.Errorf("%v and %v hold the key", before, held.ID)
				}
			})
		}
		working.Wait()
		if began.Load() != 1 {
			t.Errorf("%d of 4 have begun", began.Load())
		}
	}
	d := durability(t, opening(t, url), DurabilityConfig{Namespace: ns})
	if ids := listed1(t, d, "", 1000); len(ids) != 10 {
		t.Errorf("%d records are kept: %v", len(ids), ids)
	}
}

// TestLedgerReplaceConflict replaces a record that another process has just replaced: nothing is left of its targets.
func TestLedgerReplaceConflict(t *testing.T) {
	t.Parallel()
	d := durability(t, opening(t, testenv.NATS(t).URL), DurabilityConfig{Namespace: testenv.Prefix(t)})
	record := mr.Record{ID: "1", Summary: []byte("first")}
	if err := d.Finish(within(t), record); err != nil {
		t.Fatal(err)
	}
	m, _, err := d.ledger.stream.last(within(t), d.ledger.record(record.ID))
	if err != nil {
		t.Fatal(err)
	}
	record.Targets = [][]byte{[]byte("one"), []byte("two")}
	if replaced, err := d.Replace(within(t), record, []byte("first")); !replaced || err != nil {
		t.Errorf("%v, %v", replaced, err)
	}
	if err := d.ledger.finish(within(t), record, m.seq); !isConflict(err) {
		t.Errorf("in the place of one that is not there any more: %v", err)
	}
	subjects, _, err := d.ledger.stream.subjects(within(t), d.ledger.parts(record.ID)+">")
	if err != nil || len(subjects) != len(record.Targets) {
		t.Errorf("kept are %v, %v", subjects, err)
	}
}

// TestLedgerSettle settles many targets, in both orders of a final and another settlement.
func TestLedgerSettle(t *testing.T) {
	t.Parallel()
	d := durability(t, opening(t, testenv.NATS(t).URL), DurabilityConfig{Namespace: testenv.Prefix(t)})
	const many = 1500
	var early, late []mr.Settlement
	for i := range many {
		s := mr.Settlement{ID: "1", Identity: fmt.Sprint("device ", i), Data: []byte("pending")}
		if i == 0 {
			s.Identity = ""
		}
		final := s
		final.Final, final.Data = true, []byte("delivered")
		if i%2 == 0 {
			early, late = append(early, s), append(late, final)
		} else {
			early, late = append(early, final), append(late, s)
		}
	}
	if _, _, err := d.Get(within(t), "1"); !errors.Is(err, mr.ErrNotFound) {
		t.Errorf("get: %v", err)
	}
	if err := d.Finish(within(t), mr.Record{ID: "1"}); err != nil {
		t.Fatal(err)
	}
	for _, all := range [][]mr.Settlement{early, early, late} {
		if err := errors.Join(d.Settle(within(t), all)...); err != nil {
			t.Fatal(err)
		}
	}
	_, settled, err := d.Get(within(t), "1")
	if err != nil || len(settled) != many {
		t.Fatalf("%d settlements, %v", len(settled), err)
	}
	for _, s := range settled {
		if !s.Final || string(s.Data) != "delivered" || s.ID != "1" {
			t.Fatalf("%+v", s)
		}
	}
}

// TestLedgerBound stores more records than are kept.
func TestLedgerBound(t *testing.T) {
	t.Parallel()
	d := durability(t, opening(t, testenv.NATS(t).URL), DurabilityConfig{Namespace: testenv.Prefix(t), MaxMulticasts: 5})
	for i := range 8 {
		id := fmt.Sprint("id-", i)
		if _, began, err := d.Begin(within(t), mr.Record{ID: id, Key: id, Summary: []byte(id)}); !began || err != nil {
			t.Fatal(began, err)
		}
		if err := errors.Join(d.Settle(within(t), []mr.Settlement{{ID: id, Identity: "a", Data: []byte("x")}})...); err != nil {
			t.Fatal(err)
		}
	}
	if ids := listed1(t, d, "", 10); !slices.Equal(ids, []string{"id-7", "id-6", "id-5", "id-4", "id-3"}) {
		t.Errorf("kept %v", ids)
	}
	if ids := listed1(t, d, "id-6", 2); !slices.Equal(ids, []string{"id-5", "id-4"}) {
		t.Errorf("page %v", ids)
	}
	if ids := listed1(t, d, "id-55", 1); !slices.Equal(ids, []string{"id-5"}) {
		t.Errorf("before an id that is not kept: %v", ids)
	}
	if _, _, err := d.Get(within(t), "id-2"); !errors.Is(err, mr.ErrNotFound) {
		t.Errorf("the oldest: %v", err)
	}
	if _, began, err := d.Begin(within(t), mr.Record{ID: "id-8", Key: "id-2"}); !began || err != nil {
		t.Errorf("a key whose record is gone: %v, %v", began, err)
	}
	if subjects, _, err := d.ledger.stream.subjects(within(t), d.ledger.parts("id-1")+">"); err != nil || len(subjects) > 0 {
		t.Errorf("left of the oldest: %v, %v", subjects, err)
	}
}

func TestLedger(t *testing.T) {
	t.Parallel()
	ledgers(t, 1, testenv.NATS(t).URL)
}

// TestLedgerCluster runs the brief suite on three replicas, through all servers in turn.
func TestLedgerCluster(t *testing.T) {
	t.Parallel()
	cluster := testenv.NATSCluster(t)
	ledgers(t, len(cluster.URLs), cluster.URLs...)
}

func ledgers(t *testing.T, replicas int, urls ...string) {
	t.Helper()
	node := 0
	open := func(t *testing.T, cfg DurabilityConfig) mr.Ledger {
		node++
		cfg.Replicas = replicas
		return durability(t, opening(t, urls[node%len(urls)]), cfg)
	}
	slottest.Ledger(t, func(t *testing.T) mr.Ledger {
		return open(t, DurabilityConfig{Namespace: testenv.Prefix(t)})
	}, slottest.LedgerOptions{
		Brief: replicas > 1,
		OpenPair: func(t *testing.T) (a, b mr.Ledger) {
			cfg := DurabilityConfig{Namespace: testenv.Prefix(t)}
			return open(t, cfg), open(t, cfg)
		},
		OpenBounded: func(t *testing.T, retention time.Duration, most int) mr.Ledger {
			return open(t, DurabilityConfig{Namespace: testenv.Prefix(t), Retention: retention, MaxMulticasts: most})
		},
	})
}
