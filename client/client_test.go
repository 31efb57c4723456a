package client_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/prism-data-layer/prism/client"
)

func TestDialAddresses(t *testing.T) {
	for _, row := range []struct{ give, want string }{
		{"", "127.0.0.1:8980"},
		{"  ", "127.0.0.1:8980"},
		{"prism.internal", "prism.internal:8980"},
		{"prism.internal:99", "prism.internal:99"},
		{":99", "127.0.0.1:99"},
		{"::1", "[::1]:8980"},
		{"[::1]", "[::1]:8980"},
		{"[::1]:99", "[::1]:99"},
		{"dns:///prism.internal:99", "dns:///prism.internal:99"},
	} {
		c := dial(t, row.give)
		if got := c.Server(); got != row.want {
			t.Errorf("Dial(%q) is a client of %q, want %q", row.give, got, row.want)
		}
	}
	for _, bad := range []string{"http://127.0.0.1:8981", "a:b:c", "nosuchscheme://\x00"} {
		if _, err := client.Dial(bad); !isInvalid(err, "server") {
			t.Errorf("Dial(%q): got %v, want an InvalidError about the server", bad, err)
		}
	}
}

func TestIdentityLifecycle(t *testing.T) {
	c, ctx := newClient(t), withPatience(t)
	metadata := map[string]any{"room": "lab", "floor": 3, "tags": []string{"a", "b"}}
	got, err := c.Register(ctx, client.Registration{ID: "dev-1", Metadata: metadata, TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"room": "lab", "floor": int64(3), "tags": []any{"a", "b"}}
	if got.ID != "dev-1" || got.TTL != time.Minute || !reflect.DeepEqual(got.Metadata(), want) || got.Revision == 0 {
		t.Errorf("registered %+v", got)
	}
	if d := got.ExpiresAt.Sub(got.RegisteredAt); d != time.Minute {
		t.Errorf("the lease is %s long, want 1m", d)
	}
	if _, err := c.Register(ctx, client.Registration{ID: "dev-1"}); !errors.Is(err, client.ErrAlreadyExists) {
		t.Errorf("registering again: %v, want ErrAlreadyExists", err)
	}
	forever, err := c.Register(ctx, client.Registration{ID: "dev-1", TTL: client.NoExpiry, Mode: client.Replace})
	if err != nil || forever.TTL != client.NoExpiry || !forever.ExpiresAt.IsZero() {
		t.Errorf("replaced by %+v, %v; want one that never expires", forever, err)
	}
	lease, err := c.Heartbeat(ctx, "dev-1", 0)
	if err != nil || lease.TTL != client.NoExpiry || !lease.ExpiresAt.IsZero() {
		t.Errorf("heartbeat: %+v, %v", lease, err)
	}
	lease, err = c.Heartbeat(ctx, "dev-1", time.Hour)
	if err != nil || lease.TTL != time.Hour || lease.ExpiresAt.IsZero() {
		t.Errorf("heartbeat with a TTL: %+v, %v", lease, err)
	}
	for _, want := range []bool{true, false} {
		if existed, err := c.Unregister(ctx, "dev-1"); err != nil || existed != want {
			t.Errorf("Unregister: %v, %v; want %v", existed, err, want)
		}
	}
	if _, err := c.Heartbeat(ctx, "dev-1", 0); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("heartbeat after unregister: %v, want ErrNotFound", err)
	}
}

func TestNamespaces(t *testing.T) {
	c, ctx := newClient(t), withPatience(t)
	if _, err := c.Register(ctx, client.Registration{ID: "dev-1"}); err != nil {
		t.Fatal(err)
	}
	infos, err := c.Namespaces(ctx)
	if err != nil || len(infos) != 1 {
		t.Fatalf("%v, %v", infos, err)
	}
	want := client.NamespaceInfo{
		Name: "default", Pattern: "multicast-registry", Registry: "memory", Messaging: "memory",
		TTLDefault: 5 * time.Minute, Delivery: client.AtLeastOnce, Timeout: 5 * time.Second, IdentityCount: 1, Counted: true,
	}
	if infos[0] != want {
		t.Errorf("got  %+v\nwant %+v", infos[0], want)
	}
	other := c.In("other")
	if c.Namespace() != "default" || other.Namespace() != "other" || other.In("").Namespace() != "default" {
		t.Error("In changed the wrong client")
	}
	_, err = other.Enumerate(ctx, client.Query{})
	if !errors.Is(err, client.ErrNotFound) || !strings.Contains(err.Error(), "other") {
		t.Errorf("enumerating a namespace that is not there: %v", err)
	}
}

