package client

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// How tracing works. With WithTracing each call is a span of kind CLIENT, whose place in the trace goes along with the call as a
// traceparent (tracing_grpc.go). A server puts where it is in the trace into the messages of a multicast, whether it traces or
// not, and the handler of a message goes on from there: in a span of kind CONSUMER, with WithTracing. The API of OpenTelemetry
// is all that this package needs for that; what becomes of spans is up to the program's TracerProvider.

// tracerName is the instrumentation scope of the spans.
const tracerName = "github.com/prism-data-layer/prism/client"

// WithTracing makes OpenTelemetry spans of calls, and of the handling of messages by Join, JoinAll and Receive, with a
// TracerProvider; with nil, with the global one, which may be set later. Without this option there are none, and calls carry no
// traceparent. The spans of Subscribe and Watch end with the server's first answer. The server reads W3C Trace Context,
// so that is what is sent, whatever the global propagator is.
func WithTracing(provider trace.TracerProvider) Option {
	return func(o *options) {
		if provider == nil {
			provider = otel.GetTracerProvider()
		}
		o.tracer = provider.Tracer(tracerName, trace.WithSchemaURL(semconv.SchemaURL))
	}
}

var propagator propagation.TraceContext

// Context returns ctx with the place in the trace that the message's multicast has, as a remote parent of spans. It is ctx itself
// when the multicast is in no trace. Handlers of Join, JoinAll and Receive are called with such a context; it is for those who
// read a Stream.
func (m Message) Context(ctx context.Context) context.Context {
	if m.TraceParent == "" {
		return ctx
	}
	return propagator.Extract(ctx, received(m.TraceParent))
}

// received is a header traceparent that came with a message.
type received string

// Get implements propagation.TextMapCarrier.
func (r received) Get(key string) string {
	if key == traceParentHeader {
		return string(r)
	}
	return ""
}

// Set implements propagation.TextMapCarrier. Nothing is written there.
func (received) Set(string, string) {}

// Keys implements propagation.TextMapCarrier. W3C Trace Context asks for none.
func (received) Keys() []string { return nil }

// call calls the handler with a message, in a span if there is a tracer.
func (m *membership) call(ctx context.Context, message Message) error {
	joined := trace.SpanContextFromContext(ctx)
	ctx = message.Context(ctx)
	if m.c.tracer == nil {
		return m.handle(ctx, message)
	}
	options := []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
			semconv.MessagingSystemKey.String("prism"), semconv.MessagingOperationTypeProcess,
			semconv.MessagingOperationName("receive"), semconv.MessagingDestinationName(m.c.namespace),
			semconv.MessagingMessageID(message.ID), semconv.MessagingMessageBodySize(len(message.Payload)),
			identityKey.String(message.Identity), redeliveredKey.Bool(message.Redelivered),
		),
	}
	if trace.SpanContextFromContext(ctx).Equal(joined) { // the message is in no trace, and Join's is not its
		options = append(options, trace.WithNewRoot())
	}
	ctx, span := m.c.tracer.Start(ctx, "receive "+m.c.namespace, options...)
	defer span.End()
	err := m.handle(ctx, message)
	if err != nil {
		span.SetStatus(codes.Error, strings.ToValidUTF8(err.Error(), "\uFFFD"))
	}
	return err
}
