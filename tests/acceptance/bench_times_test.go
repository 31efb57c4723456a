package acceptance

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// times are how long calls took, in any order.
type times []time.Duration

// timed adds how long a call takes.
func (t *times) timed(call func()) {
	start := time.Now()
	call()
	*t = append(*t, time.Since(start))
}

// at returns the time that a share of the calls, between 0 and 1, did not exceed.
func (t times) at(share float64) time.Duration {
	slices.Sort(t)
	return t[min(int(share*float64(len(t))), len(t)-1)]
}

// report reports the median, the 99th percentile, and that in percent of a limit.
func (t times) report(b *testing.B, limit time.Duration) {
	b.Helper()
	b.ReportMetric(ms(t.at(0.5)), "p50-ms")
	b.ReportMetric(ms(t.at(0.99)), "p99-ms")
	b.ReportMetric(100*float64(t.at(0.99))/float64(limit), "p99-%-of-limit")
}

func ms(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// shareOut has so many callers make n calls between them, each with a number of its own. The first error ends all of it.
func shareOut(b *testing.B, callers, n int, call func(i int) error) {
	b.Helper()
	var next atomic.Int64
	var calling sync.WaitGroup
	for range callers {
		calling.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := call(i); err != nil {
					b.Error(err)
					next.Store(int64(n))
				}
			}
		})
	}
	calling.Wait()
	if b.Failed() {
		b.FailNow()
	}
}
