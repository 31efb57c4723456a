package redis

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

// entries returns the change log, each entry as "<revision> k=… i=…", with b where it is.
func entries(t testing.TB, r *Registry) []string {
	t.Helper()
	log, err := do(t, r.conn, "XRANGE", r.keys.log, "-", "+").AsXRange()
	noError(t, err)
	out := make([]string, len(log))
	for i, entry := range log {
		out[i] = strings.TrimSuffix(entry.ID, "-0") + " " + entry.FieldValues["k"] + " " + entry.FieldValues["i"]
		if b, ok := entry.FieldValues["b"]; ok {
			out[i] += " after " + b
		}
	}
	return out
}

func wantEntries(t testing.TB, r *Registry, want ...string) {
	t.Helper()
	if got := entries(t, r); strings.Join(got, "; ") != strings.Join(want, "; ") {
		t.Errorf("log: %q\nwant %q", got, want)
	}
}

// unswept returns a registry that nobody sweeps.
func unswept(t testing.TB, c *Conn, cfg RegistryConfig) *Registry {
	t.Helper()
	cfg.Namespace = testenv.Prefix(t)
	return NewRegistry(c, cfg)
}

func put(t testing.TB, r mr.Registry, id string, ttl time.Duration) mr.Identity {
	t.Helper()
	stored, err := r.Put(t.Context(), mr.Identity{ID: id, Metadata: map[string]any{"of": id}, TTL: ttl}, mr.Replace)
	noError(t, err)
	return stored
}

// expired puts an identity and waits until it has expired.
func expired(t testing.TB, r *Registry, id string) {
	t.Helper()
	put(t, r, id, time.Millisecond)
	eventually(t, "it has expired", func() bool {
		live, err := r.Live(t.Context(), []string{id})
		return err == nil && !live[0]
	})
}

func TestLog(t *testing.T) {
	r := unswept(t, shared(t), RegistryConfig{})
	put(t, r, "a", time.Hour)
	put(t, r, "b/c", mr.NoExpiry)
	_, err := r.Renew(t.Context(), "a", 0)
	noError(t, err)
	_, err = r.Delete(t.Context(), "b/c", 0)
	noError(t, err)
	expired(t, r, "a") // 5
	again := put(t, r, "a", time.Hour)
	if again.Revision != 7 {
		t.Errorf("revision %d", again.Revision)
	}
	expired(t, r, "a") // 8
	if existed, err := r.Delete(t.Context(), "a", again.Revision); existed || err != nil {
		t.Errorf("delete of what has expired: %v, %v", existed, err)
	}
	wantEntries(t, r, "1 p a", "2 p b=2Fc", "3 r a", "4 d b=2Fc", "5 p a", "6 x a", "7 p a", "8 p a", "9 x a")
	head, err := r.Head(t.Context())
	if head != 9 || err != nil {
		t.Errorf("head %d, %v", head, err)
	}
	entry, err := do(t, r.conn, "XRANGE", r.keys.log, "7-0", "7-0").AsXRange()
	noError(t, err)
	ms := func(at time.Time) string { return strconv.FormatInt(at.UnixMilli(), 10) }
	want := map[string]string{
		"k": "p", "i": "a", "m": `{"of":"a"}`, "t": "3600000", "r": ms(again.RegisteredAt), "e": ms(again.ExpiresAt),
	}
	if got := entry[0].FieldValues; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("entry %v\nwant %v", got, want)
	}
}

func TestLogIsCapped(t *testing.T) {
	c := shared(t)
	for least, most := range map[int]int{1: 1, 10: 10, 1000: 1200} {
		r := unswept(t, c, RegistryConfig{ChangeLog: least})
		for range 1300 {
			put(t, r, "a", time.Hour)
		}
		if n := len(entries(t, r)); n < least || n > most {
			t.Errorf("a log of %d has %d entries", least, n)
		}
	}
}

// TestFloor has two shards share a clock: a revision is above all that this process has seen, and the log says where it jumps.
func TestFloor(t *testing.T) {
	c := shared(t)
	cfg := RegistryConfig{Namespace: testenv.Prefix(t)}
	clock := new(atomic.Uint64)
	a, b := newShard(c, cfg, 0, 2), newShard(c, cfg, 1, 2)
	a.clock, b.clock = clock, clock
	put(t, a, "a", time.Hour)
	put(t, a, "b", time.Hour)
	if got := put(t, b, "a", time.Hour).Revision; got != 3 {
		t.Errorf("revision %d", got)
	}
	_, err := a.Renew(t.Context(), "b", 0)
	noError(t, err)
	_, err = b.Delete(t.Context(), "a", 0)
	noError(t, err)
	expired(t, a, "c")
	put(t, b, "d", time.Hour)
	if swept, err := a.sweep(t.Context()); swept.met != 1 || err != nil {
		t.Errorf("swept %d, %v", swept.met, err)
	}
	wantEntries(t, a, "1 p a", "2 p b", "4 r b after 2", "6 p c after 4", "8 x c after 6")
	wantEntries(t, b, "3 p a after 0", "5 d a after 3", "7 p d after 5")
	if clock.Load() != 8 {
		t.Errorf("the clock is %d", clock.Load())
	}
	if _, err := do(t, c, "HSET", a.keys.head, "revision", "100").AsInt64(); err != nil {
		t.Error(err)
	}
	if head, err := a.Head(t.Context()); head != 100 || err != nil || clock.Load() != 100 {
		t.Errorf("head %d, %v; the clock is %d", head, err, clock.Load())
	}
}

