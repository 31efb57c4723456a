package multicastregistry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// State says how far a multicast is.
type State uint8

// The states.
const (
	// Running means that the call is under way, or that the process which ran it is gone.
	Running State = iota + 1
	// Returned means that the call has returned. Pending targets may become Delivered still.
	Returned
	// WithdrawnByID means that CancelMulticast was called in time: before the call returned, or with something to withdraw.
	WithdrawnByID
)

// MulticastRecord is what is kept of a multicast.
type MulticastRecord struct {
	// State says how far it is.
	State State
	// CreatedAt is when it was sent, by the sender's clock.
	CreatedAt time.Time
	// Filter is the request's, as canonical JSON. Empty: every identity, or a filter of more than 64 KiB, which is not kept.
	Filter string
	// PayloadBytes is the size of the payload, which itself is not kept.
	PayloadBytes int
	// ContentType is the media type of the payload.
	ContentType string
	// IdempotencyKey is the request's. Empty: none.
	IdempotencyKey string
	// Owner is the request's. Empty: nobody was named.
	Owner string
	// Result is what has become of it by now. While Running it has the ID and the Delivery only.
	Result Result

	marked bool // CancelMulticast was called, maybe too late
}

// MaxMulticastsPage is the most multicasts that ListMulticasts returns.
const MaxMulticastsPage = 1000

// GetMulticast returns what has become of a multicast by now, target by target. ErrNotFound when it is unknown or older than
// the retention, ErrUnsupported when the durability slot keeps no multicasts.
func (c *Coordinator) GetMulticast(ctx context.Context, id string) (*MulticastRecord, error) {
	record, _, err := c.load(ctx, id)
	return record, err
}

// load returns a multicast as it is by now, and whether its call is under way, cancelled or not.
func (c *Coordinator) load(ctx context.Context, id string) (record *MulticastRecord, running bool, err error) {
	if c.ledger == nil {
		return nil, false, c.keepsNone()
	}
	if id == "" {
		return nil, false, invalid("multicast_id", "must be the id of a multicast")
	}
	kept, settlements, err := c.ledger.Get(ctx, id)
	if err != nil {
		return nil, false, err
	}
	if record, err = decodeRecord(kept); err != nil {
		return nil, false, err
	}
	running = record.State == Running
	record.settle(settlements)
	if err := c.expire(ctx, record); err != nil {
		return nil, false, err
	}
	return record, running, nil
}

// expire finds the targets that are Pending by the record although nothing is stored for them any more.
func (c *Coordinator) expire(ctx context.Context, record *MulticastRecord) error {
	at, messages := c.pending(record)
	if len(messages) == 0 {
		return nil
	}
	stored, err := c.recaller.Stored(ctx, messages)
	if err != nil {
		return err
	}
	if !slices.Contains(stored, false) {
		return nil
	}
	// Who acknowledges a stored message settles first and removes then: what is gone by now was settled before, or never.
	_, settlements, err := c.ledger.Get(ctx, record.Result.ID)
	if err != nil {
		return err
	}
	for n, i := range at {
		if t := &record.Result.Targets[i]; !stored[n] {
			t.Status, t.Evidence, t.Reason, t.Err = Failed, 0, Expired, errExpired
			if record.marked {
				t.Reason, t.Err = Withdrawn, errWithdrawn
			}
		}
	}
	record.settle(settlements)
	return nil
}

// pending returns the messages of a multicast that are stored, and the places of their targets.
func (c *Coordinator) pending(record *MulticastRecord) (at []int, messages []Message) {
	for i := range record.Result.Targets {
		if t := &record.Result.Targets[i]; t.Status == Pending {
			at, messages = append(at, i), append(messages, c.stored(record.Result.ID, t.Identity))
		}
	}
	return at, messages
}

// ListMulticasts returns kept multicasts, latest first, up to limit (1 to MaxMulticastsPage) of those before the given id;
// empty: from the latest. Their results have counts and no targets. Errors as for GetMulticast.
func (c *Coordinator) ListMulticasts(ctx context.Context, before string, limit int) ([]*MulticastRecord, error) {
	if c.ledger == nil {
		return nil, c.keepsNone()
	}
	if limit < 1 || limit > MaxMulticastsPage {
		return nil, invalid("page_size", "must be 1 to %d", MaxMulticastsPage)
	}
	kept, err := c.ledger.List(ctx, before, limit)
	if err != nil {
		return nil, err
	}
	out := make([]*MulticastRecord, 0, len(kept))
	for i := range kept {
		s, err := decodeSummary(kept[i].Summary)
		if err != nil {
			return nil, fmt.Errorf("multicast %s: %w", kept[i].ID, err)
		}
		record := s.record(kept[i].ID)
		if record.State == Running || record.Result.Pending > 0 { // or not any more
			switch now, err := c.GetMulticast(ctx, kept[i].ID); {
			case errors.Is(err, ErrNotFound): // it has just become too old
				continue
			case err != nil:
				return nil, err
			default:
				now.Result.Targets = nil
				record = now
			}
		}
		out = append(out, record)
	}
	return out, nil
}

// CancelMulticast withdraws what is stored and not delivered, and ends the multicast if it is under way: at once in this
// process; one that runs in another withdraws at its end what it has stored. Where nothing is left to cancel it changes nothing.
// It tells how many messages it has withdrawn, and what has become of the multicast. Errors as for GetMulticast.
func (c *Coordinator) CancelMulticast(ctx context.Context, id string) (withdrawn int, record *MulticastRecord, err error) {
	record, running, err := c.load(ctx, id)
	if err != nil {
		return 0, nil, err
	}
	if at, _ := c.pending(record); !running && len(at) == 0 {
		return 0, record, nil // nothing is left to cancel
	}
	mark := Settlement{ID: id, Final: true, Data: []byte{settledCancelled}}
	if err := errors.Join(c.ledger.Settle(ctx, []Settlement{mark})...); err != nil {
		return 0, nil, err
	}
	if f := c.find(id); f != nil {
		f.cancelled.Store(true)
		f.cancel()
	}
	for ask := firstAsk; running && ask <= askEvery; ask *= 2 { // it returns soon, if it runs here
		wait(ctx, ask)
		if record, running, err = c.load(ctx, id); err != nil {
			return 0, nil, err
		}
	}
	at, messages := c.pending(record)
	if len(messages) > 0 {
		if withdrawn, err = c.withdraw(ctx, record, at, messages); err != nil {
			return 0, nil, err
		}
	}
	record, err = c.GetMulticast(ctx, id)
	return withdrawn, record, err
}

func (c *Coordinator) withdraw(ctx context.Context, record *MulticastRecord, at []int, messages []Message) (n int, err error) {
	was, err := c.recaller.Withdraw(ctx, messages)
	if err != nil {
		return 0, err
	}
	var settlements []Settlement
	for k, i := range at {
		if was[k] {
			settlements = append(settlements, Settlement{
				ID: record.Result.ID, Identity: record.Result.Targets[i].Identity, Data: []byte{settledWithdrawn},
			})
		}
	}
	return len(settlements), errors.Join(c.ledger.Settle(ctx, settlements)...)
}

func (c *Coordinator) keepsNone() error {
	return fmt.Errorf("multicasts: %w: they are kept only in a namespace whose durability slot can", ErrUnsupported)
}
