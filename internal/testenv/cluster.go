package testenv

import (
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
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

// NATSClusterProcess is a NATS cluster with JetStream of one test, inside the test binary.
type NATSClusterProcess struct {
	// URLs are those of Nodes, in their order.
	URLs []string
	// Nodes are three.
	Nodes []*NATSProcess
}

// NATSCluster starts a NATS cluster that belongs to the test: three servers that have elected a leader of JetStream and all
// follow it.
func NATSCluster(t testing.TB) *NATSClusterProcess {
	t.Helper()
	var routes []*url.URL
	var routePorts []int
	for range natsNodes {
		port, err := freePort()
		if err != nil {
			t.Fatal(err)
		}
		routePorts = append(routePorts, port)
		routes = append(routes, &url.URL{Scheme: "nats", Host: loopback(port)})
	}
	c, name := &NATSClusterProcess{}, Prefix(t)
	for _, port := range routePorts {
		n := NewNATS(t, func(o *server.Options) {
			o.Cluster = server.ClusterOpts{Name: name, Host: "127.0.0.1", Port: port}
			o.Routes = routes
		})
		c.Nodes, c.URLs = append(c.Nodes, n), append(c.URLs, n.URL)
	}
	if err := await(func() error { return natsAgree(c.Nodes) }); err != nil {
		t.Fatalf("testenv: nats cluster: %v", err)
	}
	return c
}

// natsAgree returns nil once one server leads, has all others as peers, and all have what it has.
func natsAgree(nodes []*NATSProcess) error {
	leaders := 0
	for _, n := range nodes {
		s := n.n.current()
		if !s.JetStreamIsCurrent() {
			return fmt.Errorf("%s does not follow", n.URL)
		}
		if !s.JetStreamIsLeader() {
			continue
		}
		leaders++
		if peers := s.JetStreamClusterPeers(); len(peers) != len(nodes) {
			return fmt.Errorf("leader %s has the peers %v", n.URL, peers)
		}
	}
	if leaders != 1 {
		return errors.New("no leader")
	}
	return nil
}
