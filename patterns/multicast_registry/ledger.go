package multicastregistry

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// firstAsk and askEvery bound the waits between two looks at a first request that is still under way.
	firstAsk = 10 * time.Millisecond
	askEvery = 250 * time.Millisecond
	// takeOverAfter is how long after its deadline a multicast that has not returned counts as one whose process is gone.
	takeOverAfter = 5 * time.Second
	// maxFilterText bounds the filter in a record.
	maxFilterText = 64 << 10
)

// entry is the record of a multicast under way. A nil entry, where multicasts are not kept, does nothing.
type entry struct {
	c       *Coordinator
	record  Record
	summary summary
	begin   sync.WaitGroup
}

// enter begins the record of a multicast. A request whose idempotency key was used before gets the first one's result, which
// it waits for if need be; should the process of the first one be gone, this multicast takes its place and its id. One that is
// refused, because of too many targets, gets the first one's result or that error, and takes no key.
func (c *Coordinator) enter(
	ctx context.Context, req *Request, message *Message, start time.Time, refused error,
) (*entry, *Result, error) {
	if c.ledger == nil {
		return nil, nil, nil
	}
	e := &entry{c: c, record: Record{ID: message.ID, Key: req.ownKey()}, summary: summary{
		State: Running, CreatedAt: start, Deadline: start.Add(req.Timeout).Add(c.cfg.Timeout), Filter: filterText(req.Filter),
		PayloadBytes: len(req.Payload), ContentType: req.ContentType, Delivery: req.Delivery, Key: req.IdempotencyKey,
		Owner: req.Owner,
	}}
	if req.IdempotencyKey == "" {
		e.record.Summary = e.summary.encode()
		detached, cancel := detach(ctx, c.cfg.Timeout)
		e.begin.Go(func() { // the messages need not wait for it
			defer cancel()
			_, _, _ = c.ledger.Begin(detached, e.record) // finish stores the record all the same, or says why not
		})
		return e, nil, nil
	}
	e.summary.Fingerprint = fingerprint(req)
	e.record.Summary = e.summary.encode()
	for ask := firstAsk; ; ask = min(2*ask, askEvery) {
		held, began, err := e.claim(ctx, refused)
		if err != nil {
			return nil, nil, err
		}
		if began {
			return e, nil, nil
		}
		first, err := decodeSummary(held.Summary)
		switch {
		case err != nil:
			return nil, nil, keyError(err)
		case first.Fingerprint != e.summary.Fingerprint:
			return nil, nil, invalid("idempotency_key", "was used for multicast %s, which had another filter, payload, content type "+
				"or delivery; nothing was sent", held.ID)
		case first.State != Running:
			result, err := c.replay(ctx, held.ID)
			if !errors.Is(err, ErrNotFound) { // else it has just become too old
				return nil, result, err
			}
		case time.Since(first.Deadline) > takeOverAfter && refused != nil:
			return nil, nil, refused
		case time.Since(first.Deadline) > takeOverAfter:
			if took, err := e.takeOver(ctx, held); err != nil || took {
				message.ID = e.record.ID
				return e, nil, err
			}
		}
		if wait(ctx, ask); ctx.Err() != nil {
			return nil, nil, keyError(fmt.Errorf("%w: the first request, multicast %s, is still under way", ErrUnavailable, held.ID))
		}
	}
}

// claim begins the record, or returns the one that has the key.
func (e *entry) claim(ctx context.Context, refused error) (held Record, began bool, err error) {
	if refused == nil {
		held, began, err = e.c.ledger.Begin(ctx, e.record)
		began = began || held.ID == e.record.ID // ours, though the answer to an earlier try was lost
	} else if held, err = e.c.ledger.Held(ctx, e.record.Key); errors.Is(err, ErrNotFound) {
		return held, false, refused
	}
	if err != nil {
		return held, false, keyError(err)
	}
	return held, began, nil
}

// takeOver puts the entry in the place of a multicast whose process is gone, with a deadline of its own, which other repeats wait
// for; unless one of those is faster. One that was cancelled is left alone.
func (e *entry) takeOver(ctx context.Context, dead Record) (took bool, err error) {
	_, settlements, err := e.c.ledger.Get(ctx, dead.ID)
	switch {
	case errors.Is(err, ErrNotFound): // it has just become too old
		return false, nil
	case err != nil:
		return false, keyError(err)
	case cancelled(settlements):
		return false, invalid("idempotency_key", "was used for multicast %s, which was cancelled; nothing was sent", dead.ID)
	}
	mine := e.record
	mine.ID = dead.ID
	if took, err = e.c.ledger.Replace(ctx, mine, dead.Summary); err != nil {
		return false, keyError(err)
	}
	if took {
		e.record = mine
	}
	return took, nil
}

func keyError(err error) error {
	return fmt.Errorf("nothing was sent: idempotency_key: %w", err)
}

