package replica_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prism-data-layer/prism/patterns/memory"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/replica"
)

// TestFollowed asks how far the copy is, through a coordinator: before it is there, when it is, when leases end, when the feed is
// silent, and when the copy was given up.
func TestFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSource()
		r := follow(t, s, replica.Config{MaxBytes: 10_000})
		c, err := mr.Open(t.Context(), mr.Config{}, mr.Slots{Registry: r, Messaging: memory.NewMessaging(memory.MessagingConfig{})})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		check := func(revision mr.Revision, age time.Duration, expired uint64) {
			t.Helper()
			synctest.Wait()
			f, ok := c.Followed()
			if !ok || f.Revision != revision || time.Since(f.Current) != age || f.Expired != expired {
				t.Errorf("got %+v, %t, of %s ago", f, ok, time.Since(f.Current))
			}
		}
		<-time.After(3 * time.Second)
		check(0, 3*time.Second, 0)
		s.feeds <- []mr.Change{reset, put("a", 4), synced(5)}
		check(5, 0, 0)
		<-time.After(2 * time.Second)
		check(5, 2*time.Second, 0)
		s.live <- mr.Change{Kind: mr.Expire, Identity: mr.Identity{ID: "a"}, Revision: 6}
		check(6, 0, 1)
		s.live <- mr.Change{Kind: mr.Expire, Identity: mr.Identity{ID: "a"}, Revision: 7} // is gone already
		s.live <- put("b", 8)
		s.live <- mr.Change{Kind: mr.Delete, Identity: mr.Identity{ID: "b"}, Revision: 9}
		check(9, 0, 1)
		for i := range 2000 {
			select {
			case s.live <- put(fmt.Sprint("id-", i), mr.Revision(10+i)):
			case <-time.After(time.Second): // nobody follows any more
			}
			if _, ok := c.Followed(); !ok {
				return
			}
		}
		t.Error("the copy was not given up")
	})
}

// TestFollowedOfNoCopy asks a coordinator whose registry is no copy.
func TestFollowedOfNoCopy(t *testing.T) {
	c, err := mr.Open(t.Context(), mr.Config{}, mr.Slots{
		Registry: memory.NewRegistry(memory.RegistryConfig{}), Messaging: memory.NewMessaging(memory.MessagingConfig{}),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if f, ok := c.Followed(); ok {
		t.Errorf("got %+v", f)
	}
}
