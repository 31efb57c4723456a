package acceptance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/app"
	"github.com/prism-data-layer/prism/internal/testenv"
)

// within makes a call with a deadline and checks that it answered by then.
func within(t testing.TB, limit time.Duration, call func(ctx context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	start := time.Now()
	err := call(ctx)
	if took := time.Since(start); took > limit+2*time.Second { // a machine may be busy; a call that ignores its deadline takes longer
		t.Errorf("a call with a deadline of %v took %v", limit, took)
	}
	return err
}

func (p *proxy) put(t testing.TB, id string) error {
	t.Helper()
	return within(t, 2*time.Second, p.putting(id))
}

func (p *proxy) putting(id string) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		_, err := p.Register(ctx, client.Registration{ID: id, Mode: client.Replace})
		return err
	}
}

func (p *proxy) multicasting(ctx context.Context) error {
	_, err := p.Multicast(ctx, client.MulticastRequest{Consistency: client.Strong})
	return err
}

// wantUnavailable checks that a call failed in a way that tells its caller to try again later.
func wantUnavailable(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, client.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want unavailable or deadline exceeded", err)
	}
}

// wantRefused checks that a call fails as unavailable because the proxy says so, which waits 5 seconds for a backend: not
// because its caller, who would wait for longer, has lost patience.
func wantRefused(t testing.TB, call func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	wantError(t, call(ctx), client.ErrUnavailable)
	if ctx.Err() != nil {
		t.Error("the call took until its deadline")
	}
}

// TestBackendsRestart stops Redis and NATS under load and starts them again: calls fail with UNAVAILABLE meanwhile, and
// everything works again by itself, what was registered included.
func TestBackendsRestart(t *testing.T) {
	t.Parallel()
	redis := testenv.NewRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	nats := testenv.NewNATS(t, nil)
	namespace := testenv.Prefix(t)
	p := dial(t, serve(t, config(namespace, redisNATS(redis.Addr, nats.URL))).GRPC, namespace)
	p.register(t, 50, nil)
	a := p.attach(t, names(50)...)
	works := func() bool {
		result, err := p.Multicast(t.Context(), client.MulticastRequest{Timeout: time.Second})
		return err == nil && result.Delivered == 50 && result.TargetCount == 50
	}
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	defer load.Wait()
	defer stop()
	for w := range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				call, cancel := context.WithTimeout(ctx, 2*time.Second)
				_, err := p.Heartbeat(call, name(w), 0)
				cancel()
				if err != nil && ctx.Err() == nil {
					wantUnavailable(t, err)
				}
			}
		})
	}
	if !works() {
		t.Fatal("it does not work before the fault")
	}
	redis.Stop()
	wantRefused(t, p.putting(name(0)))
	wantRefused(t, p.multicasting)
	redis.Start()
	patiently(t, "it works after Redis came back", works)

	nats.Stop()
	result, err := p.Multicast(t.Context(), client.MulticastRequest{Timeout: time.Second})
	must(t, err)
	if result.Failed+result.TimedOut != 50 || result.Delivered != 0 {
		t.Errorf("without NATS: %+v", result)
	}
	must(t, p.put(t, name(0))) // the registry does not need NATS
	nats.Start()
	patiently(t, "it works after NATS came back", works)
	stop()
	load.Wait()
	if a.total() < 100 {
		t.Errorf("the subscriber has %d messages", a.total())
	}
}