// Whatever can be known to be wrong is refused here, and what the server refuses looks the same.
func TestInvalid(t *testing.T) {
	c, ctx := newClient(t), withPatience(t)
	stream, err := c.Subscribe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	register := func(r client.Registration) error { _, err := c.Register(ctx, r); return err }
	enumerate := func(q client.Query) error { _, err := c.Enumerate(ctx, q); return err }
	multicast := func(r client.MulticastRequest) error { _, err := c.Multicast(ctx, r); return err }
	heartbeat := func(id string, ttl time.Duration) error { _, err := c.Heartbeat(ctx, id, ttl); return err }
	unregister := func(id string) error { _, err := c.Unregister(ctx, id); return err }
	for i, row := range []struct {
		err   error
		field string
	}{
		{register(client.Registration{}), "identity"},
		{register(client.Registration{ID: strings.Repeat("x", 257)}), "identity"},
		{register(client.Registration{ID: "a\xff"}), "identity"},
		{register(client.Registration{ID: "a", TTL: -time.Second}), "ttl"},
		{register(client.Registration{ID: "a", TTL: math.MaxInt64}), "ttl"},
		{register(client.Registration{ID: "a", Mode: 9}), "mode"},
		{register(client.Registration{ID: "a", Metadata: map[string]any{"x": make(chan int)}}), "metadata/x"},
		{register(client.Registration{ID: "a", Metadata: map[string]any{"a/b": []any{1, math.Inf(1)}}}), "metadata/a~1b/1"},
		{register(client.Registration{ID: "a", Metadata: map[string]any{"n": []any{int64(1<<53 + 1)}}}), "metadata/n/0"},
		{heartbeat("", 0), "identity"},
		{heartbeat("a", client.NoExpiry), "ttl"},
		{heartbeat("a", -5), "ttl"},
		{unregister(""), "identity"},
		{enumerate(client.Query{PageSize: -3}), "page_size"},
		{enumerate(client.Query{PageSize: math.MaxInt}), "page_size"},
		{enumerate(client.Query{PageToken: "§"}), "page_token"},
		{enumerate(client.Query{PageToken: "\xff"}), "page_token"},
		{enumerate(client.Query{Filter: map[string]any{"battery": map[string]any{"$ltt": 1}}}), "filter/battery/$ltt"},
		{enumerate(client.Query{Filter: map[string]any{"id": uint64(math.MaxUint64)}}), "filter/id"},
		{multicast(client.MulticastRequest{Filter: map[string]any{"a": map[string]any{"$regex": "("}}}), "filter/a/$regex"},
		{multicast(client.MulticastRequest{Filter: map[string]any{"a": struct{}{}}}), "filter/a"},
		{multicast(client.MulticastRequest{ContentType: "\xff"}), "content_type"},
		{multicast(client.MulticastRequest{ContentType: "a\nb"}), "content_type"},
		{multicast(client.MulticastRequest{Delivery: "maybe"}), "delivery"},
		{multicast(client.MulticastRequest{Timeout: -time.Second}), "timeout"},
		{multicast(client.MulticastRequest{Report: 7}), "report"},
		{multicast(client.MulticastRequest{Payload: make([]byte, 2<<20)}), "payload"},
		{stream.Attach(ctx, false, "ok", ""), "identity"},
		{c.Join(ctx, client.Registration{}, func(context.Context, client.Message) error { return nil }), "identity"},
		{c.Join(ctx, client.Registration{ID: "a"}, nil), "handle"},
		{c.Receive(ctx, nil, func(context.Context, client.Message) error { return nil }), "identity"},
	} {
		if !isInvalid(row.err, row.field) {
			t.Errorf("row %d: got %v, want an InvalidError about %s", i, row.err, row.field)
		}
	}
}

func TestParseFilter(t *testing.T) {
	c, ctx := newClient(t), withPatience(t)
	if _, err := c.Register(ctx, client.Registration{ID: "dev-1", Metadata: map[string]any{"battery": 0.15, "n": 7}}); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		text string
		want int
	}{
		{`{}`, 1},
		{`{"battery": {"$lt": 0.2}}`, 1},
		{`{"battery.lt": 0.2, "n": 7.0}`, 1},
		{`{"$or": [{"n": {"$in": [1, 2]}}, {"n": 8}]}`, 0},
	} {
		match, err := client.ParseFilter(row.text)
		if err != nil {
			t.Errorf("ParseFilter(%s): %v", row.text, err)
			continue
		}
		page, err := c.Enumerate(ctx, client.Query{Filter: match})
		if err != nil || page.Total != row.want {
			t.Errorf("%s matches %d, %v; want %d", row.text, page.Total, err, row.want)
		}
	}
	for _, row := range []struct{ text, field, words string }{
		{``, "filter", "end of the text"},
		{`[]`, "filter", "object"},
		{`{"a": 1, "a": 2}`, "filter", "twice"},
		{`{"name": {"$startwith": "x"}}`, "filter/name/$startwith", "did you mean $startswith?"},
		{`{"n": 1e999}`, "filter/n", "number"},
	} {
		_, err := client.ParseFilter(row.text)
		if !isInvalid(err, row.field) || !strings.Contains(err.Error(), row.words) {
			t.Errorf("ParseFilter(%s): got %v, want %q about %s", row.text, err, row.words, row.field)
		}
	}
}

