package client_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/prism-data-layer/prism/client"
)

// TestTracing looks at the spans of calls that succeed, fail and are broken off, and of handlers.
func TestTracing(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	addr := serve(t, "127.0.0.1:0").addr
	c := dial(t, addr, client.WithTracing(provider))
	ctx, root := provider.Tracer("test").Start(t.Context(), "root")
	ended := func(name string, status codes.Code) (found sdktrace.ReadOnlySpan) {
		t.Helper()
		patient := time.After(patience)
		for {
			all := recorder.Ended()
			i := slices.IndexFunc(all, func(s sdktrace.ReadOnlySpan) bool {
				return s.Name() == name && s.Status().Code == status
			})
			if i >= 0 {
				return all[i]
			}
			select {
			case <-time.After(time.Millisecond):
			case <-patient:
				t.Fatalf("no span %s with status %v in %v", name, status, all)
			}
		}
	}
	const service = "prism.pattern.MulticastRegistryPattern/"
	for _, id := range []string{"a", "b", "a"} {
		_, err := c.Register(ctx, client.Registration{ID: id})
		if err != nil && !errors.Is(err, client.ErrAlreadyExists) {
			t.Fatal(err)
		}
	}
	for _, status := range []codes.Code{codes.Unset, codes.Error} {
		s := ended(service+"Register", status)
		if s.SpanKind() != trace.SpanKindClient || s.Parent().SpanID() != root.SpanContext().SpanID() {
			t.Errorf("%v within %v", s.SpanKind(), s.Parent())
		}
	}
	for range c.All(ctx, client.Query{PageSize: 1}) {
		break
	}
	ended(service+"EnumerateStream", codes.Error) // broken off
	for _, err := range c.All(ctx, client.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	ended(service+"EnumerateStream", codes.Unset)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	for range c.Watch(watching, client.WatchQuery{}) {
		ended(service+"Watch", codes.Unset) // while it goes on
		break
	}

	joined, handled, alone := make(chan struct{}), make(chan struct{}), make(chan trace.TraceID, 1)
	life, leave := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		first := true
		done <- c.Join(life, client.Registration{ID: "c"}, func(ctx context.Context, m client.Message) error {
			within := trace.SpanContextFromContext(ctx)
			if m.TraceParent == "" {
				alone <- within.TraceID()
				return nil
			}
			remote := trace.SpanContextFromContext(m.Context(t.Context())) //nolint:contextcheck // one that is nowhere yet
			if within.TraceID() != root.SpanContext().TraceID() || !remote.IsRemote() || remote.TraceID() != within.TraceID() {
				t.Errorf("the handler is at %+v, the message at %+v", within, remote)
			}
			if first {
				first = false
				return errors.New("not \xff yet")
			}
			close(handled)
			return nil
		}, client.OnJoined(func() { close(joined) }))
	}()
	<-joined
	for range 2 {
		_, err := c.Multicast(ctx, client.MulticastRequest{
			Filter: map[string]any{"none.exists": false}, Delivery: client.AtLeastOnce, Timeout: 300 * time.Millisecond, RetryAttempts: 1,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	<-handled
	if _, err := dial(t, addr).Multicast(t.Context(), client.MulticastRequest{Delivery: client.AtMostOnce}); err != nil {
		t.Fatal(err)
	}
	if id := <-alone; !id.IsValid() || id == root.SpanContext().TraceID() {
		t.Errorf("a message that is in no trace is handled in %s, which is Join's", id)
	}
	if s := ended("receive default", codes.Error); s.SpanKind() != trace.SpanKindConsumer || s.Status().Description != "not \uFFFD yet" {
		t.Errorf("%v: %q", s.SpanKind(), s.Status().Description)
	}
	ended("receive default", codes.Unset)
	ended(service+"Subscribe", codes.Unset)
	leave()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestMessageContext reads what comes with a message: nothing, what is no place in a trace, and one.
func TestMessageContext(t *testing.T) {
	for _, text := range []string{"", "x", "00-00000000000000000000000000000000-b7ad6b7169203331-01"} {
		if got := trace.SpanContextFromContext(client.Message{TraceParent: text}.Context(t.Context())); got.IsValid() {
			t.Errorf("%q leads to %+v", text, got)
		}
	}
	const text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	got := trace.SpanContextFromContext(client.Message{TraceParent: text}.Context(t.Context()))
	if !got.IsRemote() || !got.IsSampled() || got.SpanID().String() != "b7ad6b7169203331" {
		t.Errorf("got %+v", got)
	}
}
