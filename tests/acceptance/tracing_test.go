package acceptance

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/encoding"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/app"
	"github.com/prism-data-layer/prism/internal/testenv"
)

const (
	rpcService = "prism.pattern.MulticastRegistryPattern/"
	// A caller's place in a trace, recorded there or not.
	callerTrace, callerSpan = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	recorded, notRecorded   = "00-" + callerTrace + "-" + callerSpan + "-01", "00-" + callerTrace + "-" + callerSpan + "-00"
)

// tracedServer is a server that the test stops, so that what it has to tell has been told.
type tracedServer struct {
	app.Addresses

	log  *safeBuffer
	stop func()
}

type safeBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

// Write implements io.Writer.
func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func serveTraced(t testing.TB, config string) *tracedServer {
	t.Helper()
	cfg, err := app.Parse("traced.yaml", []byte(config))
	must(t, err)
	cfg.Listen = app.Listen{GRPC: "127.0.0.1:0", HTTP: "127.0.0.1:0", Admin: "127.0.0.1:0"}
	s := &tracedServer{log: &safeBuffer{}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, ended := make(chan app.Addresses, 1), make(chan error, 1)
	logger := slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	go func() { ended <- app.Run(ctx, cfg, logger, func(a app.Addresses) { ready <- a }) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		check(t, <-ended)
	})
	t.Cleanup(s.stop)
	select {
	case s.Addresses = <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("the server did not start: %v", err)
	}
	return s
}

// join makes an identity's life, until the returned function is called.
func join(t testing.TB, c *client.Client, id string, handle client.Handler) (leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	joined, left := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(left)
		_ = c.Join(ctx, client.Registration{ID: id}, handle, client.OnJoined(sync.OnceFunc(func() { close(joined) })))
	}()
	leave = sync.OnceFunc(func() {
		cancel()
		<-left
	})
	t.Cleanup(leave)
	select {
	case <-joined:
	case <-left:
		t.Fatal("it did not join")
	}
	return leave
}

// TestTrace follows one trace from an application through the server and its slots to the handler of a recipient.
func TestTrace(t *testing.T) {
	t.Parallel()
	for _, row := range []combination{{name: "memory+memory"}, {name: "redis+nats"}} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			seen, apps := newCollector(t), newCollector(t)
			namespace := testenv.Prefix(t)
			server := serveTraced(t, seen.config("service_name: prism-test")+config(namespace, row.slots(t)))
			provider := apps.provider(t, "app")
			c, err := client.Dial(server.GRPC, client.WithNamespace(namespace), client.WithTracing(provider))
			must(t, err)
			defer c.Close()
			payload := []byte("a payload\x00that stays as it is")
			handled := make(chan trace.SpanContext, 1)
			leave := join(t, c, "dev-1", func(ctx context.Context, m client.Message) error {
				if !bytes.Equal(m.Payload, payload) {
					t.Errorf("received %q", m.Payload)
				}
				handled <- trace.SpanContextFromContext(ctx)
				return nil
			})
			ctx, work := provider.Tracer("test").Start(t.Context(), "work")
			result, err := c.Multicast(ctx, client.MulticastRequest{Payload: payload, Consistency: client.Strong})
			must(t, err)
			work.End()
			leave()
			server.stop()

			id := work.SpanContext().TraceID().String()
			call := apps.one(t, id, rpcService+"MulticastStream", tracepb.Span_SPAN_KIND_CLIENT)
			if root := apps.one(t, id, "work", tracepb.Span_SPAN_KIND_INTERNAL); call.parent != root.id {
				t.Errorf("the call %+v is not within %+v", call, root)
			}
			served := seen.one(t, id, rpcService+"MulticastStream", tracepb.Span_SPAN_KIND_SERVER)
			deliver := seen.one(t, id, "multicast.deliver", tracepb.Span_SPAN_KIND_INTERNAL)
			publish := seen.one(t, id, "messaging.publish", tracepb.Span_SPAN_KIND_INTERNAL)
			find := seen.one(t, id, "registry.find", tracepb.Span_SPAN_KIND_INTERNAL)
			receive := apps.one(t, id, "receive "+namespace, tracepb.Span_SPAN_KIND_CONSUMER)
			for child, parent := range map[*tracedSpan]tracedSpan{
				&served: call, &deliver: served, &publish: deliver, &find: served, &receive: served,
			} {
				if child.parent != parent.id {
					t.Errorf("%+v\nis not within\n%+v", *child, parent)
				}
			}
			if got := (<-handled).SpanID().String(); got != receive.id {
				t.Errorf("the handler was in span %s, not in %s", got, receive.id)
			}
			served.want(t, "prism.namespace", namespace, "prism.multicast.id", result.ID, "prism.multicast.targets", "1",
				"prism.multicast.delivered", "1", "rpc.system.name", "grpc", "rpc.response.status_code", "OK", "prism.api", "grpc")
			deliver.want(t, "prism.count", "1", "prism.failed", "")
			publish.want(t, "prism.count", "1", "prism.backend", row.messaging())
			find.want(t, "prism.count", "1", "prism.backend", row.types()[0])
			receive.want(t, "messaging.message.id", result.ID, "prism.identity", "dev-1")
			if served.service != "prism-test" || receive.service != "app" || seen.token[0] != "7" {
				t.Errorf("spans of %q and %q, sent with %q", served.service, receive.service, seen.token)
			}

			registered := seen.one(t, "", rpcService+"Register", tracepb.Span_SPAN_KIND_SERVER)
			registered.want(t, "prism.identity", "dev-1")
			if put := seen.one(t, registered.trace, "registry.put", tracepb.Span_SPAN_KIND_INTERNAL); put.parent != registered.id {
				t.Errorf("%+v is not within %+v", put, registered)
			}
			// The stream lasted for longer than its span, in which nothing but the attach happened.
			subscribed := seen.one(t, "", rpcService+"Subscribe", tracepb.Span_SPAN_KIND_SERVER)
			for _, s := range seen.spans(subscribed.trace) {
				if s.id != subscribed.id && s.name != "messaging.attach" {
					t.Errorf("the span of a stream has %+v", s)
				}
			}
			apps.one(t, subscribed.trace, rpcService+"Subscribe", tracepb.Span_SPAN_KIND_CLIENT)
		})
	}
}

