package slottest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// feedResume goes on from every position of a feed.
func (s *registrySuite) feedResume(t *testing.T) {
	r := s.open(t)
	put(t, r, identity("from before"), mr.Create)
	f := s.follow(t, r, "")
	_, synced := f.snapshot(t)
	made := s.history(t, r, []string{"a", "b"})
	all := []mr.Change{synced}
	for range made {
		all = append(all, f.nextChange(t))
	}
	seen := map[mr.Position]bool{}
	for n, from := range all {
		if seen[from.Position] {
			t.Errorf("two changes have position %q", from.Position)
		}
		seen[from.Position] = true
		resumed := s.follow(t, r, from.Position)
		s.wantChanges(t, resumed.rest(t), all[n+1:])
		resumed.stop()
		if t.Failed() {
			t.Fatalf("resumed after change %d of %d, %+v", n, len(all)-1, from)
		}
	}
}

// feedResumeElsewhere hands over positions that the registry did not give.
func (s *registrySuite) feedResumeElsewhere(t *testing.T) {
	r := s.open(t)
	for n := range 20 {
		put(t, r, identity(fmt.Sprint(n)), mr.Create)
	}
	positions := []mr.Position{"x", ":", ":1", "1:", "1:2:3", ",", ",,", "-1", "0-0", "9:-1", "\x00", mr.Position(strings.Repeat("9", 300))}
	if s.OpenNeighbours != nil {
		a, b := s.OpenNeighbours(t)
		r = b
		for n := range 20 {
			put(t, a, identity(fmt.Sprint("of a ", n)), mr.Create)
			put(t, b, identity(fmt.Sprint("of b ", n)), mr.Create)
		}
		_, synced := s.follow(t, a, "").snapshot(t)
		positions = append(positions, synced.Position)
	}
	_, synced := s.follow(t, r, "").snapshot(t)
	positions = append(positions, synced.Position+"0000", synced.Position[:len(synced.Position)/2], "x"+synced.Position)
	want := scan(t, r, nil)
	for _, p := range positions {
		f := s.follow(t, r, p)
		held, _ := f.snapshot(t)
		held.want(t, want)
		f.stop()
		if t.Failed() {
			t.Fatalf("from position %q", p)
		}
	}
}

// feedTrimmed resumes where the log still reaches and where it does not.
func (s *registrySuite) feedTrimmed(t *testing.T) {
	if s.OpenLogged == nil {
		t.Skip("RegistryOptions.OpenLogged is not set")
	}
	const log = 50
	r, other := s.OpenLogged(t, log)
	put(t, r, identity("from before"), mr.Create)
	put(t, r, identity("deleted"), mr.Create)
	f := s.follow(t, other, "")
	_, old := f.snapshot(t)
	f.stop()
	_, err := r.Delete(t.Context(), "deleted", 0)
	noError(t, err, "delete")
	parts, fit := 1, log
	if s.Partitioned { // each part has a log, to which it may add what brings it to the others' revision: enough for every one
		parts, fit = 4, log-5
	}
	putAll(t, r, parts*(1000+10*log), mr.Replace, func(n int) mr.Identity {
		return mr.Identity{ID: fmt.Sprintf("id-%d", n%100), Metadata: map[string]any{"n": int64(n)}, TTL: time.Hour}
	})
	f = s.follow(t, other, old.Position)
	held, synced := f.snapshot(t)
	held.want(t, scan(t, r, nil))
	f.stop()
	for n := range fit {
		put(t, r, mr.Identity{ID: "again", Metadata: map[string]any{"n": int64(n)}, TTL: time.Hour}, mr.Replace)
	}
	if got := s.follow(t, other, synced.Position).rest(t); len(got) != fit || got[0].Kind != mr.Put {
		t.Errorf("%d changes since, want %d: %+v", len(got), fit, got)
	}
}

// feedSnapshotWhileMutating makes a change for every element that comes before Synced: the snapshot is never up to date.
func (s *registrySuite) feedSnapshotWhileMutating(t *testing.T) {
	r := s.open(t)
	const ids = 1500
	putAll(t, r, ids, mr.Create, func(n int) mr.Identity { return identity(fmt.Sprintf("id-%d", n)) })
	mutate := func() error {
		id := fmt.Sprintf("id-%d", rand.IntN(ids))
		var err error
		switch rand.IntN(4) {
		case 0:
			_, err = r.Put(t.Context(), mr.Identity{ID: id, Metadata: map[string]any{"new": true}, TTL: time.Hour}, mr.Replace)
		case 1:
			if _, err = r.Renew(t.Context(), id, 2*time.Hour); errors.Is(err, mr.ErrNotFound) {
				err = nil
			}
		default:
			_, err = r.Delete(t.Context(), id, 0)
		}
		return err
	}
	held, synced := feedCopy{}, 0
	for c, err := range r.(mr.Changes).Changes(within(t, 3*s.Patience), "") {
		noError(t, err, "changes")
		held.apply(t, c)
		if c.Kind == mr.Synced {
			s.wantUpTo(t, held, c)
			if synced++; synced > 1 && held.equal(scan(t, r, nil)) || synced > 5 {
				break
			}
		}
		if synced == 0 {
			noError(t, mutate(), "a change inside the loop")
		}
	}
	held.want(t, scan(t, r, nil))
}

