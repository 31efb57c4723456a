package slottest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func (s *ledgerSuite) beginAndFinish(t *testing.T) {
	l, ids := s.open(t), newMulticasts()
	plain, keyed := ids.record(""), ids.record("key")
	empty := mr.Record{ID: ids.id()}
	begin(t, l, plain, keyed, empty)
	for _, r := range []mr.Record{plain, keyed, empty} {
		wantKept(t, l, r)
	}
	keyed.Summary, keyed.Targets = []byte("a summary that is another"), [][]byte{{0}, []byte("\r\n"), []byte("three")}
	finish(t, l, keyed)
	empty.Summary = []byte("\x00")
	finish(t, l, empty)
	for _, r := range []mr.Record{plain, keyed, empty} {
		wantKept(t, l, r)
	}
	wantHeld(t, l, ids.record("key"), keyed)
}

// finishWithoutBegin stores records, with and without keys, whose Begin never came.
func (s *ledgerSuite) finishWithoutBegin(t *testing.T) {
	l, ids := s.open(t), newMulticasts()
	plain, keyed := ids.record(""), ids.record("key")
	plain.Targets = [][]byte{[]byte("a"), []byte("b")}
	finish(t, l, plain)
	finish(t, l, keyed)
	wantKept(t, l, plain)
	wantKept(t, l, keyed)
	wantHeld(t, l, ids.record("key"), keyed)
	if got := listed(t, l, "", 10); !slices.Equal(got, []string{keyed.ID, plain.ID}) {
		t.Errorf("listed %q", got)
	}
}

// finishAgain stores a record again and again, with more parts and fewer, as one that takes over another's place does.
func (s *ledgerSuite) finishAgain(t *testing.T) {
	l, ids := s.open(t), newMulticasts()
	r := ids.record("key")
	begin(t, l, r)
	for _, parts := range []int{3, 1, 5, 0, 2} {
		r.Summary, r.Targets = fmt.Appendf(nil, "%d parts", parts), nil
		for n := range parts {
			r.Targets = append(r.Targets, fmt.Appendf(nil, "part %d of %d", n, parts))
		}
		finish(t, l, r)
		wantKept(t, l, r)
		wantHeld(t, l, ids.record("key"), r)
	}
	if got := listed(t, l, "", 10); len(got) != 1 {
		t.Errorf("listed %q", got)
	}
}

// largeRecords keeps what is as large as it may be: the summary, and 20 parts.
func (s *ledgerSuite) largeRecords(t *testing.T) {
	l, ids := s.open(t), newMulticasts()
	large, small := ids.record(strings.Repeat("k", mr.MaxKeyBytes)), ids.record("")
	begin(t, l, large, small)
	large.Summary = randomBytes(mr.MaxChunk)
	for range 20 {
		large.Targets = append(large.Targets, randomBytes(mr.MaxChunk))
	}
	small.Targets = [][]byte{randomBytes(1), randomBytes(mr.MaxChunk - 1), randomBytes(2)}
	finish(t, l, large)
	finish(t, l, small)
	settled := mr.Settlement{ID: large.ID, Identity: strings.Repeat("i", mr.MaxIdentityBytes), Data: randomBytes(2 * mr.MaxReplyBytes)}
	settle(t, l, settled)
	wantKept(t, l, large, settled)
	wantKept(t, l, small)
	records, err := l.List(t.Context(), "", 10)
	if err != nil || len(records) != 2 || !bytes.Equal(records[1].Summary, large.Summary) || len(records[1].Targets) > 0 {
		t.Errorf("listed %d records, %v", len(records), err)
	}
}

// notFound asks for what nobody began: plausible ids and hostile ones.
func (s *ledgerSuite) notFound(t *testing.T) {
	l, ids := s.open(t), newMulticasts()
	r := ids.record("")
	begin(t, l, r)
	wantNotKept(t, l, ids.id())
	for _, id := range append(HostileIdentities(), r.ID[:35], r.ID+"0", strings.ToUpper(r.ID)+" ", r.ID+"\x00", r.ID+".>", r.ID+"/*") {
		wantNotKept(t, l, id)
	}
	wantKept(t, l, r)
}

func (s *ledgerSuite) keys(t *testing.T) {
	l, ids := s.open(t), newMulticasts()
	first := ids.record("key")
	wantNotHeld(t, l, "key")
	begin(t, l, first)
	wantNotHeld(t, l, "key ")
	second := ids.record("key")
	wantHeld(t, l, second, first)
	wantNotKept(t, l, second.ID)
	wantHeld(t, l, first, first) // the very same again
	begin(t, l, ids.record("Key"), ids.record("key "), ids.record("ke"))
	none := []mr.Record{ids.record(""), ids.record(""), ids.record("")}
	begin(t, l, none...)
	for _, r := range append(none, first) {
		wantKept(t, l, r)
	}
	if got := listed(t, l, "", 100); len(got) != 7 {
		t.Errorf("listed %q", got)
	}
}

