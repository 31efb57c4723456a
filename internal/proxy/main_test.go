package proxy

import (
	"bytes"
	"context"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/limits"
	"github.com/prism-data-layer/prism/internal/schema"
	"github.com/prism-data-layer/prism/patterns/memory"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is the longest that a test waits for what must happen.
const patience = 20 * time.Second

// bench is a server on real ports with what a test needs to talk to it.
type bench struct {
	*Server
	t      *testing.T
	ctx    context.Context
	rpc    patternpb.MulticastRegistryPatternClient
	conn   *grpc.ClientConn
	url    string
	http   *http.Client
	log    *syncBuffer
	served chan error
}

// fill is a namespace to serve and, where it is not memory, what fills its slots.
type fill struct {
	cfg        multicastregistry.Config
	registry   multicastregistry.Registry
	messaging  multicastregistry.Messaging
	durability multicastregistry.Durability
	limits     *limits.Limits
	schema     *schema.Schema
}

// serve starts a server; without fills it has the namespaces "default" and "other".
func serve(t *testing.T, cfg Config, fills ...fill) *bench {
	t.Helper()
	if len(fills) == 0 {
		fills = []fill{{}, {cfg: multicastregistry.Config{Namespace: "other", TTLDefault: multicastregistry.NoExpiry, Delivery: multicastregistry.AtMostOnce}}}
	}
	var coordinators []*multicastregistry.Coordinator
	for _, f := range fills {
		slots := multicastregistry.Slots{Registry: f.registry, Messaging: f.messaging, Durability: f.durability}
		if slots.Registry == nil {
			slots.Registry = memory.NewRegistry(memory.RegistryConfig{})
		}
		if slots.Messaging == nil {
			slots.Messaging = memory.NewMessaging(memory.MessagingConfig{})
		}
		c, err := multicastregistry.Open(t.Context(), f.cfg, slots)
		if err != nil {
			t.Fatal(err)
		}
		coordinators = append(coordinators, c)
		cfg.Namespaces = append(cfg.Namespaces, Namespace{Coordinator: c, Limits: f.limits, Schema: f.schema, Registry: "memory", Messaging: "memory"})
	}
	b := &bench{t: t, log: &syncBuffer{}, served: make(chan error, 1)}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(b.log, nil))
	}
	var err error
	if b.Server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	grpcListener, httpListener := listenTCP(t), listenTCP(t)
	go func() { b.served <- b.Serve(grpcListener, httpListener) }()
	b.url = "http://" + httpListener.Addr().String()
	b.http = &http.Client{Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if b.conn, err = grpc.NewClient(grpcListener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20))); err != nil {
		t.Fatal(err)
	}
	b.rpc = patternpb.NewMulticastRegistryPatternClient(b.conn)
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	b.ctx = ctx
	t.Cleanup(func() {
		cancel()
		_ = b.conn.Close()
		b.http.CloseIdleConnections()
		drain, done := context.WithTimeout(context.Background(), patience)
		defer done()
		if err := b.Drain(drain); err != nil {
			t.Errorf("drain: %v", err)
		}
		if err := <-b.served; err != nil {
			t.Errorf("serve: %v", err)
		}
		for _, c := range coordinators {
			_ = c.Close()
		}
	})
	return b
}

func listenTCP(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// register registers identities in the default namespace.
func (b *bench) register(ids ...string) {
	b.t.Helper()
	for _, id := range ids {
		if _, err := b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Identity: id}); err != nil {
			b.t.Fatalf("register %q: %v", id, err)
		}
	}
}

// attach opens a stream and attaches identities.
func (b *bench) attach(ids ...string) *client {
	b.t.Helper()
	c := b.open()
	c.send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Attach{Attach: &patternpb.Attach{Identities: ids}}})
	var early []*patternpb.SubscribeResponse
	r := c.recv()
	for ; r.GetMessages() != nil; r = c.recv() {
		early = append(early, r)
	}
	c.early = early
	if got := r.GetAttached().GetIdentities(); strings.Join(got, ",") != strings.Join(ids, ",") {
		b.t.Fatalf("attached %v, want %v", got, ids)
	}
	return c
}

