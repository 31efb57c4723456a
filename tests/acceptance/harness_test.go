package acceptance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/app"
	"github.com/prism-data-layer/prism/internal/testenv"
)

func TestMain(m *testing.M) {
	if at := os.Getenv(emptyAddress); at != "" {
		panic(serveEmpty(at))
	}
	testenv.Main(m)
}

// clockSkew is how far the backend's clock may be from ours.
const clockSkew = 5 * time.Second

// combination is one way to fill the slots: every scenario runs on each.
type combination struct {
	// name tells the types: registry+messaging, or registry+messaging+durability.
	name string
	// durable says that what nobody receives is stored.
	durable bool
}

func combinations() []combination {
	return []combination{
		{name: "memory+memory"},
		{name: "memory+memory+memory", durable: true},
		{name: "redis+nats"},
		{name: "redis+redis"},
		{name: "nats+nats"},
		{name: "redis+redis+redis", durable: true},
		{name: "nats+nats+nats", durable: true},
		{name: "redis+nats+nats", durable: true},
	}
}

// slot is how one slot is filled.
type slot struct {
	// kind is registry, messaging or durability.
	kind string
	// typ is the type of the backend.
	typ string
	// at is where the backend is, as host:port; empty in memory.
	at string
	// more are further options.
	more []string
}

func (s slot) yaml() string {
	options := []string{"type: " + s.typ}
	switch s.typ {
	case "redis":
		options = append(options, fmt.Sprintf("host: %q", s.at))
	case "nats":
		options = append(options, fmt.Sprintf("servers: [%q]", "nats://"+s.at))
	}
	return s.kind + ": {" + strings.Join(append(options, s.more...), ", ") + "}"
}

// types returns the types of registry, messaging and, if there is one, durability.
func (c combination) types() []string { return strings.Split(c.name, "+") }

// messaging returns the type of the messaging slot.
func (c combination) messaging() string { return c.types()[1] }

// slots returns what fills the slots on the shared servers, as YAML.
func (c combination) slots(t testing.TB) string {
	t.Helper()
	return c.altered(t, func(*slot) {})
}

// altered is slots after a change to each of them.
func (c combination) altered(t testing.TB, alter func(*slot)) string {
	t.Helper()
	var all []string
	for i, typ := range c.types() {
		s := slot{kind: []string{"registry", "messaging", "durability"}[i], typ: typ, at: address(t, typ)}
		if s.kind == "registry" {
			s.more = []string{"ttl_default: 300"}
		}
		alter(&s)
		all = append(all, s.yaml())
	}
	return "{" + strings.Join(all, ", ") + "}"
}

// with gives one kind of slot further options.
func with(kind string, more ...string) func(*slot) {
	return func(s *slot) {
		if s.kind == kind {
			s.more = append(s.more, more...)
		}
	}
}

// address returns where the shared server of a type is.
func address(t testing.TB, typ string) string {
	t.Helper()
	switch typ {
	case "redis":
		return testenv.Redis(t).Addr
	case "nats":
		return strings.TrimPrefix(testenv.NATS(t).URL, "nats://")
	}
	return ""
}

// redisNATS are the slots of the specification's production set-up.
func redisNATS(redis, nats string) string {
	const slots = "{registry: {type: redis, host: %q, ttl_default: 300}, messaging: {type: nats, servers: [%q]}}"
	return fmt.Sprintf(slots, redis, nats)
}

// config is the configuration of a server with one namespace, which may have further options.
func config(namespace, slots string, more ...string) string {
	text := "namespaces:\n  - name: " + namespace + "\n    pattern: multicast-registry\n    backend_slots: " + slots + "\n"
	for _, option := range more {
		text += "    " + option + "\n"
	}
	return text
}

