package proxy

import (
	"context"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/tracing"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// How calls are traced. Each call of the service that is admitted is one span, which goes on from the caller's traceparent,
// whether that came by gRPC or, through the gateway, by HTTP. The span of a stream without an end of its own, Subscribe or Watch,
// ends with the first answer: what comes later is in the traces of those who send it.

// The headers of W3C Trace Context.
const (
	traceParentHeader = "traceparent"
	traceStateHeader  = "tracestate"
)

// maxTraceState is the longest tracestate that is kept, in bytes: what W3C Trace Context asks for.
const maxTraceState = 512

// Attributes of calls that are Prism's own. Whatever a caller sent is checked, or cut, before it is one.
const (
	apiKey         = attribute.Key("prism.api") // grpc or http
	requestIDKeyed = attribute.Key("prism.request_id")
	identityKey    = attribute.Key("prism.identity")
	multicastIDKey = attribute.Key("prism.multicast.id")
	targetsKey     = attribute.Key("prism.multicast.targets")
	deliveredKey   = attribute.Key("prism.multicast.delivered")
	pendingKey     = attribute.Key("prism.multicast.pending")
	failedKey      = attribute.Key("prism.multicast.failed")
	timedOutKey    = attribute.Key("prism.multicast.timed_out")
	matchedKey     = attribute.Key("prism.enumerate.total")
)

var propagator propagation.TraceContext

// callSpan is the span of a call. A nil one is of a call that is not traced.
type callSpan struct {
	server  *Server
	span    trace.Span
	counted bool // of an EnumerateStream
}

// traced begins the span of a call that is admitted.
func (s *Server) traced(ctx context.Context, method string) (context.Context, *callSpan) {
	if s.cfg.Tracer == nil {
		return ctx, nil
	}
	name, api := method[1:], "grpc"
	if from, ok := peer.FromContext(ctx); ok && fromMemory(from.Addr) {
		api = "http"
	}
	ctx, span := s.cfg.Tracer.Start(propagator.Extract(ctx, incoming{ctx}), name, //nolint:spancheck // end ends it
		trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(semconv.RPCSystemNameGRPC, semconv.RPCMethod(name), apiKey.String(api),
			requestIDKeyed.String(requestID(ctx))))
	return ctx, &callSpan{server: s, span: span} //nolint:spancheck // see above
}

// incoming reads the headers of a call.
type incoming struct{ ctx context.Context }

// Get implements propagation.TextMapCarrier.
func (c incoming) Get(key string) string {
	values := metadata.ValueFromIncomingContext(c.ctx, key)
	if len(values) != 1 || key == traceStateHeader && len(values[0]) > maxTraceState {
		return ""
	}
	return values[0]
}

// Set implements propagation.TextMapCarrier. Nothing is written there.
func (incoming) Set(string, string) {}

// Keys implements propagation.TextMapCarrier. W3C Trace Context asks for none.
func (incoming) Keys() []string { return nil }

// end ends the span with what the call was about and what came of it. The error is what the caller gets.
func (c *callSpan) end(request, response any, err error) {
	if c == nil {
		return
	}
	if !c.span.IsRecording() { // not sampled, or a stream's that has ended
		c.span.End()
		return
	}
	c.about(request)
	c.answer(response)
	st := status.Convert(err)
	called := code.Code(st.Code()).String()
	c.span.SetAttributes(semconv.RPCResponseStatusCode(called))
	if err != nil {
		c.span.SetAttributes(semconv.ErrorTypeKey.String(called))
	}
	switch st.Code() { // those that OpenTelemetry calls errors of a server
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		c.span.SetStatus(otelcodes.Error, tracing.Describe(st.Message()))
	default:
	}
	c.span.End()
}

// about notes the namespace, if it is served here, and whom or what the request names.
func (c *callSpan) about(request any) {
	if name, ok := namespaceOf(request); ok {
		if _, served := c.server.serving.Load().namespaces[name]; served {
			c.span.SetAttributes(tracing.NamespaceKey.String(name))
		}
	}
	switch r := request.(type) {
	case interface{ GetIdentity() string }:
		if id := r.GetIdentity(); id != "" && len(id) <= multicastregistry.MaxIdentityBytes {
			c.span.SetAttributes(identityKey.String(clean(id)))
		}
	case interface{ GetMulticastId() string }:
		if id := r.GetMulticastId(); id != "" {
			c.span.SetAttributes(multicastIDKey.String(shorten(clean(id))))
		}
	}
}

// answer notes what a response, or a message of a stream, tells in numbers.
func (c *callSpan) answer(response any) {
	switch r := response.(type) {
	case *patternpb.MulticastResponse:
		if r != nil {
			c.span.SetAttributes(multicastIDKey.String(r.GetMulticastId()), targetsKey.Int64(int64(r.GetTargetCount())),
				deliveredKey.Int64(int64(r.GetDeliveredCount())), pendingKey.Int64(int64(r.GetPendingCount())),
				failedKey.Int64(int64(r.GetFailedCount())), timedOutKey.Int64(int64(r.GetTimeoutCount())))
		}
	case *patternpb.MulticastStreamResponse:
		c.answer(r.GetEnded())
	case *patternpb.EnumerateResponse:
		if r != nil {
			c.span.SetAttributes(matchedKey.Int64(int64(r.GetTotalCount())))
		}
	case *patternpb.EnumerateStreamResponse:
		if !c.counted { // the first part has the counts
			c.counted = true
			c.answer(r.GetPage())
		}
	}
}

// follow returns a stream whose answers the span notes. An endless stream's span ends with the first one.
func (c *callSpan) follow(stream grpc.ServerStream, endless bool) grpc.ServerStream {
	if c == nil || !c.span.IsRecording() {
		return stream
	}
	return &followedStream{ServerStream: stream, span: c, endless: endless}
}

type followedStream struct {
	grpc.ServerStream

	span    *callSpan
	endless bool
	noted   bool // what it is about
}

// RecvMsg implements grpc.ServerStream.
func (f *followedStream) RecvMsg(msg any) error {
	err := f.ServerStream.RecvMsg(msg)
	if err != nil || f.noted || !f.span.span.IsRecording() {
		return err
	}
	if _, f.noted = namespaceOf(msg); f.noted {
		f.span.about(msg)
	}
	return nil
}

// SendMsg implements grpc.ServerStream.
func (f *followedStream) SendMsg(msg any) error {
	if f.span.span.IsRecording() {
		f.span.answer(msg)
	}
	err := f.ServerStream.SendMsg(msg)
	if err == nil && f.endless {
		f.span.end(nil, nil, nil)
	}
	return err
}

// endless tells whether a stream has no end of its own.
func endless(info *grpc.StreamServerInfo) bool {
	return info.IsClientStream || info.FullMethod == patternpb.MulticastRegistryPattern_Watch_FullMethodName
}

// traceID names the trace of a call that is recorded.
func (c *callSpan) traceID() string {
	if c == nil || !c.span.SpanContext().IsSampled() {
		return ""
	}
	return c.span.SpanContext().TraceID().String()
}

// traceParent is where a call is in its trace: in its span, or, on a server that traces nothing, where the caller is. A call
// that nobody records, and whose caller names no trace, is nowhere.
func (s *Server) traceParent(ctx context.Context) string {
	callers := incoming{ctx}.Get(traceParentHeader)
	if s.cfg.Tracer == nil {
		return callers
	}
	if !trace.SpanContextFromContext(ctx).IsSampled() && multicastregistry.TraceParent(callers) == "" {
		return ""
	}
	var at parent
	propagator.Inject(ctx, &at)
	return string(at)
}

// traceID names the trace that a call is recorded in.
func (s *Server) traceID(ctx context.Context) string {
	if s.cfg.Tracer == nil {
		return ""
	}
	at := trace.SpanContextFromContext(ctx)
	if !at.IsSampled() {
		return ""
	}
	return at.TraceID().String()
}

// parent is what is written to the header traceparent.
type parent string

// Get implements propagation.TextMapCarrier. Nothing is read there.
func (*parent) Get(string) string { return "" }

// Set implements propagation.TextMapCarrier.
func (p *parent) Set(key, value string) {
	if key == traceParentHeader {
		*p = parent(value)
	}
}

// Keys implements propagation.TextMapCarrier.
func (*parent) Keys() []string { return nil }

// traceHeader tells whether a header of an HTTP request is one of W3C Trace Context, and what it is called in gRPC.
func traceHeader(key string) (string, bool) {
	switch key {
	case http.CanonicalHeaderKey(traceParentHeader), http.CanonicalHeaderKey(traceStateHeader):
		return strings.ToLower(key), true
	}
	return "", false
}
