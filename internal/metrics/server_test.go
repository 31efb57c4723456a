package metrics_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	dto "github.com/prometheus/client_model/go"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/app"
	"github.com/prism-data-layer/prism/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const patience = 20 * time.Second

// server is a server as `prism serve` runs it, with metrics.
type server struct {
	t   *testing.T
	ctx context.Context
	rpc patternpb.MulticastRegistryPatternClient
	url string // of the admin address
}

// configuration has a namespace with a durability slot, one without, whose subscribers have little room, and one that is read from
// a copy.
const configuration = `
listen: {grpc: "127.0.0.1:0", http: "127.0.0.1:0", admin: "127.0.0.1:0"}
namespaces:
  - name: default
    pattern: multicast-registry
    backend_slots: {registry: {type: memory}, messaging: {type: memory, delivery: at-least-once}, durability: {type: memory}}
  - name: tight
    pattern: multicast-registry
    backend_slots: {registry: {type: memory}, messaging: {type: memory, buffer: 1, delivery: at-most-once}}
  - name: copied
    pattern: multicast-registry
    backend_slots: {registry: {type: nats, embedded: true}, messaging: {type: memory}}
`

func serve(t *testing.T) *server {
	t.Helper()
	cfg, err := app.Parse("test", []byte(configuration))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Version = "v1.2.3"
	life, stop := context.WithCancel(context.Background())
	ready, done := make(chan app.Addresses, 1), make(chan error, 1)
	go func() { done <- app.Run(life, cfg, nil, func(a app.Addresses) { ready <- a }) }()
	var at app.Addresses
	select {
	case at = <-ready:
	case err := <-done:
		stop()
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(at.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	t.Cleanup(func() {
		cancel()
		_ = conn.Close()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return &server{t: t, ctx: ctx, rpc: patternpb.NewMulticastRegistryPatternClient(conn), url: "http://" + at.Admin}
}

func (s *server) get(path, accept string) (status int, kind, body string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(all)
}

// families are the metrics of one scrape.
type families map[string]*dto.MetricFamily

func (s *server) scrape() families {
	s.t.Helper()
	status, _, body := s.get("/metrics", "")
	if status != http.StatusOK {
		s.t.Fatalf("%d: %s", status, body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	out, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// value returns the value of the series that has these labels, "name=value", or the count of a histogram; false when there is none.
func (f families) value(name string, labels ...string) (float64, bool) {
	for _, m := range f[name].GetMetric() {
		have := make(map[string]bool)
		for _, l := range m.GetLabel() {
			have[l.GetName()+"="+l.GetValue()] = true
		}
		all := true
		for _, want := range labels {
			all = all && have[want]
		}
		switch {
		case !all:
		case m.GetHistogram() != nil:
			return float64(m.GetHistogram().GetSampleCount()), true
		case m.GetCounter() != nil:
			return m.GetCounter().GetValue(), true
		default:
			return m.GetGauge().GetValue() + m.GetUntyped().GetValue(), true
		}
	}
	return 0, false
}

// series counts all series.
func (f families) series() (n int) {
	for _, family := range f {
		n += len(family.GetMetric())
	}
	return n
}

// eventually scrapes until a series has a value.
func (s *server) eventually(want float64, name string, labels ...string) families {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		f := s.scrape()
		got, ok := f.value(name, labels...)
		if ok && got == want {
			return f
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s%v is %v (%t), want %v", name, labels, got, ok, want)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (s *server) register(namespace string, ids ...string) {
	s.t.Helper()
	for _, id := range ids {
		if _, err := s.rpc.Register(s.ctx, &patternpb.RegisterRequest{Namespace: namespace, Identity: id}); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *server) multicast(namespace string, change func(*patternpb.MulticastRequest)) *patternpb.MulticastResponse {
	s.t.Helper()
	req := &patternpb.MulticastRequest{Namespace: namespace, Payload: []byte("x")}
	if change != nil {
		change(req)
	}
	out, err := s.rpc.Multicast(s.ctx, req)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

type stream = grpc.BidiStreamingClient[patternpb.SubscribeRequest, patternpb.SubscribeResponse]

// attach opens a stream and waits until it is attached.
func (s *server) attach(namespace string, keepAlive bool, ids ...string) stream {
	s.t.Helper()
	out, err := s.rpc.Subscribe(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	err = out.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Attach{
		Attach: &patternpb.Attach{Namespace: namespace, Identities: ids, KeepAlive: keepAlive},
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	if resp, err := out.Recv(); err != nil || resp.GetAttached() == nil {
		s.t.Fatalf("got %v, %v, want attached", resp, err)
	}
	return out
}

func ack(t *testing.T, on stream) {
	resp, err := on.Recv()
	if err != nil {
		t.Errorf("receive: %v", err)
		return
	}
	for _, m := range resp.GetMessages().GetMessages() {
		_ = on.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Acks{Acks: &patternpb.Acks{
			Acks: []*patternpb.Ack{{Identity: m.GetIdentity(), MessageId: m.GetMessageId()}},
		}}})
	}
}
