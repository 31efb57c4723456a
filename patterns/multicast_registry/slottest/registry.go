package slottest

import (
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// registrySuite is what the subtests of Registry share.
type registrySuite struct {
	RegistryOptions
	open func(t *testing.T) mr.Registry
}

// Registry runs the conformance suite of the registry slot. Open is called for each subtest and gives an empty registry.
func Registry(t *testing.T, open func(t *testing.T) mr.Registry, options RegistryOptions) {
	t.Helper()
	s := &registrySuite{RegistryOptions: options.withDefaults(), open: open}
	long := []string{
		"Differential", "ScanBreak", "LiveManyAtOnce", "LiveWhileMutating", "ScanWhileMutating", "ScanCancelled", "HostileIdentities", "HostileMetadata", "LargeMetadata",
	}
	if s.SameFeed {
		long = []string{"Changes"}
	}
	run(t, s.Brief || s.SameFeed, long, []subtest{
		{"RoundTrip", s.roundTrip},
		{"Create", s.create},
		{"CreateContention", s.createContention},
		{"Replace", s.replace},
		{"ReplaceIsWhole", s.replaceIsWhole},
		{"Delete", s.remove},
		{"DeleteContention", s.deleteContention},
		{"DeleteOnlyContention", s.deleteOnlyContention},
		{"HostileIdentities", s.hostileIdentities},
		{"HostileMetadata", s.hostileMetadata},
		{"LargeMetadata", s.largeMetadata},
		{"MetadataIsolation", s.metadataIsolation},
		{"Revisions", s.revisions},
		{"Ping", s.ping},
		{"Quota", s.quota},
		{"Pair", s.pair},
		{"Neighbours", s.neighbours},

		{"ExactTTL", s.exactTTL},
		{"Renew", s.renew},
		{"RenewContention", s.renewContention},
		{"LiveUntilExpiry", s.liveUntilExpiry},
		{"AbsentFromExpiry", s.absentFromExpiry},
		{"CreateOverExpired", s.createOverExpired},
		{"StaleExpiry", s.staleExpiry},

		{"ScanFilters", s.scanFilters},
		{"ScanWhileMutating", s.scanWhileMutating},
		{"ScanCallsInside", s.scanCallsInside},
		{"ScanBreak", s.scanBreak},
		{"CancelledBefore", s.cancelledBefore},
		{"CancelledDuring", s.cancelledDuring},
		{"ScanCancelled", s.scanCancelled},
		{"Differential", s.differential},

		{"Live", s.live},
		{"LiveAndExpired", s.liveAndExpired},
		{"LiveManyAtOnce", s.liveManyAtOnce},
		{"LiveWhileMutating", s.liveWhileMutating},
		{"Find", s.find},
		{"FindEnds", s.findEnds},

		{"Changes", s.changes},
		{"Watch", s.watch},
	})
}

// identity is what the tests put where the content does not matter.
func identity(id string) mr.Identity {
	return mr.Identity{ID: id, Metadata: map[string]any{"name": id}, TTL: time.Hour}
}

func put(t *testing.T, r mr.Registry, i mr.Identity, mode mr.PutMode) mr.Identity {
	t.Helper()
	stored, err := r.Put(t.Context(), i, mode)
	if err != nil {
		t.Fatalf("put %q: %v", i.ID, err)
	}
	return stored
}

// scan returns what a scan yields, by name, and fails the test when it yields an error or a name twice.
func scan(t *testing.T, r mr.Registry, match *filter.Expr) map[string]mr.Identity {
	t.Helper()
	found := make(map[string]mr.Identity)
	for i, err := range r.Scan(t.Context(), match) {
		if err != nil {
			t.Fatalf("scan: %v", err)
		}
		if _, twice := found[i.ID]; twice {
			t.Fatalf("scan yields %q twice", i.ID)
		}
		found[i.ID] = i
	}
	return found
}

// wantOnly fails the test unless exactly these identities are live, for Scan and, where the slot has it, for Count.
func wantOnly(t *testing.T, r mr.Registry, want ...mr.Identity) {
	t.Helper()
	found := scan(t, r, nil)
	for _, w := range want {
		got, ok := found[w.ID]
		if !ok {
			t.Errorf("%q is missing", w.ID)
			continue
		}
		wantSame(t, got, w)
		delete(found, w.ID)
	}
	for id := range found {
		t.Errorf("%q is live and should not be", id)
	}
	wantCount(t, r, len(want))
}

func wantCount(t *testing.T, r mr.Registry, want int) {
	t.Helper()
	if c, ok := r.(mr.Counter); ok {
		if n, err := c.Count(t.Context()); err != nil || n != want {
			t.Errorf("count: %d, %v; want %d", n, err, want)
		}
	}
}

// wantSame fails the test unless two views of one registration agree in everything.
func wantSame(t *testing.T, got, want mr.Identity) {
	t.Helper()
	if got.ID != want.ID || got.TTL != want.TTL || got.Revision != want.Revision ||
		!got.RegisteredAt.Equal(want.RegisteredAt) || !got.ExpiresAt.Equal(want.ExpiresAt) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	wantMetadata(t, got, want.Metadata)
}

func wantMetadata(t *testing.T, got mr.Identity, want map[string]any) {
	t.Helper()
	if len(got.Metadata) == 0 && len(want) == 0 {
		return
	}
	if !sameJSON(got.Metadata, want) {
		t.Errorf("%q: metadata %#v\nwant %#v", got.ID, got.Metadata, want)
	}
}

// sameJSON tells whether two values are the same JSON. Numbers are compared by value, whatever their Go type among those
// that Identity.Metadata lists.
func sameJSON(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for key, inner := range a {
			other, ok := b[key]
			if !ok || !sameJSON(inner, other) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i, inner := range a {
			if !sameJSON(inner, b[i]) {
				return false
			}
		}
		return true
	case nil, bool, string, int64, uint64, float64:
		switch b.(type) {
		case nil, bool, string, int64, uint64, float64:
			return filter.Compare(a, b) == 0
		}
	}
	return false
}
