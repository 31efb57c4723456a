package linearizability

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/app"
	"github.com/prism-data-layer/prism/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// setUp is two proxies, each with a copy of its own of one registry in Redis, and a way of its own there.
type setUp struct {
	redis   *testenv.RedisProcess
	ways    [2]*testenv.Fault
	clients [2]*client.Client
}

// newSetUp starts a Redis, which loses nothing that it has answered for, and the proxies.
func newSetUp(t testing.TB) *setUp {
	t.Helper()
	s := &setUp{
		redis: testenv.NewRedis(t, "--appendonly", "yes", "--appendfsync", "always", "--enable-debug-command", "local"),
	}
	namespace := testenv.Prefix(t)
	for i := range s.ways {
		s.ways[i] = testenv.NewFault(t, s.redis.Addr)
		at := serve(t, namespace, s.ways[i].Addr)
		connection, err := client.Dial(at, client.WithNamespace(namespace))
		must(t, err)
		t.Cleanup(func() { must(t, connection.Close()) })
		s.clients[i] = connection
	}
	return s
}

// serve runs a proxy over the Redis at an address until the test ends, and returns where it serves.
func serve(t testing.TB, namespace, redis string) string {
	t.Helper()
	cfg, err := app.Parse("linearizability.yaml", fmt.Appendf(nil, `
namespaces:
  - name: %s
    pattern: multicast-registry
    backend_slots:
      registry: {type: redis, host: %q, ttl_default: 3600}
      messaging: {type: redis, host: %q}
`, namespace, redis, redis))
	must(t, err)
	cfg.Listen.GRPC, cfg.Listen.HTTP = "127.0.0.1:0", "127.0.0.1:0"
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, ended := make(chan app.Addresses, 1), make(chan error, 1)
	logger := slog.New(slog.DiscardHandler) // of an outage it has much to say
	go func() { ended <- app.Run(ctx, cfg, logger, func(a app.Addresses) { ready <- a }) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("a proxy ended with %v", err)
		}
	})
	select {
	case a := <-ready:
		return a.GRPC
	case err := <-ended:
		ended <- err
		t.Fatalf("a proxy did not start: %v", err)
	}
	panic("unreachable")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wait waits for a time, or until the context ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
