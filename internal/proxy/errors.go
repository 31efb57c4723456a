package proxy

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/prism-data-layer/prism/internal/auth"
	"github.com/prism-data-layer/prism/internal/limits"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// sentinels maps what the layers below say to what the wire says. It is the only such table.
var sentinels = []struct {
	err  error
	code codes.Code
}{
	{multicastregistry.ErrInvalid, codes.InvalidArgument},
	{multicastregistry.ErrNotFound, codes.NotFound},
	{multicastregistry.ErrAlreadyExists, codes.AlreadyExists},
	{multicastregistry.ErrQuota, codes.ResourceExhausted},
	{multicastregistry.ErrUnsupported, codes.FailedPrecondition},
	{multicastregistry.ErrUnavailable, codes.Unavailable},
	{auth.ErrUnauthenticated, codes.Unauthenticated},
	{auth.ErrPermissionDenied, codes.PermissionDenied},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},
}

// failed turns any error into the status that the caller gets, and logs what the caller must not see or cannot repair. It
// is called once for each call, by the interceptors.
func (s *Server) failed(ctx context.Context, method string, err error) error {
	if err == nil {
		return nil
	}
	st := convert(ctx, err)
	kind := kindName{method, st.Code().String()}
	if !strings.HasPrefix(method, "/") { // a request of HTTP, with its path
		kind.what, method = "HTTP", shorten(method)
	}
	attrs := []slog.Attr{slog.String("method", method), slog.String("request_id", requestID(ctx)), slog.Any("error", err)}
	switch st.Code() {
	case codes.Internal:
		s.sparing.write(ctx, slog.LevelError, kind, "call failed", attrs...)
		return status.Error(codes.Internal, "internal error; the server's log tells more under request id "+requestID(ctx))
	case codes.Unavailable:
		level := slog.LevelWarn
		if _, ours := status.FromError(err); ours {
			level, kind.which = slog.LevelDebug, "ours" // draining
		}
		s.sparing.write(ctx, level, kind, "call failed", attrs...)
	default:
		s.sparing.write(ctx, slog.LevelDebug, kind, "call refused", append(attrs, slog.String("reason", auth.Reason(err)))...)
	}
	return st.Err()
}

// convert is the mapping itself. An error that nothing below has a name for is Internal.
func convert(ctx context.Context, err error) *status.Status {
	if st, ok := status.FromError(err); ok {
		return st
	}
	// When the caller's own time is up, that is the answer, whatever else a backend calls it.
	if gone := ctx.Err(); gone != nil && errors.Is(err, gone) {
		return status.FromContextError(gone)
	}
	if syntax, ok := errors.AsType[*filter.SyntaxError](err); ok {
		return badRequest("filter"+syntax.Pointer, syntax.Msg, err.Error())
	}
	if invalid, ok := errors.AsType[*multicastregistry.InvalidError](err); ok {
		return badRequest(invalid.Field, invalid.Problem, err.Error())
	}
	if exceeded, ok := errors.AsType[*limits.ExceededError](err); ok {
		return overLimit(exceeded)
	}
	for _, known := range sentinels {
		if errors.Is(err, known.err) {
			return status.New(known.code, clean(err.Error()))
		}
	}
	return status.New(codes.Internal, err.Error())
}

// overLimit is a RESOURCE_EXHAUSTED that names the limit, and says when to try again if time helps.
func overLimit(e *limits.ExceededError) *status.Status {
	st := status.New(codes.ResourceExhausted, clean(e.Error()))
	details := []protoadapt.MessageV1{&errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{
		{Subject: e.Limit, Description: clean(e.Taken + ", at most " + e.Most)},
	}}}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	detailed, err := st.WithDetails(details...)
	if err != nil {
		return st
	}
	return detailed
}

// badRequest is an INVALID_ARGUMENT that names the field.
func badRequest(field, problem, message string) *status.Status {
	st := status.New(codes.InvalidArgument, clean(message))
	detailed, err := st.WithDetails(&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: clean(field), Description: clean(problem)},
	}})
	if err != nil {
		return st
	}
	return detailed
}

// maxText bounds an error's text in bytes: as a trailer of gRPC it must fit among the headers that clients take.
const maxText = 4 << 10

// clean makes a text fit for the wire: messages quote what callers sent, and proto strings must be UTF-8.
func clean(text string) string {
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// invalid is an InvalidError of the proxy's own.
func invalid(field, problem string) error {
	return &multicastregistry.InvalidError{Field: field, Problem: problem}
}
