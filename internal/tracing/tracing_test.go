package tracing

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

var quiet = slog.New(slog.DiscardHandler)

// TestOff asks for nothing in each way in which that can be done, and uses what comes of it.
func TestOff(t *testing.T) {
	for name, environment := range map[string]string{
		"": "", "OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "none",
	} {
		t.Run(name, func(t *testing.T) {
			cfg := &Config{Endpoint: "http://127.0.0.1:1"}
			if name == "" {
				cfg = nil
			} else {
				t.Setenv(name, environment)
			}
			off, err := Open(t.Context(), cfg, "", quiet)
			if err != nil || off != nil {
				t.Fatalf("%v, %v", off, err)
			}
			off.Close()
			if off.Tracer() != nil || off.Slots("n", "memory", "memory", "") != nil || off.Logger(quiet) != quiet {
				t.Error("what is off makes something")
			}
		})
	}
}

// TestEnvironment has OpenTelemetry's variables say everything.
func TestEnvironment(t *testing.T) {
	var got atomic.Pointer[http.Request]
	var body atomic.Pointer[[]byte]
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		body.Store(&text)
		got.Store(r)
	}))
	defer server.Close()
	for name, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT": server.URL + "/in", "OTEL_EXPORTER_OTLP_HEADERS": "x-token=7",
		"OTEL_SERVICE_NAME": "edge", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=lab,service.name=other",
		"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1",
	} {
		t.Setenv(name, value)
	}
	on, err := Open(t.Context(), nil, "v1", quiet)
	if err != nil {
		t.Fatal(err)
	}
	_, span := on.Tracer().Start(t.Context(), "x")
	span.End()
	on.Close()
	r := got.Load()
	if r == nil || r.URL.Path != "/in/v1/traces" || r.Header.Get("X-Token") != "7" {
		t.Fatalf("exported by %+v", r)
	}
	for _, text := range []string{"edge", "lab", "v1", "telemetry.sdk.name"} {
		if !bytes.Contains(*body.Load(), []byte(text)) {
			t.Errorf("no %q in %q", text, *body.Load())
		}
	}
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
	if _, err := Open(t.Context(), &Config{}, "", quiet); err == nil || !strings.Contains(err.Error(), "set it to http/protobuf") {
		t.Errorf("another protocol: %v", err)
	}
	named, err := Open(t.Context(), &Config{Endpoint: server.URL}, "", quiet)
	if err != nil {
		t.Errorf("another protocol, of another endpoint: %v", err)
	}
	named.Close()
	t.Setenv("OTEL_TRACES_EXPORTER", "zipkin")
	if _, err := Open(t.Context(), &Config{}, "", quiet); err == nil || !strings.Contains(err.Error(), "otlp, none") {
		t.Errorf("another exporter: %v", err)
	}
}

// TestForeignEnvironment has variables that other programs want: without a configuration they are one line of the log each, with
// one they are errors.
func TestForeignEnvironment(t *testing.T) {
	for _, row := range []struct {
		name, value string
		on          bool
	}{
		{"OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", false},
		{"OTEL_TRACES_EXPORTER", "console", false},
		{"OTEL_TRACES_EXPORTER", "otlp,console", false},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", false},
		{"OTEL_EXPORTER_OTLP_TIMEOUT", "soon", false},
		{"OTEL_EXPORTER_OTLP_HEADERS", "s3cret", false},
		{"OTEL_EXPORTER_OTLP_CLIENT_KEY", "/none", false},
		{"OTEL_RESOURCE_ATTRIBUTES", "bad,good=1", true},
	} {
		t.Run(row.name+" "+row.value, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
			t.Setenv(row.name, row.value)
			var log bytes.Buffer
			got, err := Open(t.Context(), nil, "", slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil || (got != nil) != row.on {
				t.Errorf("on: %t, %v", got != nil, err)
			}
			got.Close()
			if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "WARN") || !strings.Contains(text, row.name) ||
				strings.Contains(text, "s3cret") {
				t.Errorf("the log says\n%s", text)
			}
			if _, err := Open(t.Context(), &Config{}, "", quiet); err == nil || !strings.Contains(err.Error(), row.name) {
				t.Errorf("with a configuration: %v", err)
			}
		})
	}
}

