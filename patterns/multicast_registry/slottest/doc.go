// Package slottest holds the conformance suites of the slots that patterns/multicast_registry declares. A backend proves
// itself by running the suite of each slot it fills:
//
//	func TestRegistry(t *testing.T) {
//		slottest.Registry(t, func(t *testing.T) mr.Registry {
//			return memory.NewRegistry(memory.RegistryConfig{})
//		}, slottest.RegistryOptions{})
//	}
//
// The opener is called once for each subtest and gives an empty slot: on a shared server, one with a namespace or a prefix
// of its own. It cleans up with t.Cleanup. The options tell a suite what it cannot find out by itself, such as the bound of
// a queue; their zero values fit a backend that lives in the process and leave out what depends on such knowledge.
//
// Optional abilities of a slot are tested where it has them; without, their subtests are skipped and say so. A ledger, which is
// an ability of a durability slot, has a suite of its own.
//
// What a suite does not test is not a contract. The suites know only the interfaces: they compare instants with the
// backend's clock by what was live before a call began and after one ended, they take "no subscriber" as a result or from
// an inbox, and they wait by polling until Patience is used up, never by sleeping for a while and hoping.
//
// [RandomMetadata] and [RandomFilter] are the generator of the differential tests, for whoever has a filter to compare with
// filter.Match. A failing differential prints its seed; the environment variable SLOTTEST_SEED repeats it.
package slottest
