package nats

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// follower reads a feed in a goroutine of its own.
type follower struct {
	changes chan mr.Change
	failed  chan error
	stop    func()
}

func follow(t testing.TB, r *Registry, after mr.Position) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &follower{changes: make(chan mr.Change, 1<<14), failed: make(chan error, 1)}
	done := make(chan struct{})
	f.stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(f.stop)
	go func() {
		defer close(done)
		for c, err := range r.Changes(ctx, after) {
			if err != nil {
				f.failed <- err
				return
			}
			f.changes <- c
		}
	}()
	return f
}

func (f *follower) get(t testing.TB) mr.Change {
	t.Helper()
	select {
	case c := <-f.changes:
		return c
	case err := <-f.failed:
		t.Fatal(err)
	case <-time.After(patience):
		t.Fatal("the feed is silent")
	}
	return mr.Change{}
}

// next returns the next element that is not Synced.
func (f *follower) next(t testing.TB) mr.Change {
	t.Helper()
	for {
		if c := f.get(t); c.Kind != mr.Synced {
			return c
		}
	}
}

// until returns the next element of a kind.
func (f *follower) until(t testing.TB, kind mr.ChangeKind) mr.Change {
	t.Helper()
	for {
		if c := f.get(t); c.Kind == kind {
			return c
		}
	}
}

func (f *follower) failure(t testing.TB) error {
	t.Helper()
	select {
	case err := <-f.failed:
		return err
	case <-time.After(patience):
		t.Fatal("the feed goes on")
	}
	return nil
}

