package app_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/app"
)

func get(t *testing.T, url string, change func(*http.Request)) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(req)
	}
	resp, err := new(http.Transport).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(out)
}

func closing(r *http.Request) { r.Close = true }

// TestAdminAddress checks that what is for operators is at their address, and nowhere else.
func TestAdminAddress(t *testing.T) {
	cfg := free()
	cfg.Listen.Admin = "127.0.0.1:0"
	at, stop := run(t, cfg)
	for path, want := range map[string]string{"/metrics": "prism_backend_up", "/readyz": `"ready"`, "/debug/pprof/heap?debug=1": "heap profile"} {
		if status, body := get(t, "http://"+at.Admin+path, closing); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d, without %q", path, status, want)
		}
		if path == "/readyz" {
			continue
		}
		if status, _ := get(t, "http://"+at.HTTP+path, closing); status != http.StatusNotFound {
			t.Errorf("the public address answers %s with %d", path, status)
		}
	}
	if status, _ := get(t, "http://"+at.Admin+"/metrics", func(r *http.Request) {
		closing(r)
		r.Header.Set("X", strings.Repeat("x", 1<<16))
	}); status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("64 KiB of headers: %d", status)
	}
	// Whoever profiles does not keep the server from ending.
	profiling := make(chan error, 1)
	profile, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+at.Admin+"/debug/pprof/trace?seconds=25", nil)
	if err != nil {
		t.Fatal(err)
	}
	closing(profile)
	begun := make(chan struct{})
	go func() {
		resp, err := new(http.Transport).RoundTrip(profile) // returns with the headers, which come first
		close(begun)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		profiling <- err
	}()
	<-begun
	began := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("ending took %s", took)
	}
	<-profiling
	if conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", at.Admin); err == nil {
		_ = conn.Close()
		t.Error("the admin address is still listened at")
	}
}

// Pages of other sites do not reach it, whatever their names lead to.
func TestAdminAddressOfForeignPages(t *testing.T) {
	cfg := free()
	cfg.Listen.Admin = "127.0.0.1:0"
	at, _ := run(t, cfg)
	for name, row := range map[string]struct {
		host, origin string
		want         int
	}{
		"an operator":    {"", "", 200},
		"another host":   {"evil.example", "", 403},
		"another origin": {"", "http://evil.example", 403},
	} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at.Admin+"/buildinfo", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if request.Host = row.host; row.origin != "" {
			request.Header.Set("Origin", row.origin)
		}
		request.Close = true
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != row.want {
			t.Errorf("%s: %s, want %d", name, response.Status, row.want)
		}
	}
}

// TestNoAdminAddress checks that there is none unless it was asked for.
func TestNoAdminAddress(t *testing.T) {
	at, _ := run(t, free())
	if at.Admin != "" || app.Default().Listen.Admin != "" {
		t.Errorf("got %+v", at)
	}
}

func TestAdminAddressTaken(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := free()
	cfg.Listen.Admin = l.Addr().String()
	err = app.Run(t.Context(), cfg, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "--admin-addr, or listen.admin") {
		t.Errorf("got %v", err)
	}
}

// TestAdminAddressOfNothing fails to open a namespace: nothing is left listening.
func TestAdminAddressOfNothing(t *testing.T) {
	cfg := free()
	cfg.Listen.Admin = "127.0.0.1:0"
	cfg.Namespaces[0].Registry.Type = "nothing"
	if err := app.Run(t.Context(), cfg, nil, nil); err == nil {
		t.Error("it runs")
	}
}

func TestAdminAddressIsLogged(t *testing.T) {
	var log bytes.Buffer
	cfg := free()
	cfg.Listen.Admin = "127.0.0.1:0"
	ctx, cancel := context.WithCancel(t.Context())
	var at app.Addresses
	err := app.Run(ctx, cfg, slog.New(slog.NewTextHandler(&log, nil)), func(a app.Addresses) {
		at = a
		cancel()
	})
	if err != nil || !strings.Contains(log.String(), "admin="+at.Admin) {
		t.Errorf("%v, %s", err, log.String())
	}
}

// TestAdminAddressInYAML writes and reads the address.
func TestAdminAddressInYAML(t *testing.T) {
	cfg := app.Default()
	cfg.Listen.Admin = "127.0.0.1:8982"
	read, err := app.Parse("written", []byte(cfg.YAML()))
	if err != nil || !reflect.DeepEqual(read.Listen, cfg.Listen) {
		t.Errorf("got %+v, %v", read.Listen, err)
	}
}
