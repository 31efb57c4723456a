package bench

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/app"
)

// serve runs a server for the test and returns where it is.
func serve(t *testing.T) Target {
	t.Helper()
	cfg := app.Default()
	cfg.Listen.GRPC, cfg.Listen.HTTP = "127.0.0.1:0", "127.0.0.1:0"
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, ended := make(chan app.Addresses, 1), make(chan error, 1)
	go func() { ended <- app.Run(ctx, cfg, nil, func(at app.Addresses) { ready <- at }) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case at := <-ready:
		return Target{
			Servers: []string{at.GRPC}, Embedded: true, Version: "test",
			Dial: func(server string) (*client.Client, error) { return client.Dial(server) },
		}
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
		return Target{}
	}
}

// left is how many identities there are.
func left(t *testing.T, target Target) int {
	t.Helper()
	c, err := target.Dial(target.Servers[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	page, err := c.Enumerate(t.Context(), client.Query{CountOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	return page.Total
}

// TestRun does all operations at once: open and closed, on a ramp, with heartbeats beside them, in every delivery mode.
func TestRun(t *testing.T) {
	t.Parallel()
	target := serve(t)
	all := map[string]float64{Register: 5, Enumerate: 4, Multicast: 3, Heartbeat: 2, Attach: 3}
	for name, plan := range map[string]Plan{
		"open":     {Shares: all, Rate: 150, Heartbeats: 20, Duration: 1500 * time.Millisecond, Identities: 55, Targets: 10, Connections: 2},
		"poisson":  {Shares: all, Rate: 50, RampTo: 200, Poisson: true, Duration: time.Second, Identities: 20, Targets: 20, Strong: true},
		"closed":   {Shares: all, Duration: time.Second, Identities: 30, Targets: 7, Concurrency: 4, Delivery: client.ExactlyOnce},
		"accepted": {Shares: map[string]float64{Multicast: 1}, Rate: 100, Duration: time.Second, Identities: 10, Payload: 1000, Delivery: client.AtMostOnce},
		"dedicated": {
			Shares: map[string]float64{Register: 2, Enumerate: 1, Multicast: 1}, Dedicated: true, Concurrency: 4, Duration: time.Second, Identities: 10,
			Limits: []Limit{{Multicast, 99, 60_000}, {Enumerate, 100, 60_000}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			stages := make(map[string]int)
			plan.Timeout = time.Minute
			r, err := Run(t.Context(), plan, target, func(p Progress) { stages[p.Stage]++ })
			if err != nil {
				t.Fatal(err)
			}
			if !r.OK() {
				t.Errorf("not OK: %+v %+v %+v", r.Operations, r.Delivery, r.Checks)
			}
			if d := r.Delivery; d == nil || d.Multicasts == 0 || d.Delivered != d.Targets || d.Received+d.Lost != d.Targets || d.Accounted() != 100 {
				t.Errorf("delivery %+v", d)
			}
			done := make(map[string]uint64)
			for _, m := range r.Operations {
				done[m.Operation] = m.Done
				if m.Operation != Arrival && m.Offered != m.Done || m.Latency.P50 <= 0 || m.Latency.Max < m.Latency.P99 || len(m.Percentiles) == 0 {
					t.Errorf("%+v", m)
				}
			}
			sum := done[Register] + done[Enumerate] + done[Multicast] + done[Attach] + done[Heartbeat]
			for op := range plan.Shares {
				if done[op] == 0 && sum > 100 { // a slow machine does few, without any of the rarest by chance
					t.Errorf("no %s was done: %v", op, done)
				}
			}
			if plan.Rate > 0 && plan.RampTo == 0 {
				if want := (plan.Rate + plan.Heartbeats) * plan.Duration.Seconds(); float64(sum) < want-2 || float64(sum) > want+2 {
					t.Errorf("%d operations were done, want %.0f", sum, want)
				}
			}
			if len(r.Series) == 0 || stages["register"] == 0 || stages["load"] == 0 || stages["unregister"] == 0 || len(r.Setup) != 3 {
				t.Errorf("%d samples, stages %v, set-up %v", len(r.Series), stages, r.Setup)
			}
			if n := left(t, target); n != 0 {
				t.Errorf("%d identities are left", n)
			}
		})
	}
}

// TestOverload has more become due than can be done: what was not begun in time is told apart, and latencies count from when
// operations were due.
func TestOverload(t *testing.T) {
	t.Parallel()
	target := serve(t)
	plan := Plan{
		Shares: map[string]float64{Enumerate: 1}, Rate: 100_000, Duration: time.Second, Concurrency: 1, Identities: 100, Targets: 10,
		Timeout: 5 * time.Second,
	}
	r, err := Run(t.Context(), plan, target, func(Progress) {})
	if err != nil {
		t.Fatal(err)
	}
	m := r.Operations[0]
	if r.OK() || m.Errors[notStarted] == 0 || m.Offered != m.Done+m.Failed || m.Offered < 99_999 {
		t.Errorf("%+v", m)
	}
	if m.Latency.Max < 1000 || m.Service.P50 >= m.Latency.P50 {
		t.Errorf("latency %+v, of which service %+v", m.Latency, m.Service)
	}
}

func TestInterrupted(t *testing.T) {
	t.Parallel()
	target := serve(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	plan := Plan{Shares: map[string]float64{Multicast: 1}, Rate: 100, Duration: time.Hour, Identities: 10}
	r, err := Run(ctx, plan, target, func(p Progress) {
		if p.Stage == "load" {
			stop()
		}
	})
	if err != nil || r.Delivery == nil || r.Delivery.Violations() > 0 || r.Seconds > 60 {
		t.Fatalf("%+v, %v", r, err)
	}
	if n := left(t, target); n != 0 {
		t.Errorf("%d identities are left", n)
	}
	if _, err := Run(ctx, plan, target, func(Progress) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("a run with a context that has ended: %v", err)
	}
}

func TestServerAway(t *testing.T) {
	t.Parallel()
	target := Target{Servers: []string{"127.0.0.1:1"}, Dial: func(server string) (*client.Client, error) { return client.Dial(server) }}
	_, err := Run(t.Context(), Plan{Shares: map[string]float64{Register: 1}}, target, func(Progress) {})
	if !errors.Is(err, client.ErrUnavailable) || !strings.HasPrefix(err.Error(), "register: ") {
		t.Error(err)
	}
}

func TestPlan(t *testing.T) {
	t.Parallel()
	one := map[string]float64{Register: 1}
	for want, plan := range map[string]Plan{
		"no operation has a share":            {},
		`"fly" is no operation`:               {Shares: map[string]float64{"fly": 1}},
		"the share of register must be 0":     {Shares: map[string]float64{Register: -1}},
		"the rate must not be negative":       {Shares: one, Rate: -1},
		"the duration must not":               {Shares: one, Duration: -1},
		"a ramp begins at a rate above 0":     {Shares: one, RampTo: 5},
		"a rate is at most 1000000 a second":  {Shares: one, Rate: 2e6},
		"a payload has at least 64 bytes":     {Shares: one, Payload: 5},
		"the end of the ramp must not be neg": {Shares: one, Rate: 1, RampTo: -5},
	} {
		if err := plan.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for _, preset := range Presets() {
		for _, plan := range preset.Plans {
			if err := plan.Validate(); err != nil || preset.About == "" || preset.Name == "" || plan.Name == "" {
				t.Errorf("%+v: %v", preset, err)
			}
		}
	}
}
