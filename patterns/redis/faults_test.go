package redis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// state returns all that Redis holds of a namespace, but for the marks that sweeps leave.
func state(t testing.TB, c *Conn, namespace string) map[string]string {
	t.Helper()
	keys, err := do(t, c, "KEYS", "{prism:"+namespace+"*").AsStrSlice()
	noError(t, err)
	all := make(map[string]string, len(keys))
	for _, key := range keys {
		at, err := do(t, c, "PEXPIRETIME", key).AsInt64()
		noError(t, err)
		if strings.HasSuffix(key, ":head") {
			head, err := do(t, c, "HGETALL", key).AsStrMap()
			noError(t, err)
			delete(head, "seen")
			delete(head, "swept")
			all[key] = fmt.Sprint(at, head)
			continue
		}
		all[key] = fmt.Sprintf("%d %q", at, text(t, c, "DUMP", key))
	}
	return all
}

// changes are all ways to change a registry that has a live identity "live" and an expired one, "expired".
var changes = []struct {
	name string
	run  func(ctx context.Context, r *Registry) error
}{
	{"create", func(ctx context.Context, r *Registry) error {
		_, err := r.Put(ctx, mr.Identity{ID: "new", TTL: time.Hour}, mr.Create)
		return err
	}},
	{"replace", func(ctx context.Context, r *Registry) error {
		_, err := r.Put(ctx, mr.Identity{ID: "live", TTL: mr.NoExpiry}, mr.Replace)
		return err
	}},
	{"create over expired", func(ctx context.Context, r *Registry) error {
		_, err := r.Put(ctx, mr.Identity{ID: "expired", TTL: time.Hour}, mr.Create)
		return err
	}},
	{"renew", func(ctx context.Context, r *Registry) error {
		_, err := r.Renew(ctx, "live", time.Minute)
		return err
	}},
	{"renew for ever", func(ctx context.Context, r *Registry) error {
		_, err := r.Renew(ctx, "live", mr.NoExpiry)
		return err
	}},
	{"delete", func(ctx context.Context, r *Registry) error {
		_, err := r.Delete(ctx, "live", 0)
		return err
	}},
	{"delete expired", func(ctx context.Context, r *Registry) error {
		_, err := r.Delete(ctx, "expired", 0)
		return err
	}},
	{"sweep", func(ctx context.Context, r *Registry) error {
		_, err := r.sweep(ctx)
		return err
	}},
}

// populated returns a registry of its own with what changes needs, or an empty one.
func populated(t testing.TB, c *Conn, empty bool) *Registry {
	t.Helper()
	r := unswept(t, c, RegistryConfig{})
	if !empty {
		put(t, r, "live", time.Hour)
		expired(t, r, "expired")
	}
	return r
}

// TestRights takes one right after the other from the Redis user: a change that needs it names it and changes nothing, and
// succeeds once the right is there.
func TestRights(t *testing.T) {
	server := testenv.NewRedis(t)
	admin := connect(t, Config{Host: server.Addr})
	text(t, admin, "ACL", "SETUSER", "prism", "on", ">secret", "+@all", "~*", "&*")
	user := connect(t, Config{Host: server.Addr, Username: "prism", Password: "secret"})
	for _, command := range []string{"HSET", "HINCRBY", "DEL", "XADD", "ZADD", "PEXPIREAT", "PERSIST", "ZREM", "ZRANGE", "TIME", "HGET", "HMGET"} {
		refused := 0
		for _, change := range changes {
			for _, empty := range []bool{false, true} {
				mine := populated(t, admin, empty)
				before := state(t, admin, mine.cfg.Namespace)
				text(t, admin, "ACL", "SETUSER", "prism", "-"+command)
				err := change.run(t.Context(), NewRegistry(user, mine.cfg))
				text(t, admin, "ACL", "SETUSER", "prism", "+"+command)
				if err == nil || errors.Is(err, mr.ErrNotFound) {
					continue
				}
				refused++
				if !errors.Is(err, mr.ErrUnsupported) || !strings.Contains(strings.ToUpper(err.Error()), command) {
					t.Errorf("%s without %s: %v", change.name, command, err)
				}
				if after := state(t, admin, mine.cfg.Namespace); !maps.Equal(before, after) {
					t.Errorf("%s without %s changes %v\nto %v", change.name, command, before, after)
				}
				err = change.run(t.Context(), NewRegistry(user, mine.cfg))
				if err != nil && (!empty || !errors.Is(err, mr.ErrNotFound)) {
					t.Errorf("%s, with %s again: %v", change.name, command, err)
				}
			}
		}
		if refused == 0 {
			t.Errorf("nothing needs %s", command)
		}
	}
}

