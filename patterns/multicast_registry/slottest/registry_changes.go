package slottest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// changes runs the tests of the optional change feed.
func (s *registrySuite) changes(t *testing.T) {
	if _, ok := s.open(t).(mr.Changes); !ok {
		t.Skip("the registry has no change feed")
	}
	long := []string{"Trimmed", "SnapshotWhileMutating", "ConvergesOnTinyLog", "Cancelled"}
	run(t, s.Brief, long, []subtest{
		{"Empty", s.feedEmpty},
		{"Snapshot", s.feedSnapshot},
		{"Live", s.feedLive},
		{"Expiry", s.feedExpiry},
		{"StaleExpiry", s.feedStaleExpiry},
		{"Idle", s.feedIdle},
		{"TwoReaders", s.feedTwoReaders},

		{"Resume", s.feedResume},
		{"ResumeElsewhere", s.feedResumeElsewhere},
		{"Trimmed", s.feedTrimmed},
		{"SnapshotWhileMutating", s.feedSnapshotWhileMutating},
		{"Converges", s.feedConverges},
		{"ConvergesOnTinyLog", s.feedConvergesOnTinyLog},
		{"Reconnecting", s.feedReconnecting},

		{"Cancelled", s.feedCancelled},
		{"Break", s.feedBreak},
	})
}

// feedBuffer is how many changes a follower holds for its test: more than any test makes.
const feedBuffer = 1 << 16

// follower reads a change feed in a goroutine of its own, so that its test can wait for changes with patience.
type follower struct {
	patience time.Duration
	elements chan element
	stop     context.CancelFunc
}

type element struct {
	change mr.Change
	err    error
}

// follow reads a registry's feed from a position until the test ends, or stop.
func (s *registrySuite) follow(t *testing.T, r mr.Registry, after mr.Position) *follower {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &follower{patience: s.Patience, elements: make(chan element, feedBuffer)}
	done := make(chan struct{})
	f.stop = func() {
		cancel()
		<-done
	}
	go func() {
		defer close(done)
		defer close(f.elements)
		for c, err := range r.(mr.Changes).Changes(ctx, after) {
			f.elements <- element{c, err}
		}
	}()
	t.Cleanup(f.stop)
	return f
}

// next returns the next element, which must be no error.
func (f *follower) next(t *testing.T) mr.Change {
	t.Helper()
	timer := time.NewTimer(f.patience)
	defer timer.Stop()
	select {
	case e, ok := <-f.elements:
		if !ok {
			t.Fatal("the feed has ended without an error")
		}
		noError(t, e.err, "changes")
		return e.change
	case <-timer.C:
		t.Fatalf("no element of the feed within %v", f.patience)
	}
	return mr.Change{}
}

// nextChange returns the next element that is not Synced.
func (f *follower) nextChange(t *testing.T) mr.Change {
	t.Helper()
	for deadline := time.Now().Add(f.patience); time.Now().Before(deadline); {
		if c := f.next(t); c.Kind != mr.Synced {
			return c
		}
	}
	t.Fatalf("no change within %v", f.patience)
	return mr.Change{}
}

// snapshot reads a Reset and what follows up to the first Synced, and returns the copy that a reader then has.
func (f *follower) snapshot(t *testing.T) (feedCopy, mr.Change) {
	t.Helper()
	if first := f.next(t); first.Kind != mr.Reset || first.Position != "" {
		t.Fatalf("the feed begins with %+v", first)
	}
	held := feedCopy{}
	for {
		c := f.next(t)
		if c.Kind == mr.Synced {
			if c.Position == "" {
				t.Error("Synced has no position")
			}
			return held, c
		}
		if c.Position != "" {
			t.Errorf("%+v: a position before the first Synced", c)
		}
		held.apply(t, c)
	}
}

// rest reads up to a Synced, and returns the changes before it.
func (f *follower) rest(t *testing.T) []mr.Change {
	t.Helper()
	var list []mr.Change
	for {
		c := f.next(t)
		if c.Kind == mr.Synced {
			return list
		}
		list = append(list, c)
	}
}

// feedCopy is what a reader has made of a feed.
type feedCopy map[string]mr.Identity

// wantUpTo fails the test when the copy has what a Synced does not cover. Of a registry in parts that cannot be told.
func (s *registrySuite) wantUpTo(t *testing.T, held feedCopy, synced mr.Change) {
	t.Helper()
	for id, i := range held {
		if i.Revision > synced.Revision && !s.Partitioned {
			t.Fatalf("synced up to revision %d, but the copy has %q of revision %d", synced.Revision, id, i.Revision)
		}
	}
}

