package memory_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/patterns/memory"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// measured runs work in the benchmark's loop, then the peer as often, and reports how much longer the work takes.
func measured(b *testing.B, work, peer func()) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		work()
	}
	took := b.Elapsed()
	start := time.Now()
	for range b.N {
		peer()
	}
	b.ReportMetric(float64(took)/float64(max(time.Since(start), 1)), "x-peer")
}

func deviceMetadata(n int) map[string]any {
	return map[string]any{
		"kind": "sensor", "room": fmt.Sprintf("room-%d", n%100), "battery": float64(n%1000) / 1000,
		"tags": []any{"gps", "cam"}, "fw": map[string]any{"version": "1.4.2", "build": int64(n)},
	}
}

func filled(b *testing.B, n int) (*memory.Registry, []map[string]any) {
	b.Helper()
	r := memory.NewRegistry(memory.RegistryConfig{})
	all := make([]map[string]any, n)
	for i := range n {
		stored, err := r.Put(b.Context(), mr.Identity{ID: fmt.Sprintf("dev-%d", i), Metadata: deviceMetadata(i), TTL: time.Hour}, mr.Create)
		if err != nil {
			b.Fatal(err)
		}
		all[i] = stored.Metadata
	}
	return r, all
}

// BenchmarkPut replaces one of 100,000 identities. Peer: copying the metadata once and putting it into a map under a lock.
func BenchmarkPut(b *testing.B) {
	r, _ := filled(b, 100_000)
	metadata := deviceMetadata(7)
	n := 0
	var mu sync.Mutex
	peer := map[string]map[string]any{}
	measured(b, func() {
		n++
		if _, err := r.Put(b.Context(), mr.Identity{ID: fmt.Sprintf("dev-%d", n%100_000), Metadata: metadata, TTL: time.Hour}, mr.Replace); err != nil {
			b.Fatal(err)
		}
	}, func() {
		n++
		id := fmt.Sprintf("dev-%d", n%100_000)
		c, _ := mr.CopyMetadata(metadata)
		mu.Lock()
		peer[id] = c
		mu.Unlock()
	})
}

// BenchmarkRenew renews one of 100,000 leases. Peer: storing a time in a map under a lock.
func BenchmarkRenew(b *testing.B) {
	r, _ := filled(b, 100_000)
	ids := make([]string, 100_000)
	for i := range ids {
		ids[i] = fmt.Sprintf("dev-%d", i*7919%len(ids))
	}
	n := 0
	var mu sync.Mutex
	peer := make(map[string]time.Time, len(ids))
	measured(b, func() {
		n++
		if _, err := r.Renew(b.Context(), ids[n%len(ids)], 0); err != nil {
			b.Fatal(err)
		}
	}, func() {
		n++
		mu.Lock()
		peer[ids[n%len(ids)]] = time.Now().Add(time.Hour)
		mu.Unlock()
	})
}

// BenchmarkScan filters 1,000 and 100,000 identities of which 1 in 100 matches. Peer: filter.Match over a slice of maps.
func BenchmarkScan(b *testing.B) {
	e, err := filter.Parse(`{"room":"room-42","battery":{"$lt":0.95},"fw.version":{"$semver":"^1.2"}}`)
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{1_000, 100_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			r, all := filled(b, size)
			found, expected := 0, 0
			measured(b, func() {
				for _, err := range r.Scan(b.Context(), e) {
					if err != nil {
						b.Fatal(err)
					}
					found++
				}
			}, func() {
				for _, metadata := range all {
					if filter.Match(e, metadata) {
						expected++
					}
				}
			})
			if found != expected {
				b.Fatalf("%d matches, want %d", found, expected)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(size), "ns/identity")
		})
	}
}

// BenchmarkMassExpiry lets 50,000 leases end at one instant, then registers and counts as fast as it can while a reader
// scans a registry of nothing else: stall-µs is the longest any reader waited. Peer: none, the scans are the measure.
func BenchmarkMassExpiry(b *testing.B) {
	const many = 50_000
	longest := time.Duration(0)
	for b.Loop() {
		b.StopTimer()
		r := memory.NewRegistry(memory.RegistryConfig{})
		end := time.Now().Add(500 * time.Millisecond)
		for n := range many {
			if _, err := r.Put(b.Context(), mr.Identity{ID: fmt.Sprint(n), TTL: max(time.Until(end), 1)}, mr.Create); err != nil {
				b.Fatal(err)
			}
		}
		<-time.After(time.Until(end) + 20*time.Millisecond)
		b.StartTimer()
		var working sync.WaitGroup
		var stop atomic.Bool
		working.Go(func() {
			for !stop.Load() {
				start := time.Now()
				if _, err := r.Renew(b.Context(), "absent", 0); !errors.Is(err, mr.ErrNotFound) {
					b.Error(err)
				}
				longest = max(longest, time.Since(start))
			}
		})
		if n, err := r.Count(b.Context()); n != 0 || err != nil {
			b.Errorf("count: %d, %v", n, err)
		}
		stop.Store(true)
		working.Wait()
	}
	b.ReportMetric(float64(longest.Microseconds()), "stall-µs")
}

