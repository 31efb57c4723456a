package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/auth"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// The audit log has an entry for every registration, unregistration, multicast and cancellation, whatever came of it, and for
// every call that was denied. It tells who, what, of whom, and with what result; never a payload, metadata or a token.

// maxAuditFilter bounds the filter in an entry.
const maxAuditFilter = 4 << 10

// audit notes a call. request and response are nil where they are not known.
func (s *Server) audit(ctx context.Context, method string, request, response any, err error) {
	if s.cfg.Audit == nil {
		return
	}
	outcome := codes.OK
	if err != nil {
		outcome = convert(ctx, err).Code()
	}
	denied := outcome == codes.PermissionDenied || outcome == codes.Unauthenticated
	var about []slog.Attr
	switch r := request.(type) {
	case *patternpb.RegisterRequest:
		about = s.whom(r.GetNamespace(), r.GetIdentity())
	case *patternpb.UnregisterRequest:
		about = s.whom(r.GetNamespace(), r.GetIdentity())
	case *patternpb.MulticastRequest:
		about = append(s.whom(r.GetNamespace(), ""), slog.String("filter", auditFilter(r.GetFilter())),
			slog.Int("payload_bytes", len(r.GetPayload())), slog.Bool("dry_run", r.GetDryRun()))
	case *patternpb.CancelMulticastRequest:
		about = append(s.whom(r.GetNamespace(), ""), slog.String("multicast_id", shorten(clean(r.GetMulticastId()))))
	default:
		if !denied {
			return
		}
	}
	switch r := response.(type) {
	case *patternpb.MulticastResponse:
		if err == nil {
			about = append(about, counts(r)...)
		}
	case *patternpb.CancelMulticastResponse:
		if err == nil {
			about = append(about, slog.Uint64("withdrawn", uint64(r.GetWithdrawnCount())))
		}
	}
	if e, ok := errors.AsType[*auth.DeniedError](err); ok && about == nil {
		about = s.whom(e.Namespace, e.Identity)
	}
	if denied {
		about = append(about, slog.String("reason", auth.Reason(err)))
	}
	s.note(ctx, path.Base(method), outcome, about)
}

// auditHTTP notes a request that nobody was found to have sent.
func (s *Server) auditHTTP(r *http.Request, err error) {
	if s.cfg.Audit == nil {
		return
	}
	s.cfg.Audit.LogAttrs(r.Context(), slog.LevelInfo, "HTTP", slog.String("outcome", code.Code_UNAUTHENTICATED.String()),
		slog.String("from", r.RemoteAddr), slog.String("request_id", requestID(r.Context())), slog.String("method", r.Method),
		slog.String("path", shorten(r.URL.EscapedPath())), slog.String("reason", auth.Reason(err)))
}

func (s *Server) note(ctx context.Context, event string, outcome codes.Code, about []slog.Attr) {
	caller, _ := auth.FromContext(ctx)
	attrs := append([]slog.Attr{
		slog.String("outcome", code.Code(outcome).String()), slog.Any("caller", caller), slog.String("from", remote(ctx)),
		slog.String("request_id", requestID(ctx)),
	}, about...)
	s.cfg.Audit.LogAttrs(ctx, slog.LevelInfo, event, attrs...) //nolint:sloglint // one of the methods of the service
}

func (s *Server) whom(namespace, identity string) []slog.Attr {
	if namespace == "" {
		namespace = multicastregistry.DefaultNamespace
	}
	out := []slog.Attr{slog.String("namespace", shorten(clean(namespace)))}
	if identity != "" {
		if len(identity) > multicastregistry.MaxIdentityBytes {
			identity = shorten(identity)
		}
		out = append(out, slog.String("identity", clean(identity)))
	}
	return out
}

func counts(r *patternpb.MulticastResponse) []slog.Attr {
	return []slog.Attr{
		slog.String("multicast_id", r.GetMulticastId()), slog.Uint64("targets", uint64(r.GetTargetCount())),
		slog.Uint64("delivered", uint64(r.GetDeliveredCount())), slog.Uint64("pending", uint64(r.GetPendingCount())),
		slog.Uint64("failed", uint64(r.GetFailedCount())), slog.Uint64("timed_out", uint64(r.GetTimeoutCount())),
	}
}

func auditFilter(f *structpb.Struct) string {
	if f == nil {
		return "{}"
	}
	text, err := protojson.Marshal(f)
	switch {
	case err != nil:
		return "?"
	case len(text) > maxAuditFilter:
		return strings.ToValidUTF8(string(text[:maxAuditFilter]), "") + "…"
	}
	return string(text)
}

// remote is the address that a call came from: of one that came through HTTP, that of the request.
func remote(ctx context.Context) string {
	from, ok := peer.FromContext(ctx)
	switch {
	case !ok || from.Addr == nil:
		return ""
	case !fromMemory(from.Addr):
		return from.Addr.String()
	}
	// The gateway puts the address that it sees behind whatever the request says.
	forwarded := metadata.ValueFromIncomingContext(ctx, "x-forwarded-for")
	if len(forwarded) == 0 {
		return ""
	}
	last := forwarded[len(forwarded)-1]
	return strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])
}
