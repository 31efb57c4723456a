package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/app"
	"github.com/prism-data-layer/prism/internal/auth"
	"github.com/prism-data-layer/prism/internal/limits"
	"github.com/prism-data-layer/prism/internal/schema"
)

// serve runs a server with a durability slot in its namespace.
func serve(t *testing.T, change func(*app.Config)) string {
	t.Helper()
	cfg := app.Default()
	cfg.Listen.GRPC, cfg.Listen.HTTP = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Namespaces[0].Durability.Type = "memory"
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- app.Run(ctx, cfg, nil, func(at app.Addresses) { ready <- at.GRPC }) }()
	select {
	case at := <-ready:
		t.Cleanup(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		return at
	case err := <-ended:
		cancel()
		t.Fatal(err)
		return ""
	}
}

// examine returns the findings as lines, and checks that nobody is left behind.
func examine(t *testing.T, at string, cfg Config, options ...client.Option) (lines []string, healthy bool) {
	t.Helper()
	c, err := client.Dial(at, options...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	told := 0
	cfg.Found = func(Finding) { told++ }
	findings := Examine(t.Context(), c, cfg)
	if told != len(findings) {
		t.Errorf("told of %d of %d findings", told, len(findings))
	}
	for _, f := range findings {
		if f.Verdict == Failed && f.Advice == "" && !strings.Contains(f.Detail, "stored") {
			t.Errorf("no advice: %+v", f)
		}
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %s", f.Namespace, f.Check, f.Verdict)))
	}
	return lines, Healthy(findings)
}

func want(t *testing.T, got []string, healthy, wantHealthy bool, lines ...string) {
	t.Helper()
	if !slices.Equal(got, lines) || healthy != wantHealthy {
		t.Errorf("healthy %t\n%s\nwant %t\n%s", healthy, strings.Join(got, "\n"), wantHealthy, strings.Join(lines, "\n"))
	}
}

func TestHealthy(t *testing.T) {
	t.Parallel()
	at := serve(t, nil)
	got, healthy := examine(t, at, Config{})
	want(t, got, healthy, true, "reach the server ok", "default register ok", "default clock ok", "default heartbeat ok",
		"default enumerate ok", "default deliver what was stored ok", "default deliver ok", "default unregister ok")
	c, err := client.Dial(at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if page, err := c.Enumerate(t.Context(), client.Query{CountOnly: true}); err != nil || page.Total != 0 {
		t.Errorf("%d identities are left behind, %v", page.Total, err)
	}
	got, healthy = examine(t, at, Config{Namespaces: []string{"nope", "default"}})
	if want(t, got[:2], healthy, false, "reach the server ok", "nope find the namespace failed"); len(got) != 9 {
		t.Errorf("it does not go on: %v", got)
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	got, healthy := examine(t, "127.0.0.1:1", Config{Timeout: time.Second})
	want(t, got, healthy, false, "reach the server failed")
}

func TestSchemaInTheWay(t *testing.T) {
	t.Parallel()
	at := serve(t, func(cfg *app.Config) {
		cfg.Namespaces[0].Durability.Type = ""
		cfg.Namespaces[0].Schema = &schema.Config{Strict: true, Fields: map[string]schema.Field{
			"room": {Type: schema.String, Required: true}, "note": {Type: schema.String},
		}}
	})
	got, healthy := examine(t, at, Config{})
	want(t, got, healthy, false, "reach the server ok", "default register failed")
	got, healthy = examine(t, at, Config{Marker: "note", Metadata: map[string]any{"room": "lab"}})
	want(t, got, healthy, true, "reach the server ok", "default register ok", "default clock ok", "default heartbeat ok",
		"default enumerate ok", "default deliver ok", "default unregister ok")
}

func TestLimitInTheWay(t *testing.T) {
	t.Parallel()
	at := serve(t, func(cfg *app.Config) {
		cfg.Namespaces[0].Limits = limits.Config{Total: limits.Share{Rates: map[auth.Role]limits.Rate{auth.RoleEnumerate: {PerSecond: 0.001}}}}
	})
	_, _ = examine(t, at, Config{})
	got, healthy := examine(t, at, Config{})
	if healthy || !slices.Contains(got, "default enumerate failed") || !slices.Contains(got, "default unregister ok") {
		t.Errorf("healthy %t: %v", healthy, got)
	}
}

func TestCallerInTheWay(t *testing.T) {
	t.Parallel()
	token, hash := auth.NewToken()
	stranger, strangersHash := auth.NewToken()
	at := serve(t, func(cfg *app.Config) {
		cfg.Auth = &auth.Config{Tokens: []auth.Token{{Name: "alice", Hash: hash}, {Name: "eve", Hash: strangersHash}}}
		cfg.Namespaces[0].Access = []auth.Rule{{
			Subjects: []string{"alice"}, Roles: []auth.Role{auth.RoleRegister, auth.RoleSubscribe}, Identities: []string{"${sub}/*"},
		}}
	})
	got, healthy := examine(t, at, Config{})
	want(t, got, healthy, false, "reach the server failed")
	got, healthy = examine(t, at, Config{}, client.WithToken(stranger))
	want(t, got, healthy, false, "reach the server ok", "find a namespace failed")
	got, healthy = examine(t, at, Config{}, client.WithToken(token))
	want(t, got, healthy, true, "reach the server ok", "default register skipped")
	got, healthy = examine(t, at, Config{Prefix: "alice/"}, client.WithToken(token))
	want(t, got, healthy, true, "reach the server ok", "default register ok", "default clock ok", "default heartbeat ok",
		"default enumerate skipped", "default deliver what was stored skipped", "default deliver skipped", "default unregister ok")
}

func TestClock(t *testing.T) {
	t.Parallel()
	for ahead, verdict := range map[time.Duration]Verdict{0: OK, 500 * time.Millisecond: OK, 2 * time.Second: Warning, -time.Hour: Warning} {
		e := new(examination)
		now := time.Now()
		e.clock(client.Identity{RegisteredAt: now.Add(ahead)}, now, 10*time.Millisecond)
		if f := e.findings[0]; f.Verdict != verdict || (f.Advice == "") != (verdict == OK) {
			t.Errorf("%s ahead: %+v", ahead, f)
		}
	}
}
