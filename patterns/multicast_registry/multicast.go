package multicastregistry

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// How a multicast flows: the targets are resolved once; their messages go to the messaging slot in chunks, a few chunks
// at a time; every result and every receipt settles one target of the flight (flight.go); the call returns when the last
// target is settled, when the deadline passes, or when the caller leaves. What nobody received is then stored, if there
// is a durability slot.

// Request is what Multicast takes.
type Request struct {
	// Filter selects the targets by metadata; nil matches every identity.
	Filter *filter.Expr
	// Payload is the content, up to the namespace's MaxPayload bytes. It must not be changed afterwards.
	Payload []byte
	// ContentType is the media type of the payload, up to 255 bytes of printable ASCII. Default: application/octet-stream.
	ContentType string
	// Delivery is the mode. Default: the namespace's.
	Delivery DeliveryMode
	// Timeout is the longest time that looking up the targets and waiting for outcomes may take; the context's deadline
	// counts too. Default: the namespace's.
	Timeout time.Duration
	// RetryAttempts and RetryDelay take the place of the namespace's, see Config. 0: the namespace's.
	RetryAttempts int
	RetryDelay    time.Duration
	// IdempotencyKey names the request, up to MaxKeyBytes: a request with a key that was used before returns the first one's
	// result, and is refused when it asks for something else. Needs a durability slot with a Ledger. Empty: none.
	IdempotencyKey string
	// MaxTargets refuses the multicast with ErrQuota, before anything is sent, when more identities match. 0: any number.
	MaxTargets int
	// DryRun resolves the targets and sends nothing.
	DryRun bool
	// Began, if set, is called once when the targets are known, before anything is sent. The result has its ID, Revision,
	// Delivery and the number of targets, in no status yet. It is not called for a replayed result.
	Began func(id string, revision Revision, targets int)
	// Settled, if set, is called with outcomes as they become final, each target's once, all before Multicast returns; by
	// one goroutine at a time. The slice must not be kept.
	Settled func(targets []Target)
}

// Multicast delivers a payload to every identity that matches and tells what became of each. It returns an error only
// when nothing was sent: the request is invalid or the registry cannot be read. Everything after that is in the result,
// the end of the context included.
func (c *Coordinator) Multicast(ctx context.Context, req Request) (*Result, error) {
	start := time.Now()
	req, err := c.completed(req)
	if err != nil {
		return nil, err
	}
	waiting, cancel := withMargin(ctx, start, req.Timeout)
	defer cancel()
	matches, revision, err := c.matches(waiting, req.Filter)
	switch {
	case err != nil && waiting.Err() != nil && ctx.Err() == nil:
		return nil, fmt.Errorf("nothing was sent: the timeout of %s passed while the targets were looked up: %w", req.Timeout, err)
	case err != nil:
		return nil, err
	}
	message := Message{
		ID: newID(start), ContentType: req.ContentType, Payload: req.Payload, SentAt: start.Truncate(time.Millisecond),
	}
	f := c.launch(message, req.Delivery.acked(), matches)
	f.publish(waiting)
	f.wait(waiting)
	complete := c.land(f)

	result := &Result{ID: message.ID, Revision: revision, Targets: f.targets, Delivery: req.Delivery, Ended: Complete}
	switch {
	case complete:
	case errors.Is(ctx.Err(), context.Canceled):
		result.Ended = Cancelled
	default:
		result.Ended = DeadlinePassed
	}
	if req.Delivery.acked() && result.Ended != Cancelled {
		c.store(ctx, message, result.Targets)
	}
	result.count()
	result.Elapsed = time.Since(start)
	return result, nil
}

// completed checks a request and puts the namespace's defaults into it.
func (c *Coordinator) completed(req Request) (Request, error) {
	if len(req.Payload) > c.cfg.MaxPayload {
		return req, invalid("payload", "is %d bytes long; this namespace allows %d", len(req.Payload), c.cfg.MaxPayload)
	}
	if req.ContentType == "" {
		req.ContentType = "application/octet-stream"
	}
	if len(req.ContentType) > 255 || !printable(req.ContentType) {
		return req, invalid("content_type", "must be a media type of at most 255 printable ASCII characters")
	}
	if req.Delivery == "" {
		req.Delivery = c.cfg.Delivery
	}
	if !slices.Contains(DeliveryModes(), req.Delivery) {
		return req, invalid("delivery", "%q is not a delivery mode; legal values: %v", req.Delivery, DeliveryModes())
	}
	if req.Timeout == 0 {
		req.Timeout = c.cfg.Timeout
	}
	if req.Timeout < 0 {
		return req, invalid("timeout", "must not be negative")
	}
	return req, nil
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// withMargin bounds the wait by the timeout and by the caller's deadline less a margin, in which the answer travels back.
func withMargin(ctx context.Context, start time.Time, timeout time.Duration) (context.Context, context.CancelFunc) {
	end := start.Add(timeout)
	if deadline, ok := ctx.Deadline(); ok {
		margin := min(deadline.Sub(start)/10, 200*time.Millisecond)
		if before := deadline.Add(-margin); before.Before(end) {
			end = before
		}
	}
	return context.WithDeadline(ctx, end)
}

// store hands what was not delivered, but might be, to the durability slot. Targets that it takes become Pending and keep
// the reason; the others keep their status.
func (c *Coordinator) store(ctx context.Context, message Message, targets []Target) {
	if c.slots.Durability == nil {
		return
	}
	var messages []Message
	var at []int
	for i, t := range targets {
		if t.Status == Delivered || t.Reason == PayloadTooLarge {
			continue
		}
		m := message
		m.Identity, m.Topic = t.Identity, Topic(c.cfg.Namespace, t.Identity)
		messages, at = append(messages, m), append(at, i)
	}
	if len(messages) == 0 {
		return
	}
	// The wait may have used up the request's timeout; storing has its own, within the caller's deadline.
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	for i, err := range c.slots.Durability.Enqueue(ctx, messages) {
		t := &targets[at[i]]
		if err == nil {
			t.Status, t.Evidence = Pending, Stored
			continue
		}
		if t.Status == Failed {
			t.Reason = reasonOf(err)
		}
		t.Err = errors.Join(t.Err, err)
	}
}

// newID returns a version 7 UUID: unique, and ordered by time.
func newID(now time.Time) string {
	var u [16]byte
	_, _ = rand.Read(u[6:]) // documented never to fail
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now.UnixMilli()))
	copy(u[:6], ms[2:])
	u[6] = u[6]&0x0f | 0x70
	u[8] = u[8]&0x3f | 0x80
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
