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
	"net/http"
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
	namespaces map[string]*Namespace
	build      Build
	log        *slog.Logger
}

// New returns the metrics of a server of these namespaces.
func New(cfg Config) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(), methods: make(map[string]*method, len(cfg.Methods)),
		namespaces: make(map[string]*Namespace, len(cfg.Namespaces)), build: build(cfg.Version), log: cfg.Logger,
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.build.collector(), newScraper(cfg.Namespaces, m.log),
	)
	calls := newRPCs(m.registry)
	for _, name := range cfg.Methods {
		m.methods[name] = calls.method(name, cfg.Codes)
	}
	perNamespace := newFamilies(m.registry)
	for name := range cfg.Namespaces {
		m.namespaces[name] = perNamespace.namespace(name, cfg.Codes)
	}
	return m
}

// Namespace returns the handle of a namespace, or nil, whose methods do nothing, for one that is not served.
func (m *Metrics) Namespace(name string) *Namespace { return m.namespaces[name] }

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