// client is one Subscribe stream.
type client struct {
	grpc.BidiStreamingClient[patternpb.SubscribeRequest, patternpb.SubscribeResponse]
	t      *testing.T
	cancel context.CancelFunc
	early  []*patternpb.SubscribeResponse // came before the stream was attached
}

// Recv returns what came early first.
func (c *client) Recv() (*patternpb.SubscribeResponse, error) {
	if len(c.early) > 0 {
		r := c.early[0]
		c.early = c.early[1:]
		return r, nil
	}
	return c.BidiStreamingClient.Recv()
}

func (b *bench) open() *client {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.ctx)
	b.t.Cleanup(cancel)
	stream, err := b.rpc.Subscribe(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	return &client{BidiStreamingClient: stream, t: b.t, cancel: cancel}
}

func (c *client) send(r *patternpb.SubscribeRequest) {
	c.t.Helper()
	if err := c.Send(r); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

func (c *client) recv() *patternpb.SubscribeResponse {
	c.t.Helper()
	r, err := c.Recv()
	if err != nil {
		c.t.Fatalf("recv: %v", err)
	}
	return r
}

// ack acks every message of a batch.
func (c *client) ack(batch *patternpb.Messages) {
	c.t.Helper()
	acks := &patternpb.Acks{}
	for _, m := range batch.GetMessages() {
		acks.Acks = append(acks.Acks, &patternpb.Ack{Identity: m.GetIdentity(), MessageId: m.GetMessageId()})
	}
	c.send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Acks{Acks: acks}})
}

func (c *client) end() error {
	for {
		if _, err := c.Recv(); err != nil {
			return err
		}
	}
}

// eventually polls until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
		<-tick.C
	}
}

// wantError checks code, field and a part of the message.
func wantError(t *testing.T, err error, code codes.Code, field, text string) {
	t.Helper()
	if status.Code(err) != code {
		t.Fatalf("got %v, want code %s", err, code)
	}
	got := ""
	for _, detail := range status.Convert(err).Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			got = bad.GetFieldViolations()[0].GetField()
		}
	}
	if got != field {
		t.Errorf("field %q, want %q (%v)", got, field, err)
	}
	if !strings.Contains(err.Error(), text) {
		t.Errorf("message %q lacks %q", err, text)
	}
}

// answer is what an HTTP request came back with, without its body.
type answer struct {
	StatusCode int
	Header     http.Header
}

// do sends an HTTP request and returns the answer and its body.
func (b *bench) do(method, path, body string, header ...string) (answer, string) {
	b.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(b.ctx, method, b.url+path, reader)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := b.http.Do(req)
	if err != nil {
		b.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatalf("%s %s: read the body: %v", method, path, err)
	}
	return answer{resp.StatusCode, resp.Header}, string(text)
}

// brokenRegistry is a registry whose backend fails, or panics, or never answers.
type brokenRegistry struct {
	multicastregistry.Registry
	fail func(ctx context.Context) error
}

func (r *brokenRegistry) Put(ctx context.Context, _ multicastregistry.Identity, _ multicastregistry.PutMode) (multicastregistry.Identity, error) {
	return multicastregistry.Identity{}, r.fail(ctx)
}

func (r *brokenRegistry) Renew(ctx context.Context, _ string, _ time.Duration) (multicastregistry.Lease, error) {
	return multicastregistry.Lease{}, r.fail(ctx)
}

func (r *brokenRegistry) Delete(ctx context.Context, _ string, _ multicastregistry.Revision) (bool, error) {
	return false, r.fail(ctx)
}

func (r *brokenRegistry) Scan(ctx context.Context, _ *filter.Expr) iter.Seq2[multicastregistry.Identity, error] {
	return func(yield func(multicastregistry.Identity, error) bool) {
		yield(multicastregistry.Identity{}, r.fail(ctx))
	}
}

func (r *brokenRegistry) Count(ctx context.Context) (int, error) { return 0, r.fail(ctx) }

func (r *brokenRegistry) Ping(ctx context.Context) error { return r.fail(ctx) }