// TestBrokenConnections cuts, resets, delays and stalls the ways to Redis and to NATS.
func TestBrokenConnections(t *testing.T) {
	t.Parallel()
	nats := testenv.NATS(t)
	toRedis := testenv.NewFault(t, testenv.Redis(t).Addr)
	toNATS := testenv.NewFault(t, strings.TrimPrefix(nats.URL, "nats://"))
	namespace := testenv.Prefix(t)
	p := dial(t, serve(t, config(namespace, redisNATS(toRedis.Addr, "nats://"+toNATS.Addr))).GRPC, namespace)
	p.register(t, 20, nil)
	p.attach(t, names(20)...)
	works := func() bool {
		if p.put(t, name(0)) != nil {
			return false
		}
		result, err := p.Multicast(t.Context(), client.MulticastRequest{Timeout: time.Second})
		return err == nil && result.Delivered == 20 && result.TargetCount == 20
	}
	if !works() {
		t.Fatal("it does not work before the fault")
	}
	for what, fault := range map[string]struct {
		way  *testenv.Fault
		make func(*testenv.Fault)
		// fails says that calls must fail meanwhile.
		fails bool
	}{
		"Redis cut":     {toRedis, (*testenv.Fault).Cut, true},
		"Redis reset":   {toRedis, (*testenv.Fault).Reset, false},
		"Redis delayed": {toRedis, func(f *testenv.Fault) { f.Delay(20 * time.Millisecond) }, false},
		"Redis stalled": {toRedis, (*testenv.Fault).Stall, true},
		"NATS cut":      {toNATS, (*testenv.Fault).Cut, true},
		"NATS reset":    {toNATS, (*testenv.Fault).Reset, false},
		"NATS delayed":  {toNATS, func(f *testenv.Fault) { f.Delay(20 * time.Millisecond) }, false},
		"NATS stalled":  {toNATS, (*testenv.Fault).Stall, true},
	} {
		fault.make(fault.way)
		switch {
		case !fault.fails:
		case what == "Redis cut":
			wantRefused(t, p.putting(name(1)))
			wantRefused(t, p.multicasting)
		case fault.way == toRedis:
			wantUnavailable(t, p.put(t, name(1)))
		default:
			result, err := p.Multicast(t.Context(), client.MulticastRequest{Timeout: time.Second})
			if err != nil || result.Delivered != 0 || result.Failed+result.TimedOut != 20 {
				t.Errorf("%s: %+v, %v", what, result, err)
			}
		}
		if fault.fails || what == "Redis reset" || what == "NATS reset" {
			fault.way.Heal()
		}
		patiently(t, "it works after: "+what, works)
		fault.way.Heal()
	}
}

// TestRedisFull fills Redis up to its maxmemory: registering is refused as RESOURCE_EXHAUSTED, the rest works, and there is
// nothing half-written.
func TestRedisFull(t *testing.T) {
	t.Parallel()
	redis := testenv.NewRedis(t, "--maxmemory", "8mb", "--maxmemory-policy", "noeviction")
	namespace := testenv.Prefix(t)
	p := dial(t, serve(t, config(namespace, redisNATS(redis.Addr, testenv.NATS(t).URL))).GRPC, namespace)
	filler := strings.Repeat("x", 60_000)
	var stored []string
	var full error
	for i := 0; i < 1000 && full == nil; i++ {
		if _, full = p.Register(t.Context(), client.Registration{ID: name(i), Metadata: map[string]any{"filler": filler}}); full == nil {
			stored = append(stored, name(i))
		}
	}
	wantError(t, full, client.ErrQuota)
	if found := p.find(t, `{}`); len(found) != len(stored) || len(stored) == 0 {
		t.Errorf("%d are found, %d were stored", len(found), len(stored))
	}
	checkExpiries(t, []string{redis.Addr}, namespace, len(stored))
	for _, id := range stored {
		if existed, err := p.Unregister(t.Context(), id); !existed || err != nil {
			t.Fatalf("unregister %s: %v, %v", id, existed, err)
		}
	}
	ask(t, redis.Addr, "CONFIG", "SET", "maxmemory", "100mb")
	eventually(t, "there is room again", func() bool { return p.put(t, "roomy") == nil })
}

