package bench

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
)

func textOf(t *testing.T, r *Result) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// handmade is a small result with something in each part.
func handmade() *Result {
	plan := Plan{
		Name: "evening", Shares: map[string]float64{Enumerate: 3, Multicast: 1}, Rate: 2000, Poisson: true, Heartbeats: 50,
		Duration: time.Minute, Concurrency: 1024, Connections: 2, Strong: true,
		Limits: []Limit{{Operation: Enumerate, Percentile: 99, Milliseconds: 10}, {Operation: Register, Percentile: 100, Milliseconds: 50}},
	}.withDefaults()
	return &Result{
		Plan: plan, Servers: []string{"a:1", "b:1", "c:1", "d:1", "e:1", "f:1"}, Version: "v1",
		Started: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Seconds: 60.24,
		Operations: []Measured{
			{
				Operation: Enumerate, Offered: 90_000, Done: 89_990, Failed: 10, Rate: 1499.8,
				Latency: Latency{P50: .85, P90: 1.5, P99: 4.25, P999: 12, Max: 1203}, Errors: map[string]uint64{"UNAVAILABLE": 4, "WRONG_ANSWER": 6},
			},
			{Operation: Multicast, Offered: 120, Done: 120, Rate: 2, Latency: Latency{P50: 5, P90: 6, P99: 7, P999: 8, Max: 9}},
			{Operation: Heartbeat, Offered: 3000, Failed: 3000, Errors: map[string]uint64{"NOT_FOUND": 3000}},
			{Operation: Arrival, Done: 11_990, Rate: 199.5, Latency: Latency{P50: 3, P90: 4, P99: 5, P999: 6, Max: 7}},
		},
		Late:  Latency{P50: .02, P99: .5, Max: 20},
		Setup: []Stage{{Name: "register identities", Count: 1000, Seconds: .5}, {Name: "warm up", Seconds: 2}},
		Delivery: &Delivery{
			Multicasts: 120, Targets: 12_000, Delivered: 11_990, Failed: 10, Reasons: map[string]uint64{"NO_SUBSCRIBER": 10},
			Received: 11_990, Repeats: 2,
		},
		Processes: []Process{{Name: "prism", PID: 42, CPU: 142.4, Memory: 150 << 20}},
		Checks: []Check{
			{Limit: plan.Limits[0], Measured: 4.25, OK: true}, {Limit: plan.Limits[1]},
		},
	}
}

