package proxy

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/structpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// streamedPage is how many identities a message of EnumerateStream has unless the request names another number.
const streamedPage = 1000

// Enumerate implements the RPC.
func (s *service) Enumerate(ctx context.Context, req *patternpb.EnumerateRequest) (*patternpb.EnumerateResponse, error) {
	n, q, err := s.query(ctx, req)
	if err != nil {
		return nil, err
	}
	return n.page(ctx, q, req)
}

// EnumerateStream implements the RPC. A page is looked up when the one before has been sent: a client that reads slowly costs
// nothing meanwhile.
func (s *service) EnumerateStream(
	wrapped *patternpb.EnumerateStreamRequest, wire grpc.ServerStreamingServer[patternpb.EnumerateStreamResponse],
) error {
	req := wrapped.GetRequest()
	if req == nil {
		return invalid("request", "must be the query")
	}
	n, q, err := s.query(wire.Context(), req)
	if err != nil {
		return err
	}
	q.PageSize = cmp.Or(q.PageSize, streamedPage)
	for {
		shown, err := n.page(wire.Context(), q, req)
		if err != nil {
			return err
		}
		if err := wire.Send(&patternpb.EnumerateStreamResponse{Page: shown}); err != nil {
			return err
		}
		if shown.GetNextPageToken() == "" {
			return nil
		}
		q.PageToken, q.CountBy = shown.GetNextPageToken(), nil
	}
}

// page looks a page up and shows it, without what the caller does not see. Warnings are about the fields of all identities.
func (e *entered) page(
	ctx context.Context, q multicastregistry.Query, req *patternpb.EnumerateRequest,
) (*patternpb.EnumerateResponse, error) {
	memory := lent.Get().(*identities)
	defer memory.giveBack()
	q.Filter, q.Into = e.grant.Restrict(q.Filter), *memory
	page, err := e.Coordinator.Enumerate(ctx, q)
	if err != nil {
		*memory = (*memory)[:cap(*memory)] // whatever was written to it
		return nil, err
	}
	*memory = page.Identities
	if e.grant.Restricted() {
		page.Warnings = nil
		if page.Identities, err = e.redact(page.Identities); err != nil {
			return nil, err
		}
	}
	return shownPage(req, &page)
}

// lent is memory for pages, which is needed only until they are written as they go over the wire.
var lent = sync.Pool{New: func() any { return new(identities) }}

// identities are those of a page, and what follows in their memory are empty ones.
type identities []multicastregistry.Identity

func (i *identities) giveBack() {
	clear(*i)
	*i = (*i)[:0]
	lent.Put(i)
}

// query reads a request. Its filter is the caller's own.
func (s *service) query(
	ctx context.Context, req *patternpb.EnumerateRequest,
) (n entered, q multicastregistry.Query, err error) {
	q = multicastregistry.Query{
		PageSize: int(req.GetPageSize()), PageToken: req.GetPageToken(), CountOnly: req.GetCountOnly(),
		MaxGroups: int(req.GetMaxGroups()),
	}
	if n, err = s.enter(ctx, req.GetNamespace()); err != nil {
		return n, q, err
	}
	if q.Filter, err = n.asked(req.GetFilter()); err != nil {
		return n, q, err
	}
	if q.Recency, err = recency(req.GetConsistency(), req.GetMinRevision()); err != nil {
		return n, q, err
	}
	for _, name := range req.GetSortBy() {
		rest, descending := strings.CutPrefix(name, "-")
		path, err := filter.ParsePath(rest)
		if err != nil {
			return n, q, invalid("sort_by", fmt.Sprintf("%q: %v", name, err))
		}
		if err := n.mayName("sort_by", path); err != nil {
			return n, q, err
		}
		q.SortBy = append(q.SortBy, multicastregistry.Order{Path: path, Descending: descending})
	}
	if q.CountBy, err = paths("count_by", req.GetCountBy()); err != nil {
		return n, q, err
	}
	if err := n.mayName("count_by", q.CountBy...); err != nil {
		return n, q, err
	}
	if q.Fields, err = paths("fields", req.GetFields()); err != nil {
		return n, q, err
	}
	err = n.mayName("fields", q.Fields...)
	return n, q, err
}

// paths reads names of fields.
func paths(field string, names []string) ([][]string, error) {
	var out [][]string
	for _, name := range names {
		path, err := filter.ParsePath(name)
		if err != nil {
			return nil, invalid(field, fmt.Sprintf("%q: %v", name, err))
		}
		out = append(out, path)
	}
	return out, nil
}

