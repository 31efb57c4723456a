package nats

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// The headers of what a ledger keeps.
const (
	headerKey     = "Prism-Key"     // of a record: its idempotency key
	headerChunks  = "Prism-Chunks"  // of a record: how many chunks it has
	headerVersion = "Prism-Version" // of a record: the token in the subjects of its chunks
	headerFinal   = "Prism-Final"   // of a settlement: flagged, or absent
)

const (
	// idsAge and idsGrowth say after how long, and how many new records, a ledger asks which records others have stored.
	idsAge    = 10 * time.Second
	idsGrowth = 64
	// settleTries is how often one settlement is tried when others come in between.
	settleTries = 20
	// getTries is how often a record is read whose parts are being replaced.
	getTries = 10
)

// ledger keeps multicasts in a stream of their own, which holds one message for each subject:
//
//	prism-ledger.<namespace>.record.<id>                       the summary; its headers tell the key and the chunks
//	prism-ledger.<namespace>.part.<id>.chunk.<version>.<i>     a chunk; written before the record that names the version
//	prism-ledger.<namespace>.part.<id>.settled.<identity>      a settlement
//	prism-ledger.<namespace>.key.<key>                         the id of the record that has the key
//
// Ids, identities and keys are spelled as multicastregistry.EncodeName does; an empty identity is "~". A record is begun by its
// key: of several only one is stored under the condition that there is none, after its record; the others remove theirs. A key
// whose record is gone is free.
type ledger struct {
	conn      *Conn
	stream    *stream
	prefix    string
	most      int
	retention time.Duration

	mu    sync.Mutex
	ids   []string // of records, sorted, as far as known
	grown int      // how many came since they were asked for
	asked time.Time
}

func newLedger(conn *Conn, cfg DurabilityConfig) *ledger {
	return &ledger{
		conn: conn, stream: &stream{conn: conn, name: "prism-ledger-" + cfg.Namespace},
		prefix: "prism-ledger." + cfg.Namespace + ".", most: cfg.MaxMulticasts, retention: cfg.Retention,
	}
}

func (l *ledger) record(id string) string { return l.prefix + "record." + token(id) }
func (l *ledger) parts(id string) string  { return l.prefix + "part." + token(id) + "." }
func (l *ledger) key(key string) string   { return l.prefix + "key." + token(key) }

func (l *ledger) chunk(id, version string, i int) string {
	return l.parts(id) + "chunk." + version + "." + strconv.Itoa(i)
}

func (l *ledger) settlement(id, identity string) string {
	return l.parts(id) + "settled." + token(identity)
}

// Begin implements multicastregistry.Ledger.
func (d *Durability) Begin(ctx context.Context, record multicastregistry.Record) (multicastregistry.Record, bool, error) {
	held, began, err := d.ledger.begin(ctx, record)
	return held, began, wrap("begin multicast", record.ID, err)
}

func (l *ledger) begin(
	ctx context.Context, record multicastregistry.Record,
) (held multicastregistry.Record, began bool, err error) {
	record.Targets = nil
	if record.Key == "" {
		if _, err = l.put(ctx, record, "", 0); err == nil {
			err = l.trim(ctx, record.ID)
		}
		return record, err == nil, err
	}
	for attempt := 0; ; attempt++ {
		m, ok, err := l.stream.last(ctx, l.key(record.Key))
		if err != nil {
			return held, false, err
		}
		if ok {
			held, err := l.summary(ctx, string(m.data))
			if err == nil {
				return held, false, nil
			}
			if !errors.Is(err, multicastregistry.ErrNotFound) {
				return held, false, err
			}
		}
		seq, err := l.put(ctx, record, "", 0)
		if err != nil {
			return held, false, err
		}
		err = l.putKey(ctx, record, m.seq)
		if err == nil {
			return record, true, l.trim(ctx, record.ID)
		}
		if isConflict(err) || !isUnanswered(err) { // else it may be ours
			_, errs := l.stream.purge(ctx, 1, func(int) (string, uint64) { return l.record(record.ID), seq + 1 })
			err = cmp.Or(firstOf(errs), err)
		}
		if !isConflict(err) {
			return held, false, err
		}
		if err := giveWay(ctx, attempt); err != nil {
			return held, false, err
		}
	}
}

// put writes the record itself, and returns its sequence: in the place of the message with the given one, or 0: of any. Of its
// targets it tells only how many there are, and the version.
func (l *ledger) put(ctx context.Context, record multicastregistry.Record, version string, over uint64) (uint64, error) {
	seqs, errs := l.stream.publish(ctx, 1, func(_ int, m *nats.Msg) error {
		m.Subject, m.Data = l.record(record.ID), record.Summary
		m.Header = nats.Header{headerChunks: {strconv.Itoa(len(record.Targets))}, headerVersion: {version}}
		if record.Key != "" {
			m.Header[headerKey] = []string{multicastregistry.EncodeName(record.Key)}
		}
		if over > 0 {
			m.Header[headerExpected] = []string{strconv.FormatUint(over, 10)}
		}
		return nil
	})
	return seqs[0], errs[0]
}

