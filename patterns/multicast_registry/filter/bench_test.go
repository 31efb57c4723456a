package filter

import (
	"encoding/json"
	"testing"
	"time"
)

var benchSink bool

// benchMetadata comes from JSON as real metadata does: none of its strings is the same memory as a constant below, which
// would make comparing them free.
var benchMetadata = func() map[string]any {
	var m map[string]any
	if err := json.Unmarshal([]byte(`{"room":"engineering","battery":0.15,"floor":3,"status":"online","firmware":"1.4.2",
		"name":"device-0042","tags":["gps","outdoor"],"sensor":{"temp":21.5}}`), &m); err != nil {
		panic(err)
	}
	return m
}()

const threeClauses = `{"room":"engineering","battery":{"$lt":0.2},"floor":{"$gte":3}}`

func handEquals(md map[string]any, room string) bool {
	s, ok := md["room"].(string)
	return ok && s == room
}

func handThree(md map[string]any, room string, battery, floor float64) bool {
	if s, ok := md["room"].(string); !ok || s != room {
		return false
	}
	if b, ok := md["battery"].(float64); !ok || b >= battery {
		return false
	}
	f, ok := md["floor"].(float64)
	return ok && f >= floor
}

// BenchmarkMatch states Match beside what it replaces: the same look-ups and comparisons written by hand in Go, with
// operands that are variables. "x-by-hand" is the ratio, measured in turns within one run so that a busy machine slows
// both alike.
func BenchmarkMatch(b *testing.B) {
	room, battery, floor := "engineering", 0.2, 3.0
	equality, three := mustParse(b, `{"room":"engineering"}`), mustParse(b, threeClauses)
	one := func() { benchSink = handEquals(benchMetadata, room) }
	all3 := func() { benchSink = handThree(benchMetadata, room, battery, floor) }
	benches := []struct {
		name   string
		run    func()
		byHand func()
	}{
		{"equality/by-hand", one, nil},
		{"equality/filter", func() { benchSink = Match(equality, benchMetadata) }, one},
		{"three-clauses/by-hand", all3, nil},
		{"three-clauses/filter", func() { benchSink = Match(three, benchMetadata) }, all3},
	}
	for _, bench := range benches {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bench.run()
			}
			if bench.byHand != nil {
				b.ReportMetric(ratio(bench.run, bench.byHand), "x-by-hand")
			}
		})
	}
	for _, src := range []string{
		`{"room":{"$in":["a","b","engineering"]}}`, `{"name":{"$startswith":"device-"}}`, `{"tags":{"$contains":"outdoor"}}`,
		`{"sensor.temp":{"$gt":20}}`, `{"firmware":{"$semver":">=1.2 <2"}}`, `{"name":{"$regex":"^device-[0-9]+$"}}`,
		`{"$or":[{"room":"hall"},{"floor":3}],"missing":{"$exists":false}}`,
	} {
		e := mustParse(b, src)
		b.Run(src, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				benchSink = Match(e, benchMetadata)
			}
		})
	}
}

// ratio is how many times longer a takes than b: the best of many short turns each.
func ratio(a, b func()) float64 {
	best := func(f func(), sofar time.Duration) time.Duration {
		start := time.Now()
		for range 20000 {
			f()
		}
		return min(sofar, time.Since(start))
	}
	bestA, bestB := time.Hour, time.Hour
	for range 30 {
		bestA, bestB = best(a, bestA), best(b, bestB)
	}
	return float64(bestA) / float64(bestB)
}

func BenchmarkParse(b *testing.B) {
	value := map[string]any{"room": "engineering", "battery": map[string]any{"$lt": 0.2}, "floor": map[string]any{"$gte": 3.0}}
	b.Run("text", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Parse(threeClauses); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("value", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseValue(value); err != nil {
				b.Fatal(err)
			}
		}
	})
	e := mustParse(b, threeClauses)
	b.Run("string", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if e.String() == "" {
				b.Fatal("empty")
			}
		}
	})
}
