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
// it waits for if need be; should the process of the first one be gone, this multicast takes its place and its id.
func (c *Coordinator) enter(ctx context.Context, req *Request, message *Message, start time.Time) (*entry, *Result, error) {
	if c.ledger == nil {
		return nil, nil, nil
	}
	e := &entry{c: c, record: Record{ID: message.ID, Key: req.IdempotencyKey}, summary: summary{
		State: Running, CreatedAt: start, Deadline: start.Add(req.Timeout + c.cfg.Timeout), Filter: filterText(req.Filter),
		PayloadBytes: len(req.Payload), ContentType: req.ContentType, Delivery: req.Delivery, Key: req.IdempotencyKey,
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
		held, began, err := c.ledger.Begin(ctx, e.record)
		if err != nil {
			return nil, nil, fmt.Errorf("nothing was sent: idempotency_key: %w", err)
		}
		if began || held.ID == e.record.ID { // ours, though the answer to an earlier try was lost
			return e, nil, nil
		}
		first, err := decodeSummary(held.Summary)
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("nothing was sent: idempotency_key: %w", err)
		case first.Fingerprint != e.summary.Fingerprint:
			return nil, nil, invalid("idempotency_key", "was used for multicast %s, which had another filter, payload, content type "+
				"or delivery; nothing was sent", held.ID)
		case first.State != Running:
			result, err := c.replay(ctx, held.ID)
			if !errors.Is(err, ErrNotFound) { // else it has just become too old
				return nil, result, err
			}
		case time.Since(first.Deadline) > takeOverAfter:
			message.ID, e.record.ID = held.ID, held.ID
			return e, nil, nil
		}
		if wait(ctx, ask); ctx.Err() != nil {
			return nil, nil, fmt.Errorf("nothing was sent: idempotency_key: %w: the first request, multicast %s, is still under way",
				ErrUnavailable, held.ID)
		}
	}
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

// withdrawIfCancelled withdraws what was just stored when the multicast was cancelled meanwhile, through another process.
func (e *entry) withdrawIfCancelled(ctx context.Context, targets []Target) {
	if e == nil {
		return
	}
	var at []int
	var messages []Message
	for i := range targets {
		if targets[i].Status == Pending {
			at = append(at, i)
			messages = append(messages, e.c.stored(e.record.ID, targets[i].Identity))
		}
	}
	if len(messages) == 0 {
		return
	}
	e.begin.Wait()
	_, settlements, err := e.c.ledger.Get(ctx, e.record.ID)
	if err != nil || !cancelled(settlements) {
		return
	}
	withdrawn, err := e.c.recaller.Withdraw(ctx, messages)
	if err != nil {
		return // they stay Pending, as they are
	}
	for n, i := range at {
		if withdrawn[n] {
			targets[i].Status, targets[i].Evidence, targets[i].Reason, targets[i].Err = Failed, 0, Withdrawn, errWithdrawn
		}
	}
}

// finish puts the result into the record. The caller may have left: the record is stored all the same.
func (e *entry) finish(ctx context.Context, result *Result) {
	if e == nil {
		return
	}
	e.begin.Wait()
	ctx, cancel := detach(ctx, e.c.cfg.Timeout)
	defer cancel()
	e.summary.of(result)
	e.record.Summary, e.record.Targets = e.summary.encode(), encodeTargets(result.Targets)
	if err := e.c.ledger.Finish(ctx, e.record); err != nil {
		result.Unrecorded = fmt.Errorf("multicast %s: store its record: %w", e.record.ID, err)
	}
}

// detach returns a context that does not end with the caller's, but after a time.
func detach(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), most)
}

// stored names a message in the durability slot.
func (c *Coordinator) stored(id, identity string) Message {
	return Message{Topic: Topic(c.cfg.Namespace, identity), Identity: identity, ID: id}
}

// fingerprint tells requests apart that have the same idempotency key.
func fingerprint(req *Request) string {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(filterText(req.Filter)), req.Payload, []byte(req.ContentType), []byte(req.Delivery)} {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		h.Write(size[:])
		h.Write(part)
	}
	return hex.EncodeToString(h.Sum(nil))
}
