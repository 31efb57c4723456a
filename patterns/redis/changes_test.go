package redis

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/rueidis"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// reader pulls a feed, element by element.
type reader struct {
	t    testing.TB
	next func() (mr.Change, error, bool)
}

// read begins to read a feed, which ends with the test.
func read(t testing.TB, r mr.Changes, after mr.Position) *reader {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	next, stop := iter.Pull2(r.Changes(ctx, after))
	t.Cleanup(func() {
		cancel()
		stop()
	})
	return &reader{t: t, next: next}
}

// until reads up to a change of a kind and returns it; what names what came before.
func (r *reader) until(kind mr.ChangeKind) (c mr.Change, what string) {
	r.t.Helper()
	for {
		c, err, ok := r.next()
		if err != nil || !ok {
			r.t.Fatalf("the feed ends: %v", err)
		}
		if c.Kind == kind {
			return c, what
		}
		what += fmt.Sprintf("%d:%s ", c.Kind, c.Identity.ID)
	}
}

// fails reads up to the error.
func (r *reader) fails() error {
	r.t.Helper()
	for {
		_, err, ok := r.next()
		if err != nil {
			if _, _, more := r.next(); more {
				r.t.Error("the feed goes on after its error")
			}
			return err
		}
		if !ok {
			r.t.Fatal("the feed ends without an error")
		}
	}
}

func store(t testing.TB, r mr.Registry, ids ...string) (last mr.Identity) {
	t.Helper()
	for _, id := range ids {
		var err error
		last, err = r.Put(t.Context(), mr.Identity{ID: id, TTL: time.Hour}, mr.Replace)
		noError(t, err)
	}
	return last
}

func TestParsePosition(t *testing.T) {
	for _, row := range []struct {
		position mr.Position
		want     cursor
		ok       bool
	}{
		{"abc:7:f00", cursor{"abc", 7, "f00"}, true},
		{"abc:7:", cursor{"abc", 7, ""}, true},
		{":0:", cursor{}, true},
		{":0:f00", cursor{"", 0, "f00"}, true},
		{"abc:0:f00", cursor{"abc", 0, "f00"}, true},
		{"", cursor{}, false},
		{"abc", cursor{}, false},
		{"abc:7", cursor{}, false},
		{":7:f00", cursor{}, false},
		{"abc::f00", cursor{}, false},
		{"abc:-1:f00", cursor{}, false},
		{"abc:+1:f00", cursor{}, false},
		{"abc:7:8:9", cursor{}, false},
		{"abc:9223372036854775808:f00", cursor{}, false},
	} {
		got, ok := parsePosition(row.position)
		if got != row.want || ok != row.ok {
			t.Errorf("%q: %+v, %v", row.position, got, ok)
		}
		if ok && got.position() != row.position {
			t.Errorf("%q comes back as %q", row.position, got.position())
		}
	}
}

func TestContinues(t *testing.T) {
	for _, row := range []struct {
		at, from cursor
		want     bool
	}{
		{cursor{"a", 7, "x"}, cursor{"a", 7, "x"}, true},
		{cursor{"a", 8, "x"}, cursor{"a", 7, "x"}, true},
		{cursor{"a", 6, "x"}, cursor{"a", 7, "x"}, false},
		{cursor{"b", 8, "x"}, cursor{"a", 7, "x"}, false},
		{cursor{"a", 8, "x"}, cursor{"", 0, "x"}, true},
		{cursor{"a", 8, "y"}, cursor{"a", 7, "x"}, false},
		{cursor{"a", 8, ""}, cursor{"a", 7, "x"}, true}, // not known
		{cursor{"a", 8, "y"}, cursor{"a", 7, ""}, true},
		{cursor{"", 0, ""}, cursor{"a", 7, "x"}, false},
	} {
		if got := row.at.continues(row.from); got != row.want {
			t.Errorf("%+v continues %+v: %v", row.at, row.from, got)
		}
	}
}

func TestParseEntry(t *testing.T) {
	r := NewRegistry(nil, RegistryConfig{Namespace: "x"})
	for _, row := range []struct {
		id, fields string // fields: name, value, …, separated by spaces
		want       string // or a part of the error
		before     uint64
	}{
		{"7-0", `k p i a=20b m {} t -1 r 5 e 0 b 3`, `1970 {a b map[] -1ns}`, 3},
		{"7-0", `k p i a m {"b":"c"} t 2 r 5 e 9`, `1970 {a map[b:c] 2ms}`, 6},
		{"7-0", `k n b 3`, ``, 3},
		{"7-0", `k o s 5 u 7 b 3`, `from 5 to 7`, 3},
		{"7-0", `k o s 5`, `u "" is not a number`, 0},
		{"7-0", `k q i a`, `k "q" is no kind of change`, 0},
		{"7-0", `i a`, `k "" is no kind of change`, 0},
		{"7-0", `k d i =`, `i "=" is not an encoded name`, 0},
		{"7-1", `k d i a`, `the id is not a revision`, 0},
		{"0-0", `k d i a`, `the id is not a revision`, 0},
		{"x-0", `k d i a`, `the id is not a revision`, 0},
		{"7-0", `k d i a b x`, `b "x" is not a number`, 0},
		{"7-0", `k p i a m { t 2 r 5 e 9`, `identity "a":`, 0},
		{"7-0", `k p i a m {} t 2 e 9`, `r "" is not a number`, 0},
		{"7-0", `k r i a t 2`, `e "" is not a number`, 0},
		{"7-0", `k r i a e 2`, `t "" is not a number`, 0},
	} {
		fields := map[string]string{}
		list := strings.Fields(row.fields)
		for i := 0; i < len(list); i += 2 {
			fields[list[i]] = list[i+1]
		}
		c, before, err := r.parseEntry(&rueidis.XRangeEntry{ID: row.id, FieldValues: fields}, asEncoded())
		if before != row.before {
			t.Errorf("%s %s: the one before is %d", row.id, row.fields, before)
		}
		if err != nil {
			if !errors.Is(err, errReply) || !strings.Contains(err.Error(), row.want) || row.want == "" ||
				!strings.Contains(err.Error(), "entry "+row.id+" of {prism:x}:log") {
				t.Errorf("%s %s: %v", row.id, row.fields, err)
			}
			continue
		}
		if c.Kind == mr.Extend {
			if got := fmt.Sprintf("from %d to %d", c.Since.UnixMilli(), c.Until.UnixMilli()); got != row.want || c.Revision != 7 {
				t.Errorf("%s %s: %s at %d", row.id, row.fields, got, c.Revision)
			}
			continue
		}
		if i := c.Identity; c.Kind != 0 {
			metadata, err := mr.DecodeMetadata(i.Encoded)
			noError(t, err)
			if got := fmt.Sprintf("%d {%s %v %v}", i.RegisteredAt.UTC().Year(), i.ID, metadata, i.TTL); got != row.want {
				t.Errorf("%s %s: %s", row.id, row.fields, got)
			}
		} else if row.want != "" {
			t.Errorf("%s %s: no error", row.id, row.fields)
		}
	}
}