func TestURL(t *testing.T) {
	for endpoint, want := range map[string]string{
		"http://c:4318": "http://c:4318/v1/traces", "http://c:4318/": "http://c:4318/v1/traces", "": "http://localhost:4318/v1/traces",
		"https://c/otlp": "https://c/otlp/v1/traces", "https://c/otlp/v1/traces": "https://c/otlp/v1/traces",
	} {
		if got, err := urlFor(Config{Endpoint: endpoint}); got != want || err != nil {
			t.Errorf("%s becomes %s, %v", endpoint, got, err)
		}
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")
	if _, err := urlFor(Config{}); err == nil || !strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_ENDPOINT") {
		t.Errorf("no URL: %v", err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c/whole")
	if got, err := urlFor(Config{}); got != "http://c/whole" || err != nil {
		t.Errorf("traces alone: %s, %v", got, err)
	}
}

func TestHeaders(t *testing.T) {
	got, err := headersOf(" a = b%20c ,,d=e=f")
	if err != nil || len(got) != 2 || got["a"] != "b c" || got["d"] != "e=f" {
		t.Errorf("%v, %v", got, err)
	}
	for _, text := range []string{"s3cret", "=s3cret", "a=%zzs3cret"} {
		if _, err := headersOf(text); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestUpload has a collector answer in each way, and counts the attempts.
func TestUpload(t *testing.T) {
	rejected, err := proto.Marshal(&collectorpb.ExportTraceServiceResponse{
		PartialSuccess: &collectorpb.ExportTracePartialSuccess{RejectedSpans: 2, ErrorMessage: "too old"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		answers  []int
		body     string
		attempts int
		fault    string
		after    string
		least    time.Duration
	}{
		"taken":        {answers: []int{200}, attempts: 1},
		"busy, taken":  {answers: []int{503, 429, 200}, attempts: 3},
		"asks to wait": {answers: []int{503, 429, 200}, attempts: 3, after: "7", least: 14 * time.Second},
		"names a time": {answers: []int{503, 200}, attempts: 2, after: "Sat, 01 Jan 2000 00:00:09 GMT", least: 9 * time.Second},
		"for too long": {answers: []int{429, 200}, attempts: 1, fault: "429", after: "3600"},
		"always busy":  {answers: []int{503, 503, 503, 503, 200}, attempts: 4, fault: "503"},
		"refused":      {answers: []int{401, 200}, attempts: 1, fault: "401"},
		"sent on":      {answers: []int{307, 200}, attempts: 1, fault: "307"},
		"partly taken": {answers: []int{200}, body: string(rejected), attempts: 1, fault: "rejects 2 spans: too old"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				attempts := 0
				u := &uploader{url: "http://c/v1/traces", headers: map[string]string{"x-token": "7"}}
				u.http = &http.Client{
					CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
					Transport: transport(func(r *http.Request) (*http.Response, error) {
						attempts++
						if r.Header.Get("X-Token") != "7" || r.Header.Get("Content-Type") != "application/x-protobuf" {
							t.Errorf("sent with %v", r.Header)
						}
						return &http.Response{
							StatusCode: row.answers[attempts-1], Status: fmt.Sprint(row.answers[attempts-1]),
							Header: http.Header{"Location": {"http://elsewhere"}, "Retry-After": {row.after}}, Body: io.NopCloser(strings.NewReader(row.body)),
						}, nil
					}),
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				began := time.Now()
				err := u.UploadTraces(ctx, nil)
				if took := time.Since(began); took < row.least || took > row.least+20*time.Second {
					t.Errorf("it took %s", took)
				}
				if attempts != row.attempts || (err == nil) != (row.fault == "") || err != nil && !strings.Contains(err.Error(), row.fault) {
					t.Errorf("%d attempts, %v", attempts, err)
				}
			})
		})
	}
}

type transport func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestCertificate has a collector with a certificate of its own authority, which asks for ours.
func TestCertificate(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	private, err := x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	files := make(map[string]string)
	for name, text := range map[string]string{
		"certificate": certificate, "none": "none",
		"key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
	} {
		files[name] = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(files[name], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct{ authority, ours, key, want string }{
		{"", "certificate", "key", "failed to verify certificate"},
		{"certificate", "certificate", "key", ""},
		{"certificate", "", "", "certificate required"},
		{"none", "", "", "holds no certificate"},
		{"certificate", "certificate", "", "one is of no use without the other"},
		{"certificate", "key", "key", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE or OTEL_EXPORTER_OTLP_CLIENT_KEY"},
	} {
		t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", files[row.authority])
		t.Setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", files[row.ours])
		t.Setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", files[row.key])
		u, err := newUploader(Config{Endpoint: server.URL})
		again := false
		if err == nil {
			_, again, err = u.post(t.Context(), nil)
			_ = u.Stop(t.Context())
		}
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%+v: %v", row, err)
		}
		if again && row.authority == "" {
			t.Error("a certificate that is no good is asked for again")
		}
	}
}

// failing is an exporter whose collector is away.
type failing struct{ err error }

// ExportSpans implements sdktrace.SpanExporter.
func (f failing) ExportSpans(ctx context.Context, _ []sdktrace.ReadOnlySpan) error {
	if f.err == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return f.err
}

// Shutdown implements sdktrace.SpanExporter.
func (f failing) Shutdown(context.Context) error { return f.err }

// TestComplaints counts the lines that the log has about a collector that is away: one a minute, with what was lost.
func TestComplaints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		e := newExporter(failing{errors.New("away")}, slog.New(slog.NewTextHandler(&log, nil)))
		spans := make([]sdktrace.ReadOnlySpan, 10)
		for range 130 {
			if err := e.ExportSpans(t.Context(), spans); err != nil {
				t.Error(err)
			}
			<-time.After(time.Second)
		}
		if err := e.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		e.finish(t.Context())
		if n := strings.Count(log.String(), "lost_spans="); n != 4 || !strings.Contains(log.String(), "lost_spans=90") || strings.Count(log.String(), "lost_spans=600") != 2 {
			t.Errorf("%d lines:\n%s", n, log.String())
		}
	})
}

// TestLost ends more spans than the queue takes, with a collector that takes its time, and some when the server has ended.
func TestLost(t *testing.T) {
	for _, size := range []string{"20", "-1"} {
		t.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", size)
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			e := newExporter(failing{}, slog.New(slog.NewTextHandler(&log, nil)))
			q := newQueue(e)
			on := &Tracing{exporter: e, provider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(q))}
			on.tracer = on.provider.Tracer(Name)
			end := func(n int) {
				for range n {
					_, span := on.Tracer().Start(t.Context(), "x")
					span.End()
				}
			}
			_, late := on.Tracer().Start(t.Context(), "late")
			end(int(q.most) + 7)
			on.Close()
			late.End()
			on.exporter.finish(t.Context())
			total := 0
			for _, text := range strings.Split(log.String(), "lost_spans=")[1:] {
				var n int
				if _, err := fmt.Sscan(text, &n); err != nil {
					t.Error(err)
				}
				total += n
			}
			if total != int(q.most)+7 {
				t.Errorf("%d are lost:\n%s", total, log.String())
			}
		})
	}
}

