package redis

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// TestChangesBadEntry puts into the log what no script writes.
func TestChangesBadEntry(t *testing.T) {
	c := shared(t)
	r := registry(t, c, RegistryConfig{})
	store(t, r, "a")
	feed := read(t, r, "")
	synced, _ := feed.until(mr.Synced)
	noError(t, do(t, c, "XADD", r.keys.log, "2-0", "k", "p", "i", "b", "m", "{", "t", "1", "r", "1", "e", "1").Error())
	noError(t, do(t, c, "HSET", r.keys.head, "revision", "2").Error())
	if err := feed.fails(); !strings.Contains(err.Error(), "redis: changes: ") || !strings.Contains(err.Error(), r.keys.log) {
		t.Error(err)
	}
	if err := read(t, r, synced.Position).fails(); !strings.Contains(err.Error(), r.keys.log) {
		t.Error(err)
	}
	noError(t, do(t, c, "HSET", r.keys.head, "revision", "x").Error())
	if err := read(t, r, "").fails(); !strings.Contains(err.Error(), r.keys.head) {
		t.Error(err)
	}
}

// TestChangesLostData takes the data away while a feed is read: what follows is told anew, whatever its revisions are.
func TestChangesLostData(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(c *Conn, r *Registry) error{
		"flushed":  func(c *Conn, _ *Registry) error { return do(t, c, "FLUSHALL").Error() },
		"no log":   func(c *Conn, r *Registry) error { store(t, r, "x"); return do(t, c, "DEL", r.keys.log).Error() },
		"an older": func(c *Conn, r *Registry) error { return do(t, c, "HSET", r.keys.head, "revision", "1").Error() },
	} {
		t.Run(name, func(t *testing.T) {
			server := testenv.NewRedis(t)
			c := connect(t, Config{Host: server.Addr})
			r := registry(t, c, RegistryConfig{})
			store(t, r, "a", "b", "c")
			waiting := read(t, r, "")
			last, _ := waiting.until(mr.Synced)
			noError(t, lose(c, r))
			waiting.until(mr.Reset)
			if name != "flushed" {
				return
			}
			_, what := waiting.until(mr.Synced)
			if what != "" {
				t.Errorf("the empty registry is told to have %s", what)
			}
			store(t, r, "d", "e", "f", "g", "h") // beyond where the reader was
			if _, what := waiting.until(mr.Synced); what != "2:d 2:e 2:f 2:g 2:h " {
				t.Errorf("after the loss came %s", what)
			}
			again := read(t, r, last.Position)
			again.until(mr.Reset)
			if _, what := again.until(mr.Synced); strings.Count(what, "2:") != 5 {
				t.Errorf("after the loss there is %s", what)
			}
		})
	}
}

// TestChangesFlushedBetween lets the log be one of another history that reaches beyond the reader's place when it looks.
func TestChangesFlushedBetween(t *testing.T) {
	server := testenv.NewRedis(t)
	c := connect(t, Config{Host: server.Addr})
	r := registry(t, c, RegistryConfig{})
	store(t, r, "a", "b", "c")
	feed := read(t, r, "")
	feed.until(mr.Synced) // and the reader does not look until asked again
	noError(t, do(t, c, "FLUSHALL").Error())
	store(t, r, "d", "e", "f", "g", "h")
	if _, what := feed.until(mr.Reset); what != "" {
		t.Errorf("before the reset came %s", what)
	}
	if _, what := feed.until(mr.Synced); strings.Count(what, "2:") != 5 {
		t.Errorf("after the reset came %s", what)
	}
}

// TestChangesOutage has Redis killed: the feed ends, and begins anew once Redis is back, because it may have lost something.
func TestChangesOutage(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	c := connect(t, Config{Host: server.Addr, Timeout: time.Second})
	for _, r := range []SweptRegistry{
		registry(t, c, RegistryConfig{}), sharded(t, c, RegistryConfig{}),
	} {
		store(t, r, "a", "b")
		feed := read(t, r, "")
		last, _ := feed.until(mr.Synced)
		server.Kill()
		if err := feed.fails(); !errors.Is(err, mr.ErrUnavailable) {
			t.Error(err)
		}
		if err := read(t, r, last.Position).fails(); !errors.Is(err, mr.ErrUnavailable) {
			t.Error(err)
		}
		server.Start()
		eventually(t, "Redis is back", func() bool { return r.Ping(t.Context()) == nil })
		store(t, r, "c")
		if _, what := read(t, r, last.Position).until(mr.Synced); !sameChanges(what, "1: 2:a 2:b 2:c ") {
			t.Errorf("after the outage came %q", what)
		}
	}
}

