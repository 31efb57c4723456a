package slottest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// watch runs the tests of the optional ability to be watched.
func (s *registrySuite) watch(t *testing.T) {
	if _, ok := s.open(t).(mr.Watcher); !ok {
		t.Skip("the registry cannot be watched")
	}
	for _, sub := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"Events", s.watchEvents},
		{"Expiry", s.watchExpiry},
		{"Resume", s.watchResume},
		{"Tokens", s.watchTokens},
		{"Large", s.watchLarge},
		{"Elsewhere", s.watchElsewhere},
		{"Cancelled", s.watchCancelled},
	} {
		t.Run(sub.name, sub.run)
	}
}

// watching reads a watch in a goroutine of its own.
type watching struct {
	patience time.Duration
	events   chan watched
	stop     func()
	token    string // of the latest event that had one
}

type watched struct {
	event mr.WatchEvent
	token string
	err   error
}

// watchOf watches until the test ends, or stop.
func (s *registrySuite) watchOf(t *testing.T, r mr.Registry, w mr.Watch) *watching {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	of := &watching{patience: s.Patience, events: make(chan watched, feedBuffer)}
	done := make(chan struct{})
	of.stop = func() {
		cancel()
		<-done
	}
	go func() {
		defer close(done)
		defer close(of.events)
		for news, err := range r.(mr.Watcher).Watch(ctx, w) {
			if err != nil {
				of.events <- watched{err: err}
			}
			for _, e := range news.Events {
				of.events <- watched{event: e, token: news.Token}
			}
		}
	}()
	t.Cleanup(of.stop)
	return of
}

// next returns the next event that is no bookmark.
func (w *watching) next(t *testing.T) mr.WatchEvent {
	t.Helper()
	timer := time.NewTimer(w.patience)
	defer timer.Stop()
	for {
		select {
		case e, ok := <-w.events:
			if !ok {
				t.Fatal("the watch has ended without an error")
			}
			noError(t, e.err, "watch")
			if w.token = e.token; e.event.Type != mr.WatchBookmark {
				return e.event
			}
		case <-timer.C:
			t.Fatalf("no event within %v", w.patience)
		}
	}
}

// want fails the test unless the next events are these: a type, or "JOINED name", or "LEFT name REASON".
func (w *watching) want(t *testing.T, events ...string) {
	t.Helper()
	for _, want := range events {
		e := w.next(t)
		got := e.Type.String()
		if e.Identity.ID != "" {
			got += " " + e.Identity.ID
		}
		if e.Type == mr.WatchLeft {
			got += " " + e.Reason.String()
		}
		if got != want {
			t.Fatalf("the next event is %q, want %q", got, want)
		}
	}
}

func expr(t *testing.T, text string) *filter.Expr {
	t.Helper()
	e, err := filter.Parse(text)
	noError(t, err, "parse the filter")
	return e
}

func room(id, room string) mr.Identity {
	return mr.Identity{ID: id, Metadata: map[string]any{"room": room}, TTL: time.Hour}
}

func (s *registrySuite) watchEvents(t *testing.T) {
	r := s.open(t)
	put(t, r, room("a", "lab"), mr.Create)
	put(t, r, room("b", "hall"), mr.Create)
	wantLen(t, r, 2) // and the copy has them
	lab, all := s.watchOf(t, r, mr.Watch{Match: expr(t, `{"room":"lab"}`)}), s.watchOf(t, r, mr.Watch{})
	none := s.watchOf(t, r, mr.Watch{Match: expr(t, `{"room":"attic"}`)})
	lab.want(t, "PRESENT a", "SYNCED")
	all.want(t, "PRESENT a", "PRESENT b", "SYNCED")
	none.want(t, "SYNCED")

	put(t, r, room("c", "lab"), mr.Create)
	_, err := r.Renew(t.Context(), "a", 0)
	noError(t, err, "renew")
	put(t, r, room("b", "lab"), mr.Replace)
	put(t, r, room("a", "hall"), mr.Replace)
	stored := put(t, r, room("c", "lab"), mr.Replace)
	_, err = r.Delete(t.Context(), "b", 0)
	noError(t, err, "delete")

	lab.want(t, "JOINED c", "JOINED b", "LEFT a NO_LONGER_MATCHES")
	e := lab.next(t)
	if e.Type != mr.WatchUpdated || e.Identity.ID != "c" || e.Identity.Revision != stored.Revision ||
		!e.Identity.RegisteredAt.Equal(stored.RegisteredAt) || e.Identity.TTL != time.Hour || e.Identity.ExpiresAt.IsZero() {
		t.Errorf("the update is %v of %+v, want %+v", e.Type, e.Identity, stored)
	}
	if metadata, err := mr.DecodeMetadata(e.Identity.Encoded); err != nil || metadata["room"] != "lab" {
		t.Errorf("the updated identity has metadata %v, %v", metadata, err)
	}
	lab.want(t, "LEFT b UNREGISTERED")
	all.want(t, "JOINED c", "UPDATED b", "UPDATED a", "UPDATED c", "LEFT b UNREGISTERED")

	quiet := s.watchOf(t, r, mr.Watch{OmitSnapshot: true})
	quiet.want(t, "SYNCED")
	put(t, r, room("z", "attic"), mr.Create)
	quiet.want(t, "JOINED z")
	none.want(t, "JOINED z")
}

func (s *registrySuite) watchExpiry(t *testing.T) {
	r := s.open(t)
	w := s.watchOf(t, r, mr.Watch{})
	w.want(t, "SYNCED")
	short := room("short", "lab")
	short.TTL = s.ShortestTTL
	put(t, r, short, mr.Create)
	w.want(t, "JOINED short", "LEFT short EXPIRED")
}

