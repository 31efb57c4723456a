package proxy

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// Page sizes of GetMulticast and ListMulticasts.
const (
	defaultTargets    = 1000
	maxTargets        = 10_000
	defaultMulticasts = 20
	maxMulticasts     = multicastregistry.MaxMulticastsPage
	// pageBytes ends a page early, so that it fits into a message of gRPC's default size, 4 MiB.
	pageBytes = 2 << 20
	// multicastIDBytes is the length of a multicast's id.
	multicastIDBytes = len("01890a5d-ac96-774b-bcce-b302099a8057")
)

// GetMulticast implements the RPC.
func (s *service) GetMulticast(ctx context.Context, req *patternpb.GetMulticastRequest) (*patternpb.GetMulticastResponse, error) {
	n, err := s.enter(ctx, req.GetNamespace())
	if err != nil {
		return nil, err
	}
	if err := checkReport(req.GetReport()); err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize(), defaultTargets, maxTargets)
	if err != nil {
		return nil, err
	}
	after, err := readPageToken(req.GetPageToken())
	if err != nil || len(after) > multicastregistry.MaxIdentityBytes {
		return nil, errPageToken
	}
	kept, err := n.known(ctx, req.GetMulticastId())
	if err != nil {
		return nil, err
	}
	out := &patternpb.GetMulticastResponse{}
	if out.Multicast, err = n.record(kept); err != nil {
		return nil, err
	}
	out.Statuses, out.NextPageToken = targetPage(kept.Result.Targets, req.GetReport(), after, size)
	return out, nil
}

// targetPage lists the targets of a report behind one of them, up to a number and about pageBytes, one at least if there is one.
func targetPage(
	targets []multicastregistry.Target, which patternpb.MulticastRequest_Report, after string, most int,
) (page []*patternpb.DeliveryStatus, next string) {
	start, found := slices.BinarySearchFunc(targets, after, func(t multicastregistry.Target, id string) int {
		return cmp.Compare(t.Identity, id)
	})
	if found {
		start++
	}
	bytes := 0
	for i := range targets[start:] {
		t := &targets[start+i]
		if !reported(t, which) {
			continue
		}
		status := deliveryStatus(t)
		bytes += proto.Size(status)
		if n := len(page); n == most || n > 0 && bytes > pageBytes {
			return page, pageToken(page[n-1].GetIdentity())
		}
		page = append(page, status)
	}
	return page, ""
}

// ListMulticasts implements the RPC.
func (s *service) ListMulticasts(
	ctx context.Context, req *patternpb.ListMulticastsRequest,
) (*patternpb.ListMulticastsResponse, error) {
	n, err := s.enter(ctx, req.GetNamespace())
	if err != nil {
		return nil, err
	}
	size, err := pageSize(req.GetPageSize(), defaultMulticasts, maxMulticasts)
	if err != nil {
		return nil, err
	}
	before, err := readPageToken(req.GetPageToken())
	if err != nil || before != "" && len(before) != multicastIDBytes {
		return nil, errPageToken
	}
	kept, more, err := n.list(ctx, before, size)
	if err != nil {
		return nil, err
	}
	out := &patternpb.ListMulticastsResponse{}
	bytes := 0
	last := ""
	for _, k := range kept {
		shown, err := n.record(k)
		if err != nil {
			return nil, err
		}
		if bytes += proto.Size(shown); bytes > pageBytes && len(out.GetMulticasts()) > 0 {
			more = true
			break
		}
		out.Multicasts, last = append(out.GetMulticasts(), shown), k.Result.ID
	}
	if more {
		out.NextPageToken = pageToken(last)
	}
	return out, nil
}

// othersAtOnce is how many multicasts are read at once in search of the caller's own.
const othersAtOnce = 100

// list returns multicasts of which the caller may know, up to a number, and whether there are more. Of others nothing shows, not
// even that they are passed over.
func (e *entered) list(
	ctx context.Context, before string, size int,
) (kept []*multicastregistry.MulticastRecord, more bool, err error) {
	for limit := size; ; {
		page, err := e.Coordinator.ListMulticasts(ctx, before, limit)
		if err != nil {
			return nil, false, err
		}
		for _, k := range page {
			switch before = k.Result.ID; {
			case !e.mayKnow(k):
			case len(kept) == size:
				return kept, true, nil
			default:
				kept = append(kept, k)
			}
		}
		if len(page) < limit {
			return kept, false, nil
		}
		if limit = 1; e.grant.Filter() != nil {
			limit = othersAtOnce
		}
	}
}

// CancelMulticast implements the RPC.
func (s *service) CancelMulticast(
	ctx context.Context, req *patternpb.CancelMulticastRequest,
) (*patternpb.CancelMulticastResponse, error) {
	n, err := s.enter(ctx, req.GetNamespace())
	if err != nil {
		return nil, err
	}
	if n.grant.Filter() != nil {
		if _, err := n.known(ctx, req.GetMulticastId()); err != nil {
			return nil, err
		}
	}
	withdrawn, kept, err := n.Coordinator.CancelMulticast(ctx, req.GetMulticastId())
	if err != nil {
		return nil, err
	}
	shown, err := n.record(kept)
	return &patternpb.CancelMulticastResponse{WithdrawnCount: uint32(withdrawn), Multicast: shown}, err
}

// known returns a multicast of which the caller may know. One of which they may not is not found, in the same words.
func (e *entered) known(ctx context.Context, id string) (*multicastregistry.MulticastRecord, error) {
	kept, err := e.Coordinator.GetMulticast(ctx, id)
	if errors.Is(err, multicastregistry.ErrNotFound) || err == nil && !e.mayKnow(kept) {
		return nil, fmt.Errorf("multicast %q: %w", shorten(id), multicastregistry.ErrNotFound)
	}
	return kept, err
}

// record shows what is kept of a multicast, without its targets; its filter only if the caller could have asked so.
func (e *entered) record(k *multicastregistry.MulticastRecord) (*patternpb.MulticastRecord, error) {
	out := &patternpb.MulticastRecord{
		State: patternpb.MulticastRecord_State(k.State), CreatedAt: moment(k.CreatedAt), PayloadBytes: uint32(k.PayloadBytes),
		ContentType: k.ContentType, IdempotencyKey: k.IdempotencyKey, Result: summary(&k.Result),
	}
	if k.Filter != "" && e.mayAsk(k.Filter) {
		out.Filter = new(structpb.Struct)
		if err := protojson.Unmarshal([]byte(k.Filter), out.GetFilter()); err != nil {
			return nil, fmt.Errorf("multicast %s: its filter %s: %w", k.Result.ID, shorten(k.Filter), err)
		}
	}
	return out, nil
}

// mayAsk tells whether a filter names no field that is hidden from the caller.
func (e *entered) mayAsk(text string) bool {
	if !e.grant.Restricted() {
		return true
	}
	asked, err := e.Coordinator.Config().Filter.Parse(text)
	return err == nil && e.grant.CheckFilter(asked) == nil
}

func pageSize(asked int32, ifZero, most int) (int, error) {
	size := cmp.Or(int(asked), ifZero)
	if size < 1 || size > most {
		return 0, invalid("page_size", fmt.Sprintf("must be between 1 and %d", most))
	}
	return size, nil
}

// A page token is the last name of the page before, so that it stays good whatever happens meanwhile.
func pageToken(last string) string { return base64.RawURLEncoding.EncodeToString([]byte(last)) }

func readPageToken(token string) (last string, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || !utf8.Valid(raw) {
		return "", errPageToken
	}
	return string(raw), nil
}

var errPageToken = invalid("page_token", "is not a token that this server handed out")
