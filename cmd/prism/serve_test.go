package main

import (
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/app"
)

var listening = regexp.MustCompile(`gRPC listens on (\S+)\nHTTP listens on (\S+)\n`)

// realServer is a server in a process of its own.
func realServer(t *testing.T, args ...string) (cmd *exec.Cmd, grpcAddr, httpURL string, errOut *output) {
	t.Helper()
	cmd, out, errOut := realPrism(t, append([]string{"serve", "--http-addr", "127.0.0.1:0"}, args...)...)
	at := listening.FindStringSubmatch(out.await("HTTP listens on http://127.0.0.1:", 1) + out.await("\n", 2))
	if at == nil {
		t.Fatalf("it does not say where it listens: %s", out)
	}
	return cmd, at[1], at[2], errOut
}

func exitCode(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Wait()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

func TestSignals(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		cmd, addr, url, errOut := realServer(t, "--grpc-addr", "127.0.0.1:0", "--log-format", "json")
		response, err := http.Get(url + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		http.DefaultClient.CloseIdleConnections()
		if response.StatusCode != http.StatusOK {
			t.Errorf("/healthz says %s", response.Status)
		}
		out, notes, stop := background(t, addr, "subscribe", "dev-1", "--register")
		notes.await("receiving for dev-1", 1)
		ok(t, addr, "multicast", "--all", "--payload", "hello")
		out.await("hello", 1)
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if code := exitCode(t, cmd); code != 0 {
			t.Errorf("%s: exit %d, want 0\n%s", signal, code, errOut)
		}
		if !strings.Contains(errOut.String(), `"msg":"draining"`) {
			t.Errorf("the log does not say that it drains: %s", errOut)
		}
		notes.await("the server is shutting down; trying again", 1)
		stop()
	}
}

// A server that is killed and comes back, empty, at the same address: the subscriber is there again by itself.
func TestSubscribeSurvivesAKill(t *testing.T) {
	cmd, addr, _, _ := realServer(t, "--grpc-addr", "127.0.0.1:0")
	out, notes, stop := background(t, addr, "subscribe", "dev-1", "--register", "--meta", "room=lab")
	notes.await("receiving for dev-1", 1)
	cmd.Process.Kill()
	exitCode(t, cmd)
	notes.await("trying again", 1)
	realServer(t, "--grpc-addr", addr)
	notes.await("receiving for dev-1", 2)
	ok(t, addr, "multicast", "--filter", `{"room": "lab"}`, "--payload", "welcome back")
	out.await("welcome back", 1)
	if code := stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if left := ok(t, addr, "enumerate", "-q"); left != "" {
		t.Errorf("left registered: %s", left)
	}
}

// The verbs leave on a signal too.
func TestSubscribeSignalled(t *testing.T) {
	addr, _ := server(t)
	cmd, _, errOut := realPrism(t, "--server", addr, "subscribe", "dev-1", "--register")
	errOut.await("receiving for dev-1", 1)
	cmd.Process.Signal(syscall.SIGINT)
	if code := exitCode(t, cmd); code != 0 {
		t.Errorf("exit %d, %s", code, errOut)
	}
	if left := ok(t, addr, "enumerate", "-q"); left != "" {
		t.Errorf("left registered: %s", left)
	}
}

const config = `
listen: {grpc: "127.0.0.1:0", http: "127.0.0.1:0"}
namespaces:
  - name: presence
    pattern: multicast-registry
    backend_slots:
      registry: {type: memory, ttl_default: 300}
      messaging: {type: memory, delivery: at-most-once}
`

func write(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "prism.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestServeWithConfiguration(t *testing.T) {
	out, errOut, stop := background(t, "", "serve", "--config", write(t, config), "--log-level", "warn")
	at := listening.FindStringSubmatch(out.await("\n", 2))
	if list := ok(t, at[1], "namespaces", "-o", "jsonl"); !strings.HasPrefix(list, `{"name":"presence",`) || !strings.Contains(list, `"at-most-once"`) {
		t.Errorf("it serves %s", list)
	}
	if code := stop(); code != 0 || errOut.String() != "" {
		t.Errorf("exit %d, %s", code, errOut)
	}
}

func TestServeFaults(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file := write(t, strings.Replace(config, "memory", "memroy", 1))
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"--config", "/no/such/file"}, "no such file"},
		{[]string{"--config", file}, "prism: the configuration cannot be used:\n" + file + ":7:"},
		{[]string{"--grpc-addr", l.Addr().String(), "--http-addr", "127.0.0.1:0"}, "address already in use"},
		{[]string{"--grpc-addr", "nonsense", "--http-addr", "127.0.0.1:0"}, "nonsense"},
	} {
		if r := prism(t, "", "", append([]string{"serve"}, row.args...)...); r.code != 1 || r.out != "" || !strings.Contains(r.err, row.want) {
			t.Errorf("serve %q: exit %d, %s%s", row.args, r.code, r.out, r.err)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	good := write(t, config)
	bad := write(t, strings.Replace(config, "pattern:", "patern:", 1)+"extra: 1\n")
	if out := ok(t, "", "config", "validate", good); out != good+": ok, 1 namespace\n" {
		t.Errorf("printed %q", out)
	}
	r := prism(t, "", "", "config", "validate", good, bad, "/no/such/file")
	if r.code != 1 || r.out != good+": ok, 1 namespace\n" || !strings.Contains(r.err, bad+":5:5: ") || !strings.Contains(r.err, "did you mean pattern?") ||
		!strings.Contains(r.err, bad+":9:1: ") || !strings.Contains(r.err, "no such file") {
		t.Errorf("exit %d\n%s%s", r.code, r.out, r.err)
	}
	if r := prism(t, "", config, "config", "validate", "-"); r.code != 0 {
		t.Errorf("standard input: %s", r.err)
	}
	if r := prism(t, "", "a: [", "config", "validate", "-"); r.code != 1 || !strings.HasPrefix(r.err, "standard input:1:") {
		t.Errorf("standard input: exit %d, %s", r.code, r.err)
	}
	shown := ok(t, "", "config", "validate", "--show", good)
	cfg, err := app.Parse("shown", []byte(shown))
	if err != nil || len(cfg.Namespaces) != 1 || !strings.Contains(shown, "ttl_default: 5m") {
		t.Errorf("%v in:\n%s", err, shown)
	}
	if loaded, err := app.Load(good); err != nil || shown != "# "+good+"\n"+loaded.YAML() {
		t.Errorf("%v, not as the configuration writes itself:\n%s", err, shown)
	}
	if out := ok(t, "", "config", "validate", "--show"); out != app.Default().YAML() {
		t.Errorf("the default configuration:\n%s", out)
	}
}

func TestVersion(t *testing.T) {
	if out := ok(t, "", "version"); !regexp.MustCompile(`^prism \S+.*, go1\.\S+, \w+/\w+\n$`).MatchString(out) {
		t.Errorf("printed %q", out)
	}
	if got := decode[versionOut](t, ok(t, "", "version", "-o", "json")); got.Version == "" || !strings.HasPrefix(got.Go, "go1.") {
		t.Errorf("%+v", got)
	}
	info := &debug.BuildInfo{Main: debug.Module{Version: "v0.9.0"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.time", Value: "2026-01-02T03:04:05Z"}, {Key: "vcs.modified", Value: "true"}, {Key: "GOOS", Value: "x"},
	}}
	if v := versionFrom("v1.0.0", info); v.Version != "v1.0.0" || v.Commit != "abc" || !v.Modified || v.Date == "" {
		t.Errorf("%+v", v)
	}
	if v := versionFrom("", info); v.Version != "v0.9.0" {
		t.Errorf("%+v", v)
	}
	if v := versionFrom("", nil); v.Version != "(devel)" {
		t.Errorf("%+v", v)
	}
}

// A multicast that waits for an ack holds up the drain; whoever cannot wait signals again.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	cmd, addr, _, errOut := realServer(t, "--grpc-addr", "127.0.0.1:0")
	out, notes, stop := background(t, addr, "subscribe", "deaf", "--register", "--no-ack")
	notes.await("receiving for deaf", 1)
	_, _, stopSending := background(t, addr, "multicast", "--all", "--payload", "x", "--wait-timeout", "1m")
	out.await("deaf  x", 1)
	cmd.Process.Signal(syscall.SIGTERM)
	errOut.await("draining", 1)
	cmd.Process.Signal(syscall.SIGTERM)
	if code := exitCode(t, cmd); code != 143 {
		t.Errorf("exit %d, want 143: ended by the signal", code)
	}
	if code := stopSending(); code != 1 {
		t.Errorf("the multicast that was cut off: exit %d, want 1", code)
	}
	stop()
}

// SIGHUP makes a server take over its changed configuration.
func TestHangup(t *testing.T) {
	file := filepath.Join(t.TempDir(), "prism.yaml")
	config := func(names ...string) {
		t.Helper()
		text := "namespaces:\n"
		for _, name := range names {
			text += "  - {name: " + name + ", pattern: multicast-registry, backend_slots: {registry: {type: memory}, messaging: {type: memory}}}\n"
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config("default")
	cmd, addr, _, errOut := realServer(t, "--grpc-addr", "127.0.0.1:0", "--config", file)
	ok(t, addr, "register", "dev-1")
	config("default", "fleet")
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	errOut.await("configuration reloaded", 1)
	ok(t, addr, "register", "dev-2", "--namespace", "fleet")
	if got := ok(t, addr, "enumerate", "--count"); !strings.Contains(got, "1") {
		t.Errorf("the default namespace has lost its identity: %s", got)
	}
	if strings.Contains(errOut.String(), "need a restart") {
		t.Errorf("an address of a flag counts as changed: %s", errOut)
	}
}
