package replica_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/replica"
)

// watch returns a function that returns the next event as text, or the error that ended the watch.
func watch(t *testing.T, r *replica.Registry, w mr.Watch) (next, token func() string) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	type step struct{ text, token string }
	steps := make(chan step)
	var watching sync.WaitGroup
	watching.Go(func() {
		for news, err := range r.Watch(ctx, w) {
			var texts []string
			for _, e := range news.Events {
				texts = append(texts, fmt.Sprint(e.Type, " ", e.Identity.ID, e.Reason))
			}
			if err != nil {
				texts = append(texts, fmt.Sprint(errors.Is(err, mr.ErrUnavailable), errors.Is(err, mr.ErrUnsupported)))
			}
			for _, text := range texts {
				select {
				case steps <- step{text, news.Token}:
				case <-ctx.Done():
					return
				}
			}
		}
	})
	t.Cleanup(func() {
		stop()
		watching.Wait()
	})
	last := step{}
	return func() string {
		t.Helper()
		select {
		case last = <-steps:
		case <-time.After(30 * time.Second):
			t.Fatal("nothing comes")
		}
		return last.text
	}, func() string { return last.token }
}

func wantEvents(t *testing.T, next func() string, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := next(); got != w {
			t.Errorf("the next event is %q, want %q", got, w)
		}
	}
}

// TestWatch has the feed tell of every kind of change, break off and go on, and begin again.
func TestWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		r := follow(t, s, replica.Config{})
		beginning := synced(2)
		beginning.Epoch = "e"
		s.feeds <- []mr.Change{reset, put("a", 1), put("b", 2), beginning}
		synctest.Wait()
		next, token := watch(t, r, mr.Watch{})
		wantEvents(t, next, "PRESENT a", "PRESENT b", "SYNCED ")
		s.live <- put("c", 3)
		wantEvents(t, next, "JOINED c")
		from := token()
		s.live <- mr.Change{Kind: mr.Renew, Revision: 4, Identity: mr.Identity{ID: "a", TTL: time.Hour, ExpiresAt: time.Now().Add(time.Hour)}}
		s.live <- mr.Change{Kind: mr.Extend, Revision: 5, Since: time.Now(), Until: time.Now().Add(time.Hour)}
		s.live <- put("a", 6)
		s.live <- mr.Change{Kind: mr.Delete, Revision: 7, Identity: mr.Identity{ID: "b"}}
		s.live <- mr.Change{Kind: mr.Expire, Revision: 8, Identity: mr.Identity{ID: "c"}}
		wantEvents(t, next, "UPDATED a", "LEFT bUNREGISTERED", "LEFT cEXPIRED")
		s.live <- mr.Change{} // the feed breaks off, and goes on
		s.feeds <- []mr.Change{put("d", 9), synced(9)}
		wantEvents(t, next, "JOINED d")
		again, _ := watch(t, r, mr.Watch{After: from})
		wantEvents(t, again, "UPDATED a", "LEFT bUNREGISTERED", "LEFT cEXPIRED", "JOINED d", "SYNCED ")
		s.live <- mr.Change{}
		other := synced(1)
		other.Epoch = "f"
		s.feeds <- []mr.Change{reset, put("z", 1), other} // the source has lost its data
		wantEvents(t, next, "RESET ", "PRESENT z", "SYNCED ")
		late, _ := watch(t, r, mr.Watch{After: from})
		wantEvents(t, late, "RESET ", "PRESENT z", "SYNCED ")
	})
}

