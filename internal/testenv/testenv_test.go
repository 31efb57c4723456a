package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestMain(m *testing.M) {
	if os.Getenv(holdEnv) != "" {
		hold()
	}
	Main(m)
}

// holdEnv makes the test binary start the shared Redis, print its address and wait for its own end.
const holdEnv = "PRISM_TESTENV_HOLD"

func hold() {
	addr, err := sharedRedis()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stdout, addr)
	select {}
}

func want(t *testing.T, addr, command, reply string) {
	t.Helper()
	got, err := ask(addr, command)
	if err != nil || !strings.Contains(got, reply) {
		t.Fatalf("%s to %s: got %q, %v, want %q", command, addr, got, err, reply)
	}
}

func TestRedisIsShared(t *testing.T) {
	r := Redis(t)
	want(t, r.Addr, "PING", "PONG")
	if again := Redis(t); again != r {
		t.Errorf("second call: %v, first: %v", again, r)
	}
	if err := checkRedis(r.Addr); err != nil {
		t.Error(err)
	}
}

func TestRedisStopsKillsStarts(t *testing.T) {
	for _, end := range []struct {
		name string
		f    func(*RedisProcess)
	}{{"stop", (*RedisProcess).Stop}, {"kill", (*RedisProcess).Kill}} {
		t.Run(end.name, func(t *testing.T) {
			r := NewRedis(t, "--maxmemory", "10mb", "--appendonly", "yes", "--appendfsync", "always")
			addr := r.Addr
			want(t, addr, "CONFIG GET maxmemory", "*2")
			want(t, addr, "INFO memory", "maxmemory:10485760")
			want(t, addr, "SET kept 1", "OK")
			end.f(r)
			end.f(r)
			if _, err := ask(addr, "PING"); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Fatalf("ping of a server that is down: %v, want refused", err)
			}
			r.Start()
			if r.Addr != addr {
				t.Errorf("address %s after the restart, %s before", r.Addr, addr)
			}
			want(t, addr, "GET kept", "1")
			if err := r.p.start(); err == nil {
				t.Error("a server that runs was started again")
			}
		})
	}
}

func TestRedisWithPassword(t *testing.T) {
	r := NewRedis(t, "--requirepass", "secret")
	var reply redisError
	if _, err := ask(r.Addr, "PING"); !errors.As(err, &reply) || !strings.HasPrefix(err.Error(), "NOAUTH") {
		t.Errorf("got %v, want NOAUTH", err)
	}
	if err := checkRedis(r.Addr); err == nil {
		t.Error("a server that wants a password passed for PRISM_TEST_REDIS")
	}
}

func TestRedisOverTLS(t *testing.T) {
	c := NewCertificate(t)
	r := NewRedis(t, "--tls-cert-file", c.Cert, "--tls-key-file", c.Key, "--tls-ca-cert-file", c.CA, "--tls-auth-clients", "no")
	host, port, _ := strings.Cut(r.Addr, ":")
	out, err := exec.CommandContext(t.Context(), "redis-cli", "-h", host, "-p", port, "--tls", "--cacert", c.CA, "ping").CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "PONG" {
		t.Errorf("ping over TLS: %s, %v", out, err)
	}
	if _, err := ask(r.Addr, "PING"); err == nil {
		t.Error("it answers without TLS too")
	}
}

func TestRedisThatCannotStart(t *testing.T) {
	if p, err := launchRedis(t.TempDir(), []string{"--no-such-option", "1"}); err == nil {
		p.end(syscall.SIGKILL)
		t.Fatal("started with an unknown option")
	} else if !strings.Contains(err.Error(), "no-such-option") {
		t.Errorf("%v does not say why", err)
	}
	taken := NewRedis(t)
	r := NewRedis(t)
	r.Stop()
	r.p.addr = taken.Addr
	if err := r.p.start(); !errors.Is(err, errTaken) {
		t.Errorf("start on a port in use: %v, want %v", err, errTaken)
	}
}

func TestRedisVersions(t *testing.T) {
	for _, c := range []struct {
		text, fault string
	}{
		{"Redis server v=7.0.15 sha=00000000:0", ""},
		{"Redis server v=10.2.1 sha=00000000:0", ""},
		{"Redis server v=6.2.7 sha=00000000:0", "version 6 is older than 7"},
		{"something else", "no version"},
	} {
		if err := atLeast(7, `v=(\d+)\.`, c.text); (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%q: %v, want %q", c.text, err, c.fault)
		}
	}
}

