package slottest_test

import (
	"math/rand/v2"
	"testing"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

// TestGenerator checks that what the differential tests compare is worth comparing: every filter parses, every operator
// comes up as a match and as a miss, about half of the pairs match, and the metadata is of the canonical types.
func TestGenerator(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	matches, misses := map[filter.Op]int{}, map[filter.Op]int{}
	matched := 0
	const rounds = 8_000
	for range rounds {
		metadata := slottest.RandomMetadata(rng)
		if _, err := mr.CopyMetadata(metadata); err != nil {
			t.Fatal(err)
		}
		source := slottest.RandomFilter(rng)
		e, err := filter.Parse(source)
		if err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		if filter.Match(e, metadata) {
			matched++
		}
		count(e, metadata, matches, misses)
	}
	if matched < rounds/4 || matched > rounds*3/4 {
		t.Errorf("%d of %d match", matched, rounds)
	}
	for _, op := range filter.Operators() {
		if matches[op.Op] < 20 || misses[op.Op] < 20 {
			t.Errorf("%s matched %d times and missed %d times", op.Name, matches[op.Op], misses[op.Op])
		}
	}
}

func count(e *filter.Expr, metadata map[string]any, matches, misses map[filter.Op]int) {
	if filter.Match(e, metadata) {
		matches[e.Op]++
	} else {
		misses[e.Op]++
	}
	for _, arg := range e.Args {
		count(arg, metadata, matches, misses)
	}
}

func TestHostileIdentitiesAreIdentities(t *testing.T) {
	t.Parallel()
	topics := map[string]string{}
	for _, id := range slottest.HostileIdentities() {
		if err := mr.CheckIdentity(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
		topic := mr.Topic("default", id)
		if other, taken := topics[topic]; taken {
			t.Errorf("%q and %q share the topic %s", id, other, topic)
		}
		topics[topic] = id
	}
}
