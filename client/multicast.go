package client

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// Report says which targets a Result lists. Its counts always cover every target.
type Report uint8

// The reports.
const (
	// ReportAll lists every target.
	ReportAll Report = iota
	// ReportUndelivered lists the targets that are not Delivered.
	ReportUndelivered
	// ReportCounts lists none.
	ReportCounts
)

// MulticastRequest is what Multicast takes.
type MulticastRequest struct {
	// Filter selects the targets by metadata; nil or empty matches every identity.
	Filter map[string]any
	// Payload is the content.
	Payload []byte
	// ContentType is the media type of the payload. Default: application/octet-stream.
	ContentType string
	// Delivery says how much is promised. Default: the namespace's.
	Delivery DeliveryMode
	// Timeout is the longest wait for outcomes; the context's deadline counts too. Default: the namespace's.
	Timeout time.Duration
	// RetryAttempts is how often a message is handed over at most, 1 to 20, 1 meaning no retry. Default: the namespace's.
	RetryAttempts int
	// RetryDelay is the wait before a message that could not be handed over is handed over again; it doubles each time.
	// Default: the namespace's.
	RetryDelay time.Duration
	// Consistency says how recent the targets have to be. Default: Eventual.
	Consistency Consistency
	// MinRevision is a revision, of a registration for example, that the targets have to reflect. 0: none.
	MinRevision Revision
	// IdempotencyKey names the request, up to 256 bytes: a request with a key that was used before returns the first one's
	// result, and is refused when it asks for something else. ErrUnsupported where no multicasts are kept. Empty: none.
	IdempotencyKey string
	// MaxTargets refuses the multicast with ErrQuota, before anything is sent, when more identities match. 0: any number.
	MaxTargets int
	// DryRun asks only who is meant: the result has the targets, without a status, and the revision; nothing is sent.
	DryRun bool
	// Report says which targets the result lists, and Settled is called with. Default: ReportAll.
	Report Report
	// Began, if set, is called once when the targets are known, while the server begins to send. It is not called for a
	// replayed result.
	Began func(id string, revision Revision, targets int)
	// Settled, if set, is called with outcomes as they become final, replies included, each target's once, all before Multicast
	// returns; by one goroutine at a time, in the order of becoming final. The slice must not be kept. It is not called in a
	// dry run.
	Settled func(targets []Target)
}

// Result is what became of a multicast.
type Result struct {
	// ID is the multicast's id, which is also the id of its messages. Empty in a dry run.
	ID string
	// Revision is the registry's revision that the targets reflect at the least. 0 when the backend keeps none.
	Revision Revision
	// TargetCount is the number of identities that matched.
	TargetCount int
	// Delivered, Pending, Failed and TimedOut count the targets by status; they add up to TargetCount, but for a dry run, in
	// which they are 0.
	Delivered, Pending, Failed, TimedOut int
	// Delivery is the mode, the request's or else the namespace's: what Delivered means.
	Delivery DeliveryMode
	// Ended says why the multicast stopped waiting.
	Ended Ended
	// Elapsed is the time that the server took.
	Elapsed time.Duration
	// Replies counts the acknowledged targets by the code of their reply; a plain ack counts as 0. Nil when there is none, or
	// when there are more than 10,000 different codes.
	Replies map[uint32]int
	// Replayed says that this is the result of an earlier request with the same idempotency key.
	Replayed bool
	// Warnings are what is suspicious about the filter, where an index answers. A replayed result has none.
	Warnings []Warning
	// Targets holds the targets that the request's Report asked for, ordered by identity, each once. An Err of theirs is
	// ErrNoSubscriber, ErrGone, ErrQueueFull or ErrTooLarge where the reason is that.
	Targets []Target
}

// Multicast delivers a payload to every identity that matches and tells what became of each. It returns as soon as the
// last outcome is known, and at the latest at the timeout. A target that was not reached is part of the result: an error
// says that the request is invalid, the server was not reached or was lost on the way, or the context ended.
//
// After an error that comes in the midst of a multicast, what is known is what Began and Settled were called with: messages
// may have been delivered to any of the targets. A context that ends also ends the multicast. With an IdempotencyKey one can
// ask again: the second request returns what became of the first one, or sends what the first did not get to send.
func (c *Client) Multicast(ctx context.Context, r MulticastRequest) (*Result, error) {
	request, err := c.multicastRequest(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx) // a stream that is not read to its end must be told so
	defer cancel()
	stream, err := c.rpc.MulticastStream(ctx, &patternpb.MulticastStreamRequest{Request: request})
	if err != nil {
		return nil, c.failed(err)
	}
	var targets []Target
	for {
		response, err := stream.Recv()
		if err != nil {
			return nil, c.failed(err)
		}
		switch step := response.GetStep().(type) {
		case *patternpb.MulticastStreamResponse_Began:
			if r.Began != nil {
				r.Began(step.Began.GetMulticastId(), Revision(step.Began.GetRevision()), int(step.Began.GetTargetCount()))
			}
		case *patternpb.MulticastStreamResponse_Statuses:
			settled := fromStatuses(step.Statuses.GetStatuses())
			targets = append(targets, settled...)
			if r.Settled != nil && !r.DryRun {
				r.Settled(settled)
			}
		case *patternpb.MulticastStreamResponse_Ended:
			result := fromResponse(step.Ended)
			slices.SortFunc(targets, func(a, b Target) int { return strings.Compare(a.Identity, b.Identity) })
			result.Targets = targets
			_, _ = stream.Recv() // the end, so that to cancel the stream does not look like leaving
			return &result, nil
		}
	}
}