// post sends JSON with a traceparent.
func post(t testing.TB, url, traceparent, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	must(t, err)
	r.Header.Set("Traceparent", traceparent)
	resp, err := http.DefaultClient.Do(r)
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(text)
}

// TestTraceOverHTTP has a caller without a library, a recipient that traces nothing, and one that was away.
func TestTraceOverHTTP(t *testing.T) {
	t.Parallel()
	seen := newCollector(t)
	server := serveTraced(t, seen.config()+config("default", combination{name: "memory+memory+memory"}.slots(t)))
	c, err := client.Dial(server.GRPC)
	must(t, err)
	defer c.Close()
	handled := make(chan trace.SpanContext, 2)
	handle := func(ctx context.Context, _ client.Message) error {
		handled <- trace.SpanContextFromContext(ctx)
		return nil
	}
	join(t, c, "here", handle)
	_, err = c.Register(t.Context(), client.Registration{ID: "away"})
	must(t, err)
	at := "http://" + server.HTTP + "/v1/namespaces/default/identities:"
	if status, answer := post(t, at+"multicast", recorded, `{"payload": "aGk="}`); status != http.StatusOK {
		t.Fatalf("%d: %s", status, answer)
	}
	join(t, c, "away", handle)
	status, _ := post(t, at+"enumerate", recorded, `{"filter": {"a.regex": "("}}`)
	if status != http.StatusBadRequest {
		t.Errorf("a bad filter is %d", status)
	}
	first, second := <-handled, <-handled
	scraped := scrape(t, server.Admin)
	server.stop()

	served := seen.one(t, callerTrace, rpcService+"Multicast", tracepb.Span_SPAN_KIND_SERVER)
	served.want(t, "prism.api", "http", "prism.multicast.pending", "1", "prism.multicast.delivered", "1")
	if served.parent != callerSpan {
		t.Errorf("the call is within %s", served.parent)
	}
	for _, at := range []trace.SpanContext{first, second} {
		if !at.IsRemote() || at.TraceID().String() != callerTrace || at.SpanID().String() != served.id || !at.IsSampled() {
			t.Errorf("a handler was at %+v", at)
		}
	}
	for _, name := range []string{"durability.enqueue", "ledger.finish"} {
		if s := seen.one(t, callerTrace, name, tracepb.Span_SPAN_KIND_INTERNAL); s.parent != served.id {
			t.Errorf("%+v is not within %+v", s, served)
		}
	}
	refused := seen.one(t, callerTrace, rpcService+"Enumerate", tracepb.Span_SPAN_KIND_SERVER)
	refused.want(t, "rpc.response.status_code", "INVALID_ARGUMENT", "error.type", "INVALID_ARGUMENT")
	if refused.status != tracepb.Status_STATUS_CODE_UNSET {
		t.Error("a fault of the caller's is an error of the server's")
	}
	if line := fmt.Sprintf(`"trace_id":%q,"span_id":%q`, callerTrace, refused.id); !strings.Contains(server.log.String(), line) {
		t.Errorf("no line of the log has %s", line)
	}
	if !strings.Contains(scraped, `trace_id="`+callerTrace+`"`) {
		t.Error("no exemplar names the trace")
	}
}

