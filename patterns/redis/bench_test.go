package redis

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	"github.com/prism-data-layer/prism/patterns/memory"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// share has callers make b.N calls between them, each with a number of its own, and returns calls per second.
func share(b *testing.B, callers int, call func(n int) error) float64 {
	b.Helper()
	var next atomic.Int64
	var all sync.WaitGroup
	b.ResetTimer()
	for range callers {
		all.Go(func() {
			for n := int(next.Add(1)); n <= b.N; n = int(next.Add(1)) {
				if err := call(n); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	rate := float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(rate, "calls/s")
	return rate
}

// BenchmarkRegister measures registrations and heartbeats through the coordinator. The limit beside them is a plain HSET of
// the same bytes, over the same driver with as many callers in the same run.
func BenchmarkRegister(b *testing.B) {
	c := connect(b, Config{Host: testenv.NewRedis(b).Addr})
	metadata := map[string]any{"room": "engineering", "battery": 0.83, "firmware": "1.4.2", "floor": int64(3), "tags": []any{"gps", "cam"}}
	stored, err := encodeMetadata(metadata)
	noError(b, err)
	coordinator, err := mr.Open(b.Context(), mr.Config{}, mr.Slots{
		Registry:  registry(b, c, RegistryConfig{}),
		Messaging: memory.NewMessaging(memory.MessagingConfig{}),
	})
	noError(b, err)
	defer func() { noError(b, coordinator.Close()) }()
	const ids = 100_000
	for _, callers := range []int{1, 16, 64} {
		var limit float64
		b.Run(fmt.Sprintf("callers=%d/hset", callers), func(b *testing.B) {
			limit = share(b, callers, func(n int) error {
				return c.write.Do(b.Context(), c.write.B().Hset().Key(fmt.Sprintf("hset-%d", n%ids)).FieldValue().
					FieldValue("m", stored).FieldValue("t", "30000").FieldValue("r", "1764000000000").
					FieldValue("e", "1764000030000").FieldValue("v", "1000000").Build()).Error()
			})
		})
		b.Run(fmt.Sprintf("callers=%d/register", callers), func(b *testing.B) {
			b.ReportMetric(limit/share(b, callers, func(n int) error {
				_, err := coordinator.Register(b.Context(), mr.Registration{
					ID: fmt.Sprintf("device-%d", n%ids), Metadata: metadata, TTL: time.Hour, Mode: mr.Replace,
				})
				return err
			}), "x-hset")
		})
		for n := range 1000 { // what the heartbeats are for
			_, err := coordinator.Register(b.Context(), mr.Registration{ID: fmt.Sprintf("device-%d", n), TTL: time.Hour, Mode: mr.Replace})
			noError(b, err)
		}
		b.Run(fmt.Sprintf("callers=%d/heartbeat", callers), func(b *testing.B) {
			b.ReportMetric(limit/share(b, callers, func(n int) error {
				_, err := coordinator.Heartbeat(b.Context(), fmt.Sprintf("device-%d", n%1000), 0)
				return err
			}), "x-hset")
		})
	}
}

// BenchmarkMassExpiry has 50,000 leases end at once, and sweeps them, while one caller reads the head and another one puts. It
// reports the longest that either waited, in ms, and beside it the longest in as much time before, when nothing expires.
func BenchmarkMassExpiry(b *testing.B) {
	const many = 50_000
	c := connect(b, Config{Host: testenv.NewRedis(b).Addr})
	var read, put, quietRead, quietPut, swept time.Duration
	for b.Loop() {
		r := unswept(b, c, RegistryConfig{})
		left := func() int64 {
			n, err := do(b, c, "ZCARD", r.keys.leases).AsInt64()
			noError(b, err)
			return n
		}
		began := time.Now()
		ends := began.Add(20 * time.Second)
		var all sync.WaitGroup
		for w := range 64 {
			all.Go(func() {
				for n := w; n < many; n += 64 {
					_, err := r.Put(b.Context(), mr.Identity{ID: fmt.Sprint("x", n), TTL: time.Until(ends)}, mr.Replace)
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		const measured = 3 * time.Second
		if time.Until(ends) < measured || b.Failed() {
			b.Fatalf("storing took %v", time.Since(began))
		}
		qr, qp := longestCalls(b, r, func() bool { return time.Until(ends) < 0 })
		quietRead, quietPut = max(quietRead, qr), max(quietPut, qp)
		start := time.Now()
		ctx, stop := context.WithCancel(b.Context())
		all.Go(func() { _ = r.Sweep(ctx) })
		took := time.Duration(0)
		lr, lp := longestCalls(b, r, func() bool {
			if took == 0 && left() <= 1 {
				took = time.Since(start)
			}
			return took > 0 && time.Since(start) > measured
		})
		read, put, swept = max(read, lr), max(put, lp), max(swept, took)
		stop()
		all.Wait()
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(ms(read), "read-ms")
	b.ReportMetric(ms(put), "put-ms")
	b.ReportMetric(ms(quietRead), "quiet-read-ms")
	b.ReportMetric(ms(quietPut), "quiet-put-ms")
	b.ReportMetric(ms(read)/ms(quietRead), "x-quiet-read")
	b.ReportMetric(ms(put)/ms(quietPut), "x-quiet-put")
	b.ReportMetric(ms(swept), "swept-ms")
}

// longestCalls reads the head and puts an identity, again and again, until done returns true, and returns the longest of each.
func longestCalls(b *testing.B, r *Registry, done func() bool) (read, put time.Duration) {
	b.Helper()
	ctx, stop := context.WithCancel(b.Context())
	again := func(most *time.Duration, call func() error) func() {
		return func() {
			for ctx.Err() == nil {
				start := time.Now()
				if err := call(); err != nil {
					b.Error(err)
					return
				}
				*most = max(*most, time.Since(start))
			}
		}
	}
	var all sync.WaitGroup
	all.Go(again(&read, func() error { _, err := r.Head(b.Context()); return err }))
	all.Go(again(&put, func() error {
		_, err := r.Put(b.Context(), mr.Identity{ID: "stays", TTL: time.Hour}, mr.Replace)
		return err
	}))
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		<-tick.C
	}
	stop()
	all.Wait()
	return read, put
}