func TestMissingProgram(t *testing.T) {
	if _, err := exec.LookPath("no-such-program"); err == nil {
		t.Fatal("there is such a program")
	}
	t.Setenv("PATH", t.TempDir()) // without apt-get too
	if _, err := program("no-such-program", "no-such-package"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestRedisCluster(t *testing.T) {
	c := RedisCluster(t)
	if len(c.Addrs) != 6 || len(c.Nodes) != 6 {
		t.Fatalf("%d addresses, %d nodes", len(c.Addrs), len(c.Nodes))
	}
	for i, n := range c.Nodes {
		if n.Addr != c.Addrs[i] {
			t.Errorf("node %d has %s, listed is %s", i, n.Addr, c.Addrs[i])
		}
		_, port, _ := strings.Cut(n.Addr, ":")
		out, err := exec.CommandContext(t.Context(), "redis-cli", "-p", port, "cluster", "info").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "cluster_state:ok") || !strings.Contains(string(out), "cluster_known_nodes:6") ||
			!strings.Contains(string(out), "cluster_size:3") {
			t.Errorf("node %d: %s, %v", i, out, err)
		}
		role := "role:master"
		if i >= 3 {
			role = "role:slave"
		}
		want(t, n.Addr, "INFO replication", role)
	}
	// A replica takes over from a master that is killed, which comes back as a replica.
	c.Nodes[0].Kill()
	if err := await(func() error {
		masters := 0
		for _, n := range c.Nodes[3:] {
			info, err := ask(n.Addr, "INFO replication")
			if err != nil {
				return err
			}
			if strings.Contains(info, "role:master") {
				masters++
			}
		}
		if masters != 1 {
			return errors.New("no replica took over")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	c.Nodes[0].Start()
	for _, addr := range c.Addrs {
		if err := await(func() error { return redisNodeAgrees(addr) }); err != nil {
			t.Fatalf("%s after the failover: %v", addr, err)
		}
	}
	want(t, c.Addrs[0], "INFO replication", "role:slave")
}

// kv writes or reads a key of a bucket and closes its connection.
func kv(t *testing.T, url, bucket string, replicas int, write bool) {
	t.Helper()
	conn, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if limit := conn.MaxPayload(); limit != 1<<20 {
		t.Errorf("max_payload is %d", limit)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	store, err := js.CreateOrUpdateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: bucket, Replicas: replicas})
	if err != nil {
		t.Fatal(err)
	}
	if write {
		if _, err := store.PutString(t.Context(), "kept", "1"); err != nil {
			t.Fatal(err)
		}
	}
	if entry, err := store.Get(t.Context(), "kept"); err != nil || string(entry.Value()) != "1" {
		t.Fatalf("got %v, %v", entry, err)
	}
}

func TestNATSIsShared(t *testing.T) {
	n := NATS(t)
	kv(t, n.URL, Prefix(t), 1, true)
	if again := NATS(t); again != n {
		t.Errorf("second call: %v, first: %v", again, n)
	}
	if err := checkNATS(n.URL); err != nil {
		t.Error(err)
	}
}

func TestNATSStopsStarts(t *testing.T) {
	n := NewNATS(t, func(o *server.Options) { o.MaxSubs = 7 })
	url, bucket := n.URL, Prefix(t)
	if n.n.opts.MaxSubs != 7 {
		t.Errorf("the option did not arrive")
	}
	kv(t, url, bucket, 1, true)
	n.Stop()
	n.Stop()
	if conn, err := nats.Connect(url); err == nil {
		conn.Close()
		t.Fatal("connected to a server that is down")
	}
	n.Start()
	if n.URL != url {
		t.Errorf("URL %s after the restart, %s before", n.URL, url)
	}
	kv(t, url, bucket, 1, false)
	if err := n.n.start(); err == nil {
		t.Error("a server that runs was started again")
	}
}

func TestNATSCluster(t *testing.T) {
	c := NATSCluster(t)
	if len(c.URLs) != 3 || len(c.Nodes) != 3 {
		t.Fatalf("%d URLs, %d nodes", len(c.URLs), len(c.Nodes))
	}
	bucket := Prefix(t)
	kv(t, c.URLs[0], bucket, 3, true)
	c.Nodes[0].Stop()
	if err := await(func() error { return natsAgree(c.Nodes[1:]) }); err != nil {
		t.Fatalf("two of three: %v", err)
	}
	c.Nodes[0].Start()
	if err := await(func() error { return natsAgree(c.Nodes) }); err != nil {
		t.Fatalf("after the restart: %v", err)
	}
	kv(t, c.URLs[2], bucket, 3, false)
}

func TestNamedServers(t *testing.T) {
	r, without := NewRedis(t), NewNATS(t, func(o *server.Options) { o.JetStream = false })
	for _, c := range []struct {
		name  string
		err   error
		fault string
	}{
		{"redis is down", checkRedis(loopback(1)), "refused"},
		{"nats is down", checkNATS("nats://" + loopback(1)), "refused"},
		{"no host", checkNATS("nats:"), "not a URL"},
		{"not a URL", checkNATS("nats://%"), "invalid URL"},
		{"no JetStream", checkNATS(without.URL + ",nats://127.0.0.1:1"), "without JetStream"},
		{"not Redis", checkRedis(strings.TrimPrefix(without.URL, "nats://")), "no version"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.fault) {
			t.Errorf("%s: got %v, want %q", c.name, c.err, c.fault)
		}
	}
	if err := checkRedis(r.Addr); err != nil {
		t.Errorf("a good Redis: %v", err)
	}
}

func TestPrefix(t *testing.T) {
	legal := regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,47}$`)
	t.Run("Länge/ and_Ünïcode * > . and a name that is much longer than any name may be", func(t *testing.T) {
		a, b := Prefix(t), Prefix(t)
		if a == b {
			t.Errorf("%q twice", a)
		}
		if !legal.MatchString(a) {
			t.Errorf("%q is not legal", a)
		}
	})
	if a := Prefix(t); !strings.Contains(a, "prefix") || !legal.MatchString(a) {
		t.Errorf("%q", a)
	}
}

// runs is a *testing.M that runs a function.
type runs func() int

func (r runs) Run() int { return r() }

func TestRun(t *testing.T) {
	held := shared.funcs // the servers of this binary outlive the test
	shared.funcs = nil
	defer func() { shared.funcs = held }()
	stopped := 0
	add := func() { shared.add(func() { stopped++ }) }
	if code := run(runs(func() int { add(); add(); return 3 })); code != 3 || stopped != 2 {
		t.Errorf("code %d, stopped %d, want 3, 2", code, stopped)
	}
	devNull, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer devNull.Close()
	stderr := os.Stderr
	os.Stderr = devNull
	defer func() { os.Stderr = stderr }()
	leak := make(chan struct{})
	defer close(leak)
	if code := run(runs(func() int { go func() { <-leak }(); return 0 })); code != 1 {
		t.Errorf("code %d with a goroutine left behind, want 1", code)
	}
}
