package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// short is an OutageAfter that tests need not wait for; the TTLs beside it are longer, so that what is put has not ended before
// an outage is found.
const (
	short    = 100 * time.Millisecond
	shortTTL = 300 * time.Millisecond
)

// pass waits.
func pass(t testing.TB, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// leases returns when the leases of all live identities end.
func leases(t testing.TB, r mr.Registry) map[string]time.Time {
	t.Helper()
	all := map[string]time.Time{}
	for identity, err := range r.Scan(t.Context(), nil) {
		noError(t, err)
		all[identity.ID] = identity.ExpiresAt
	}
	return all
}

// wantLive compares what Scan, Live and Count say with the names of the identities that are live.
func wantLive(t testing.TB, r SweptRegistry, names ...string) {
	t.Helper()
	slices.Sort(names)
	found := leases(t, r)
	var got []string
	for id := range found {
		got = append(got, id)
	}
	slices.Sort(got)
	n, err := r.Count(t.Context())
	noError(t, err)
	live, err := r.Live(t.Context(), names)
	noError(t, err)
	if !slices.Equal(got, names) || n != len(names) || slices.Contains(live, false) {
		t.Errorf("live: %q, count %d, probed %v; want %q", got, n, live, names)
	}
}

// TestKilledLongerThanTTL has Redis killed for longer than leases last. All that lived then lives when it is back, for a TTL,
// and what had expired before does not.
func TestKilledLongerThanTTL(t *testing.T) {
	t.Parallel()
	for _, shards := range []int{1, 3} {
		t.Run(fmt.Sprint(shards, " shards"), func(t *testing.T) {
			t.Parallel()
			server := testenv.NewRedis(t, "--appendonly", "yes", "--appendfsync", "always")
			c := connect(t, Config{Host: server.Addr, Timeout: time.Second})
			log := &lines{}
			r, err := OpenRegistry(c, RegistryConfig{
				Namespace: testenv.Prefix(t), Shards: shards, OutageAfter: 2 * time.Second,
				Log: slog.New(slog.NewTextHandler(log, nil)),
			})
			noError(t, err)
			sweeping(t, r)
			const ttl = 2 * time.Second
			feed := read(t, r, "")
			feed.until(mr.Synced)
			put(t, r, "gone", time.Millisecond)
			feed.until(mr.Expire)
			put(t, r, "long", time.Hour)
			put(t, r, "never", mr.NoExpiry)
			put(t, r, "beats", ttl)
			put(t, r, "silent", ttl)
			last, _ := feed.until(mr.Synced)
			server.Kill()
			pass(t, 3*time.Second)
			server.Start()
			eventually(t, "Redis is back", func() bool { return r.Ping(t.Context()) == nil })
			back := time.Now()
			if _, err := r.Put(t.Context(), mr.Identity{ID: "silent", TTL: ttl}, mr.Create); !errors.Is(err, mr.ErrAlreadyExists) {
				t.Errorf("create of what is saved: %v", err)
			}
			_, err = r.Put(t.Context(), mr.Identity{ID: "gone", TTL: time.Millisecond}, mr.Create)
			noError(t, err)
			pass(t, 2*time.Millisecond)
			wantLive(t, r, "long", "never", "beats", "silent")
			for id, end := range leases(t, r) {
				if short := end.Before(back.Add(ttl - time.Second)); id != "never" && short {
					t.Errorf("%s ends %v after Redis was back", id, end.Sub(back))
				}
			}
			if _, what := read(t, r, last.Position).until(mr.Synced); strings.Count(what, "2:") < 4 {
				t.Errorf("a reader is told %s", what)
			}
			eventually(t, "the silent one expires", func() bool {
				_, err := r.Renew(t.Context(), "beats", 0)
				noError(t, err)
				return len(leases(t, r)) == 3
			})
			if lived := time.Since(back); lived < ttl-time.Second {
				t.Errorf("the silent one has lived for %v", lived)
			}
			wantLive(t, r, "long", "never", "beats")
			outages := 0
			for _, line := range log.all() {
				if strings.Contains(line, "leases are extended after an outage") {
					outages++
					if !strings.Contains(line, "level=WARN") || !strings.Contains(line, "since=") || !strings.Contains(line, "until=") {
						t.Errorf("the log has %q", line)
					}
				}
			}
			if outages != 1 {
				t.Errorf("the log has %q", log.all())
			}
		})
	}
}

// TestCutLongerThanTTL has all proxies cut off from a Redis that goes on: a reader that comes back hears of the outage before it
// is Synced, and goes on where it was.
func TestCutLongerThanTTL(t *testing.T) {
	t.Parallel()
	for _, shards := range []int{1, 3} {
		t.Run(fmt.Sprint(shards, " shards"), func(t *testing.T) {
			t.Parallel()
			fault := testenv.NewFault(t, testenv.Redis(t).Addr)
			c := connect(t, Config{Host: fault.Addr, Timeout: time.Second})
			r, err := OpenRegistry(c, RegistryConfig{Namespace: testenv.Prefix(t), Shards: shards, OutageAfter: 2 * time.Second})
			noError(t, err)
			sweeping(t, r)
			const ttl = 2 * time.Second
			put(t, r, "a", ttl)
			put(t, r, "b", time.Hour)
			last, _ := read(t, r, "").until(mr.Synced)
			fault.Cut()
			pass(t, 3*time.Second)
			fault.Heal()
			eventually(t, "Redis is there again", func() bool { return r.Ping(t.Context()) == nil })
			back := time.Now()
			feed := read(t, r, last.Position)
			extend, what := feed.until(mr.Extend)
			if what != "" || extend.Since.After(back.Add(-2*time.Second)) || extend.Until.Before(back.Add(-time.Second)) {
				t.Errorf("from %v to %v, after %q", extend.Since, extend.Until, what)
			}
			feed.until(mr.Synced)
			wantLive(t, r, "a", "b")
			if _, what := feed.until(mr.Expire); strings.Contains(what, "1:") {
				t.Errorf("then came %s", what)
			}
			if lived := time.Since(back); lived < ttl-time.Second {
				t.Errorf("it has lived for %v", lived)
			}
		})
	}
}

// TestOneOfTwoIsCut has a proxy cut off while another one is not: there was no outage, and leases end.
func TestOneOfTwoIsCut(t *testing.T) {
	t.Parallel()
	fault := testenv.NewFault(t, testenv.Redis(t).Addr)
	cfg := RegistryConfig{Namespace: testenv.Prefix(t), OutageAfter: 2 * time.Second}
	mine, other := registry(t, connect(t, Config{Host: fault.Addr, Timeout: time.Second}), cfg), registry(t, shared(t), cfg)
	put(t, mine, "a", time.Second)
	fault.Cut()
	pass(t, 3*time.Second)
	fault.Heal()
	eventually(t, "Redis is there again", func() bool { return mine.Ping(t.Context()) == nil })
	wantLive(t, mine)
	wantLive(t, other)
	eventually(t, "it is swept", func() bool { return len(entries(t, other)) == 2 })
	wantEntries(t, other, "1 p a", "2 x a")
}

// TestFirstAfterOutage has each kind of call be the first one after an outage.
func TestFirstAfterOutage(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]func(t *testing.T, r *Registry) (log string){
		"create": func(t *testing.T, r *Registry) string {
			if _, err := r.Put(t.Context(), mr.Identity{ID: "a", TTL: shortTTL}, mr.Create); !errors.Is(err, mr.ErrAlreadyExists) {
				t.Errorf("create of what is saved: %v", err)
			}
			return ""
		},
		"replace": func(t *testing.T, r *Registry) string { put(t, r, "a", shortTTL); return "; 3 o ; 4 p a" },
		"renew": func(t *testing.T, r *Registry) string {
			_, err := r.Renew(t.Context(), "a", 0)
			noError(t, err)
			return "; 3 o ; 4 r a"
		},
		"another": func(t *testing.T, r *Registry) string { put(t, r, "b", time.Hour); return "; 3 o ; 4 p b" },
		"expired": func(t *testing.T, r *Registry) string {
			_, err := r.Put(t.Context(), mr.Identity{ID: "gone", TTL: time.Hour}, mr.Create)
			noError(t, err)
			return "; 3 o ; 4 x gone; 5 p gone"
		},
		"delete": func(t *testing.T, r *Registry) string {
			existed, err := r.Delete(t.Context(), "b", 0)
			if existed || err != nil {
				t.Errorf("deleted %v, %v", existed, err)
			}
			return ""
		},
		"sweep": func(t *testing.T, r *Registry) string {
			_, err := r.sweep(t.Context())
			noError(t, err)
			return "; 3 o ; 4 x gone"
		},
		"feed": func(t *testing.T, r *Registry) string {
			at, _, err := r.readHead(t.Context())
			noError(t, err)
			feed := read(t, NewRegistry(shared(t), r.cfg), at.position())
			extend, what := feed.until(mr.Extend)
			if what != "" || extend.Revision != 2 || extend.Until.Sub(extend.Since) < short {
				t.Errorf("after %q comes %+v", what, extend)
			}
			if synced, what := feed.until(mr.Synced); what != "" || synced.Revision != 2 {
				t.Errorf("then come %q, %+v", what, synced)
			}
			return ""
		},
		"count": func(t *testing.T, r *Registry) string { _, err := r.Count(t.Context()); noError(t, err); return "" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := unswept(t, shared(t), RegistryConfig{OutageAfter: short})
			put(t, r, "gone", time.Millisecond)
			a := put(t, r, "a", shortTTL)
			end := a.ExpiresAt
			_, err := do(t, r.conn, "HSET", r.keys.head, "seen", millisOf(end.Add(-1)), "swept", millisOf(end.Add(-1))).AsInt64()
			noError(t, err)
			pass(t, time.Until(end)+short+10*time.Millisecond)
			began := time.Now()
			log := first(t, r)
			if !slices.Contains([]string{"1 p gone; 2 p a" + log}, strings.Join(entries(t, r), "; ")) {
				t.Errorf("log: %q", entries(t, r))
			}
			found := leases(t, r)
			if got := found["a"]; got.Before(began.Add(shortTTL - 20*time.Millisecond)) {
				t.Errorf("it ends %v after the call began", got.Sub(began))
			}
			eventually(t, "it expires", func() bool {
				_, err := r.sweep(t.Context()) // which says that there is no further outage
				noError(t, err)
				_, lives := leases(t, r)["a"]
				return !lives
			})
		})
	}
}