// storm lets writers mutate a registry, each through one of the views.
func storm(t *testing.T, writers, rounds int, views ...mr.Registry) *sync.WaitGroup {
	t.Helper()
	var all sync.WaitGroup
	for w := range writers {
		r := views[w%len(views)]
		all.Go(func() {
			for n := range rounds {
				id := fmt.Sprintf("id-%d", rand.IntN(200))
				var err error
				switch rand.IntN(6) {
				case 0:
					_, err = r.Delete(t.Context(), id, 0)
				case 1:
					_, err = r.Renew(t.Context(), id, time.Hour+time.Duration(n)*time.Millisecond)
				case 2:
					_, err = r.Put(t.Context(), mr.Identity{ID: id, TTL: time.Duration(1+rand.IntN(20)) * time.Millisecond}, mr.Replace)
				case 3:
					_, err = r.Put(t.Context(), identity(id), mr.Create)
				default:
					_, err = r.Put(t.Context(), mr.Identity{ID: id, Metadata: map[string]any{"w": int64(w), "n": int64(n)}, TTL: time.Hour}, mr.Replace)
				}
				if err != nil && !errors.Is(err, mr.ErrNotFound) && !errors.Is(err, mr.ErrAlreadyExists) {
					t.Error(err)
					return
				}
			}
		})
	}
	return &all
}

// converges follows a registry while a storm goes over it, and expects an exact copy afterwards. It returns how often the
// copy was reset.
func (s *registrySuite) converges(t *testing.T, reader mr.Registry, writers, rounds int, views ...mr.Registry) (resets int) {
	t.Helper()
	putAll(t, reader, 300, mr.Create, func(n int) mr.Identity { return identity(fmt.Sprintf("id-%d", n)) })
	f := s.follow(t, reader, "")
	all := storm(t, writers, rounds, views...)
	held, synced, quiet := feedCopy{}, false, false
	var last mr.Position
	eventually(t, 3*s.Patience, "the copy is what a scan finds", func() bool {
		for len(f.elements) > 0 {
			c := f.next(t)
			held.apply(t, c)
			switch c.Kind {
			case mr.Reset:
				resets++
				synced, last = false, ""
			case mr.Synced:
				synced = true
				s.wantUpTo(t, held, c)
			}
			if synced && c.Position == "" || !synced && c.Position != "" {
				t.Fatalf("synced: %v; position %q", synced, c.Position)
			}
			if c.Kind != mr.Synced && c.Position != "" && c.Position == last {
				t.Fatalf("position %q comes twice", last)
			}
			last = c.Position
		}
		if !quiet {
			all.Wait()
			quiet = true
		}
		return synced && held.equal(scan(t, reader, nil))
	})
	s.history(t, reader, []string{"afterwards"})
	eventually(t, s.Patience, "the copy goes on to be what a scan finds", func() bool {
		for len(f.elements) > 0 {
			c := f.next(t)
			held.apply(t, c)
			if c.Kind == mr.Reset { // the log may be shorter than what happens between two looks at it
				resets++
			}
		}
		return held.equal(scan(t, reader, nil))
	})
	return resets
}

// feedConverges follows a storm with a log that holds all of it: nothing is reset.
func (s *registrySuite) feedConverges(t *testing.T) {
	r := s.open(t)
	views := []mr.Registry{r}
	if s.OpenPair != nil {
		a, b := s.OpenPair(t)
		r, views = a, []mr.Registry{a, b}
	}
	if resets := s.converges(t, r, 8, Rounds(400), views...); resets != 1 {
		t.Errorf("%d resets", resets)
	}
}

// feedConvergesOnTinyLog follows a storm that is faster than the log is long.
func (s *registrySuite) feedConvergesOnTinyLog(t *testing.T) {
	if s.OpenLogged == nil {
		t.Skip("RegistryOptions.OpenLogged is not set")
	}
	a, b := s.OpenLogged(t, 4)
	resets := s.converges(t, a, 8, Rounds(1000), a, b)
	t.Logf("%d resets", resets)
}