func (held feedCopy) apply(t *testing.T, c mr.Change) {
	t.Helper()
	i := c.Identity
	switch c.Kind {
	case mr.Reset:
		clear(held)
	case mr.Put:
		if i.Revision != c.Revision {
			t.Errorf("a Put of %q has revision %d, its identity %d", i.ID, c.Revision, i.Revision)
		}
		held[i.ID] = decoded(t, i)
	case mr.Renew:
		if known, ok := held[i.ID]; ok {
			known.TTL, known.ExpiresAt = i.TTL, i.ExpiresAt
			held[i.ID] = known
		}
	case mr.Delete, mr.Expire:
		delete(held, i.ID)
	case mr.Synced:
	default:
		t.Errorf("a change of unknown kind: %+v", c)
	}
}

// decoded returns an identity of a feed with Metadata, whichever of the two it has.
func decoded(t *testing.T, i mr.Identity) mr.Identity {
	t.Helper()
	if i.Metadata == nil {
		var err error
		i.Metadata, err = mr.DecodeMetadata(i.Encoded)
		noError(t, err, "decode metadata")
		i.Encoded = ""
	}
	return i
}

// equal tells whether a copy is the same as what a scan has found.
func (held feedCopy) equal(found map[string]mr.Identity) bool {
	if len(held) != len(found) {
		return false
	}
	for id, want := range found {
		got, ok := held[id]
		if !ok || got.TTL != want.TTL || got.Revision != want.Revision || !got.RegisteredAt.Equal(want.RegisteredAt) ||
			!got.ExpiresAt.Equal(want.ExpiresAt) || len(got.Metadata)+len(want.Metadata) > 0 && !sameJSON(got.Metadata, want.Metadata) {
			return false
		}
	}
	return true
}

func (held feedCopy) want(t *testing.T, found map[string]mr.Identity) {
	t.Helper()
	for id, want := range found {
		got, ok := held[id]
		if !ok {
			t.Errorf("the copy lacks %q", id)
			continue
		}
		wantSame(t, got, want)
	}
	for id := range held {
		if _, ok := found[id]; !ok {
			t.Errorf("the copy has %q, which is not live", id)
		}
	}
}

// wantChanges fails the test unless changes are these, in this order. Want says kinds, identities and, unless 0, revisions.
func (s *registrySuite) wantChanges(t *testing.T, got, want []mr.Change) {
	t.Helper()
	got, want = slices.Clone(got), slices.Clone(want)
	if s.Partitioned { // then order is kept for each identity
		byID := func(a, b mr.Change) int { return cmp.Compare(a.Identity.ID, b.Identity.ID) }
		slices.SortStableFunc(got, byID)
		slices.SortStableFunc(want, byID)
	}
	for n := range max(len(got), len(want)) {
		switch {
		case n >= len(want):
			t.Errorf("change %d is one too many: %+v", n, got[n])
		case n >= len(got):
			t.Errorf("change %d is missing: %+v", n, want[n])
		default:
			wantChange(t, fmt.Sprintf("change %d", n), got[n], want[n])
		}
		if t.Failed() {
			return
		}
	}
}

func wantChange(t *testing.T, what string, got, want mr.Change) {
	t.Helper()
	g, w := got.Identity, want.Identity
	if got.Kind != want.Kind || g.ID != w.ID || want.Revision != 0 && got.Revision != want.Revision {
		t.Errorf("%s: got %+v\nwant %+v", what, got, want)
		return
	}
	if got.Position == "" || got.Revision == 0 {
		t.Errorf("%s has no position or no revision: %+v", what, got)
	}
	switch want.Kind {
	case mr.Put:
		wantSame(t, decoded(t, g), decoded(t, w))
	case mr.Renew:
		if g.TTL != w.TTL || !g.ExpiresAt.Equal(w.ExpiresAt) {
			t.Errorf("%s: got %+v\nwant %+v", what, got, want)
		}
	}
}

// wantOrder fails the test unless the revisions of changes that follow each other after another one are in order.
func (s *registrySuite) wantOrder(t *testing.T, after mr.Revision, list []mr.Change) {
	t.Helper()
	last := map[string]mr.Revision{}
	for n, c := range list {
		of := c.Identity.ID
		if !s.Partitioned {
			of = ""
			if c.Revision != after+1 {
				t.Errorf("change %d: revision %d follows %d", n, c.Revision, after)
			}
			after = c.Revision
		}
		if c.Revision <= last[of] {
			t.Errorf("change %d: revision %d follows %d", n, c.Revision, last[of])
		}
		last[of] = c.Revision
	}
}
