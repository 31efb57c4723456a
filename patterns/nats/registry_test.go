package nats

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

// registry opens a registry over a connection.
func registry(t testing.TB, c *Conn, cfg RegistryConfig) *Registry {
	t.Helper()
	r, err := OpenRegistry(within(t), c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	url := testenv.NATS(t).URL
	open := func(t *testing.T) mr.Registry {
		return registry(t, opening(t, url), RegistryConfig{Namespace: testenv.Prefix(t)})
	}
	pair := func(t *testing.T, cfg RegistryConfig) (a, b mr.Registry) {
		cfg.Namespace = testenv.Prefix(t)
		return registry(t, opening(t, url), cfg), registry(t, opening(t, url), cfg)
	}
	slottest.Registry(t, open, slottest.RegistryOptions{
		OpenPair:       func(t *testing.T) (a, b mr.Registry) { return pair(t, RegistryConfig{}) },
		OpenLogged:     func(t *testing.T, log int) (a, b mr.Registry) { return pair(t, RegistryConfig{ChangeLog: log}) },
		OpenNeighbours: func(t *testing.T) (a, b mr.Registry) { return open(t), open(t) },
	})
}

// withoutFeed is a registry that does not offer its change feed.
type withoutFeed struct {
	mr.Registry
	mr.Header
	mr.Prober
	mr.Pinger
}

// TestRegistryCluster runs the brief suite on three replicas: answers may come from one that is behind. The change feed is left out,
// because on a cluster it may begin anew (its log is written without waiting), which the suite takes for a fault; see
// TestChangesCluster.
func TestRegistryCluster(t *testing.T) {
	t.Parallel()
	cluster := testenv.NATSCluster(t)
	node := 0
	open := func(t *testing.T, namespace string) mr.Registry {
		node++
		r := registry(t, opening(t, cluster.URLs[node%len(cluster.URLs)]), RegistryConfig{Namespace: namespace, Replicas: 3})
		return withoutFeed{r, r, r, r}
	}
	slottest.Registry(t, func(t *testing.T) mr.Registry { return open(t, testenv.Prefix(t)) }, slottest.RegistryOptions{
		Brief: true,
		OpenPair: func(t *testing.T) (a, b mr.Registry) {
			namespace := testenv.Prefix(t)
			return open(t, namespace), open(t, namespace)
		},
	})
}

// TestChangesCluster follows the feed of one node while two others change the registry: in the end the reader's copy is what
// a scan finds, whatever Resets came in between.
func TestChangesCluster(t *testing.T) {
	t.Parallel()
	cluster := testenv.NATSCluster(t)
	namespace := testenv.Prefix(t)
	var views []*Registry
	for _, url := range cluster.URLs {
		views = append(views, registry(t, opening(t, url), RegistryConfig{Namespace: namespace, Replicas: 3}))
	}
	ctx, stop := context.WithCancel(t.Context())
	var mu sync.Mutex
	known, synced := map[string]mr.Revision{}, mr.Revision(0)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer stop()
	reading.Go(func() {
		for change, err := range views[0].Changes(ctx, "") {
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("the feed ends with %v", err)
				}
				return
			}
			mu.Lock()
			switch change.Kind {
			case mr.Reset:
				clear(known)
				synced = 0
			case mr.Put:
				known[change.Identity.ID] = change.Identity.Revision
			case mr.Delete, mr.Expire:
				delete(known, change.Identity.ID)
			case mr.Synced:
				synced = change.Revision
			}
			mu.Unlock()
		}
	})
	var writing sync.WaitGroup
	for w, view := range views[1:] {
		writing.Go(func() {
			for n := range 200 {
				id := fmt.Sprintf("%d-%d", w, n%20)
				var err error
				switch n % 4 {
				case 0, 1:
					_, err = view.Put(t.Context(), mr.Identity{ID: id, TTL: time.Hour}, mr.Replace)
				case 2:
					_, err = view.Renew(t.Context(), fmt.Sprintf("%d-%d", w, (n-1)%20), time.Hour)
				case 3:
					_, err = view.Delete(t.Context(), fmt.Sprintf("%d-%d", w, (n-3)%20), 0)
				}
				if err != nil && !errors.Is(err, mr.ErrNotFound) {
					t.Errorf("change %d: %v", n, err)
				}
			}
		})
	}
	writing.Wait()
	head, err := views[1].Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]mr.Revision{}
	for i, err := range views[2].Scan(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		want[i.ID] = i.Revision
	}
	until(t, "the copy is the registry", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return synced >= head && maps.Equal(known, want)
	})
}