// replay returns the first result of a multicast that has returned.
func (c *Coordinator) replay(ctx context.Context, id string) (*Result, error) {
	record, _, err := c.ledger.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	kept, err := decodeRecord(record)
	if err != nil {
		return nil, err
	}
	kept.Result.Replayed = true
	return &kept.Result, nil
}

// finish puts the result into the record, as withdrawn if the multicast was cancelled in time. The caller may have left, or have
// no time to wait for the ledger: the record is stored all the same.
func (e *entry) finish(ctx context.Context, result *Result, withdrawn bool) {
	if e == nil {
		return
	}
	type answer struct {
		withdrawn []int
		err       error
	}
	done := make(chan answer, 1)
	record := e.finished(result, withdrawn)
	e.c.later(func() {
		places, err := e.store(ctx, record)
		done <- answer{places, err}
	})
	var late <-chan struct{}
	if ctx.Err() == nil { // else nobody waits for the result
		waiting, cancel := withMargin(ctx, time.Now(), 3*e.c.cfg.Timeout)
		defer cancel()
		late = waiting.Done()
	}
	var got answer
	select {
	case got = <-done:
	case <-late:
		got.err = errLate
	}
	withdrawTargets(result, got.withdrawn)
	if got.err != nil {
		result.Unrecorded = fmt.Errorf("multicast %s: store its record: %w", record.ID, got.err)
	}
}

var errLate = fmt.Errorf("%w: the ledger had not answered by the call's deadline", ErrUnavailable)

// finished returns the record with the result.
func (e *entry) finished(result *Result, withdrawn bool) Record {
	e.summary.of(result)
	if withdrawn {
		e.summary.State = WithdrawnByID
	}
	return Record{ID: e.record.ID, Key: e.record.Key, Summary: e.summary.encode(), Targets: encodeTargets(result.Targets)}
}

// store stores the record. If the multicast was cancelled meanwhile, through another process, it withdraws what has just been
// stored, and returns the places of those targets: who cancels marks first and looks at the record then, so one of the two
// sees the other.
func (e *entry) store(ctx context.Context, record Record) (withdrawn []int, err error) {
	e.begin.Wait()
	ctx, cancel := detach(ctx, 2*e.c.cfg.Timeout)
	defer cancel()
	err = e.write(ctx, record)
	if e.summary.Pending == 0 {
		return nil, err
	}
	if _, settlements, unread := e.c.ledger.Get(ctx, record.ID); unread != nil || !cancelled(settlements) {
		return nil, err
	}
	kept, unread := decodeRecord(record) // with targets of its own: the caller may have the others already
	if unread != nil {
		return nil, unread
	}
	at, messages := e.c.pending(kept)
	was, failed := e.c.recaller.Withdraw(ctx, messages)
	for n, i := range at {
		if failed == nil && was[n] { // else it stays Pending, as it is
			withdrawn = append(withdrawn, i)
		}
	}
	if len(withdrawn) == 0 {
		return nil, err
	}
	withdrawTargets(&kept.Result, withdrawn)
	return withdrawn, e.write(ctx, e.finished(&kept.Result, true))
}

func (e *entry) write(ctx context.Context, record Record) error {
	ctx, cancel := context.WithTimeout(ctx, e.c.cfg.Timeout)
	defer cancel()
	return e.c.ledger.Finish(ctx, record)
}

// withdrawTargets has targets fail because their stored messages were withdrawn.
func withdrawTargets(r *Result, places []int) {
	if len(places) == 0 {
		return
	}
	for _, i := range places {
		t := &r.Targets[i]
		t.Status, t.Evidence, t.Reason, t.Err = Failed, 0, Withdrawn, errWithdrawn
	}
	r.count()
}

// detach returns a context that does not end with the caller's, but after a time.
func detach(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), most)
}

// stored names a message in the durability slot.
func (c *Coordinator) stored(id, identity string) Message {
	return Message{Topic: Topic(c.cfg.Namespace, identity), Identity: identity, ID: id}
}

// ownKey is the idempotency key as the record has it: that of an owner cannot be another's.
func (r *Request) ownKey() string {
	if r.IdempotencyKey == "" || r.Owner == "" {
		return r.IdempotencyKey
	}
	return digest([]byte(r.Owner), []byte(r.IdempotencyKey))
}

// fingerprint tells requests apart that have the same idempotency key.
func fingerprint(req *Request) string {
	parts := [][]byte{[]byte(filterText(req.Filter)), req.Payload, []byte(req.ContentType), []byte(req.Delivery)}
	if req.Within != nil {
		parts = append(parts, []byte(filterText(req.Within)))
	}
	return digest(parts...)
}

// digest is a hash of texts, each apart from the others.
func digest(parts ...[]byte) string {
	h := sha256.New()
	for _, part := range parts {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		h.Write(size[:])
		h.Write(part)
	}
	return hex.EncodeToString(h.Sum(nil))
}
