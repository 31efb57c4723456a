package replica_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prism-data-layer/prism/patterns/memory"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/replica"
)

var errAway = fmt.Errorf("%w: on purpose", mr.ErrUnavailable)

// source is a registry whose change feed the test writes by itself.
type source struct {
	*memory.Registry
	feeds  chan []mr.Change // of each call of Changes the beginning; what follows comes through live
	live   chan mr.Change   // a change of kind 0 ends the feed
	after  chan mr.Position // of each call of Changes
	away   atomic.Bool
	skewed time.Duration
}

func newSource() *source {
	return &source{
		Registry: memory.NewRegistry(memory.RegistryConfig{}), feeds: make(chan []mr.Change, 10), live: make(chan mr.Change),
		after: make(chan mr.Position, 10),
	}
}

func (s *source) Changes(ctx context.Context, after mr.Position) iter.Seq2[mr.Change, error] {
	return func(yield func(mr.Change, error) bool) {
		s.after <- after
		select {
		case first := <-s.feeds:
			for _, c := range first {
				if !yield(c, nil) {
					return
				}
			}
		case <-ctx.Done():
			yield(mr.Change{}, ctx.Err())
			return
		}
		for {
			select {
			case c := <-s.live:
				if c.Kind == 0 {
					yield(mr.Change{}, errAway)
					return
				}
				if !yield(c, nil) {
					return
				}
			case <-ctx.Done():
				yield(mr.Change{}, ctx.Err())
				return
			}
		}
	}
}

func (s *source) Head(ctx context.Context) (mr.Revision, error) {
	if s.away.Load() {
		return 0, errAway
	}
	return s.Registry.Head(ctx)
}

func (s *source) Ping(ctx context.Context) error {
	if s.away.Load() {
		return errAway
	}
	return s.Registry.Ping(ctx)
}

func (s *source) Now(context.Context) (time.Time, error) { return time.Now().Add(s.skewed), nil }

func put(id string, revision mr.Revision) mr.Change {
	return mr.Change{
		Kind: mr.Put, Revision: revision, Position: mr.Position(fmt.Sprint(revision)), Identity: mr.Identity{
			ID: id, Metadata: map[string]any{"name": id}, TTL: mr.NoExpiry, Revision: revision,
		},
	}
}

func synced(revision mr.Revision) mr.Change {
	return mr.Change{Kind: mr.Synced, Revision: revision, Position: mr.Position(fmt.Sprint(revision))}
}

var reset = mr.Change{Kind: mr.Reset}

// follow runs a copy until the test ends.
func follow(t *testing.T, s *source, cfg replica.Config) *replica.Registry {
	t.Helper()
	r, err := replica.New(s, cfg)
	if err != nil {
		t.Fatal(err)
	}
	life, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = r.Run(life) })
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return r
}

// names are those that the copy has.
func names(t *testing.T, r *replica.Registry) (all []string) {
	t.Helper()
	for name, err := range r.Find(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, name)
	}
	return all
}

func wantNames(t *testing.T, r *replica.Registry, want ...string) {
	t.Helper()
	if got := names(t, r); !slices.Equal(got, want) {
		t.Errorf("the copy has %v, want %v", got, want)
	}
}

func wantReach(t *testing.T, r *replica.Registry, at, want mr.Revision) {
	t.Helper()
	if got, err := r.Reach(t.Context(), at); err != nil || got != want {
		t.Errorf("reaching %d gives %d, %v; want %d", at, got, err, want)
	}
}