// TestRightsOnKeys takes the right to one kind of key.
func TestRightsOnKeys(t *testing.T) {
	server := testenv.NewRedis(t)
	admin := connect(t, Config{Host: server.Addr})
	for _, kind := range []string{"id:*", "leases", "head", "log"} {
		var rest []string
		for _, other := range []string{"id:*", "leases", "head", "log"} {
			if other != kind {
				rest = append(rest, "~{prism:*}:"+other)
			}
		}
		text(t, admin, "ACL", append([]string{"SETUSER", "prism", "reset", "on", ">secret", "+@all"}, rest...)...)
		user := connect(t, Config{Host: server.Addr, Username: "prism", Password: "secret"})
		for _, change := range changes {
			mine := populated(t, admin, false)
			before := state(t, admin, mine.cfg.Namespace)
			if err := change.run(t.Context(), NewRegistry(user, mine.cfg)); !errors.Is(err, mr.ErrUnsupported) {
				t.Errorf("%s without %s: %v", change.name, kind, err)
			}
			if after := state(t, admin, mine.cfg.Namespace); !maps.Equal(before, after) {
				t.Errorf("%s without %s changes %v\nto %v", change.name, kind, before, after)
			}
		}
	}
}

// TestMaxMemory has Redis at its maxmemory: registrations are refused as a whole; what frees memory, and renewals, work.
func TestMaxMemory(t *testing.T) {
	c := connect(t, Config{Host: testenv.NewRedis(t).Addr})
	for _, change := range changes {
		r := populated(t, c, false)
		before := state(t, c, r.cfg.Namespace)
		text(t, c, "CONFIG", "SET", "maxmemory", "1")
		err := change.run(t.Context(), r)
		_, countErr := r.Count(t.Context())
		text(t, c, "CONFIG", "SET", "maxmemory", "0")
		noError(t, countErr)
		after := state(t, c, r.cfg.Namespace)
		if !strings.Contains(change.name, "create") && change.name != "replace" {
			if err != nil || maps.Equal(before, after) {
				t.Errorf("%s: %v", change.name, err)
			}
			continue
		}
		if !errors.Is(err, mr.ErrQuota) || !strings.Contains(err.Error(), "maxmemory") || !maps.Equal(before, after) {
			t.Errorf("%s: %v", change.name, err)
		}
		noError(t, change.run(t.Context(), r))
	}
}

// TestPausedWrites has Redis hold back changes: those end with their deadline, and reads go on.
func TestPausedWrites(t *testing.T) {
	server := testenv.NewRedis(t)
	admin, c := connect(t, Config{Host: server.Addr}), connect(t, Config{Host: server.Addr, Timeout: 500 * time.Millisecond})
	r := unswept(t, c, RegistryConfig{})
	put(t, r, "a", time.Hour)
	scanned := func() {
		t.Helper()
		n := 0
		for _, err := range r.Scan(t.Context(), nil) {
			noError(t, err)
			n++
		}
		if n != 1 {
			t.Errorf("%d identities", n)
		}
	}
	scanned()
	_, err := r.Count(t.Context())
	noError(t, err)
	text(t, admin, "CLIENT", "PAUSE", "600000", "WRITE")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Put(ctx, mr.Identity{ID: "b", TTL: time.Hour}, mr.Create); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("put with a deadline: %v", err)
	}
	if _, err := r.Renew(t.Context(), "a", 0); !errors.Is(err, mr.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("renew without a deadline: %v", err)
	}
	scanned()
	if n, err := r.Count(t.Context()); n != 1 || err != nil {
		t.Errorf("count: %d, %v", n, err)
	}
	if head, err := r.Head(t.Context()); head != 1 || err != nil {
		t.Errorf("head: %d, %v", head, err)
	}
	text(t, admin, "CLIENT", "UNPAUSE")
	eventually(t, "changes go on", func() bool {
		_, err := r.Put(t.Context(), mr.Identity{ID: "a", TTL: time.Hour}, mr.Replace)
		return err == nil
	})
}

