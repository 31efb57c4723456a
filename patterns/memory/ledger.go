package memory

import (
	"bytes"
	"container/list"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	// ledgerBytes bounds what all records and settlements take together.
	ledgerBytes = 256 << 20
	// earlyBytes bounds the share of settlements that came before their record, or after it had gone.
	earlyBytes = 16 << 20
	// recordOverhead and settlementOverhead are about what keeping one takes besides its contents.
	recordOverhead     = 256
	settlementOverhead = 128
)

// ledger keeps the records of multicasts. They go by age and by number, in the order in which they were begun, which every
// call sees to first: a record that is too old is never seen. Settlements of what is not kept wait for its record apart, under
// bounds of their own, so that late ones push no record out. The bytes of records and settlements are the ledger's own.
type ledger struct {
	retention time.Duration
	most      int

	ledgerMu sync.Mutex // guards what follows
	records  map[string]*kept
	keys     map[string]*kept
	byID     []*kept   // in the order of ids, which is that of time, about
	begun    list.List // of *kept, in the order in which they were begun
	early    map[string]*kept
	earlyAge list.List // of *kept, in the order in which they came
	bytes    int       // of records
	apart    int       // of what came early
}

// kept is a record with its settlements, or settlements that wait for one.
type kept struct {
	record      multicastregistry.Record
	settlements map[string]multicastregistry.Settlement // by identity
	at          time.Time
	bytes       int
	place       *list.Element
}

func newLedger(retention time.Duration, most int) ledger {
	return ledger{
		retention: retention, most: most,
		records: make(map[string]*kept), keys: make(map[string]*kept), early: make(map[string]*kept),
	}
}

// Begin implements multicastregistry.Ledger.
func (l *ledger) Begin(
	ctx context.Context, record multicastregistry.Record,
) (held multicastregistry.Record, began bool, err error) {
	if err := ctx.Err(); err != nil {
		return held, false, fmt.Errorf("memory: begin multicast %q: %w", record.ID, err)
	}
	l.ledgerMu.Lock()
	defer l.ledgerMu.Unlock()
	now := time.Now()
	l.expire(now)
	if first := l.keys[record.Key]; first != nil {
		return withoutTargets(first.record), false, nil
	}
	l.store(record, now)
	return held, true, nil
}

// Finish implements multicastregistry.Ledger.
func (l *ledger) Finish(ctx context.Context, record multicastregistry.Record) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("memory: finish multicast %q: %w", record.ID, err)
	}
	l.ledgerMu.Lock()
	defer l.ledgerMu.Unlock()
	now := time.Now()
	l.expire(now)
	l.store(record, now)
	return nil
}

// Held implements multicastregistry.Ledger.
func (l *ledger) Held(ctx context.Context, key string) (multicastregistry.Record, error) {
	err := ctx.Err()
	l.ledgerMu.Lock()
	defer l.ledgerMu.Unlock()
	l.expire(time.Now())
	k := l.keys[key]
	if err == nil && k == nil {
		err = multicastregistry.ErrNotFound
	}
	if err != nil {
		return multicastregistry.Record{}, fmt.Errorf("memory: multicast of key %q: %w", key, err)
	}
	return withoutTargets(k.record), nil
}

// Replace implements multicastregistry.Ledger.
func (l *ledger) Replace(ctx context.Context, record multicastregistry.Record, was []byte) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("memory: replace multicast %q: %w", record.ID, err)
	}
	l.ledgerMu.Lock()
	defer l.ledgerMu.Unlock()
	now := time.Now()
	l.expire(now)
	k := l.records[record.ID]
	if k == nil || !bytes.Equal(k.record.Summary, was) {
		return false, nil
	}
	l.store(record, now)
	return true, nil
}

// store keeps a record, in the place of the one that it had, if any. The caller holds the lock.
func (l *ledger) store(record multicastregistry.Record, now time.Time) {
	record.Summary = slices.Clone(record.Summary)
	record.Targets = slices.Clone(record.Targets)
	for i, chunk := range record.Targets {
		record.Targets[i] = slices.Clone(chunk)
	}
	k := l.records[record.ID]
	if k == nil {
		k = l.adopt(record.ID)
		k.at, k.place = now, l.begun.PushBack(k)
		l.records[record.ID] = k
		i, _ := l.search(record.ID)
		l.byID = slices.Insert(l.byID, i, k)
	} else {
		l.grow(k, -recordBytes(k.record))
		l.giveUpKey(k)
	}
	k.record = record
	l.grow(k, recordBytes(record))
	if record.Key != "" && l.keys[record.Key] == nil {
		l.keys[record.Key] = k
	}
	for l.begun.Len() > l.most || l.bytes > ledgerBytes && l.begun.Len() > 1 {
		l.forget(l.begun.Front().Value.(*kept))
	}
}

// adopt returns a new place for a record, with the settlements that came before it. The caller holds the lock.
func (l *ledger) adopt(id string) *kept {
	waiting := l.early[id]
	if waiting == nil {
		return &kept{}
	}
	l.forgetEarly(waiting)
	k := &kept{settlements: waiting.settlements}
	l.grow(k, waiting.bytes)
	return k
}

