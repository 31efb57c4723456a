package redis

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// logLength is how many commands the slow log keeps.
const logLength = 100_000

// BenchmarkScan finds 1 % and 50 % of so many identities of about 90 bytes of metadata, each with filtering in Redis and with
// fetching everything and filtering here; both check again, as the coordinator does. It reports the median of a scan, how
// long Redis is held by one call (the mean by its statistics, the longest by its slow log), how many calls a scan makes, and for
// native the ratio of its median to that of scan.
func BenchmarkScan(b *testing.B) {
	server := testenv.NewRedis(b, "--slowlog-log-slower-than", "-1", "--slowlog-max-len", strconv.Itoa(logLength))
	c := connect(b, Config{Host: server.Addr})
	for _, n := range []int{1000, 10_000, 100_000} {
		namespace := testenv.Prefix(b)
		fill(b, c, NewRegistry(c, RegistryConfig{Namespace: namespace}), numbered(n))
		for _, share := range []struct {
			name, source string
			want         int
		}{{"1%", `{"room":"lab"}`, n / 100}, {"50%", `{"battery.lt":0.5}`, n / 2}} {
			var peer time.Duration
			for _, enumerate := range []string{EnumerateScan, EnumerateNative} {
				r := NewRegistry(c, RegistryConfig{Namespace: namespace, Enumerate: enumerate})
				b.Run(fmt.Sprintf("%d/%s/%s", n, share.name, enumerate), func(b *testing.B) {
					median := benchScan(b, c, r, parse(b, share.source), share.want)
					if enumerate == EnumerateNative && peer > 0 {
						b.ReportMetric(float64(median)/float64(peer), "x-scan")
					}
					peer = median
				})
			}
		}
	}
}

// benchScan returns the median time of a scan.
func benchScan(b *testing.B, c *Conn, r *Registry, match *filter.Expr, want int) time.Duration {
	b.Helper()
	scanAll := func() {
		found := 0
		for identity, err := range r.Scan(b.Context(), match) {
			noError(b, err)
			if filter.Match(match, identity.Metadata) {
				found++
			}
		}
		if found != want {
			b.Fatalf("%d found, want %d", found, want)
		}
	}
	var times []time.Duration
	for b.Loop() {
		start := time.Now()
		scanAll()
		times = append(times, time.Since(start))
	}
	b.StopTimer()
	slices.Sort(times)
	median := times[len(times)/2]
	b.ReportMetric(float64(median)/float64(time.Millisecond), "median-ms")

	reportHolds(b, c, scanAll)
	return median
}

// logFrom is from how many microseconds on the slow log takes a command in. At 0 it would log what scripts call, too: that
// makes them slower, and drives scripts out of the log.
const logFrom = 300

// reportHolds scans a few times more and reports how long scripts held Redis. That is wall time: on a busy machine the
// longest is one that the system had put aside. The processor time of Redis' main thread, by call, does not depend on that.
func reportHolds(b *testing.B, c *Conn, scanAll func()) {
	b.Helper()
	const scans = 5
	for _, command := range [][]string{
		{"SLOWLOG", "RESET"}, {"CONFIG", "RESETSTAT"}, {"CONFIG", "SET", "slowlog-log-slower-than", strconv.Itoa(logFrom)},
	} {
		noError(b, do(b, c, command[0], command[1:]...).Error())
	}
	before := cpuTime(b, c)
	for range scans {
		scanAll()
	}
	cpu := cpuTime(b, c) - before
	noError(b, do(b, c, "CONFIG", "SET", "slowlog-log-slower-than", "-1").Error())
	var calls, total float64
	stats := text(b, c, "INFO", "commandstats")
	for _, row := range regexp.MustCompile(`cmdstat_eval(?:sha)?_ro:calls=(\d+),usec=(\d+)`).FindAllStringSubmatch(stats, -1) {
		n, err := strconv.ParseFloat(row[1], 64)
		noError(b, err)
		usec, err := strconv.ParseFloat(row[2], 64)
		noError(b, err)
		calls, total = calls+n, total+usec
	}
	if calls == 0 {
		b.Fatalf("no script in %s", stats)
	}
	b.ReportMetric(calls/scans, "calls")
	b.ReportMetric(total/calls/1000, "mean-hold-ms")
	b.ReportMetric(cpu/calls*1000, "cpu-ms/call")
	holds := longest(b, c)
	b.ReportMetric(holds[min(int(calls/100), len(holds)-1)], "p99-hold-ms")
	b.ReportMetric(holds[0], "longest-hold-ms")
}

// cpuTime returns how many seconds Redis' main thread has used.
func cpuTime(b *testing.B, c *Conn) float64 {
	b.Helper()
	total := 0.0
	for _, row := range regexp.MustCompile(`used_cpu_(?:sys|user)_main_thread:([0-9.]+)`).FindAllStringSubmatch(text(b, c, "INFO", "cpu"), -1) {
		seconds, err := strconv.ParseFloat(row[1], 64)
		noError(b, err)
		total += seconds
	}
	return total
}

// longest returns how many milliseconds the scripts in the slow log took, the longest first. It fails when the log may have
// lost some. What took less is not in it: the last element stands for that.
func longest(b *testing.B, c *Conn) []float64 {
	b.Helper()
	log, err := do(b, c, "SLOWLOG", "GET", "-1").ToArray()
	noError(b, err)
	if len(log) >= logLength {
		b.Fatal("the slow log is full: what was longest is not known")
	}
	holds := []float64{logFrom / 1000.0}
	for _, entry := range log {
		fields, err := entry.ToArray()
		noError(b, err)
		took, err := fields[2].AsInt64()
		noError(b, err)
		words, err := fields[3].AsStrSlice()
		noError(b, err)
		if strings.HasPrefix(words[0], "EVAL") {
			holds = append(holds, float64(took)/1000)
		}
	}
	slices.Sort(holds)
	slices.Reverse(holds)
	return holds
}

// BenchmarkScanHold reports how long Redis is held when identities are as costly as they can be: as much as is decoded, of
// what cjson takes longest for and a clause walks to the end; and more than is decoded.
func BenchmarkScanHold(b *testing.B) {
	server := testenv.NewRedis(b, "--slowlog-log-slower-than", "-1", "--slowlog-max-len", strconv.Itoa(logLength))
	c := connect(b, Config{Host: server.Addr})
	for name, metadata := range map[string]map[string]any{
		"lists":   {"a": repeat([]any{int64(0)}, 8_000)},
		"objects": {"a": repeat(map[string]any{}, 10_500)},
		"numbers": {"a": repeat(int64(0), 16_000)},
		"text":    {"a": string(make([]byte, 10_000)), "b": fmt.Sprintf("%060000d", 5)},
	} {
		r := NewRegistry(c, RegistryConfig{Namespace: testenv.Prefix(b)})
		all := map[string]map[string]any{}
		for i := range 200 {
			all[fmt.Sprint(i)] = metadata
		}
		fill(b, c, r, all)
		b.Run(name, func(b *testing.B) { benchScan(b, c, r, parse(b, `{"a.lt":-1}`), 0) })
	}
}

func repeat(value any, n int) []any {
	list := make([]any, n)
	for i := range list {
		list[i] = value
	}
	return list
}