func TestWriteText(t *testing.T) {
	t.Parallel()
	//nolint:dupword // a row without figures
	const want = `bench    evening
run      1m0.2s from 2026-03-01 12:00:00 UTC, prism v1
load     2,000/s for 1m: 75 % enumerate + 25 % multicast, at random times, at most 1,024 at once, and beside it 50/s heartbeat
data     1,000 identities in groups of 100, TTL 1h, 4 streams, at-least-once delivery of 64 B each, strong reads
servers  a:1, b:1, c:1, d:1 and 2 others, 2 connections to each

OPERATION  OFFERED    DONE  RATE/S      P50      P90      P99    P99.9      MAX  FAILED
enumerate   90,000  89,990   1,500   850 µs  1.50 ms  4.25 ms  12.0 ms   1.20 s      10
multicast      120     120       2  5.00 ms  6.00 ms  7.00 ms  8.00 ms  9.00 ms       0
heartbeat    3,000       0     n/a      n/a      n/a      n/a      n/a      n/a   3,000
message        n/a  11,990     200  3.00 ms  4.00 ms  5.00 ms  6.00 ms  7.00 ms     n/a
Latencies count from when an operation was due; that of a message ends when its subscriber has it.

FAILED     ERROR         COUNT  OF OFFERED
enumerate  WRONG_ANSWER      6    0.0067 %
enumerate  UNAVAILABLE       4    0.0044 %
heartbeat  NOT_FOUND     3,000       100 %

DELIVERY
120 multicasts were answered.
targets 12,000 = 11,990 delivered + 0 pending + 10 failed (NO_SUBSCRIBER 10) + 0 timed out
received 11,990, repeats 2
100 % accounted for, no violations

LOAD TOOL
Operations were handed to a worker 20 µs (p50), 500 µs (p99), at most 20.0 ms after they were due.
! That is much beside the 850 µs (p50) of enumerate: latencies of this size are the load tool's, not the server's. ` +
		`Offer less, or give the tool a machine of its own.

PROCESS  PID    CPU   MEMORY
prism     42  142 %  150 MiB
CPU is in percent of one core, during the load; memory is what is resident at its end.

BEFORE THE LOAD      COUNT    TOOK  RATE/S
register identities  1,000  500 ms   2,000
warm up                n/a  2.00 s     n/a

LIMIT  OF         AT MOST  MEASURED  LIMIT IS
p99    enumerate  10.0 ms   4.25 ms       met
max    register   50.0 ms       n/a    missed

Not OK: 3,010 operations failed, 1 limit was missed.
`
	if got := textOf(t, handmade()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestTextCases are results with one thing each that is special.
func TestTextCases(t *testing.T) {
	t.Parallel()
	done := []Measured{{Operation: Enumerate, Offered: 10, Done: 10, Latency: Latency{P50: 10, P99: 20}}}
	ramp := Plan{Shares: map[string]float64{Enumerate: 1}, Rate: 10, RampTo: 50}
	for name, row := range map[string]struct {
		result Result
		has    []string
		hasNot []string
	}{
		"nothing": {
			Result{}, []string{"servers  n/a", "! No operation was due.", "\nNothing was measured.\n"}, []string{"LOAD TOOL", "DELIVERY", "LIMIT"},
		},
		"all is well": {Result{Operations: done}, []string{"\nOK: every operation was answered.\n"}, []string{"! ", "ERROR"}},
		"a limit and messages": {
			Result{Operations: done, Delivery: &Delivery{Multicasts: 1, Targets: 1, Delivered: 1}, Checks: []Check{{OK: true}}},
			[]string{"OK: every operation was answered, every message is accounted for, all limits are met."},
			nil,
		},
		"closed loop": {
			Result{Plan: Plan{Concurrency: 8, Shares: map[string]float64{Enumerate: 1}}, Operations: done},
			[]string{"as fast as 8 workers go", "from when an operation began:"},
			[]string{"at once", "LOAD TOOL"},
		},
		"dedicated workers and heartbeats": {
			Result{Plan: Plan{Concurrency: 1, Dedicated: true, Heartbeats: 5}, Operations: done},
			[]string{
				"as fast as 1 worker goes for 0s: nothing, each worker at one operation, and beside it 5/s heartbeat",
				"those of the heartbeats at a rate from",
			},
			nil,
		},
		"not started": {
			Result{Operations: []Measured{{Operation: Enumerate, Offered: 1, Failed: 1, Errors: map[string]uint64{"NOT_STARTED": 1}}}},
			[]string{"NOT_STARTED: no worker was free"},
			nil,
		},
		"lateness unknown": {Result{Plan: Plan{Rate: 5}, Operations: done}, []string{"How late operations began: n/a."}, nil},
		"not late": {
			Result{Plan: Plan{Rate: 5}, Operations: done, Late: Latency{P50: 1, P99: 4.9, Max: 30}},
			[]string{"1.00 ms (p50), 4.90 ms (p99), at most 30.0 ms"},
			[]string{"! "},
		},
		"embedded": {Result{Embedded: true}, []string{"servers  in the process of the load\n"}, nil},
		"no multicast answered": {
			Result{Delivery: &Delivery{Unanswered: 3}},
			[]string{"0 multicasts were answered; 3 were not", "nothing to account for, no violations"},
			[]string{"targets"},
		},
		"lossy": {
			Result{Delivery: &Delivery{
				Multicasts: 1, Unanswered: 1, Targets: 9, Delivered: 6, Pending: 1, TimedOut: 2, Dropped: 4, Lost: 5,
				Reasons: map[string]uint64{"B": 1, "A": 1, "C": 2},
			}},
			[]string{
				"1 multicast was answered; 1 was not, and what became of its messages is unknown.",
				"targets 9 = 6 delivered + 1 pending + 0 failed + 2 timed out (C 2, A 1, B 1)",
				"dropped by the server for slow subscribers 4, lost 5 (which at-most-once allows)",
			},
			nil,
		},
		"violations": {
			Result{Operations: done, Delivery: &Delivery{
				Multicasts: 2, Targets: 1000, Delivered: 999, WrongCount: 1, Missing: 2, Contradicted: 1, Uninvited: 1, Repeated: 2, Corrupted: 1,
			}},
			[]string{
				"targets 1,000 ≠ 999 delivered", "! 99.1 % accounted for, 8 violations:", "! 1 report does not add up",
				"! 2 messages were reported as delivered and acknowledged, and never received", "! 1 message was reported as failed, yet received",
				"! 1 message was received by somebody it was not for", "! 2 messages were received again, which the",
				"! 1 message had another content", "Not OK: 8 violations of what was promised.",
			},
			nil,
		},
		"hostile": {
			Result{
				Plan: Plan{Name: "a\x1b[2Jb", Shares: map[string]float64{"x\ny": 1}}, Servers: []string{"\u202eevil"},
				Operations: []Measured{{Operation: "o\tp", Offered: 1, Failed: 1, Errors: map[string]uint64{"\r": 1}}},
			},
			[]string{"a\ufffd[2Jb", "x\ufffdy", "\ufffdevil", "o\ufffdp"},
			[]string{"\x1b", "\t", "\r", "\u202e"},
		},
		"ramp without samples": {Result{Plan: ramp}, []string{"Kept pace up to: n/a."}, nil},
		"ramp kept": {
			Result{Plan: ramp, Series: seriesOf(10, 10, 20, 20, 50, 49)}, []string{"Kept pace all the way, up to 50/s."}, []string{"! Kept"},
		},
		"ramp not kept": {
			Result{Plan: ramp, Series: seriesOf(10, 10, 20, 20, 30, 20, 40, 20)}, []string{"! Kept pace up to 20/s; then"}, nil,
		},
		"ramp at once too much": {Result{Plan: ramp, Series: seriesOf(10, 1, 20, 1)}, []string{"! Kept pace at no rate"}, nil},
	} {
		got := textOf(t, &row.result)
		for _, text := range row.has {
			if !strings.Contains(got, text) {
				t.Errorf("%s: lacks %q:\n%s", name, text, got)
			}
		}
		for _, text := range row.hasNot {
			if strings.Contains(got, text) {
				t.Errorf("%s: has %q:\n%s", name, text, got)
			}
		}
	}
}

// seriesOf makes a series of what was offered and done in each second.
func seriesOf(offeredDone ...float64) []Sample {
	var all []Sample
	for pair := range slices.Chunk(offeredDone, 2) {
		at := float64(len(all) + 1)
		all = append(all, Sample{Operation: Enumerate, At: at, Offered: pair[0], Done: pair[1]})
	}
	return all
}

func TestKeptPace(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		offeredDone []float64
		rate        float64
		all         bool
	}{
		{nil, 0, false},
		{[]float64{100, 97}, 100, true},
		{[]float64{100, 96.9}, 0, false},
		{[]float64{100, 90, 200, 200, 300, 310}, 300, true},           // short at the start
		{[]float64{100, 100, 200, 50, 300, 450, 400, 400}, 400, true}, // a hiccup that is made up for
		{[]float64{100, 100, 200, 190, 300, 200, 400, 400}, 100, false},
		{[]float64{100, 100, 200, 100}, 100, false}, // at the end
		{[]float64{100, 100, 0, 5}, 100, true},      // after the end
		{[]float64{300, 300, 200, 200, 100, 100}, 300, true},
	} {
		r := Result{Series: seriesOf(row.offeredDone...)}
		// Another operation in the same seconds, and messages, which do not count.
		for _, s := range slices.Clone(r.Series) {
			r.Series = append(r.Series, Sample{Operation: Heartbeat, At: s.At}, Sample{Operation: Arrival, At: s.At, Done: 1000})
		}
		slices.Reverse(r.Series)
		if rate, all := r.keptPace(); rate != row.rate || all != row.all {
			t.Errorf("%v: got %v %v, want %v %v", row.offeredDone, rate, all, row.rate, row.all)
		}
	}
}

// fullWriter fails.
type fullWriter struct{}

var errFull = errors.New("full")

func (fullWriter) Write([]byte) (int, error) { return 0, errFull }

func TestWriteErrors(t *testing.T) {
	t.Parallel()
	if err := handmade().WriteText(fullWriter{}); !errors.Is(err, errFull) {
		t.Errorf("text: got %v", err)
	}
	if err := handmade().WriteHTML(fullWriter{}); !errors.Is(err, errFull) {
		t.Errorf("page: got %v", err)
	}
}

// TestVerdictAgrees holds the words against what the program's exit code follows.
func TestVerdictAgrees(t *testing.T) {
	t.Parallel()
	for _, r := range []*Result{
		{},
		handmade(), sampleResult(),
		{Delivery: &Delivery{Missing: 1}},
		{Checks: []Check{{}}},
		{Operations: []Measured{{Failed: 1}}},
		{Plan: Plan{Delivery: client.AtMostOnce}, Operations: []Measured{{Offered: 1, Done: 1}}, Delivery: &Delivery{Lost: 1}},
	} {
		if ok := r.verdict().Mood != bad; ok != r.OK() {
			t.Errorf("%+v: the text says %q, OK says %v", r, r.verdict().Text, r.OK())
		}
	}
}