// watchResume cuts a watch off and goes on with its token: nothing is missing and nothing comes twice.
func (s *registrySuite) watchResume(t *testing.T) {
	r := s.open(t)
	w := s.watchOf(t, r, mr.Watch{Match: expr(t, `{"room":"lab"}`)})
	w.want(t, "SYNCED")
	put(t, r, room("a", "lab"), mr.Create)
	put(t, r, room("b", "lab"), mr.Create)
	w.want(t, "JOINED a", "JOINED b")
	w.stop()
	again := s.watchOf(t, r, mr.Watch{Match: expr(t, `{"room":"lab"}`), After: w.token})
	again.want(t, "SYNCED")
	again.stop()
	put(t, r, room("c", "lab"), mr.Create)
	put(t, r, room("a", "hall"), mr.Replace)
	put(t, r, room("d", "hall"), mr.Create)
	put(t, r, room("e", "lab"), mr.Create)
	_, err := r.Delete(t.Context(), "e", 0)
	noError(t, err, "delete")
	wantLen(t, r, 4)
	last := s.watchOf(t, r, mr.Watch{Match: expr(t, `{"room":"lab"}`), After: again.token})
	last.want(t, "JOINED c", "LEFT a NO_LONGER_MATCHES", "SYNCED") // e has come and gone
}

func (s *registrySuite) watchTokens(t *testing.T) {
	r := s.open(t)
	w := s.watchOf(t, r, mr.Watch{})
	w.want(t, "SYNCED")
	foreign := s.open(t)
	put(t, foreign, room("a", "lab"), mr.Create)
	wantLen(t, foreign, 1)
	s.watchOf(t, foreign, mr.Watch{After: w.token}).want(t, "RESET", "PRESENT a", "SYNCED")
	for _, bad := range []mr.Watch{{After: "x"}, {After: w.token, Match: expr(t, `{"room":"lab"}`)}} {
		e := <-s.watchOf(t, r, bad).events
		if invalid, ok := errors.AsType[*mr.InvalidError](e.err); !ok || invalid.Field != "resume_token" {
			t.Errorf("after %q: %v", bad.After, e.err)
		}
	}
}

// watchLarge takes a snapshot of several pages.
func (s *registrySuite) watchLarge(t *testing.T) {
	r := s.open(t)
	want := []string{}
	for n := range 2500 {
		want = append(want, fmt.Sprintf("id-%04d", n))
	}
	s.putAll(t, r, want)
	w := s.watchOf(t, r, mr.Watch{})
	var got []string
	for e := w.next(t); e.Type != mr.WatchSynced; e = w.next(t) {
		got = append(got, e.Identity.ID)
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("the snapshot has %d identities, want %d, each once", len(got), len(want))
	}
}

func (s *registrySuite) putAll(t *testing.T, r mr.Registry, ids []string) {
	t.Helper()
	const atOnce = 50
	errs := make(chan error, atOnce)
	for n := range atOnce {
		go func() {
			var err error
			for i := n; i < len(ids) && err == nil; i += atOnce {
				_, err = r.Put(t.Context(), room(ids[i], "lab"), mr.Create)
			}
			errs <- err
		}()
	}
	for range atOnce {
		noError(t, <-errs, "put")
	}
	wantLen(t, r, len(ids))
}

func wantLen(t *testing.T, r mr.Registry, want int) {
	t.Helper()
	if n := len(scan(t, r, nil)); n != want {
		t.Fatalf("there are %d identities, want %d", n, want)
	}
}

// watchElsewhere changes through one registry what is watched through another one.
func (s *registrySuite) watchElsewhere(t *testing.T) {
	if s.OpenPair == nil {
		t.Skip("no second process")
	}
	a, b := s.OpenPair(t)
	w := s.watchOf(t, b, mr.Watch{Match: expr(t, `{"room":"lab"}`)})
	w.want(t, "SYNCED")
	put(t, a, room("x", "lab"), mr.Create)
	w.want(t, "JOINED x")
	put(t, a, room("x", "hall"), mr.Replace)
	w.want(t, "LEFT x NO_LONGER_MATCHES")
	put(t, b, room("y", "lab"), mr.Create)
	w.want(t, "JOINED y")
	_, err := a.Delete(t.Context(), "y", 0)
	noError(t, err, "delete")
	w.want(t, "LEFT y UNREGISTERED")

	// A watch goes on there too, unless the registry's parts have no common order.
	w.stop()
	put(t, b, room("z", "lab"), mr.Create)
	wantLen(t, a, 2)
	first := "JOINED z"
	if s.Partitioned {
		first = "RESET"
	}
	eventually(t, s.Patience, "the watch to go on in the other process", func() bool {
		again := s.watchOf(t, a, mr.Watch{Match: expr(t, `{"room":"lab"}`), After: w.token})
		defer again.stop()
		e := again.next(t)
		return e.Type.String()+" "+e.Identity.ID == first || e.Type.String() == first
	})
}

func (s *registrySuite) watchCancelled(t *testing.T) {
	r := s.open(t)
	w := s.watchOf(t, r, mr.Watch{})
	w.want(t, "SYNCED")
	w.stop()
	for e := range w.events {
		if !errors.Is(e.err, context.Canceled) {
			t.Errorf("a cancelled watch ends with %v, %v", e.event, e.err)
		}
	}
	for range r.(mr.Watcher).Watch(t.Context(), mr.Watch{}) {
		break
	}
}
