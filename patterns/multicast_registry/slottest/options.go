package slottest

import (
	"cmp"
	"slices"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	defaultPatience    = 20 * time.Second
	defaultShortestTTL = 150 * time.Millisecond
	defaultTolerance   = 2 * time.Millisecond
)

// subtest is one part of a suite.
type subtest struct {
	name string
	run  func(*testing.T)
}

// run runs the subtests, except some when the suite is to be brief.
func run(t *testing.T, brief bool, long []string, subtests []subtest) {
	t.Helper()
	for _, sub := range subtests {
		if !brief || !slices.Contains(long, sub.name) {
			t.Run(sub.name, sub.run)
		}
	}
}

// RegistryOptions tells the registry suite what it cannot find out by itself.
type RegistryOptions struct {
	// Brief leaves out what takes long and does not depend on the number of servers: for a second set-up of a backend.
	Brief bool
	// Patience bounds the wait for what must happen. Default: 20 seconds.
	Patience time.Duration
	// ShortestTTL is a lease that is long enough for a few calls and short enough to be waited for. Default: 150 ms.
	ShortestTTL time.Duration
	// ClockTolerance is how far the backend's clock may run ahead or behind during a ShortestTTL, its resolution included.
	// Default: 2 ms.
	ClockTolerance time.Duration
	// SweptWithin is how long after its expiry an identity is swept at the latest while calls go on. Default: 3 times
	// ShortestTTL.
	SweptWithin time.Duration
	// OpenPair opens one empty registry twice, as two processes would. Optional.
	OpenPair func(t *testing.T) (a, b mr.Registry)
	// OpenNeighbours opens two namespaces over one backend. Optional.
	OpenNeighbours func(t *testing.T) (a, b mr.Registry)
	// OpenLimited opens an empty registry that refuses more than limit identities with ErrQuota. Optional.
	OpenLimited func(t *testing.T, limit int) mr.Registry
	// OpenLogged opens one empty registry twice, as two processes would, whose change log keeps about that many changes: all
	// of the last log, and not all of the last 1000 and 10 times log. Optional; it matters to registries with a change feed.
	OpenLogged func(t *testing.T, log int) (a, b mr.Registry)
	// SameFeed leaves out the change feed, which another set-up of the backend has proved: this one differs in scans only.
	SameFeed bool
	// Partitioned says that the registry consists of parts that make changes independently: its feed keeps the order of
	// changes for each identity only, and its revisions have gaps.
	Partitioned bool
}

func (o RegistryOptions) withDefaults() RegistryOptions {
	o.Patience = cmp.Or(o.Patience, defaultPatience)
	o.ShortestTTL = cmp.Or(o.ShortestTTL, defaultShortestTTL)
	o.ClockTolerance = cmp.Or(o.ClockTolerance, defaultTolerance)
	o.SweptWithin = cmp.Or(o.SweptWithin, 3*o.ShortestTTL)
	return o
}

// MessagingOptions tells the messaging suite what it cannot find out by itself.
type MessagingOptions struct {
	// Patience bounds the wait for what must happen, such as a "no subscriber" that the backend reports later. Default: 20
	// seconds.
	Patience time.Duration
	// Buffer is how many messages the slot keeps for each topic of a subscription that reads too slowly, as the opener
	// configured it; at least 128, which no subtest fills by chance. 0 leaves out what needs a full buffer.
	Buffer int
	// MaxPayload is the largest payload that the slot takes; one byte more is ErrTooLarge. 0 leaves that out.
	MaxPayload int
	// OpenPair opens one slot twice, as two processes would. Optional.
	OpenPair func(t *testing.T) (a, b mr.Messaging)
}

func (o MessagingOptions) withDefaults() MessagingOptions {
	o.Patience = cmp.Or(o.Patience, defaultPatience)
	return o
}

// DurabilityOptions tells the durability suite what it cannot find out by itself.
type DurabilityOptions struct {
	// Brief leaves out what takes long and does not depend on the number of servers: for a second set-up of a backend.
	Brief bool
	// Patience bounds the wait for what must happen. Default: 20 seconds.
	Patience time.Duration
	// QueueBound is how many messages a topic's queue holds, as the opener configured it; at least 100. 0 leaves out what
	// needs a full queue.
	QueueBound int
	// MaxPayload is the largest payload that the slot takes; one byte more is ErrTooLarge. 0 leaves that out.
	MaxPayload int
	// MaxBytes is how many bytes of payload a topic's queue holds, about: half of it fits, twice as much does not. At least
	// 4096. 0 leaves out what needs to know.
	MaxBytes int
	// OpenPair opens one empty slot twice, as two processes would. Optional.
	OpenPair func(t *testing.T) (a, b mr.Durability)
	// OpenAged opens an empty slot that stores messages for maxAge, in queues as QueueBound says, and then drops them. From the
	// age on they are not yielded; the next consumer of their topic learns their number, from the messages' age to twice that
	// age for certain, and later if the slot still knows. Optional; without it the suite leaves ages out.
	OpenAged func(t *testing.T, maxAge time.Duration) mr.Durability
}

// LedgerOptions tells the ledger suite what it cannot find out by itself.
type LedgerOptions struct {
	// Brief leaves out what takes long and does not depend on the number of servers: for a second set-up of a backend.
	Brief bool
	// Patience bounds the wait for what must happen. Default: 20 seconds.
	Patience time.Duration
	// OpenPair opens one empty ledger twice, as two processes would. Optional.
	OpenPair func(t *testing.T) (a, b mr.Ledger)
	// OpenBounded opens an empty ledger with that retention, for at most so many records. Optional; without it the suite
	// leaves the bounds out.
	OpenBounded func(t *testing.T, retention time.Duration, most int) mr.Ledger
}

func (o LedgerOptions) withDefaults() LedgerOptions {
	o.Patience = cmp.Or(o.Patience, defaultPatience)
	return o
}

func (o DurabilityOptions) withDefaults() DurabilityOptions {
	o.Patience = cmp.Or(o.Patience, defaultPatience)
	return o
}
