package slottest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

func (s *registrySuite) scanFilters(t *testing.T) {
	r := s.open(t)
	for id, metadata := range map[string]map[string]any{
		"lab-1": {"room": "lab", "battery": 0.1, "tags": []any{"gps", "cam"}, "fw": "1.4.0", "sub": map[string]any{"n": int64(1<<53 + 1)}},
		"lab-2": {"room": "lab", "battery": 0.9, "tags": []any{}, "fw": "2.0.0", "sub": map[string]any{"n": int64(1 << 53)}},
		"hall":  {"room": "hall", "battery": int64(1), "fw": nil},
		"bare":  nil,
	} {
		put(t, r, mr.Identity{ID: id, Metadata: metadata, TTL: time.Hour}, mr.Create)
	}
	for source, want := range map[string][]string{
		`{}`:                                {"bare", "hall", "lab-1", "lab-2"},
		`{"room":"lab"}`:                    {"lab-1", "lab-2"},
		`{"room":"attic"}`:                  {},
		`{"room":{"$ne":"lab"}}`:            {"bare", "hall"},
		`{"battery.lt":0.2}`:                {"lab-1"},
		`{"battery":1.0}`:                   {"hall"},
		`{"battery":{"$not":{"$gte":0.9}}}`: {"bare", "lab-1"},
		`{"fw":null}`:                       {"hall"},
		`{"fw":{"$exists":false}}`:          {"bare"},
		`{"fw.semver":"^1.2"}`:              {"lab-1"},
		`{"fw.regex":"^[12]\\."}`:           {"lab-1", "lab-2"},
		`{"tags.contains":"gps"}`:           {"lab-1"},
		`{"tags":"cam"}`:                    {"lab-1"},
		`{"tags.type":"array"}`:             {"lab-1", "lab-2"},
		`{"sub.n":9007199254740993}`:        {"lab-1"},
		`{"sub.n.lt":9007199254740993}`:     {"lab-2"},
		`{"$or":[{"room":"hall"},{"sub.n.gt":9007199254740992}]}`: {"hall", "lab-1"},
		`{"$not":{"$and":[{"room":"lab"},{"battery.gt":0.5}]}}`:   {"bare", "hall", "lab-1"},
	} {
		e, err := filter.Parse(source)
		noError(t, err, source)
		if got := names(matching(t, r, e)); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", source, got, want)
		}
	}
}

// matching scans with a filter and keeps the matches, as the coordinator does.
func matching(t *testing.T, r mr.Registry, e *filter.Expr) map[string]mr.Identity {
	t.Helper()
	found := scan(t, r, e)
	for id, i := range found {
		if !filter.Match(e, i.Metadata) {
			delete(found, id)
		}
	}
	return found
}

