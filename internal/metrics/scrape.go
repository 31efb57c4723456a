package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	// askTimeout bounds what a scrape waits for backends, all of them together.
	askTimeout = time.Second
	// askEvery is how long their answers are good for: any number of scrapers ask a backend no more often.
	askEvery = 10 * time.Second
	// backlogsAtOnce bounds those of the questions that take a backend long enough to keep the others waiting.
	backlogsAtOnce = 4
)

// Source is what a scrape asks about a namespace. A *multicastregistry.Coordinator is one.
type Source interface {
	// Count returns the number of live identities; ok is false when nothing counts them.
	Count(ctx context.Context) (n int, ok bool, err error)
	// Backlog returns the number of messages that are stored; ok is false when none are, or nothing counts them.
	Backlog(ctx context.Context) (messages int, ok bool, err error)
	// Ping asks every backend whether it answers.
	Ping(ctx context.Context) error
	// Followed tells how far the copy has followed that answers reads; ok is false when none does.
	Followed() (f multicastregistry.Followed, ok bool)
}

var _ Source = (*multicastregistry.Coordinator)(nil)

// scraper is the collector of what is not counted but asked for.
type scraper struct {
	log *slog.Logger

	identities, stored, up, lag, revision, expiries *prometheus.Desc

	sources atomic.Pointer[map[string]Source] // replaced as a whole

	mu      sync.Mutex
	of      *map[string]Source // whom the answers are of
	asked   time.Time
	answers map[string]answer
}

// answer is what a namespace's backends said.
type answer struct {
	up         bool
	identities count
	stored     count
}

// count is a number that somebody may have told.
type count struct {
	n  int
	ok bool
}

func newScraper(log *slog.Logger) *scraper {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{namespaceLabel}, nil)
	}
	return &scraper{
		log:        log,
		identities: desc("prism_namespace_identities", "Live identities. Absent while the backend does not answer."),
		stored: desc("prism_stored_messages",
			"Messages that the durability slot stores: not acked yet. Absent without such a slot, and while it does not answer."),
		up:       desc("prism_backend_up", "1 when every backend of the namespace answers, and the copy is recent enough; else 0."),
		lag:      desc("prism_replica_lag_seconds", "Time since the copy that answers reads was last known to have everything."),
		revision: desc("prism_replica_revision", "Revision of the registry that the copy reflects."),
		expiries: desc("prism_expiries_total", "Leases that the copy was told have ended. Every process counts all of them."),
	}
}

// ofThese makes these the namespaces to ask about.
func (s *scraper) ofThese(sources map[string]Source) {
	s.sources.Store(&sources)
}

// Describe implements prometheus.Collector.
func (s *scraper) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{s.identities, s.stored, s.up, s.lag, s.revision, s.expiries} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (s *scraper) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, namespace string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, namespace)
	}
	sources, answers := s.ask()
	for name, a := range answers {
		up := 0.
		if a.up {
			up = 1
		}
		gauge(s.up, up, name)
		if a.identities.ok {
			gauge(s.identities, float64(a.identities.n), name)
		}
		if a.stored.ok {
			gauge(s.stored, float64(a.stored.n), name)
		}
	}
	for name, source := range sources {
		if f, ok := source.Followed(); ok {
			gauge(s.lag, time.Since(f.Current).Seconds(), name)
			gauge(s.revision, float64(f.Revision), name)
			out <- prometheus.MustNewConstMetric(s.expiries, prometheus.CounterValue, float64(f.Expired), name)
		}
	}
}

// ask returns whom it asks, and the answers, which nobody may change: the last ones while they are good. Who comes while they are
// asked for waits.
func (s *scraper) ask() (map[string]Source, map[string]answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sources := s.sources.Load()
	if s.of == sources && s.answers != nil && time.Since(s.asked) < askEvery {
		return *sources, s.answers
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout) // a scrape has no context
	defer cancel()
	var mu sync.Mutex
	answers := make(map[string]answer, len(*sources))
	few := make(chan struct{}, backlogsAtOnce)
	var asking sync.WaitGroup
	set := func(name string, change func(*answer)) {
		mu.Lock()
		defer mu.Unlock()
		a := answers[name]
		change(&a)
		answers[name] = a
	}
	for name, source := range *sources {
		asking.Go(func() {
			err := safely(func() error { return source.Ping(ctx) })
			set(name, func(a *answer) { a.up = err == nil })
		})
		asking.Go(func() {
			c := s.count(ctx, name, "identities", source.Count)
			set(name, func(a *answer) { a.identities = c })
		})
		asking.Go(func() {
			select {
			case few <- struct{}{}:
				defer func() { <-few }()
			case <-ctx.Done():
				return
			}
			c := s.count(ctx, name, "stored messages", source.Backlog)
			set(name, func(a *answer) { a.stored = c })
		})
	}
	asking.Wait()
	s.of, s.asked, s.answers = sources, time.Now(), answers
	return *sources, answers
}

// count asks for a number. An outage needs no words: prism_backend_up tells.
func (s *scraper) count(
	ctx context.Context, namespace, what string, ask func(context.Context) (n int, ok bool, err error),
) (c count) {
	err := safely(func() (err error) {
		c.n, c.ok, err = ask(ctx)
		return err
	})
	if err == nil {
		return c
	}
	if !errors.Is(err, multicastregistry.ErrUnavailable) && ctx.Err() == nil {
		s.log.LogAttrs(ctx, slog.LevelWarn, "could not be counted at a scrape", slog.String("namespace", namespace),
			slog.String("what", what), slog.Any("error", err))
	}
	return count{}
}

// safely makes an error of a panic: a scrape must not end the process.
func safely(ask func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return ask()
}