// feedReconnecting loses its connection again and again during a storm, and misses nothing, and has nothing twice.
func (s *registrySuite) feedReconnecting(t *testing.T) {
	r := s.open(t)
	for n := range 100 {
		put(t, r, identity(fmt.Sprintf("id-%d", n)), mr.Create)
	}
	f := s.follow(t, r, "")
	held, synced := f.snapshot(t)
	all := storm(t, 4, Rounds(500), r)
	quiet := make(chan struct{})
	go func() {
		all.Wait()
		close(quiet)
	}()
	position, ended := synced.Position, false
	revisions := map[mr.Revision]bool{}
	deadline := time.Now().Add(3 * s.Patience)
	for !ended || !held.equal(scan(t, r, nil)) {
		if time.Now().After(deadline) {
			t.Fatal("the copy is not what a scan finds")
		}
		select {
		case <-quiet:
			ended = true
		default:
		}
		left := rand.IntN(50)
		for c, err := range r.(mr.Changes).Changes(t.Context(), position) {
			noError(t, err, "changes")
			if c.Kind == mr.Reset {
				t.Fatalf("a reset, from position %q", position)
			}
			if c.Kind != mr.Synced && revisions[c.Revision] {
				t.Fatalf("twice: %+v", c)
			}
			if c.Kind != mr.Synced {
				revisions[c.Revision] = true
			}
			held.apply(t, c)
			position = c.Position
			if left--; left < 0 || c.Kind == mr.Synced {
				break
			}
		}
	}
	var list []mr.Change
	for c := f.next(t); ; c = f.next(t) {
		if c.Kind != mr.Synced {
			list = append(list, c)
		}
		if c.Position == position || len(list) >= len(revisions) {
			break
		}
	}
	if len(list) != len(revisions) {
		t.Errorf("one reader without a break has %d changes, one that reconnects %d", len(list), len(revisions))
	}
	s.wantOrder(t, synced.Revision, list)
}

// feedCancelled ends the context before a feed, in its snapshot, at Synced and while it waits: its error comes last.
func (s *registrySuite) feedCancelled(t *testing.T) {
	r := s.open(t)
	putAll(t, r, 500, mr.Create, func(n int) mr.Identity { return identity(fmt.Sprint(n)) })
	for want, ctx := range map[error]context.Context{context.Canceled: cancelled(t), context.DeadlineExceeded: past(t)} {
		elements, last := 0, error(nil)
		for _, err := range r.(mr.Changes).Changes(ctx, "") {
			elements++
			last = err
		}
		if elements != 1 || !errors.Is(last, want) {
			t.Errorf("a feed that was cancelled before yields %d elements and %v", elements, last)
		}
	}
	short, cancel := context.WithTimeout(t.Context(), s.ShortestTTL)
	defer cancel()
	last := error(nil)
	for _, err := range r.(mr.Changes).Changes(short, "") {
		last = err
	}
	if !errors.Is(last, context.DeadlineExceeded) {
		t.Errorf("a feed with a deadline ends with %v", last)
	}
	cancelAll := func() {
		var all sync.WaitGroup
		defer all.Wait()
		for at, reached := range map[string]func(n int, c mr.Change) bool{
			"the beginning":   func(n int, _ mr.Change) bool { return n == 0 },
			"in the snapshot": func(n int, _ mr.Change) bool { return n == 250 },
			"at Synced":       func(_ int, c mr.Change) bool { return c.Kind == mr.Synced },
			"later":           func(n int, _ mr.Change) bool { return n > 502 },
		} {
			all.Go(func() { cancelFeed(t, r.(mr.Changes), at, reached) })
		}
	}
	cancelAll()
	const rounds = 6
	watchGoroutines(t, s.Patience, 2*rounds, func() { // of 4 feeds a round; a backend may keep idle connections
		for range rounds {
			cancelAll()
		}
	})
}

// cancelFeed ends the context a little after an element is reached.
func cancelFeed(t *testing.T, r mr.Changes, at string, reached func(n int, c mr.Change) bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n, failed := 0, error(nil)
	for c, err := range r.Changes(ctx, "") {
		if failed != nil {
			t.Errorf("%s: the feed goes on after its error", at)
			return
		}
		if failed = err; err == nil && reached(n, c) {
			time.AfterFunc(time.Duration(rand.Int64N(int64(5*time.Millisecond))), cancel)
		}
		n++
	}
	if !errors.Is(failed, context.Canceled) {
		t.Errorf("%s: the feed ends with %v", at, failed)
	}
}

// feedBreak breaks feeds off, by break, by panic, and before they begin.
func (s *registrySuite) feedBreak(t *testing.T) {
	r := s.open(t)
	putAll(t, r, 300, mr.Create, func(n int) mr.Identity { return identity(fmt.Sprint(n)) })
	breakOff := func(left int) {
		for c, err := range r.(mr.Changes).Changes(t.Context(), "") {
			noError(t, err, "changes")
			if left--; left < 0 || left < 300 && c.Kind == mr.Synced {
				break
			}
		}
	}
	breakAll := func(left int) {
		_ = r.(mr.Changes).Changes(t.Context(), "")
		breakOff(left)
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic of the loop's body got lost")
				}
			}()
			for range r.(mr.Changes).Changes(t.Context(), "") {
				panic("on purpose")
			}
		}()
	}
	breakOff(303)
	breakAll(10)
	const rounds = 30
	watchGoroutines(t, s.Patience, rounds, func() { // of 2 feeds a round; a backend may keep idle connections
		for n := range rounds {
			breakAll(10 * n)
		}
	})
	held, _ := s.follow(t, r, "").snapshot(t)
	held.want(t, scan(t, r, nil))
}
