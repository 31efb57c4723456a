package slottest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// finder returns the optional ability, and skips the test without it.
func finder(t *testing.T, r mr.Registry) mr.Finder {
	t.Helper()
	f, ok := r.(mr.Finder)
	if !ok {
		t.Skip("the registry is no Finder")
	}
	return f
}

// wantFound fails the test unless Find yields exactly these names, each once.
func wantFound(t *testing.T, f mr.Finder, match *filter.Expr, source string, want map[string]bool) {
	t.Helper()
	found := map[string]bool{}
	for id, err := range f.Find(t.Context(), match) {
		if err != nil {
			t.Fatalf("find %s: %v", source, err)
		}
		if found[id] || !want[id] {
			t.Fatalf("find %s yields %q: before %v, wanted %v", source, id, found[id], want[id])
		}
		found[id] = true
	}
	if len(found) != len(want) {
		t.Fatalf("find %s: %d names, want %d", source, len(found), len(want))
	}
}

// find compares with filter.Match on random metadata and filters, and with what is live.
func (s *registrySuite) find(t *testing.T) {
	r := s.open(t)
	f := finder(t, r)
	wantFound(t, f, nil, "everything in nothing", nil)
	rng := newRandom(t)
	all := map[string]map[string]any{}
	for _, id := range append(HostileIdentities(), "plain") {
		all[id] = RandomMetadata(rng)
		put(t, r, mr.Identity{ID: id, Metadata: all[id], TTL: time.Hour}, mr.Create)
	}
	for range 200 {
		source := RandomFilter(rng)
		e, err := filter.Parse(source)
		noError(t, err, source)
		want := map[string]bool{}
		for id, metadata := range all {
			if filter.Match(e, metadata) {
				want[id] = true
			}
		}
		wantFound(t, f, e, source, want)
	}
	for id := range all {
		if id != "plain" && id != "*" {
			_, err := r.Delete(t.Context(), id, 0)
			noError(t, err, "delete")
		}
	}
	put(t, r, mr.Identity{ID: "expires", TTL: s.ShortestTTL}, mr.Create)
	ends := time.Now().Add(s.ShortestTTL + s.ClockTolerance)
	put(t, r, mr.Identity{ID: "forever", TTL: mr.NoExpiry}, mr.Create)
	waitUntil(ends)
	wantFound(t, f, nil, "what is live", map[string]bool{"plain": true, "*": true, "forever": true})
}

// findEnds breaks off, and has contexts end: an error comes once, as the last element.
func (s *registrySuite) findEnds(t *testing.T) {
	r := s.open(t)
	f := finder(t, r)
	const many = 500
	for n := range many {
		put(t, r, identity(fmt.Sprint(n)), mr.Create)
	}
	for range f.Find(t.Context(), nil) {
		break
	}
	for _, ended := range []context.Context{cancelled(t), past(t)} {
		elements, last := 0, error(nil)
		for _, last = range f.Find(ended, nil) {
			elements++
		}
		if elements != 1 || !isContextError(last) {
			t.Errorf("find, with an ended context: %d elements, the last with %v", elements, last)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	names, failed := 0, error(nil)
	for id, err := range f.Find(ctx, nil) {
		switch {
		case failed != nil:
			t.Fatal("find goes on after its error")
		case err != nil:
			failed = err
		case id == "":
			t.Error("an empty name")
		}
		names++
		cancel()
	}
	if failed == nil && names != many || failed != nil && !errors.Is(failed, context.Canceled) {
		t.Errorf("a cancelled find ends after %d elements with %v", names, failed)
	}
}
