package redis

import (
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

func TestLedger(t *testing.T) {
	t.Parallel()
	slottest.Ledger(t, func(t *testing.T) mr.Ledger { return durability(t, shared(t), DurabilityConfig{}) }, slottest.LedgerOptions{
		OpenPair: func(t *testing.T) (a, b mr.Ledger) {
			cfg := DurabilityConfig{Namespace: testenv.Prefix(t)}
			return durability(t, shared(t), cfg), durability(t, shared(t), cfg)
		},
		OpenBounded: func(t *testing.T, retention time.Duration, most int) mr.Ledger {
			return durability(t, shared(t), DurabilityConfig{Retention: retention, MaxMulticasts: most})
		},
	})
}
