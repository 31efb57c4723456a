package proxy

import (
	"context"
	"log/slog"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// maxResponseBytes bounds the answer to one Multicast, so that it fits into a message of gRPC's default size, 4 MiB.
const maxResponseBytes = 3 << 20

// maxReplyCodes bounds the different codes that a response counts: they are meant to be few, and say nothing when they are not.
const maxReplyCodes = 10_000

// Multicast implements the RPC.
func (s *service) Multicast(ctx context.Context, req *patternpb.MulticastRequest) (*patternpb.MulticastResponse, error) {
	n, call, err := s.multicastCall(ctx, req)
	if err != nil {
		return nil, err
	}
	result, err := n.Coordinator.Multicast(ctx, call)
	if err != nil {
		return nil, err
	}
	s.measured(n.Coordinator).Multicast(result, s.traceID(ctx))
	s.logUnrecorded(ctx, result)
	out := n.summary(result)
	out.Statuses = report(result.Targets, req.GetReport())
	fit(out)
	return out, nil
}

// multicastCall reads a request, except for its report, which it only checks.
func (s *service) multicastCall(
	ctx context.Context, req *patternpb.MulticastRequest,
) (n entered, call multicastregistry.Request, err error) {
	if n, err = s.enter(ctx, req.GetNamespace()); err != nil {
		return n, call, err
	}
	call = multicastregistry.Request{
		Payload: req.GetPayload(), ContentType: req.GetContentType(), IdempotencyKey: req.GetIdempotencyKey(),
		MaxTargets: n.Limits.MaxTargets(int(req.GetMaxTargets())), DryRun: req.GetDryRun(), RetryAttempts: int(req.GetRetryAttempts()),
		Within: n.grant.Filter(), Owner: n.owner, TraceParent: s.traceParent(ctx),
	}
	if call.Filter, err = n.asked(req.GetFilter()); err != nil {
		return n, call, err
	}
	if call.Delivery, err = deliveryMode(req.GetDelivery()); err != nil {
		return n, call, err
	}
	if call.Timeout, err = span("timeout", req.GetTimeout()); err != nil {
		return n, call, err
	}
	if call.RetryDelay, err = span("retry_delay", req.GetRetryDelay()); err != nil {
		return n, call, err
	}
	if call.Recency, err = recency(req.GetConsistency(), req.GetMinRevision()); err != nil {
		return n, call, err
	}
	if err := checkReport(req.GetReport()); err != nil {
		return n, call, err
	}
	return n, call, n.Limits.Payload(n.owner, len(call.Payload))
}

// summary is summary without warnings where the caller does not see everything: they are about the fields of all identities.
func (e *entered) summary(r *multicastregistry.Result) *patternpb.MulticastResponse {
	out := summary(r)
	if e.grant.Restricted() {
		out.Warnings = nil
	}
	return out
}

// logUnrecorded logs what the caller cannot repair: the result is as told, but will not be found under its id.
func (s *Server) logUnrecorded(ctx context.Context, r *multicastregistry.Result) {
	if r.Unrecorded != nil {
		s.sparing.write(ctx, slog.LevelWarn, kindName{what: "unrecorded"}, "a result was not recorded",
			slog.String("request_id", requestID(ctx)), slog.Any("error", r.Unrecorded))
	}
}

// summary shows a result without its targets. The enums of the wire have the numbers of those below; a test holds them
// together.
func summary(r *multicastregistry.Result) *patternpb.MulticastResponse {
	out := &patternpb.MulticastResponse{
		MulticastId: r.ID, Revision: uint64(r.Revision), TargetCount: uint32(r.TargetCount),
		DeliveredCount: uint32(r.Delivered), PendingCount: uint32(r.Pending),
		FailedCount: uint32(r.Failed), TimeoutCount: uint32(r.TimedOut),
		Ended: patternpb.MulticastResponse_Ended(r.Ended), Delivery: deliveryOf(r.Delivery), Replayed: r.Replayed,
		Warnings: shownWarnings(r.Warnings),
	}
	if r.Ended != 0 { // else it is under way
		out.Elapsed = durationpb.New(r.Elapsed)
	}
	if len(r.Replies) > 0 && len(r.Replies) <= maxReplyCodes {
		out.ReplyCounts = make(map[uint32]uint32, len(r.Replies))
		for code, n := range r.Replies {
			out.ReplyCounts[code] = uint32(n)
		}
	}
	return out
}

// fit leaves statuses out of a response that is too large, those of delivered targets first, then all.
func fit(out *patternpb.MulticastResponse) {
	if proto.Size(out) <= maxResponseBytes {
		return
	}
	all := len(out.GetStatuses())
	out.Statuses = slices.DeleteFunc(out.GetStatuses(), func(s *patternpb.DeliveryStatus) bool {
		return s.GetStatus() == patternpb.DeliveryStatus_DELIVERED
	})
	if proto.Size(out) > maxResponseBytes {
		out.Statuses = nil
	}
	out.OmittedCount = uint32(all - len(out.GetStatuses()))
}
