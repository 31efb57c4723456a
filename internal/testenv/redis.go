package testenv

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// redisRemedy is what to do about a missing or an old Redis.
	redisRemedy = "install redis-server 7 or newer: apt-get install redis-server, or set PRISM_TEST_REDIS=host:port"
	// redisMajor is the oldest major version that serves.
	redisMajor = 7
)

// RedisServer is a Redis that the tests of a binary share: a test keeps to keys under its Prefix and never flushes.
type RedisServer struct {
	// Addr is "host:port".
	Addr string
}

// Redis returns the shared Redis: the server that PRISM_TEST_REDIS names, else a private process that is started for the
// first test which asks and ends with Main.
func Redis(t testing.TB) RedisServer {
	t.Helper()
	addr, err := sharedRedis()
	if err != nil {
		t.Fatalf("testenv: redis: %v", err)
	}
	return RedisServer{Addr: addr}
}

var sharedRedis = sync.OnceValues(func() (string, error) {
	if addr := os.Getenv("PRISM_TEST_REDIS"); addr != "" {
		return addr, checkRedis(addr)
	}
	dir, err := os.MkdirTemp("", "prism-redis-")
	if err != nil {
		return "", err
	}
	r, err := launchRedis(dir, nil)
	if err != nil {
		_ = os.RemoveAll(dir)
		return "", err
	}
	shared.add(func() {
		r.end(syscall.SIGKILL)
		_ = os.RemoveAll(dir)
	})
	return r.addr, nil
})

// checkRedis checks that a server which the environment names is there and new enough.
func checkRedis(addr string) error {
	info, err := ask(addr, "INFO server")
	if err != nil {
		return fmt.Errorf("PRISM_TEST_REDIS=%s: %w", addr, err)
	}
	if err := atLeast(redisMajor, `redis_version:(\d+)\.`, info); err != nil {
		return fmt.Errorf("PRISM_TEST_REDIS=%s: %w; %s", addr, err, redisRemedy)
	}
	return nil
}

// RedisProcess is a Redis of one test. Its methods are called from the test's goroutine; it ends with the test.
type RedisProcess struct {
	// Addr is "127.0.0.1:port", the same before and after a restart.
	Addr string

	t testing.TB
	p *process
}

// NewRedis starts a Redis that belongs to the test. It persists nothing unless args say so; args are options of redis-server,
// such as "--maxmemory", "10mb", and win over those given here. With "--tls-cert-file" among them the server speaks TLS, and
// nothing else, on Addr.
func NewRedis(t testing.TB, args ...string) *RedisProcess {
	t.Helper()
	p, err := launchRedis(t.TempDir(), args)
	if err != nil {
		t.Fatalf("testenv: redis: %v", err)
	}
	t.Cleanup(func() { p.end(syscall.SIGKILL) })
	return &RedisProcess{Addr: p.addr, t: t, p: p}
}

// Stop ends the server in an orderly way (SIGTERM) and waits. A server that is down stays down.
func (r *RedisProcess) Stop() {
	r.t.Helper()
	if !r.p.end(syscall.SIGTERM) {
		r.t.Fatalf("testenv: redis %s did not stop within %s and was killed", r.Addr, patience)
	}
}

// Kill ends the server at once (SIGKILL) and waits. A server that is down stays down.
func (r *RedisProcess) Kill() { r.p.end(syscall.SIGKILL) }

// Start starts a server that is down again, with the same port, folder and options, and waits until it answers.
func (r *RedisProcess) Start() {
	r.t.Helper()
	if err := r.p.start(); err != nil {
		r.t.Fatalf("testenv: redis: %v", err)
	}
}

// process is one redis-server that can be ended and started again.
type process struct {
	addr, dir, program string
	args               []string
	answers            func(addr string) error // nil if a server of that kind answers there

	mu      sync.Mutex
	running *exec.Cmd
	exited  chan struct{} // closed when running has ended
}

// errTaken reports that another process was faster to take the port.
var errTaken = errors.New("the port was taken meanwhile")

// launchRedis starts a redis-server on a free port with its files in dir.
func launchRedis(dir string, args []string) (*process, error) {
	program, err := redisProgram()
	if err != nil {
		return nil, err
	}
	for {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		p := &process{addr: loopback(port), dir: dir, program: program, args: redisArgs(port, dir, args), answers: answers}
		if err = p.start(); err == nil {
			return p, nil
		}
		if !errors.Is(err, errTaken) {
			return nil, err
		}
	}
}

// redisArgs returns the options of a private server, those of the test last, because Redis lets the last one win.
func redisArgs(port int, dir string, args []string) []string {
	plain, tls := port, 0
	for _, arg := range args {
		if arg == "--tls-cert-file" {
			plain, tls = 0, port
		}
	}
	own := []string{
		"--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", dir, "--bind", "127.0.0.1",
		"--port", strconv.Itoa(plain),
	}
	if tls != 0 {
		own = append(own, "--tls-port", strconv.Itoa(tls))
	}
	return append(own, args...)
}