func recency(c patternpb.Recency_Consistency, atLeast uint64) (multicastregistry.Recency, error) {
	r := multicastregistry.Recency{AtLeast: multicastregistry.Revision(atLeast)}
	switch c {
	case patternpb.Recency_CONSISTENCY_UNSPECIFIED, patternpb.Recency_EVENTUAL:
	case patternpb.Recency_STRONG:
		r.Consistency = multicastregistry.Strong
	default:
		return r, invalid("consistency", "must be EVENTUAL or STRONG")
	}
	return r, nil
}

// shownPage shows a page. Its identities are written as they go over the wire, their metadata as it was registered: what a
// message does not know itself it carries along.
func shownPage(req *patternpb.EnumerateRequest, page *multicastregistry.Page) (*patternpb.EnumerateResponse, error) {
	out := &patternpb.EnumerateResponse{
		NextPageToken: page.NextPageToken, TotalCount: uint64(page.Total), Revision: uint64(page.Revision),
		Warnings: shownWarnings(page.Warnings),
	}
	for _, counted := range page.Groups {
		shown := &patternpb.FieldCount{
			Field: filter.FormatPath(counted.Path), OmittedGroups: uint64(counted.Omitted), MissingCount: uint64(counted.Missing),
		}
		for _, group := range counted.Groups {
			value, err := structpb.NewValue(group.Value)
			if err != nil {
				return nil, err
			}
			shown.Groups = append(shown.Groups, &patternpb.FieldCount_Group{Value: value, Count: uint64(group.Count)})
		}
		out.Counts = append(out.Counts, shown)
	}
	metadata := req.IncludeMetadata == nil || req.GetIncludeMetadata()
	size := 0
	for i := range page.Identities {
		size += len(page.Identities[i].ID) + len(page.Identities[i].Encoded) + identityOverhead
	}
	raw := *pages.Get(size)
	for i := range page.Identities {
		raw = protowire.AppendTag(raw, fieldIdentities, protowire.BytesType)
		raw = appendSized(raw, func(b []byte) []byte { return appendIdentity(b, &page.Identities[i], metadata) })
	}
	out.ProtoReflect().SetUnknown(raw)
	return out, nil
}

// identityOverhead is what an identity takes on the wire besides its name and metadata, at the most.
const identityOverhead = 80

// The numbers of fields in the .proto; a test holds them together.
const (
	fieldIdentities = 1 // EnumerateResponse.identities

	fieldID           = 1 // of Identity
	fieldMetadata     = 2
	fieldRegisteredAt = 3
	fieldExpiresAt    = 4
	fieldTTL          = 5
	fieldRevision     = 6
)

// appendIdentity writes an Identity.
func appendIdentity(b []byte, i *multicastregistry.Identity, metadata bool) []byte {
	b = protowire.AppendTag(b, fieldID, protowire.BytesType)
	b = protowire.AppendString(b, i.ID)
	if metadata {
		b = protowire.AppendTag(b, fieldMetadata, protowire.BytesType)
		b = protowire.AppendString(b, i.Encoded)
	}
	if !i.RegisteredAt.IsZero() {
		b = appendSeconds(b, fieldRegisteredAt, i.RegisteredAt.Unix(), i.RegisteredAt.Nanosecond())
	}
	if !i.ExpiresAt.IsZero() {
		b = appendSeconds(b, fieldExpiresAt, i.ExpiresAt.Unix(), i.ExpiresAt.Nanosecond())
	}
	if i.TTL != multicastregistry.NoExpiry {
		b = appendSeconds(b, fieldTTL, int64(i.TTL/time.Second), int(i.TTL%time.Second))
	}
	if i.Revision != 0 {
		b = protowire.AppendTag(b, fieldRevision, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(i.Revision))
	}
	return b
}

// appendSeconds writes a Timestamp or a Duration: both have seconds and nanoseconds.
func appendSeconds(b []byte, field protowire.Number, seconds int64, nanos int) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return appendSized(b, func(b []byte) []byte {
		if seconds != 0 {
			b = protowire.AppendTag(b, 1, protowire.VarintType)
			b = protowire.AppendVarint(b, uint64(seconds))
		}
		if nanos != 0 {
			b = protowire.AppendTag(b, 2, protowire.VarintType)
			b = protowire.AppendVarint(b, uint64(nanos))
		}
		return b
	})
}

// appendSized writes what a function appends, with its length before it.
func appendSized(b []byte, content func(b []byte) []byte) []byte {
	b = append(b, 0)
	start := len(b)
	b = content(b)
	n := uint64(len(b) - start)
	if more := protowire.SizeVarint(n) - 1; more > 0 {
		b = append(b, make([]byte, more)...)
		copy(b[start+more:], b[start:])
	}
	protowire.AppendVarint(b[:start-1], n)
	return b
}
