package acceptance

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
)

// binary builds bin/prism once, for the scenarios that kill proxies.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "prism-acceptance-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "prism")
	out, err := exec.Command("go", "build", "-o", path, "../../cmd/prism").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// process is a proxy in a process of its own, that can be killed and started again at the same address.
type process struct {
	*proxy

	t       testing.TB
	config  string // the file
	grpc    string
	http    string
	command *exec.Cmd
	ended   chan struct{} // closed when the command has ended
	log     *lockedBuffer
}

// start runs a proxy with the given configuration in a process of its own.
func start(t testing.TB, namespace, config string) *process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "prism.yaml")
	must(t, os.WriteFile(file, []byte(config), 0o600))
	p := &process{t: t, config: file, grpc: testenv.FreeAddress(t), http: testenv.FreeAddress(t), log: new(lockedBuffer)}
	p.launch()
	t.Cleanup(p.kill)
	p.proxy = dial(t, p.grpc, namespace)
	return p
}

// launch starts the process and waits until it serves.
func (p *process) launch() {
	p.t.Helper()
	path, err := binary()
	must(p.t, err)
	p.command = exec.Command(path, "serve", "--config", p.config, "--grpc-addr", p.grpc, "--http-addr", p.http)
	p.command.Stdout, p.command.Stderr = p.log, p.log
	must(p.t, p.command.Start())
	p.ended = make(chan struct{})
	go func(command *exec.Cmd, ended chan struct{}) {
		_ = command.Wait() // a killed process ends with an error
		close(ended)
	}(p.command, p.ended)
	eventually(p.t, "the proxy listens", func() bool {
		select {
		case <-p.ended:
			p.t.Fatalf("the proxy ended: %s", p.log)
		default:
		}
		conn, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.grpc)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.command.Process.Kill()
	<-p.ended
}

// restart ends the process in order and starts it again.
func (p *process) restart() {
	p.t.Helper()
	must(p.t, p.command.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		p.t.Fatalf("the proxy does not drain: %s", p.log)
	}
	p.launch()
}

// lockedBuffer is what a process has printed.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