// putKey writes the key of a record in the place of the message with the given sequence.
func (l *ledger) putKey(ctx context.Context, record multicastregistry.Record, over uint64) error {
	_, errs := l.stream.publish(ctx, 1, func(_ int, m *nats.Msg) error {
		m.Subject, m.Data = l.key(record.Key), []byte(record.ID)
		m.Header = nats.Header{headerExpected: {strconv.FormatUint(over, 10)}}
		return nil
	})
	return errs[0]
}

// summary returns a record without its targets.
func (l *ledger) summary(ctx context.Context, id string) (multicastregistry.Record, error) {
	m, ok, err := l.stream.last(ctx, l.record(id))
	if err != nil {
		return multicastregistry.Record{}, err
	}
	if !ok {
		return multicastregistry.Record{}, multicastregistry.ErrNotFound
	}
	return l.parse(&m)
}

func (l *ledger) parse(m *streamMsg) (r multicastregistry.Record, err error) {
	var ok, has bool
	r.ID, ok = untoken(strings.TrimPrefix(m.subject, l.prefix+"record."))
	r.Key, has = multicastregistry.DecodeName(first(m.header, headerKey))
	if !ok || !has {
		return r, fmt.Errorf("a record under %q that is none", m.subject)
	}
	r.Summary = m.data
	return r, nil
}

// untoken is the inverse of token.
func untoken(text string) (string, bool) {
	if text == "~" {
		return "", true
	}
	return multicastregistry.DecodeName(text)
}

// Finish implements multicastregistry.Ledger.
func (d *Durability) Finish(ctx context.Context, record multicastregistry.Record) error {
	return wrap("finish multicast", record.ID, d.ledger.finish(ctx, record, 0))
}

// finish writes a record with its targets, in the place of the record with the given sequence, or 0: of any. A conflict says that
// there is another one.
func (l *ledger) finish(ctx context.Context, record multicastregistry.Record, over uint64) error {
	version := rand.Text()
	seqs, errs := l.stream.publish(ctx, len(record.Targets), func(i int, m *nats.Msg) error {
		m.Subject, m.Data = l.chunk(record.ID, version, i), record.Targets[i]
		return nil
	})
	if err := firstOf(errs); err != nil {
		return err
	}
	seq, err := l.put(ctx, record, version, over)
	if isConflict(err) {
		_, errs := l.stream.purge(ctx, min(1, len(seqs)), func(int) (string, uint64) {
			return l.parts(record.ID) + "chunk." + version + ".>", 0
		})
		return cmp.Or(firstOf(errs), err)
	}
	if err != nil {
		return err
	}
	if err := l.keepKey(ctx, record); err != nil {
		return err
	}
	below := seq // chunks of an earlier version
	if len(seqs) > 0 {
		below = slices.Min(seqs)
	}
	_, errs = l.stream.purge(ctx, 1, func(int) (string, uint64) { return l.parts(record.ID) + "chunk.>", below })
	if err := firstOf(errs); err != nil {
		return err
	}
	return l.trim(ctx, record.ID)
}

// Replace implements multicastregistry.Ledger.
func (d *Durability) Replace(ctx context.Context, record multicastregistry.Record, was []byte) (bool, error) {
	replaced, err := d.ledger.replace(ctx, record, was)
	return replaced, wrap("replace multicast", record.ID, err)
}

func (l *ledger) replace(ctx context.Context, record multicastregistry.Record, was []byte) (bool, error) {
	for attempt := 0; ; attempt++ {
		m, ok, err := l.stream.last(ctx, l.record(record.ID))
		if err != nil || !ok || !bytes.Equal(m.data, was) {
			return false, err
		}
		if err = l.finish(ctx, record, m.seq); !isConflict(err) {
			return err == nil, err
		}
		if err := giveWay(ctx, attempt); err != nil {
			return false, err
		}
	}
}

// Held implements multicastregistry.Ledger.
func (d *Durability) Held(ctx context.Context, key string) (multicastregistry.Record, error) {
	held, err := d.ledger.held(ctx, key)
	return held, wrap("find the multicast of key", key, err)
}

func (l *ledger) held(ctx context.Context, key string) (multicastregistry.Record, error) {
	m, ok, err := l.stream.last(ctx, l.key(key))
	if err != nil {
		return multicastregistry.Record{}, err
	}
	if !ok {
		return multicastregistry.Record{}, multicastregistry.ErrNotFound
	}
	return l.summary(ctx, string(m.data))
}

