package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prism-data-layer/prism/internal/bench"
)

func TestBench(t *testing.T) {
	addr, _ := server(t)
	report := filepath.Join(t.TempDir(), "out.html")
	small := []string{"--duration", "1100ms", "--identities", "20", "--targets", "5"}
	run := func(args ...string) result {
		t.Helper()
		return prism(t, addr, "", append(append([]string{"bench"}, args...), small...)...)
	}
	for _, op := range []string{bench.Register, bench.Enumerate, bench.Multicast, bench.Attach} {
		r := run(op, "--rate", "20")
		if r.code != 0 || !strings.Contains(r.out, "\n"+op) || !strings.Contains(r.err, "load ") {
			t.Errorf("%s: exit %d\n%s%s", op, r.code, r.out, r.err)
		}
	}
	r := run("mixed", "--rate", "100", "-q", "--report", report, "-o", "json", "--limit", "multicast:p99=1h", "--arrivals", "poisson")
	got := decode[bench.Result](t, r.out)
	if r.code != 0 || r.err != "" || got.Delivery.Targets == 0 || got.Delivery.Received != got.Delivery.Targets || len(got.Checks) != 1 ||
		got.Plan.Shares[bench.Register] != 50 || got.Plan.Name != "mixed" || !got.Plan.Poisson || got.Version == "" {
		t.Errorf("mixed: exit %d\n%s%s", r.code, r.out, r.err)
	}
	if page, err := os.ReadFile(report); err != nil || !strings.Contains(string(page), "<html") {
		t.Errorf("report: %v, %.100s", err, page)
	}
	r = run("mixed", "--multicast", "1", "--heartbeat", "3", "--ramp", "10:100", "--limit", "message:max=1ns", "-o", "jsonl", "-q")
	got = decode[bench.Result](t, r.out)
	if r.code != exitSomeNot || len(got.Plan.Shares) < 2 || got.Plan.Shares[bench.Register] != 0 || got.Plan.RampTo != 100 || got.Checks[0].OK {
		t.Errorf("a limit that cannot hold: exit %d\n%s", r.code, r.out)
	}
	if listed := ok(t, addr, "enumerate", "-o", "json"); strings.Contains(listed, "bench-") {
		t.Errorf("something is left: %s", listed)
	}
}

func TestBenchPresets(t *testing.T) {
	report := filepath.Join(t.TempDir(), "out.html")
	args := []string{"bench", "--embedded", "--duration", "300ms", "--identities", "30", "--targets", "3", "--concurrency", "8", "--timeout", "1m"}
	r := prism(t, "", "", append(args, "--preset", "spec", "--report", report)...)
	if strings.Count(r.out, "OPERATION") != 2 || !strings.Contains(r.out, "spec: concurrent operations") || r.code != 0 && r.code != exitSomeNot {
		t.Errorf("spec: exit %d\n%s%s", r.code, r.out, r.err)
	}
	if _, err := os.Stat(strings.Replace(report, ".html", "-2.html", 1)); err != nil {
		t.Error(err)
	}
	r = prism(t, "", "", append(args, "--preset", "spec", "-o", "json", "-q")...)
	if results := decode[[]bench.Result](t, r.out); len(results) != 2 || !results[0].Plan.Dedicated || !results[1].Embedded || len(results[1].Checks) != 2 {
		t.Errorf("spec: exit %d\n%s%s", r.code, r.out, r.err)
	}
	r = prism(t, "", "", append(args, "--preset", "growth", "--rate", "50", "-o", "jsonl", "-q")...)
	if got := decode[bench.Result](t, r.out); got.Plan.Rate != 50 || got.Plan.Identities != 30 || got.Plan.Concurrency != 8 {
		t.Errorf("growth: exit %d\n%s%s", r.code, r.out, r.err)
	}
}

func TestBenchFaults(t *testing.T) {
	addr, _ := server(t)
	for _, row := range []struct{ args, want string }{
		{"bench fly", `unknown command "fly"`},
		{"bench --preset no", `--preset "no" is not one of growth, spec`},
		{"bench register x", "expected no arguments"},
		{"bench register --identities 0", "--identities must be above 0"},
		{"bench register --duration 0", "--duration must be above 0"},
		{"bench register --rate -1", "the rate must not be negative"},
		{"bench register --ramp 5", `--ramp "5": expected two rates`},
		{"bench register --ramp 0:5", `--ramp "0:5": expected two rates`},
		{"bench register --ramp 1:5 --rate 5", "--ramp and --rate exclude each other"},
		{"bench register --arrivals odd", `--arrivals "odd" is not one of even, poisson`},
		{"bench register --delivery twice", `--delivery "twice" is not one of at-most-once`},
		{"bench register --payload-size 3", "a payload has at least 64 bytes"},
		{"bench register --config x.yaml", "--config is for a server that is --embedded"},
		{"bench register --embedded --config /nowhere.yaml", "/nowhere.yaml"},
		{"bench register --limit p99", `--limit "p99": expected [OPERATION:]PERCENTILE=TIME`},
		{"bench register --limit p98=5ms", "p50, p90, p99, p99.9, max"},
		{"bench register --limit multicast:p99=5ms", `"multicast" is no operation of this load; there are register, message`},
		{"bench mixed --limit p99=5ms", "name an operation: one of enumerate, multicast, register"},
		{"bench mixed --register 0", "no operation has a share"},
		{"bench enumerate --report /nowhere/x.html --duration 10ms", "/nowhere"},
		{"bench register --server 127.0.0.1:1 --timeout 1s", "Is `prism serve` running there?"},
		{"bench register --server http://x", "is a URL"},
		{"bench register -n nowhere", `namespace "nowhere": not found`},
	} {
		r := prism(t, addr, "", strings.Split(row.args, " ")...)
		if r.code != exitError || !strings.Contains(r.err, row.want) {
			t.Errorf("%s: exit %d, %s%s", row.args, r.code, r.out, r.err)
		}
	}
}

func TestBenchInterrupted(t *testing.T) {
	addr, _ := server(t)
	out, errOut, stop := background(t, addr, "bench", "multicast", "--rate", "50", "--duration", "1h", "--identities", "10")
	errOut.await("load 1s", 1)
	if code := stop(); code != exitError || !strings.Contains(out.String(), "DELIVERY") || !strings.Contains(errOut.String(), "interrupted; what was measured") {
		t.Errorf("exit %d\n%s%s", code, out, errOut)
	}
	if listed := ok(t, addr, "enumerate", "-o", "json"); strings.Contains(listed, "bench-") {
		t.Errorf("something is left: %s", listed)
	}
}
