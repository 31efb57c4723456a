package leaks

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/app"
	"github.com/prism-data-layer/prism/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const (
	// warmUp is how many rounds come before the one that others are compared with: pools fill up.
	warmUp = 3
	// leastRounds come behind it, however short the test.
	leastRounds = 4
	// patience is how long what a round has left may take to go.
	patience = 20 * time.Second
	// slack is how many goroutines and files more than at first are no leak: timers and idle connections come and go.
	slack = 3
	// heapSlack is how much the heap may grow, in bytes.
	heapSlack = 6 << 20
)

// TestNothingLeaks runs rounds for PRISM_SOAK, and a few if it is not set. Each ends when every client has left.
func TestNothingLeaks(t *testing.T) {
	span := time.Duration(0)
	if text := os.Getenv("PRISM_SOAK"); text != "" {
		var err error
		span, err = time.ParseDuration(text)
		must(t, err)
	}
	s := newServer(t)
	if span > 0 {
		s.fillLog(t)
	}
	began := time.Now()
	var first, last held
	for round := 0; round < warmUp+leastRounds || time.Since(began) < span; round++ {
		s.round(t, round)
		switch {
		case round < warmUp:
			continue
		case round == warmUp:
			first = s.settled(t, held{goroutines: math.MaxInt, files: math.MaxInt, heap: math.MaxInt})
			t.Logf("%6s  %-8s %s", "round", "after", first)
			t.Logf("%6d  %-8s %s", round, time.Since(began).Round(time.Second), first)
		default:
			last = s.settled(t, first)
			if round%10 == 0 || span == 0 {
				t.Logf("%6d  %-8s %s", round, time.Since(began).Round(time.Second), last)
			}
		}
	}
	t.Logf("%6s  %-8s %s", "last", time.Since(began).Round(time.Second), last)
}

// server is a server that follows its configuration, on a Redis and a NATS.
type server struct {
	at        app.Addresses
	namespace string
	file      string
	backends  string
	reload    chan os.Signal
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{namespace: testenv.Prefix(t), file: filepath.Join(t.TempDir(), "prism.yaml"), reload: make(chan os.Signal)}
	s.backends = fmt.Sprintf("{registry: {type: redis, host: %q, ttl_default: 300}, messaging: {type: nats, servers: [%q]}, durability: {type: nats, servers: [%[2]q], max_age: 5s, retention: 5s}}",
		testenv.Redis(t).Addr, testenv.NATS(t).URL)
	s.configure(t, false)
	cfg, err := app.Load(s.file)
	must(t, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, ended := make(chan app.Addresses, 1), make(chan error, 1)
	logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	go func() {
		ended <- app.Run(ctx, cfg, logger, func(a app.Addresses) { ready <- a }, app.WithReload(app.Reload{
			File: s.file, Parse: func(src []byte) (app.Config, error) { return app.Parse(s.file, src) }, Now: s.reload,
		}))
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	select {
	case s.at = <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("the server did not start: %v", err)
	}
	return s
}

// configure writes the configuration, with or without a second namespace.
func (s *server) configure(t *testing.T, second bool) {
	t.Helper()
	names := []string{s.namespace}
	if second {
		names = append(names, s.namespace+"-2")
	}
	text := "listen: {grpc: '127.0.0.1:0', http: '127.0.0.1:0', admin: '127.0.0.1:0'}\nnamespaces:\n"
	for _, name := range names {
		text += "  - {name: " + name + ", pattern: multicast-registry, backend_slots: " + s.backends + "}\n"
	}
	must(t, os.WriteFile(s.file, []byte(text), 0o600))
}

// held is what the process holds.
type held struct{ goroutines, files, heap, resident int }

func (h held) String() string {
	return fmt.Sprintf("%d goroutines, %d open files and connections, %.1f MiB on the heap, %.0f MiB resident",
		h.goroutines, h.files, float64(h.heap)/(1<<20), float64(h.resident)/(1<<20))
}

// settled waits until the process holds no more than it may, by its own metrics.
func (s *server) settled(t *testing.T, most held) held {
	t.Helper()
	var now held
	for deadline := time.Now().Add(patience); ; {
		runtime.GC()
		now = s.holds(t)
		if now.goroutines <= max(most.goroutines, most.goroutines+slack) && now.files <= max(most.files, most.files+slack) &&
			now.heap <= max(most.heap, most.heap+heapSlack) && most.goroutines < math.MaxInt {
			return now
		}
		if time.Now().After(deadline) {
			break
		}
		if most.goroutines == math.MaxInt && time.Until(deadline) < patience-3*time.Second { // for what others are compared with
			return now
		}
		<-time.After(50 * time.Millisecond)
	}
	buf := make([]byte, 1<<20)
	t.Fatalf("it leaks: %s; at first %s\n%s", now, most, buf[:runtime.Stack(buf, true)])
	return now
}

func (s *server) holds(t *testing.T) held {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.at.Admin+"/metrics", http.NoBody)
	must(t, err)
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	must(t, err)
	defer response.Body.Close()
	metrics := make(map[string]int)
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if number, err := strconv.ParseFloat(value, 64); err == nil {
			metrics[name] = int(number)
		}
	}
	must(t, lines.Err())
	for _, name := range []string{
		`prism_subscriber_streams{namespace="` + s.namespace + `"}`, `prism_watchers{namespace="` + s.namespace + `"}`,
		`prism_attached_identities{namespace="` + s.namespace + `"}`,
	} {
		if n, ok := metrics[name]; !ok || n != 0 {
			t.Logf("%s is %d, present %v", name, n, ok)
		}
	}
	return held{
		goroutines: metrics["go_goroutines"], files: metrics["process_open_fds"], heap: metrics["go_memstats_heap_alloc_bytes"],
		resident: metrics["process_resident_memory_bytes"],
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
