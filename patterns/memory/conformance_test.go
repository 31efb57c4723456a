package memory_test

import (
	"testing"
	"time"

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
	cfg := memory.DurabilityConfig{MaxMessages: 100, MaxBytes: 2 << 20}
	slottest.Durability(t, func(*testing.T) mr.Durability { return memory.NewDurability(cfg) }, slottest.DurabilityOptions{
		QueueBound: 100, MaxPayload: 2 << 20, MaxBytes: 2 << 20,
		OpenPair: func(*testing.T) (a, b mr.Durability) {
			d := memory.NewDurability(cfg)
			return d, d
		},
		OpenAged: func(_ *testing.T, maxAge time.Duration) mr.Durability {
			aged := cfg
			aged.MaxAge = maxAge
			return memory.NewDurability(aged)
		},
	})
}

func TestLedger(t *testing.T) {
	slottest.Ledger(t, func(*testing.T) mr.Ledger { return memory.NewDurability(memory.DurabilityConfig{}) }, slottest.LedgerOptions{
		OpenPair: func(*testing.T) (a, b mr.Ledger) {
			d := memory.NewDurability(memory.DurabilityConfig{})
			return d, d
		},
		OpenBounded: func(_ *testing.T, retention time.Duration, most int) mr.Ledger {
			return memory.NewDurability(memory.DurabilityConfig{Retention: retention, MaxMulticasts: most})
		},
	})
}
