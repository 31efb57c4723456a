package nats

import (
	"context"
	"testing"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/replica"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

// copyOf keeps a copy of a registry until the test ends.
func copyOf(t testing.TB, source *Registry) *replica.Registry {
	t.Helper()
	r, err := replica.New(source, replica.Config{})
	if err != nil {
		t.Fatal(err)
	}
	life, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(life) }()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return r
}

// TestReplica runs the suite on copies that are read with strong consistency.
func TestReplica(t *testing.T) {
	t.Parallel()
	url := testenv.NATS(t).URL
	open := func(t *testing.T, namespace string) mr.Registry {
		return slottest.Strong(copyOf(t, registry(t, opening(t, url), RegistryConfig{Namespace: namespace})))
	}
	slottest.Registry(t, func(t *testing.T) mr.Registry { return open(t, testenv.Prefix(t)) }, slottest.RegistryOptions{
		Brief: true, // the index has tests of its own
		OpenPair: func(t *testing.T) (a, b mr.Registry) {
			namespace := testenv.Prefix(t)
			return open(t, namespace), open(t, namespace)
		},
		OpenNeighbours: func(t *testing.T) (a, b mr.Registry) { return open(t, testenv.Prefix(t)), open(t, testenv.Prefix(t)) },
	})
}
