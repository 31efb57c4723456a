package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"strings"
	"time"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// Register stores an identity and starts its lease. It returns the identity as stored; ErrAlreadyExists when a live one of
// that name exists and the mode is Create.
func (c *Client) Register(ctx context.Context, r Registration) (Identity, error) {
	request, err := c.registerRequest(r)
	if err != nil {
		return Identity{}, err
	}
	var reply registerReply
	if err := c.invoke(ctx, patternpb.MulticastRegistryPattern_Register_FullMethodName, request, &reply); err != nil {
		return Identity{}, err
	}
	return reply.identity, nil
}

func (c *Client) registerRequest(r Registration) (*patternpb.RegisterRequest, error) {
	if err := multicastregistry.CheckIdentity(r.ID); err != nil {
		return nil, err
	}
	metadata, err := toStruct("metadata", r.Metadata)
	if err != nil {
		return nil, err
	}
	request := &patternpb.RegisterRequest{Namespace: c.namespace, Identity: r.ID, Metadata: metadata}
	if r.TTL == NoExpiry {
		request.NeverExpires = true
	} else {
		request.Ttl = duration(r.TTL)
	}
	switch r.Mode {
	case Create:
		request.Mode = patternpb.RegisterRequest_CREATE
	case Replace:
		request.Mode = patternpb.RegisterRequest_REPLACE
	default:
		return nil, &InvalidError{Field: "mode", Problem: "must be Create or Replace"}
	}
	return request, nil
}

// Heartbeat renews the lease of a live identity: with the TTL it has when ttl is 0, and otherwise with this one from now
// on. ErrNotFound when the identity is not registered or has expired: register it again.
func (c *Client) Heartbeat(ctx context.Context, id string, ttl time.Duration) (Lease, error) {
	if err := multicastregistry.CheckIdentity(id); err != nil {
		return Lease{}, err
	}
	if ttl == NoExpiry {
		return Lease{}, &InvalidError{Field: "ttl", Problem: "a heartbeat cannot end the lease's expiry; register the identity again"}
	}
	request := &patternpb.HeartbeatRequest{Namespace: c.namespace, Identity: id, Ttl: duration(ttl)}
	response, err := c.rpc.Heartbeat(ctx, request)
	if err != nil {
		return Lease{}, c.failed(err)
	}
	lease := Lease{TTL: fromTTL(response.GetTtl())}
	if response.GetExpiresAt() != nil {
		lease.ExpiresAt = response.GetExpiresAt().AsTime()
	}
	return lease, nil
}

// Unregister removes an identity at once, with all that is stored for it, and tells whether a live one existed.
func (c *Client) Unregister(ctx context.Context, id string) (existed bool, err error) {
	return c.UnregisterIf(ctx, id, 0)
}

// UnregisterIf is Unregister for the registration that has this Revision, which Register returned: when another program has
// taken the identity over since, nothing is touched and existed is false. A revision of 0 removes whatever is registered.
func (c *Client) UnregisterIf(ctx context.Context, id string, revision Revision) (existed bool, err error) {
	if err := multicastregistry.CheckIdentity(id); err != nil {
		return false, err
	}
	response, err := c.rpc.Unregister(ctx, &patternpb.UnregisterRequest{
		Namespace: c.namespace, Identity: id, Revision: uint64(revision),
	})
	if err != nil {
		return false, c.failed(err)
	}
	return response.GetExisted(), nil
}

// Query says which identities Enumerate and All return.
type Query struct {
	// Filter selects by metadata, such as {"battery": {"$lt": 0.2}}; nil or empty matches every identity.
	Filter map[string]any
	// PageSize is the most identities that one call returns, up to 10,000. Default: 100, and 1,000 in All.
	PageSize int
	// PageToken is the NextPageToken of the page before, which had the same filter. Empty: the first page.
	PageToken string
	// OmitMetadata leaves the metadata of the identities out.
	OmitMetadata bool
	// SortBy orders by fields, up to 16, and then by name: "room", "sensor.temp", "-battery" from the largest down. null comes
	// first, then false and true, numbers, strings; identities without such a value come last. A dot descends into an object;
	// `\.` is a dot of the name, `\-` a leading hyphen of it.
	SortBy []string
	// Fields are the only fields of the metadata to return, up to 16, spelled as in SortBy. Nil: all.
	Fields []string
	// CountBy counts all matches by the values of fields, up to 16, spelled as in SortBy: see Page.Groups.
	CountBy []string
	// MaxGroups is the most groups for each field of CountBy, the largest ones. Default: 1,000, which is the most.
	MaxGroups int
	// CountOnly returns counts and no identities.
	CountOnly bool
	// Consistency says how recent the answer has to be. Default: Eventual.
	Consistency Consistency
	// MinRevision is a revision, of a registration for example, that the answer has to reflect. 0: none.
	MinRevision Revision
}

func (c *Client) enumerateRequest(q *Query) (*patternpb.EnumerateRequest, error) {
	match, err := toStruct("filter", q.Filter)
	if err != nil {
		return nil, err
	}
	if err := checkText("page_token", q.PageToken); err != nil {
		return nil, err
	}
	for field, names := range map[string][]string{"sort_by": q.SortBy, "fields": q.Fields, "count_by": q.CountBy} {
		for _, name := range names {
			if err := checkText(field, name); err != nil {
				return nil, err
			}
		}
	}
	consistency, err := toConsistency(q.Consistency)
	return &patternpb.EnumerateRequest{
		Namespace: c.namespace, Filter: match, PageSize: toInt32(q.PageSize), PageToken: q.PageToken,
		IncludeMetadata: new(!q.OmitMetadata), SortBy: q.SortBy, Fields: q.Fields, CountBy: q.CountBy,
		MaxGroups: toInt32(q.MaxGroups), CountOnly: q.CountOnly, Consistency: consistency, MinRevision: uint64(q.MinRevision),
	}, err
}

