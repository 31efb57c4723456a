package client

import (
	"context"
	"fmt"
	"time"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
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
	// Report says which targets the result lists. Default: ReportAll.
	Report Report
}

// Result is what became of a multicast.
type Result struct {
	// ID is the multicast's id, which is also the id of its messages.
	ID string
	// Revision is the registry's revision that the targets reflect at the least. 0 when the backend keeps none.
	Revision Revision
	// TargetCount is the number of identities that matched.
	TargetCount int
	// Delivered, Pending, Failed and TimedOut count the targets by status; they add up to TargetCount.
	Delivered, Pending, Failed, TimedOut int
	// Delivery is the mode, the request's or else the namespace's: what Delivered means.
	Delivery DeliveryMode
	// Ended says why the multicast stopped waiting.
	Ended Ended
	// Elapsed is the time that the server took.
	Elapsed time.Duration
	// Targets holds the targets that the request's Report asked for, ordered by identity, each once. An Err of theirs is
	// ErrNoSubscriber, ErrQueueFull or ErrTooLarge where the reason is that.
	Targets []Target
}

// Multicast delivers a payload to every identity that matches and tells what became of each. It returns as soon as the
// last outcome is known, and at the latest at the timeout. A target that was not reached is part of the result: an error
// says that nothing is known, because the request is invalid, the server was not reached, or the context ended.
func (c *Client) Multicast(ctx context.Context, r MulticastRequest) (*Result, error) {
	request, err := c.multicastRequest(r)
	if err != nil {
		return nil, err
	}
	response, err := c.rpc.Multicast(ctx, request)
	if err != nil {
		return nil, c.failed(err)
	}
	result := &Result{
		ID:          response.GetMulticastId(),
		Revision:    Revision(response.GetRevision()),
		TargetCount: int(response.GetTargetCount()),
		Delivered:   int(response.GetDeliveredCount()),
		Pending:     int(response.GetPendingCount()),
		Failed:      int(response.GetFailedCount()),
		TimedOut:    int(response.GetTimeoutCount()),
		Delivery:    fromDelivery(response.GetDelivery()),
		Ended:       Ended(response.GetEnded()), // the numbers are the same on the wire: see the test
		Elapsed:     response.GetElapsed().AsDuration(),
		Targets:     make([]Target, len(response.GetStatuses())),
	}
	for i, s := range response.GetStatuses() {
		result.Targets[i] = fromStatus(s)
	}
	return result, nil
}

func (c *Client) multicastRequest(r MulticastRequest) (*patternpb.MulticastRequest, error) {
	match, err := toStruct("filter", r.Filter)
	if err != nil {
		return nil, err
	}
	if err := checkText("content_type", r.ContentType); err != nil {
		return nil, err
	}
	delivery, err := toDelivery(r.Delivery)
	if err != nil {
		return nil, err
	}
	reports := map[Report]patternpb.MulticastRequest_Report{
		ReportAll: patternpb.MulticastRequest_ALL, ReportUndelivered: patternpb.MulticastRequest_UNDELIVERED,
		ReportCounts: patternpb.MulticastRequest_COUNTS,
	}
	report, ok := reports[r.Report]
	if !ok {
		return nil, &InvalidError{Field: "report", Problem: "must be ReportAll, ReportUndelivered or ReportCounts"}
	}
	return &patternpb.MulticastRequest{
		Namespace: c.namespace, Filter: match, Payload: r.Payload, ContentType: r.ContentType, Delivery: delivery,
		Timeout: duration(r.Timeout), Report: report,
	}, nil
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
	}
	return 0, &InvalidError{Field: "delivery", Problem: fmt.Sprintf(
		"%q is not a delivery mode; legal values: %s, %s", mode, AtMostOnce, AtLeastOnce)}
}

func fromDelivery(mode patternpb.Delivery_Mode) DeliveryMode {
	switch mode {
	case patternpb.Delivery_AT_MOST_ONCE:
		return AtMostOnce
	case patternpb.Delivery_AT_LEAST_ONCE:
		return AtLeastOnce
	default:
		return ""
	}
}
