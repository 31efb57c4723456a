package multicastregistry_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// BenchmarkMulticast measures the coordinator alone, on memory: fire and forget, and with every target acking. The floor
// beside it sends as many messages through one Go channel, and back.
func BenchmarkMulticast(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10_000} {
		floor := b.Elapsed()
		b.Run(fmt.Sprintf("targets=%d/floor", n), func(b *testing.B) {
			there, back := make(chan int, n), make(chan int, n)
			go func() {
				for i := range there {
					back <- i
				}
				close(back)
			}()
			for b.Loop() {
				for i := range n {
					there <- i
				}
				for range n {
					<-back
				}
			}
			floor = b.Elapsed() / time.Duration(b.N)
			close(there)
		})
		for _, mode := range mr.DeliveryModes() {
			b.Run(fmt.Sprintf("targets=%d/%s", n, mode), func(b *testing.B) {
				b.ReportAllocs()
				c := open(b, mr.Config{Timeout: time.Minute}, memorySlots())
				register(b, c, n, nil)
				var received atomic.Int64
				attach(b, c, func(mr.Message) bool { received.Add(1); return true }, ids(n)...)
				for b.Loop() {
					result, err := c.Multicast(b.Context(), mr.Request{Payload: []byte("hello"), Delivery: mode})
					if err != nil || result.Delivered != n {
						b.Fatalf("delivered %d of %d, %v", result.Delivered, n, err)
					}
				}
				b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(floor), "x-floor")
				b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(n), "ns/target")
			})
		}
	}
}
