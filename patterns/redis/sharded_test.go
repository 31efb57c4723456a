package redis

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

// sharded returns a registry of shards with a sweeper that ends with the test.
func sharded(t testing.TB, c *Conn, cfg RegistryConfig) *Sharded {
	t.Helper()
	if cfg.Namespace == "" {
		cfg.Namespace = testenv.Prefix(t)
	}
	if cfg.Shards == 0 {
		cfg.Shards = 3
	}
	r, err := OpenRegistry(c, cfg)
	noError(t, err)
	sweeping(t, r)
	return r.(*Sharded)
}

// shardedSuite runs the registry suite on three shards. OpenLimited is missing, because the limit is divided among them: see
// TestShardedQuota.
func shardedSuite(t *testing.T, brief bool, connect func(t testing.TB) *Conn) {
	t.Helper()
	slottest.Registry(t, func(t *testing.T) mr.Registry {
		return sharded(t, connect(t), RegistryConfig{OutageAfter: unhurried})
	}, slottest.RegistryOptions{
		Brief:       brief,
		SweptWithin: 2 * sweepEvery,
		Partitioned: true,
		OpenPair: func(t *testing.T) (a, b mr.Registry) {
			cfg := RegistryConfig{OutageAfter: unhurried, Namespace: testenv.Prefix(t)}
			return sharded(t, connect(t), cfg), sharded(t, connect(t), cfg)
		},
		OpenNeighbours: func(t *testing.T) (a, b mr.Registry) {
			c, name := connect(t), testenv.Prefix(t)
			one := RegistryConfig{OutageAfter: unhurried, Namespace: name}
			two := RegistryConfig{OutageAfter: unhurried, Namespace: name + "-b"}
			return sharded(t, c, one), sharded(t, c, two)
		},
		OpenLogged: func(t *testing.T, log int) (a, b mr.Registry) {
			cfg := RegistryConfig{OutageAfter: unhurried, Namespace: testenv.Prefix(t), ChangeLog: log}
			return sharded(t, connect(t), cfg), sharded(t, connect(t), cfg)
		},
	})
}

func TestSharded(t *testing.T) {
	t.Parallel()
	shardedSuite(t, false, shared)
}

// TestShardedOnCluster also proves that no script touches keys of two slots.
func TestShardedOnCluster(t *testing.T) {
	t.Parallel()
	cluster := clusterOf(t)
	shardedSuite(t, true, func(t testing.TB) *Conn {
		t.Helper()
		c := connect(t, Config{Addresses: cluster.Addrs, Cluster: true})
		// A node is dialled with the first call's deadline, and whoever waits for the same dialling gets its error.
		for _, client := range []rueidis.Client{c.read, c.write} {
			for _, node := range client.Nodes() {
				noError(t, node.Do(t.Context(), node.B().Ping().Build()).Error())
			}
		}
		return c
	})
}

func TestOpenRegistry(t *testing.T) {
	c := shared(t)
	for _, row := range []struct {
		cfg  RegistryConfig
		want string
	}{
		{RegistryConfig{}, "*redis.Registry"},
		{RegistryConfig{Shards: 1}, "*redis.Registry"},
		{RegistryConfig{Shards: 2}, "*redis.Sharded"},
		{RegistryConfig{Shards: -1}, "shards: must be from 1 to 128"},
		{RegistryConfig{ChangeLog: -1}, "change_log: must be at least 1"},
	} {
		r, err := OpenRegistry(c, row.cfg)
		got := fmt.Sprintf("%T", r)
		if err != nil {
			got = err.Error()
		}
		if got != row.want || errors.Is(err, mr.ErrInvalid) != (err != nil) {
			t.Errorf("%+v: %s, want %s", row.cfg, got, row.want)
		}
	}
}

// TestShardOf pins the choice of shards, which is as persistent as the data.
func TestShardOf(t *testing.T) {
	s := NewSharded(nil, RegistryConfig{Namespace: "x", Shards: 16})
	for id, want := range map[string]int{"a": 12, "dev-7": 12, "ünï cødé": 4, strings.Repeat("x", 256): 5} {
		if got := s.of(id); got != want {
			t.Errorf("%q belongs to shard %d, want %d", id, got, want)
		}
	}
	counts := make([]int, 16)
	for n := range 16000 {
		counts[s.of(fmt.Sprintf("device-%d", n))]++
	}
	for shard, n := range counts {
		if n < 800 || n > 1200 {
			t.Errorf("shard %d has %d of 16000 identities", shard, n)
		}
	}
}

// TestShardSlots asks Redis for the slots of all keys: those of a shard share one, and no two shards do.
func TestShardSlots(t *testing.T) {
	cluster := clusterOf(t)
	c := connect(t, Config{Addresses: cluster.Addrs, Cluster: true})
	s := NewSharded(c, RegistryConfig{Namespace: testenv.Prefix(t), Shards: 16})
	slots := map[int64]int{}
	for shard, r := range s.shards {
		own := map[int64]bool{}
		for _, key := range []string{r.keys.leases, r.keys.head, r.keys.log, r.keys.of("a"), r.keys.of("}{ b")} {
			slot, err := c.read.Do(t.Context(), c.read.B().ClusterKeyslot().Key(key).Build()).AsInt64()
			noError(t, err)
			own[slot] = true
			if other, taken := slots[slot]; taken && other != shard {
				t.Errorf("shards %d and %d share slot %d", other, shard, slot)
			}
			slots[slot] = shard
		}
		if len(own) != 1 {
			t.Errorf("the keys of shard %d are on the slots %v", shard, own)
		}
	}
}

