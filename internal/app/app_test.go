package app_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/app"
	"github.com/prism-data-layer/prism/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// free returns the default configuration on free ports.
func free() app.Config {
	cfg := app.Default()
	cfg.Listen = app.Listen{GRPC: "127.0.0.1:0", HTTP: "127.0.0.1:0"}
	return cfg
}

// run starts a server and returns its addresses and what ends it.
func run(t *testing.T, cfg app.Config) (at app.Addresses, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready := make(chan app.Addresses, 1)
	done := make(chan error, 1)
	go func() { done <- app.Run(ctx, cfg, nil, func(a app.Addresses) { ready <- a }) }()
	select {
	case at = <-ready:
	case err := <-done:
		cancel()
		t.Fatalf("run: %v", err)
	}
	stopped := false
	var result error
	stop = func() error {
		if !stopped {
			stopped = true
			cancel()
			result = <-done
		}
		return result
	}
	t.Cleanup(func() { _ = stop() })
	return at, stop
}

func dial(t *testing.T, at string) patternpb.MulticastRegistryPatternClient {
	t.Helper()
	conn, err := grpc.NewClient(at, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return patternpb.NewMulticastRegistryPatternClient(conn)
}

func TestRunServesAndDrains(t *testing.T) {
	at, stop := run(t, free())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c := dial(t, at.GRPC)
	if _, err := c.Register(ctx, &patternpb.RegisterRequest{Identity: "dev-1"}); err != nil {
		t.Fatal(err)
	}
	stream, err := c.Subscribe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Attach{
		Attach: &patternpb.Attach{Identities: []string{"dev-1"}},
	}}); err != nil {
		t.Fatal(err)
	}
	if resp, err := stream.Recv(); err != nil || resp.GetAttached() == nil {
		t.Fatalf("got %v, %v, want attached", resp, err)
	}
	go func() {
		resp, err := stream.Recv()
		if err != nil || len(resp.GetMessages().GetMessages()) != 1 {
			t.Errorf("got %v, %v, want one message", resp, err)
			return
		}
		m := resp.GetMessages().GetMessages()[0]
		_ = stream.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Acks{Acks: &patternpb.Acks{
			Acks: []*patternpb.Ack{{Identity: m.GetIdentity(), MessageId: m.GetMessageId()}},
		}}})
	}()
	result, err := c.Multicast(ctx, &patternpb.MulticastRequest{Payload: []byte("hello")})
	if err != nil || result.GetDeliveredCount() != 1 {
		t.Fatalf("got %v, %v, want one delivered", result, err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if resp, err := stream.Recv(); err != nil || resp.GetClosing() == nil {
		t.Errorf("got %v, %v, want closing", resp, err)
	}
}

// Several servers share a process and nothing else.
func TestTwoRuns(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	first, stopFirst := run(t, free())
	second, _ := run(t, free())
	if _, err := dial(t, first.GRPC).Register(ctx, &patternpb.RegisterRequest{Identity: "a"}); err != nil {
		t.Fatal(err)
	}
	if err := stopFirst(); err != nil {
		t.Fatal(err)
	}
	page, err := dial(t, second.GRPC).Enumerate(ctx, &patternpb.EnumerateRequest{})
	if err != nil || page.GetTotalCount() != 0 {
		t.Errorf("the second server has %v, %v", page, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+second.HTTP+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("readyz: %v, %v", resp, err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
}

func TestPortTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	at := taken.Addr().String()
	for which, listen := range map[string]app.Listen{
		"grpc": {GRPC: at, HTTP: "127.0.0.1:0"},
		"http": {GRPC: "127.0.0.1:0", HTTP: at},
	} {
		cfg := free()
		cfg.Listen = listen
		err := app.Run(t.Context(), cfg, nil, nil)
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), at) || !strings.Contains(err.Error(), "listen."+which) || !strings.Contains(err.Error(), "--"+which+"-addr") {
			t.Errorf("%s: %v", which, err)
		}
		cfg.Listen = app.Listen{GRPC: "127.0.0.1:0", HTTP: "127.0.0.1:0"}
		if which == "grpc" {
			cfg.Listen.GRPC = "192.0.2.1:1"
		} else {
			cfg.Listen.HTTP = "192.0.2.1:1"
		}
		if err := app.Run(t.Context(), cfg, nil, nil); err == nil || !strings.Contains(err.Error(), "192.0.2.1:1") {
			t.Errorf("%s: %v", which, err)
		}
	}
}

func TestRunRefuses(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*app.Config)
		want   string
	}{
		"no namespaces":    {func(c *app.Config) { c.Namespaces = nil }, "no namespaces"},
		"one twice":        {func(c *app.Config) { c.Namespaces = append(c.Namespaces, c.Namespaces[0]) }, `"default" is given twice`},
		"a bad name":       {func(c *app.Config) { c.Namespaces[0].Namespace = "A" }, "is not a namespace"},
		"a bad registry":   {func(c *app.Config) { c.Namespaces[0].Registry.Type = "etcd" }, `backend_slots.registry: "etcd" is not a backend of the registry slot`},
		"a bad messaging":  {func(c *app.Config) { c.Namespaces[0].Messaging.Type = "amqp" }, `backend_slots.messaging: "amqp" is not a backend of the messaging slot`},
		"a bad durability": {func(c *app.Config) { c.Namespaces[0].Durability.Type = "kafka" }, `"kafka" is not a backend of the durability slot`},
		"the second is bad": {func(c *app.Config) {
			n := c.Namespaces[0]
			n.Namespace = "b"
			n.Registry.Type = "x"
			c.Namespaces = append(c.Namespaces, n)
		}, `open namespace "b"`},
	} {
		cfg := free()
		row.change(&cfg)
		if err := app.Run(t.Context(), cfg, nil, func(app.Addresses) { t.Error("ready") }); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %s", name, err, row.want)
		}
	}
}