// TestFollow applies every kind of change, breaks off, goes on, and begins anew.
func TestFollow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		r := follow(t, s, replica.Config{})
		if err := r.Ping(t.Context()); !errors.Is(err, mr.ErrUnavailable) || !strings.Contains(err.Error(), "not copied yet") {
			t.Errorf("ping before the copy: %v", err)
		}
		s.feeds <- []mr.Change{reset, put("a", 1), put("b", 2), {Kind: mr.Renew, Identity: mr.Identity{ID: "a", TTL: mr.NoExpiry}, Revision: 3}}
		synctest.Wait()
		wantNames(t, r)
		s.live <- synced(3)
		wantReach(t, r, 3, 3)
		wantNames(t, r, "a", "b")
		s.live <- put("c", 4)
		wantReach(t, r, 4, 4)
		s.live <- mr.Change{Kind: mr.Delete, Identity: mr.Identity{ID: "a"}, Revision: 5, Position: "5"}
		s.live <- mr.Change{Kind: mr.Expire, Identity: mr.Identity{ID: "b"}, Revision: 6, Position: "6"}
		wantReach(t, r, 6, 6)
		wantNames(t, r, "c")
		s.live <- mr.Change{}
		if first, second := <-s.after, <-s.after; first != "" || second != "6" {
			t.Errorf("the feed is opened after %q and %q", first, second)
		}
		s.feeds <- []mr.Change{put("d", 7)}
		wantReach(t, r, 7, 7)
		wantNames(t, r, "c", "d")
		s.live <- reset
		s.live <- put("e", 9)
		synctest.Wait()
		wantNames(t, r, "c", "d") // until the new copy is whole
		s.live <- synced(9)
		wantReach(t, r, 9, 9)
		wantNames(t, r, "e")
		if err := r.Ping(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestStale has a copy answer nothing when it has had no news for too long.
func TestStale(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		r := follow(t, s, replica.Config{MaxStaleness: 2 * time.Second})
		s.feeds <- []mr.Change{reset, put("a", 1), synced(1)}
		wantReach(t, r, 0, 1)
		s.live <- mr.Change{}
		<-time.After(1900 * time.Millisecond)
		wantReach(t, r, 0, 1)
		<-time.After(200 * time.Millisecond)
		began := time.Now()
		if _, err := r.Reach(t.Context(), 0); !errors.Is(err, mr.ErrUnavailable) || !strings.Contains(err.Error(), "max_staleness") {
			t.Errorf("a stale copy answers: %v", err)
		}
		if waited := time.Since(began); waited != 2*time.Second {
			t.Errorf("it waited %v", waited)
		}
		if _, err := r.Live(t.Context(), []string{"a"}); !errors.Is(err, mr.ErrUnavailable) {
			t.Errorf("live: %v", err)
		}
		s.away.Store(true)
		if err := r.Ping(t.Context()); !errors.Is(err, mr.ErrUnavailable) {
			t.Errorf("ping: %v", err)
		}
		s.away.Store(false)
		if err := r.Ping(t.Context()); !errors.Is(err, mr.ErrUnavailable) {
			t.Errorf("ping of a stale copy: %v", err)
		}
		s.feeds <- []mr.Change{synced(1)}
		wantReach(t, r, 0, 1)
	})
}

// TestOwnWrites has reads wait for what was written through the copy, and for nothing that is written meanwhile.
func TestOwnWrites(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		r := follow(t, s, replica.Config{})
		s.feeds <- []mr.Change{reset, synced(0)}
		wantReach(t, r, 0, 0)
		stored, err := r.Put(t.Context(), mr.Identity{ID: "a", TTL: time.Minute}, mr.Create)
		if err != nil {
			t.Fatal(err)
		}
		reached := make(chan mr.Revision)
		go func() {
			at, err := r.Reach(t.Context(), 0)
			if err != nil {
				t.Error(err)
			}
			reached <- at
		}()
		synctest.Wait()
		_, err = r.Put(t.Context(), mr.Identity{ID: "b", TTL: time.Minute}, mr.Create)
		if err != nil {
			t.Fatal(err)
		}
		select {
		case at := <-reached:
			t.Errorf("the copy answers at revision %d before it has the write", at)
		default:
		}
		s.live <- mr.Change{Kind: mr.Put, Identity: stored, Revision: 1}
		if at := <-reached; at != 1 {
			t.Errorf("reached %d", at)
		}
		s.live <- put("b", 2)
		if lease, err := r.Renew(t.Context(), "a", time.Hour); err != nil || lease.TTL != time.Hour {
			t.Errorf("%v, %v", lease, err)
		}
		for i, err := range r.Scan(t.Context(), nil) {
			if err != nil || i.ID == "a" && i.TTL != time.Hour {
				t.Errorf("%+v, %v", i, err)
			}
		}
		if existed, err := r.Delete(t.Context(), "a", 0); !existed || err != nil {
			t.Errorf("%v, %v", existed, err)
		}
		waiting, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Reach(waiting, 0); !errors.Is(err, mr.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("reading after a deletion: %v", err)
		}
		s.live <- mr.Change{Kind: mr.Delete, Identity: mr.Identity{ID: "a"}, Revision: 4}
		wantReach(t, r, 0, 4)
		wantNames(t, r, "b")
	})
}

