package slottest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// feedEmpty follows a registry in which nothing ever happened.
func (s *registrySuite) feedEmpty(t *testing.T) {
	r := s.open(t)
	f := s.follow(t, r, "")
	held, synced := f.snapshot(t)
	held.want(t, nil)
	if h, ok := r.(mr.Header); ok {
		if head, err := h.Head(t.Context()); err != nil || head != synced.Revision {
			t.Errorf("the head is %d, %v; Synced says %d", head, err, synced.Revision)
		}
	}
	stored := put(t, r, identity("first"), mr.Create)
	wantChange(t, "the first change ever", f.nextChange(t), mr.Change{Kind: mr.Put, Identity: stored, Revision: stored.Revision})
	again := s.follow(t, r, synced.Position)
	wantChange(t, "resumed", again.next(t), mr.Change{Kind: mr.Put, Identity: stored, Revision: stored.Revision})
}

// feedSnapshot follows a registry that has a past.
func (s *registrySuite) feedSnapshot(t *testing.T) {
	r := s.open(t)
	putAll(t, r, 1000, mr.Create, func(n int) mr.Identity {
		i := mr.Identity{ID: fmt.Sprintf("id-%d", n), TTL: time.Duration(1+n%7) * time.Hour}
		switch {
		case n%3 == 0:
			i.Metadata = rich()
		case n%10 == 1:
			i.TTL = mr.NoExpiry
		}
		return i
	})
	for n, id := range HostileIdentities() {
		put(t, r, mr.Identity{ID: id, Metadata: map[string]any{"n": int64(n)}, TTL: time.Hour}, mr.Create)
	}
	for n := range 100 {
		_, err := r.Delete(t.Context(), fmt.Sprintf("id-%d", 5*n), 0)
		noError(t, err, "delete")
		_, err = r.Renew(t.Context(), fmt.Sprintf("id-%d", 5*n+1), time.Minute*time.Duration(n+10))
		noError(t, err, "renew")
	}
	held, _ := s.follow(t, r, "").snapshot(t)
	found := scan(t, r, nil)
	held.want(t, found)
	for _, i := range held {
		for key := range i.Metadata {
			i.Metadata[key] = "changed by the reader"
		}
	}
	again, _ := s.follow(t, r, "").snapshot(t)
	again.want(t, found)
}

// feedLive makes each kind of change, and calls that change nothing.
func (s *registrySuite) feedLive(t *testing.T) {
	r := s.open(t)
	put(t, r, identity("from before"), mr.Create)
	f := s.follow(t, r, "")
	_, synced := f.snapshot(t)
	want := s.history(t, r, []string{"a", "b.*\r\n>", "ünï cødé"})
	var got []mr.Change
	for range want {
		got = append(got, f.nextChange(t))
	}
	s.wantChanges(t, got, want)
	s.wantOrder(t, synced.Revision, got)
	if more := f.rest(t); len(more) > 0 {
		t.Errorf("changes that nobody made: %+v", more)
	}
}

