package multicastregistry

import "context"

// Tracer is told of what a coordinator asks of its slots, while it does. All methods may be called concurrently.
type Tracer interface {
	// Begin tells that an operation such as "registry.put" begins, as a part of what the context belongs to. The context that
	// it returns goes to the slot. end is called once, when the operation is over; it is nil when that need not be known.
	Begin(ctx context.Context, operation string) (_ context.Context, end TraceEnd)
}

// TraceEnd ends an operation that a Tracer was told of: with the number of messages, targets or identities that it was about, how
// many of them failed, and why it failed itself, if it did. That single messages fail is no failure of the operation, unless
// the backend is at fault.
type TraceEnd func(count, failed int, err error)

// traced begins an operation of the coordinator's own. A nil end is possible.
func (c *Coordinator) traced(ctx context.Context, operation string) (context.Context, TraceEnd) {
	if c.tracer == nil {
		return ctx, nil
	}
	return c.tracer.Begin(ctx, operation)
}

// delivered ends the operation of handing messages over and waiting for their acks. The flight has landed.
func (f *flight) delivered(end TraceEnd) {
	if end == nil {
		return
	}
	f.mu.Lock()
	failed := 0
	for i := range f.targets {
		if f.targets[i].Status != Delivered {
			failed++
		}
	}
	f.mu.Unlock()
	end(len(f.targets), failed, nil)
}

// all ends an operation on one thing, or on all of them.
func (end TraceEnd) all(count int, err error) {
	if end == nil {
		return
	}
	failed := 0
	if err != nil {
		failed = count
	}
	end(count, failed, err)
}

// each ends an operation on messages that have a result each.
func (end TraceEnd) each(results []error) {
	if end == nil {
		return
	}
	failed := 0
	var fault error
	for _, err := range results {
		if err == nil {
			continue
		}
		failed++
		if fault == nil && reasonOf(err) == BackendError {
			fault = err
		}
	}
	end(len(results), failed, fault)
}
