package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/prism-data-layer/prism/client"
)

// watching reads a watch in a goroutine of its own.
type watching struct {
	tb     testing.TB
	events chan client.WatchEvent
	err    error // after events was closed
	stop   func()
}

func watch(tb testing.TB, c *client.Client, q client.WatchQuery) *watching {
	tb.Helper()
	ctx, cancel := context.WithCancel(withPatience(tb))
	w := &watching{tb: tb, events: make(chan client.WatchEvent)}
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(w.events)
		for e, err := range c.Watch(ctx, q) {
			if err != nil {
				w.err = err
				return
			}
			if e.Type == client.Bookmark {
				continue
			}
			select {
			case w.events <- e:
			case <-ctx.Done():
				return
			}
		}
	})
	w.stop = func() {
		cancel()
		reading.Wait()
	}
	tb.Cleanup(w.stop)
	return w
}

func (w *watching) want(events ...string) (last client.WatchEvent) {
	w.tb.Helper()
	for _, want := range events {
		e, ok := <-w.events
		if !ok {
			w.tb.Fatalf("the watch ended with %v, want %s", w.err, want)
		}
		got := e.Type.String()
		if e.Identity.ID != "" {
			got += " " + e.Identity.ID
		}
		if e.Type == client.Left {
			got += " " + e.Reason.String()
		}
		if got != want {
			w.tb.Fatalf("the next event is %s, want %s", got, want)
		}
		last = e
	}
	return last
}

func (w *watching) fails() error {
	w.tb.Helper()
	for e := range w.events {
		w.tb.Errorf("an event in place of the error: %v", e)
	}
	return w.err
}

func register(tb testing.TB, c *client.Client, id, room string) {
	tb.Helper()
	if _, err := c.Register(tb.Context(), client.Registration{ID: id, Metadata: map[string]any{"room": room}, Mode: client.Replace}); err != nil {
		tb.Fatal(err)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	c := newClient(t)
	register(t, c, "a", "lab")
	w := watch(t, c, client.WatchQuery{Filter: map[string]any{"room": "lab"}})
	w.want("PRESENT a", "SYNCED")
	register(t, c, "b", "lab")
	if e := w.want("JOINED b"); e.Identity.Metadata()["room"] != "lab" || e.Identity.Revision == 0 || e.ResumeToken == "" {
		t.Errorf("the event is %+v", e)
	}
	register(t, c, "b", "lab")
	register(t, c, "a", "hall")
	token := w.want("UPDATED b", "LEFT a NO_LONGER_MATCHES").ResumeToken
	w.stop()
	if _, err := c.Unregister(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	again := watch(t, c, client.WatchQuery{Filter: map[string]any{"room": "lab"}, ResumeToken: token, OmitMetadata: true})
	if e := again.want("LEFT b UNREGISTERED"); e.Identity.Metadata() != nil {
		t.Errorf("metadata was left out, but came: %v", e.Identity.Metadata())
	}
	again.want("SYNCED")
	for field, q := range map[string]client.WatchQuery{
		"resume_token": {ResumeToken: token},
		"filter":       {Filter: map[string]any{"a": map[string]any{"$no": 1}}},
	} {
		var invalid *client.InvalidError
		if err := watch(t, c, q).fails(); !errors.As(err, &invalid) || invalid.Field[:len(field)] != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if err := watch(t, c.In("nowhere"), client.WatchQuery{}).fails(); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("an unknown namespace: %v", err)
	}
	for _, err := range c.Watch(t.Context(), client.WatchQuery{}) {
		if err != nil {
			t.Error(err)
		}
		break
	}
}

// TestWatchCut cuts the connection: the watch goes on by itself with what happened meanwhile. Then another server, which knows
// nothing of it, takes the first one's place.
func TestWatchCut(t *testing.T) {
	t.Parallel()
	s := serve(t, "127.0.0.1:0")
	cable := newWire(t, s.addr)
	direct := dial(t, s.addr)
	var mu sync.Mutex
	var interruptions []error
	w := watch(t, dial(t, cable.addr), client.WatchQuery{OnInterrupted: func(err error) {
		mu.Lock()
		defer mu.Unlock()
		interruptions = append(interruptions, err)
	}})
	w.want("SYNCED")
	register(t, direct, "a", "lab")
	w.want("JOINED a")
	cable.cut()
	register(t, direct, "b", "lab")
	register(t, direct, "a", "hall")
	eventually(t, "the interruption is noticed", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(interruptions) > 0
	})
	cable.join(s.addr)
	w.want("JOINED b", "UPDATED a", "SYNCED")

	other := serve(t, "127.0.0.1:0")
	register(t, dial(t, other.addr), "z", "lab")
	cable.cut()
	cable.join(other.addr)
	w.want("RESET", "PRESENT z", "SYNCED")

	other.stop()
	mu.Lock()
	defer mu.Unlock()
	if !slices.ContainsFunc(interruptions, func(err error) bool { return errors.Is(err, client.ErrUnavailable) }) {
		t.Errorf("interrupted with %v", interruptions)
	}
}

// TestWatchManyPages takes a snapshot of several messages, and breaks off in the middle of another.
func TestWatchManyPages(t *testing.T) {
	t.Parallel()
	c := newClient(t)
	var registering sync.WaitGroup
	for from := range 10 {
		registering.Go(func() {
			for n := range 210 {
				register(t, c, fmt.Sprintf("id-%d-%03d", from, n), "lab")
			}
		})
	}
	registering.Wait()
	n := 0
	for e, err := range c.Watch(withPatience(t), client.WatchQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == client.Synced {
			break
		}
		if e.ResumeToken != "" {
			t.Error("a token in the middle of a snapshot")
		}
		n++
	}
	if n != 2100 {
		t.Errorf("%d identities, want 2100", n)
	}
	for range c.Watch(withPatience(t), client.WatchQuery{}) {
		if n--; n < 600 {
			break
		}
	}
}