// With a durability slot a message waits for its identity.
func TestRunWithDurability(t *testing.T) {
	cfg := free()
	cfg.Namespaces[0].Durability.Type = "memory"
	at, _ := run(t, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c := dial(t, at.GRPC)
	if _, err := c.Register(ctx, &patternpb.RegisterRequest{Identity: "away"}); err != nil {
		t.Fatal(err)
	}
	result, err := c.Multicast(ctx, &patternpb.MulticastRequest{Payload: []byte("later")})
	if err != nil || result.GetPendingCount() != 1 || result.GetStatuses()[0].GetEvidence() != patternpb.DeliveryStatus_STORED {
		t.Fatalf("got %v, %v", result, err)
	}
	list, err := c.ListNamespaces(ctx, &patternpb.ListNamespacesRequest{})
	if err != nil || list.GetNamespaces()[0].GetDurability() != "memory" {
		t.Errorf("got %v, %v", list, err)
	}
	stream, err := c.Subscribe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Attach{
		Attach: &patternpb.Attach{Identities: []string{"away"}},
	}}); err != nil {
		t.Fatal(err)
	}
	if m := firstMessage(t, stream); string(m.GetPayload()) != "later" || !m.GetRedelivered() {
		t.Errorf("got %v", m)
	}
}

// What waits for an identity, and what has become of a multicast, outlives the process where the backend does.
func TestDurabilityOutlivesTheProcess(t *testing.T) {
	for name, slot := range map[string]string{
		"redis": "{type: redis, host: " + strconv.Quote(testenv.NewRedis(t).Addr) + "}",
		"nats":  "{type: nats, embedded: true, store_dir: " + strconv.Quote(t.TempDir()) + "}",
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := app.Parse(name, []byte(slots(slot, slot)+"      durability: "+slot+"\n"))
			if err != nil {
				t.Fatal(err)
			}
			cfg.Listen = free().Listen
			at, stop := run(t, cfg)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			c := dial(t, at.GRPC)
			if _, err := c.Register(ctx, &patternpb.RegisterRequest{Namespace: "a", Identity: "away", NeverExpires: true}); err != nil {
				t.Fatal(err)
			}
			req := &patternpb.MulticastRequest{Namespace: "a", Payload: []byte("later"), IdempotencyKey: "k"}
			sent, err := c.Multicast(ctx, req)
			if err != nil || sent.GetPendingCount() != 1 || sent.GetStatuses()[0].GetEvidence() != patternpb.DeliveryStatus_STORED {
				t.Fatal(sent, err)
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}

			at, _ = run(t, cfg)
			c = dial(t, at.GRPC)
			get := func() *patternpb.DeliveryStatus {
				got, err := c.GetMulticast(ctx, &patternpb.GetMulticastRequest{Namespace: "a", MulticastId: sent.GetMulticastId()})
				if err != nil {
					t.Fatal(err)
				}
				return got.GetStatuses()[0]
			}
			if got := get(); got.GetStatus() != patternpb.DeliveryStatus_PENDING {
				t.Errorf("after the restart: %v", got)
			}
			if again, err := c.Multicast(ctx, req); err != nil || !again.GetReplayed() || again.GetMulticastId() != sent.GetMulticastId() {
				t.Errorf("the same key: %v, %v", again, err)
			}
			stream, err := c.Subscribe(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Attach{
				Attach: &patternpb.Attach{Namespace: "a", Identities: []string{"away"}},
			}}); err != nil {
				t.Fatal(err)
			}
			m := firstMessage(t, stream)
			if string(m.GetPayload()) != "later" || !m.GetRedelivered() || m.GetMessageId() != sent.GetMulticastId() {
				t.Errorf("got %v", m)
			}
			if err := stream.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Acks{Acks: &patternpb.Acks{
				Acks: []*patternpb.Ack{{Identity: "away", MessageId: m.GetMessageId(), ReplyCode: 6}},
			}}}); err != nil {
				t.Fatal(err)
			}
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for get().GetStatus() != patternpb.DeliveryStatus_DELIVERED {
				<-tick.C // get fails when ctx has ended
			}
			if got := get(); got.GetReplyCode() != 6 {
				t.Errorf("delivered: %v", got)
			}
		})
	}
}

