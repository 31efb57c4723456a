package testenv

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// natsRemedy is what to do about a NATS that does not serve.
const natsRemedy = "set PRISM_TEST_NATS to the URL of a nats-server with JetStream, or unset it to use one that is built"

// NATSServer is a NATS with JetStream that the tests of a binary share: a test keeps to subjects, streams and buckets that
// carry its Prefix.
type NATSServer struct {
	// URL is "nats://host:port".
	URL string
}

// NATS returns the shared NATS: the server that PRISM_TEST_NATS names, else one that is built and started for the first test
// which asks and ends with Main.
func NATS(t testing.TB) NATSServer {
	t.Helper()
	addr, err := sharedNATS()
	if err != nil {
		t.Fatalf("testenv: nats: %v", err)
	}
	return NATSServer{URL: addr}
}

var sharedNATS = sync.OnceValues(func() (string, error) {
	if named := os.Getenv("PRISM_TEST_NATS"); named != "" {
		if err := checkNATS(named); err != nil {
			return "", fmt.Errorf("PRISM_TEST_NATS=%s: %w; %s", named, err, natsRemedy)
		}
		return named, nil
	}
	dir, err := os.MkdirTemp("", "prism-nats-")
	if err != nil {
		return "", err
	}
	shared.add(func() { _ = os.RemoveAll(dir) })
	program, err := natsProgram()
	if err != nil {
		return "", err
	}
	port, err := freePort()
	if err != nil {
		return "", err
	}
	p := &process{
		addr: loopback(port), dir: dir, program: program,
		args:    []string{"-a", "127.0.0.1", "-p", strconv.Itoa(port), "-js", "-sd", dir},
		answers: func(addr string) error { return checkNATS("nats://" + addr) },
	}
	if err := p.start(); err != nil {
		return "", err
	}
	shared.add(func() { p.end(syscall.SIGTERM) })
	return "nats://" + p.addr, nil
})

// natsProgram builds the nats-server of go.mod, once, without the race detector: it is not what is tested, and several times
// as slow with it.
var natsProgram = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "prism-nats-server-")
	if err != nil {
		return "", err
	}
	shared.add(func() { _ = os.RemoveAll(dir) })
	program := filepath.Join(dir, "nats-server")
	//nolint:gosec // the go that runs the tests
	out, err := exec.Command("go", "build", "-o", program, "github.com/nats-io/nats-server/v2").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build nats-server: %w: %s", err, tail(out))
	}
	return program, nil
})

// checkNATS checks that the first server of a list which the environment names is there and has JetStream: both are in the
// line with which a server greets.
func checkNATS(list string) error {
	first, _, _ := strings.Cut(list, ",")
	u, err := url.Parse(first)
	if err != nil {
		return err
	}
	if u.Host == "" {
		return errors.New("not a URL such as nats://127.0.0.1:4222")
	}
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), "4222")
	}
	conn, err := net.DialTimeout("tcp", addr, time.Second) //nolint:noctx // bounded
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	var info struct {
		JetStream bool `json:"jetstream"`
	}
	body, ok := strings.CutPrefix(line, "INFO ")
	if !ok || json.Unmarshal([]byte(body), &info) != nil {
		return fmt.Errorf("greets with %.100q, which is not NATS", line)
	}
	if !info.JetStream {
		return errors.New("runs without JetStream")
	}
	return nil
}

// NATSProcess is a NATS of one test, inside the test binary. Its methods are called from the test's goroutine; it ends with
// the test.
type NATSProcess struct {
	// URL is "nats://127.0.0.1:port", the same before and after a restart.
	URL string

	t testing.TB
	n *natsServer
}

// NewNATS starts a NATS with JetStream that belongs to the test. The options start from those of nats-server (such as a
// max_payload of 1 MiB); change, which may be nil, alters them and is called once. It leaves Host, Port and StoreDir alone.
func NewNATS(t testing.TB, change func(*server.Options)) *NATSProcess {
	t.Helper()
	n, err := launchNATS(t.TempDir(), change)
	if err != nil {
		t.Fatalf("testenv: nats: %v", err)
	}
	t.Cleanup(n.end)
	return &NATSProcess{URL: n.url(), t: t, n: n}
}

// Stop shuts the server down and waits. A server that is down stays down.
func (n *NATSProcess) Stop() { n.n.end() }

// Start starts a server that is down again, with the same port, files and options, and waits until it accepts clients. One
// that belongs to a cluster may take longer to agree with the others.
func (n *NATSProcess) Start() {
	n.t.Helper()
	if err := n.n.start(); err != nil {
		n.t.Fatalf("testenv: nats: %v", err)
	}
}

// natsServer is one nats-server that can be ended and started again.
type natsServer struct {
	opts *server.Options // never handed out: a server changes its options

	mu      sync.Mutex
	running *server.Server
}

// launchNATS starts a server on a free port with its files in dir.
func launchNATS(dir string, change func(*server.Options)) (*natsServer, error) {
	n, err := newNATS(dir, change)
	if err != nil {
		return nil, err
	}
	if err := n.start(); err != nil {
		return nil, err
	}
	return n, nil
}

// newNATS prepares a server.
func newNATS(dir string, change func(*server.Options)) (*natsServer, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	opts := &server.Options{
		ServerName: fmt.Sprintf("prism-%d", port),
		Host:       "127.0.0.1",
		Port:       port,
		NoSigs:     true,
		NoLog:      true,
		JetStream:  true,
		StoreDir:   dir,
	}
	if change != nil {
		change(opts)
	}
	return &natsServer{opts: opts}, nil
}

func (n *natsServer) url() string {
	scheme := "nats"
	if n.opts.TLSConfig != nil {
		scheme = "tls"
	}
	return fmt.Sprintf("%s://%s", scheme, loopback(n.opts.Port))
}

func (n *natsServer) start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.running != nil {
		return fmt.Errorf("%s runs already", n.url())
	}
	if addr := loopback(n.opts.Port); !vacant(addr) { // the server itself would try for long
		return fmt.Errorf("%s: %w", addr, errTaken)
	}
	s, err := server.NewServer(n.opts.Clone())
	if err != nil {
		return err
	}
	faults := &natsFaults{}
	s.SetLogger(faults, false, false)
	s.Start()
	if !s.ReadyForConnections(patience) {
		s.Shutdown()
		s.WaitForShutdown()
		return fmt.Errorf("%s is not ready within %s: %s", n.url(), patience, faults)
	}
	n.running = s
	return nil
}

func (n *natsServer) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.running == nil {
		return
	}
	n.running.Shutdown()
	n.running.WaitForShutdown()
	n.running = nil
}

// natsFaults is a log that keeps the last fault, for the message about a server that does not start. A server that has a
// logger also leaves it to the caller what to do about a fatal fault; without one it would be silent.
type natsFaults struct {
	mu   sync.Mutex
	last string
}

func (f *natsFaults) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last
}

func (f *natsFaults) keep(format string, args []any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = fmt.Sprintf(format, args...)
}

// Errorf keeps a fault.
func (f *natsFaults) Errorf(format string, args ...any) { f.keep(format, args) }

// Fatalf keeps a fault.
func (f *natsFaults) Fatalf(format string, args ...any) { f.keep(format, args) }

// Warnf drops a line.
func (*natsFaults) Warnf(string, ...any) {}

// Noticef drops a line.
func (*natsFaults) Noticef(string, ...any) {}

// Debugf drops a line.
func (*natsFaults) Debugf(string, ...any) {}

// Tracef drops a line.
func (*natsFaults) Tracef(string, ...any) {}