// hostile identities have tried to break out of a backend's keys, topics and URLs.
var hostile = []string{
	"*", ">", "**", "a.b", "a.>", ".", "..", "../up", "a b", " ", "a\tb", "a\r\nPUB x 1\r\nx", "\n", "\x00", "é", "日本", "🛰️",
	"=2A", "%2A", "{tag}", "'; DROP TABLE identities; --", `"quoted"`, `back\slash`, "a:heartbeat", "x", "X", strings.Repeat("ä", 128),
}

// proxy is one server and a client of it.
type proxy struct {
	*client.Client
	namespace string
	at        string // where it serves gRPC
	durable   bool   // see combination
}

// onEach runs a scenario on every combination, each time against a server of its own.
func onEach(t *testing.T, scenario func(t *testing.T, p *proxy)) {
	t.Helper()
	onThose(t, func(combination) bool { return true }, scenario)
}

// onThose runs a scenario on the combinations that it is about.
func onThose(t *testing.T, about func(combination) bool, scenario func(t *testing.T, p *proxy)) {
	t.Helper()
	onSetUps(t, about, func(t *testing.T, c combination) { scenario(t, c.serve(t)) })
}

// onSetUps runs a scenario, which sets its servers up itself, on the combinations that it is about.
func onSetUps(t *testing.T, about func(combination) bool, scenario func(t *testing.T, c combination)) {
	t.Helper()
	t.Parallel()
	for _, c := range combinations() {
		if about(c) {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				scenario(t, c)
			})
		}
	}
}

func isDurable(c combination) bool { return c.durable }

// serve runs a server on the combination and returns it with a client.
func (c combination) serve(t testing.TB) *proxy {
	t.Helper()
	return c.serveAs(t, testenv.Prefix(t), c.slots(t))
}

// serveAs runs a server with the given slots, and further options of its namespace.
func (c combination) serveAs(t testing.TB, namespace, slots string, more ...string) *proxy {
	t.Helper()
	at := serve(t, config(namespace, slots, more...)).GRPC
	p := dial(t, at, namespace)
	p.at, p.durable = at, c.durable
	return p
}

func dial(t testing.TB, server, namespace string) *proxy {
	t.Helper()
	connection, err := client.Dial(server, client.WithNamespace(namespace))
	must(t, err)
	t.Cleanup(func() { check(t, connection.Close()) })
	return &proxy{Client: connection, namespace: namespace, at: server}
}

// serve runs a server with the given configuration, on free ports, until the test ends.
func serve(t testing.TB, config string) app.Addresses {
	t.Helper()
	cfg, err := app.Parse("acceptance.yaml", []byte(config))
	must(t, err)
	return run(t, cfg)
}

func run(t testing.TB, cfg app.Config) app.Addresses {
	t.Helper()
	cfg.Listen.GRPC, cfg.Listen.HTTP = "127.0.0.1:0", "127.0.0.1:0"
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, ended := make(chan app.Addresses, 1), make(chan error, 1)
	logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	go func() { ended <- app.Run(ctx, cfg, logger, func(a app.Addresses) { ready <- a }) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	select {
	case a := <-ready:
		return a
	case err := <-ended:
		ended <- err
		t.Fatalf("the server did not start: %v", err)
	}
	panic("unreachable")
}

func name(i int) string { return fmt.Sprintf("id-%04d", i) }

func names(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = name(i)
	}
	return all
}

// register registers names(n), replacing what an earlier round registered.
func (p *proxy) register(t testing.TB, n int, metadata func(i int) map[string]any) {
	t.Helper()
	for i := range n {
		r := client.Registration{ID: name(i), Mode: client.Replace}
		if metadata != nil {
			r.Metadata = metadata(i)
		}
		_, err := p.Register(t.Context(), r)
		must(t, err)
	}
}

// find returns every identity that matches, whoever registered it, over all pages.
func (p *proxy) find(t testing.TB, filter string) []client.Identity {
	t.Helper()
	match, err := client.ParseFilter(filter)
	must(t, err)
	var found []client.Identity
	for identity, err := range p.All(t.Context(), client.Query{Filter: match, PageSize: 99, Consistency: client.Strong}) {
		must(t, err)
		found = append(found, identity)
	}
	return found
}

