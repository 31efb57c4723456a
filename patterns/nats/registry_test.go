package nats

import (
	"testing"

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

// TestRegistryCluster runs the suite on three replicas: answers may come from one that is behind.
func TestRegistryCluster(t *testing.T) {
	cluster := testenv.NATSCluster(t)
	node := 0
	open := func(t *testing.T, namespace string) mr.Registry {
		node++
		return registry(t, opening(t, cluster.URLs[node%len(cluster.URLs)]), RegistryConfig{Namespace: namespace, Replicas: 3})
	}
	slottest.Registry(t, func(t *testing.T) mr.Registry { return open(t, testenv.Prefix(t)) }, slottest.RegistryOptions{
		OpenPair: func(t *testing.T) (a, b mr.Registry) {
			namespace := testenv.Prefix(t)
			return open(t, namespace), open(t, namespace)
		},
	})
}
