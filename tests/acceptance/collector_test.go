package acceptance

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collector takes traces over OTLP, as a real one does, and keeps them.
type collector struct {
	url string

	mu    sync.Mutex
	all   []tracedSpan
	token []string // what came with the exports
}

// tracedSpan is a span as it came.
type tracedSpan struct {
	service, name, trace, id, parent string
	kind                             tracepb.Span_SpanKind
	status                           tracepb.Status_StatusCode
	attributes                       map[string]string
}

// newCollector returns one that serves.
func newCollector(t testing.TB) *collector {
	t.Helper()
	c := &collector{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collectorpb.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &request)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("an export to %s: %v", r.URL.Path, err)
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		c.take(&request, r.Header.Get("X-Token"))
	}))
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

func (c *collector) take(request *collectorpb.ExportTraceServiceRequest, token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = append(c.token, token)
	for _, from := range request.GetResourceSpans() {
		service := attributes(from.GetResource().GetAttributes())["service.name"]
		for _, scope := range from.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				c.all = append(c.all, tracedSpan{
					service: service, name: s.GetName(), trace: hex.EncodeToString(s.GetTraceId()), id: hex.EncodeToString(s.GetSpanId()),
					parent: hex.EncodeToString(s.GetParentSpanId()), kind: s.GetKind(), status: s.GetStatus().GetCode(),
					attributes: attributes(s.GetAttributes()),
				})
			}
		}
	}
}

func attributes(all []*commonpb.KeyValue) map[string]string {
	out := make(map[string]string, len(all))
	for _, a := range all {
		switch v := a.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			out[a.GetKey()] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			out[a.GetKey()] = strconv.FormatInt(v.IntValue, 10)
		case *commonpb.AnyValue_BoolValue:
			out[a.GetKey()] = strconv.FormatBool(v.BoolValue)
		}
	}
	return out
}

// spans returns what has come, of one trace or of all.
func (c *collector) spans(trace string) []tracedSpan {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.all), func(s tracedSpan) bool { return trace != "" && s.trace != trace })
}

// one returns the span of a name and kind, of which the trace must have one.
func (c *collector) one(t testing.TB, trace, name string, kind tracepb.Span_SpanKind) tracedSpan {
	t.Helper()
	found := slices.DeleteFunc(c.spans(trace), func(s tracedSpan) bool { return s.name != name || s.kind != kind })
	if len(found) != 1 {
		t.Fatalf("%d spans %s of kind %v, want one of:\n%+v", len(found), name, kind, c.spans(trace))
	}
	return found[0]
}

// want fails the test where an attribute is another one.
func (s tracedSpan) want(t testing.TB, attributes ...string) {
	t.Helper()
	for pair := range slices.Chunk(attributes, 2) {
		if got := s.attributes[pair[0]]; got != pair[1] {
			t.Errorf("%s: %s is %q, want %q", s.name, pair[0], got, pair[1])
		}
	}
}

// config is the section of a configuration that sends traces here.
func (c *collector) config(more ...string) string {
	text := fmt.Sprintf("tracing:\n  endpoint: %s\n  headers: {X-Token: 7}\n", c.url)
	for _, option := range more {
		text += "  " + option + "\n"
	}
	return text
}

// inProcess takes the spans of an application of this process: OpenTelemetry's own clients would change what gRPC does in it.
type inProcess struct{ *collector }

// ExportSpans implements sdktrace.SpanExporter.
func (c inProcess) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range spans {
		out := tracedSpan{
			name: s.Name(), trace: s.SpanContext().TraceID().String(), id: s.SpanContext().SpanID().String(),
			kind: tracepb.Span_SpanKind(s.SpanKind()), status: tracepb.Status_StatusCode(s.Status().Code),
			attributes: make(map[string]string),
		}
		if s.Parent().IsValid() {
			out.parent = s.Parent().SpanID().String()
		}
		for _, a := range s.Attributes() {
			out.attributes[string(a.Key)] = a.Value.String()
		}
		for _, a := range s.Resource().Attributes() {
			if a.Key == semconv.ServiceNameKey {
				out.service = a.Value.AsString()
			}
		}
		c.all = append(c.all, out)
	}
	return nil
}

// Shutdown implements sdktrace.SpanExporter.
func (inProcess) Shutdown(context.Context) error { return nil }

// provider returns what an application sets up for its own traces.
func (c *collector) provider(t testing.TB, service string) *sdktrace.TracerProvider {
	t.Helper()
	p := sdktrace.NewTracerProvider(sdktrace.WithSyncer(inProcess{c}),
		sdktrace.WithResource(resource.NewSchemaless(semconv.ServiceName(service))))
	t.Cleanup(func() { check(t, p.Shutdown(context.WithoutCancel(t.Context()))) })
	return p
}
