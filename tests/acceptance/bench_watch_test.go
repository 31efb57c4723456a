package acceptance

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
)

// BenchmarkWatchLatency registers through one proxy what a client watches through another one, over Redis, and takes the time
// from the call of Register until the watcher has the event; the call itself is a part of it, and beside it (register-ms). An
// operation is 500 registrations, about 100 a second. Under "load" 1,000 others watch through the second proxy, each another
// room, and through the first one go 500 heartbeats a second and 50 registrations into those rooms. The limit is 10 ms at the
// median.
func BenchmarkWatchLatency(b *testing.B) {
	const others, limit = 1000, 10 * time.Millisecond
	for _, loaded := range []bool{false, true} {
		name := "quiet"
		if loaded {
			name = "load"
		}
		b.Run(name, func(b *testing.B) {
			proxies := overRedis(b, 2)
			from, to := proxies[0], proxies[1]
			ctx, stop := context.WithCancel(b.Context())
			var running sync.WaitGroup
			defer running.Wait()
			defer stop()
			var synced sync.WaitGroup
			arrived := make(chan string, 1)
			watch := func(p *proxy, filter map[string]any, joined func(id string)) {
				synced.Add(1)
				running.Go(func() { watchRoom(ctx, b, p, filter, synced.Done, joined) })
			}
			watch(dial(b, to.at, to.namespace), map[string]any{"room": "measured"}, func(id string) { arrived <- id })
			if loaded {
				crowd := [2]*proxy{dial(b, to.at, to.namespace), dial(b, to.at, to.namespace)}
				var told atomic.Int64
				for i := range others {
					watch(crowd[i%2], map[string]any{"room": fmt.Sprint("room-", i)}, func(string) { told.Add(1) })
				}
				synced.Wait()
				from.registerAll(b, others, func(i int) map[string]any { return map[string]any{"room": fmt.Sprint("room-", i)} })
				running.Go(func() { from.keepBusy(ctx, b, others) })
				defer func() {
					if told.Load() < others {
						b.Errorf("the other watchers were told of %d, want %d or more", told.Load(), others)
					}
				}()
			}
			synced.Wait()
			took, call := benchWatch(b, from.proxy, arrived)
			b.ReportMetric(ms(took.at(0.5)), "p50-ms")
			b.ReportMetric(ms(took.at(0.99)), "p99-ms")
			b.ReportMetric(ms(call.at(0.5)), "register-ms")
			b.ReportMetric(100*float64(took.at(0.5))/float64(limit), "p50-%-of-limit")
		})
	}
}

// benchWatch registers into the measured room and waits for each to arrive.
func benchWatch(b *testing.B, from *proxy, arrived <-chan string) (took, call times) {
	b.Helper()
	const registrations = 500
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	for round := 0; b.Loop(); round++ {
		for i := range registrations {
			<-pace.C
			id := fmt.Sprintf("measured-%d-%d", round, i)
			r := client.Registration{ID: id, Metadata: map[string]any{"room": "measured"}, TTL: time.Minute}
			start := time.Now()
			var at time.Time
			heard := make(chan struct{})
			go func() {
				defer close(heard)
				for got := range arrived {
					if got == id {
						at = time.Now()
						return
					}
				}
			}()
			call.timed(func() {
				_, err := from.Register(b.Context(), r)
				must(b, err)
			})
			<-heard
			took = append(took, at.Sub(start))
		}
	}
	return took, call
}

// watchRoom watches until the context ends, and calls synced once and joined for whoever joins.
func watchRoom(ctx context.Context, b *testing.B, p *proxy, filter map[string]any, synced func(), joined func(id string)) {
	b.Helper()
	once := sync.OnceFunc(synced)
	defer once()
	for event, err := range p.Watch(ctx, client.WatchQuery{Filter: filter}) {
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			b.Errorf("watch %v: %v", filter, err)
			return
		case event.Type == client.Synced:
			once()
		case event.Type == client.Joined:
			joined(event.Identity.ID)
		}
	}
}

// keepBusy renews and registers, 500 and 50 times a second, among names(n), until the context ends.
func (p *proxy) keepBusy(ctx context.Context, b *testing.B, n int) {
	b.Helper()
	var calling sync.WaitGroup
	defer calling.Wait()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		calling.Go(func() {
			for h := range 10 {
				if _, err := p.Heartbeat(ctx, name((10*i+h)%n), 0); err != nil && ctx.Err() == nil {
					b.Errorf("heartbeat: %v", err)
				}
			}
			r := client.Registration{ID: name(i % n), TTL: time.Hour, Mode: client.Replace, Metadata: map[string]any{
				"room": fmt.Sprint("room-", i%n), "round": i,
			}}
			if _, err := p.Register(ctx, r); err != nil && ctx.Err() == nil {
				b.Errorf("register: %v", err)
			}
		})
	}
}