func millisOf(at time.Time) string { return fmt.Sprint(at.UnixMilli()) }

// TestFlapping has outages follow each other, with nothing, a change or a sweep in between: what lived at the first one's begin
// and had no TTL's time to be renewed lives; what had it does not.
func TestFlapping(t *testing.T) {
	t.Parallel()
	for name, between := range map[string]func(t *testing.T, r *Registry){
		"change": func(t *testing.T, r *Registry) { put(t, r, "b", time.Hour) },
		"sweep":  func(t *testing.T, r *Registry) { _, err := r.sweep(t.Context()); noError(t, err) },
		"part of a sweep": func(t *testing.T, r *Registry) {
			_, err := r.change(t.Context(), sweepScript, []string{r.keys.leases, r.keys.head, r.keys.log}, r.keys.identity, "1")
			noError(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := unswept(t, shared(t), RegistryConfig{OutageAfter: short})
			put(t, r, "a", shortTTL)
			put(t, r, "z", shortTTL)
			for range 4 {
				pass(t, 2*shortTTL/3)
				between(t, r)
			}
			found := leases(t, r)
			if found["a"].IsZero() || found["z"].IsZero() {
				t.Errorf("live: %v", found)
			}
		})
	}
	t.Run("time to renew", func(t *testing.T) {
		t.Parallel()
		var r *Registry
		for paused := true; paused; { // anew when a busy machine pauses for as long as an outage takes
			paused = false
			r = unswept(t, shared(t), RegistryConfig{OutageAfter: short})
			put(t, r, "a", shortTTL)
			pass(t, 2*shortTTL)
			last := time.Now()
			for deadline := last.Add(shortTTL + short); time.Now().Before(deadline); { // Redis is there for that long
				began := time.Now()
				_, err := r.sweep(t.Context())
				noError(t, err)
				paused = paused || time.Since(last) >= short
				last = began
				pass(t, short/5)
			}
			paused = paused || time.Since(last) >= short
		}
		pass(t, 2*short)
		_, err := r.sweep(t.Context())
		noError(t, err)
		wantLive(t, r)
		if got := strings.Join(entries(t, r), "; "); !strings.HasPrefix(got, "1 p a; 2 o ; 3 x a") {
			t.Errorf("log: %s", got)
		}
	})
}

