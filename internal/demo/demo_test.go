package demo_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/examples"
	"github.com/prism-data-layer/prism/internal/app"
	"github.com/prism-data-layer/prism/internal/demo"
)

func serve(t *testing.T) *client.Client {
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
	c, err := client.Dial((<-ready).GRPC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestRun shows everything twice on one server, with the numbers of matches that were counted by other means.
func TestRun(t *testing.T) {
	t.Parallel()
	c := serve(t)
	for _, terminal := range []bool{false, true} {
		var out bytes.Buffer
		outcome, err := demo.Run(t.Context(), c, examples.Stations, demo.NewPrinter(&out, terminal), true)
		if err != nil {
			t.Fatal(err)
		}
		if outcome != (demo.Outcome{Targets: 63, Delivered: 63, Received: 63}) || !outcome.Complete() {
			t.Errorf("%+v", outcome)
		}
		for _, want := range []string{
			"4,134 registered", "4,134 subscribers attached", "37 of the stations match", "20 of the stations match",
			"63 of the stations match", "every one of them got it", "slowest", "4,134 unregistered",
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("it does not say %q:\n%s", want, out.String())
			}
		}
		if strings.Contains(out.String(), "\x1b[") != terminal {
			t.Errorf("colour on a terminal (%v) only", terminal)
		}
		if page, err := c.Enumerate(t.Context(), client.Query{}); err != nil || page.Total != 0 {
			t.Errorf("%d identities are left, %v", page.Total, err)
		}
	}
}

// TestRunLeavesOthersAlone finds a station, the 400th, that somebody else has registered: it stays, and what the demo registered goes.
func TestRunLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	c := serve(t)
	if _, err := c.Register(t.Context(), client.Registration{ID: "BLR", Metadata: map[string]any{"mine": true}}); err != nil {
		t.Fatal(err)
	}
	_, err := demo.Run(t.Context(), c, examples.Stations, demo.NewPrinter(&bytes.Buffer{}, false), true)
	if !errors.Is(err, client.ErrAlreadyExists) || !strings.Contains(err.Error(), "touches only what it registered") {
		t.Errorf("got %v", err)
	}
	page, err := c.Enumerate(t.Context(), client.Query{Filter: map[string]any{"mine": true}})
	if err != nil || page.Total != 1 {
		t.Errorf("%d of somebody else's identities are left, %v", page.Total, err)
	}
}

func TestRunFails(t *testing.T) {
	t.Parallel()
	c := serve(t)
	nobody := []byte(`{"identity":"x","metadata":{},"ttl":"10m"}`)
	outcome, err := demo.Run(t.Context(), c, nobody, demo.NewPrinter(&bytes.Buffer{}, false), false)
	if err != nil || outcome.Complete() {
		t.Errorf("without any match: %+v, %v", outcome, err)
	}
	for name, stations := range map[string]string{"no JSON": "{", "no TTL": `{"identity":"x"}`, "nobody": "", "no name": `{"ttl":"1s"}`} {
		if _, err := demo.Run(t.Context(), c, []byte(stations), demo.NewPrinter(&bytes.Buffer{}, false), false); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	away, err := client.Dial("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer away.Close()
	if _, err := demo.Run(t.Context(), away, examples.Stations, demo.NewPrinter(&bytes.Buffer{}, false), true); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("without a server: %v", err)
	}
}
