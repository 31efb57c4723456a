package redis

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/replica"
)

// BenchmarkCopy has a proxy start that copies 100,000 identities of five fields each, and reports how long it takes until the copy
// answers; beside it the feed alone, without the index, and after a restart of Redis, from its death on.
func BenchmarkCopy(b *testing.B) {
	const many = 100_000
	server := testenv.NewRedis(b, "--appendonly", "yes")
	c := connect(b, Config{Host: server.Addr})
	r := registry(b, c, RegistryConfig{})
	put(b, r, "first", time.Hour)
	fill(b, c, r, numbered(many))
	// measure reports what begin returns since then: identities per second, and the time that the processors worked for each.
	measure := func(b *testing.B) func() {
		b.Helper()
		ours, theirs := processTime(b), cpuTime(b, c)
		return func() {
			all := float64(b.N) * many
			b.ReportMetric(all/b.Elapsed().Seconds(), "identities/s")
			b.ReportMetric(float64((processTime(b)-ours).Nanoseconds())/all, "ns-here")
			if now := cpuTime(b, c); now > theirs { // else it has started since
				b.ReportMetric((now-theirs)*1e9/all, "ns-redis")
			}
		}
	}
	b.Run("feed", func(b *testing.B) {
		defer measure(b)()
		for b.Loop() {
			n := 0
			for c, err := range r.Changes(b.Context(), "") {
				noError(b, err)
				if n++; c.Kind == mr.Synced {
					break
				}
			}
			if n < many {
				b.Fatalf("%d changes", n)
			}
		}
	})
	b.Run("copy", func(b *testing.B) {
		defer measure(b)()
		for b.Loop() {
			copied, stop := startCopy(b, r)
			reached(b, copied)
			if n, err := copied.Count(b.Context()); n != many+1 || err != nil {
				b.Fatalf("%d are copied, %v", n, err)
			}
			stop()
		}
	})
	b.Run("restart", func(b *testing.B) {
		copied, stop := startCopy(b, r)
		defer stop()
		reached(b, copied)
		defer measure(b)()
		for b.Loop() {
			b.StopTimer()
			server.Kill()
			b.StartTimer()
			server.Start()
			stored := put(b, r, "first", time.Hour)
			eventually(b, "the copy is back", func() bool {
				_, err := copied.Reach(b.Context(), stored.Revision)
				return err == nil
			})
		}
	})
}

func startCopy(b *testing.B, r *Registry) (*replica.Registry, func()) {
	b.Helper()
	copied, err := replica.New(r, replica.Config{MaxStaleness: time.Minute})
	noError(b, err)
	life, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- copied.Run(life) }()
	return copied, func() {
		cancel()
		<-ended
	}
}

func reached(b *testing.B, copied *replica.Registry) {
	b.Helper()
	_, err := copied.Reach(b.Context(), 1)
	noError(b, err)
}

// processTime returns for how long this process has worked.
func processTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	noError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
