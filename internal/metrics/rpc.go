package metrics

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// rpcBuckets reach from 100 µs to 60 s. Streams of subscribers and watchers, which last for as long as their clients want, are
// in the last one.
var rpcBuckets = []float64{
	.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60,
}

const (
	// nativeFactor and nativeBuckets are for servers of Prometheus that take native histograms: 8 buckets for each doubling.
	nativeFactor  = 1.1
	nativeBuckets = 160
)

type rpcs struct {
	duration *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
}

func newRPCs(registry prometheus.Registerer) *rpcs {
	r := &rpcs{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "prism_rpc_duration_seconds", Help: "Time from the call to its end, by method and status code.",
			Buckets: rpcBuckets, NativeHistogramBucketFactor: nativeFactor, NativeHistogramMaxBucketNumber: nativeBuckets,
		}, []string{"method", "code"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "prism_rpcs_in_flight", Help: "Calls and streams under way, by method.",
		}, []string{"method"}),
	}
	registry.MustRegister(r.duration, r.inFlight)
	return r
}

// method is an RPC with its series found already.
type method struct {
	name     string
	codes    []string
	duration *prometheus.HistogramVec
	inFlight prometheus.Gauge
	ended    []atomic.Pointer[prometheus.Observer] // by code; from the first call on that ended so
}

func (r *rpcs) method(full string, codes []string) *method {
	name := full[strings.LastIndexByte(full, '/')+1:]
	return &method{
		name: name, codes: codes, duration: r.duration, inFlight: r.inFlight.WithLabelValues(name),
		ended: make([]atomic.Pointer[prometheus.Observer], len(codes)),
	}
}

// RPC is a call under way. The zero RPC is of a method that is not observed.
type RPC struct {
	// TraceID names the trace that the call is recorded in. Empty: in none.
	TraceID string

	of    *method
	began time.Time
}

// Begin begins a call of a method, by its full name.
func (m *Metrics) Begin(fullMethod string) RPC {
	of := m.methods[fullMethod]
	if of == nil {
		return RPC{}
	}
	of.inFlight.Inc()
	return RPC{of: of, began: time.Now()}
}

// End ends the call with the number of a status code.
func (r RPC) End(code uint32) {
	if r.of == nil {
		return
	}
	took := time.Since(r.began).Seconds()
	r.of.inFlight.Dec()
	if int(code) >= len(r.of.ended) {
		return
	}
	observer := r.of.observer(code)
	if exemplar, ok := observer.(prometheus.ExemplarObserver); ok && r.TraceID != "" {
		exemplar.ObserveWithExemplar(took, prometheus.Labels{traceLabel: r.TraceID})
		return
	}
	observer.Observe(took)
}

func (m *method) observer(code uint32) prometheus.Observer {
	known := &m.ended[code]
	if o := known.Load(); o != nil {
		return *o
	}
	o := m.duration.WithLabelValues(m.name, m.codes[code])
	known.Store(&o) // whoever else comes here has the same one
	return o
}