// TestRedisRights takes a right away from the user of a running proxy, and gives it back.
func TestRedisRights(t *testing.T) {
	t.Parallel()
	redis := testenv.NewRedis(t)
	ask(t, redis.Addr, "ACL", "SETUSER", "prism", "on", ">secret", "~{prism:*", "&*", "+@all")
	namespace := testenv.Prefix(t)
	slots := fmt.Sprintf("{registry: {type: redis, host: %q, username: prism, password: secret}, messaging: {type: nats, servers: [%q]}}",
		redis.Addr, testenv.NATS(t).URL)
	p := dial(t, serve(t, config(namespace, slots)).GRPC, namespace)
	must(t, p.put(t, "before"))
	for _, right := range []string{"hset", "pexpireat", "zadd", "xadd", "evalsha"} {
		ask(t, redis.Addr, "ACL", "SETUSER", "prism", "-"+right)
		err := p.put(t, "half-written")
		wantError(t, err, client.ErrUnsupported)
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), right) {
			t.Errorf("without %s: %v", right, err)
		}
		ask(t, redis.Addr, "ACL", "SETUSER", "prism", "+"+right)
		if found := p.find(t, `{}`); len(found) != 1 {
			t.Errorf("without %s: %d identities", right, len(found))
		}
		checkExpiries(t, []string{redis.Addr}, namespace, 1)
	}
	must(t, p.put(t, "after"))
}

// TestWrongPassword does not start, and says why.
func TestWrongPassword(t *testing.T) {
	t.Parallel()
	redis := testenv.NewRedis(t, "--requirepass", "secret")
	nobody := "127.0.0.1:1"
	for name, row := range map[string]struct{ slots, want string }{
		"Redis, wrong password": {fmt.Sprintf("{registry: {type: redis, host: %q, password: wrong}, messaging: {type: memory}}", redis.Addr), "password"},
		"Redis, no password":    {fmt.Sprintf("{registry: {type: redis, host: %q}, messaging: {type: memory}}", redis.Addr), "password"},
		"Redis, nobody there":   {fmt.Sprintf("{registry: {type: redis, host: %q}, messaging: {type: memory}}", nobody), nobody},
		"NATS, nobody there":    {fmt.Sprintf("{registry: {type: memory}, messaging: {type: nats, servers: [\"nats://%s\"]}}", nobody), nobody},
	} {
		cfg, err := app.Parse("acceptance.yaml", []byte(config(testenv.Prefix(t), row.slots)))
		must(t, err)
		cfg.Listen.GRPC, cfg.Listen.HTTP, cfg.StartupTimeout = "127.0.0.1:0", "127.0.0.1:0", 0
		err = within(t, 8*time.Second, func(ctx context.Context) error {
			return app.Run(ctx, cfg, slog.New(slog.DiscardHandler), func(app.Addresses) { t.Errorf("%s: it serves", name) })
		})
		if err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), "backend_slots.") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStalledRedis lets Redis hold back all writes for a while: whoever reads goes on, whoever writes gets a deadline.
func TestStalledRedis(t *testing.T) {
	t.Parallel()
	redis := testenv.NewRedis(t)
	namespace := testenv.Prefix(t)
	p := dial(t, serve(t, config(namespace, redisNATS(redis.Addr, testenv.NATS(t).URL))).GRPC, namespace)
	p.register(t, 20, nil)
	p.attach(t, names(20)...)
	ask(t, redis.Addr, "CLIENT", "PAUSE", "60000", "WRITE")
	var writing sync.WaitGroup
	defer writing.Wait()
	for range 8 {
		writing.Go(func() { wantUnavailable(t, p.put(t, name(1))) })
	}
	for range 20 {
		if found := p.find(t, `{}`); len(found) != 20 {
			t.Errorf("%d are found", len(found))
		}
		result, err := p.Multicast(t.Context(), client.MulticastRequest{Timeout: 2 * time.Second})
		if err != nil || result.Delivered != 20 {
			t.Errorf("%+v, %v", result, err)
		}
	}
	writing.Wait()
	ask(t, redis.Addr, "CLIENT", "UNPAUSE")
	eventually(t, "writing works again", func() bool { return p.put(t, name(0)) == nil })
}
