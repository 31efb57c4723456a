package redis

import (
	"context"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/prism-data-layer/prism/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// connect opens a connection that ends with the test.
func connect(t testing.TB, cfg Config) *Conn {
	t.Helper()
	c, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// shared opens a connection to the Redis that tests share.
func shared(t testing.TB) *Conn {
	t.Helper()
	return connect(t, Config{Host: testenv.Redis(t).Addr})
}

// registry returns a registry with a sweeper that ends with the test. Without a namespace it gets one of its own.
func registry(t testing.TB, c *Conn, cfg RegistryConfig) *Registry {
	t.Helper()
	if cfg.Namespace == "" {
		cfg.Namespace = testenv.Prefix(t)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	r := NewRegistry(c, cfg)
	sweeping(t, r)
	return r
}

// sweeping sweeps until the test ends.
func sweeping(t testing.TB, r interface {
	Sweep(ctx context.Context) error
},
) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- r.Sweep(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("sweep: %v", err)
		}
	})
}

// do runs a command, as redis-cli would.
func do(t testing.TB, c *Conn, command string, args ...string) rueidis.RedisResult {
	t.Helper()
	return c.write.Do(t.Context(), c.write.B().Arbitrary(command).Args(args...).Build())
}

// text runs a command and returns its reply as text.
func text(t testing.TB, c *Conn, command string, args ...string) string {
	t.Helper()
	reply, err := do(t, c, command, args...).ToString()
	if err != nil {
		t.Fatalf("%s %q: %v", command, args, err)
	}
	return reply
}

// eventually polls until done returns true.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
