package proxy

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/patterns/memory"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// coordinator returns one over memory, for a namespace.
func coordinator(t *testing.T, cfg multicastregistry.Config) Namespace {
	t.Helper()
	c, err := multicastregistry.Open(t.Context(), cfg, multicastregistry.Slots{
		Registry: memory.NewRegistry(memory.RegistryConfig{}), Messaging: memory.NewMessaging(memory.MessagingConfig{}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return Namespace{Coordinator: c, Registry: "memory", Messaging: "memory"}
}

// A call of a namespace that goes is waited for, a stream that holds out is cut off when the time is over.
func TestReconfigureCutsOff(t *testing.T) {
	b := serve(t, Config{})
	b.register("a")
	b.attach("a")
	watch, err := b.rpc.Watch(b.ctx, &patternpb.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() { // nobody acks: it lasts as long as it may, and the stream waits for it
		r, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Timeout: durationpb.New(700 * time.Millisecond)})
		if err == nil && r.GetTargetCount() != 1 {
			t.Errorf("got %v, want one target", r)
		}
		sent <- err
	}()
	eventually(t, "the multicast is under way", func() bool {
		n, _ := b.namespace("default")
		n.drain.mu.Lock()
		defer n.drain.mu.Unlock()
		return n.drain.calls == 1
	})
	other := b.serving.Load().namespaces["other"].Namespace
	soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := b.Reconfigure(soon, []Namespace{other}, nil); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Errorf("the call was not waited for: %v", err)
	}
	for err == nil {
		_, err = watch.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("watch: %v, want UNAVAILABLE", err)
	}
	if _, err := b.rpc.Enumerate(b.ctx, &patternpb.EnumerateRequest{}); status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "this server has: other") {
		t.Errorf("got %v, want NOT_FOUND", err)
	}
}

func TestReconfigureRefuses(t *testing.T) {
	b := serve(t, Config{})
	n := coordinator(t, multicastregistry.Config{Namespace: "more"})
	large := coordinator(t, multicastregistry.Config{Namespace: "large", MaxPayload: 32 << 20})
	for want, given := range map[string][]Namespace{"no namespace": nil, "twice": {n, n}, "restart it": {n, large}} {
		if err := b.Reconfigure(t.Context(), given, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if _, err := b.rpc.Enumerate(b.ctx, &patternpb.EnumerateRequest{}); err != nil {
			t.Errorf("%s: %v", want, err)
		}
	}
	b.drain.leave()
	if err := b.Reconfigure(t.Context(), []Namespace{n}, nil); status.Code(err) != codes.Unavailable {
		t.Errorf("while draining: %v", err)
	}
}

// Who comes back at once finds the namespace, whenever it is replaced.
func TestReconfigureUnderLoad(t *testing.T) {
	b := serve(t, Config{})
	done, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(failed)
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := b.rpc.Enumerate(b.ctx, &patternpb.EnumerateRequest{}); err != nil {
				failed <- err
				return
			}
		}
	}()
	for range 50 {
		if err := b.Reconfigure(b.ctx, []Namespace{coordinator(t, multicastregistry.Config{})}, nil); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	if err := <-failed; err != nil {
		t.Error(err)
	}
}
