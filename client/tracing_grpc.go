package client

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
)

// traceParentHeader carries the place in a trace.
const traceParentHeader = "traceparent"

// Attributes of spans that are Prism's own.
const (
	identityKey    = attribute.Key("prism.identity")
	redeliveredKey = attribute.Key("prism.redelivered")
)

// traced are the gRPC options that make spans of calls.
func (o *options) traced() []grpc.DialOption {
	if o.tracer == nil {
		return nil
	}
	calls := calls{o.tracer}
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(calls.unary), grpc.WithChainStreamInterceptor(calls.stream)}
}

// calls makes spans of calls.
type calls struct{ tracer trace.Tracer }

// begin begins a span, and has the call carry where that is.
func (c calls) begin(ctx context.Context, method string) (context.Context, trace.Span) {
	name := method[1:]
	ctx, span := c.tracer.Start(ctx, name, //nolint:spancheck // the caller ends it
		trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(semconv.RPCSystemNameGRPC, semconv.RPCMethod(name)))
	headers, _ := metadata.FromOutgoingContext(ctx)
	headers = headers.Copy()
	propagator.Inject(ctx, outgoing(headers))
	return metadata.NewOutgoingContext(ctx, headers), span //nolint:spancheck // see above
}

// outgoing are the headers of a call to be made.
type outgoing metadata.MD

// Get implements propagation.TextMapCarrier. Nothing is read there.
func (outgoing) Get(string) string { return "" }

// Set implements propagation.TextMapCarrier.
func (h outgoing) Set(key, value string) { metadata.MD(h).Set(key, value) }

// Keys implements propagation.TextMapCarrier.
func (outgoing) Keys() []string { return nil }

// ended ends a span with what came of the call. For a client every code but OK is an error.
func ended(span trace.Span, err error) {
	st := status.Convert(err)
	called := code.Code(st.Code()).String()
	span.SetAttributes(semconv.RPCResponseStatusCode(called))
	if st.Code() != codes.OK {
		span.SetAttributes(semconv.ErrorTypeKey.String(called))
		span.SetStatus(otelcodes.Error, st.Message())
	}
	span.End()
}

func (c calls) unary(
	ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	ctx, span := c.begin(ctx, method)
	err := invoke(ctx, method, request, reply, conn, opts...)
	ended(span, err)
	return err
}

func (c calls) stream(
	ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	ctx, span := c.begin(ctx, method)
	stream, err := open(ctx, desc, conn, method, opts...)
	if err != nil {
		ended(span, err)
		return nil, err
	}
	out := &tracedStream{ClientStream: stream, span: span}
	out.endless = desc.ClientStreams || method == patternpb.MulticastRegistryPattern_Watch_FullMethodName
	// Whoever breaks off reading ends the context.
	out.forget = context.AfterFunc(ctx, func() { out.end(status.FromContextError(ctx.Err()).Err()) })
	return out, nil
}

// tracedStream ends a span with the end of the stream, or, where that has none of its own, with the first answer.
type tracedStream struct {
	grpc.ClientStream

	span    trace.Span
	endless bool
	over    atomic.Bool
	forget  func() bool
}

// RecvMsg implements grpc.ClientStream.
func (s *tracedStream) RecvMsg(msg any) error {
	err := s.ClientStream.RecvMsg(msg)
	switch {
	case errors.Is(err, io.EOF), err == nil && s.endless:
		s.forget()
		s.end(nil)
	case err != nil:
		s.forget()
		s.end(err)
	}
	return err
}

func (s *tracedStream) end(err error) {
	if !s.over.Swap(true) {
		ended(s.span, err)
	}
}
