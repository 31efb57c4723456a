package index

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

var ctx = context.Background()

// device is number i of n, with five fields of metadata: group is one of n/1000, so that a thousand devices share each.
func device(i, n int) multicastregistry.Identity {
	return multicastregistry.Identity{
		ID: fmt.Sprintf("device-%07d", i*7919%n), TTL: time.Minute, RegisteredAt: time.Unix(1_700_000_000, 0), ExpiresAt: time.Unix(2_000_000_000, 0),
		Metadata: map[string]any{
			"group": "g-" + strconv.Itoa(i%max(1, n/1000)), "percent": int64(i / 7 % 100), "battery": float64(i*31%100_003) / 100_003,
			"firmware": "1." + strconv.Itoa(i%7) + "." + strconv.Itoa(i%11), "online": i%3 == 0,
		},
	}
}

// worked reports for how long this process has worked since, which other processes disturb less than the time that has passed.
func worked(b *testing.B) func() {
	b.Helper()
	cpu := func() int64 {
		var usage syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
			b.Fatal(err)
		}
		return usage.Utime.Nano() + usage.Stime.Nano()
	}
	start := cpu()
	return func() { b.ReportMetric(float64(cpu()-start)/float64(b.N), "cpu-ns/op") }
}

var built sync.Map

// filled is an index of n devices; it is built once.
func filled(n int) *Index {
	ix, ok := built.Load(n)
	if !ok {
		fresh := New()
		for i := range n {
			fresh.Put(device(i, n))
		}
		ix, _ = built.LoadOrStore(n, fresh)
	}
	return ix.(*Index)
}

var sizes = []struct {
	name string
	n    int
}{{"1k", 1000}, {"100k", 100_000}, {"1M", 1_000_000}}

// BenchmarkQuery asks for the first 100 of what matches, and the total.
func BenchmarkQuery(b *testing.B) {
	for _, selects := range []struct{ name, match string }{
		{"0.1%", `{"percent": 5, "battery": {"$lt": 0.1}}`}, {"1%", `{"percent": 5}`}, {"10%", `{"percent": {"$lt": 10}}`},
	} {
		for _, size := range sizes {
			b.Run(selects.name+"/"+size.name, func(b *testing.B) {
				ix := filled(size.n)
				match := parse(selects.match)
				b.ReportAllocs()
				defer worked(b)()
				for b.Loop() {
					answer, err := ix.Query(ctx, time.Now(), multicastregistry.Selection{Match: match, Limit: 100, Total: true})
					if err != nil {
						b.Fatal(err)
					}
					b.ReportMetric(float64(answer.Total), "matches")
				}
			})
		}
	}
}

func parse(src string) *filter.Expr {
	e, err := filter.Parse(src)
	if err != nil {
		panic(err)
	}
	return e
}

// Benchmark1000Of returns 1,000 matches, sorted, with their metadata. The bound is 200 µs of 1,000,000, and twice what it
// takes of 10,000.
func Benchmark1000Of(b *testing.B) {
	var times []float64
	filled(1_000_000) // for both, because a small heap is collected all the time
	for _, n := range []int{10_000, 1_000_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			ix := filled(n)
			var matches []*filter.Expr // not the same one all the time, which would stay in the processor's cache
			for g := range min(n/1000, 100) {
				matches = append(matches, parse(fmt.Sprintf(`{"group": "g-%d"}`, g)))
			}
			b.ReportAllocs()
			defer worked(b)()
			i := 0
			for b.Loop() {
				i++
				answer, err := ix.Query(ctx, time.Now(), multicastregistry.Selection{Match: matches[i%len(matches)], Limit: 1000})
				if err != nil || len(answer.Identities) != 1000 || answer.More {
					b.Fatal(len(answer.Identities), err)
				}
			}
			times = append(times, float64(b.Elapsed().Nanoseconds())/float64(b.N))
			if len(times) == 2 {
				b.ReportMetric(times[1]/times[0], "x-ratio")
			}
		})
	}
}

