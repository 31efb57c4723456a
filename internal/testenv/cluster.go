package testenv

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	redisNodes = 6 // three masters with a replica each: the smallest cluster that redis-cli forms
	natsNodes  = 3 // the smallest that survives the loss of one
)

// RedisClusterProcess is a Redis Cluster of one test. A node that stays away for a second is taken for dead, and its replica
// takes over.
type RedisClusterProcess struct {
	// Addrs are the addresses of Nodes, in their order.
	Addrs []string
	// Nodes are six: the first three start as masters, the others as their replicas.
	Nodes []*RedisProcess
}

// RedisCluster starts a Redis Cluster that belongs to the test: three masters and a replica of each, all in agreement.
func RedisCluster(t testing.TB) *RedisClusterProcess {
	t.Helper()
	cli, err := program("redis-cli", "redis-tools")
	if err != nil {
		t.Fatalf("testenv: redis cluster: %v; install redis-cli 7 or newer: apt-get install redis-tools", err)
	}
	c := &RedisClusterProcess{}
	for range redisNodes {
		n := NewRedis(t, "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "1000",
			"--repl-diskless-sync-delay", "0")
		c.Nodes, c.Addrs = append(c.Nodes, n), append(c.Addrs, n.Addr)
	}
	args := append([]string{"--cluster", "create"}, c.Addrs...)
	args = append(args, "--cluster-replicas", "1", "--cluster-yes")
	create := exec.CommandContext(t.Context(), cli, args...) //nolint:gosec // redis-cli of $PATH, our own arguments
	if out, err := create.CombinedOutput(); err != nil {
		t.Fatalf("testenv: redis-cli %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	for _, addr := range c.Addrs {
		if err := await(func() error { return redisNodeAgrees(addr) }); err != nil {
			t.Fatalf("testenv: redis cluster: node %s: %v", addr, err)
		}
	}
	return c
}

var (
	replicaLine = regexp.MustCompile(`(?m)^\S+ \S+ (myself,)?slave .* connected$`)
	masterLine  = regexp.MustCompile(`(?m)^\S+ \S+ (myself,)?master .* connected \d+-\d+$`)
)

// redisNodeAgrees returns nil once a node serves, knows all others and, if it is a replica, follows its master.
func redisNodeAgrees(addr string) error {
	info, err := ask(addr, "CLUSTER INFO")
	if err != nil {
		return err
	}
	if !strings.Contains(info, "cluster_state:ok") {
		return fmt.Errorf("cluster info: %q", info)
	}
	nodes, err := ask(addr, "CLUSTER NODES")
	if err != nil {
		return err
	}
	masters, replicas := len(masterLine.FindAllString(nodes, -1)), len(replicaLine.FindAllString(nodes, -1))
	if masters != redisNodes/2 || replicas != redisNodes/2 {
		return fmt.Errorf("knows %d masters and %d replicas: %q", masters, replicas, nodes)
	}
	replication, err := ask(addr, "INFO replication")
	if err != nil {
		return err
	}
	if !strings.Contains(replication, "master_link_status:up") && !strings.Contains(replication, "state=online") {
		return fmt.Errorf("info replication: %q", replication)
	}
	return nil
}

// NATSClusterProcess is a NATS cluster with JetStream of one test, each server in a process of its own.
type NATSClusterProcess struct {
	// URLs are those of Nodes, in their order.
	URLs []string
	// Nodes are three.
	Nodes []*NATSNode
}

// NATSNode is a server of a NATS cluster. Its methods are called from the test's goroutine; it ends with the test.
type NATSNode struct {
	// URL is "nats://127.0.0.1:port", the same before and after a restart.
	URL string

	t       testing.TB
	p       *process
	name    string
	monitor string // serves how the node is, over HTTP
}

// Stop shuts the server down (SIGTERM) and waits. A server that is down stays down.
func (n *NATSNode) Stop() {
	n.t.Helper()
	if !n.p.end(syscall.SIGTERM) {
		n.t.Fatalf("testenv: nats %s did not stop within %s and was killed", n.URL, patience)
	}
}

// Start starts a server that is down again, with the same port, files and options, and waits until it accepts clients. It may
// take longer to agree with the others.
func (n *NATSNode) Start() {
	n.t.Helper()
	if err := n.p.start(); err != nil {
		n.t.Fatalf("testenv: nats: %v", err)
	}
}

// NATSCluster starts a NATS cluster that belongs to the test: three servers that have elected a leader of JetStream and all
// follow it.
func NATSCluster(t testing.TB) *NATSClusterProcess {
	t.Helper()
	program, err := natsProgram()
	if err != nil {
		t.Fatalf("testenv: nats cluster: %v", err)
	}
	var routes []string
	for range natsNodes {
		routes = append(routes, "nats://"+FreeAddress(t))
	}
	c, name := &NATSClusterProcess{}, Prefix(t)
	for _, route := range routes {
		addr, monitor := FreeAddress(t), FreeAddress(t)
		_, port, _ := net.SplitHostPort(addr)
		_, monitorPort, _ := net.SplitHostPort(monitor)
		dir, node := t.TempDir(), "prism-"+port
		p := &process{
			addr: addr, dir: dir, program: program,
			args: []string{
				"-a", "127.0.0.1", "-p", port, "-m", monitorPort, "-n", node, "-js", "-sd", dir,
				"-cluster_name", name, "-cluster", route, "-routes", strings.Join(routes, ","),
			},
			answers: func(addr string) error { return checkNATS("nats://" + addr) },
		}
		if err := p.start(); err != nil {
			t.Fatalf("testenv: nats cluster: %v", err)
		}
		t.Cleanup(func() { p.end(syscall.SIGKILL) })
		n := &NATSNode{URL: "nats://" + addr, t: t, p: p, name: node, monitor: monitor}
		c.Nodes, c.URLs = append(c.Nodes, n), append(c.URLs, n.URL)
	}
	if err := await(func() error { return natsAgree(c.Nodes) }); err != nil {
		t.Fatalf("testenv: nats cluster: %v", err)
	}
	return c
}

// natsAgree returns nil once one server leads, has all others as peers, and all have what it has.
func natsAgree(nodes []*NATSNode) error {
	leaders := 0
	for _, n := range nodes {
		if err := look(n.monitor, "healthz?js-meta-only=true", nil); err != nil {
			return fmt.Errorf("%s does not follow: %w", n.URL, err)
		}
		var is struct {
			Meta struct {
				Leader   string `json:"leader"`
				Replicas []struct {
					Offline bool `json:"offline"`
				} `json:"replicas"`
			} `json:"meta_cluster"`
		}
		if err := look(n.monitor, "jsz", &is); err != nil {
			return fmt.Errorf("%s: %w", n.URL, err)
		}
		if is.Meta.Leader != n.name {
			continue
		}
		leaders++
		peers := 1
		for _, r := range is.Meta.Replicas {
			if !r.Offline {
				peers++
			}
		}
		if peers != len(nodes) {
			return fmt.Errorf("leader %s has %d peers of %d: %v", n.URL, peers, len(nodes), is.Meta.Replicas)
		}
	}
	if leaders != 1 {
		return fmt.Errorf("%d leaders", leaders)
	}
	return nil
}

// look asks the HTTP monitor of a NATS server.
func look(monitor, path string, answer any) error {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + monitor + "/" + path) //nolint:noctx // bounded
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", resp.Status, body)
	}
	if err != nil || answer == nil {
		return err
	}
	return json.Unmarshal(body, answer)
}
