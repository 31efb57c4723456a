package bench

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The histograms hold microseconds up to an hour, to 3 digits.
const (
	longest = int64(time.Hour / time.Microsecond)
	digits  = 3
)

// recorder takes down how long operations took. Its methods may be called concurrently.
type recorder struct {
	mu    sync.Mutex
	start time.Time
	since time.Time // the start of the second under way
	ops   map[string]*record
	taken []Sample // of the seconds that have passed
}

// record is what is known of one operation.
type record struct {
	latency, service *hdrhistogram.Histogram
	window           *hdrhistogram.Histogram // of the second under way
	offered, failed  uint64
	errors           map[string]uint64
	windowed         struct{ offered, failed uint64 } // by the end of the second before
	last             time.Duration                    // when the last one ended
}

func newRecorder() *recorder { return &recorder{ops: make(map[string]*record)} }

// begin forgets what there was.
func (r *recorder) begin(start time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.start, r.since, r.taken = start, start, nil
	clear(r.ops)
}

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, longest, digits) }

// of returns the record of an operation. mu is held.
func (r *recorder) of(op string) *record {
	o, ok := r.ops[op]
	if !ok {
		o = &record{latency: newHistogram(), service: newHistogram(), window: newHistogram(), errors: make(map[string]uint64)}
		r.ops[op] = o
	}
	return o
}

// due counts an operation that has become due.
func (r *recorder) due(op string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of(op).offered++
}

// ended takes down an operation: when it was due, when it began, and why it failed: "" when it did not.
func (r *recorder) ended(op string, due, began, ended time.Time, failure string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.of(op)
	o.last = max(o.last, ended.Sub(r.start))
	if failure != "" {
		o.failed++
		o.errors[failure]++
		return
	}
	micros := func(d time.Duration) int64 { return min(max(d.Microseconds(), 1), longest) }
	// Neither can fail: the values are within the bounds.
	_ = o.latency.RecordValue(micros(ended.Sub(due)))
	_ = o.service.RecordValue(micros(ended.Sub(began)))
	_ = o.window.RecordValue(micros(ended.Sub(due)))
}

// leastSample is how long a sample must be, in seconds, for rates to mean something: the last one may be shorter.
const leastSample = 0.2

// tick ends a second and returns what it has seen.
func (r *recorder) tick(now time.Time) []Sample {
	r.mu.Lock()
	defer r.mu.Unlock()
	span := now.Sub(r.since).Seconds()
	if span <= 0 || span < leastSample && len(r.taken) > 0 {
		return nil
	}
	r.since = now
	var second []Sample
	for _, op := range slices.Sorted(maps.Keys(r.ops)) {
		o := r.ops[op]
		second = append(second, Sample{
			Operation: op, At: now.Sub(r.start).Seconds(),
			Offered: float64(o.offered-o.windowed.offered) / span,
			Done:    float64(o.window.TotalCount()) / span,
			Failed:  float64(o.failed-o.windowed.failed) / span,
			P50:     millis(o.window.ValueAtPercentile(50)), P99: millis(o.window.ValueAtPercentile(99)), Max: millis(o.window.Max()),
		})
		o.windowed.offered, o.windowed.failed = o.offered, o.failed
		o.window.Reset()
	}
	r.taken = append(r.taken, second...)
	return second
}

// measured tells what all operations took.
func (r *recorder) measured() (ops []Measured, series []Sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	order := append(Operations(), Arrival)
	names := slices.SortedFunc(maps.Keys(r.ops), func(a, b string) int { return slices.Index(order, a) - slices.Index(order, b) })
	for _, op := range names {
		o := r.ops[op]
		m := Measured{
			Operation: op, Offered: o.offered, Done: uint64(o.latency.TotalCount()), Failed: o.failed, Errors: maps.Clone(o.errors),
			Latency: latencyOf(o.latency), Service: latencyOf(o.service), Percentiles: curve(o.latency),
		}
		if span := o.last.Seconds(); span > 0 {
			m.Rate = float64(m.Done) / span
		}
		ops = append(ops, m)
	}
	return ops, slices.Clone(r.taken)
}

func latencyOf(h *hdrhistogram.Histogram) Latency {
	at := func(p float64) float64 { return millis(h.ValueAtPercentile(p)) }
	return Latency{
		Mean: h.Mean() / 1000, P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: millis(h.Max()),
	}
}

// curve is the distribution up to the last percentile that the number of values has a meaning for.
func curve(h *hdrhistogram.Histogram) []Percentile {
	var points []Percentile
	n := float64(h.TotalCount())
	if n == 0 {
		return nil
	}
	for _, of := range []float64{1, 10, 100, 1000, 10_000, 100_000, 1_000_000} {
		for step := range 18 {
			p := 100 - (100-5*float64(step))/of
			if of > 1 && step == 0 || (100-p)/100*n < 1 {
				continue
			}
			points = append(points, Percentile{Percentile: p, Milliseconds: millis(h.ValueAtPercentile(p))})
		}
	}
	return append(points, Percentile{Percentile: 100 * (1 - 1/(n+1)), Milliseconds: millis(h.Max())})
}

func millis(micros int64) float64 { return float64(micros) / 1000 }