// TestExpiryOfKeys checks that no hash of an identity with a lease is without an expiry, whatever happened to it, and that it
// outlives the lease by its TTL and by a day.
func TestExpiryOfKeys(t *testing.T) {
	c := shared(t)
	r := registry(t, c, RegistryConfig{})
	const long = 100 * time.Hour
	endless := map[string]bool{}
	for n, id := range slottest.HostileIdentities() {
		switch n % 5 {
		case 0:
			put(t, r, id, time.Hour)
		case 1:
			put(t, r, id, mr.NoExpiry)
			put(t, r, id, time.Hour)
		case 2:
			put(t, r, id, time.Hour)
			put(t, r, id, mr.NoExpiry)
		case 3:
			put(t, r, id, mr.NoExpiry)
			_, err := r.Renew(t.Context(), id, long)
			noError(t, err)
		case 4:
			put(t, r, id, time.Hour)
			_, err := r.Renew(t.Context(), id, mr.NoExpiry)
			noError(t, err)
		}
		endless[r.keys.of(id)] = n%5 == 2 || n%5 == 4
	}
	if n, err := r.Count(t.Context()); n != len(endless) || err != nil {
		t.Errorf("count %d, %v", n, err)
	}
	for key, never := range endless {
		at, err := do(t, c, "PEXPIRETIME", key).AsInt64()
		noError(t, err)
		e, err := do(t, c, "HGET", key, "e").AsInt64()
		noError(t, err)
		ttl, err := do(t, c, "HGET", key, "t").AsInt64()
		noError(t, err)
		if never && (at != -1 || e != 0) || !never && (e <= 0 || at != e+max(ttl, (24*time.Hour).Milliseconds())) {
			t.Errorf("%s: endless %v, e %d, Redis expires it at %d", key, never, e, at)
		}
	}
}

// TestEvicted has hashes vanish before their time, as an eviction or a careless hand does it: those are not live.
func TestEvicted(t *testing.T) {
	r := unswept(t, shared(t), RegistryConfig{MaxIdentities: 2})
	for _, id := range []string{"a", "b"} {
		put(t, r, id, time.Hour)
		do(t, r.conn, "DEL", r.keys.of(id))
	}
	if _, err := r.Renew(t.Context(), "a", 0); !errors.Is(err, mr.ErrNotFound) {
		t.Errorf("renew: %v", err)
	}
	_, err := r.Put(t.Context(), mr.Identity{ID: "a", TTL: time.Hour}, mr.Create)
	noError(t, err)
	if existed, err := r.Delete(t.Context(), "b", 0); existed || err != nil {
		t.Errorf("delete: %v, %v", existed, err)
	}
	put(t, r, "c", time.Hour)
	if _, err := r.Put(t.Context(), mr.Identity{ID: "d", TTL: time.Hour}, mr.Create); !errors.Is(err, mr.ErrQuota) {
		t.Errorf("one more: %v", err)
	}
	wantEntries(t, r, "1 p a", "2 p b", "3 x a", "4 p a", "5 x b", "6 p c")
}

// TestLostHead has the head vanish while the log stays: history begins anew, under another epoch, and goes beyond what was.
func TestLostHead(t *testing.T) {
	r := unswept(t, shared(t), RegistryConfig{})
	put(t, r, "a", time.Hour)
	put(t, r, "b", time.Hour)
	before := text(t, r.conn, "HGET", r.keys.head, "epoch")
	do(t, r.conn, "DEL", r.keys.head)
	put(t, r, "a", time.Hour)
	if after := text(t, r.conn, "HGET", r.keys.head, "epoch"); after == before || before == "" {
		t.Errorf("the epoch was %q and is %q", before, after)
	}
	wantEntries(t, r, "3 p a after 0")
	do(t, r.conn, "DEL", r.keys.head)
	put(t, NewRegistry(r.conn, r.cfg), "a", time.Hour) // which has seen nothing
	wantEntries(t, r, "1 p a")
}

func TestRegistryConfig(t *testing.T) {
	for field, cfg := range map[string]RegistryConfig{
		"":               {},
		"max_identities": {MaxIdentities: -1},
		"shards":         {Shards: 129},
		"change_log":     {ChangeLog: -1},
		"enumerate":      {Enumerate: "replica"},
		"outage_after":   {OutageAfter: 2*time.Second - 1},
	} {
		wantField(t, cfg.Validate(), field)
	}
	wantField(t, RegistryConfig{Shards: -1}.Validate(), "shards")
	wantField(t, RegistryConfig{Shards: 128, Enumerate: EnumerateScan, ChangeLog: 1, MaxIdentities: 1}.Validate(), "")
}

// wantField fails the test unless an error is an InvalidError of a field; without a field, unless there is no error.
func wantField(t testing.TB, err error, field string) {
	t.Helper()
	if field == "" {
		noError(t, err)
		return
	}
	if invalid, ok := errors.AsType[*mr.InvalidError](err); !ok || invalid.Field != field {
		t.Errorf("got %v, want a fault in %s", err, field)
	}
}

func TestTTLs(t *testing.T) {
	for ttl, want := range map[time.Duration]string{
		mr.NoExpiry: "-1", 1: "1", time.Millisecond: "1", time.Millisecond + 1: "2", time.Hour: "3600000",
	} {
		if got := millis(ttl); got != want {
			t.Errorf("%d: %s, want %s", ttl, got, want)
		}
	}
	r := unswept(t, shared(t), RegistryConfig{})
	if stored := put(t, r, "a", time.Minute+1); stored.TTL != time.Minute+time.Millisecond {
		t.Errorf("stored %v", stored.TTL)
	}
}
