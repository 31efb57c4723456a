package bench

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		pace    pace
		n       int
		halfway int // due in the first half
	}{
		"even":      {pace{from: 100, to: 100, span: 10 * time.Second}, 1000, 500},
		"ramp up":   {pace{from: 100, to: 300, span: 10 * time.Second}, 2000, 750},
		"ramp down": {pace{from: 300, to: 100, span: 10 * time.Second}, 2000, 1250},
		"to zero":   {pace{from: 200, to: 0.001, span: 10 * time.Second}, 1000, 750},
		"slow":      {pace{from: 0.1, to: 0.1, span: 5 * time.Second}, 1, 1},
		"poisson":   {pace{from: 1000, to: 1000, span: 100 * time.Second, random: rand.New(rand.NewPCG(1, 2))}, 100_000, 50_000},
	} {
		n, half, before := 0, 0, time.Duration(-1)
		for due, more := c.pace.next(); more; due, more = c.pace.next() {
			if due < before || before < 0 && due != 0 {
				t.Fatalf("%s: number %d is due at %v, after %v", name, n, due, before)
			}
			before = due
			n++
			if due < c.pace.span/2 {
				half++
			}
		}
		slack := 1.0
		if c.pace.random != nil {
			slack = 4 * math.Sqrt(float64(c.n))
		}
		if math.Abs(float64(n-c.n)) > slack || math.Abs(float64(half-c.halfway)) > slack {
			t.Errorf("%s: %d are due, %d in the first half; want %d and %d", name, n, half, c.n, c.halfway)
		}
	}
}
