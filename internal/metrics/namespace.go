package metrics

import (
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	namespaceLabel = "namespace"
	// traceLabel is what Grafana looks for in an exemplar.
	traceLabel = "trace_id"
	// maxExemplar bounds an id that is shown as exemplar; ours have 36 characters.
	maxExemplar = 64
)

// targetBuckets tell a multicast that meant nobody from one that meant a million.
var targetBuckets = []float64{0, 1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000}

// families are the metrics that have a series for each namespace.
type families struct {
	deliveries, backendErrors, dropped, leasesLost, sent, acks *prometheus.CounterVec
	streams, attached, watchers                                *prometheus.GaugeVec
	targets                                                    *prometheus.HistogramVec
}

func newFamilies(registry prometheus.Registerer) *families {
	counter := func(name, help string, more ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{namespaceLabel}, more...))
		registry.MustRegister(v)
		return v
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{namespaceLabel})
		registry.MustRegister(v)
		return v
	}
	f := &families{
		deliveries: counter("prism_deliveries_total",
			"Targets of multicasts, by what had become of them when the call returned.", "status", "reason"),
		backendErrors: counter("prism_backend_errors_total",
			"Calls that a backend's fault ended: UNAVAILABLE or INTERNAL.", "code"),
		dropped: counter("prism_messages_dropped_total",
			"Messages that a subscriber did not get because it was too slow, or that were stored for too long."),
		leasesLost: counter("prism_leases_lost_total",
			"Attached identities that a stream was to keep alive and whose lease had ended all the same."),
		sent:     counter("prism_messages_sent_total", "Messages written to subscribers' streams."),
		acks:     counter("prism_acks_received_total", "Acks that came through subscribers' streams."),
		streams:  gauge("prism_subscriber_streams", "Streams of subscribers that are open."),
		attached: gauge("prism_attached_identities", "Identities attached to streams; one on two streams counts twice."),
		watchers: gauge("prism_watchers", "Watches that are open."),
		targets: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "prism_multicast_targets", Help: "Identities that a multicast was meant for. Exemplars name the multicast.",
			Buckets: targetBuckets, NativeHistogramBucketFactor: nativeFactor, NativeHistogramMaxBucketNumber: nativeBuckets,
		}, []string{namespaceLabel}),
	}
	registry.MustRegister(f.targets)
	return f
}

// forget drops the series of a namespace.
func (f *families) forget(name string) {
	for _, v := range []interface {
		DeletePartialMatch(labels prometheus.Labels) int
	}{
		f.deliveries, f.backendErrors, f.dropped, f.leasesLost, f.sent, f.acks, f.streams, f.attached, f.watchers, f.targets,
	} {
		v.DeletePartialMatch(prometheus.Labels{namespaceLabel: name})
	}
}

const (
	statuses = int(multicastregistry.Timeout) + 1
	reasons  = int(multicastregistry.Withdrawn) + 1
)

// Namespace counts what happens in one namespace. All methods may be called concurrently, and those of a nil Namespace do
// nothing.
type Namespace struct {
	name       string
	families   *families
	deliveries [statuses][reasons]atomic.Pointer[prometheus.Counter] // from the first one on

	backendErrors                   map[uint32]prometheus.Counter // by code
	dropped, leasesLost, sent, acks prometheus.Counter
	streams, attached, watchers     prometheus.Gauge
	targets                         prometheus.Observer
}

// faults are the codes that a backend's fault ends calls with.
var faults = []string{"INTERNAL", "UNAVAILABLE"}

func (f *families) namespace(name string, codes []string) *Namespace {
	n := &Namespace{
		name: name, families: f, backendErrors: make(map[uint32]prometheus.Counter),
		dropped: f.dropped.WithLabelValues(name), leasesLost: f.leasesLost.WithLabelValues(name),
		sent: f.sent.WithLabelValues(name), acks: f.acks.WithLabelValues(name),
		streams: f.streams.WithLabelValues(name), attached: f.attached.WithLabelValues(name),
		watchers: f.watchers.WithLabelValues(name), targets: f.targets.WithLabelValues(name),
	}
	for code, called := range codes {
		for _, fault := range faults {
			if called == fault {
				n.backendErrors[uint32(code)] = f.backendErrors.WithLabelValues(name, called)
			}
		}
	}
	n.delivery(multicastregistry.Delivered, 0) // so that it can be divided by
	return n
}

// Multicast counts a result: neither a dry run, which sends nothing, nor one that was counted when it was new. traceID names the
// trace that it is recorded in, if it is.
func (n *Namespace) Multicast(r *multicastregistry.Result, traceID string) {
	if n == nil || r.Replayed || r.Ended == multicastregistry.DryRun {
		return
	}
	exemplar, ok := n.targets.(prometheus.ExemplarObserver)
	if ok && r.ID != "" && len(r.ID) <= maxExemplar && strings.ToValidUTF8(r.ID, "") == r.ID {
		labels := prometheus.Labels{"multicast_id": r.ID}
		if traceID != "" {
			labels[traceLabel] = traceID
		}
		exemplar.ObserveWithExemplar(float64(r.TargetCount), labels)
	} else {
		n.targets.Observe(float64(r.TargetCount))
	}
	var counts [statuses][reasons]int
	for i := range r.Targets {
		t := &r.Targets[i]
		if int(t.Status) < statuses && int(t.Reason) < reasons {
			counts[t.Status][t.Reason]++
		}
	}
	for status := range counts {
		for reason, count := range counts[status] {
			if count > 0 {
				n.delivery(multicastregistry.Status(status), multicastregistry.Reason(reason)).Add(float64(count))
			}
		}
	}
}

func (n *Namespace) delivery(status multicastregistry.Status, reason multicastregistry.Reason) prometheus.Counter {
	known := &n.deliveries[status][reason]
	if c := known.Load(); c != nil {
		return *c
	}
	label := "NONE" // an empty label is none, in Prometheus
	if reason != 0 {
		label = reason.String()
	}
	c := n.families.deliveries.WithLabelValues(n.name, status.String(), label)
	known.Store(&c) // whoever else comes here has the same one
	return c
}

// BackendError counts a call that a backend's fault ended; other codes are not counted.
func (n *Namespace) BackendError(code uint32) {
	if n == nil {
		return
	}
	if c := n.backendErrors[code]; c != nil {
		c.Inc()
	}
}

// Sent counts messages that were written to a subscriber.
func (n *Namespace) Sent(messages int) {
	if n != nil {
		n.sent.Add(float64(messages))
	}
}

// Lost counts what a subscriber is told that it has lost: messages and leases.
func (n *Namespace) Lost(messages uint64, leases int) {
	if n != nil {
		n.dropped.Add(float64(messages))
		n.leasesLost.Add(float64(leases))
	}
}

// Acks counts acks that came.
func (n *Namespace) Acks(count int) {
	if n != nil {
		n.acks.Add(float64(count))
	}
}

// Streams changes the number of open streams of subscribers.
func (n *Namespace) Streams(by int) {
	if n != nil {
		n.streams.Add(float64(by))
	}
}

// Attached changes the number of attached identities.
func (n *Namespace) Attached(by int) {
	if n != nil && by != 0 {
		n.attached.Add(float64(by))
	}
}

// Watchers changes the number of watchers.
func (n *Namespace) Watchers(by int) {
	if n != nil {
		n.watchers.Add(float64(by))
	}
}
