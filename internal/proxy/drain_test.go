package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/patterns/memory"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// drain begins to drain and returns what tells how it went.
func (b *bench) drainSoon(most time.Duration) <-chan error {
	out := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), most)
		defer cancel()
		out <- b.Drain(ctx)
	}()
	<-b.drain.leaving
	return out
}

// A multicast in flight gets its acks through streams that were told to leave; new calls are refused; everything ends.
func TestDrain(t *testing.T) {
	b := serve(t, Config{})
	b.register("grpc", "http")
	c := b.attach("grpc")
	s := b.events(base + "/identities/http:subscribe?ack=manual")
	stream := strings.Split(s.next().data, `"`)[7]
	watch, err := grpc_health_v1.NewHealthClient(b.conn).Watch(b.ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := watch.Recv(); err != nil || got.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatal(got, err)
	}
	result := b.multicastTo("in flight")
	batch := c.recv().GetMessages()
	id := s.next().id

	drained := b.drainSoon(patience)
	if c.recv().GetClosing().GetReason() == "" {
		t.Error("the stream is not told")
	}
	if got := s.next(); got.name != "closing" || !strings.Contains(got.data, "reason") {
		t.Errorf("the event stream is told %v", got)
	}
	if got, err := watch.Recv(); err != nil || got.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Error(got, err)
	}
	_, err = b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Identity: "late"})
	wantError(t, err, codes.Unavailable, "", "shutting down")
	wantError(t, b.open().end(), codes.Unavailable, "", "shutting down")
	if resp, body := b.do("GET", "/readyz", ""); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "shutting down") {
		t.Errorf("readyz: %d %s", resp.StatusCode, body)
	}
	if resp, body := b.do("POST", base+"/identities", `{"identity":"late"}`); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("late: %d %s", resp.StatusCode, body)
	}
	select {
	case err := <-drained:
		t.Fatalf("drained with a call in flight: %v", err)
	default:
	}

	c.ack(batch)
	if resp, body := b.do("POST", base+"/messages:ack", fmt.Sprintf(`{"stream":%q,"acks":[{"identity":"http","message_id":%q}]}`, stream, id)); resp.StatusCode != http.StatusOK {
		t.Errorf("ack while draining: %d %s", resp.StatusCode, body)
	}
	if got := <-result; got.GetDeliveredCount() != 2 {
		t.Errorf("in flight: %v", got)
	}
	wantError(t, c.end(), codes.Unavailable, "", "attach again")
	if got := s.next(); got.name != "error" || !strings.Contains(got.data, "UNAVAILABLE") {
		t.Errorf("the event stream ends with %v", got)
	}
	if _, err := s.read(); err == nil {
		t.Error("the event stream goes on")
	}
	if err := <-drained; err != nil {
		t.Errorf("drain: %v", err)
	}
	if err := b.Drain(b.ctx); err != nil {
		t.Errorf("drain again: %v", err)
	}
}

// Streams that wait for nothing do not hold up the end; one with acks outstanding gets a moment, and no more.
func TestDrainDoesNotWaitForIdleStreams(t *testing.T) {
	for name, unacked := range map[string]bool{"idle": false, "never acked": true} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, Config{})
			b.register("a")
			c := b.attach("a")
			nothing := b.open()
			if unacked {
				got, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Timeout: durationpb.New(10 * time.Millisecond)})
				if err != nil || got.GetTimeoutCount() != 1 {
					t.Fatal(got, err)
				}
			}
			eventually(t, "both streams are open", func() bool {
				b.drain.mu.Lock()
				defer b.drain.mu.Unlock()
				return b.drain.streams == 2
			})
			drained := b.drainSoon(patience)
			wantError(t, c.end(), codes.Unavailable, "", "")
			wantError(t, nothing.end(), codes.Unavailable, "", "")
			if err := <-drained; err != nil {
				t.Error(err)
			}
		})
	}
}

// A client that reads nothing at all cannot keep the server from ending.
func TestDrainWithStuckClients(t *testing.T) {
	b := serve(t, Config{}, fill{messaging: memory.NewMessaging(memory.MessagingConfig{Buffer: 64})})
	b.register("a")
	c := b.attach("a")
	for range 64 {
		if _, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Payload: make([]byte, 64<<10), Delivery: patternpb.Delivery_AT_MOST_ONCE}); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-b.drainSoon(patience); err != nil {
		t.Error(err)
	}
	if err := c.end(); err == nil {
		t.Error("the stream goes on")
	}
}

// What is still running when the time is up is cut off, and Drain says so.
func TestDrainCutsOff(t *testing.T) {
	started := make(chan struct{})
	var once sync.Once
	b := serve(t, Config{}, fill{registry: &brokenRegistry{fail: func(ctx context.Context) error {
		once.Do(func() { close(started) })
		<-ctx.Done()
		return ctx.Err()
	}}})
	result := make(chan error, 1)
	go func() {
		_, err := b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Identity: "a"})
		result <- err
	}()
	<-started
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	err := b.Drain(ctx)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drain: %v, want the deadline", err)
	}
	if err := <-result; status.Code(err) != codes.Unavailable && status.Code(err) != codes.Canceled {
		t.Errorf("the call was cut off with %v", err)
	}
	b.drainErr = nil // the clean-up checks it
}

func TestServeFails(t *testing.T) {
	c, err := multicastregistry.Open(t.Context(), multicastregistry.Config{}, multicastregistry.Slots{
		Registry: memory.NewRegistry(memory.RegistryConfig{}), Messaging: memory.NewMessaging(memory.MessagingConfig{}),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, side := range []string{"grpc", "http", "neither"} {
		s, err := New(Config{Namespaces: []Namespace{{Coordinator: c}}})
		if err != nil {
			t.Fatal(err)
		}
		broken := listenTCP(t)
		broken.Close()
		var grpcSide, httpSide net.Listener
		switch side {
		case "grpc":
			grpcSide = broken
		case "http":
			httpSide = broken
		default:
			go s.Drain(t.Context())
		}
		err = s.Serve(grpcSide, httpSide)
		if (err == nil) != (side == "neither") {
			t.Errorf("%s: %v", side, err)
		}
		_ = s.Drain(t.Context())
	}
	// A server that never served can be drained too.
	s, err := New(Config{Namespaces: []Namespace{{Coordinator: c}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}
