package slottest

import (
	"context"
	"errors"
	"io"
	"runtime"
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

// noMoreGoroutines fails the test unless the number of goroutines falls back to what it was.
func noMoreGoroutines(t *testing.T, patience time.Duration, before int) {
	t.Helper()
	eventually(t, patience, "the goroutines that were started end", func() bool { return runtime.NumGoroutine() <= before })
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
