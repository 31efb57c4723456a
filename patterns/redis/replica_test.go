package redis

import (
	"context"
	"testing"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/replica"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

// copyOf keeps a copy of a registry until the test ends.
func copyOf(t *testing.T, source replica.Source, cfg replica.Config) *replica.Registry {
	t.Helper()
	r, err := replica.New(source, cfg)
	noError(t, err)
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
	copied := func(t *testing.T, r mr.Registry) mr.Registry {
		return slottest.Strong(copyOf(t, r.(replica.Source), replica.Config{}))
	}
	options := registryOptions()
	options.Brief = true // the index has tests of its own
	pair, limited, neighbours := options.OpenPair, options.OpenLimited, options.OpenNeighbours
	options.OpenPair = func(t *testing.T) (a, b mr.Registry) {
		a, b = pair(t)
		return copied(t, a), copied(t, b)
	}
	options.OpenNeighbours = func(t *testing.T) (a, b mr.Registry) {
		a, b = neighbours(t)
		return copied(t, a), copied(t, b)
	}
	options.OpenLimited = func(t *testing.T, limit int) mr.Registry { return copied(t, limited(t, limit)) }
	slottest.Registry(t, func(t *testing.T) mr.Registry { return copied(t, registry(t, shared(t), RegistryConfig{})) }, options)
}
