package redis

import (
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

// unhurried is an OutageAfter that no pause of a busy machine reaches: leases end when the suite expects them to.
const unhurried = time.Minute

// registryOptions tells the suite about a registry on the Redis that tests share; a sweep comes within two seconds.
func registryOptions() slottest.RegistryOptions {
	return slottest.RegistryOptions{
		SweptWithin: 2 * sweepEvery,
		OpenPair: func(t *testing.T) (a, b mr.Registry) {
			cfg := RegistryConfig{OutageAfter: unhurried, Namespace: testenv.Prefix(t)}
			return registry(t, shared(t), cfg), registry(t, shared(t), cfg)
		},
		OpenNeighbours: func(t *testing.T) (a, b mr.Registry) {
			c, name := shared(t), testenv.Prefix(t)
			one := RegistryConfig{OutageAfter: unhurried, Namespace: name}
			two := RegistryConfig{OutageAfter: unhurried, Namespace: name + "-b"}
			return registry(t, c, one), registry(t, c, two)
		},
		OpenLimited: func(t *testing.T, limit int) mr.Registry {
			return registry(t, shared(t), RegistryConfig{OutageAfter: unhurried, MaxIdentities: limit})
		},
		OpenLogged: func(t *testing.T, log int) (a, b mr.Registry) {
			cfg := RegistryConfig{OutageAfter: unhurried, Namespace: testenv.Prefix(t), ChangeLog: log}
			return registry(t, shared(t), cfg), registry(t, shared(t), cfg)
		},
	}
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	for _, enumerate := range []string{EnumerateNative, EnumerateScan} {
		t.Run(enumerate, func(t *testing.T) {
			t.Parallel()
			options := registryOptions()
			options.SameFeed = enumerate == EnumerateScan
			slottest.Registry(t, func(t *testing.T) mr.Registry {
				return registry(t, shared(t), RegistryConfig{OutageAfter: unhurried, Enumerate: enumerate})
			}, options)
		})
	}
}