func BenchmarkFind(b *testing.B) {
	for _, size := range sizes {
		b.Run("10%/"+size.name, func(b *testing.B) {
			ix, match := filled(size.n), parse(`{"percent": {"$lt": 10}}`)
			b.ReportAllocs()
			for b.Loop() {
				ids, err := ix.Find(ctx, time.Now(), match)
				if err != nil || len(ids) == 0 {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOther is what else a query may ask of a million identities.
func BenchmarkOther(b *testing.B) {
	one := []multicastregistry.Order{{Path: []string{"battery"}, Descending: true}}
	two := []multicastregistry.Order{{Path: []string{"percent"}}, {Path: []string{"battery"}}}
	for _, c := range []struct {
		name string
		q    multicastregistry.Selection
	}{
		{"first page of all", multicastregistry.Selection{Limit: 100, Total: true}},
		{"page in the middle", multicastregistry.Selection{Limit: 100, After: &multicastregistry.Place{ID: "device-0500000"}}},
		{"single", multicastregistry.Selection{Match: parse(`{"group": "g-5", "percent": 0, "battery": {"$gt": 0.5}}`), Limit: 100}},
		{"wide range", multicastregistry.Selection{Match: parse(`{"battery": {"$lt": 0.4}}`), Total: true}},
		{"regex", multicastregistry.Selection{Match: parse(`{"group": {"$regex": "7$"}}`), Total: true}},
		{"semver", multicastregistry.Selection{Match: parse(`{"firmware": {"$semver": ">=1.3"}}`), Total: true}},
		{"not", multicastregistry.Selection{Match: parse(`{"online": {"$ne": true}, "$not": {"percent": 7}}`), Total: true}},
		{"sorted", multicastregistry.Selection{Order: one, Limit: 100}},
		{"sorted by two", multicastregistry.Selection{Match: parse(`{"online": true}`), Order: two, Limit: 100}},
		{"counts", multicastregistry.Selection{Match: parse(`{"online": true}`), CountBy: [][]string{{"percent"}}, MaxGroups: 10}},
		{"counts of many", multicastregistry.Selection{Match: parse(`{"online": true}`), CountBy: [][]string{{"battery"}}, MaxGroups: 10}},
	} {
		b.Run(c.name, func(b *testing.B) {
			ix := filled(1_000_000)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ix.Query(ctx, time.Now(), c.q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPut(b *testing.B) {
	const n = 1_000_000
	b.Run("new", func(b *testing.B) {
		ix, i := New(), 0
		devices := make([]multicastregistry.Identity, 50_000)
		for i := range devices {
			devices[i] = device(i, n)
		}
		b.ReportAllocs()
		defer worked(b)()
		for b.Loop() {
			if i++; i == len(devices) {
				ix, i = New(), 0
			}
			ix.Put(devices[i])
		}
	})
	b.Run("replace", func(b *testing.B) {
		ix := filled(n)
		devices := make([]multicastregistry.Identity, 50_000)
		for i := range devices {
			devices[i] = device(i*17%n, n)
		}
		i := 0
		b.ReportAllocs()
		defer worked(b)()
		for b.Loop() {
			i++
			ix.Put(devices[i%len(devices)])
		}
	})
	b.Run("replace with other metadata", func(b *testing.B) {
		ix := filled(n)
		devices := make([]multicastregistry.Identity, 50_000)
		for i := range devices {
			devices[i] = device(i*17%n, n)
		}
		i := 0
		b.ReportAllocs()
		defer worked(b)()
		for b.Loop() {
			i++
			d := &devices[i%len(devices)]
			d.Metadata["battery"] = float64(i) / 1e9
			ix.Put(*d)
		}
		built.Delete(n)
	})
}

// BenchmarkCopy puts 100,000 identities into an empty index, in no order and with Encoded only, as a copy of a registry begins.
func BenchmarkCopy(b *testing.B) {
	const n = 100_000
	identities := make([]multicastregistry.Identity, n)
	for at, i := range newRandom(1).Perm(n) {
		identities[at] = multicastregistry.Identity{
			ID: fmt.Sprintf("device-%06d", i), TTL: time.Hour, RegisteredAt: time.Unix(1_700_000_000, 0),
			ExpiresAt: time.Unix(2_000_000_000, 0), Revision: 7,
			Encoded: string(multicastregistry.AppendMetadata(nil, map[string]any{
				"battery": float64(i%1000) / 1000, "firmware": fmt.Sprintf("1.%d.%d", i%7, i%13), "floor": int64(i % 10),
				"room": fmt.Sprintf("room-%d", i%100), "tags": []any{"gps", fmt.Sprintf("rack-%d", i%50)},
			})),
		}
	}
	b.ReportAllocs()
	report := worked(b)
	for b.Loop() {
		ix := New()
		for i := range identities {
			ix.Put(identities[i])
		}
	}
	report()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/put")
}

func BenchmarkRenew(b *testing.B) {
	const n = 1_000_000
	ix := filled(n)
	ids := make([]string, 50_000)
	for i := range ids {
		ids[i] = device(i*17%n, n).ID
	}
	expires := time.Unix(2_000_000_000, 0)
	var next atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if !ix.Renew(ids[next.Add(1)%int64(len(ids))], time.Minute, expires) {
				b.Error("there is no such identity")
			}
		}
	})
}

// BenchmarkMemory states what an identity with five fields takes, of a million. The bound is 600 bytes.
func BenchmarkMemory(b *testing.B) {
	const n = 1_000_000
	built.Clear()
	for b.Loop() {
		before := heapBytes()
		ix := New()
		start := time.Now()
		for i := range n {
			ix.Put(device(i, n))
		}
		took := time.Since(start)
		b.ReportMetric(float64(heapBytes()-before)/n, "B/identity")
		b.ReportMetric(float64(ix.Bytes())/n, "estimated-B/identity")
		b.ReportMetric(float64(took.Nanoseconds())/n, "ns/put")
		runtime.KeepAlive(ix)
	}
}

func heapBytes() int64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// BenchmarkStall states the longest query, of one match of 200,000 identities, and the longest renewal, while many leases end
// and are swept at once. The bound is 20 ms.
func BenchmarkStall(b *testing.B) {
	for _, expiring := range []int{50_000, 100_000} {
		b.Run(strconv.Itoa(expiring), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				const n = 200_000
				ix := New()
				for i := range n {
					d := device(i, n)
					if i < expiring {
						d.ExpiresAt = time.Unix(1_800_000_000, 0)
					}
					ix.Put(d)
				}
				ids := []string{device(n-1, n).ID}
				match := parse(`{"group": "g-7", "percent": 14}`)
				runtime.GC()
				b.StartTimer()
				stall(b, ix, ids[0], match, expiring)
			}
		})
	}
}

func stall(b *testing.B, ix *Index, id string, match *filter.Expr, expiring int) {
	b.Helper()
	now := time.Unix(1_900_000_000, 0)
	var longest [2]time.Duration
	done := make(chan struct{})
	var readers sync.WaitGroup
	for i, read := range []func(){
		func() { ix.Query(ctx, now, multicastregistry.Selection{Match: match, Limit: 100}) },
		func() { ix.Renew(id, time.Minute, time.Unix(2_000_000_000, 0)) },
	} {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(50 * time.Microsecond):
				}
				start := time.Now()
				read()
				longest[i] = max(longest[i], time.Since(start))
			}
		})
	}
	start := time.Now()
	swept := 0
	for more := true; more; {
		var gone []multicastregistry.Identity
		gone, more = ix.Sweep(now, 1000)
		swept += len(gone)
	}
	took := time.Since(start)
	close(done)
	readers.Wait()
	if swept != expiring {
		b.Fatal(swept)
	}
	b.ReportMetric(float64(longest[0].Microseconds())/1000, "ms-max-query")
	b.ReportMetric(float64(longest[1].Microseconds())/1000, "ms-max-renew")
	b.ReportMetric(float64(took.Milliseconds()), "ms-sweep")
}
