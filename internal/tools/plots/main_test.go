package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prism-data-layer/prism/internal/bench"
)

// TestPages draws what was measured again: the pages, plots and tables of the repository are what the raw values say.
func TestPages(t *testing.T) {
	t.Parallel()
	const docs = "../../../docs-cms"
	dir := t.TempDir()
	pages := []string{"performance.md", "capacity.md"}
	var raw, drawn []string
	for _, name := range names() {
		raw = append(raw, filepath.Join("performance", name+".json"))
		if name != "units" {
			drawn = append(drawn, filepath.Join("performance", name+".svg"))
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "performance"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Concat(pages, raw) {
		if err := os.WriteFile(filepath.Join(dir, name), read(t, filepath.Join(docs, name)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(t.Context(), []string{"-draw", "-docs", dir}, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Concat(pages, drawn) {
		got := read(t, filepath.Join(dir, name))
		if !bytes.Equal(got, read(t, filepath.Join(docs, name))) {
			t.Errorf("%s is not what performance/*.json say: run make plots ARGS=-draw", name)
		}
		if strings.HasSuffix(name, ".svg") {
			wellFormed(t, name, got)
		} else if bytes.Contains(got, []byte("NaN")) || bytes.Contains(got, []byte("Inf")) {
			t.Errorf("%s has figures that are none", name)
		}
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func wellFormed(t *testing.T, name string, svg []byte) {
	t.Helper()
	in := xml.NewDecoder(bytes.NewReader(svg))
	for {
		_, err := in.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"-only", "identities,colours"}, `"colours" is not one of identities, targets, proxies, subscribers, units`},
		{[]string{"-only", ""}, ""},
		{[]string{"identities"}, `unexpected argument "identities"`},
		{[]string{"-only", "units", "-quick"}, ""},
	} {
		o, err := parse(row.args, io.Discard)
		if got := text(err); got != row.want {
			t.Errorf("%q: %q, want %q", row.args, got, row.want)
		}
		if err == nil && len(o.only) == 0 {
			t.Errorf("%q: nothing to measure", row.args)
		}
	}
	if err := run(t.Context(), []string{"-draw", "-docs", t.TempDir()}, io.Discard); err == nil {
		t.Error("drew what was never measured")
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestFillIn(t *testing.T) {
	t.Parallel()
	const page = "a\n<!-- make plots: x -->\n\nold\n\n<!-- end of x -->\nb\n"
	for _, row := range []struct{ page, part, want, problem string }{
		{page, "x", "a\n<!-- make plots: x -->\n\nnew\n\n<!-- end of x -->\nb\n", ""},
		{page, "y", "", `there is no "<!-- make plots: y -->" with "<!-- end of y -->" after it`},
		{"<!-- end of x -->\n<!-- make plots: x -->\n", "x", "", `there is no "<!-- make plots: x -->" with "<!-- end of x -->" after it`},
	} {
		got, err := fillIn(row.page, row.part, "new\n")
		if got != row.want || text(err) != row.problem {
			t.Errorf("%q in %q: %q, %v", row.part, row.page, got, err)
		}
		if err == nil {
			if again, err := fillIn(got, row.part, "new\n"); again != got || err != nil {
				t.Errorf("the second time it is %q, %v", again, err)
			}
		}
	}
}

func TestFigures(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]string{
		"0": figure(0), "< 0.001": figure(0.00012), "0.0123": figure(0.01234), "1.5": figure(1.5), "99.9": figure(99.94),
		"1,230": figure(1234), "100,000,000": figure(1e8), "12": whole(12), "-1,234": whole(-1234), "-123": whole(-123),
		"1,234,567": whole(1234567), "351 B": size(351), "1.2 kB": size(1200), "2.15 GB": size(2 << 30), "1.5 TB": size(1.5e12),
		"12.3 µs": span(12.34), "1 ms": span(999.9), "2.5 s": span(2.5e6), "1M": short(1e6), "10k": short(1e4), "0.1": short(0.1),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestTicks(t *testing.T) {
	t.Parallel()
	var labels []string
	for _, tick := range decades(1, 1000) {
		if tick.Label != "" {
			labels = append(labels, tick.Label)
		}
	}
	if got := strings.Join(labels, " "); got != "1 10 100 1k" {
		t.Error(got)
	}
	for _, row := range [][2]float64{{0, 0}, {-1, 1}, {1, math.Inf(1)}, {math.NaN(), 1}} {
		if got := decades(row[0], row[1]); got != nil {
			t.Errorf("%v has ticks: %v", row, got)
		}
	}
	for _, linear := range []bool{false, true} {
		nothing := panel{title: "nothing", linear: linear, lines: []line{{name: "no points"}}}
		if svg, err := drawn([]panel{nothing}); err != nil || len(svg) == 0 {
			t.Errorf("linear %v: nothing could be drawn of nothing: %v", linear, err)
		}
	}
	if got := counts(0.8, 4.2); len(got) != 4 || got[0].Label != "1" || got[3].Value != 4 {
		t.Error(got)
	}
	for _, row := range []struct{ low, high, from float64 }{{3, 40, 1}, {100, 100, 100}, {0.2, 9.9, 0.1}} {
		from, to := around(row.low, row.high, 2)
		if math.Abs(from-row.from) > 1e-9 || math.Log10(to/row.high) < 3.0/13*math.Log10(to/from)-1e-9 || to < from*10 {
			t.Errorf("%v to %v becomes %v to %v", row.low, row.high, from, to)
		}
	}
}

func TestPoints(t *testing.T) {
	t.Parallel()
	kinds := map[string]string{"a:1": kindProxy, "b:1": kindProxy, "c:1": kindRedis}
	result := func(change func(r *bench.Result)) *bench.Result {
		r := &bench.Result{
			Seconds: 2, Operations: []bench.Measured{
				{Operation: bench.Enumerate, Done: 1000, Service: bench.Latency{P50: 1.5}}, {Operation: bench.Arrival, Done: 99_999},
			},
			Processes: []bench.Process{
				{Name: "load", CPU: 99}, {Name: "a:1", CPU: 10, Memory: 5}, {Name: "b:1", CPU: 20, Memory: 6}, {Name: "c:1", CPU: 5, Memory: 7},
			},
		}
		change(r)
		return r
	}
	p, err := pointOf(result(func(*bench.Result) {}), kinds)
	if err != nil || p.Operations != 1000 || p.PerSecond != 500 || p.P50 != 1.5 || math.Round(p.CPU[kindProxy]) != 600 ||
		math.Round(p.CPU[kindRedis]) != 100 || math.Round(p.total()) != 700 || p.Memory[kindProxy] != 11 {
		t.Errorf("%+v, %v", p, err)
	}
	for want, change := range map[string]func(r *bench.Result){
		"11 operations failed, 1000 succeeded":      func(r *bench.Result) { r.Operations[0].Failed = 11 },
		"0 operations failed, 0 succeeded":          func(r *bench.Result) { r.Operations[0].Done = 0 },
		"2 violations of what a multicast promises": func(r *bench.Result) { r.Delivery = &bench.Delivery{Missing: 2} },
		"no process of redis was found":             func(r *bench.Result) { r.Processes = r.Processes[:3] },
	} {
		if _, err := pointOf(result(change), kinds); text(err) != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	point := func(n uint64, us, ms float64) Point {
		return Point{Operations: n, Seconds: 1, P50: ms, CPU: map[string]float64{kindProxy: us}}
	}
	m := medians([]Point{point(10, 5, 3), point(20, 500, 1), point(30, 6, 2)})
	if m.Operations != 60 || m.Seconds != 3 || m.P50 != 2 || m.CPU[kindProxy] != 6 {
		t.Errorf("%+v", m)
	}
	if got := median([]float64{4, 1}); got != 2.5 {
		t.Error(got)
	}
}

func TestInfo(t *testing.T) {
	t.Parallel()
	got := parseInfo("# Memory\r\nused_memory:1234\r\nused_memory_human:1.2K\r\n\r\nratio:1.5\r\n")
	if !maps.Equal(got, map[string]float64{"used_memory": 1234, "ratio": 1.5}) {
		t.Error(got)
	}
}

// TestProvide checks the formulas of the page on capacity.
func TestProvide(t *testing.T) {
	t.Parallel()
	c := costs{
		redisIdentity: 1000, redisEntry: 100, proxyIdle: 30e6, proxyIdentity: 1000, natsIdentity: 500, connection: 50_000,
		heartbeat: change{proxy: 100, redis: 20, follower: 10, feeding: 5}, followerBytes: 100,
	}
	small := c.provide(10_000, 300)
	if small.namespaces != 1 || small.proxies != 2 || small.shards != 1 || math.Round(small.beats) != 100 ||
		math.Round(small.redisMemory) != 10_000_000+logEntries*100 || math.Round(small.proxyMemory) != 30e6+10e6+250e6 ||
		math.Abs(small.redisCores-0.0025) > 1e-9 || math.Abs(small.proxyCores-0.0055) > 1e-9 || math.Round(small.news) != 10_000 {
		t.Errorf("%+v", small)
	}
	million := c.provide(1e6, 300)
	// 24 GiB hold 1 GB of copy and 495,000 connections, with one proxy away.
	if million.namespaces != 1 || million.proxies != 4 || million.shards != 1 {
		t.Errorf("%+v", million)
	}
	if large := c.provide(100e6, 300); large.namespaces != 50 || math.Round(large.beats) != 1e6 {
		t.Errorf("%+v", large)
	}
	// 200,000 heartbeats a second take 2 cores of each of the proxies that follow: too many for some numbers of proxies.
	busy := c.provide(2e6, 30)
	part := float64(busy.namespaces)
	if memory, cores := c.proxy(2e6/part, 200_000/part, busy.proxies-1); cores > proxyCores*fullCPU || memory > proxyMemory*fullMemory ||
		float64(busy.shards)*fullCPU < busy.redisCores {
		t.Errorf("%+v", busy)
	}
	// When following takes more than there is, the namespace is divided.
	c.heartbeat.follower = 100
	if divided := c.provide(2e6, 30); divided.namespaces < 4 {
		t.Errorf("%+v", divided)
	}
}