// scrape reads the metrics with exemplars.
func scrape(t testing.TB, admin string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+admin+"/metrics", nil)
	must(t, err)
	r.Header.Set("Accept", "application/openmetrics-text")
	resp, err := http.DefaultClient.Do(r)
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return string(text)
}

// TestNotRecorded has traces that nobody records, here or at the caller: nothing is sent, and recipients know.
func TestNotRecorded(t *testing.T) {
	t.Parallel()
	const nobodys, callers = "a trace of its own", "the caller's"
	for _, row := range []struct{ name, tracing, caller, want string }{
		{nobodys, "sample_ratio: 0", "", ""},
		{callers, "sample_ratio: 1", notRecorded, "-00"},
		{"on a server that traces nothing", "", recorded, recorded},
		{"with a header that is none", "", "00-xyz", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			seen, section := newCollector(t), ""
			if row.tracing != "" {
				section = seen.config(row.tracing)
			}
			server := serveTraced(t, section+config("default", combination{name: "memory+memory"}.slots(t)))
			c, err := client.Dial(server.GRPC)
			must(t, err)
			defer c.Close()
			stream, err := c.Subscribe(t.Context())
			must(t, err)
			defer stream.Close()
			must(t, stream.Attach(t.Context(), false, "x"))
			at := "http://" + server.HTTP + "/v1/namespaces/default/identities"
			if status, answer := post(t, at, row.caller, `{"identity": "x"}`); status != http.StatusCreated {
				t.Fatalf("%d: %s", status, answer)
			}
			if status, answer := post(t, at+":multicast", row.caller, `{"delivery": "AT_MOST_ONCE"}`); status != http.StatusOK {
				t.Fatalf("%d: %s", status, answer)
			}
			event, err := stream.Next(t.Context())
			must(t, err)
			got := event.Messages[0].TraceParent
			if !strings.HasSuffix(got, row.want) || (got == "") != (row.want == "") {
				t.Errorf("received %q, want %q", got, row.want)
			}
			if row.name == callers && !strings.Contains(got, callerTrace) {
				t.Errorf("received %q of another trace", got)
			}
			server.stop()
			all := ""
			if row.name == callers { // others, which say nothing, are recorded
				all = callerTrace
			}
			if spans := seen.spans(all); len(spans) > 0 {
				t.Errorf("exported %+v", spans)
			}
		})
	}
}

// TestDeadCollector has a collector that is not there, and one that never answers: no call notices, and the server ends in time.
func TestDeadCollector(t *testing.T) {
	t.Parallel()
	clauses := make(map[string]any)
	for i := range 18 {
		clauses[fmt.Sprint("f", i)] = i
	}
	for name, answers := range map[string]bool{"gone": false, "silent": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			defer listener.Close()
			if !answers {
				must(t, listener.Close())
			}
			seen := &collector{url: "http://" + listener.Addr().String()}
			server := serveTraced(t, seen.config()+config("default", combination{name: "memory+memory"}.slots(t)))
			c, err := client.Dial(server.GRPC)
			must(t, err)
			defer c.Close()
			for range 120 { // in some twenty spans each: more than are kept
				_, err := c.Explain(t.Context(), client.ExplainRequest{Filter: clauses})
				must(t, err)
			}
			_, err = c.Multicast(t.Context(), client.MulticastRequest{Delivery: client.AtMostOnce})
			must(t, err)
			began := time.Now()
			server.stop()
			took := time.Since(began)
			t.Log("ended in", took)
			if took > 8*time.Second {
				t.Errorf("the server took %s to end", took)
			}
			if n := strings.Count(server.log.String(), "traces could not be sent"); n < 1 || n > 2 { // and at the end
				t.Errorf("%d lines of the log are about it", n)
			}
		})
	}
}

// TestNoCompression holds what the server is made of to what gRPC does by itself: whatever registers gzip, as OpenTelemetry's clients
// for OTLP do, has every server of the process accept messages that grow a thousandfold.
func TestNoCompression(t *testing.T) {
	t.Parallel()
	if encoding.GetCompressor("gzip") != nil {
		t.Error("something has registered gzip")
	}
}