// TestPartitioned trusts only Synced.
func TestPartitioned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		r := follow(t, s, replica.Config{Partitioned: true})
		s.feeds <- []mr.Change{reset, synced(1), put("a", 8)}
		wantReach(t, r, 0, 1)
		synctest.Wait()
		wantReach(t, r, 0, 1)
		s.live <- synced(8)
		wantReach(t, r, 8, 8)
	})
}

// TestBackendsClock ends leases by the backend's clock, which is an hour ahead.
func TestBackendsClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		s.skewed = time.Hour
		r := follow(t, s, replica.Config{})
		ends := time.Now().Add(time.Hour + time.Second)
		s.feeds <- []mr.Change{reset, {Kind: mr.Put, Identity: mr.Identity{ID: "a", TTL: time.Minute, ExpiresAt: ends}, Revision: 1}, synced(1)}
		wantReach(t, r, 1, 1)
		wantNames(t, r, "a")
		if live, err := r.Live(t.Context(), []string{"a", "b"}); err != nil || !live[0] || live[1] {
			t.Errorf("live: %v, %v", live, err)
		}
		<-time.After(time.Second)
		wantNames(t, r)
	})
}

// TestTooLarge gives the copy up: the source answers, and that is logged.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		var log bytes.Buffer
		r := follow(t, s, replica.Config{MaxBytes: 1, Log: slog.New(slog.NewTextHandler(&log, nil))})
		first := []mr.Change{reset}
		for n := range 2000 {
			id := fmt.Sprintf("id-%04d", n)
			stored, err := s.Put(t.Context(), mr.Identity{ID: id, Metadata: map[string]any{"n": n}, TTL: mr.NoExpiry}, mr.Create)
			if err != nil {
				t.Fatal(err)
			}
			first = append(first, mr.Change{Kind: mr.Put, Identity: stored, Revision: stored.Revision})
		}
		s.feeds <- first
		synctest.Wait()
		wantReach(t, r, 2000, 2000)
		if !strings.Contains(log.String(), "too large to be copied") {
			t.Errorf("the log says %q", log.String())
		}
		if _, err := r.Reach(t.Context(), 2001); !errors.Is(err, mr.ErrUnavailable) {
			t.Errorf("a revision that is not there: %v", err)
		}
		match, err := filter.Parse(`{"n": {"$lt": 3}}`)
		if err != nil {
			t.Fatal(err)
		}
		found, err := r.Query(t.Context(), mr.Selection{Match: match, Limit: 2, Total: true})
		if err != nil || found.Total != 3 || len(found.Identities) != 2 || !found.More {
			t.Errorf("%+v, %v", found, err)
		}
		n := 0
		for range r.Scan(t.Context(), match) {
			n++
		}
		if n != 3 || len(names(t, r)) != 2000 {
			t.Errorf("%d and %d are found", n, len(names(t, r)))
		}
		if live, err := r.Live(t.Context(), []string{"id-0001", "x"}); err != nil || !live[0] || live[1] {
			t.Errorf("live: %v, %v", live, err)
		}
		if n, err := r.Count(t.Context()); err != nil || n != 2000 {
			t.Errorf("count: %d, %v", n, err)
		}
		if err := r.Ping(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for field, cfg := range map[string]replica.Config{"max_staleness": {MaxStaleness: time.Second}, "max_bytes": {MaxBytes: -1}} {
		bad, ok := errors.AsType[*mr.InvalidError](cfg.Validate())
		if !ok || bad.Field != field {
			t.Errorf("%s: %v", field, cfg.Validate())
		}
		if _, err := replica.New(newSource(), cfg); !errors.Is(err, mr.ErrInvalid) {
			t.Errorf("%s: %v", field, err)
		}
	}
}
