package app_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/app"
	"github.com/prism-data-layer/prism/internal/auth"
	"github.com/prism-data-layer/prism/internal/testenv"
)

// following is a server that follows its configuration.
type following struct {
	t    *testing.T
	file string
	at   app.Addresses
	rpc  patternpb.MulticastRegistryPatternClient
	now  chan os.Signal

	mu  sync.Mutex
	log bytes.Buffer
}

// Write keeps what is logged.
func (f *following) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Write(p)
}

func (f *following) logged() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.String()
}

const listens = "listen: {grpc: 127.0.0.1:0, http: 127.0.0.1:0, admin: 127.0.0.1:0}\ndrain_timeout: 5s\n"

// inMemory is a namespace in YAML; more stands in front of its slots.
func inMemory(name, more string) string {
	return fmt.Sprintf("  - {name: %s, pattern: multicast-registry, %s backend_slots: {registry: {type: memory}, messaging: {type: memory}}}\n", name, more)
}

func follow(t *testing.T, config string) *following {
	t.Helper()
	f := &following{t: t, file: filepath.Join(t.TempDir(), "prism.yaml"), now: make(chan os.Signal)}
	f.write(config)
	cfg, err := app.Load(f.file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan app.Addresses, 1), make(chan error, 1)
	go func() {
		done <- app.Run(ctx, cfg, slog.New(slog.NewTextHandler(f, nil)), func(a app.Addresses) { ready <- a }, app.WithReload(app.Reload{
			File: f.file, Loaded: []byte(config), Parse: func(src []byte) (app.Config, error) { return app.Parse(f.file, src) }, Now: f.now,
		}))
	}()
	select {
	case f.at = <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	f.rpc = dial(t, f.at.GRPC)
	return f
}

func (f *following) write(config string) {
	f.t.Helper()
	if err := os.WriteFile(f.file, []byte(config), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// reload makes the server take over a configuration, and returns what it logged meanwhile.
func (f *following) reload(config string) string {
	f.t.Helper()
	f.write(config)
	before := len(f.logged())
	f.now <- syscall.SIGHUP
	return f.await(before, "reloaded")
}

// await returns the log behind an offset when it holds a text.
func (f *following) await(from int, text string) string {
	f.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		if log := f.logged()[from:]; strings.Contains(log, text) {
			return log
		}
		<-time.After(5 * time.Millisecond)
	}
	f.t.Fatalf("the log does not say %q: %s", text, f.logged()[from:])
	return ""
}

// metric returns a number at the admin address.
func (f *following) metric(name string) string {
	f.t.Helper()
	resp, err := http.Get("http://" + f.at.Admin + "/metrics")
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(body); found != nil {
		return string(found[1])
	}
	return ""
}

type stream = grpc.BidiStreamingClient[patternpb.SubscribeRequest, patternpb.SubscribeResponse]

// attached registers an identity and returns a stream that is attached to it.
func (f *following) attached(ctx context.Context, namespace, identity string) stream {
	f.t.Helper()
	if _, err := f.rpc.Register(ctx, &patternpb.RegisterRequest{Namespace: namespace, Identity: identity}); err != nil {
		f.t.Fatal(err)
	}
	s, err := f.rpc.Subscribe(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := s.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Attach{
		Attach: &patternpb.Attach{Namespace: namespace, Identities: []string{identity}},
	}}); err != nil {
		f.t.Fatal(err)
	}
	if r, err := s.Recv(); err != nil || r.GetAttached() == nil {
		f.t.Fatalf("attach: %v, %v", r, err)
	}
	return s
}

// delivers checks that a stream gets a message.
func (f *following) delivers(ctx context.Context, s stream, namespace string) {
	f.t.Helper()
	if r, err := f.rpc.Multicast(ctx, &patternpb.MulticastRequest{Namespace: namespace, Delivery: patternpb.Delivery_AT_MOST_ONCE}); err != nil || r.GetTargetCount() != 1 {
		f.t.Fatalf("multicast: %v, %v", r, err)
	}
	if r, err := s.Recv(); err != nil || len(r.GetMessages().GetMessages()) != 1 {
		f.t.Fatalf("got %v, %v, want a message", r, err)
	}
}

// closes checks that a stream is told, and then ended.
func closes(t *testing.T, s stream) {
	t.Helper()
	if r, err := s.Recv(); err != nil || !strings.Contains(r.GetClosing().GetReason(), "is being changed") {
		t.Errorf("got %v, %v, want closing", r, err)
	}
	if r, err := s.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, %v, want UNAVAILABLE", r, err)
	}
}