// hostileKeys has keys of any bytes: each is one of its own.
func (s *ledgerSuite) hostileKeys(t *testing.T) {
	l, ids := s.open(t), newMulticasts()
	keys := append(HostileIdentities(), "\xff", "\xff\xfe", "\xc3\x28", "\x80", strings.Repeat("\x00", mr.MaxKeyBytes),
		strings.Repeat("\x00", mr.MaxKeyBytes-1), strings.Repeat("\xff", mr.MaxKeyBytes), strings.Repeat("\r\n", mr.MaxKeyBytes/2),
		string(randomBytes(mr.MaxKeyBytes)))
	var first []mr.Record
	for _, key := range keys {
		r := ids.record(key)
		begin(t, l, r)
		first = append(first, r)
	}
	for i, key := range keys {
		wantHeld(t, l, ids.record(key), first[i])
		wantKept(t, l, first[i])
	}
}

// keyContention lets many begin with one key, over two processes: one does, and the others get its record.
func (s *ledgerSuite) keyContention(t *testing.T) {
	ledgers, ids := s.several(t), newMulticasts()
	for round := range 20 {
		key := fmt.Sprint("key ", round)
		records := make([]mr.Record, 16)
		helds := make([]mr.Record, len(records))
		var won atomic.Int64
		var winner atomic.Value
		var contending sync.WaitGroup
		start := make(chan struct{})
		for i := range records {
			records[i] = ids.record(key)
			contending.Go(func() {
				<-start
				held, began, err := ledgers[i%len(ledgers)].Begin(t.Context(), records[i])
				switch {
				case err != nil:
					t.Errorf("begin: %v", err)
				case began:
					won.Add(1)
					winner.Store(records[i])
				}
				helds[i] = held
			})
		}
		close(start)
		contending.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d of %d begin with one key", won.Load(), len(records))
		}
		first := winner.Load().(mr.Record)
		for i, held := range helds {
			if records[i].ID == first.ID {
				wantKept(t, ledgers[0], first)
				continue
			}
			wantRecord(t, held, first)
			wantNotKept(t, ledgers[0], records[i].ID)
		}
	}
}

// replace puts records in the place of others, if they are what the caller takes them for.
func (s *ledgerSuite) replace(t *testing.T) {
	l, ids := s.open(t), newMulticasts()
	r, other, unknown := ids.record("key"), ids.record("other"), ids.record("unknown")
	r.Summary = []byte("first")
	begin(t, l, r, other)
	settled := mr.Settlement{ID: r.ID, Identity: "a", Data: []byte("x")}
	settle(t, l, settled)
	next := r
	next.Summary, next.Targets = []byte("second"), [][]byte{[]byte("one"), []byte("two")}
	for _, was := range []string{"", "firs", "first ", "First", "first\x00", "second", string(other.Summary)} {
		replace(t, l, next, was, false)
	}
	replace(t, l, unknown, "", false)
	replace(t, l, unknown, string(unknown.Summary), false)
	wantKept(t, l, r, settled)
	wantNotKept(t, l, unknown.ID)
	wantNotHeld(t, l, unknown.Key)

	replace(t, l, next, "first", true)
	replace(t, l, next, "first", false)
	wantKept(t, l, next, settled)
	wantHeld(t, l, ids.record("key"), next)
	last := r
	last.Summary = randomBytes(mr.MaxChunk)
	replace(t, l, last, "second", true)
	wantKept(t, l, last, settled)
	next.Summary = nil
	replace(t, l, next, string(last.Summary), true)
	wantKept(t, l, next, settled)
	replace(t, l, last, "", true)
	finish(t, l, next)
	replace(t, l, last, string(last.Summary), false)
	wantKept(t, l, next, settled)
	wantHeld(t, l, ids.record("key"), next)
	wantKept(t, l, other)
	if got := listed(t, l, "", 10); !slices.Equal(got, []string{other.ID, r.ID}) {
		t.Errorf("listed %q", got)
	}
}

// replaceContention lets many replace one record, over two processes: one does, and its targets are kept.
func (s *ledgerSuite) replaceContention(t *testing.T) {
	ledgers, ids := s.several(t), newMulticasts()
	const many = 16
	for range 10 {
		r := ids.record("")
		begin(t, ledgers[0], r)
		var won []mr.Record
		var mu sync.Mutex
		var contending sync.WaitGroup
		start := make(chan struct{})
		for i := range many {
			text := fmt.Appendf(nil, "replaced by %d", i)
			mine := mr.Record{ID: r.ID, Summary: text, Targets: slices.Repeat([][]byte{text}, i%3)}
			contending.Go(func() {
				<-start
				replaced, err := ledgers[i%len(ledgers)].Replace(t.Context(), mine, r.Summary)
				if err != nil {
					t.Errorf("replace: %v", err)
				}
				if replaced {
					mu.Lock()
					won = append(won, mine)
					mu.Unlock()
				}
			})
		}
		close(start)
		contending.Wait()
		if len(won) != 1 {
			t.Fatalf("%d of %d replace one record", len(won), many)
		}
		for _, l := range ledgers {
			wantKept(t, l, won[0])
		}
	}
}

