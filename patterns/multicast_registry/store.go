package multicastregistry

import (
	"context"
	"errors"
	"time"
)

// store hands what was not delivered, but might be, to the durability slot, and tries again while that cannot be reached.
// Targets that it takes become Pending and keep the reason; the others keep their status.
func (c *Coordinator) store(ctx context.Context, f *flight) {
	var messages []Message
	var at []int
	for i := range f.targets {
		t := &f.targets[i]
		if t.Status == Delivered || t.Reason == PayloadTooLarge || errors.Is(t.Err, errUnregistered) {
			continue
		}
		m := f.message
		m.Identity, m.Topic = t.Identity, Topic(c.cfg.Namespace, t.Identity)
		messages, at = append(messages, m), append(at, i)
	}
	// The wait may have used up the request's timeout; storing has its own, within the caller's deadline.
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	unknown := make(map[int]bool) // what may be stored, although an error says otherwise
	for n := 1; len(messages) > 0; n++ {
		results := c.slots.Durability.Enqueue(ctx, messages)
		again := 0
		for i, err := range results {
			t := &f.targets[at[i]]
			broken := err != nil && reasonOf(err) == BackendError
			if broken && !errors.Is(err, ErrUnavailable) {
				unknown[at[i]] = true
			}
			switch {
			case err == nil:
				t.Status, t.Evidence = Pending, Stored
			case broken && n < f.retry.attempts && ctx.Err() == nil:
				messages[again], at[again] = messages[i], at[i]
				again++
			default:
				if t.Status == Failed {
					t.Reason = reasonOf(err)
					if unknown[at[i]] {
						t.Status = Timeout
					}
				}
				t.Err = errors.Join(t.Err, err)
			}
		}
		messages, at = messages[:again], at[:again]
		if again > 0 {
			wait(ctx, f.retry.backoff(n)) // when the context ends, the next Enqueue says so for each message
		}
	}
}

// wait returns after a time, or when ctx has ended.
func wait(ctx context.Context, most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
