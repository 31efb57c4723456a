package client

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"strings"
	"time"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// allPageSize is the page size of All when the query names none.
const allPageSize = 1000

// Register stores an identity and starts its lease. It returns the identity as stored; ErrAlreadyExists when a live one of
// that name exists and the mode is Create.
func (c *Client) Register(ctx context.Context, r Registration) (Identity, error) {
	request, err := c.registerRequest(r)
	if err != nil {
		return Identity{}, err
	}
	response, err := c.rpc.Register(ctx, request)
	if err != nil {
		return Identity{}, c.failed(err)
	}
	return fromIdentity(response.GetIdentity()), nil
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
}

// Enumerate returns one page of the live identities that match, ordered by name. All walks through all pages.
func (c *Client) Enumerate(ctx context.Context, q Query) (Page, error) {
	match, err := toStruct("filter", q.Filter)
	if err != nil {
		return Page{}, err
	}
	if err := checkText("page_token", q.PageToken); err != nil {
		return Page{}, err
	}
	size := int32(min(max(q.PageSize, -1), 1<<30))
	request := &patternpb.EnumerateRequest{
		Namespace: c.namespace, Filter: match, PageSize: size, PageToken: q.PageToken, IncludeMetadata: new(!q.OmitMetadata),
	}
	response, err := c.rpc.Enumerate(ctx, request)
	if err != nil {
		return Page{}, c.failed(err)
	}
	page := Page{
		Identities:    make([]Identity, len(response.GetIdentities())),
		NextPageToken: response.GetNextPageToken(),
		Total:         int(response.GetTotalCount()),
		Revision:      Revision(response.GetRevision()),
	}
	for i, identity := range response.GetIdentities() {
		page.Identities[i] = fromIdentity(identity)
	}
	return page, nil
}

// All yields every live identity that matches, ordered by name, and fetches pages as they are needed. An identity that
// stays registered meanwhile is yielded exactly once. An error is yielded once, as the last element.
func (c *Client) All(ctx context.Context, q Query) iter.Seq2[Identity, error] {
	return func(yield func(Identity, error) bool) {
		if q.PageSize == 0 {
			q.PageSize = allPageSize
		}
		for {
			page, err := c.Enumerate(ctx, q)
			if err != nil {
				yield(Identity{}, err)
				return
			}
			for _, identity := range page.Identities {
				if !yield(identity, nil) {
					return
				}
			}
			if page.NextPageToken == "" {
				return
			}
			q.PageToken = page.NextPageToken
		}
	}
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
