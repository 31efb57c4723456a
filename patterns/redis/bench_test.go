package redis

import (
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