// TestChangesManyReaders has many feeds wait at once, over one connection's clients.
func TestChangesManyReaders(t *testing.T) {
	r := registry(t, shared(t), RegistryConfig{})
	feeds := make([]*reader, 100)
	for i := range feeds {
		feeds[i] = read(t, r, "")
		feeds[i].until(mr.Synced)
	}
	store(t, r, "a")
	for _, feed := range feeds {
		feed.until(mr.Put)
	}
}

// TestSnapshotOlderThanLog hands on identities of a snapshot after the log has told more of them.
func TestSnapshotOlderThanLog(t *testing.T) {
	var got []string
	f := feed{told: map[string]told{}, yield: func(c mr.Change, _ error) bool {
		got = append(got, fmt.Sprintf("%d:%s:%v", c.Kind, c.Identity.ID, c.Identity.TTL))
		return true
	}}
	tell := func(kind mr.ChangeKind, id string, ttl time.Duration) {
		f.remember(mr.Change{Kind: kind, Identity: mr.Identity{ID: id, TTL: ttl}})
	}
	tell(mr.Put, "put", 1)
	tell(mr.Delete, "deleted", 0)
	tell(mr.Expire, "expired", 0)
	tell(mr.Renew, "renewed", 2)
	tell(mr.Renew, "renewed", 3)
	tell(mr.Put, "put and renewed", 4)
	tell(mr.Renew, "put and renewed", 5)
	for _, id := range []string{"put", "deleted", "expired", "renewed", "put and renewed", "untouched"} {
		noError(t, f.found(mr.Identity{ID: id, TTL: 9}))
	}
	if want := "[2:renewed:3ns 2:untouched:9ns]"; fmt.Sprint(got) != want {
		t.Errorf("yields %v, want %s", got, want)
	}
}

// BenchmarkChanges measures the time from a put until its change has come, and a snapshot of 10,000 identities beside a scan.
func BenchmarkChanges(b *testing.B) {
	for name, shards := range map[string]int{"1 shard": 1, "4 shards": 4} {
		r, err := OpenRegistry(shared(b), RegistryConfig{Namespace: testenv.Prefix(b), Shards: shards})
		noError(b, err)
		for n := range 10_000 {
			store(b, r, fmt.Sprint("device-", n))
		}
		b.Run(name+"/latency", func(b *testing.B) {
			feed := read(b, r, "")
			feed.until(mr.Synced)
			for b.Loop() {
				store(b, r, "x")
				feed.until(mr.Put)
			}
		})
		b.Run(name+"/snapshot", func(b *testing.B) {
			for b.Loop() {
				for c, err := range r.Changes(b.Context(), "") {
					noError(b, err)
					if c.Kind == mr.Synced {
						break
					}
				}
			}
		})
		b.Run(name+"/scan", func(b *testing.B) {
			for b.Loop() {
				for _, err := range r.Scan(b.Context(), nil) {
					noError(b, err)
				}
			}
		})
	}
}

// TestGather has a feed let changes gather: for a while, until somebody is in a hurry, and not beyond its end.
func TestGather(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &Registry{hurry: make(chan struct{}, 1)}
		f := feed{registry: r}
		gathers := func(ctx context.Context) time.Duration {
			start := time.Now()
			f.gather(ctx)
			return time.Since(start)
		}
		if took := gathers(t.Context()); took != feedGather {
			t.Errorf("it gathers for %s", took)
		}
		for range 3 { // who comes in a hurry never waits
			r.Hurry()
		}
		if took := gathers(t.Context()); took != 0 {
			t.Errorf("in a hurry it gathers for %s", took)
		}
		time.AfterFunc(time.Millisecond, r.Hurry)
		if took := gathers(t.Context()); took != time.Millisecond {
			t.Errorf("in a hurry after a millisecond it gathers for %s", took)
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if took := gathers(ended); took != 0 {
			t.Errorf("at its end it gathers for %s", took)
		}
	})
}
