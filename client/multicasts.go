package client

import (
	"context"
	"iter"
	"time"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
)

// Page sizes of calls that walk through all pages.
const (
	allTargetsPageSize    = 10_000
	allMulticastsPageSize = 100
)

// MulticastRecord is what is kept of a multicast, in a namespace whose durability slot keeps multicasts.
type MulticastRecord struct {
	// State says how far it is.
	State State
	// CreatedAt is when it was sent, by the sending server's clock.
	CreatedAt time.Time
	// Filter is the request's. Nil: every identity.
	Filter map[string]any
	// PayloadBytes is the size of the payload, which itself is not kept.
	PayloadBytes int
	// ContentType is the media type of the payload.
	ContentType string
	// IdempotencyKey is the request's. Empty: none.
	IdempotencyKey string
	// Result is what has become of it by now. While Running it has the ID and the Delivery only.
	Result Result
}

// MulticastQuery says which multicasts ListMulticasts returns.
type MulticastQuery struct {
	// PageSize is the most multicasts that one call returns, up to 1,000. Default: 20.
	PageSize int
	// PageToken is the NextPageToken of the page before. Empty: the first page.
	PageToken string
}

// MulticastPage is one page of multicasts.
type MulticastPage struct {
	// Multicasts, latest first. Their results have counts and no targets.
	Multicasts []*MulticastRecord
	// NextPageToken asks for the next page. Empty: this was the last one.
	NextPageToken string
}

// GetMulticast returns what has become of a multicast by now, with every target: Pending turns into Delivered when the
// identity came to acknowledge what was stored for it. ErrNotFound when the multicast is unknown or older than the retention;
// ErrUnsupported in a namespace whose durability slot keeps no multicasts, or that has none.
func (c *Client) GetMulticast(ctx context.Context, id string) (*MulticastRecord, error) {
	return c.GetMulticastReport(ctx, id, ReportAll)
}

// GetMulticastReport is GetMulticast with those targets only that the report asks for. Its counts always cover every target.
func (c *Client) GetMulticastReport(ctx context.Context, id string, report Report) (*MulticastRecord, error) {
	which, err := toReport(report)
	if err != nil {
		return nil, err
	}
	request := &patternpb.GetMulticastRequest{
		Namespace: c.namespace, MulticastId: id, Report: which, PageSize: allTargetsPageSize,
	}
	if err := checkText("multicast_id", id); err != nil {
		return nil, err
	}
	var targets []Target
	for pages := 1; ; pages++ {
		response, err := c.rpc.GetMulticast(ctx, request)
		if err != nil {
			return nil, c.failed(err)
		}
		targets = append(targets, fromStatuses(response.GetStatuses())...)
		if next := response.GetNextPageToken(); next != "" {
			request.PageToken = next
			continue
		}
		record := fromRecord(response.GetMulticast())
		record.Result.Targets = targets
		if pages > 1 && report == ReportAll {
			record.Result.recount()
		}
		return record, nil
	}
}

// recount makes the counts those of the targets, which were fetched at different times.
func (r *Result) recount() {
	var n [Timeout + 1]int
	r.Replies = nil
	for _, t := range r.Targets {
		if t.Status <= Timeout {
			n[t.Status]++
		}
		if t.Evidence == Acked {
			if r.Replies == nil {
				r.Replies = make(map[uint32]int)
			}
			r.Replies[t.Reply.Code]++
		}
	}
	r.TargetCount = len(r.Targets)
	r.Delivered, r.Pending, r.Failed, r.TimedOut = n[Delivered], n[Pending], n[Failed], n[Timeout]
}

// ListMulticasts returns one page of the multicasts that are kept, latest first. Multicasts walks through all pages. Errors as
// for GetMulticast.
func (c *Client) ListMulticasts(ctx context.Context, q MulticastQuery) (MulticastPage, error) {
	if err := checkText("page_token", q.PageToken); err != nil {
		return MulticastPage{}, err
	}
	size := int32(min(max(q.PageSize, -1), 1<<30))
	response, err := c.rpc.ListMulticasts(ctx, &patternpb.ListMulticastsRequest{
		Namespace: c.namespace, PageSize: size, PageToken: q.PageToken,
	})
	if err != nil {
		return MulticastPage{}, c.failed(err)
	}
	page := MulticastPage{
		Multicasts: make([]*MulticastRecord, len(response.GetMulticasts())), NextPageToken: response.GetNextPageToken(),
	}
	for i, record := range response.GetMulticasts() {
		page.Multicasts[i] = fromRecord(record)
	}
	return page, nil
}

// Multicasts yields every multicast that is kept, latest first, and fetches pages as they are needed. An error is yielded once,
// as the last element.
func (c *Client) Multicasts(ctx context.Context) iter.Seq2[*MulticastRecord, error] {
	return func(yield func(*MulticastRecord, error) bool) {
		q := MulticastQuery{PageSize: allMulticastsPageSize}
		for {
			page, err := c.ListMulticasts(ctx, q)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, record := range page.Multicasts {
				if !yield(record, nil) {
					return
				}
			}
			if q.PageToken = page.NextPageToken; q.PageToken == "" {
				return
			}
		}
	}
}

// CancelMulticast withdraws what is stored of a multicast and not delivered, and ends the multicast if it is under way. What
// was delivered stays delivered. It tells how many messages this call has withdrawn, and how the multicast stands now, without
// its targets. Errors as for GetMulticast.
func (c *Client) CancelMulticast(ctx context.Context, id string) (withdrawn int, record *MulticastRecord, err error) {
	if err := checkText("multicast_id", id); err != nil {
		return 0, nil, err
	}
	response, err := c.rpc.CancelMulticast(ctx, &patternpb.CancelMulticastRequest{Namespace: c.namespace, MulticastId: id})
	if err != nil {
		return 0, nil, c.failed(err)
	}
	return int(response.GetWithdrawnCount()), fromRecord(response.GetMulticast()), nil
}

func fromRecord(p *patternpb.MulticastRecord) *MulticastRecord {
	record := &MulticastRecord{
		State:          State(p.GetState()), // the numbers are the same on the wire: see the test
		Filter:         fromStruct(p.GetFilter()),
		PayloadBytes:   int(p.GetPayloadBytes()),
		ContentType:    p.GetContentType(),
		IdempotencyKey: p.GetIdempotencyKey(),
		Result:         fromResponse(p.GetResult()),
	}
	if p.GetCreatedAt() != nil {
		record.CreatedAt = p.GetCreatedAt().AsTime()
	}
	return record
}
