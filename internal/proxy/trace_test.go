package proxy

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/auth"
	"github.com/prism-data-layer/prism/patterns/memory"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const callersParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// spansOf returns a server that serves nobody yet, asks who is calling, and records what its sampler says.
func spansOf(t *testing.T, sampler sdktrace.Sampler) (*Server, *tracetest.SpanRecorder) {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder), sdktrace.WithSampler(sampler))
	cfg := Config{Logger: slog.New(slog.DiscardHandler), Tracer: provider.Tracer("test")}
	var err error
	if cfg.Authenticator, err = auth.Open(t.Context(), auth.Config{Tokens: staticTokens("op")}, cfg.Logger); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cfg.Authenticator.Close)
	c, err := multicastregistry.Open(t.Context(), multicastregistry.Config{Namespace: "space"}, multicastregistry.Slots{
		Registry: memory.NewRegistry(memory.RegistryConfig{}), Messaging: memory.NewMessaging(memory.MessagingConfig{}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	cfg.Namespaces = []Namespace{{Coordinator: c, Registry: "memory", Messaging: "memory"}}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Drain(context.Background()) })
	return s, recorder
}

// headersOf are those of a call, with credentials if they are said to be.
func headersOf(t *testing.T, known bool, pairs ...string) context.Context {
	t.Helper()
	if known {
		pairs = append(pairs, "authorization", "Bearer "+tokenOf("op"))
	}
	return metadata.NewIncomingContext(t.Context(), metadata.Pairs(pairs...))
}

// TestSpansOfTheAdmitted has callers who are known, and one who is not: what that one says decides nothing.
func TestSpansOfTheAdmitted(t *testing.T) {
	t.Parallel()
	long := "a=" + strings.Repeat("x", 200) + ",b=" + strings.Repeat("x", 200) + ",c=" + strings.Repeat("x", 200)
	for name, row := range map[string]struct {
		sampler sdktrace.Sampler
		known   bool
		headers []string
		spans   int
		state   string
		parent  string // how the traceparent of a multicast begins
	}{
		"unknown":                   {sampler: sdktrace.AlwaysSample(), headers: []string{"traceparent", callersParent}},
		"known":                     {sampler: sdktrace.AlwaysSample(), known: true, headers: []string{"traceparent", callersParent, "tracestate", "a=b"}, spans: 1, state: "a=b", parent: callersParent[:36]},
		"a long state":              {sampler: sdktrace.AlwaysSample(), known: true, headers: []string{"traceparent", callersParent, "tracestate", long}, spans: 1, parent: callersParent[:36]},
		"not sampled":               {sampler: sdktrace.NeverSample(), known: true},
		"not sampled, caller knows": {sampler: sdktrace.NeverSample(), known: true, headers: []string{"traceparent", callersParent}, parent: callersParent[:36]},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, recorder := spansOf(t, row.sampler)
			info := &grpc.UnaryServerInfo{FullMethod: patternpb.MulticastRegistryPattern_Multicast_FullMethodName}
			called, parent := false, ""
			_, err := s.unary(headersOf(t, row.known, row.headers...), &patternpb.MulticastRequest{}, info,
				func(ctx context.Context, _ any) (any, error) {
					called, parent = true, s.traceParent(ctx)
					return &patternpb.MulticastResponse{}, nil
				})
			if called != row.known || (err == nil) != row.known {
				t.Fatalf("called: %t, %v", called, err)
			}
			if !strings.HasPrefix(parent, row.parent) || (parent == "") != (row.parent == "") {
				t.Errorf("the message carries %q", parent)
			}
			ended := recorder.Ended()
			if len(ended) != row.spans {
				t.Fatalf("%d spans", len(ended))
			}
			if len(ended) > 0 && ended[0].SpanContext().TraceState().String() != row.state {
				t.Errorf("the state is %s", ended[0].SpanContext().TraceState())
			}
		})
	}
}

// readyStream is a stream whose requests are there already.
type readyStream struct {
	grpc.ServerStream

	ctx      context.Context
	requests []proto.Message
}

// Context implements grpc.ServerStream.
func (w *readyStream) Context() context.Context { return w.ctx }

// SetHeader implements grpc.ServerStream.
func (*readyStream) SetHeader(metadata.MD) error { return nil }

// SendMsg implements grpc.ServerStream.
func (*readyStream) SendMsg(any) error { return nil }

// RecvMsg implements grpc.ServerStream.
func (w *readyStream) RecvMsg(msg any) error {
	if len(w.requests) == 0 {
		return io.EOF
	}
	proto.Merge(msg.(proto.Message), w.requests[0])
	w.requests = w.requests[1:]
	return nil
}

// TestSpansOfStreams looks at what is noted of requests and answers of which not all tell it.
func TestSpansOfStreams(t *testing.T) {
	t.Parallel()
	subscribe := func(request any) proto.Message {
		switch r := request.(type) {
		case *patternpb.Attach:
			return &patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Attach{Attach: r}}
		default:
			return &patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Acks{Acks: &patternpb.Acks{}}}
		}
	}
	for name, row := range map[string]struct {
		method   string
		requests []proto.Message
		answers  []any
		key      string
		want     string
		known    bool
	}{
		"attach, then acks": {
			method:   patternpb.MulticastRegistryPattern_Subscribe_FullMethodName,
			requests: []proto.Message{subscribe(nil), subscribe(&patternpb.Attach{Namespace: "space"}), subscribe(nil), subscribe(&patternpb.Attach{})},
			key:      "prism.namespace", want: "space", known: true,
		},
		"counts in the first part": {
			method: patternpb.MulticastRegistryPattern_EnumerateStream_FullMethodName,
			answers: []any{
				&patternpb.EnumerateStreamResponse{Page: &patternpb.EnumerateResponse{TotalCount: 7}},
				&patternpb.EnumerateStreamResponse{Page: &patternpb.EnumerateResponse{}},
			},
			key: "prism.enumerate.total", want: "7", known: true,
		},
		"unknown": {method: patternpb.MulticastRegistryPattern_Watch_FullMethodName},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, recorder := spansOf(t, sdktrace.AlwaysSample())
			info := &grpc.StreamServerInfo{FullMethod: row.method, IsServerStream: true}
			info.IsClientStream = row.method == patternpb.MulticastRegistryPattern_Subscribe_FullMethodName
			in := &readyStream{ctx: headersOf(t, row.known, "traceparent", callersParent), requests: row.requests}
			err := s.stream(nil, in, info, func(_ any, stream grpc.ServerStream) error {
				for range row.requests {
					if err := stream.RecvMsg(&patternpb.SubscribeRequest{}); err != nil {
						return err
					}
				}
				for _, answer := range row.answers {
					if err := stream.SendMsg(answer); err != nil {
						return err
					}
				}
				return nil
			})
			if (err == nil) != row.known {
				t.Fatal(err)
			}
			ended := recorder.Ended()
			if !row.known {
				if len(ended) > 0 {
					t.Errorf("a refused call has spans %v", ended)
				}
				return
			}
			got := ""
			for _, a := range ended[0].Attributes() {
				if string(a.Key) == row.key {
					got = a.Value.String()
				}
			}
			if got != row.want || ended[0].Parent().SpanID().String() != callersParent[36:52] {
				t.Errorf("%s is %q, within %v", row.key, got, ended[0].Parent())
			}
		})
	}
}