// TestStalled has nothing come back from Redis at all.
func TestStalled(t *testing.T) {
	t.Parallel()
	fault := testenv.NewFault(t, testenv.Redis(t).Addr)
	c := connect(t, Config{Host: fault.Addr, Timeout: 300 * time.Millisecond})
	r := unswept(t, c, RegistryConfig{})
	put(t, r, "a", time.Hour)
	fault.Stall()
	ctx, cancel := context.WithCancel(t.Context())
	for name, call := range map[string]func(ctx context.Context) error{
		"put": func(ctx context.Context) error {
			_, err := r.Put(ctx, mr.Identity{ID: "a", TTL: 1}, mr.Replace)
			return err
		},
		"renew": func(ctx context.Context) error { _, err := r.Renew(ctx, "a", 0); return err },
		"count": func(ctx context.Context) error { _, err := r.Count(ctx); return err },
		"head":  func(ctx context.Context) error { _, err := r.Head(ctx); return err },
		"ping":  r.Ping,
	} {
		if err := call(t.Context()); !errors.Is(err, mr.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
		soon, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := call(soon); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s with a deadline: %v", name, err)
		}
		cancel()
	}
	cancel()
	if _, err := r.Put(ctx, mr.Identity{ID: "a", TTL: 1}, mr.Replace); !errors.Is(err, context.Canceled) {
		t.Errorf("put, cancelled: %v", err)
	}
	fault.Heal()
	eventually(t, "it works again", func() bool { return r.Ping(t.Context()) == nil })
	put(t, r, "a", time.Hour)
}

// TestRestart has Redis killed, and come back without its data: the registry is unavailable, then empty, in another epoch.
func TestRestart(t *testing.T) {
	server := testenv.NewRedis(t)
	c := connect(t, Config{Host: server.Addr, Timeout: time.Second})
	r := registry(t, c, RegistryConfig{})
	first := put(t, r, "a", time.Hour)
	before := text(t, c, "HGET", r.keys.head, "epoch")
	server.Kill()
	for _, change := range changes {
		if err := change.run(t.Context(), r); !errors.Is(err, mr.ErrUnavailable) || !strings.HasPrefix(err.Error(), "redis: ") {
			t.Errorf("%s: %v", change.name, err)
		}
	}
	if err := r.Ping(t.Context()); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("ping: %v", err)
	}
	if _, err := r.Count(t.Context()); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("count: %v", err)
	}
	server.Start()
	eventually(t, "it answers", func() bool { return r.Ping(t.Context()) == nil })
	if _, err := r.Renew(t.Context(), "a", 0); !errors.Is(err, mr.ErrNotFound) {
		t.Errorf("renew: %v", err)
	}
	if again := put(t, r, "a", time.Hour); again.Revision != first.Revision+1 {
		t.Errorf("revision %d, then %d", first.Revision, again.Revision)
	}
	if after := text(t, c, "HGET", r.keys.head, "epoch"); after == before {
		t.Errorf("the epoch is %q, as before", after)
	}
}

// TestReset has connections break under load: a call fails as unavailable or does what it is to do, and the next ones work.
func TestReset(t *testing.T) {
	fault := testenv.NewFault(t, testenv.Redis(t).Addr)
	r := unswept(t, connect(t, Config{Host: fault.Addr}), RegistryConfig{})
	failed := 0
	for n := range 200 {
		if n%20 == 10 {
			fault.Reset()
		}
		_, err := r.Put(t.Context(), mr.Identity{ID: "a", TTL: time.Hour}, mr.Replace)
		if err != nil {
			failed++
		}
		if err != nil && !errors.Is(err, mr.ErrUnavailable) {
			t.Errorf("put %d: %v", n, err)
		}
	}
	if failed > 100 {
		t.Errorf("%d of 200 calls fail", failed)
	}
	put(t, r, "a", time.Hour)
	log := entries(t, r)
	if len(log) < 200-failed || !slices.Contains(log, fmt.Sprintf("%d p a", len(log))) {
		t.Errorf("%d entries, %d calls failed", len(log), failed)
	}
}

// TestRightsSuffice has a user with the rights that the package's comment lists, and no others.
func TestRightsSuffice(t *testing.T) {
	server := testenv.NewRedis(t)
	admin := connect(t, Config{Host: server.Addr})
	listed := "~{prism:* &prism* +ping +hello +info +client|setname +eval +evalsha +eval_ro +evalsha_ro +time +hget " +
		"+hmget +hset +hincrby +zadd +zrem +zscore +zmscore +zscan +zcount +zrange +xadd +xread +del +pexpireat +persist"
	text(t, admin, "ACL", append([]string{"SETUSER", "prism", "reset", "on", ">secret"}, strings.Fields(listed)...)...)
	user := connect(t, Config{Host: server.Addr, Username: "prism", Password: "secret"})
	for _, change := range changes {
		r := NewRegistry(user, populated(t, admin, false).cfg)
		noError(t, change.run(t.Context(), r))
		for _, err := range r.Scan(t.Context(), nil) {
			noError(t, err)
		}
		_, err := r.Count(t.Context())
		noError(t, err)
		_, err = r.Head(t.Context())
		noError(t, err)
		for change, err := range r.Changes(t.Context(), "") {
			noError(t, err)
			if change.Kind == mr.Synced {
				break
			}
		}
		noError(t, r.Ping(t.Context()))
	}
}