// history changes each of the identities in each way, and returns the changes.
func (s *registrySuite) history(t *testing.T, r mr.Registry, ids []string) []mr.Change {
	t.Helper()
	var made []mr.Change
	tell := func(kind mr.ChangeKind, i mr.Identity) {
		made = append(made, mr.Change{Kind: kind, Identity: i, Revision: i.Revision})
	}
	doPut := func(i mr.Identity, mode mr.PutMode) { tell(mr.Put, put(t, r, i, mode)) }
	doRenew := func(id string, ttl time.Duration) {
		t.Helper()
		lease, err := r.Renew(t.Context(), id, ttl)
		noError(t, err, "renew")
		tell(mr.Renew, mr.Identity{ID: id, TTL: lease.TTL, ExpiresAt: lease.ExpiresAt})
	}
	doDelete := func(id string, only mr.Revision) {
		t.Helper()
		if existed, err := r.Delete(t.Context(), id, only); !existed || err != nil {
			t.Fatalf("delete: %v, %v", existed, err)
		}
		tell(mr.Delete, mr.Identity{ID: id})
	}
	for _, id := range ids {
		doPut(mr.Identity{ID: id, Metadata: rich(), TTL: time.Hour}, mr.Create)
	}
	for _, id := range ids {
		doRenew(id, 0)
		doRenew(id, 1234567*time.Millisecond)
		doRenew(id, mr.NoExpiry)
		doRenew(id, 0)
		doPut(mr.Identity{ID: id, TTL: mr.NoExpiry}, mr.Replace)
		doPut(mr.Identity{ID: id, Metadata: map[string]any{"new": true}, TTL: time.Minute}, mr.Replace)

		if _, err := r.Put(t.Context(), identity(id), mr.Create); !errors.Is(err, mr.ErrAlreadyExists) {
			t.Errorf("a create of what is live: %v", err)
		}
		if _, err := r.Renew(t.Context(), id+"?", 0); !errors.Is(err, mr.ErrNotFound) {
			t.Errorf("a renewal of what is absent: %v", err)
		}
		if existed, err := r.Delete(t.Context(), id+"?", 0); existed || err != nil {
			t.Errorf("a deletion of what is absent: %v, %v", existed, err)
		}
		before := made[len(made)-1].Revision
		doPut(mr.Identity{ID: id, Metadata: map[string]any{"newest": true}, TTL: time.Minute}, mr.Replace)
		if existed, err := r.Delete(t.Context(), id, before); existed || err != nil {
			t.Errorf("a deletion of what was replaced: %v, %v", existed, err)
		}
	}
	for n, id := range ids {
		only := mr.Revision(0)
		if n%2 == 0 {
			only = scan(t, r, nil)[id].Revision
		}
		doDelete(id, only)
		doPut(identity(id), mr.Create)
	}
	return made
}

// feedExpiry lets leases end in every way in which an end may be noticed: each is told once, as an expiry, before anything
// else that happens to the identity, and not before its time.
func (s *registrySuite) feedExpiry(t *testing.T) {
	r := s.open(t)
	f := s.follow(t, r, "")
	f.snapshot(t)
	notice := map[string]func(id string){
		"swept":    func(string) {},
		"created":  func(id string) { put(t, r, identity(id), mr.Create) },
		"replaced": func(id string) { put(t, r, identity(id), mr.Replace) },
		"renewed": func(id string) {
			if _, err := r.Renew(t.Context(), id, time.Hour); !errors.Is(err, mr.ErrNotFound) {
				t.Errorf("renewing what has expired: %v", err)
			}
		},
		"deleted": func(id string) {
			if existed, err := r.Delete(t.Context(), id, 0); existed || err != nil {
				t.Errorf("deleting what has expired: %v, %v", existed, err)
			}
		},
	}
	began := time.Now()
	for way := range notice {
		put(t, r, mr.Identity{ID: way, TTL: s.ShortestTTL}, mr.Create)
	}
	waitUntil(time.Now().Add(s.ShortestTTL + s.ClockTolerance))
	for way, act := range notice {
		act(way)
	}
	told := map[string][]mr.ChangeKind{}
	expired := 0
	eventually(t, s.Patience, "every expiry is told", func() bool {
		put(t, r, mr.Identity{ID: "passing", TTL: mr.NoExpiry}, mr.Replace) // calls go on
		for len(f.elements) > 0 {
			c := f.next(t)
			told[c.Identity.ID] = append(told[c.Identity.ID], c.Kind)
			if c.Kind == mr.Expire {
				expired++
				if early := time.Until(began.Add(s.ShortestTTL - s.ClockTolerance)); early > 0 {
					t.Errorf("%q is told to expire %v before its time", c.Identity.ID, early)
				}
			}
		}
		return expired >= len(notice) && len(told["created"]) >= 3 && len(told["replaced"]) >= 3
	})
	for way := range notice {
		want := []mr.ChangeKind{mr.Put, mr.Expire}
		if way == "created" || way == "replaced" {
			want = append(want, mr.Put)
		}
		if !slices.Equal(told[way], want) {
			t.Errorf("%q: told %v, want %v", way, told[way], want)
		}
	}
}