// TestLimitAfterOutage fills a registry up and lets an outage pass: what was saved counts, as long as it lasts, swept or not.
func TestLimitAfterOutage(t *testing.T) {
	t.Parallel()
	r := unswept(t, shared(t), RegistryConfig{OutageAfter: short, MaxIdentities: 3})
	for _, id := range []string{"a", "b", "c"} {
		put(t, r, id, shortTTL)
	}
	put(t, r, "c", time.Hour)
	pass(t, 2*shortTTL)
	wantLive(t, r, "a", "b", "c")
	if _, err := r.Put(t.Context(), mr.Identity{ID: "d", TTL: time.Hour}, mr.Create); !errors.Is(err, mr.ErrQuota) {
		t.Errorf("one more: %v", err)
	}
	put(t, r, "a", time.Hour) // which records the outage
	do(t, r.conn, "HSET", r.keys.head, "seen", millisOf(time.Now().Add(time.Hour)))
	wantLive(t, r, "a", "b", "c")
	pass(t, shortTTL)
	wantLive(t, r, "a", "c")
	put(t, r, "d", time.Hour)
	wantLive(t, r, "a", "c", "d")
}

// TestCountOfManyDue has more identities due after an outage than a count looks at.
func TestCountOfManyDue(t *testing.T) {
	t.Parallel()
	r := unswept(t, shared(t), RegistryConfig{OutageAfter: short})
	const many = 1200
	for n := range many {
		put(t, r, fmt.Sprint("id-", n), 5*time.Second)
	}
	_, err := r.sweep(t.Context())
	noError(t, err)
	at := time.Now()
	for n := range many { // as if their leases had ended during an outage
		end := millisOf(at.Add(10 * time.Millisecond))
		do(t, r.conn, "ZADD", r.keys.leases, end, fmt.Sprint("id-", n))
		do(t, r.conn, "HSET", r.keys.of(fmt.Sprint("id-", n)), "e", end)
	}
	noError(t, do(t, r.conn, "HSET", r.keys.head, "seen", millisOf(at), "swept", millisOf(at)).Error())
	pass(t, 2*short)
	if n, err := r.Count(t.Context()); n != many || err != nil {
		t.Errorf("count %d, %v", n, err)
	}
	for met := sweepBatch; met == sweepBatch; {
		swept, err := r.sweep(t.Context())
		noError(t, err)
		met = swept.met
	}
	if n, err := r.Count(t.Context()); n != many || err != nil {
		t.Errorf("count %d, %v", n, err)
	}
	if n, err := do(t, r.conn, "ZCOUNT", r.keys.leases, millisOf(time.Now()), "+inf").AsInt64(); n != many || err != nil {
		t.Errorf("%d leases are stored anew, %v", n, err)
	}
}