// firstMessage waits for a message.
func firstMessage(t *testing.T, stream grpc.BidiStreamingClient[patternpb.SubscribeRequest, patternpb.SubscribeResponse]) *patternpb.Message {
	t.Helper()
	for {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m := resp.GetMessages().GetMessages(); len(m) > 0 {
			return m[0]
		}
	}
}

// What does not end within the drain timeout is cut off; Run ends all the same, and says so in the log.
func TestDrainTimeout(t *testing.T) {
	var log bytes.Buffer
	cfg := free()
	cfg.DrainTimeout = 50 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan app.Addresses, 1), make(chan error, 1)
	go func() {
		done <- app.Run(ctx, cfg, slog.New(slog.NewTextHandler(&log, nil)), func(at app.Addresses) { ready <- at })
	}()
	c := dial(t, (<-ready).GRPC)
	if _, err := c.Register(ctx, &patternpb.RegisterRequest{Identity: "a"}); err != nil {
		t.Fatal(err)
	}
	stream, err := c.Subscribe(context.WithoutCancel(ctx))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Attach{
		Attach: &patternpb.Attach{Identities: []string{"a"}},
	}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	called := make(chan struct{})
	go func() { // a multicast that nobody acks
		defer close(called)
		_, _ = c.Multicast(context.WithoutCancel(ctx), &patternpb.MulticastRequest{})
	}()
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("got %v", err)
	}
	<-called
	if !strings.Contains(log.String(), "cut off") {
		t.Errorf("log: %s", log.String())
	}
}