// multicast multicasts to all who match, whoever registered them.
func (p *proxy) multicast(t testing.TB, request client.MulticastRequest) *client.Result {
	t.Helper()
	request.Consistency = client.Strong
	result, err := p.Multicast(t.Context(), request)
	must(t, err)
	if sum := result.Delivered + result.Pending + result.Failed + result.TimedOut; sum != result.TargetCount {
		t.Errorf("the counts add up to %d of %d targets", sum, result.TargetCount)
	}
	return result
}

// audience is a subscriber that acknowledges everything and remembers it.
type audience struct {
	stream *client.Stream
	done   sync.WaitGroup

	mu       sync.Mutex
	received map[string][]string // identities by message id
	count    int
}

func (p *proxy) attach(t testing.TB, ids ...string) *audience {
	t.Helper()
	stream, err := p.Subscribe(context.WithoutCancel(t.Context()))
	must(t, err)
	a := &audience{stream: stream, received: make(map[string][]string)}
	a.done.Go(func() { a.read(t) })
	t.Cleanup(func() { a.close(t) })
	must(t, stream.Attach(t.Context(), false, ids...))
	return a
}

func (a *audience) read(t testing.TB) {
	t.Helper()
	for {
		event, err := a.stream.Next(context.Background())
		if err != nil {
			return
		}
		if event.Dropped > 0 {
			t.Errorf("%d messages were dropped", event.Dropped)
		}
		var acks []client.MessageName
		a.mu.Lock()
		for _, m := range event.Messages {
			a.received[m.ID] = append(a.received[m.ID], m.Identity)
			a.count++
			acks = append(acks, m.Name())
		}
		a.mu.Unlock()
		if err := a.stream.Ack(acks...); err != nil {
			return
		}
	}
}

func (a *audience) close(t testing.TB) {
	t.Helper()
	check(t, a.stream.Close())
	a.done.Wait()
}

func (a *audience) total() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count
}

// checkReceived waits until a multicast has arrived for the given identities, and checks that it did so once for each.
func (a *audience) checkReceived(t testing.TB, id string, want []string) {
	t.Helper()
	got := func() []string {
		a.mu.Lock()
		defer a.mu.Unlock()
		return slices.Sorted(slices.Values(a.received[id]))
	}
	eventually(t, "the subscriber has all of it", func() bool { return len(got()) >= len(want) })
	if !slices.Equal(got(), want) {
		t.Errorf("received for %v, want %v", got(), want)
	}
}

// checkAllAcked checks that exactly these targets got the message, acknowledged, each once.
func checkAllAcked(t testing.TB, result *client.Result, want []string) {
	t.Helper()
	var got []string
	for _, target := range result.Targets {
		got = append(got, target.Identity)
		if target.Status != client.Delivered || target.Evidence != client.Acked || target.Attempts != 1 || target.Latency <= 0 {
			t.Errorf("%s: %v, evidence %d, %v", target.Identity, target.Status, target.Evidence, target.Err)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("targets %v, want %v", got, want)
	}
	if result.Delivered != len(want) || result.TargetCount != len(want) || result.Ended != client.Complete || result.ID == "" {
		t.Errorf("delivered %d of %d, ended %d", result.Delivered, result.TargetCount, result.Ended)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// eventually polls until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		if holds() {
			tick.Stop()
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it does not happen that %s", what)
		}
	}
}

// sameJSON compares by what JSON says, so that 3 equals 3.0.
func sameJSON(t testing.TB, a, b map[string]any) bool {
	t.Helper()
	plain := func(m map[string]any) (out map[string]any) {
		raw, err := json.Marshal(maps.Clone(m))
		must(t, err)
		must(t, json.Unmarshal(raw, &out))
		return out
	}
	return reflect.DeepEqual(plain(a), plain(b))
}
