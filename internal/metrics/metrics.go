// Package metrics counts and times what a server does, for Prometheus.
//
// # Flow
//
//	interceptors ── Begin, End ──► per method ──────┐
//	service ── handles of namespaces ──► per namespace ─┼─► registry ─► Handler ─► /metrics
//	backends ◄── asked at a scrape, within bounds ──────┘
//
// A Metrics has a registry of its own: servers that share a process share no number, except those of the process.
//
// # Labels
//
// The values of labels come from the configuration (namespaces), from the service's description (methods) and from closed lists
// (codes, statuses, reasons), never from a caller: what a caller sends can make no series. What names none of them is not
// counted.
package metrics

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxScrapes bounds the scrapes that are answered at the same time.
const maxScrapes = 8

// Config is what New takes.
type Config struct {
	// Version is what the binary calls itself. Default: what Go noted when it was built.
	Version string
	// Methods are the full names of the RPCs, as "/package.Service/Method". Others are not observed.
	Methods []string
	// Codes are the names of the status codes, by their numbers.
	Codes []string
	// Namespaces are what is served, by name.
	Namespaces map[string]Source
	// Logger is told of scrapes that fail. Default: nobody is.
	Logger *slog.Logger
}

// Metrics are the metrics of one server. All methods may be called concurrently.
type Metrics struct {
	registry   *prometheus.Registry
	methods    map[string]*method
	codes      []string
	families   *families
	namespaces atomic.Pointer[map[string]*Namespace] // replaced as a whole
	scraper    *scraper
	reloads    reloads
	build      Build
	log        *slog.Logger
}

// New returns the metrics of a server of these namespaces.
func New(cfg Config) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(), methods: make(map[string]*method, len(cfg.Methods)), codes: cfg.Codes,
		build: build(cfg.Version), log: cfg.Logger,
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	m.scraper = newScraper(m.log)
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.build.collector(), m.scraper,
	)
	calls := newRPCs(m.registry)
	for _, name := range cfg.Methods {
		m.methods[name] = calls.method(name, cfg.Codes)
	}
	m.families, m.reloads = newFamilies(m.registry), newReloads(m.registry)
	m.Reloaded(true)
	m.namespaces.Store(new(map[string]*Namespace))
	m.Serve(cfg.Namespaces)
	return m
}

// Serve makes these the namespaces that are served. One that was served before goes on as it was; one that is not any more keeps
// its series until Forget, for those who still hold its handle. Serve and Forget must not be called concurrently.
func (m *Metrics) Serve(namespaces map[string]Source) {
	handles := maps.Clone(*m.namespaces.Load())
	if handles == nil {
		handles = make(map[string]*Namespace, len(namespaces))
	}
	for name := range namespaces {
		if handles[name] == nil {
			handles[name] = m.families.namespace(name, m.codes)
		}
	}
	m.namespaces.Store(&handles)
	m.scraper.ofThese(namespaces)
}

// Forget drops the series of the namespaces other than these. Handles of the others must not be used any more.
func (m *Metrics) Forget(but []string) {
	handles := maps.Clone(*m.namespaces.Load())
	for name := range handles {
		if !slices.Contains(but, name) {
			delete(handles, name)
			m.families.forget(name)
		}
	}
	m.namespaces.Store(&handles)
}

// Namespace returns the handle of a namespace, or nil, whose methods do nothing, for one that is not served.
func (m *Metrics) Namespace(name string) *Namespace { return (*m.namespaces.Load())[name] }

// Build tells what the binary was built from.
func (m *Metrics) Build() Build { return m.build }

// Handler serves the metrics in the format that the scraper asks for; exemplars travel in OpenMetrics only.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true, ErrorHandling: promhttp.ContinueOnError, ErrorLog: errorLog{m.log},
		MaxRequestsInFlight: maxScrapes, Timeout: 10 * time.Second,
	})
}

// errorLog hands what promhttp has to say to the log.
type errorLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (e errorLog) Println(v ...any) {
	e.log.Warn("metrics could not be served", slog.String("error", fmt.Sprint(v...)))
}