// fromResponse reads a result without its targets.
func fromResponse(r *patternpb.MulticastResponse) Result {
	result := Result{
		ID:          r.GetMulticastId(),
		Revision:    Revision(r.GetRevision()),
		TargetCount: int(r.GetTargetCount()),
		Delivered:   int(r.GetDeliveredCount()),
		Pending:     int(r.GetPendingCount()),
		Failed:      int(r.GetFailedCount()),
		TimedOut:    int(r.GetTimeoutCount()),
		Delivery:    fromDelivery(r.GetDelivery()),
		Ended:       Ended(r.GetEnded()), // the numbers are the same on the wire: see the test
		Elapsed:     r.GetElapsed().AsDuration(),
		Replayed:    r.GetReplayed(),
		Warnings:    fromWarnings(r.GetWarnings()),
	}
	for code, n := range r.GetReplyCounts() {
		if result.Replies == nil {
			result.Replies = make(map[uint32]int, len(r.GetReplyCounts()))
		}
		result.Replies[code] = int(n)
	}
	return result
}

func (c *Client) multicastRequest(r MulticastRequest) (*patternpb.MulticastRequest, error) {
	match, err := toStruct("filter", r.Filter)
	if err != nil {
		return nil, err
	}
	if err := checkText("content_type", r.ContentType); err != nil {
		return nil, err
	}
	if err := checkText("idempotency_key", r.IdempotencyKey); err != nil {
		return nil, err
	}
	if len(r.IdempotencyKey) > multicastregistry.MaxKeyBytes {
		return nil, &InvalidError{Field: "idempotency_key", Problem: fmt.Sprintf(
			"is %d bytes long; a key has at most %d", len(r.IdempotencyKey), multicastregistry.MaxKeyBytes)}
	}
	for _, n := range []struct {
		field  string
		number int
	}{{"max_targets", r.MaxTargets}, {"retry_attempts", r.RetryAttempts}} {
		if n.number < 0 || int64(n.number) > math.MaxUint32 {
			return nil, &InvalidError{Field: n.field, Problem: fmt.Sprintf("must be 0 to %d", uint32(math.MaxUint32))}
		}
	}
	for _, d := range []struct {
		field string
		span  time.Duration
	}{{"timeout", r.Timeout}, {"retry_delay", r.RetryDelay}} {
		if d.span < 0 {
			return nil, &InvalidError{Field: d.field, Problem: "must not be negative"}
		}
	}
	delivery, err := toDelivery(r.Delivery)
	if err != nil {
		return nil, err
	}
	report, err := toReport(r.Report)
	if err != nil {
		return nil, err
	}
	consistency, err := toConsistency(r.Consistency)
	if err != nil {
		return nil, err
	}
	return &patternpb.MulticastRequest{
		Namespace: c.namespace, Filter: match, Payload: r.Payload, ContentType: r.ContentType, Delivery: delivery,
		Timeout: duration(r.Timeout), Report: report, IdempotencyKey: r.IdempotencyKey, MaxTargets: uint32(r.MaxTargets),
		DryRun: r.DryRun, RetryAttempts: uint32(r.RetryAttempts), RetryDelay: duration(r.RetryDelay),
		Consistency: consistency, MinRevision: uint64(r.MinRevision),
	}, nil
}

func toReport(report Report) (patternpb.MulticastRequest_Report, error) {
	switch report {
	case ReportAll:
		return patternpb.MulticastRequest_ALL, nil
	case ReportUndelivered:
		return patternpb.MulticastRequest_UNDELIVERED, nil
	case ReportCounts:
		return patternpb.MulticastRequest_COUNTS, nil
	}
	return 0, &InvalidError{Field: "report", Problem: "must be ReportAll, ReportUndelivered or ReportCounts"}
}

func fromStatuses(statuses []*patternpb.DeliveryStatus) []Target {
	targets := make([]Target, len(statuses))
	for i, s := range statuses {
		targets[i] = fromStatus(s)
	}
	return targets
}

func fromStatus(s *patternpb.DeliveryStatus) Target {
	reason := Reason(s.GetReason())
	return Target{
		Identity: s.GetIdentity(),
		Status:   Status(s.GetStatus()),
		Evidence: Evidence(s.GetEvidence()),
		Reason:   reason,
		Err:      targetErr(reason, s.GetError()),
		Attempts: int(s.GetAttempts()),
		Reply:    Reply{Code: s.GetReplyCode(), Body: s.GetReplyBody()},
		Latency:  s.GetLatency().AsDuration(),
	}
}

func toDelivery(mode DeliveryMode) (patternpb.Delivery_Mode, error) {
	switch mode {
	case "":
		return patternpb.Delivery_MODE_UNSPECIFIED, nil
	case AtMostOnce:
		return patternpb.Delivery_AT_MOST_ONCE, nil
	case AtLeastOnce:
		return patternpb.Delivery_AT_LEAST_ONCE, nil
	case ExactlyOnce:
		return patternpb.Delivery_EXACTLY_ONCE, nil
	}
	return 0, &InvalidError{Field: "delivery", Problem: fmt.Sprintf(
		"%q is not a delivery mode; legal values: %v", mode, multicastregistry.DeliveryModes())}
}

func fromDelivery(mode patternpb.Delivery_Mode) DeliveryMode {
	switch mode {
	case patternpb.Delivery_AT_MOST_ONCE:
		return AtMostOnce
	case patternpb.Delivery_AT_LEAST_ONCE:
		return AtLeastOnce
	case patternpb.Delivery_EXACTLY_ONCE:
		return ExactlyOnce
	default:
		return ""
	}
}
