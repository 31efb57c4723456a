package slottest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// ledgerSuite is what the subtests of Ledger share.
type ledgerSuite struct {
	LedgerOptions
	open func(t *testing.T) mr.Ledger
}

// Ledger runs the conformance suite of the ledger, an ability of durability slots. Open is called for each subtest and gives an
// empty ledger that keeps at least 1,000 records for at least an hour.
func Ledger(t *testing.T, open func(t *testing.T) mr.Ledger, options LedgerOptions) {
	t.Helper()
	s := &ledgerSuite{LedgerOptions: options.withDefaults(), open: open}
	long := []string{
		"SettleMany", "HostileKeys", "Concurrent", "LargeRecords",
	}
	run(t, options.Brief, long, []subtest{
		{"BeginAndFinish", s.beginAndFinish},
		{"FinishWithoutBegin", s.finishWithoutBegin},
		{"FinishAgain", s.finishAgain},
		{"LargeRecords", s.largeRecords},
		{"NotFound", s.notFound},
		{"Ping", func(t *testing.T) { pingSlot(t, s.open(t)) }},

		{"Keys", s.keys},
		{"HostileKeys", s.hostileKeys},
		{"KeyContention", s.keyContention},
		{"Replace", s.replace},
		{"ReplaceContention", s.replaceContention},

		{"Settle", s.settle},
		{"SettleFinal", s.settleFinal},
		{"SettleHostileIdentities", s.settleHostileIdentities},
		{"SettleMany", s.settleMany},
		{"SettleUnknown", s.settleUnknown},
		{"SettleContention", s.settleContention},

		{"List", s.list},
		{"ListPages", s.listPages},
		{"PrefixesOfIDs", s.prefixesOfIDs},

		{"Pair", s.pair},
		{"MostRecords", s.mostRecords},
		{"Retention", s.retention},
		{"Cancelled", s.cancelled},
		{"Concurrent", s.concurrent},
	})
}

// multicasts makes the ids of multicasts, as a coordinator does: UUIDs of version 7, later ones behind earlier ones.
type multicasts struct {
	began time.Time
	n     int
}

func newMulticasts() *multicasts { return &multicasts{began: time.Now()} }

func (m *multicasts) id() string {
	m.n++
	ms := uint64(m.began.UnixMilli()) + uint64(m.n)
	var random [8]byte
	_, _ = rand.Read(random[:])
	return fmt.Sprintf("%08x-%04x-7%03x-%02x%02x-%x", ms>>16, ms&0xffff, m.n&0xfff, 0x80|random[0]&0x3f, random[1], random[2:])
}

// record returns a new record without targets.
func (m *multicasts) record(key string) mr.Record {
	return mr.Record{ID: m.id(), Key: key, Summary: fmt.Appendf(nil, "summary %d", m.n)}
}

func randomBytes(n int) []byte {
	out := make([]byte, n)
	_, _ = rand.Read(out)
	return out
}

func begin(t *testing.T, l mr.Ledger, records ...mr.Record) {
	t.Helper()
	for _, r := range records {
		if held, began, err := l.Begin(t.Context(), r); err != nil || !began {
			t.Fatalf("begin %q: %v, held %q, %v", r.ID, began, held.ID, err)
		}
	}
}

func finish(t *testing.T, l mr.Ledger, r mr.Record) {
	t.Helper()
	if err := l.Finish(t.Context(), r); err != nil {
		t.Fatalf("finish %q: %v", r.ID, err)
	}
}

func settle(t *testing.T, l mr.Ledger, settlements ...mr.Settlement) {
	t.Helper()
	for i, err := range results(t, len(settlements), l.Settle(t.Context(), settlements)) {
		if err != nil {
			t.Fatalf("settle %d of %d, %q of %q: %v", i, len(settlements), settlements[i].Identity, settlements[i].ID, err)
		}
	}
}

// wantKept fails the test unless a record is kept as given, with these settlements and no others.
func wantKept(t *testing.T, l mr.Ledger, want mr.Record, settlements ...mr.Settlement) {
	t.Helper()
	got, settled, err := l.Get(t.Context(), want.ID)
	if err != nil {
		t.Fatalf("get %q: %v", want.ID, err)
	}
	wantRecord(t, got, want)
	if len(got.Targets) != len(want.Targets) {
		t.Fatalf("%q has %d parts, want %d", want.ID, len(got.Targets), len(want.Targets))
	}
	for i := range want.Targets {
		if !bytes.Equal(got.Targets[i], want.Targets[i]) {
			t.Errorf("part %d of %q is another: %d bytes, want %d", i, want.ID, len(got.Targets[i]), len(want.Targets[i]))
		}
	}
	wanted := map[string]mr.Settlement{}
	for _, w := range settlements {
		wanted[w.Identity] = w
	}
	for _, g := range settled {
		w, ok := wanted[g.Identity]
		if !ok || g.ID != w.ID || g.Final != w.Final || !bytes.Equal(g.Data, w.Data) {
			t.Errorf("settlement of %q in %q: final %v, %d bytes; want final %v, %d bytes, or it is unasked", g.Identity, g.ID, g.Final,
				len(g.Data), w.Final, len(w.Data))
		}
		delete(wanted, g.Identity)
	}
	for identity := range wanted {
		t.Errorf("the settlement of %q is missing", identity)
	}
}

