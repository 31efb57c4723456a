package multicastregistry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// How a multicast flows: the targets are resolved once; where multicasts are kept, its record begins, and an idempotency key
// that was used before ends it with the first result (ledger.go); its messages fly (flight.go) until the last target is
// settled, the deadline passes, or the caller leaves; what nobody acknowledged is then stored, if there is a durability slot
// (store.go); and the record gets the result.

// Request is what Multicast takes.
type Request struct {
	// Filter selects the targets by metadata; nil matches every identity.
	Filter *filter.Expr
	// Within, if not nil, is what the targets have to match besides. What is kept and told of the filter does not speak of it.
	Within *filter.Expr
	// Owner names who sends, for the record. Requests of different owners with the same IdempotencyKey have nothing to do with
	// each other.
	Owner string
	// Payload is the content, up to the namespace's MaxPayload bytes. It must not be changed afterwards.
	Payload []byte
	// ContentType is the media type of the payload, up to 255 bytes of printable ASCII. Default: application/octet-stream.
	ContentType string
	// TraceParent travels with the messages: see Message.
	TraceParent string
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
	// MaxTargets refuses the multicast with ErrQuota, before anything is sent, when more identities match. 0: any number. A
	// request with an IdempotencyKey that was used before gets the first one's result all the same.
	MaxTargets int
	// DryRun resolves the targets and sends nothing.
	DryRun bool
	// Recency is how recent the targets have to be.
	Recency
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
	names, revision, err := c.names(waiting, filter.All(req.Within, req.Filter), req.Recency)
	switch {
	case err != nil && waiting.Err() != nil && ctx.Err() == nil:
		return nil, fmt.Errorf("nothing was sent: the timeout of %s passed while the targets were looked up: %w", req.Timeout, err)
	case err != nil:
		return nil, err
	}
	refused, warnings := req.refuses(len(names)), c.warningsFor(&req)
	switch {
	case refused != nil && (req.DryRun || req.IdempotencyKey == ""): // a key may have been used when fewer matched
		return nil, refused
	case req.DryRun:
		return dryRun(&req, names, revision, start, warnings), nil
	}
	message := Message{
		ID: c.ids.next(start), ContentType: req.ContentType, Payload: req.Payload, SentAt: start.Truncate(time.Millisecond),
		Once: req.Delivery == ExactlyOnce, TraceParent: TraceParent(req.TraceParent),
	}
	entry, earlier, err := c.enter(waiting, &req, &message, start, refused)
	if err != nil || earlier != nil {
		return earlier, err
	}
	if req.Began != nil {
		req.Began(message.ID, revision, len(names))
	}
	flying, end := context.WithCancel(waiting)
	defer end()
	f := c.launch(message, &req, start, names, end)
	flying, delivered := c.traced(flying, "multicast.deliver")
	c.fly(flying, f, req.Settled)
	complete, news := f.land()
	f.delivered(delivered)

	result := &Result{
		ID: message.ID, Revision: revision, Targets: f.targets, Delivery: req.Delivery, Ended: Complete, Warnings: warnings,
	}
	withdrawn := !complete && f.cancelled.Load()
	switch {
	case complete:
	case withdrawn, errors.Is(ctx.Err(), context.Canceled):
		result.Ended = Cancelled
	default:
		result.Ended = DeadlinePassed
	}
	if c.slots.Durability != nil && req.Delivery.acked() && result.Ended != Cancelled {
		c.store(ctx, f)
	}
	c.forget(ctx, f)
	result.count()
	result.Elapsed = time.Since(start)
	entry.finish(ctx, result, withdrawn)
	req.settledLast(news, f)
	return result, nil
}

// warningsFor returns what is suspicious about a request's filter. Within bounds they would tell of what is beyond.
func (c *Coordinator) warningsFor(req *Request) []Warning {
	if req.Within != nil {
		return nil
	}
	return c.warnings(req.Filter)
}

// refuses returns the error of a request that so many identities match, or nil.
func (r *Request) refuses(targets int) error {
	if r.MaxTargets == 0 || targets <= r.MaxTargets {
		return nil
	}
	return fmt.Errorf("max_targets: %w: %d identities match, at most %d are allowed; nothing was sent",
		ErrQuota, targets, r.MaxTargets)
}

// dryRun is the result of a request that asks only who is meant.
func dryRun(req *Request, names []string, revision Revision, start time.Time, warnings []Warning) *Result {
	result := &Result{
		Revision: revision, TargetCount: len(names), Targets: make([]Target, len(names)), Delivery: req.Delivery,
		Ended: DryRun, Warnings: warnings,
	}
	for i := range names {
		result.Targets[i].Identity = names[i]
	}
	if req.Settled != nil && len(names) > 0 {
		req.Settled(result.Targets)
	}
	result.Elapsed = time.Since(start)
	return result
}

// settledLast tells of the outcomes that became final with the end of the multicast: those that are not Delivered, after the
// ones that are and that nobody was told of.
func (r *Request) settledLast(news []Target, f *flight) {
	if r.Settled == nil {
		return
	}
	for i := range f.targets {
		if f.targets[i].Status != Delivered {
			news = append(news, f.targets[i])
		}
	}
	if len(news) > 0 {
		r.Settled(news)
	}
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
	if req.RetryAttempts < 0 || req.RetryAttempts > MaxRetryAttempts {
		return req, invalid("retry_attempts", "must be 1 to %d, or 0 for the namespace's", MaxRetryAttempts)
	}
	if req.RetryDelay < 0 {
		return req, invalid("retry_delay", "must not be negative")
	}
	if req.MaxTargets < 0 {
		return req, invalid("max_targets", "must not be negative")
	}
	if len(req.IdempotencyKey) > MaxKeyBytes {
		return req, invalid("idempotency_key", "is %d bytes long, at most %d are allowed", len(req.IdempotencyKey), MaxKeyBytes)
	}
	if req.IdempotencyKey != "" && c.ledger == nil {
		return req, c.keepsNone()
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