// several opens a ledger as two processes do, if that can be.
func (s *ledgerSuite) several(t *testing.T) []mr.Ledger {
	t.Helper()
	if s.OpenPair == nil {
		return []mr.Ledger{s.open(t)}
	}
	a, b := s.OpenPair(t)
	return []mr.Ledger{a, b}
}

func (s *ledgerSuite) openBounded(t *testing.T, retention time.Duration, most int) mr.Ledger {
	t.Helper()
	if s.OpenBounded == nil {
		t.Skip("LedgerOptions.OpenBounded is not set")
	}
	return s.OpenBounded(t, retention, most)
}

// mostRecords begins more than are kept: the oldest go, and their keys and settlements with them.
func (s *ledgerSuite) mostRecords(t *testing.T) {
	const most, over = 10, 5
	l, ids := s.openBounded(t, time.Hour, most), newMulticasts()
	var all []mr.Record
	for n := range most + over {
		r := ids.record(fmt.Sprint("key ", n))
		begin(t, l, r)
		r.Targets = [][]byte{[]byte(r.ID)}
		finish(t, l, r)
		settle(t, l, mr.Settlement{ID: r.ID, Identity: "a", Data: []byte(r.ID)})
		all = append(all, r)
	}
	eventually(t, s.Patience, "the oldest records are gone", func() bool {
		_, _, err := l.Get(t.Context(), all[over-1].ID)
		return errors.Is(err, mr.ErrNotFound)
	})
	var want []string
	for n, r := range all {
		if n < over {
			wantNotKept(t, l, r.ID)
			continue
		}
		wantKept(t, l, r, mr.Settlement{ID: r.ID, Identity: "a", Data: []byte(r.ID)})
		wantHeld(t, l, ids.record(r.Key), r)
		want = append([]string{r.ID}, want...)
	}
	if got := listed(t, l, "", 100); !slices.Equal(got, want) {
		t.Errorf("listed %d records, want the latest %d", len(got), most)
	}
	again := ids.record(all[0].Key)
	wantNotHeld(t, l, again.Key)
	begin(t, l, again)
	wantKept(t, l, again)
	wantHeld(t, l, ids.record(all[0].Key), again)
	settle(t, l, mr.Settlement{ID: all[1].ID, Identity: "late"})
	wantNotKept(t, l, all[1].ID)
}

// retention lets records become too old: they are gone, with keys and settlements, those included that nobody began.
func (s *ledgerSuite) retention(t *testing.T) {
	const retention = 2 * time.Second
	l, ids := s.openBounded(t, retention, 100), newMulticasts()
	start := time.Now()
	begun, finished, unknown := ids.record("begun"), ids.record("finished"), ids.record("")
	begin(t, l, begun, finished)
	finished.Targets = [][]byte{[]byte("part")}
	finish(t, l, finished)
	one := mr.Settlement{ID: finished.ID, Identity: "a", Final: true, Data: []byte("x")}
	settle(t, l, one, mr.Settlement{ID: unknown.ID, Identity: "a", Final: true, Data: []byte("early")})
	end := time.Now()
	waitUntil(start.Add(retention / 2))
	got, settled, err := l.Get(t.Context(), finished.ID)
	if ids := listed(t, l, "", 10); time.Since(start) < retention-retention/20 {
		if err != nil || len(got.Targets) != 1 || len(settled) != 1 || len(ids) != 2 {
			t.Errorf("before its time: %d parts, %d settlements, %v; listed %d", len(got.Targets), len(settled), err, len(ids))
		}
	}
	waitUntil(end.Add(retention + retention/10))
	eventually(t, s.Patience, "records that are too old are gone", func() bool {
		_, _, first := l.Get(t.Context(), begun.ID)
		_, _, second := l.Get(t.Context(), finished.ID)
		return errors.Is(first, mr.ErrNotFound) && errors.Is(second, mr.ErrNotFound) && len(listed(t, l, "", 10)) == 0
	})
	for _, key := range []string{"begun", "finished"} {
		again := ids.record(key)
		wantNotHeld(t, l, key)
		begin(t, l, again)
		wantKept(t, l, again)
	}
	for _, r := range []mr.Record{finished, unknown} {
		eventually(t, s.Patience, "settlements that are too old are gone", func() bool {
			finish(t, l, r)
			_, settled, err := l.Get(t.Context(), r.ID)
			return err == nil && len(settled) == 0
		})
		wantKept(t, l, r)
	}
}