// toInt32 keeps what is out of bounds out of bounds: the server says what is allowed.
func toInt32(n int) int32 { return int32(min(max(n, -1), 1<<30)) }

func toConsistency(c Consistency) (patternpb.Recency_Consistency, error) {
	switch c {
	case Eventual: // the server's default
		return patternpb.Recency_CONSISTENCY_UNSPECIFIED, nil
	case Strong:
		return patternpb.Recency_STRONG, nil
	}
	return 0, &InvalidError{Field: "consistency", Problem: "must be Eventual or Strong"}
}

// Page is one page of matching identities.
type Page struct {
	// Identities in the order that was asked for.
	Identities []Identity
	// NextPageToken leads to the next page. Empty: this was the last one.
	NextPageToken string
	// Total counts the matches on all pages, at the time of this one.
	Total int
	// Groups are the counts by each of CountBy, over all pages.
	Groups []Groups
	// Revision is what the page reflects at the least. 0 when the backend keeps no revisions.
	Revision Revision
	// Warnings are what is suspicious about the filter: on the first page only, and where an index answers.
	Warnings []Warning
}

// Enumerate returns one page of the live identities that match. All returns all of them.
func (c *Client) Enumerate(ctx context.Context, q Query) (Page, error) {
	request, err := c.enumerateRequest(&q)
	if err != nil {
		return Page{}, err
	}
	var reply enumerateReply
	if err := c.invoke(ctx, patternpb.MulticastRegistryPattern_Enumerate_FullMethodName, request, &reply); err != nil {
		return Page{}, err
	}
	return fromPage(&reply), nil
}

// All yields every live identity that matches, in the query's order. They come over one stream, in parts of PageSize, as they
// are taken. An identity that stays registered meanwhile is yielded exactly once. An error is yielded once, as the last
// element.
func (c *Client) All(ctx context.Context, q Query) iter.Seq2[Identity, error] {
	return func(yield func(Identity, error) bool) {
		for page, err := range c.Pages(ctx, q) {
			if err != nil {
				yield(Identity{}, err)
				return
			}
			for _, identity := range page.Identities {
				if !yield(identity, nil) {
					return
				}
			}
		}
	}
}

// Pages is All in the parts in which identities arrive. The first one has the counts and comes even when nothing matches; each
// has the NextPageToken with which a query goes on after it, should the stream break.
func (c *Client) Pages(ctx context.Context, q Query) iter.Seq2[Page, error] {
	return func(yield func(Page, error) bool) {
		request, err := c.enumerateRequest(&q)
		if err != nil {
			yield(Page{}, err)
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := c.rpc.EnumerateStream(ctx, &patternpb.EnumerateStreamRequest{Request: request}, lazily)
		for err == nil {
			var part streamReply
			if err = stream.RecvMsg(&part); err != nil {
				break
			}
			if ctx.Err() != nil { // what has arrived by then would come still
				yield(Page{}, ctx.Err())
				return
			}
			if !yield(fromPage(&part.page), nil) {
				return
			}
		}
		if !errors.Is(err, io.EOF) {
			yield(Page{}, c.failed(err))
		}
	}
}

func fromPage(reply *enumerateReply) Page {
	response := &reply.others
	page := Page{
		Identities:    reply.identities,
		NextPageToken: response.GetNextPageToken(),
		Total:         int(response.GetTotalCount()),
		Revision:      Revision(response.GetRevision()),
		Warnings:      fromWarnings(response.GetWarnings()),
	}
	for _, counted := range response.GetCounts() {
		path, err := filter.ParsePath(counted.GetField())
		if err != nil {
			path = []string{counted.GetField()} // of a server that spells otherwise
		}
		groups := Groups{Path: path, Omitted: int(counted.GetOmittedGroups()), Missing: int(counted.GetMissingCount())}
		for _, group := range counted.GetGroups() {
			groups.Groups = append(groups.Groups, Group{Value: group.GetValue().AsInterface(), Count: int(group.GetCount())})
		}
		page.Groups = append(page.Groups, groups)
	}
	return page
}

// generous limits leave it to the server, which knows the namespace's, to refuse a filter for its size.
var generous = filter.Limits{
	Depth: 100, Clauses: 100_000, InValues: 1_000_000, RegexBytes: 1 << 20,
	PathParts: 100, StringBytes: 1 << 20, SourceBytes: 32 << 20,
}

// ParseFilter reads a filter from JSON text, for a Query or a MulticastRequest. What is wrong with it is an InvalidError
// whose field is "filter" and a JSON pointer to the place, as if the server had refused it.
func ParseFilter(text string) (map[string]any, error) {
	if _, err := generous.Parse(text); err != nil {
		if syntax, ok := errors.AsType[*filter.SyntaxError](err); ok {
			return nil, &InvalidError{Field: "filter" + syntax.Pointer, Problem: syntax.Msg}
		}
		return nil, err
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var match map[string]any
	if err := decoder.Decode(&match); err != nil {
		return nil, &InvalidError{Field: "filter", Problem: err.Error()}
	}
	return match, nil
}