func names[V any](of map[string]V) []string {
	list := []string{}
	for name := range of {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// differential compares scans with filter.Match over everything that was put.
func (s *registrySuite) differential(t *testing.T) {
	r := s.open(t)
	rng := newRandom(t)
	all := map[string]map[string]any{}
	for n := range 250 {
		id := fmt.Sprintf("id-%d", n)
		all[id] = RandomMetadata(rng)
		wantMetadata(t, put(t, r, mr.Identity{ID: id, Metadata: all[id], TTL: time.Hour}, mr.Create), all[id])
	}
	for range Rounds(120) {
		source := RandomFilter(rng)
		e, err := filter.Parse(source)
		noError(t, err, source)
		found := matching(t, r, e)
		for id, metadata := range all {
			got, ok := found[id]
			if want := filter.Match(e, metadata); ok != want {
				t.Fatalf("%s on %#v: %v, want %v", source, metadata, ok, want)
			}
			if ok {
				wantMetadata(t, got, metadata)
			}
			delete(found, id)
		}
		for id := range found {
			t.Fatalf("%s yields %q, which was never put", source, id)
		}
	}
}

// scanWhileMutating scans while others put, renew, replace and delete. What is live, and matches, all the time is yielded
// exactly once by every scan; scan fails the test when anything comes twice.
func (s *registrySuite) scanWhileMutating(t *testing.T) {
	r := s.open(t)
	const stable = 300
	putAll(t, r, stable, mr.Create, func(n int) mr.Identity {
		return mr.Identity{ID: fmt.Sprintf("stable-%d", n), Metadata: map[string]any{"stable": true}, TTL: time.Hour}
	})
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	defer writers.Wait()
	defer stop()
	for w := range 4 {
		writers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if err := mutate(ctx, r, w, n, stable); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	e, err := filter.Parse(`{"stable":true}`)
	noError(t, err, "parse")
	for round := range Rounds(30) {
		match := e
		if round%2 == 0 {
			match = nil
		}
		found := scan(t, r, match)
		for n := range stable {
			if id := fmt.Sprintf("stable-%d", n); found[id].ID == "" {
				t.Errorf("round %d: %s is missing", round, id)
			}
		}
		if t.Failed() {
			break
		}
	}
	stop()
	writers.Wait()
}

// mutate makes change n of writer w.
func mutate(ctx context.Context, r mr.Registry, w, n, stable int) error {
	id := fmt.Sprintf("stable-%d", rand.IntN(stable))
	passing := fmt.Sprintf("passing-%d-%d", w, n%50)
	var err error
	switch n % 4 {
	case 0:
		_, err = r.Put(ctx, mr.Identity{ID: passing, Metadata: map[string]any{"stable": false}, TTL: time.Hour}, mr.Replace)
	case 1:
		_, err = r.Renew(ctx, id, time.Hour+time.Duration(n)*time.Millisecond)
	case 2:
		_, err = r.Put(ctx, mr.Identity{ID: id, Metadata: map[string]any{"stable": true, "n": int64(n)}, TTL: time.Hour}, mr.Replace)
	case 3:
		_, err = r.Delete(ctx, fmt.Sprintf("passing-%d-%d", w, (n-3)%50), 0)
	}
	return err
}

// scanCallsInside calls every method, another scan included, while it ranges.
func (s *registrySuite) scanCallsInside(t *testing.T) {
	r := s.open(t)
	const n = 50
	for i := range n {
		put(t, r, identity(fmt.Sprintf("id-%d", i)), mr.Create)
	}
	done := make(chan error, 1)
	go func() {
		seen := 0
		for i, err := range r.Scan(t.Context(), nil) {
			if err == nil {
				seen++
				err = callAll(t, r, i.ID)
			}
			if err != nil {
				done <- err
				return
			}
		}
		if seen != n {
			done <- fmt.Errorf("%d identities, want %d", seen, n)
		}
		close(done)
	}()
	select {
	case err := <-done:
		noError(t, err, "calls inside a scan")
	case <-time.After(s.Patience):
		t.Fatal("a call inside a scan waits for the scan")
	}
	if found := scan(t, r, nil); len(found) != 0 {
		t.Errorf("%d identities are left", len(found))
	}
}

func callAll(t *testing.T, r mr.Registry, id string) error {
	t.Helper()
	_, err1 := r.Renew(t.Context(), id, 0)
	_, err2 := r.Put(t.Context(), identity(id), mr.Replace)
	var err3 error
	for _, err3 = range r.Scan(t.Context(), nil) {
		break
	}
	_, err4 := r.Delete(t.Context(), id, 0)
	return errors.Join(err1, err2, err3, err4)
}

// scanBreak breaks scans off, by break, by panic, and before they begin.
func (s *registrySuite) scanBreak(t *testing.T) {
	r := s.open(t)
	putAll(t, r, 500, mr.Create, func(i int) mr.Identity { return identity(fmt.Sprintf("id-%d", i)) })
	scan(t, r, nil) // whatever the backend starts once is started now
	const rounds = 50
	watchGoroutines(t, s.Patience, rounds/4, func() { // of 2 scans a round
		for n := range rounds {
			_ = r.Scan(t.Context(), nil)
			left := n
			for _, err := range r.Scan(t.Context(), nil) {
				noError(t, err, "scan")
				if left == 0 {
					break
				}
				left--
			}
			func() {
				defer func() {
					if recover() == nil {
						t.Error("the panic of the loop's body got lost")
					}
				}()
				for range r.Scan(t.Context(), nil) {
					panic("on purpose")
				}
			}()
		}
	})
	put(t, r, identity("afterwards"), mr.Create)
	if n := len(scan(t, r, nil)); n != 501 {
		t.Errorf("%d identities", n)
	}
}

// cancelledBefore makes every call with a context that has ended.
func (s *registrySuite) cancelledBefore(t *testing.T) {
	r := s.open(t)
	stored := put(t, r, identity("a"), mr.Create)
	for want, ctx := range map[error]context.Context{context.Canceled: cancelled(t), context.DeadlineExceeded: past(t)} {
		calls := map[string]func() error{
			"put":     func() error { _, err := r.Put(ctx, identity("new"), mr.Create); return err },
			"replace": func() error { _, err := r.Put(ctx, mr.Identity{ID: "a", TTL: time.Minute}, mr.Replace); return err },
			"renew":   func() error { _, err := r.Renew(ctx, "a", time.Minute); return err },
			"delete":  func() error { _, err := r.Delete(ctx, "a", 0); return err },
			"scan": func() error {
				elements, last := 0, error(nil)
				for _, err := range r.Scan(ctx, nil) {
					elements++
					last = err
				}
				if elements != 1 {
					t.Errorf("a cancelled scan yields %d elements", elements)
				}
				return last
			},
		}
		if h, ok := r.(mr.Header); ok {
			calls["head"] = func() error { _, err := h.Head(ctx); return err }
		}
		if c, ok := r.(mr.Counter); ok {
			calls["count"] = func() error { _, err := c.Count(ctx); return err }
		}
		for name, call := range calls {
			if err := call(); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
		}
	}
	wantOnly(t, r, stored)
}

// cancelledDuring ends contexts while calls are under way: each call did all that it was to do, or nothing.
func (s *registrySuite) cancelledDuring(t *testing.T) {
	r := s.open(t)
	for n := range Rounds(150) {
		id := fmt.Sprintf("id-%d", n)
		for what, call := range map[string]func(ctx context.Context) error{
			"put":    func(ctx context.Context) error { _, err := r.Put(ctx, identity(id), mr.Replace); return err },
			"renew":  func(ctx context.Context) error { _, err := r.Renew(ctx, id, 2*time.Hour); return err },
			"delete": func(ctx context.Context) error { _, err := r.Delete(ctx, id+"x", 0); return err },
		} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(200*time.Microsecond))))
			err := call(ctx)
			cancel()
			absent := what == "renew" && errors.Is(err, mr.ErrNotFound)
			if err != nil && !isContextError(err) && !absent {
				t.Errorf("%s: %v", what, err)
			}
			if what != "put" {
				continue
			}
			found, live := scan(t, r, nil)[id]
			if err == nil && !live {
				t.Errorf("%s: put returned no error and stored nothing", id)
			}
			if live {
				wantMetadata(t, found, identity(id).Metadata)
			}
		}
	}
}

// scanCancelled ends the context inside a range: the scan says so, unless it had everything already.
func (s *registrySuite) scanCancelled(t *testing.T) {
	r := s.open(t)
	const n = 1000
	putAll(t, r, n, mr.Create, func(i int) mr.Identity { return identity(fmt.Sprintf("id-%d", i)) })
	scan(t, r, nil)
	const rounds = 20
	watchGoroutines(t, s.Patience, rounds/4, func() {
		for range rounds {
			cancelScan(t, r, n)
		}
	})
}

// cancelScan ends the context with the first of n identities.
func cancelScan(t *testing.T, r mr.Registry, n int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	yielded, failed := 0, error(nil)
	for _, err := range r.Scan(ctx, nil) {
		if failed != nil {
			t.Fatal("a scan goes on after its error")
		}
		if err != nil {
			failed = err
			continue
		}
		yielded++
		cancel()
	}
	if failed == nil && yielded != n || failed != nil && !errors.Is(failed, context.Canceled) {
		t.Errorf("a cancelled scan ends after %d of %d with %v", yielded, n, failed)
	}
}
