// Package testenv finds or starts the real servers that tests talk to, and breaks the way to them on request.
//
//	Redis, NATS                one shared server per test binary, started when the first test asks for it
//	NewRedis, NewNATS          a server of the test's own, to be configured, stopped, killed and started again
//	RedisCluster, NATSCluster  three Redis masters with a replica each; three NATS servers with JetStream
//	NewFault                   a proxy in front of any of them that cuts, resets, delays and stalls connections
//
// A package that uses it hands its tests over, so that shared servers end with the binary:
//
//	func TestMain(m *testing.M) { testenv.Main(m) }
//
// Everything listens on 127.0.0.1, keeps its files in a temporary folder and ends with its test or, on Linux, at the latest
// with the test binary, however that ends. Tests that share a server keep apart by Prefix. What a test needs and cannot get is
// a failure that names the remedy; nothing is ever skipped.
//
// Redis is a process (redis-server of $PATH; on Linux as root it is installed by apt-get where it is missing). The shared NATS
// and the nodes of a cluster are processes too; what NewNATS starts runs inside the test binary. PRISM_TEST_REDIS=host:port and
// PRISM_TEST_NATS=url name servers to use instead of the shared ones.
package testenv

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const (
	// patience is the longest that a server may take to start, to stop or to agree with its peers.
	patience = 30 * time.Second
	// drain is how long a goroutine may outlive the tests: a client of a Redis Cluster closes connections 5 seconds late.
	drain = 7 * time.Second
	// pause is the time between two looks at what is waited for.
	pause = 5 * time.Millisecond
)

// Main runs the tests of a package, stops the shared servers and ends the process. Tests that pass must leave no goroutine
// behind: otherwise the exit code is 1.
func Main(m *testing.M) { os.Exit(run(m)) }

// run is Main up to the exit; m is a *testing.M.
func run(m interface{ Run() int }) int {
	code := m.Run()
	shared.stop()
	if code != 0 {
		return code
	}
	err := goleak.Find()
	for deadline := time.Now().Add(drain); err != nil && time.Now().Before(deadline); {
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "testenv: the tests passed and left goroutines behind: %v\n", err)
		return 1
	}
	return 0
}

// AtExit has Main call f after the tests, for what all of them share.
func AtExit(f func()) { shared.add(f) }

// shared holds how to stop what all tests of the binary share.
var shared stops

type stops struct {
	mu    sync.Mutex
	funcs []func()
}

func (s *stops) add(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.funcs = append(s.funcs, f)
}

// stop calls what was added, last first, once.
func (s *stops) stop() {
	s.mu.Lock()
	funcs := s.funcs
	s.funcs = nil
	s.mu.Unlock()
	for _, f := range slices.Backward(funcs) {
		f()
	}
}

// Prefix returns a name that no other test and no other run has, to keep tests on one server apart: lower-case letters,
// digits and '-', at most 48 bytes, legal as a namespace, a NATS subject token and the name of a bucket.
func Prefix(t testing.TB) string {
	t.Helper()
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		default:
			return '-'
		}
	}, strings.TrimPrefix(t.Name(), "Test"))
	return fmt.Sprintf("t%.30s-%016x", name, rand.Uint64())
}

// Ports are chosen below the range from which Linux takes the local ports of outgoing connections (32768 and up), so that a
// server which is down for a while cannot lose its port to one of those. The bus of a Redis Cluster node listens 10,000 above
// its port and fits below that range too.
const (
	lowestPort = 10_100
	portRange  = 10_000
	busOffset  = 10_000
)

var (
	portsMu sync.Mutex
	ports   = make(map[int]bool) // handed out by this process, never twice
)

// freePort returns a port of 127.0.0.1 on which nobody listens, nor on the port of a cluster bus that belongs to it.
func freePort() (int, error) {
	portsMu.Lock()
	defer portsMu.Unlock()
	for range 1000 {
		port := lowestPort + rand.IntN(portRange)
		if ports[port] || !vacant(loopback(port)) || !vacant(loopback(port+busOffset)) {
			continue
		}
		ports[port] = true
		return port, nil
	}
	return 0, fmt.Errorf("testenv: no free port from %d to %d", lowestPort, lowestPort+portRange)
}

func vacant(addr string) bool {
	l, err := net.Listen("tcp", addr) //nolint:noctx // a bind to a number does not block
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// FreeAddress returns a loopback address that nobody uses, below the ports of outgoing connections: so a process that a test
// kills can have it again.
func FreeAddress(t testing.TB) string {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	return loopback(port)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// await looks until holds returns nil; after patience it returns what was last missing.
func await(holds func() error) error {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		err := holds()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s: %w", patience, err)
		}
		<-tick.C
	}
}
