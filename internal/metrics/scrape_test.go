package metrics

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// fake is a namespace whose backends do as they are told.
type fake struct {
	asked  atomic.Int64
	count  func(context.Context) (int, bool, error)
	stored func(context.Context) (int, bool, error)
	ping   func(context.Context) error
}

func (f *fake) Count(ctx context.Context) (int, bool, error) {
	f.asked.Add(1)
	return f.count(ctx)
}

func (f *fake) Backlog(ctx context.Context) (int, bool, error) { return f.stored(ctx) }

func (f *fake) Ping(ctx context.Context) error { return f.ping(ctx) }

func (*fake) Followed() (multicastregistry.Followed, bool) {
	return multicastregistry.Followed{}, false
}

func healthy() *fake {
	return &fake{
		count:  func(context.Context) (int, bool, error) { return 7, true, nil },
		stored: func(context.Context) (int, bool, error) { return 5, true, nil },
		ping:   func(context.Context) error { return nil },
	}
}

func scraped(t *testing.T, m *Metrics) string {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "prism_") {
			b.WriteString(f.String() + "\n")
		}
	}
	return b.String()
}

// TestBounds has backends that hang, fail, panic and cannot count beside one that answers: all are asked at once, for a second at
// most, and not again for ten.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}
		good, stuck, panics, blind, broken := healthy(), healthy(), healthy(), healthy(), healthy()
		stuck.ping = hang
		stuck.count = func(ctx context.Context) (int, bool, error) { return 0, true, hang(ctx) }
		stuck.stored = stuck.count
		panics.ping = func(context.Context) error { panic("a fault") }
		panics.count = func(context.Context) (int, bool, error) { panic("a fault") }
		panics.stored = panics.count
		blind.count = func(context.Context) (int, bool, error) { return 0, false, nil }
		blind.stored = blind.count
		broken.count = func(context.Context) (int, bool, error) { return 3, true, errors.New("broken") }
		s := newScraper(New(Config{}).log)
		s.ofThese(map[string]Source{"good": good, "stuck": stuck, "panics": panics, "blind": blind, "broken": broken})
		began := time.Now()
		_, got := s.ask()
		if took := time.Since(began); took != askTimeout {
			t.Errorf("took %s", took)
		}
		for name, want := range map[string]answer{
			"good":  {up: true, identities: count{7, true}, stored: count{5, true}},
			"stuck": {}, "panics": {}, "blind": {up: true}, "broken": {up: true, stored: count{5, true}},
		} {
			if got[name] != want {
				t.Errorf("%s: %+v, want %+v", name, got[name], want)
			}
		}
		<-time.After(askEvery - time.Millisecond)
		s.ask()
		if n := good.asked.Load(); n != 1 {
			t.Errorf("asked %d times within %s", n, askEvery)
		}
		<-time.After(time.Millisecond)
		s.ask()
		if n := good.asked.Load(); n != 2 {
			t.Errorf("asked %d times after %s", n, askEvery)
		}
	})
}

// TestAbsent checks that what nobody knows has no series.
func TestAbsent(t *testing.T) {
	down := healthy()
	down.ping = func(context.Context) error { return multicastregistry.ErrUnavailable }
	down.count = func(context.Context) (int, bool, error) { return 0, true, multicastregistry.ErrUnavailable }
	down.stored = down.count
	got := scraped(t, New(Config{Namespaces: map[string]Source{"a": down}}))
	if strings.Contains(got, "prism_namespace_identities") || strings.Contains(got, "prism_stored_messages") || strings.Contains(got, "prism_replica") {
		t.Error(got)
	}
	if !strings.Contains(got, `name:"prism_backend_up"`) {
		t.Error(got)
	}
}

// TestNobody checks that a namespace that is not served, and a method and a code that nobody knows, cost nothing.
func TestNobody(t *testing.T) {
	m := New(Config{Methods: []string{"/s/M"}, Codes: []string{"OK"}, Namespaces: map[string]Source{"a": healthy()}})
	before := scraped(t, m)
	var nobody *Namespace
	if n := m.Namespace("b"); n != nobody {
		t.Error("a namespace that is not served has a handle")
	}
	nobody.Multicast(&multicastregistry.Result{}, "")
	nobody.BackendError(14)
	nobody.Sent(1)
	nobody.Lost(1, 1)
	nobody.Acks(1)
	nobody.Streams(1)
	nobody.Attached(1)
	nobody.Watchers(1)
	m.Begin("/s/Other").End(0)
	m.Begin("/s/M").End(1000)
	m.Namespace("a").BackendError(5)
	m.Namespace("a").Multicast(&multicastregistry.Result{Ended: multicastregistry.DryRun, TargetCount: 5}, "")
	m.Namespace("a").Multicast(&multicastregistry.Result{Replayed: true, TargetCount: 5}, "")
	if after := scraped(t, m); after != before {
		t.Errorf("%s\nbecame\n%s", before, after)
	}
}

// TestOdd counts results as no coordinator of ours makes them.
func TestOdd(t *testing.T) {
	m := New(Config{Codes: []string{"OK", "INTERNAL"}, Namespaces: map[string]Source{"a": healthy()}})
	n := m.Namespace("a")
	n.Multicast(&multicastregistry.Result{ID: strings.Repeat("x", 1000), TargetCount: 1, Targets: []multicastregistry.Target{{Status: 200, Reason: 200}}}, "")
	n.Multicast(&multicastregistry.Result{ID: "\xff", TargetCount: 1, Targets: []multicastregistry.Target{{Status: multicastregistry.Failed, Reason: multicastregistry.Gone}}}, "")
	n.BackendError(1)
	got := scraped(t, m)
	for _, want := range []string{`value:"GONE"`, `value:"INTERNAL"`, `sample_count:2`} {
		if !strings.Contains(strings.ReplaceAll(got, ":  ", ":"), want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
}

// TestFailingScrape serves what there is when a collector fails.
func TestFailingScrape(t *testing.T) {
	m := New(Config{})
	m.registry.MustRegister(badCollector{})
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "go_goroutines") {
		t.Errorf("%d: %s", w.Code, w.Body.String())
	}
}