// feedStaleExpiry gives identities a short lease and then another one: no expiry is told.
func (s *registrySuite) feedStaleExpiry(t *testing.T) {
	r := s.open(t)
	f := s.follow(t, r, "")
	f.snapshot(t)
	spare := 10 * s.ShortestTTL // the second lease must begin before the first ends
	for _, id := range []string{"renewed", "replaced", "endless", "deleted"} {
		put(t, r, mr.Identity{ID: id, TTL: spare}, mr.Create)
	}
	_, err := r.Renew(t.Context(), "renewed", time.Hour)
	noError(t, err, "renew")
	_, err = r.Renew(t.Context(), "endless", mr.NoExpiry)
	noError(t, err, "renew")
	put(t, r, identity("replaced"), mr.Replace)
	_, err = r.Delete(t.Context(), "deleted", 0)
	noError(t, err, "delete")
	put(t, r, mr.Identity{ID: "marker", TTL: spare + s.SweptWithin}, mr.Create)
	eventually(t, s.Patience+spare+s.SweptWithin, "an expiry that is true", func() bool {
		put(t, r, mr.Identity{ID: "passing", TTL: mr.NoExpiry}, mr.Replace)
		for len(f.elements) > 0 {
			if c := f.next(t); c.Kind == mr.Expire {
				if c.Identity.ID != "marker" {
					t.Fatalf("%q has not expired, but its expiry is told", c.Identity.ID)
				}
				return true
			}
		}
		return false
	})
}

// feedIdle waits while nothing happens, and then lets changes go on without a pause.
func (s *registrySuite) feedIdle(t *testing.T) {
	r := s.open(t)
	put(t, r, identity("a"), mr.Create)
	f := s.follow(t, r, "")
	_, last := f.snapshot(t)
	const rounds = 4
	began := time.Now()
	for range rounds {
		c := f.next(t)
		if c.Kind != mr.Synced || c.Position == "" || c.Revision < last.Revision {
			t.Fatalf("after %+v, while nothing happens, comes %+v", last, c)
		}
		last = c
	}
	if took := time.Since(began); took > 3*rounds*mr.ChangesIdle {
		t.Errorf("%d times Synced in %v", rounds, took)
	}
	stored := put(t, r, identity("b"), mr.Create)
	eventually(t, s.Patience, "Synced reaches the last change", func() bool {
		last = f.next(t)
		return last.Kind == mr.Synced && last.Revision >= stored.Revision
	})
	head := last.Revision
	if h, ok := r.(mr.Header); ok {
		var err error
		head, err = h.Head(t.Context())
		noError(t, err, "head")
	}
	eventually(t, s.Patience, "Synced reaches the head", func() bool { return f.next(t).Revision >= head })
	if c := s.follow(t, r, last.Position).next(t); c.Kind != mr.Synced {
		t.Errorf("resumed where nothing has happened since: %+v", c)
	}
}

// feedTwoReaders lets two readers follow at once, through each view of the registry.
func (s *registrySuite) feedTwoReaders(t *testing.T) {
	a := s.open(t)
	b := a
	if s.OpenPair != nil {
		a, b = s.OpenPair(t)
	}
	followers := []*follower{s.follow(t, a, ""), s.follow(t, b, ""), s.follow(t, a, "")}
	for _, f := range followers {
		f.snapshot(t)
	}
	want := s.history(t, a, []string{"through a", "both"})
	want = append(want, s.history(t, b, []string{"through b"})...)
	for _, f := range followers {
		var got []mr.Change
		for range want {
			got = append(got, f.nextChange(t))
		}
		s.wantChanges(t, got, want)
	}
}
