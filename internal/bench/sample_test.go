package bench

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/prism-data-layer/prism/client"
)

// sampleResult is what a run of a minute might have measured: four operations and the arrival of messages; a server was away
// for three seconds. It is the same each time, and for all to read.
var sampleResult = sync.OnceValue(func() *Result {
	random := rand.New(rand.NewPCG(1, 2))
	r := &Result{
		Plan: Plan{
			Name:   "mixed load on one server",
			Shares: map[string]float64{Register: 10, Enumerate: 60, Multicast: 5, Heartbeat: 25}, Rate: 200, RampTo: 2000,
			Limits: []Limit{
				{Operation: Enumerate, Percentile: 99, Milliseconds: 250}, {Operation: Multicast, Percentile: 99.9, Milliseconds: 20},
			},
		}.withDefaults(),
		Servers: []string{"127.0.0.1:8980", "127.0.0.1:8981"}, Version: "v1.4.0",
		Started: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Seconds: 60.04,
		Late:  Latency{Mean: .06, P50: .04, P90: .09, P99: .21, P999: .9, Max: 3.2},
		Setup: []Stage{{Name: "register identities", Count: 1000, Seconds: .41}, {Name: "attach subscribers", Count: 1000, Seconds: .62}},
		Processes: []Process{
			{Name: "prism serve", PID: 4711, CPU: 143.2, Memory: 187 << 20}, {Name: "prism bench (this program)", PID: 4712, CPU: 38.5, Memory: 61 << 20},
		},
	}
	r.Plan.Targets = 40
	r.Plan.Duration, r.Plan.Delivery = time.Minute, client.AtLeastOnce
	for _, op := range []struct {
		name            string
		share, mean, sd float64 // of a log-normal distribution, in microseconds
	}{
		{Register, .1, 900, .5}, {Enumerate, .6, 2600, .45}, {Multicast, .05, 7000, .5}, {Heartbeat, .25, 420, .6}, {Arrival, 2, 3900, .55},
	} {
		sampleOperation(r, random, op.name, op.share, op.mean, op.sd)
	}
	multicasts := r.Operations[2]
	targets := 40 * multicasts.Done
	r.Delivery = &Delivery{
		Multicasts: multicasts.Done, Unanswered: multicasts.Failed, Targets: targets, Delivered: targets - 10, Failed: 10,
		Reasons: map[string]uint64{"NO_SUBSCRIBER": 10}, Received: targets - 10 + 25, Repeats: 3,
	}
	for _, limit := range r.Plan.Limits {
		measured := r.Operations[1].Latency.P99
		if limit.Operation == Multicast {
			measured = multicasts.Latency.P999
		}
		r.Checks = append(r.Checks, Check{Limit: limit, Measured: measured, OK: measured <= limit.Milliseconds})
	}
	return r
})

// sampleOperation adds an operation that slows down as the ramp rises, and falls behind in its last quarter.
func sampleOperation(r *Result, random *rand.Rand, name string, share, mean, deviation float64) {
	all := newHistogram()
	m := Measured{Operation: name, Errors: map[string]uint64{}}
	for second := range 60 {
		offered := share * (200 + 30*float64(second))
		done, failed, slow := offered, 0.0, 1+math.Pow(float64(second)/50, 6)
		switch {
		case second >= 20 && second < 23 && name != Arrival: // a server is away
			failed, slow = math.Round(offered/40), slow*6
		case second >= 48:
			done = offered * (1 - .012*float64(second-46))
		}
		done = math.Round(done - failed)
		window := newHistogram()
		for range int(done) {
			v := int64(mean * slow * math.Exp(deviation*random.NormFloat64()))
			_, _ = window.RecordValue(max(v, 1)), all.RecordValue(max(v, 1))
		}
		m.Done += uint64(done)
		sample := Sample{Operation: name, At: float64(second + 1), Done: done}
		sample.P50, sample.P99, sample.Max = ofWindow(window)
		if name != Arrival {
			m.Offered += uint64(math.Round(offered))
			m.Failed += uint64(failed)
			sample.Offered, sample.Failed = math.Round(offered), failed
		}
		r.Series = append(r.Series, sample)
	}
	// What a second was short of is answered in the end.
	m.Done = max(m.Done, m.Offered-m.Failed)
	m.Rate = float64(m.Done) / 60
	m.Latency, m.Percentiles = latencyOf(all), curve(all)
	if m.Failed > 0 {
		m.Errors["UNAVAILABLE"] = m.Failed
	}
	r.Operations = append(r.Operations, m)
}

func ofWindow(h *hdrhistogram.Histogram) (p50, p99, most float64) {
	return millis(h.ValueAtPercentile(50)), millis(h.ValueAtPercentile(99)), millis(h.Max())
}