// silently writes as a process does that breaks down before it tells of the change.
func silently(t *testing.T, r *Registry, id string) uint64 {
	t.Helper()
	last, err := r.current(within(t), mr.EncodeName(id))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	next := record{Registered: now.UnixMicro()}
	next.begin(time.Hour, now)
	seq, err := r.store(within(t), mr.EncodeName(id), last.seq, &next)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func fed(t *testing.T) (*Registry, *follower) {
	t.Helper()
	r := registry(t, opening(t, testenv.NATS(t).URL), RegistryConfig{Namespace: testenv.Prefix(t)})
	f := follow(t, r, "")
	f.until(t, mr.Synced)
	return r, f
}

// TestChangesUntold loses entries of the log whose records are still there: the changes are told all the same, in order.
func TestChangesUntold(t *testing.T) {
	r, f := fed(t)
	var want []mr.Revision
	for n := range 10 {
		if n%3 == 2 {
			want = append(want, putOne(t, r, fmt.Sprint(n), time.Hour).Revision)
			continue
		}
		want = append(want, mr.Revision(silently(t, r, fmt.Sprint(n))))
	}
	for n, revision := range want {
		if c := f.next(t); c.Kind != mr.Put || c.Revision != revision || c.Identity.ID != fmt.Sprint(n) {
			t.Errorf("change %d: %+v", n, c)
		}
	}
}

// TestChangesRetold overwrites changes that nobody told of: who does so tells of both.
func TestChangesRetold(t *testing.T) {
	r, f := fed(t)
	for round := range 20 {
		id := fmt.Sprint(round)
		want := []mr.Change{{Kind: mr.Put, Revision: mr.Revision(silently(t, r, id))}}
		switch round % 3 {
		case 0:
			want = append(want, mr.Change{Kind: mr.Put, Revision: putOne(t, r, id, time.Hour).Revision})
		case 1:
			if _, err := r.Renew(within(t), id, 0); err != nil {
				t.Fatal(err)
			}
			want = append(want, mr.Change{Kind: mr.Renew, Revision: want[0].Revision + 1})
		case 2:
			if existed, err := r.Delete(within(t), id, 0); !existed || err != nil {
				t.Fatal(existed, err)
			}
			want = append(want, mr.Change{Kind: mr.Delete, Revision: want[0].Revision + 1})
		}
		for _, w := range want {
			if c := f.next(t); c.Kind != w.Kind || c.Revision != w.Revision || c.Identity.ID != id {
				t.Fatalf("round %d: got %+v, want %+v", round, c, w)
			}
		}
	}
}

// TestChangesLost overwrites a change that nobody told of by another one: the reader starts again.
func TestChangesLost(t *testing.T) {
	r, f := fed(t)
	silently(t, r, "a")
	silently(t, r, "a")
	second := putOne(t, r, "a", time.Hour)
	if c := f.next(t); c.Kind != mr.Reset {
		t.Fatalf("after a gap comes %+v", c)
	}
	if c := f.next(t); c.Kind != mr.Put || c.Revision != second.Revision || c.Position != "" {
		t.Errorf("in the snapshot comes %+v", c)
	}
	f.until(t, mr.Synced)
	third := putOne(t, r, "b", time.Hour)
	if c := f.next(t); c.Kind != mr.Put || c.Revision != third.Revision {
		t.Errorf("afterwards comes %+v", c)
	}
}

// TestChangesForeign writes into the bucket what is no record.
func TestChangesForeign(t *testing.T) {
	r, f := fed(t)
	for _, key := range []string{"a", "not.a.name", "b"} {
		if err := r.conn.nc.Publish(r.prefix+key, []byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
	stored := putOne(t, r, "a", time.Hour) // over it
	c := f.next(t)
	if c.Kind == mr.Reset { // the foreign message is gone, and nobody can tell what it was
		c = f.next(t)
	}
	if c.Kind != mr.Put || c.Revision != stored.Revision {
		t.Errorf("got %+v, want %+v", c, stored)
	}
	if all := found(t, r); len(all) != 1 {
		t.Errorf("live: %v", all)
	}
}

// TestChangesSlow stops reading until the log has gone on.
func TestChangesSlow(t *testing.T) {
	r := registry(t, opening(t, testenv.NATS(t).URL), RegistryConfig{Namespace: testenv.Prefix(t)})
	js, err := jetstream.New(r.conn.nc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(within(t), r.log.name)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.MaxMsgs = 4
	if _, err := js.UpdateStream(within(t), cfg); err != nil {
		t.Fatal(err)
	}
	resets, synced := 0, false
	for c, err := range r.Changes(within(t), "") {
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case c.Kind == mr.Reset:
			resets++
			synced = false
		case c.Kind == mr.Synced && resets == 1 && !synced:
			synced = true
			for n := range 20 {
				putOne(t, r, fmt.Sprint(n%3), time.Hour)
			}
		case c.Kind == mr.Synced && resets == 2:
			return
		}
	}
}

func TestSweeper(t *testing.T) {
	s := newSweeper(nil)
	s.delay = 0
	at := time.UnixMilli
	const second = int64(1000) // of a TTL
	s.note("a", 1, 100_000, second)
	s.note("b", 2, 200_000, second)
	s.note("a", 3, 300_000, second) // renewed
	s.note("c", 4, 50_000, second)
	s.note("c", 5, 0, 0)           // deleted
	s.note("b", 1, 10_000, second) // old news
	if due, pause := s.take(at(99), nil); len(due) != 0 || pause != 101*time.Millisecond {
		t.Errorf("due %v, pause %v", due, pause)
	}
	if due, _ := s.take(at(200), nil); len(due) != 1 || due[0].name != "b" || due[0].seq != 2 {
		t.Errorf("due %v", due)
	}
	for n := range uint64(5000) {
		s.note("busy", 10+n, 1_000_000+int64(n), second)
	}
	if len(s.due) > 2000 {
		t.Errorf("%d places for 2 leases", len(s.due))
	}
	outage := outages{{300_000, 600_000}} // ends "a", and prolongs "busy"
	if due, pause := s.take(at(1500), outage); len(due) != 1 || due[0].name != "a" || pause != 100*time.Millisecond {
		t.Errorf("due %v, pause %v", due, pause)
	}
	if due, pause := s.take(at(5000), outage); len(due) != 1 || due[0].name != "busy" || pause != sweepLook {
		t.Errorf("due %v, pause %v", due, pause)
	}
}