// keepKey has the key last as long as the record that has just been written, unless another record has it.
func (l *ledger) keepKey(ctx context.Context, record multicastregistry.Record) error {
	if record.Key == "" {
		return nil
	}
	m, ok, err := l.stream.last(ctx, l.key(record.Key))
	if err != nil || ok && string(m.data) != record.ID {
		return err
	}
	if err = l.putKey(ctx, record, m.seq); isConflict(err) {
		return nil // somebody else has just done so, or has it
	}
	return err
}

// Settle implements multicastregistry.Ledger.
func (d *Durability) Settle(ctx context.Context, settlements []multicastregistry.Settlement) []error {
	results := d.ledger.settle(ctx, settlements)
	for i := range settlements {
		results[i] = wrap("settle multicast", settlements[i].ID, results[i])
	}
	return results
}

func (l *ledger) settle(ctx context.Context, settlements []multicastregistry.Settlement) []error {
	results := make([]error, len(settlements))
	which, over := make([]int, len(settlements)), make([]uint64, len(settlements))
	for i := range which {
		which[i] = i
	}
	for attempt := 0; len(which) > 0; attempt++ {
		errs := l.putSettlements(ctx, settlements, which, over)
		var again []int
		for n, i := range which {
			results[i] = errs[n]
			if isConflict(errs[n]) && attempt < settleTries {
				again = append(again, i)
			}
		}
		var err error
		if which, err = l.unsettled(ctx, settlements, again, over, results); err == nil && len(which) > 0 {
			err = giveWay(ctx, attempt)
		}
		if err != nil {
			for _, i := range again {
				results[i] = err
			}
			return results
		}
	}
	return results
}

// putSettlements writes settlements: final ones in any case, the others in the place of the message with the given sequence.
func (l *ledger) putSettlements(
	ctx context.Context, settlements []multicastregistry.Settlement, which []int, over []uint64,
) []error {
	_, errs := l.stream.publish(ctx, len(which), func(n int, m *nats.Msg) error {
		s := &settlements[which[n]]
		m.Subject, m.Data = l.settlement(s.ID, s.Identity), s.Data
		if s.Final {
			m.Header = nats.Header{headerFinal: {flagged}}
		} else {
			m.Header = nats.Header{headerExpected: {strconv.FormatUint(over[which[n]], 10)}}
		}
		return nil
	})
	return errs
}

// unsettled looks at what stands in the way of settlements, and returns those that may take its place.
func (l *ledger) unsettled(
	ctx context.Context, settlements []multicastregistry.Settlement, which []int, over []uint64, results []error,
) (again []int, err error) {
	bySubject := make(map[string][]int, len(which))
	subjects := make([]string, 0, len(which))
	for _, i := range which {
		subject := l.settlement(settlements[i].ID, settlements[i].Identity)
		if bySubject[subject] == nil {
			subjects = append(subjects, subject)
		}
		bySubject[subject] = append(bySubject[subject], i)
		over[i] = 0
	}
	err = l.stream.lastOf(ctx, subjects, func(m streamMsg) error {
		for _, i := range bySubject[m.subject] {
			over[i] = m.seq
			if first(m.header, headerFinal) == flagged {
				results[i] = nil
			}
		}
		return nil
	})
	for _, i := range which {
		if results[i] != nil {
			again = append(again, i)
		}
	}
	return again, err
}

// Get implements multicastregistry.Ledger.
func (d *Durability) Get(ctx context.Context, id string) (multicastregistry.Record, []multicastregistry.Settlement, error) {
	record, settlements, err := d.ledger.get(ctx, id)
	return record, settlements, wrap("get multicast", id, err)
}

func (l *ledger) get(
	ctx context.Context, id string,
) (r multicastregistry.Record, settled []multicastregistry.Settlement, err error) {
	for attempt := 0; ; attempt++ {
		m, ok, err := l.stream.last(ctx, l.record(id))
		if err != nil {
			return r, nil, err
		}
		if !ok {
			return r, nil, multicastregistry.ErrNotFound
		}
		if r, err = l.parse(&m); err != nil {
			return r, nil, err
		}
		whole, err := l.chunks(ctx, &r, &m)
		if err != nil {
			return r, nil, err
		}
		if whole {
			break
		}
		if attempt == getTries { // finished again and again, or its parts have just become too old
			return r, nil, multicastregistry.ErrNotFound
		}
		if err := giveWay(ctx, attempt); err != nil {
			return r, nil, err
		}
	}
	settled, err = l.settlements(ctx, id)
	return r, settled, err
}

