package multicastregistry_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/prism-data-layer/prism/patterns/memory"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// notebook is a Tracer that notes what it is told.
type notebook struct {
	mu    sync.Mutex
	noted []note
}

type note struct {
	operation     string
	count, failed int
	err           error
}

type withinKey struct{}

// Begin implements mr.Tracer.
func (n *notebook) Begin(ctx context.Context, operation string) (context.Context, mr.TraceEnd) {
	if within, _ := ctx.Value(withinKey{}).(string); within != "" {
		operation = within + " > " + operation
	}
	return context.WithValue(ctx, withinKey{}, operation), func(count, failed int, err error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.noted = append(n.noted, note{operation, count, failed, err})
	}
}

// take returns what was noted since the last call.
func (n *notebook) take() []note {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.noted
	n.noted = nil
	return out
}

// TestTracer checks what a Tracer is told of each call, and that contexts lead from what asks to what is asked.
func TestTracer(t *testing.T) {
	t.Parallel()
	n := &notebook{}
	slots := memorySlots()
	slots.Durability, slots.Tracer = memory.NewDurability(memory.DurabilityConfig{}), n
	c := open(t, mr.Config{}, slots)
	ctx := t.Context()
	want := func(err error, notes ...note) {
		t.Helper()
		got := n.take()
		if err != nil {
			t.Error(err)
		}
		if !slices.EqualFunc(got, notes, func(a, b note) bool {
			return a.operation == b.operation && a.count == b.count && a.failed == b.failed && errors.Is(a.err, b.err)
		}) {
			t.Errorf("told %+v,\nwant %+v", got, notes)
		}
	}
	_, err := c.Register(ctx, mr.Registration{ID: "a"})
	want(err, note{"registry.put", 1, 0, nil})
	_, err = c.Register(ctx, mr.Registration{ID: "a"})
	if !errors.Is(err, mr.ErrAlreadyExists) {
		t.Error(err)
	}
	want(nil, note{"registry.put", 1, 1, mr.ErrAlreadyExists})
	_, err = c.Heartbeat(ctx, "a", 0)
	want(err, note{"registry.renew", 1, 0, nil})
	_, err = c.Enumerate(ctx, mr.Query{})
	want(err, note{"registry.head", 0, 0, nil}, note{"registry.query", 1, 0, nil})
	_, _, err = c.Count(ctx)
	want(err, note{"registry.count", 1, 0, nil})

	result, err := c.Multicast(ctx, mr.Request{Delivery: mr.AtLeastOnce, IdempotencyKey: "k"})
	want(err, note{"registry.head", 0, 0, nil}, note{"registry.find", 1, 0, nil}, note{"ledger.begin", 1, 0, nil},
		note{"multicast.deliver > messaging.publish", 1, 1, nil}, note{"multicast.deliver", 1, 1, nil},
		note{"durability.enqueue", 1, 0, nil}, note{"ledger.finish", 1, 0, nil}, note{"ledger.get", 1, 0, nil})
	_, err = c.GetMulticast(ctx, result.ID)
	want(err, note{"ledger.get", 1, 0, nil}, note{"durability.stored", 1, 0, nil})

	sub, err := c.Subscribe(ctx)
	want(err)
	err = sub.Attach(ctx, false, "a")
	want(errors.Join(err, sub.Close()), note{"messaging.attach", 1, 0, nil}, note{"durability.attach", 1, 0, nil})
	_, err = c.Unregister(ctx, "a", 0)
	want(err, note{"registry.delete", 1, 0, nil}, note{"durability.purge", 1, 0, nil})
}