// Settle implements multicastregistry.Ledger.
func (l *ledger) Settle(ctx context.Context, settlements []multicastregistry.Settlement) []error {
	results := make([]error, 0, len(settlements))
	for chunk := range slices.Chunk(settlements, storedAtOnce) {
		l.ledgerMu.Lock()
		now := time.Now()
		l.expire(now)
		for _, s := range chunk {
			err := ctx.Err()
			if err == nil {
				l.settle(s, now)
			} else {
				err = fmt.Errorf("memory: settle %q of multicast %q: %w", s.Identity, s.ID, err)
			}
			results = append(results, err)
		}
		l.ledgerMu.Unlock()
	}
	return results
}

// settle adds one settlement. The caller holds the lock.
func (l *ledger) settle(s multicastregistry.Settlement, now time.Time) {
	s.Data = slices.Clone(s.Data)
	k := l.records[s.ID]
	if k != nil {
		l.grow(k, k.settle(s))
		for l.bytes > ledgerBytes && l.begun.Len() > 1 {
			l.forget(l.begun.Front().Value.(*kept))
		}
		return
	}
	if k = l.early[s.ID]; k == nil {
		k = &kept{record: multicastregistry.Record{ID: s.ID}, at: now}
		k.place = l.earlyAge.PushBack(k)
		l.early[s.ID] = k
	}
	size := k.settle(s)
	k.bytes += size
	l.apart += size
	for l.earlyAge.Len() > l.most || l.apart > earlyBytes {
		l.forgetEarly(l.earlyAge.Front().Value.(*kept))
	}
}

// settle adds a settlement, unless one that is there outranks it, and returns how much more there is now.
func (k *kept) settle(s multicastregistry.Settlement) (grown int) {
	old, settled := k.settlements[s.Identity]
	switch {
	case settled && old.Final && !s.Final:
		return 0
	case settled:
		grown = -settlementBytes(old)
	case k.settlements == nil:
		k.settlements = make(map[string]multicastregistry.Settlement)
	}
	k.settlements[s.Identity] = s
	return grown + settlementBytes(s)
}

// Get implements multicastregistry.Ledger.
func (l *ledger) Get(ctx context.Context, id string) (multicastregistry.Record, []multicastregistry.Settlement, error) {
	err := ctx.Err()
	l.ledgerMu.Lock()
	defer l.ledgerMu.Unlock()
	l.expire(time.Now())
	k := l.records[id]
	if err == nil && k == nil {
		err = multicastregistry.ErrNotFound
	}
	if err != nil {
		return multicastregistry.Record{}, nil, fmt.Errorf("memory: get multicast %q: %w", id, err)
	}
	record := k.record
	record.Targets = slices.Clone(record.Targets)
	return record, slices.Collect(maps.Values(k.settlements)), nil
}

// List implements multicastregistry.Ledger.
func (l *ledger) List(ctx context.Context, before string, limit int) ([]multicastregistry.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("memory: list multicasts: %w", err)
	}
	l.ledgerMu.Lock()
	defer l.ledgerMu.Unlock()
	l.expire(time.Now())
	end := len(l.byID)
	if before != "" {
		end, _ = l.search(before)
	}
	page := l.byID[max(end-max(limit, 0), 0):end]
	records := make([]multicastregistry.Record, 0, len(page))
	for _, k := range slices.Backward(page) {
		records = append(records, withoutTargets(k.record))
	}
	return records, nil
}

// search returns the place of an id among all, and whether it is there. The caller holds the lock.
func (l *ledger) search(id string) (place int, found bool) {
	return slices.BinarySearchFunc(l.byID, id, func(k *kept, id string) int { return strings.Compare(k.record.ID, id) })
}

// expire forgets what is too old. The caller holds the lock.
func (l *ledger) expire(now time.Time) {
	for front := l.begun.Front(); front != nil && now.Sub(front.Value.(*kept).at) >= l.retention; front = l.begun.Front() {
		l.forget(front.Value.(*kept))
	}
	for front := l.earlyAge.Front(); front != nil && now.Sub(front.Value.(*kept).at) >= l.retention; front = l.earlyAge.Front() {
		l.forgetEarly(front.Value.(*kept))
	}
}

// forget removes a record and all that belongs to it. The caller holds the lock.
func (l *ledger) forget(k *kept) {
	l.begun.Remove(k.place)
	delete(l.records, k.record.ID)
	l.giveUpKey(k)
	l.grow(k, -k.bytes)
	if i, found := l.search(k.record.ID); found {
		l.byID = without(l.byID, i)
	}
}

func (l *ledger) forgetEarly(k *kept) {
	l.earlyAge.Remove(k.place)
	delete(l.early, k.record.ID)
	l.apart -= k.bytes
}

func (l *ledger) giveUpKey(k *kept) {
	if l.keys[k.record.Key] == k {
		delete(l.keys, k.record.Key)
	}
}

func (l *ledger) grow(k *kept, bytes int) {
	k.bytes += bytes
	l.bytes += bytes
}

// without removes an element. What goes is near the front, as a rule: it is the shorter side that moves.
func without(all []*kept, i int) []*kept {
	if i >= len(all)/2 {
		return slices.Delete(all, i, i+1)
	}
	copy(all[1:], all[:i])
	all[0] = nil
	return all[1:]
}

func withoutTargets(r multicastregistry.Record) multicastregistry.Record {
	r.Targets = nil
	return r
}

func recordBytes(r multicastregistry.Record) int {
	size := recordOverhead + len(r.ID) + len(r.Key) + len(r.Summary)
	for _, chunk := range r.Targets {
		size += len(chunk)
	}
	return size
}

func settlementBytes(s multicastregistry.Settlement) int {
	return settlementOverhead + len(s.ID) + len(s.Identity) + len(s.Data)
}