func TestShardedQuota(t *testing.T) {
	s := sharded(t, shared(t), RegistryConfig{MaxIdentities: 100, Shards: 3}) // 34 each
	taken, refused := 0, 0
	for n := range 300 {
		_, err := s.Put(t.Context(), mr.Identity{ID: fmt.Sprint("id-", n), TTL: time.Hour}, mr.Create)
		switch {
		case err == nil:
			taken++
		case errors.Is(err, mr.ErrQuota):
			refused++
		default:
			t.Fatal(err)
		}
	}
	if taken != 102 || refused != 198 {
		t.Errorf("%d taken, %d refused", taken, refused)
	}
}

// TestShardedRevisions looks for a change that has a lower revision than one that was made or a head that was read before.
func TestShardedRevisions(t *testing.T) {
	cfg := RegistryConfig{Namespace: testenv.Prefix(t), Shards: 5}
	a, b := sharded(t, shared(t), cfg), sharded(t, shared(t), cfg)
	last := mr.Revision(0)
	seen := map[mr.Revision]bool{}
	putOn := func(s *Sharded, id string) mr.Revision {
		t.Helper()
		stored, err := s.Put(t.Context(), mr.Identity{ID: id, TTL: time.Hour}, mr.Replace)
		noError(t, err)
		if stored.Revision <= last || seen[stored.Revision] {
			t.Fatalf("revision %d follows %d", stored.Revision, last)
		}
		seen[stored.Revision] = true
		last = stored.Revision
		return last
	}
	for n := range 50 {
		putOn(a, fmt.Sprint("id-", n%7))
	}
	for n := range 10 {
		head, err := a.Head(t.Context()) // which b does not hear of
		noError(t, err)
		if head < last {
			t.Fatalf("the head is %d after a change of revision %d", head, last)
		}
		last = head
		own := putOn(b, fmt.Sprint("own-", n))
		if existed, err := a.Delete(t.Context(), fmt.Sprint("own-", n), own+1); existed || err != nil {
			t.Errorf("deleted by another shard's revision: %v, %v", existed, err)
		}
		if existed, err := a.Delete(t.Context(), fmt.Sprint("own-", n), 1); existed || err != nil {
			t.Errorf("deleted by a revision that nothing has: %v, %v", existed, err)
		}
		if existed, err := a.Delete(t.Context(), fmt.Sprint("own-", n), own); !existed || err != nil {
			t.Errorf("deleted by its revision: %v, %v", existed, err)
		}
	}
}

// TestShardedSynced has a reader wait for the head that it asked for: by then it has all that was changed before, by
// whomever, on whichever shard.
func TestShardedSynced(t *testing.T) {
	t.Parallel()
	cfg := RegistryConfig{Namespace: testenv.Prefix(t), Shards: 4}
	reading := sharded(t, shared(t), cfg)
	feed := read(t, reading, "")
	feed.until(mr.Synced)
	for n := range 2 {
		busy, late := sharded(t, shared(t), cfg), sharded(t, shared(t), cfg) // late has seen nothing
		for range 20 {
			store(t, busy, "busy")
		}
		for { // until Synced covers what busy did
			c, _ := feed.until(mr.Synced)
			if head, err := busy.Head(t.Context()); err != nil || c.Revision >= head {
				noError(t, err)
				break
			}
		}
		stored, told := store(t, busy, "busy", "busy", "busy", "busy"), mr.Change{}
		for told.Revision < stored.Revision {
			told, _ = feed.until(mr.Put)
		}
		before, _ := feed.until(mr.Synced)
		store(t, late, fmt.Sprint("late-", n))
		head, err := reading.Head(t.Context())
		noError(t, err)
		if before.Revision >= head {
			t.Fatalf("synced at %d before a change which the head %d covers", before.Revision, head)
		}
		seen := ""
		for {
			c, what := feed.until(mr.Synced)
			seen += what
			if c.Revision >= head {
				break
			}
		}
		if !strings.Contains(seen, fmt.Sprint("2:late-", n, " ")) {
			t.Fatalf("synced at the head, and late-%d has not come", n)
		}
	}
}

// TestShardedMost has two feeds wait on as many shards as there may be, over one connection's clients: each is told Synced
// again and again, and what changes.
func TestShardedMost(t *testing.T) {
	s := sharded(t, connect(t, Config{Host: testenv.NewRedis(t).Addr}), RegistryConfig{Shards: MaxShards})
	feeds := []*reader{read(t, s, ""), read(t, s, "")}
	for _, feed := range feeds {
		feed.until(mr.Synced)
	}
	const rounds = 5
	began := time.Now()
	for range rounds {
		for _, feed := range feeds {
			feed.until(mr.Synced)
		}
	}
	took := time.Since(began)
	t.Logf("%d times Synced in %v", rounds, took)
	if took > 3*rounds*mr.ChangesIdle {
		t.Errorf("%d times Synced in %v", rounds, took)
	}
	store(t, s, "a")
	for _, feed := range feeds {
		feed.until(mr.Put)
	}
}