// TestPausedWritesAreAnOutage has Redis hold back changes for longer than leases last: a feed goes on, and whoever reads it
// knows that nothing has expired.
func TestPausedWritesAreAnOutage(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	admin, c := connect(t, Config{Host: server.Addr}), connect(t, Config{Host: server.Addr, Timeout: 500 * time.Millisecond})
	for _, r := range []SweptRegistry{
		registry(t, c, RegistryConfig{OutageAfter: short + sweepEvery*2}),
		sharded(t, c, RegistryConfig{OutageAfter: short + sweepEvery*2}),
	} {
		put(t, r, "a", 2*time.Second)
		feed := read(t, r, "")
		feed.until(mr.Synced)
		text(t, admin, "CLIENT", "PAUSE", "600000", "WRITE")
		began := time.Now()
		extend, _ := feed.until(mr.Extend)
		for time.Since(began) < 4*time.Second {
			feed.until(mr.Synced)
			extend, _ = feed.until(mr.Extend)
		}
		if extend.Until.Before(began.Add(3 * time.Second)) {
			t.Errorf("the outage ends %v after it began", extend.Until.Sub(began))
		}
		wantLive(t, r, "a")
		text(t, admin, "CLIENT", "UNPAUSE")
		recorded := extend.Revision
		for recorded <= extend.Revision { // the one that is recorded is a change like others
			c, _ := feed.until(mr.Extend)
			recorded = c.Revision
		}
		feed.until(mr.Expire)
	}
}

// TestSnapshotOlderThanOutage hands on identities of a snapshot after the log has told of an outage.
func TestSnapshotOlderThanOutage(t *testing.T) {
	var got []string
	at := time.UnixMilli(1_700_000_000_000)
	f := feed{told: map[string]told{}, yield: func(c mr.Change, _ error) bool {
		if !c.Identity.ExpiresAt.IsZero() {
			got = append(got, fmt.Sprint(c.Identity.ID, c.Identity.ExpiresAt.Sub(at)))
			return true
		}
		got = append(got, c.Identity.ID)
		return true
	}}
	f.remember(mr.Change{Kind: mr.Renew, Identity: mr.Identity{ID: "renewed", TTL: time.Second, ExpiresAt: at.Add(time.Second)}})
	f.remember(mr.Change{Kind: mr.Extend, Since: at, Until: at.Add(time.Minute)})
	for _, i := range []mr.Identity{
		{ID: "renewed", TTL: time.Second, ExpiresAt: at},
		{ID: "ended", TTL: time.Second, ExpiresAt: at},
		{ID: "saved", TTL: time.Second, ExpiresAt: at.Add(time.Millisecond)},
		{ID: "long", TTL: time.Hour, ExpiresAt: at.Add(time.Hour)},
		{ID: "later", TTL: time.Second, ExpiresAt: at.Add(time.Hour)},
		{ID: "never", TTL: mr.NoExpiry},
	} {
		noError(t, f.found(i))
	}
	if want := "[renewed1m1s ended0s saved1m1s long1h1m0s later1h0m0s never]"; fmt.Sprint(got) != want {
		t.Errorf("yields %v, want %s", got, want)
	}
}

