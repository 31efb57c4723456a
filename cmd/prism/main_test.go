package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/prism-data-layer/prism/internal/app"
)

// patience bounds every wait for something that is bound to happen.
const patience = 2 * time.Minute

// beMain makes the test's binary the real program: see realPrism.
const beMain = "PRISM_TEST_BE_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(beMain) != "" {
		main()
	}
	for _, name := range []string{"PRISM_SERVER", "PRISM_NAMESPACE"} {
		os.Unsetenv(name)
	}
	goleak.VerifyTestMain(m)
}

// realPrism is the program in a process of its own.
func realPrism(t *testing.T, args ...string) (cmd *exec.Cmd, out, errOut *output) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd, out, errOut = exec.Command(self, args...), newOutput(t), newOutput(t)
	cmd.Env = append(os.Environ(), beMain+"=1")
	cmd.Stdout, cmd.Stderr = out, errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd, out, errOut
}

// output is a stream that can be waited for.
type output struct {
	t *testing.T

	mu   sync.Mutex
	text bytes.Buffer
}

func newOutput(t *testing.T) *output { return &output{t: t} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// await returns the text once it contains n times what is wanted.
func (o *output) await(want string, n int) string {
	o.t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for strings.Count(o.String(), want) < n {
		if time.Now().After(deadline) {
			o.t.Fatalf("waited in vain for %d times %q in:\n%s", n, want, o.String())
		}
		<-tick.C
	}
	return o.String()
}

// durable fills the durability slot, which also keeps multicasts.
func durable(cfg *app.Config) { cfg.Namespaces[0].Durability.Type = "memory" }

// server is a real server in this process.
func server(t *testing.T, change ...func(*app.Config)) (addr string, stop func()) {
	t.Helper()
	cfg := app.Default()
	for _, f := range change {
		f(&cfg)
	}
	cfg.Listen.GRPC, cfg.Listen.HTTP = "127.0.0.1:0", "127.0.0.1:0"
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- app.Run(ctx, cfg, nil, func(at app.Addresses) { ready <- at.GRPC }) }()
	stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(stop)
	select {
	case addr = <-ready:
	case err := <-ended:
		ended <- err
		t.Fatal(err)
	}
	return addr, stop
}

// prism runs a command line in this process, against a server if its address is not empty.
type result struct {
	code     int
	out, err string
}

func prism(t *testing.T, addr, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if addr != "" {
		args = append([]string{"--server", addr}, args...)
	}
	var out, errOut bytes.Buffer
	code := run(ctx, args, strings.NewReader(stdin), &out, &errOut)
	return result{code, out.String(), errOut.String()}
}

// ok runs a command line that must work.
func ok(t *testing.T, addr string, args ...string) string {
	t.Helper()
	r := prism(t, addr, "", args...)
	if r.code != 0 {
		t.Fatalf("prism %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// background runs a command line until the test, or stop, ends it.
func background(t *testing.T, addr string, args ...string) (out, errOut *output, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	out, errOut = newOutput(t), newOutput(t)
	ended := make(chan int, 1)
	go func(out, errOut io.Writer) {
		ended <- run(ctx, append([]string{"--server", addr}, args...), strings.NewReader(""), out, errOut)
	}(out, errOut)
	stop = sync.OnceValue(func() int { cancel(); return <-ended })
	t.Cleanup(func() { stop() })
	return out, errOut, stop
}

func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var value T
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	return value
}