// TestWatchElsewhere goes on in one copy with the token of another one, which was ahead of it.
func TestWatchElsewhere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		beginning := synced(1)
		beginning.Epoch = "e"
		ahead, behind := newSource(), newSource()
		first, second := follow(t, ahead, replica.Config{}), follow(t, behind, replica.Config{})
		for _, s := range []*source{ahead, behind} {
			s.feeds <- []mr.Change{reset, put("a", 1), beginning}
		}
		synctest.Wait()
		next, token := watch(t, first, mr.Watch{OmitSnapshot: true})
		wantEvents(t, next, "SYNCED ")
		ahead.live <- put("b", 2)
		ahead.live <- put("c", 3)
		wantEvents(t, next, "JOINED b", "JOINED c")
		there, _ := watch(t, second, mr.Watch{After: token()})
		synctest.Wait()
		behind.live <- put("b", 2) // it is told of what the other one has told, and keeps that to itself
		behind.live <- put("c", 3)
		wantEvents(t, there, "SYNCED ")
		behind.live <- put("d", 4)
		wantEvents(t, there, "JOINED d")
	})
}

// TestWatchStale ends a watch when there is no news of the source.
func TestWatchStale(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		r := follow(t, s, replica.Config{})
		next, _ := watch(t, r, mr.Watch{})
		s.feeds <- []mr.Change{reset, put("a", 1), synced(1)}
		wantEvents(t, next, "PRESENT a", "SYNCED ")
		silent := time.Now()
		wantEvents(t, next, "true false")
		if took := time.Since(silent); took > 2*replica.DefaultMaxStaleness+time.Second {
			t.Errorf("the watch ended after %v", took)
		}
		tooLate, _ := watch(t, r, mr.Watch{})
		wantEvents(t, tooLate, "true false")
	})
}

// TestWatchTooLarge ends a watch when the copy is given up.
func TestWatchTooLarge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		r := follow(t, s, replica.Config{MaxBytes: 100_000})
		s.feeds <- []mr.Change{reset, put("a", 1), synced(1)}
		next, _ := watch(t, r, mr.Watch{OmitSnapshot: true})
		wantEvents(t, next, "SYNCED ")
		for n, copied := mr.Revision(2), true; copied; n++ {
			select {
			case s.live <- put(fmt.Sprintf("id-%04d", n), n):
			case <-time.After(time.Second): // nobody follows the feed any more
				copied = false
			}
		}
		for got := ""; got != "false true"; got = next() {
			if got != "" && got[:6] != "JOINED" {
				t.Fatalf("the watch says %q", got)
			}
		}
	})
}

// TestBacklog has the feed begin, after a cut, with what was missed: that is not current until Synced says so.
func TestBacklog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		r := follow(t, s, replica.Config{})
		s.feeds <- []mr.Change{reset, put("a", 1), synced(1)}
		synctest.Wait()
		s.live <- mr.Change{}
		<-time.After(time.Minute)
		s.feeds <- []mr.Change{put("b", 2)}
		if _, err := r.Reach(t.Context(), 0); !errors.Is(err, mr.ErrUnavailable) {
			t.Errorf("with a part of what was missed: %v", err)
		}
		s.live <- put("c", 3)
		s.live <- synced(3)
		wantReach(t, r, 0, 3)
	})
}

// TestWatchExtended begins to watch while the copy believes that a lease has ended, which an outage has prolonged.
func TestWatchExtended(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		r := follow(t, s, replica.Config{})
		first := put("a", 1)
		first.Identity.TTL, first.Identity.ExpiresAt = 2*time.Second, time.Now().Add(2*time.Second)
		s.feeds <- []mr.Change{reset, first, synced(1)}
		synctest.Wait()
		began := time.Now()
		<-time.After(3 * time.Second) // nothing is heard
		next, _ := watch(t, r, mr.Watch{})
		wantEvents(t, next, "PRESENT a", "SYNCED ")
		s.live <- mr.Change{Kind: mr.Extend, Since: began.Add(time.Second), Until: began.Add(4 * time.Second), Revision: 2}
		s.live <- synced(2)
		s.live <- put("a", 3)
		s.live <- put("b", 4)
		wantEvents(t, next, "UPDATED a", "JOINED b")
		wantNames(t, r, "a", "b")
	})
}
