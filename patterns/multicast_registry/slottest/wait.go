package slottest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"runtime/pprof"
	"strings"
	"testing"
	"time"
)

// pollEvery is the pause between two looks at something that takes a while.
const pollEvery = 2 * time.Millisecond

// eventually polls until done returns true, and fails the test when that takes longer than the patience.
func eventually(t *testing.T, patience time.Duration, what string, done func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %v in vain: %s", patience, what)
		}
	}
}

// waitUntil returns at an instant of the local clock.
func waitUntil(instant time.Time) { <-time.After(time.Until(instant)) }

// within returns a context that ends with the test or when the patience is used up.
func within(t *testing.T, patience time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// cancelled returns a context that has ended.
func cancelled(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// past returns a context whose deadline has passed.
func past(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	t.Cleanup(cancel)
	return ctx
}

// isContextError tells whether an error is that of a context that ended.
func isContextError(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// offspring are the goroutines that a test has started. Others come and go meanwhile: those of tests that run beside it, and
// those of a client that loses its connection.
type offspring struct {
	label string
	// kept is how many there may be in the end: a client may dial in the middle of the test, and keep the connection.
	kept int
}

// watchGoroutines runs what may start goroutines, and fails the test unless all of them end, except those that may be kept:
// fewer than what leaks one of them at every turn would leave.
func watchGoroutines(t *testing.T, patience time.Duration, kept int, run func()) {
	t.Helper()
	o := offspring{label: rand.Text(), kept: kept}
	pprof.Do(t.Context(), pprof.Labels(goroutineLabel, o.label), func(context.Context) { run() })
	deadline := time.Now().Add(patience)
	for pause := pollEvery; ; pause = min(2*pause, maxLookEvery) {
		n, stacks := o.alive(t)
		if n <= o.kept {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines that were started have not ended within %v, and %d may be left:\n%s", n, patience, kept, stacks)
		}
		<-time.After(pause)
	}
}

const (
	// goroutineLabel is what offspring inherit from goroutine to goroutine.
	goroutineLabel = "slottest"
	// maxLookEvery is the longest pause between two looks at all goroutines, which stops them all.
	maxLookEvery = 200 * time.Millisecond
)

// alive returns how many there are, and their stacks.
func (o offspring) alive(t *testing.T) (n int, stacks string) {
	t.Helper()
	var profile strings.Builder
	noError(t, pprof.Lookup("goroutine").WriteTo(&profile, 1), "profile")
	for group := range strings.SplitSeq(profile.String(), "\n\n") { // "n @ pcs", labels, a stack
		if !strings.Contains(group, o.label) {
			continue
		}
		var same int
		head := strings.TrimPrefix(group[:strings.Index(group, "@")+1], "goroutine profile: ")
		if _, err := fmt.Sscanf(head, "%d @", &same); err != nil {
			t.Fatalf("profile: %v: %q", err, group)
		}
		n += same
		stacks += group + "\n\n"
	}
	return n, stacks
}

// closing closes something at the end of the test.
func closing(t *testing.T, c io.Closer) {
	t.Helper()
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
}

func noError(t *testing.T, err error, what string) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
