package nats

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

func benchmarked(b *testing.B, n int) *Registry {
	b.Helper()
	r := registry(b, opening(b, testenv.NATS(b).URL), RegistryConfig{Namespace: testenv.Prefix(b)})
	spread(n, 64, func(i int) {
		if _, err := r.Put(b.Context(), benchIdentity(i), mr.Create); err != nil {
			b.Error(err)
		}
	})
	return r
}

func benchIdentity(i int) mr.Identity {
	return mr.Identity{ID: fmt.Sprintf("dev-%d", i), TTL: time.Hour, Metadata: map[string]any{
		"kind": "sensor", "room": fmt.Sprintf("room-%d", i%100), "battery": float64(i%1000) / 1000,
		"tags": []any{"gps", "cam"}, "fw": map[string]any{"version": "1.4.2", "build": int64(i)},
	}}
}

// spread does work 0 to n-1 with a number of callers at once.
func spread(n, callers int, work func(i int)) {
	var all sync.WaitGroup
	for c := range callers {
		all.Go(func() {
			for i := c; i < n; i += callers {
				work(i)
			}
		})
	}
	all.Wait()
}

// against measures work, then a peer as often, with a number of callers each, and reports how much longer the work takes.
func against(b *testing.B, callers int, work, peer func(i int)) {
	b.Helper()
	b.ResetTimer()
	spread(b.N, callers, work)
	b.StopTimer()
	took := b.Elapsed()
	b.ReportMetric(float64(b.N)/took.Seconds(), "per-s")
	start := time.Now()
	spread(b.N, callers, peer)
	b.ReportMetric(float64(took)/float64(max(time.Since(start), 1)), "x-peer")
}

// BenchmarkRegister creates identities. Peer: publishing as many bytes to a JetStream subject and waiting for the
// acknowledgement, the least that a registration can cost.
func BenchmarkRegister(b *testing.B) {
	for _, callers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("%d callers", callers), func(b *testing.B) {
			r := benchmarked(b, 0)
			js, err := jetstream.New(r.conn.nc)
			if err != nil {
				b.Fatal(err)
			}
			payload := make([]byte, 250)
			against(b, callers, func(i int) {
				if _, err := r.Put(b.Context(), benchIdentity(i), mr.Create); err != nil {
					b.Error(err)
				}
			}, func(i int) {
				if _, err := js.Publish(b.Context(), fmt.Sprintf("%speer-%d", r.prefix, i), payload); err != nil {
					b.Error(err)
				}
			})
		})
	}
}

// BenchmarkRenewLease renews one of 10,000 leases. Peer: reading a key of the bucket and writing it back with the library.
func BenchmarkRenewLease(b *testing.B) {
	const many = 10_000
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("%d callers", callers), func(b *testing.B) {
			r := benchmarked(b, many)
			js, err := jetstream.New(r.conn.nc)
			if err != nil {
				b.Fatal(err)
			}
			kv, err := js.KeyValue(b.Context(), "prism-"+r.cfg.Namespace)
			if err != nil {
				b.Fatal(err)
			}
			against(b, callers, func(i int) {
				if _, err := r.Renew(b.Context(), fmt.Sprintf("dev-%d", i%many), 0); err != nil {
					b.Error(err)
				}
			}, func(i int) {
				e, err := kv.Get(b.Context(), fmt.Sprintf("dev-%d", i%many))
				if err == nil {
					_, err = kv.Update(b.Context(), e.Key(), e.Value(), e.Revision())
				}
				if err != nil {
					b.Error(err)
				}
			})
		})
	}
}

// BenchmarkScanBucket looks through 1,000 and 10,000 identities of which 1 in 100 matches. Peer: an ordered consumer that
// delivers the last message of each key, decoded in the same way.
func BenchmarkScanBucket(b *testing.B) {
	e, err := filter.Parse(`{"room":"room-42"}`)
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{1_000, 10_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			r := benchmarked(b, size)
			js, err := jetstream.New(r.conn.nc)
			if err != nil {
				b.Fatal(err)
			}
			against(b, 1, func(int) {
				matches := 0
				for _, err := range r.Scan(b.Context(), e) {
					if err != nil {
						b.Fatal(err)
					}
					matches++
				}
				if matches != size/100 {
					b.Fatalf("%d matches", matches)
				}
			}, func(int) {
				c, err := js.OrderedConsumer(b.Context(), r.bucket.name, jetstream.OrderedConsumerConfig{
					DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
				})
				if err != nil {
					b.Fatal(err)
				}
				messages, err := c.Messages()
				if err != nil {
					b.Fatal(err)
				}
				for range size {
					m, err := messages.Next()
					if err != nil {
						b.Fatal(err)
					}
					s, err := parseState(streamMsg{seq: 1, data: m.Data()})
					if err != nil {
						b.Fatal(err)
					}
					metadata, err := mr.DecodeMetadata(s.record.Metadata)
					if err != nil || filter.Match(e, metadata) && m.Subject() == "" {
						b.Fatal(err)
					}
				}
				messages.Stop()
			})
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(size), "ns/identity")
		})
	}
}

// BenchmarkCopy copies 100,000 identities of five fields at the start of a process. Peer: an ordered consumer that delivers the
// last message of each key, which nobody decodes.
func BenchmarkCopy(b *testing.B) {
	const many = 100_000
	r := benchmarked(b, 0)
	now := time.Now()
	for i := range many {
		identity := benchIdentity(i)
		next := record{
			Metadata: string(mr.AppendMetadata(nil, identity.Metadata)), Registered: now.UnixMicro(),
		}
		next.begin(identity.TTL, now)
		if err := r.conn.nc.Publish(r.prefix+identity.ID, next.append(nil)); err != nil {
			b.Fatal(err)
		}
		if i%10_000 == 0 {
			if err := r.conn.roundTrip(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	until(b, "the server has stored them", func() bool {
		head, err := r.Head(b.Context())
		return err == nil && head >= many
	})
	js, err := jetstream.New(r.conn.nc)
	if err != nil {
		b.Fatal(err)
	}
	against(b, 1, func(int) {
		copied := copyOf(b, r)
		for {
			if _, err := copied.Reach(b.Context(), many); err == nil {
				break
			}
		}
		if n, err := copied.Count(b.Context()); err != nil || n != many {
			b.Fatalf("%d identities, %v", n, err)
		}
	}, func(int) {
		c, err := js.OrderedConsumer(b.Context(), r.bucket.name, jetstream.OrderedConsumerConfig{
			DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
		})
		if err != nil {
			b.Fatal(err)
		}
		messages, err := c.Messages()
		if err != nil {
			b.Fatal(err)
		}
		for range many {
			if _, err := messages.Next(); err != nil {
				b.Fatal(err)
			}
		}
		messages.Stop()
	})
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/copy")
}
