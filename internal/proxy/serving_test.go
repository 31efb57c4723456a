package proxy

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/auth"
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
	left, err := b.Reconfigure(soon, []Namespace{other}, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-left
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
		if _, err := b.Reconfigure(t.Context(), given, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if _, err := b.rpc.Enumerate(b.ctx, &patternpb.EnumerateRequest{}); err != nil {
			t.Errorf("%s: %v", want, err)
		}
	}
	b.drain.leave()
	if _, err := b.Reconfigure(t.Context(), []Namespace{n}, nil); status.Code(err) != codes.Unavailable {
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
		if _, err := b.Reconfigure(b.ctx, []Namespace{coordinator(t, multicastregistry.Config{})}, nil); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

// Who leaves in the moment of the first attach is counted in its namespace no longer than that.
func TestReconfigureAfterHastyStreams(t *testing.T) {
	b := serve(t, Config{})
	b.register("a")
	for range 300 {
		ctx, cancel := context.WithCancel(b.ctx)
		s, err := b.rpc.Subscribe(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Attach{Attach: &patternpb.Attach{Identities: []string{"a"}}}})
		cancel()
	}
	left, err := b.Reconfigure(b.ctx, []Namespace{b.serving.Load().namespaces["other"].Namespace}, nil)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-left:
	case <-time.After(patience):
		t.Error("somebody is still counted")
	}
}

// A client that does not read holds up what it uses, and no reload.
func TestReconfigureBesideWhoDoesNotRead(t *testing.T) {
	b := serve(t, Config{})
	for i := range 2000 {
		b.register(strings.Repeat("y", 240) + strconv.Itoa(i))
	}
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	if _, err := b.rpc.EnumerateStream(ctx, &patternpb.EnumerateStreamRequest{Request: &patternpb.EnumerateRequest{}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the call is under way", func() bool {
		n, _ := b.namespace("default")
		n.drain.mu.Lock()
		defer n.drain.mu.Unlock()
		return n.drain.calls == 1
	})
	soon, done := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer done()
	left, err := b.Reconfigure(soon, []Namespace{b.serving.Load().namespaces["other"].Namespace}, nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	<-left
}

// An HTTP request that is slow to end is of its sender for as long as the sender is accepted.
func TestReconfigureBesideSlowRequest(t *testing.T) {
	access := rules{"default": {{Subjects: []string{"*"}, Roles: auth.Roles(), Identities: []string{"*"}}}}
	g := guard(t, auth.Config{Tokens: staticTokens("alice", "bob")}, access, nil)
	g.put(tokenOf("alice"), "dev", nil)
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /v1/namespaces/default/identities/dev:subscribe HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"+
		"Transfer-Encoding: chunked\r\n\r\n", tokenOf("alice"))
	eventually(t, "the request is under way", func() bool {
		found := false
		g.tickets.callers.Range(func(any, any) bool { found = true; return false })
		return found
	})
	less, err := auth.Open(t.Context(), auth.Config{Tokens: staticTokens("bob")}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(less.Close)
	n := g.serving.Load().namespaces["default"]
	same := n.Namespace
	same.Policy = n.given
	if _, err := g.Reconfigure(t.Context(), []Namespace{same}, less); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "0\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized {
		t.Errorf("got %s, want 401", response.Status)
	}
}
