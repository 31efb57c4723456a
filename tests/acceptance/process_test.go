package acceptance

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/prism-data-layer/prism/internal/testenv"
)

// binary and natsBinary build what the scenarios kill, once.
var (
	binary     = sync.OnceValues(func() (string, error) { return build("../../cmd/prism") })
	natsBinary = sync.OnceValues(func() (string, error) { return build("github.com/nats-io/nats-server/v2") })
)

// build builds a program into a temporary folder.
func build(source string) (string, error) {
	dir, err := os.MkdirTemp("", "prism-acceptance-")
	if err != nil {
		return "", err
	}
	testenv.AtExit(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "program")
	out, err := exec.Command("go", "build", "-o", path, source).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build %s: %w: %s", source, err, out)
	}
	return path, nil
}

// child is a program in a process of its own, that can be killed and started again with the same arguments.
type child struct {
	t       testing.TB
	binary  func() (string, error)
	args    []string
	listens string // the address that is there once it serves
	command *exec.Cmd
	ended   chan struct{} // closed when the command has ended
	log     lockedBuffer
}

// launch starts the process and waits until it serves. It ends with the test.
func (c *child) launch() {
	c.t.Helper()
	path, err := c.binary()
	must(c.t, err)
	c.command = exec.Command(path, c.args...)
	c.command.Stdout, c.command.Stderr = &c.log, &c.log
	must(c.t, c.command.Start())
	c.ended = make(chan struct{})
	go func(command *exec.Cmd, ended chan struct{}) {
		_ = command.Wait() // a killed process ends with an error
		close(ended)
	}(c.command, c.ended)
	c.t.Cleanup(c.kill)
	eventually(c.t, "the process listens", func() bool {
		select {
		case <-c.ended:
			c.t.Fatalf("%v ended: %s", c.args, &c.log)
		default:
		}
		conn, err := new(net.Dialer).DialContext(context.Background(), "tcp", c.listens)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// kill is kill -9.
func (c *child) kill() {
	_ = c.command.Process.Kill()
	<-c.ended
}

// restart ends the process in order and starts it again.
func (c *child) restart() {
	c.t.Helper()
	must(c.t, c.command.Process.Signal(syscall.SIGTERM))
	select {
	case <-c.ended:
	case <-time.After(20 * time.Second):
		c.t.Fatalf("%v does not end: %s", c.args, &c.log)
	}
	c.launch()
}

// process is a proxy in a process of its own, always at the same address.
type process struct {
	*proxy
	*child
}

// start runs a proxy with the given configuration in a process of its own.
func start(t testing.TB, namespace, config string) process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "prism.yaml")
	must(t, os.WriteFile(file, []byte(config), 0o600))
	grpc := testenv.FreeAddress(t)
	args := []string{"serve", "--config", file, "--grpc-addr", grpc, "--http-addr", testenv.FreeAddress(t)}
	c := &child{t: t, binary: binary, args: args, listens: grpc}
	c.launch()
	return process{proxy: dial(t, grpc, namespace), child: c}
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

// natsNode is a nats-server in a process of its own.
type natsNode struct {
	*child
	name string
}

// natsCluster is three NATS servers with JetStream, each in a process of its own.
type natsCluster struct {
	nodes []natsNode
	urls  []string
	js    jetstream.JetStream
}

// startNATSCluster runs a NATS cluster until the test ends.
func startNATSCluster(t testing.TB) *natsCluster {
	t.Helper()
	const size = 3
	var routes []string
	for range size {
		routes = append(routes, "nats://"+testenv.FreeAddress(t))
	}
	c := &natsCluster{}
	for i, route := range routes {
		address := testenv.FreeAddress(t)
		host, port, err := net.SplitHostPort(address)
		must(t, err)
		node := natsNode{name: fmt.Sprintf("node-%d", i), child: &child{t: t, binary: natsBinary, listens: address}}
		node.args = []string{
			"-a", host, "-p", port, "-n", node.name, "-js", "-sd", t.TempDir(),
			"-cluster_name", "acceptance", "-cluster", route, "-routes", strings.Join(routes, ","),
		}
		node.launch()
		c.nodes, c.urls = append(c.nodes, node), append(c.urls, "nats://"+address)
	}
	conn, err := nats.Connect(strings.Join(c.urls, ","), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	must(t, err)
	t.Cleanup(conn.Close)
	c.js, err = jetstream.New(conn)
	must(t, err)
	c.awaitAll(t)
	return c
}

// awaitAll waits until all nodes take part in JetStream and have what the leaders have.
func (c *natsCluster) awaitAll(t testing.TB) {
	t.Helper()
	probe := jetstream.StreamConfig{Name: testenv.Prefix(t), Storage: jetstream.MemoryStorage, Replicas: len(c.nodes)}
	patiently(t, "all of the NATS cluster works", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := c.js.CreateOrUpdateStream(ctx, probe); err != nil {
			return false
		}
		streams := c.js.ListStreams(ctx)
		for stream := range streams.Info() {
			if stream.Cluster == nil || stream.Cluster.Leader == "" {
				return false
			}
			for _, replica := range stream.Cluster.Replicas {
				if !replica.Current || replica.Offline {
					return false
				}
			}
		}
		return streams.Err() == nil && c.js.DeleteStream(ctx, probe.Name) == nil
	})
}

// leader returns the node that leads the stream of a namespace's registry, or the first node if there is none.
func (c *natsCluster) leader(t testing.TB, namespace string) natsNode {
	t.Helper()
	streams := c.js.ListStreams(t.Context())
	for stream := range streams.Info() {
		for _, node := range c.nodes {
			if strings.Contains(stream.Config.Name, namespace) && stream.Cluster.Leader == node.name {
				return node
			}
		}
	}
	must(t, streams.Err())
	return c.nodes[0]
}