// wantRecord compares all but the targets.
func wantRecord(t *testing.T, got, want mr.Record) {
	t.Helper()
	if got.ID != want.ID || got.Key != want.Key || !bytes.Equal(got.Summary, want.Summary) {
		t.Errorf("got record %q with key %q, summary %.40q\nwant %q with key %q, summary %.40q", got.ID, got.Key, got.Summary,
			want.ID, want.Key, want.Summary)
	}
}

// wantHeld fails the test unless a record cannot begin because that one is kept under its key, which leads to it.
func wantHeld(t *testing.T, l mr.Ledger, r, want mr.Record) {
	t.Helper()
	held, began, err := l.Begin(t.Context(), r)
	if err != nil || began {
		t.Fatalf("begin with the key of another one: %v, %v", began, err)
	}
	wantRecord(t, held, want)
	if len(held.Targets) > 0 {
		t.Errorf("the held record has %d parts", len(held.Targets))
	}
	if held, err = l.Held(t.Context(), r.Key); err != nil || len(held.Targets) > 0 {
		t.Errorf("held under the key: %d parts, %v", len(held.Targets), err)
	}
	wantRecord(t, held, want)
}

func wantNotHeld(t *testing.T, l mr.Ledger, key string) {
	t.Helper()
	if held, err := l.Held(t.Context(), key); !errors.Is(err, mr.ErrNotFound) {
		t.Errorf("key %q is held by %q, %v", key, held.ID, err)
	}
}

func replace(t *testing.T, l mr.Ledger, r mr.Record, was string, want bool) {
	t.Helper()
	if replaced, err := l.Replace(t.Context(), r, []byte(was)); err != nil || replaced != want {
		t.Errorf("replace %q: %v, %v; want %v", was, replaced, err, want)
	}
}

func wantNotKept(t *testing.T, l mr.Ledger, id string) {
	t.Helper()
	if got, settled, err := l.Get(t.Context(), id); !errors.Is(err, mr.ErrNotFound) {
		t.Errorf("get %q: record %q, %d settlements, %v", id, got.ID, len(settled), err)
	}
}

func listed(t *testing.T, l mr.Ledger, before string, limit int) (ids []string) {
	t.Helper()
	records, err := l.List(t.Context(), before, limit)
	noError(t, err, "list")
	for _, r := range records {
		if len(r.Targets) > 0 {
			t.Errorf("%q is listed with its targets", r.ID)
		}
		ids = append(ids, r.ID)
	}
	return ids
}

// pair looks at one ledger as two processes do.
func (s *ledgerSuite) pair(t *testing.T) {
	if s.OpenPair == nil {
		t.Skip("LedgerOptions.OpenPair is not set")
	}
	a, b := s.OpenPair(t)
	ids := newMulticasts()
	r := ids.record("key")
	begin(t, a, r)
	wantKept(t, b, r)
	wantHeld(t, b, ids.record("key"), r)
	one := mr.Settlement{ID: r.ID, Identity: "one", Final: true, Data: []byte("b says")}
	settle(t, b, one)
	r.Summary, r.Targets = []byte("finished"), [][]byte{[]byte("targets")}
	finish(t, a, r)
	wantKept(t, b, r, one)
	other := ids.record("")
	begin(t, b, other)
	if got := listed(t, a, "", 10); len(got) != 2 || got[0] != other.ID || got[1] != r.ID {
		t.Errorf("listed %q", got)
	}
}

// cancelled makes every call with a context that has ended.
func (s *ledgerSuite) cancelled(t *testing.T) {
	l, ids := s.open(t), newMulticasts()
	r := ids.record("key")
	begin(t, l, r)
	for _, ctx := range []context.Context{cancelled(t), past(t)} {
		other := ids.record("other")
		if _, began, err := l.Begin(ctx, other); began || !isContextError(err) {
			t.Errorf("begin: %v, %v", began, err)
		}
		if err := l.Finish(ctx, other); !isContextError(err) {
			t.Errorf("finish: %v", err)
		}
		if replaced, err := l.Replace(ctx, mr.Record{ID: r.ID}, r.Summary); replaced || !isContextError(err) {
			t.Errorf("replace: %v, %v", replaced, err)
		}
		if _, err := l.Held(ctx, r.Key); !isContextError(err) {
			t.Errorf("held: %v", err)
		}
		for _, err := range results(t, 2, l.Settle(ctx, []mr.Settlement{{ID: r.ID, Identity: "a"}, {ID: r.ID, Identity: "b"}})) {
			if !isContextError(err) {
				t.Errorf("settle: %v", err)
			}
		}
		if _, _, err := l.Get(ctx, r.ID); !isContextError(err) {
			t.Errorf("get: %v", err)
		}
		if _, err := l.List(ctx, "", 10); !isContextError(err) {
			t.Errorf("list: %v", err)
		}
		wantNotKept(t, l, other.ID)
	}
	wantKept(t, l, r)
	begin(t, l, ids.record("other"))
}