func TestEnumerate(t *testing.T) {
	c, ctx := newClient(t), withPatience(t)
	var all []string
	for i := range 25 {
		id := fmt.Sprintf("dev-%02d", i)
		all = append(all, id)
		if _, err := c.Register(ctx, client.Registration{ID: id, Metadata: map[string]any{"even": i%2 == 0}}); err != nil {
			t.Fatal(err)
		}
	}
	page, err := c.Enumerate(ctx, client.Query{PageSize: 10, OmitMetadata: true})
	if err != nil || len(page.Identities) != 10 || page.Total != 25 || page.NextPageToken == "" || page.Identities[0].Metadata() != nil {
		t.Errorf("first page: %+v, %v", page, err)
	}
	for _, row := range []struct {
		size   int
		filter map[string]any
		want   int
	}{{0, nil, 25}, {1, nil, 25}, {5, nil, 25}, {7, map[string]any{"even": true}, 13}, {0, map[string]any{"even": "x"}, 0}} {
		var got []string
		for identity, err := range c.All(ctx, client.Query{PageSize: row.size, Filter: row.filter}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, identity.ID)
		}
		if len(got) != row.want || !slices.IsSorted(got) || row.filter == nil && !slices.Equal(got, all) {
			t.Errorf("All in pages of %d: %v", row.size, got)
		}
	}
	for identity := range c.All(ctx, client.Query{PageSize: 1}) {
		if identity.ID != "dev-00" {
			t.Errorf("the first is %q", identity.ID)
		}
		break
	}
	gone, cancel := context.WithCancel(ctx)
	defer cancel()
	n := 0
	for _, err := range c.All(gone, client.Query{PageSize: 5}) {
		if n++; n == 3 {
			cancel()
		}
		if n > 5 && !errors.Is(err, context.Canceled) {
			t.Errorf("element %d: %v, want context.Canceled", n, err)
		}
	}
	if n != 6 {
		t.Errorf("%d elements, want a page of 5 and the error", n)
	}
}

func TestServerAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	c, ctx := dial(t, addr), withPatience(t)
	_, err = c.Namespaces(ctx)
	if !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), addr) || strings.Contains(err.Error(), "desc =") {
		t.Errorf("got %v, want ErrUnavailable with the address and without gRPC's wrapping", err)
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the status is lost: %v", status.Code(err))
	}
	if _, err := c.Subscribe(ctx); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("Subscribe: %v, want ErrUnavailable", err)
	}
	serve(t, addr)
	eventually(t, "the server is found", func() bool { _, err := c.Namespaces(ctx); return err == nil })
}

func TestContexts(t *testing.T) {
	c := newClient(t)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Namespaces(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	late, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	if _, err := c.Register(late, client.Registration{ID: "a"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want context.DeadlineExceeded", err)
	}
}

func TestClosed(t *testing.T) {
	c, ctx := newClient(t), withPatience(t)
	stream, err := c.Subscribe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := c.In("x").Namespaces(ctx); !errors.Is(err, client.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	if _, err := stream.Next(ctx); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Next: %v, want ErrClosed", err)
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
	err = c.Join(ctx, client.Registration{ID: "a"}, func(context.Context, client.Message) error { return nil })
	if !errors.Is(err, client.ErrClosed) {
		t.Errorf("Join: %v, want ErrClosed", err)
	}
}

func TestWithGRPC(t *testing.T) {
	s, called := serve(t, "127.0.0.1:0"), 0
	count := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		called++
		return next(ctx, method, req, reply, cc, opts...)
	}
	c := dial(t, s.addr, client.WithGRPC(grpc.WithUnaryInterceptor(count)), client.WithNamespace("default"))
	if _, err := c.Enumerate(withPatience(t), client.Query{}); err != nil || called != 1 {
		t.Errorf("the interceptor was called %d times, %v", called, err)
	}
}

// TestInterceptorsSeeMessages checks that interceptors get messages for replies, those that are received lazily too.
func TestInterceptorsSeeMessages(t *testing.T) {
	seen := 0
	unary := func(
		ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		if _, ok := reply.(proto.Message); ok {
			seen++
		}
		return call(ctx, method, request, reply, conn, opts...)
	}
	c := dial(t, serve(t, "127.0.0.1:0").addr, client.WithGRPC(grpc.WithUnaryInterceptor(unary)))
	if _, err := c.Register(t.Context(), client.Registration{ID: "dev-1"}); err != nil {
		t.Fatal(err)
	}
	if page, err := c.Enumerate(t.Context(), client.Query{}); err != nil || len(page.Identities) != 1 || seen != 2 {
		t.Errorf("%d identities, %v; %d replies seen, want 1 and 2", len(page.Identities), err, seen)
	}
}
