package tracing

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Spans go out by OpenTelemetry's exporter, over a client of our own. Its clients, both of them, have the whole process offer and
// accept gzip in gRPC: a request of a few kilobytes could then take as much memory as the largest message.

const (
	// tracesPath is where a collector takes traces, and defaultEndpoint where it is.
	tracesPath      = "/v1/traces"
	defaultEndpoint = "http://localhost:4318"
	// defaultTimeout bounds one attempt to send spans; OTEL_EXPORTER_OTLP_TIMEOUT may say another bound.
	defaultTimeout = 10 * time.Second
	// firstWait is how long to wait after a failure that may pass, lastWait the wait after which there is no further attempt. They
	// double.
	firstWait, lastWait = time.Second, 4 * time.Second
	// maxAnswer is how much of an answer is read.
	maxAnswer = 64 << 10
)

// uploader is an otlptrace.Client.
type uploader struct {
	url     string
	headers map[string]string
	http    *http.Client
}

// newUploader returns the client for a configuration, and for the environment where that says nothing.
func newUploader(cfg Config) (*uploader, error) {
	u := &uploader{headers: cfg.Headers}
	var err error
	if u.url, err = urlFor(cfg); err != nil {
		return nil, err
	}
	if u.headers == nil {
		if u.headers, err = headersOf(environment("HEADERS")); err != nil {
			return nil, err
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if transport.TLSClientConfig, err = secured(); err != nil {
		return nil, err
	}
	timeout := defaultTimeout
	if text := environment("TIMEOUT"); text != "" {
		ms, err := strconv.ParseUint(text, 10, 31)
		if err != nil || ms == 0 {
			return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_TIMEOUT: %q is not a number of milliseconds", text)
		}
		timeout = time.Duration(ms) * time.Millisecond
	}
	u.http = &http.Client{
		Transport: transport, Timeout: timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // tokens stay where they belong
	}
	return u, nil
}

// environment returns what OpenTelemetry's variable says about exports: of traces, or else of everything.
func environment(name string) string {
	if text := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_" + name); text != "" {
		return text
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_" + name)
}

// urlFor returns where spans are sent to. The variable for traces alone has the whole URL.
func urlFor(cfg Config) (string, error) {
	endpoint := cfg.Endpoint
	if endpoint == "" {
		if whole := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"); whole != "" {
			if _, problem := parsed(whole); problem != "" {
				return "", errors.New("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: " + problem)
			}
			return whole, nil
		}
		if endpoint = os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT"); endpoint == "" {
			endpoint = defaultEndpoint
		}
		if _, problem := parsed(endpoint); problem != "" {
			return "", errors.New("OTEL_EXPORTER_OTLP_ENDPOINT: " + problem)
		}
	}
	at, err := url.Parse(endpoint)
	if err != nil {
		return "", err
	}
	if !strings.HasSuffix(at.Path, tracesPath) {
		at = at.JoinPath(tracesPath)
	}
	return at.String(), nil
}

// headersOf reads headers as OpenTelemetry writes them: "name=value,name=value", with values escaped as in URLs.
func headersOf(text string) (map[string]string, error) {
	out := make(map[string]string)
	for pair := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if name = strings.TrimSpace(name); !ok || err != nil || name == "" {
			return nil, errors.New(`OTEL_EXPORTER_OTLP_HEADERS: expected "name=value,name=value"`) // it may hold a secret
		}
		out[name] = value
	}
	return out, nil
}

// Start implements otlptrace.Client. Connections are made when they are needed.
func (*uploader) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client.
func (u *uploader) Stop(context.Context) error {
	u.http.CloseIdleConnections()
	return nil
}

// UploadTraces implements otlptrace.Client.
func (u *uploader) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	body, err := proto.Marshal(&collectorpb.ExportTraceServiceRequest{ResourceSpans: spans})
	if err != nil {
		return err
	}
	for wait := firstWait; ; wait *= 2 {
		after, again, err := u.post(ctx, body)
		if !again || wait > lastWait {
			return err
		}
		// Servers that fail together do not come again together.
		pause := max(after, time.Duration(float64(wait)*(0.8+0.4*rand.Float64())))
		if until, bounded := ctx.Deadline(); bounded && time.Until(until) < pause {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// post makes one attempt, and tells whether another one makes sense, and after which time the collector wants that.
func (u *uploader) post(ctx context.Context, body []byte) (after time.Duration, again bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.url, bytes.NewReader(body))
	if err != nil {
		return 0, false, err
	}
	for name, value := range u.headers {
		r.Header.Set(name, value)
	}
	r.Header.Set("Content-Type", "application/x-protobuf")
	answer, err := u.http.Do(r)
	if err != nil {
		_, distrusted := errors.AsType[*tls.CertificateVerificationError](err)
		return 0, ctx.Err() == nil && !distrusted, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	switch code := answer.StatusCode; {
	case err != nil:
		return 0, false, err
	case code == http.StatusTooManyRequests, code == http.StatusBadGateway, code == http.StatusServiceUnavailable,
		code == http.StatusGatewayTimeout:
		return retryAfter(answer.Header), true, fmt.Errorf("the collector at %s answers %s", u.url, answer.Status)
	case code < 200 || code > 299:
		return 0, false, fmt.Errorf("the collector at %s answers %s", u.url, answer.Status)
	}
	var told collectorpb.ExportTraceServiceResponse
	if err := proto.Unmarshal(text, &told); err == nil && told.GetPartialSuccess().GetRejectedSpans() > 0 {
		return 0, false, fmt.Errorf("the collector at %s rejects %d spans: %s", u.url,
			told.GetPartialSuccess().GetRejectedSpans(), Describe(told.GetPartialSuccess().GetErrorMessage()))
	}
	return 0, false, nil
}

// retryAfter reads the header of that name, which has seconds or a date.
func retryAfter(h http.Header) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return time.Until(at)
	}
	return 0
}