// sameChanges tells whether two texts of reader.until are the same, the order aside.
func sameChanges(a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// TestChangesOlderData has Redis come back with older data, and make more changes than it has lost: a reader that had those
// begins anew, and what had a revision that was lost is not taken for what came after it.
func TestChangesOlderData(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		shards int
		knows  bool // who makes the changes knows what was lost
	}{
		{"1 shard", 1, true},
		{"1 shard, another process", 1, false},
		{"3 shards", 3, true},
		{"3 shards, another process", 3, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := testenv.NewRedis(t)
			c := connect(t, Config{Host: server.Addr, Timeout: time.Second})
			cfg := RegistryConfig{Namespace: testenv.Prefix(t), Shards: row.shards}
			r, err := OpenRegistry(c, cfg)
			noError(t, err)
			store(t, r, "a", "b")
			noError(t, do(t, c, "SAVE").Error())
			lost := store(t, r, "lost", "again")
			last, _ := read(t, r, "").until(mr.Synced)
			server.Kill()
			server.Start()
			eventually(t, "Redis is back", func() bool { return r.Ping(t.Context()) == nil })
			writer := r
			if !row.knows {
				writer, err = OpenRegistry(c, cfg)
				noError(t, err)
			}
			store(t, writer, "new", "again", "newer", "newest")
			if row.knows {
				if existed, err := r.Delete(t.Context(), "again", lost.Revision); existed || err != nil {
					t.Errorf("deleted by a revision that was lost: %v, %v", existed, err)
				}
			}
			live := "1: "
			for identity, err := range r.Scan(t.Context(), nil) {
				noError(t, err)
				live += "2:" + identity.ID + " "
			}
			if !sameChanges(live, "1: 2:a 2:b 2:new 2:again 2:newer 2:newest") {
				t.Errorf("live: %s", live)
			}
			feed := read(t, r, last.Position)
			synced, what := feed.until(mr.Synced)
			if !sameChanges(what, live) {
				t.Errorf("after the loss came %q, and live is %q", what, live)
			}
			stored := store(t, writer, "late")
			if c, _ := feed.until(mr.Put); c.Identity.ID != "late" || c.Revision != stored.Revision {
				t.Errorf("then came %+v", c)
			}
			if _, what := read(t, r, synced.Position).until(mr.Synced); what != "2:late " {
				t.Errorf("from there on came %q", what)
			}
		})
	}
}

// TestChangesWithoutInfo has a user who may not ask for the run id: a feed works, and can be resumed.
func TestChangesWithoutInfo(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	admin := connect(t, Config{Host: server.Addr})
	text(t, admin, "ACL", "SETUSER", "prism", "on", ">secret", "+@all", "-info", "~*", "&*")
	user := connect(t, Config{Host: server.Addr, Username: "prism", Password: "secret"})
	r := registry(t, user, RegistryConfig{})
	store(t, r, "a")
	last, _ := read(t, r, "").until(mr.Synced)
	if at, ok := parsePosition(last.Position); !ok || at.run != "" {
		t.Errorf("the position is %q", last.Position)
	}
	store(t, r, "b")
	synced, what := read(t, r, last.Position).until(mr.Synced)
	if what != "2:b " {
		t.Errorf("resumed: %q", what)
	}
	text(t, admin, "ACL", "SETUSER", "prism", "+info")
	store(t, r, "c")
	if _, what := read(t, r, synced.Position).until(mr.Synced); what != "2:c " {
		t.Errorf("resumed with the right: %q", what)
	}
}

// TestChangesShortTimeout has operations end before a feed says Synced again: an idle feed lives on.
func TestChangesShortTimeout(t *testing.T) {
	t.Parallel()
	c := connect(t, Config{Host: testenv.Redis(t).Addr, Timeout: 300 * time.Millisecond})
	r := unswept(t, c, RegistryConfig{})
	feed := read(t, r, "")
	feed.until(mr.Synced)
	for began := time.Now(); time.Since(began) < 3*mr.ChangesIdle/2; {
		feed.until(mr.Synced)
	}
	store(t, r, "a")
	feed.until(mr.Put)
}

// TestChangesStall has the network swallow everything: a feed does not wait for ever, nor longer than its context.
func TestChangesStall(t *testing.T) {
	fault := testenv.NewFault(t, testenv.Redis(t).Addr)
	c := connect(t, Config{Host: fault.Addr, Timeout: time.Second})
	r := registry(t, c, RegistryConfig{})
	feed := read(t, r, "")
	feed.until(mr.Synced)
	fault.Stall()
	if err := feed.fails(); !errors.Is(err, mr.ErrUnavailable) {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for _, err := range r.Changes(ctx, "") {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	}
	fault.Heal()
	eventually(t, "the network is back", func() bool { return r.Ping(t.Context()) == nil })
	read(t, r, "").until(mr.Synced)
}
