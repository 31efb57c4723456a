package acceptance

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	"github.com/prism-data-layer/prism/patterns/memory"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/replica"
	"github.com/prism-data-layer/prism/patterns/redis"
)

// device is number i of n: one of a thousand has its permille, one of a hundred its percent, one of ten its tenth, and, of a
// thousand devices or more, a thousand have its group. Its name tells nothing of that.
func device(i, n int) mr.Identity {
	return mr.Identity{ID: fmt.Sprintf("device-%07d", i*7919%n), TTL: time.Hour, Metadata: map[string]any{
		"permille": int64(i % 1000), "percent": int64(i / 10 % 100), "tenth": int64(i % 10),
		"group": "g-" + strconv.Itoa(i%max(1, n/1000)), "firmware": "1." + strconv.Itoa(i%7) + "." + strconv.Itoa(i%11),
	}}
}

// BenchmarkEnumerateInProcess calls Coordinator.Enumerate, without gRPC, for a page of up to 1,000 and the number of all who
// match, of a registry in memory, of a copy of one in Redis, and with filtering in Redis. The peer of the first two and of the
// third is to fetch every identity, from memory or Redis, and to evaluate the filter: x-scan is how many times as fast they
// are.
//
// Redis has up to 100,000 identities: with a million a call without the copy takes seconds, and with it what it takes in
// memory. Fetching a million from memory is measured once, because it takes the same with every filter.
func BenchmarkEnumerateInProcess(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			sources := inMemory(b, n)
			if n <= 100_000 {
				sources = append(sources, inRedis(b, n)...)
			}
			scans := make(map[string]time.Duration)
			for i, share := range []struct {
				name, filter string
				want         int
			}{{"0.1%", `{"permille":7}`, n / 1000}, {"1%", `{"percent":7}`, n / 100}, {"10%", `{"tenth":7}`, n / 10}} {
				for _, s := range sources {
					if s.name == s.peer && n > 100_000 && i > 0 {
						continue
					}
					b.Run(share.name+"/"+s.name, func(b *testing.B) {
						median := benchPages(b, s.Coordinator, []string{share.filter}, share.want)
						if s.name == s.peer {
							scans[s.peer] = median
						} else if scan, measured := scans[s.peer]; measured {
							b.ReportMetric(float64(scan)/float64(median), "x-scan")
						}
					})
				}
			}
			if n == 1_000_000 {
				benchThousand(b, sources[1].Coordinator)
			}
		})
	}
}

// benchThousand asks for a page of 1,000 matches: of 10,000 identities, and of a million. The limit is 200 µs of a million, and
// twice what it takes of 10,000 (x-10000).
func benchThousand(b *testing.B, million *mr.Coordinator) {
	b.Helper()
	const limit = 200 * time.Microsecond
	groups := func(n int) (all []string) { // not the same one all the time, which would stay in the processor's cache
		for g := range n {
			all = append(all, fmt.Sprintf(`{"group":"g-%d"}`, g))
		}
		return all
	}
	small := inMemory(b, 10_000)[1] // beside the million, because a small heap is collected all the time
	var peer time.Duration
	b.Run("1000-of-10000", func(b *testing.B) { peer = benchPages(b, small.Coordinator, groups(10), 1000) })
	b.Run("1000-of-1000000", func(b *testing.B) {
		median := benchPages(b, million, groups(100), 1000)
		b.ReportMetric(100*float64(median)/float64(limit), "p50-%-of-limit")
		if peer > 0 {
			b.ReportMetric(float64(median)/float64(peer), "x-10000")
		}
	})
}

// benchPages asks for a page of up to 1,000 that match one filter after the other, and returns the median.
func benchPages(b *testing.B, c *mr.Coordinator, filters []string, want int) time.Duration {
	b.Helper()
	queries := make([]mr.Query, len(filters))
	for i, text := range filters {
		match, err := filter.Parse(text)
		must(b, err)
		queries[i] = mr.Query{Filter: match, PageSize: 1000}
	}
	var took times
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		took.timed(func() {
			page, err := c.Enumerate(b.Context(), queries[i%len(queries)])
			if err != nil || page.Total != want || len(page.Identities) != min(want, 1000) {
				b.Fatalf("a page of %d of %d, want %d: %v", len(page.Identities), page.Total, want, err)
			}
		})
	}
	b.ReportMetric(ms(took.at(0.5)), "p50-ms")
	return took.at(0.5)
}

// source is one way to answer, and the name of what it is compared with.
type source struct {
	*mr.Coordinator
	name, peer string
}

func newSource(b *testing.B, name, peer string, registry mr.Registry) source {
	b.Helper()
	slots := mr.Slots{Registry: registry, Messaging: memory.NewMessaging(memory.MessagingConfig{})}
	c, err := mr.Open(b.Context(), mr.Config{}, slots)
	must(b, err)
	b.Cleanup(func() { check(b, c.Close()) })
	return source{c, name, peer}
}

// unfiltered is a registry that leaves all filtering to the coordinator.
type unfiltered struct{ mr.Registry }

// Scan implements multicastregistry.Registry.
func (u unfiltered) Scan(ctx context.Context, _ *filter.Expr) iter.Seq2[mr.Identity, error] {
	return u.Registry.Scan(ctx, nil)
}

// inMemory fills a registry in memory with n devices: the peer comes first.
func inMemory(b *testing.B, n int) []source {
	b.Helper()
	r := memory.NewRegistry(memory.RegistryConfig{})
	fill(b, n, r)
	return []source{newSource(b, "memory-scan", "memory-scan", unfiltered{r}), newSource(b, "memory", "memory-scan", r)}
}

// inRedis fills a registry in Redis with n devices: the peer comes first.
func inRedis(b *testing.B, n int) []source {
	b.Helper()
	conn, err := redis.Open(b.Context(), redis.Config{Host: testenv.NewRedis(b).Addr})
	must(b, err)
	b.Cleanup(conn.Close)
	cfg := redis.RegistryConfig{Namespace: testenv.Prefix(b), Enumerate: redis.EnumerateNative}
	native := redis.NewRegistry(conn, cfg)
	fill(b, n, native)
	cfg.Enumerate = redis.EnumerateScan
	copied, err := replica.New(native, replica.Config{})
	must(b, err)
	life, end := context.WithCancel(context.WithoutCancel(b.Context()))
	ended := make(chan error, 1)
	go func() { ended <- copied.Run(life) }()
	b.Cleanup(func() {
		end()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			check(b, err)
		}
	})
	patiently(b, "the copy is there", func() bool {
		_, err := copied.Reach(b.Context(), 1)
		return err == nil
	})
	return []source{
		newSource(b, "redis-scan", "redis-scan", redis.NewRegistry(conn, cfg)),
		newSource(b, "redis-native", "redis-scan", native), newSource(b, "redis-replica", "redis-scan", copied),
	}
}

// fill puts n devices.
func fill(b *testing.B, n int, r mr.Registry) {
	b.Helper()
	shareOut(b, 64, n, func(i int) error {
		_, err := r.Put(b.Context(), device(i, n), mr.Create)
		return err
	})
}
