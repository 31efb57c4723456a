package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func putOne(t testing.TB, r *Registry, id string, ttl time.Duration) mr.Identity {
	t.Helper()
	stored, err := r.Put(within(t), mr.Identity{ID: id, Metadata: map[string]any{"id": id}, TTL: ttl}, mr.Replace)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

func found(t testing.TB, r *Registry) map[string]mr.Identity {
	t.Helper()
	all := map[string]mr.Identity{}
	for i, err := range r.Scan(within(t), nil) {
		if err != nil {
			t.Fatal(err)
		}
		all[i.ID] = i
	}
	return all
}

// until polls until done returns true, and fails the test when that takes longer than the patience.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	ctx := within(t)
	for !done() {
		if wait(ctx, 10*time.Millisecond) != nil {
			t.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}

// TestRegistryNothingImmortal looks at the streams after all leases have ended: the server has removed everything, whether or
// not somebody read a feed.
func TestRegistryNothingImmortal(t *testing.T) {
	for _, read := range []bool{false, true} {
		t.Run(fmt.Sprintf("feed %v", read), func(t *testing.T) {
			c := opening(t, testenv.NATS(t).URL)
			r, err := openRegistry(within(t), c, RegistryConfig{Namespace: testenv.Prefix(t)}, time.Second, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if read {
				f := follow(t, r, "")
				defer f.stop()
				f.until(t, mr.Synced)
			}
			for n := range 50 {
				putOne(t, r, fmt.Sprint(n), time.Duration(50+n)*time.Millisecond)
			}
			putOne(t, r, "renewed", time.Hour)
			if _, err := r.Renew(within(t), "renewed", 50*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			putOne(t, r, "no longer endless", mr.NoExpiry)
			if _, err := r.Renew(within(t), "no longer endless", 50*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			putOne(t, r, "deleted", mr.NoExpiry)
			if existed, err := r.Delete(within(t), "deleted", 0); !existed || err != nil {
				t.Fatal(existed, err)
			}
			putOne(t, r, "endless", mr.NoExpiry)
			until(t, "the server has removed all but one record", func() bool {
				info, err := r.bucket.info(within(t), "", 0)
				if err != nil {
					t.Fatal(err)
				}
				return info.State.Messages == 1
			})
			if all := found(t, r); len(all) != 1 || all["endless"].ID == "" {
				t.Errorf("live: %v", all)
			}
		})
	}
}

func TestRegistryShortLease(t *testing.T) {
	r := registry(t, opening(t, testenv.NATS(t).URL), RegistryConfig{Namespace: testenv.Prefix(t)})
	for range 10 {
		began := time.Now()
		putOne(t, r, "a", 50*time.Millisecond)
		put := time.Now()
		until(t, "the lease ends", func() bool {
			asked := time.Now()
			_, live := found(t, r)["a"]
			if !live && time.Since(began) < 48*time.Millisecond || live && asked.Sub(put) > 52*time.Millisecond {
				t.Errorf("live: %v, %v after the put began, %v after it ended", live, time.Since(began), asked.Sub(put))
			}
			return !live
		})
	}
}

// TestRegistryRestart stops a server that has everything on disk: nothing is lost, and feeds and revisions go on.
func TestRegistryRestart(t *testing.T) {
	n := testenv.NewNATS(t, nil)
	r := registry(t, opening(t, n.URL), RegistryConfig{Namespace: "restart"})
	f := follow(t, r, "")
	position := f.until(t, mr.Synced).Position
	want := map[string]mr.Identity{}
	for i := range 200 {
		id := fmt.Sprintf("id-%d*", i)
		want[id] = putOne(t, r, id, time.Hour)
	}
	before, err := r.Head(within(t))
	if err != nil {
		t.Fatal(err)
	}
	n.Stop()
	if _, err := r.Put(within(t), mr.Identity{ID: "away", TTL: time.Hour}, mr.Create); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("put while the server is away: %v", err)
	}
	for _, err := range r.Scan(within(t), nil) {
		if !errors.Is(err, mr.ErrUnavailable) {
			t.Errorf("scan while the server is away: %v", err)
		}
	}
	if err := f.failure(t); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("the feed ends with %v", err)
	}
	n.Start()
	until(t, "the registry is back", func() bool { return r.Ping(within(t)) == nil })
	all := found(t, r)
	if len(all) != len(want) {
		t.Errorf("%d identities after the restart, want %d", len(all), len(want))
	}
	for id, w := range want {
		if got := all[id]; got.Revision != w.Revision || !got.ExpiresAt.Equal(w.ExpiresAt) {
			t.Errorf("%q: got %+v, want %+v", id, got, w)
		}
	}
	if next := putOne(t, r, "next", time.Hour); next.Revision != before+1 {
		t.Errorf("revision %d follows %d", next.Revision, before)
	}
	again := follow(t, r, position)
	for n := range len(want) + 1 {
		if c := again.next(t); c.Kind != mr.Put {
			t.Fatalf("change %d after the restart: %+v", n, c)
		}
	}
}

// TestRegistryNodeLost stops one of three servers, whichever leads.
func TestRegistryNodeLost(t *testing.T) {
	t.Parallel()
	cluster := testenv.NATSCluster(t)
	r := registry(t, opening(t, cluster.URLs...), RegistryConfig{Namespace: "lost", Replicas: 3})
	for n := range 100 {
		putOne(t, r, fmt.Sprint(n), time.Hour)
	}
	for at, node := range cluster.Nodes {
		node.Stop()
		id := fmt.Sprintf("without %d", at)
		var stored mr.Identity
		until(t, "a put succeeds without a node", func() bool {
			var err error
			stored, err = r.Put(within(t), mr.Identity{ID: id, TTL: time.Hour}, mr.Replace)
			if err != nil && !errors.Is(err, mr.ErrUnavailable) {
				t.Fatal(err)
			}
			return err == nil
		})
		// The leader of all of JetStream may be elected later than that of the bucket.
		until(t, "a renewal succeeds without a node", func() bool {
			_, err := r.Renew(within(t), "7", 2*time.Hour)
			if err != nil && !errors.Is(err, mr.ErrUnavailable) {
				t.Fatal(err)
			}
			return err == nil
		})
		until(t, "a scan succeeds without a node", func() bool {
			all := map[string]mr.Identity{}
			for i, err := range r.Scan(within(t), nil) {
				if err != nil && !errors.Is(err, mr.ErrUnavailable) {
					t.Fatal(err)
				}
				if err != nil {
					return false
				}
				all[i.ID] = i
			}
			if len(all) != 101+at || all[id].Revision != stored.Revision {
				t.Errorf("without node %d: %d identities", at, len(all))
			}
			return true
		})
		node.Start()
		until(t, "the node has come back", func() bool {
			js, err := jetstream.New(r.conn.nc)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(within(t), time.Second)
			defer cancel()
			for _, name := range []string{r.bucket.name, r.log.name} {
				s, err := js.Stream(ctx, name)
				if err != nil || s.CachedInfo().Cluster == nil || s.CachedInfo().Cluster.Leader == "" {
					return false
				}
				for _, p := range s.CachedInfo().Cluster.Replicas {
					if p.Offline || !p.Current {
						return false
					}
				}
			}
			return true
		})
	}
}

// TestRegistryStalled lets the server fall silent: calls end after the timeout, and with their context.
func TestRegistryStalled(t *testing.T) {
	fault := testenv.NewFault(t, strings.TrimPrefix(testenv.NATS(t).URL, "nats://"))
	c := opened(t, Config{Servers: []string{"nats://" + fault.Addr}, Timeout: 200 * time.Millisecond})
	r := registry(t, c, RegistryConfig{Namespace: testenv.Prefix(t)})
	putOne(t, r, "a", time.Hour)
	fault.Stall()
	for name, call := range map[string]func(ctx context.Context) error{
		"put": func(ctx context.Context) error {
			_, err := r.Put(ctx, mr.Identity{ID: "b", TTL: time.Hour}, mr.Create)
			return err
		},
		"renew":  func(ctx context.Context) error { _, err := r.Renew(ctx, "a", 0); return err },
		"delete": func(ctx context.Context) error { _, err := r.Delete(ctx, "a", 0); return err },
		"head":   func(ctx context.Context) error { _, err := r.Head(ctx); return err },
		"ping":   r.Ping,
		"changes": func(ctx context.Context) (last error) {
			for _, last = range r.Changes(ctx, "") {
			}
			return last
		},
		"scan": func(ctx context.Context) (last error) {
			for _, last = range r.Scan(ctx, nil) {
			}
			return last
		},
	} {
		if err := call(t.Context()); !errors.Is(err, mr.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, mr.ErrUnavailable) {
			t.Errorf("%s, with a deadline: %v", name, err)
		}
		cancel()
	}
	fault.Heal()
	until(t, "the registry is back", func() bool { return r.Ping(within(t)) == nil })
	if _, err := r.Renew(within(t), "a", 0); err != nil && !errors.Is(err, mr.ErrNotFound) { // the delete may have got through
		t.Error(err)
	}
}

// TestRegistryRefused opens and uses registries without the permission to.
func TestRegistryRefused(t *testing.T) {
	n := testenv.NewNATS(t, func(o *server.Options) {
		deny := func(subjects ...string) *server.Permissions {
			return &server.Permissions{Publish: &server.SubjectPermission{Deny: subjects}}
		}
		o.Users = []*server.User{
			{Username: "all", Password: "x"},
			{Username: "reader", Password: "x", Permissions: deny("$KV.>")},
			{Username: "writer", Password: "x", Permissions: deny("$JS.API.DIRECT.>")},
			{Username: "none", Password: "x", Permissions: deny("$JS.>")},
		}
	})
	as := func(user string) *Conn {
		return opened(t, Config{Servers: []string{n.URL}, User: user, Password: "x", Timeout: 300 * time.Millisecond})
	}
	cfg := RegistryConfig{Namespace: "refused"}
	putOne(t, registry(t, as("all"), cfg), "a", time.Hour)
	if _, err := OpenRegistry(within(t), as("none"), cfg); !errors.Is(err, mr.ErrUnsupported) || !strings.Contains(err.Error(), "$JS.API") {
		t.Errorf("open: %v", err)
	}
	if _, err := registry(t, as("reader"), cfg).Put(within(t), mr.Identity{ID: "b", TTL: time.Hour}, mr.Create); !errors.Is(err, mr.ErrUnsupported) ||
		!strings.Contains(err.Error(), "$KV.prism-refused.b") {
		t.Errorf("put: %v", err)
	}
	writer := registry(t, as("writer"), cfg)
	if _, err := writer.Renew(within(t), "a", 0); !errors.Is(err, mr.ErrUnsupported) {
		t.Errorf("renew: %v", err)
	}
	for _, err := range writer.Scan(within(t), nil) {
		if !errors.Is(err, mr.ErrUnsupported) {
			t.Errorf("scan: %v", err)
		}
	}
}

func TestOpenRegistryFails(t *testing.T) {
	bare := testenv.NewNATS(t, func(o *server.Options) { o.JetStream = false })
	_, err := OpenRegistry(within(t), opening(t, bare.URL), RegistryConfig{Namespace: "a"})
	if !errors.Is(err, mr.ErrUnsupported) {
		t.Errorf("without JetStream: %v", err)
	}
	url := testenv.NATS(t).URL
	c := opening(t, url)
	cfg := RegistryConfig{Namespace: testenv.Prefix(t)}
	registry(t, c, cfg)
	for field, change := range map[string]func(*RegistryConfig){
		"storage":  func(cfg *RegistryConfig) { cfg.Storage = StorageMemory },
		"max_msgs": func(cfg *RegistryConfig) { cfg.ChangeLog = 5000 },
	} {
		other := cfg
		change(&other)
		if _, err := OpenRegistry(within(t), c, other); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("another %s: %v", field, err)
		}
	}
	if _, err := OpenRegistry(within(t), c, RegistryConfig{Namespace: testenv.Prefix(t), Replicas: 3}); err == nil {
		t.Error("three replicas on one server")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := OpenRegistry(ctx, c, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	var bad *mr.InvalidError
	for field, cfg := range map[string]RegistryConfig{
		"namespace":  {Namespace: "A"},
		"replicas":   {Namespace: "a", Replicas: 6},
		"storage":    {Namespace: "a", Storage: "tape"},
		"change_log": {Namespace: "a", ChangeLog: -1},

		"outage_after": {Namespace: "a", OutageAfter: time.Second},
	} {
		if _, err := OpenRegistry(t.Context(), c, cfg); !errors.As(err, &bad) || bad.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	large := mr.Identity{ID: "large", Metadata: map[string]any{"text": strings.Repeat("x", 2<<20)}, TTL: time.Hour}
	if _, err := registry(t, c, cfg).Put(within(t), large, mr.Create); !errors.As(err, &bad) || bad.Field != "metadata" {
		t.Errorf("too large: %v", err)
	}
}

// TestRegistryManyKeys lists more keys than the server lists at once.
func TestRegistryManyKeys(t *testing.T) {
	r := registry(t, opening(t, testenv.NATS(t).URL), RegistryConfig{Namespace: testenv.Prefix(t), Storage: StorageMemory})
	const many = 101_500
	data := (&record{TTL: -1, Registered: 1}).append(nil)
	for n := range many {
		if err := r.conn.nc.Publish(fmt.Sprintf("%s%d", r.prefix, n), data); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the server has stored them", func() bool {
		head, err := r.Head(within(t))
		if err != nil {
			t.Fatal(err)
		}
		return head == many
	})
	keys, head, err := r.bucket.subjects(within(t), ">")
	if err != nil || head != many || len(keys) != many {
		t.Fatalf("%d keys, head %d, %v", len(keys), head, err)
	}
	seen := make(map[string]bool, many)
	for _, key := range keys {
		if seen[key] {
			t.Fatalf("%s is listed twice", key)
		}
		seen[key] = true
	}
}

// TestRegistryReadKeys reads keys of which some are gone, and from a replica that is behind.
func TestRegistryReadKeys(t *testing.T) {
	r := registry(t, opening(t, testenv.NATS(t).URL), RegistryConfig{Namespace: testenv.Prefix(t)})
	stored := putOne(t, r, "a", time.Hour)
	reader, err := r.bucket.open()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.close()
	for _, keys := range [][]string{{"a", "gone"}, {"gone", "gone-2"}} {
		var visited []string
		subjects := make([]string, len(keys))
		for i, key := range keys {
			subjects[i] = r.prefix + key
		}
		err := r.readKeys(within(t), reader, subjects, uint64(stored.Revision), func(name string, _ state) error {
			visited = append(visited, name)
			return nil
		})
		if want := strings.Count(strings.Join(keys, ","), "a"); err != nil || len(visited) != want {
			t.Errorf("%v: visited %v, %v", keys, visited, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = r.readKeys(ctx, reader, []string{r.prefix + "a"}, uint64(stored.Revision)+1, func(name string, _ state) error {
		t.Errorf("visited %s, which is older than the scan", name)
		return nil
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a replica that stays behind: %v", err)
	}
}
