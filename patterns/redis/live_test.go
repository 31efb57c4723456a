package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

// TestLive asks about more identities than one script looks up: hostile names, of which every other one is registered, among
// some that have expired, were removed or never were, one twice.
func TestLive(t *testing.T) {
	t.Parallel()
	c := shared(t)
	for _, shards := range []int{1, 5} {
		t.Run(fmt.Sprint(shards, " shards"), func(t *testing.T) {
			t.Parallel()
			r, err := OpenRegistry(c, RegistryConfig{Namespace: testenv.Prefix(t), Shards: shards})
			noError(t, err)
			var ids []string
			var want []bool
			for i, id := range slottest.HostileIdentities() {
				if i%2 == 0 {
					_, err := r.Put(t.Context(), mr.Identity{ID: id, TTL: mr.NoExpiry}, mr.Create)
					noError(t, err)
				}
				ids, want = append(ids, id), append(want, i%2 == 0)
			}
			for n := range 2 * probedAtOnce {
				ids, want = append(ids, fmt.Sprint("nobody-", n)), append(want, false)
			}
			_, err = r.Put(t.Context(), mr.Identity{ID: "expires", TTL: 20 * time.Millisecond}, mr.Create)
			noError(t, err)
			_, err = r.Put(t.Context(), mr.Identity{ID: "leaves", TTL: time.Hour}, mr.Create)
			noError(t, err)
			eventually(t, "the lease ends", func() bool {
				got, err := r.Live(t.Context(), []string{"expires"})
				noError(t, err)
				return !got[0]
			})
			for _, lives := range []bool{true, false} {
				got, err := r.Live(t.Context(), append(ids, "expires", "leaves", "leaves"))
				noError(t, err)
				if all := slices.Concat(want, []bool{false, lives, lives}); !slices.Equal(got, all) {
					t.Errorf("%v\nare live, want\n%v", got, all)
				}
				_, err = r.Delete(t.Context(), "leaves", 0)
				noError(t, err)
			}
			if got, err := r.Live(t.Context(), nil); len(got) != 0 || err != nil {
				t.Errorf("of nobody %v are live, %v", got, err)
			}
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			for _, ids := range [][]string{nil, {"a"}} {
				if _, err := r.Live(ended, ids); !errors.Is(err, context.Canceled) {
					t.Errorf("with a context that has ended: %v", err)
				}
			}
		})
	}
}
