package slottest

import (
	"runtime/debug"
	"slices"
	"sync"
	"testing"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// Rounds returns how often to do what is done n times to meet rare cases by chance: a third of n under the race detector, with
// which each takes several times as long.
func Rounds(n int) int {
	if raceDetector() {
		return (n + 2) / 3
	}
	return n
}

var raceDetector = sync.OnceValue(func() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
})

// putAll puts identities, in no order, several at a time.
func putAll(t *testing.T, r mr.Registry, n int, mode mr.PutMode, of func(i int) mr.Identity) {
	t.Helper()
	const atOnce = 8
	var all sync.WaitGroup
	for w := range atOnce {
		all.Go(func() {
			for i := w; i < n && !t.Failed(); i += atOnce {
				if _, err := r.Put(t.Context(), of(i), mode); err != nil {
					t.Errorf("put %d of %d: %v", i, n, err)
				}
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}
