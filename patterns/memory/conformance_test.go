package memory_test

import (
	"testing"

	"github.com/prism-data-layer/prism/patterns/memory"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

func TestRegistry(t *testing.T) {
	slottest.Registry(t, func(*testing.T) mr.Registry { return memory.NewRegistry(memory.RegistryConfig{}) }, slottest.RegistryOptions{
		OpenPair: func(*testing.T) (a, b mr.Registry) {
			r := memory.NewRegistry(memory.RegistryConfig{})
			return r, r
		},
		OpenLimited: func(_ *testing.T, limit int) mr.Registry {
			return memory.NewRegistry(memory.RegistryConfig{MaxIdentities: limit})
		},
		OpenNeighbours: func(*testing.T) (a, b mr.Registry) {
			return memory.NewRegistry(memory.RegistryConfig{}), memory.NewRegistry(memory.RegistryConfig{})
		},
	})
}

func TestMessaging(t *testing.T) {
	slottest.Messaging(t, func(*testing.T) mr.Messaging {
		return memory.NewMessaging(memory.MessagingConfig{Buffer: 256})
	}, slottest.MessagingOptions{Buffer: 256, OpenPair: func(*testing.T) (a, b mr.Messaging) {
		m := memory.NewMessaging(memory.MessagingConfig{Buffer: 256})
		return m, m
	}})
}

func TestDurability(t *testing.T) {
	slottest.Durability(t, func(*testing.T) mr.Durability {
		return memory.NewDurability(memory.DurabilityConfig{MaxMessages: 100, MaxBytes: 2 << 20})
	}, slottest.DurabilityOptions{QueueBound: 100, MaxPayload: 2 << 20, OpenPair: func(*testing.T) (a, b mr.Durability) {
		d := memory.NewDurability(memory.DurabilityConfig{MaxMessages: 100, MaxBytes: 2 << 20})
		return d, d
	}})
}
