package bench

import (
	"math"
	"math/rand/v2"
	"time"
)

// pace tells when operations are due: number n at the n-th call of next, after the start.
type pace struct {
	from, to float64 // operations a second, at the start and at the end
	span     time.Duration
	random   *rand.Rand // nil: at equal distances
	expected float64    // how many are due up to now
}

// next returns when the next operation is due, and false when that is after the end.
func (p *pace) next() (due time.Duration, more bool) {
	step := 1.0
	if p.random != nil {
		step = p.random.ExpFloat64()
	}
	due = p.at(p.expected)
	p.expected += step
	return due, due < p.span
}

// at returns when as many are due. The rate is from + (to - from) t/span, its integral up to t is how many.
func (p *pace) at(n float64) time.Duration {
	slope := (p.to - p.from) / p.span.Seconds()
	if slope == 0 {
		return seconds(n / p.from)
	}
	root := p.from*p.from + 2*slope*n
	if root < 0 { // a ramp down that ends before
		return p.span
	}
	return seconds((math.Sqrt(root) - p.from) / slope)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