// TestOutageRights takes rights of the sweeper's away: no outage is found for it.
func TestOutageRights(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	admin := connect(t, Config{Host: server.Addr})
	text(t, admin, "ACL", "SETUSER", "prism", "on", ">secret", "+@all", "-zrange", "~*", "&*")
	r := NewRegistry(connect(t, Config{Host: server.Addr, Username: "prism", Password: "secret"}), RegistryConfig{
		Namespace: "n", OutageAfter: 10 * short,
	})
	put(t, r, "a", short)
	for range 15 {
		if _, err := r.sweep(t.Context()); !errors.Is(err, mr.ErrUnsupported) {
			t.Fatal(err)
		}
		pass(t, short)
	}
	if live, err := r.Live(t.Context(), []string{"a"}); err != nil || live[0] {
		t.Errorf("live: %v, %v", live, err)
	}
	put(t, r, "b", time.Hour)
	wantEntries(t, r, "1 p a", "2 p b")
}

// TestUpgrade has a head without marks, as it was before there were any.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	r := unswept(t, shared(t), RegistryConfig{OutageAfter: short})
	put(t, r, "a", shortTTL)
	do(t, r.conn, "HDEL", r.keys.head, "seen", "swept")
	pass(t, 2*shortTTL)
	wantLive(t, r)
	_, err := r.sweep(t.Context())
	noError(t, err)
	pass(t, 2*short)
	put(t, r, "b", time.Hour)
	wantEntries(t, r, "1 p a", "2 x a", "3 o ", "4 p b")
}

func TestOutageLog(t *testing.T) {
	text := &lines{}
	l := &outageLog{log: slog.New(slog.NewTextHandler(text, nil))}
	at := time.UnixMilli(1_700_000_000_000)
	ended := func(d time.Duration) outage { return outage{at, at.Add(d)} }
	first, second := ended(time.Minute), ended(time.Hour)
	l.note(outage{}, nil, at)
	l.note(first, nil, at.Add(2*time.Minute)) // long ago
	l.note(first, &first, at.Add(2*time.Minute))
	if got := text.all(); len(got) != 0 {
		t.Errorf("the log has %q", got)
	}
	l.note(second, &first, at.Add(time.Hour+time.Minute))
	l.note(ended(time.Hour+time.Second), nil, at.Add(time.Hour+time.Second)) // another shard's
	l.note(ended(2*time.Hour), nil, at.Add(2*time.Hour+time.Second))
	if got := text.all(); len(got) != 2 || !strings.Contains(got[0], "since=2023-11-14T") {
		t.Errorf("the log has %q", got)
	}
}

// BenchmarkSettle has 100,000 leases saved by an outage and stored anew by sweeps, and reports how long a batch takes.
func BenchmarkSettle(b *testing.B) {
	c := connect(b, Config{Host: testenv.NewRedis(b).Addr})
	for b.Loop() {
		r := unswept(b, c, RegistryConfig{OutageAfter: short})
		put(b, r, "first", time.Hour)
		fill(b, c, r, numbered(100_000))
		at := time.Now().Add(-time.Hour)
		noError(b, do(b, c, "HSET", r.keys.head, "seen", millisOf(at), "swept", millisOf(at)).Error())
		text(b, c, "EVAL", `local all = redis.call('ZRANGE', KEYS[1], 0, -1)
			for _, name in ipairs(all) do
				redis.call('ZADD', KEYS[1], ARGV[2], name)
				redis.call('HSET', ARGV[1] .. name, 'e', ARGV[2])
			end
			return 'done'`, "1", r.keys.leases, r.keys.identity, millisOf(time.Now()))
		began, batches := time.Now(), 0
		for met := sweepBatch; met == sweepBatch; batches++ {
			swept, err := r.sweep(context.Background())
			noError(b, err)
			met = swept.met
		}
		b.ReportMetric(float64(time.Since(began).Microseconds())/float64(batches), "us/batch")
		b.ReportMetric(float64(batches), "batches")
	}
}