func TestReload(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	defer cancel()
	f := follow(t, listens+"namespaces:\n"+inMemory("a", "")+inMemory("b", "")+inMemory("c", ""))
	a, b, c := f.attached(ctx, "a", "x"), f.attached(ctx, "b", "x"), f.attached(ctx, "c", "x")

	log := f.reload(listens + "namespaces:\n" + inMemory("a", "limits: {max_ttl: 1h},") + inMemory("c", "timeout: 7s,") + inMemory("d", ""))
	for _, want := range []string{"added=[d]", "restarted=[c]", "changed=[a]", "removed=[b]", "namespaces=3"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %s: %s", want, log)
		}
	}
	closes(t, b)
	closes(t, c)
	f.delivers(ctx, a, "a")
	if _, err := f.rpc.Register(ctx, &patternpb.RegisterRequest{Namespace: "a", Identity: "y", NeverExpires: true}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("the new limit does not hold: %v", err)
	}
	if _, err := f.rpc.Register(ctx, &patternpb.RegisterRequest{Namespace: "b", Identity: "y"}); status.Code(err) != codes.NotFound {
		t.Errorf("b is still there: %v", err)
	}
	if s, err := f.rpc.Enumerate(ctx, &patternpb.EnumerateRequest{Namespace: "c"}); err != nil || len(s.GetIdentities()) != 1 {
		t.Errorf("c has lost its identities: %v, %v", s, err)
	}
	f.delivers(ctx, f.attached(ctx, "d", "z"), "d")
	if got := f.metric(`prism_namespace_identities\{namespace="d"\}`); got != "1" {
		t.Errorf("d has %q identities in the metrics", got)
	}
	if got := f.metric(`prism_subscriber_streams\{namespace="b"\}`); got != "" {
		t.Errorf("the metrics have b still: %s", got)
	}

	// What cannot be used changes nothing.
	for name, bad := range map[string]struct{ config, want string }{
		"no YAML":       {"namespaces: [", "prism.yaml"},
		"unknown key":   {listens + "namespaces:\n" + inMemory("a", "") + "nonsense: 1\n", "nonsense"},
		"a dead server": {listens + "namespaces:\n" + inMemory("a", "") + "  - {name: e, pattern: multicast-registry, backend_slots: {registry: {type: redis, host: '127.0.0.1:1'}, messaging: {type: memory}}}\n", "127.0.0.1:1"},
		"too large":     {listens + "namespaces:\n" + inMemory("a", "") + inMemory("e", "max_payload: 32MiB,"), "restart"},
	} {
		if log := f.reload(bad.config); !strings.Contains(log, "was not reloaded") || !strings.Contains(log, bad.want) {
			t.Errorf("%s: %s", name, log)
		}
		if got := f.metric("prism_config_last_reload_successful"); got != "0" {
			t.Errorf("%s: the metric says %q", name, got)
		}
		f.delivers(ctx, a, "a")
		if _, err := f.rpc.Enumerate(ctx, &patternpb.EnumerateRequest{Namespace: "d"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	// A change of the file is noticed; what needs a restart is named. A slot in memory whose options are new begins empty.
	before := len(f.logged())
	f.write("listen: {grpc: 127.0.0.1:1, http: 127.0.0.1:0, admin: 127.0.0.1:0}\nnamespaces:\n" + inMemory("a", "limits: {max_ttl: 1h},") +
		"  - {name: d, pattern: multicast-registry, backend_slots: {registry: {type: memory, max_identities: 5}, messaging: {type: memory}}}\n")
	log = f.await(before, "configuration reloaded")
	for _, want := range []string{"need a restart", "listen", "begins empty", "restarted=[d]", "removed=[c]"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %s: %s", want, log)
		}
	}
	if got := f.metric("prism_config_last_reload_successful"); got != "1" {
		t.Errorf("the metric says %q", got)
	}
	f.delivers(ctx, a, "a")
}

// Who is not accepted any more is cut off, wherever they have a stream; others notice nothing.
func TestReloadCredentials(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	defer cancel()
	config := func(access string, names ...string) string {
		out := listens + "auth:\n  tokens:\n"
		for _, name := range names {
			out += "    - {name: " + name + ", hash: '" + auth.HashToken("token-of-"+name+"-0123456789abcdef") + "'}\n"
		}
		return out + "namespaces:\n" + inMemory("a", access)
	}
	as := func(name string) context.Context {
		return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer token-of-"+name+"-0123456789abcdef")
	}
	const all = "access: [{subject: '*', roles: admin}],"
	f := follow(t, config(all, "good", "bad"))
	good, bad := f.attached(as("good"), "a", "x"), f.attached(as("bad"), "a", "y")
	watch, err := f.rpc.Watch(as("bad"), &patternpb.WatchRequest{Namespace: "a"})
	if err != nil {
		t.Fatal(err)
	}
	f.reload(config(all, "good", "new"))
	if r, err := bad.Recv(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("got %v, %v, want UNAUTHENTICATED", r, err)
	}
	for err == nil {
		_, err = watch.Recv()
	}
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("watch: %v, want UNAUTHENTICATED", err)
	}
	if _, err := f.rpc.Register(as("bad"), &patternpb.RegisterRequest{Namespace: "a", Identity: "z"}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("register: %v, want UNAUTHENTICATED", err)
	}
	if _, err := f.rpc.Unregister(as("new"), &patternpb.UnregisterRequest{Namespace: "a", Identity: "y"}); err != nil {
		t.Error(err)
	}
	f.delivers(as("new"), good, "a")

	// Access is decided when a stream begins: with other rules it begins again.
	f.reload(config("access: [{subject: new, roles: admin}],", "good", "new"))
	closes(t, good)
	if _, err := f.rpc.Enumerate(as("good"), &patternpb.EnumerateRequest{Namespace: "a"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("enumerate: %v, want PERMISSION_DENIED", err)
	}
	if s, err := f.rpc.Enumerate(as("new"), &patternpb.EnumerateRequest{Namespace: "a"}); err != nil || len(s.GetIdentities()) != 1 {
		t.Errorf("got %v, %v, want x", s, err)
	}
}

// A backend that is not there yet is waited for, as long as the start may take.
func TestStartWaits(t *testing.T) {
	fault := testenv.NewFault(t, testenv.Redis(t).Addr)
	fault.Cut()
	cfg := free()
	cfg.Namespaces[0].Registry.Type = "redis"
	cfg.Namespaces[0].Namespace = testenv.Prefix(t)
	cfg.Namespaces[0].Registry.Redis.Conn.Host = fault.Addr
	cfg.StartupTimeout = 300 * time.Millisecond
	err := app.Run(t.Context(), cfg, nil, func(app.Addresses) { t.Error("ready") })
	if err == nil || !strings.Contains(err.Error(), "startup_timeout") || !strings.Contains(err.Error(), fault.Addr) || !strings.Contains(err.Error(), "registry") {
		t.Errorf("got %v", err)
	}
	cfg.StartupTimeout = 30 * time.Second
	time.AfterFunc(700*time.Millisecond, fault.Heal)
	at, _ := run(t, cfg)
	if _, err := dial(t, at.GRPC).Register(t.Context(), &patternpb.RegisterRequest{Namespace: cfg.Namespaces[0].Namespace, Identity: "x"}); err != nil {
		t.Error(err)
	}
}