// BenchmarkPublish hands 1,000 messages over and takes them: to 1,000 topics of one subscription, and to 1,000
// subscriptions of one topic each. Peer: the same messages through a buffered Go channel each.
func BenchmarkPublish(b *testing.B) {
	const many = 1_000
	batch := make([]mr.Message, many)
	topics := make([]string, many)
	for i := range batch {
		id := fmt.Sprintf("dev-%d", i)
		topics[i] = mr.Topic("default", id)
		batch[i] = mr.Message{Topic: topics[i], Identity: id, ID: "x", Payload: make([]byte, 100), AckTo: "inbox token"}
	}
	ctx := context.Background()
	take := func(b *testing.B, sub mr.Subscription, n int) {
		b.Helper()
		for n > 0 {
			got, err := sub.Next(ctx)
			if err != nil {
				b.Fatal(err)
			}
			n -= len(got.Messages)
		}
	}
	run := func(b *testing.B, subscriptions int) {
		b.Helper()
		m := memory.NewMessaging(memory.MessagingConfig{})
		subs := make([]mr.Subscription, subscriptions)
		each := many / subscriptions
		channels := make([]chan mr.Message, subscriptions)
		for i := range subs {
			var err error
			if subs[i], err = m.Subscribe(ctx, topics[i*each:(i+1)*each]...); err != nil {
				b.Fatal(err)
			}
			channels[i] = make(chan mr.Message, each)
		}
		measured(b, func() {
			if err := errors.Join(m.Publish(ctx, batch)...); err != nil {
				b.Fatal(err)
			}
			for _, sub := range subs {
				take(b, sub, each)
			}
		}, func() {
			for i := range batch {
				channels[i/each] <- batch[i]
			}
			for _, c := range channels {
				for range each {
					<-c
				}
			}
		})
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/many, "ns/message")
	}
	b.Run("one subscription", func(b *testing.B) { run(b, 1) })
	b.Run("1000 subscriptions", func(b *testing.B) { run(b, many) })
}

// BenchmarkEnqueue stores 1,000 messages for one and for 1,000 identities, takes and acks them. Peer: a Go channel each.
func BenchmarkEnqueue(b *testing.B) {
	const many = 1_000
	for _, identities := range []int{1, many} {
		b.Run(fmt.Sprintf("%d identities", identities), func(b *testing.B) {
			d := memory.NewDurability(memory.DurabilityConfig{})
			batch := make([]mr.Message, many)
			topics := make([]string, identities)
			channels := make([]chan mr.Message, identities)
			for i := range topics {
				topics[i] = mr.Topic("default", fmt.Sprint(i))
				channels[i] = make(chan mr.Message, many/identities)
			}
			for i := range batch {
				batch[i] = mr.Message{Topic: topics[i%identities], Identity: fmt.Sprint(i), ID: fmt.Sprint(i), Payload: make([]byte, 100)}
			}
			sub, err := d.Consume(b.Context(), topics...)
			if err != nil {
				b.Fatal(err)
			}
			acks := make([]mr.Ack, 0, many)
			measured(b, func() {
				if err := errors.Join(d.Enqueue(b.Context(), batch)...); err != nil {
					b.Fatal(err)
				}
				acks = acks[:0]
				for len(acks) < many {
					got, err := sub.Next(b.Context())
					if err != nil {
						b.Fatal(err)
					}
					for _, m := range got.Messages {
						acks = append(acks, mr.Ack{To: m.AckTo, Identity: m.Identity, ID: m.ID})
					}
				}
				if err := errors.Join(d.Ack(b.Context(), acks)...); err != nil {
					b.Fatal(err)
				}
			}, func() {
				for i := range batch {
					channels[i%identities] <- batch[i]
				}
				for i := range batch {
					<-channels[i%identities]
				}
			})
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/many, "ns/message")
		})
	}
}

// BenchmarkLedger keeps a multicast to 1,000 identities: begins it, settles each target, finishes it, gets and lists it, in a
// ledger that is full with 10,000. Peer: the same bytes copied into a map under a lock, without keys, order or bounds.
func BenchmarkLedger(b *testing.B) {
	const many = 1_000
	d := memory.NewDurability(memory.DurabilityConfig{})
	n := 0
	id := func() string {
		n++
		return fmt.Sprintf("%012x", n)
	}
	for range memory.DefaultMaxMulticasts {
		if _, _, err := d.Begin(b.Context(), mr.Record{ID: id()}); err != nil {
			b.Fatal(err)
		}
	}
	settlements := make([]mr.Settlement, many)
	chunk, data := make([]byte, 32*many), make([]byte, 16)
	var mu sync.Mutex
	peer := map[string]map[string][]byte{}
	measured(b, func() {
		r := mr.Record{ID: id(), Key: fmt.Sprint(n), Summary: data}
		_, began, err := d.Begin(b.Context(), r)
		for i := range settlements {
			settlements[i] = mr.Settlement{ID: r.ID, Identity: fmt.Sprint(i), Final: true, Data: data}
		}
		errs := append(d.Settle(b.Context(), settlements), err)
		r.Targets = [][]byte{chunk}
		errs = append(errs, d.Finish(b.Context(), r))
		_, settled, err := d.Get(b.Context(), r.ID)
		page, errList := d.List(b.Context(), "", 10)
		if err := errors.Join(append(errs, err, errList)...); err != nil || !began || len(settled) != many || len(page) != 10 {
			b.Fatal(began, len(settled), len(page), err)
		}
	}, func() {
		mu.Lock()
		of := map[string][]byte{"targets": append([]byte(nil), chunk...)}
		for i := range settlements {
			of[fmt.Sprint(i)] = append([]byte(nil), data...)
		}
		peer["last"] = of
		mu.Unlock()
	})
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/many, "ns/target")
}
