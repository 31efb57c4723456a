package metrics

import (
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// badCollector has nothing but a fault.
type badCollector struct{}

func (badCollector) Describe(out chan<- *prometheus.Desc) {
	out <- prometheus.NewDesc("prism_bad", "A fault.", nil, nil)
}

func (badCollector) Collect(out chan<- prometheus.Metric) {
	out <- prometheus.NewInvalidMetric(prometheus.NewDesc("prism_bad", "A fault.", nil, nil), errors.New("a fault"))
}

// TestAllocations holds what every call pays to nothing.
func TestAllocations(t *testing.T) {
	m := New(Config{Methods: []string{"/s/M"}, Codes: []string{"OK"}, Namespaces: map[string]Source{"a": healthy()}})
	n := m.Namespace("a")
	m.Begin("/s/M").End(0)
	if got := testing.AllocsPerRun(1000, func() {
		m.Begin("/s/M").End(0)
		n.Sent(1)
		n.Lost(0, 0)
		n.Acks(1)
	}); got >= 1 { // a bucket of a native histogram begins now and then
		t.Errorf("%v allocations for each call", got)
	}
}

// BenchmarkRPC is what every RPC pays; 1 µs is the most it may.
func BenchmarkRPC(b *testing.B) {
	m := New(Config{Methods: []string{"/s/M"}, Codes: []string{"OK"}})
	b.ReportAllocs()
	for b.Loop() {
		m.Begin("/s/M").End(0)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "of-1µs")
}

// BenchmarkRPCParallel is the same from several goroutines at once.
func BenchmarkRPCParallel(b *testing.B) {
	m := New(Config{Methods: []string{"/s/M"}, Codes: []string{"OK"}})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.Begin("/s/M").End(0)
		}
	})
}

// BenchmarkMulticast counts the outcomes of 1,000 targets.
func BenchmarkMulticast(b *testing.B) {
	n := New(Config{Namespaces: map[string]Source{"a": healthy()}}).Namespace("a")
	r := &multicastregistry.Result{ID: "01a21467-69f7-7000-8520-08f23b558582", TargetCount: 1000, Targets: make([]multicastregistry.Target, 1000)}
	for i := range r.Targets {
		r.Targets[i].Status = multicastregistry.Delivered
	}
	b.ReportAllocs()
	for b.Loop() {
		n.Multicast(r, "")
	}
}