// redisProgram finds a redis-server that is new enough, and installs it where it is missing and can be installed.
var redisProgram = sync.OnceValues(func() (string, error) {
	path, err := program("redis-server", "redis-server")
	if err != nil {
		return "", fmt.Errorf("%w; %s", err, redisRemedy)
	}
	out, err := exec.Command(path, "--version").Output() //nolint:gosec // redis-server of $PATH; prints a line and ends
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", path, err)
	}
	if err := atLeast(redisMajor, `v=(\d+)\.`, string(out)); err != nil {
		return "", fmt.Errorf("%s: %w; %s", path, err, redisRemedy)
	}
	return path, nil
})

// program returns the path of a program, after the installation of its Debian package if need be.
func program(name, pkg string) (string, error) {
	path, missing := exec.LookPath(name)
	if missing == nil {
		return path, nil
	}
	if err := install(pkg, name); err != nil {
		return "", fmt.Errorf("%w (not installed by itself: %w)", missing, err)
	}
	return exec.LookPath(name)
}

// atLeast reads a major version by a pattern.
func atLeast(major int, pattern, text string) error {
	match := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if match == nil {
		return fmt.Errorf("no version in %.200q", text)
	}
	if got, err := strconv.Atoi(match[1]); err != nil || got < major {
		return fmt.Errorf("version %s is older than %d", match[1], major)
	}
	return nil
}

// start starts the process and waits until it answers.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running != nil {
		return fmt.Errorf("%s runs already", p.addr)
	}
	if !vacant(p.addr) { // otherwise whoever is there would answer in place of the process
		return fmt.Errorf("%s: %w", p.addr, errTaken)
	}
	log, err := os.Create(filepath.Join(p.dir, "server.log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()        // the process has its own handle
	cmd := exec.Command(p.program, p.args...) //nolint:gosec,noctx // a server of $PATH, or that was built here; ended by signals
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, childAttributes()
	started, exited := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(exited)
		// The thread that starts the process must live as long as the process: see childAttributes.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	p.running, p.exited = cmd, exited
	err = await(func() error {
		select {
		case <-exited:
			return nil
		default:
			return p.answers(p.addr)
		}
	})
	select {
	case <-exited:
		p.running = nil
		text, _ := os.ReadFile(log.Name())
		if strings.Contains(string(text), "Address already in use") {
			return fmt.Errorf("%s: %w", p.addr, errTaken)
		}
		return fmt.Errorf("%s %q ended: %s", p.program, p.args, tail(text))
	default:
	}
	if err != nil {
		p.signal(syscall.SIGKILL)
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%s does not answer: %w: %s", p.addr, err, tail(text))
	}
	return nil
}

// end sends a signal, waits until the process has ended, and reports whether it ended by that in time; otherwise it was killed.
func (p *process) end(sig syscall.Signal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running == nil || p.signal(sig)
}

func (p *process) signal(sig syscall.Signal) bool {
	defer func() { p.running = nil }()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	_ = p.running.Process.Signal(sig) // fails only if it has ended
	select {
	case <-p.exited:
		return true
	case <-timer.C:
		_ = p.running.Process.Kill()
		<-p.exited
		return false
	}
}

// tail returns the last part of a log.
func tail(log []byte) string {
	const most = 2000
	if len(log) > most {
		log = log[len(log)-most:]
	}
	return strings.TrimSpace(string(log))
}

// answers returns nil if a Redis answers: to PING, or that it wants a password or TLS first.
func answers(addr string) error {
	_, err := ask(addr, "PING")
	var reply redisError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &reply):
		if strings.HasPrefix(string(reply), "LOADING") {
			return err
		}
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, os.ErrDeadlineExceeded):
		return nil // it accepted the connection and does not understand: TLS
	default:
		return err
	}
}

// redisError is an error that Redis replied.
type redisError string

func (e redisError) Error() string { return string(e) }

// ask sends one inline command over a connection of its own and returns the reply, a simple or a bulk string.
func ask(addr, command string) (string, error) {
	conn, err := net.DialTimeout("tcp", addr, time.Second) //nolint:noctx // bounded
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, command+"\r\n"); err != nil {
		return "", err
	}
	reader := bufio.NewReader(conn)
	line, err := reader.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	switch {
	case strings.HasPrefix(line, "-"):
		return "", redisError(line[1:])
	case strings.HasPrefix(line, "$"):
		size, err := strconv.Atoi(line[1:])
		if err != nil || size < 0 {
			return "", fmt.Errorf("%s: reply %q", command, line)
		}
		body := make([]byte, size)
		_, err = io.ReadFull(reader, body)
		return string(body), err
	default:
		return strings.TrimPrefix(line, "+"), nil
	}
}