// chunks reads the targets of a record. It is not whole when they are being replaced.
func (l *ledger) chunks(ctx context.Context, r *multicastregistry.Record, m *streamMsg) (whole bool, err error) {
	n, err := strconv.Atoi(first(m.header, headerChunks))
	if err != nil || n == 0 {
		return true, nil //nolint:nilerr // a record without them
	}
	subjects, at := make([]string, n), make(map[string]int, n)
	for i := range subjects {
		subjects[i] = l.chunk(r.ID, first(m.header, headerVersion), i)
		at[subjects[i]] = i
	}
	r.Targets = make([][]byte, n)
	found := 0
	err = l.stream.lastOf(ctx, subjects, func(m streamMsg) error {
		if i, ok := at[m.subject]; ok && r.Targets[i] == nil {
			r.Targets[i] = m.data
			found++
		}
		return nil
	})
	return found == n, err
}

func (l *ledger) settlements(ctx context.Context, id string) (settled []multicastregistry.Settlement, err error) {
	prefix := l.parts(id) + "settled."
	subjects, _, err := l.stream.subjects(ctx, prefix+"*")
	if err != nil {
		return nil, err
	}
	return settled, l.stream.lastOf(ctx, subjects, func(m streamMsg) error {
		identity, ok := untoken(strings.TrimPrefix(m.subject, prefix))
		if ok {
			settled = append(settled, multicastregistry.Settlement{
				ID: id, Identity: identity, Final: first(m.header, headerFinal) == flagged, Data: m.data,
			})
		}
		return nil
	})
}

// List implements multicastregistry.Ledger.
func (d *Durability) List(ctx context.Context, before string, limit int) ([]multicastregistry.Record, error) {
	records, err := d.ledger.list(ctx, before, limit)
	return records, wrap("list multicasts", "", err)
}

func (l *ledger) list(ctx context.Context, before string, limit int) ([]multicastregistry.Record, error) {
	encoded, err := l.ask(ctx)
	if err != nil {
		return nil, err
	}
	ids := make([]string, 0, len(encoded))
	for _, text := range encoded {
		if id, ok := untoken(text); ok {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int { return strings.Compare(b, a) })
	ids = ids[:min(len(ids), l.most)]
	if before != "" {
		from, _ := slices.BinarySearchFunc(ids, before, func(id, before string) int {
			if id >= before {
				return -1
			}
			return 1
		})
		ids = ids[from:]
	}
	ids = ids[:min(len(ids), max(limit, 0))]
	subjects := make([]string, len(ids))
	for i, id := range ids {
		subjects[i] = l.record(id)
	}
	records := make([]multicastregistry.Record, 0, len(ids))
	if err := l.stream.lastOf(ctx, subjects, func(m streamMsg) error {
		r, err := l.parse(&m)
		if err == nil {
			records = append(records, r)
		}
		return err
	}); err != nil {
		return nil, err
	}
	slices.SortFunc(records, func(a, b multicastregistry.Record) int { return strings.Compare(b.ID, a.ID) })
	return slices.CompactFunc(records, func(a, b multicastregistry.Record) bool { return a.ID == b.ID }), nil
}

// ask asks which records are kept, by their encoded ids.
func (l *ledger) ask(ctx context.Context) ([]string, error) {
	subjects, _, err := l.stream.subjects(ctx, l.prefix+"record.*")
	for i, subject := range subjects {
		subjects[i] = strings.TrimPrefix(subject, l.prefix+"record.")
	}
	return subjects, err
}

// trim removes the oldest records where there are too many, after one has come. It asks now and then which ones others have
// added: the bound is exact for one process, and several may exceed it by what each adds between two times.
func (l *ledger) trim(ctx context.Context, id string) error {
	l.mu.Lock()
	ask := time.Since(l.asked) > idsAge || l.grown >= idsGrowth
	l.mu.Unlock()
	var all []string
	if ask {
		asked := time.Now()
		encoded, err := l.ask(ctx)
		if err != nil {
			return err
		}
		for _, text := range encoded {
			if id, ok := untoken(text); ok {
				all = append(all, id)
			}
		}
		slices.Sort(all)
		l.mu.Lock()
		l.ids, l.grown, l.asked = all, 0, asked
		l.mu.Unlock()
	}
	l.mu.Lock()
	if at, found := slices.BinarySearch(l.ids, id); !found {
		l.ids = slices.Insert(l.ids, at, id)
		l.grown++
	}
	excess := slices.Clone(l.ids[:max(0, len(l.ids)-l.most)])
	l.mu.Unlock()
	if len(excess) == 0 {
		return nil
	}
	_, errs := l.stream.purge(ctx, 2*len(excess), func(i int) (string, uint64) {
		if i%2 == 0 {
			return l.record(excess[i/2]), 0
		}
		return l.parts(excess[i/2]) + ">", 0
	})
	if err := firstOf(errs); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, gone := range excess {
		if at, found := slices.BinarySearch(l.ids, gone); found {
			l.ids = slices.Delete(l.ids, at, at+1)
		}
	}
	return nil
}