// TestGiveUp ends an export that nobody waits for any more.
func TestGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newExporter(failing{}, quiet)
		time.AfterFunc(flushTimeout, e.giveUp)
		began := time.Now()
		for range 5 {
			if err := e.ExportSpans(t.Context(), nil); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took != flushTimeout {
			t.Errorf("it took %s", took)
		}
	})
}

// recorded is a tracing whose spans the test gets.
func recorded() (*Tracing, *tracetest.SpanRecorder) {
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	return &Tracing{provider: provider, tracer: provider.Tracer(Name)}, recorder
}

// TestSlots looks at the span of an operation by its outcome.
func TestSlots(t *testing.T) {
	on, recorder := recorded()
	slots := on.Slots("space", "redis", "nats", "")
	if _, end := slots.Begin(t.Context(), "registry.put"); end != nil {
		t.Error("an operation outside any call is recorded")
	}
	ctx, call := on.Tracer().Start(t.Context(), "call")
	for _, row := range []struct {
		err       error
		status    codes.Code
		told      string
		operation string
		backend   string
	}{
		{nil, codes.Unset, "", "registry.put", "redis"},
		{fmt.Errorf("a: %w", multicastregistry.ErrNotFound), codes.Unset, "not_found", "messaging.publish", "nats"},
		{multicastregistry.ErrAlreadyExists, codes.Unset, "already_exists", "multicast.deliver", ""},
		{context.Canceled, codes.Unset, "canceled", "registry.scan", "redis"},
		{multicastregistry.ErrUnavailable, codes.Error, "unavailable", "registry.put", "redis"},
		{errors.New("\xff" + strings.Repeat("x", 1000)), codes.Error, "_OTHER", "registry.put", "redis"},
	} {
		inner, end := slots.Begin(ctx, row.operation)
		if trace.SpanFromContext(inner) == call {
			t.Error("no span of its own")
		}
		end(3, 2, row.err)
		ended := recorder.Ended()
		span := ended[len(ended)-1]
		got := make(map[string]string)
		for _, a := range span.Attributes() {
			got[string(a.Key)] = a.Value.String()
		}
		if span.Name() != row.operation || span.Status().Code != row.status || got["error.type"] != row.told || got["prism.count"] != "3" ||
			got["prism.failed"] != "2" || got["prism.backend"] != row.backend || got["prism.namespace"] != "space" {
			t.Errorf("%v: %s, %v, %v", row.err, span.Name(), span.Status(), got)
		}
		if text := span.Status().Description; len(text) > 300 || strings.Contains(text, "\xff") {
			t.Errorf("described as %q", text)
		}
	}
	call.End()
	if _, end := slots.Begin(ctx, "registry.put"); end != nil {
		t.Error("an operation after its call is recorded")
	}
}

// TestLogger names the trace in lines about what is recorded.
func TestLogger(t *testing.T) {
	on, _ := recorded()
	var out bytes.Buffer
	log := on.Logger(slog.New(slog.NewTextHandler(&out, nil))).With(slog.Int("a", 1)).WithGroup("g")
	log.InfoContext(t.Context(), "none")
	ctx, span := on.Tracer().Start(t.Context(), "call")
	log.InfoContext(ctx, "one")
	lines := strings.Split(out.String(), "\n")
	id := span.SpanContext().TraceID().String()
	if strings.Contains(lines[0], "trace_id") || !strings.Contains(lines[1], "trace_id="+id) || !strings.Contains(lines[1], "a=1") {
		t.Errorf("logged\n%s", out.String())
	}
	if on.Logger(nil) != nil {
		t.Error("nothing becomes a logger")
	}
}
