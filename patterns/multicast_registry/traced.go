package multicastregistry

import (
	"context"
	"iter"
	"time"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// How slots are traced. A coordinator looks the abilities of its slots up once. Only then each of them gets a layer around it,
// on its own, so that no slot gains or loses an ability by being traced. What is not worth a span, such as waiting for
// messages, passes through.

// trace puts the layers on. The caller has a tracer.
func (c *Coordinator) trace() {
	t := c.tracer
	c.slots.Registry = tracedRegistry{c.slots.Registry, t}
	c.slots.Messaging = tracedMessaging{c.slots.Messaging, t}
	if c.slots.Durability != nil {
		c.slots.Durability = tracedDurability{c.slots.Durability, t}
	}
	if _, scans := c.querier.(scanner); scans {
		c.querier = scanner{c.slots.Registry}
	}
	c.querier = tracedQuerier{c.querier, t}
	if c.head != nil {
		c.head = tracedHeader{c.head, t}
	}
	if c.counter != nil {
		c.counter = tracedCounter{c.counter, t}
	}
	if c.prober != nil {
		c.prober = tracedProber{c.prober, t}
	}
	if c.finder != nil {
		c.finder = tracedFinder{c.finder, t}
	}
	if c.copied != nil {
		c.copied = tracedCopy{c.copied, t}
	}
	if c.ledger != nil {
		c.ledger, c.recaller = tracedLedger{c.ledger, t}, tracedRecaller{c.recaller, t}
	}
}

type tracedRegistry struct {
	Registry

	tracer Tracer
}

// Put implements Registry.
func (r tracedRegistry) Put(ctx context.Context, identity Identity, mode PutMode) (Identity, error) {
	ctx, end := r.tracer.Begin(ctx, "registry.put")
	stored, err := r.Registry.Put(ctx, identity, mode)
	end.all(1, err)
	return stored, err
}

// Renew implements Registry.
func (r tracedRegistry) Renew(ctx context.Context, id string, ttl time.Duration) (Lease, error) {
	ctx, end := r.tracer.Begin(ctx, "registry.renew")
	lease, err := r.Registry.Renew(ctx, id, ttl)
	end.all(1, err)
	return lease, err
}

// Delete implements Registry.
func (r tracedRegistry) Delete(ctx context.Context, id string, only Revision) (bool, error) {
	ctx, end := r.tracer.Begin(ctx, "registry.delete")
	existed, err := r.Registry.Delete(ctx, id, only)
	end.all(1, err)
	return existed, err
}

// Scan implements Registry.
func (r tracedRegistry) Scan(ctx context.Context, match *filter.Expr) iter.Seq2[Identity, error] {
	return tracedYields(ctx, r.tracer, "registry.scan", func(ctx context.Context) iter.Seq2[Identity, error] {
		return r.Registry.Scan(ctx, match)
	})
}

// tracedYields traces an iteration, from its first step on to its end or to where the caller breaks off.
func tracedYields[V any](
	ctx context.Context, tracer Tracer, operation string, yields func(ctx context.Context) iter.Seq2[V, error],
) iter.Seq2[V, error] {
	return func(yield func(V, error) bool) {
		ctx, end := tracer.Begin(ctx, operation)
		if end == nil {
			yields(ctx)(yield)
			return
		}
		count := 0
		var failed error
		defer func() { end(count, 0, failed) }()
		for v, err := range yields(ctx) {
			if err == nil {
				count++
			} else {
				failed = err
			}
			if !yield(v, err) {
				return
			}
		}
	}
}

type tracedQuerier struct {
	Querier

	tracer Tracer
}

// Query implements Querier.
func (q tracedQuerier) Query(ctx context.Context, s Selection) (Selected, error) {
	ctx, end := q.tracer.Begin(ctx, "registry.query")
	found, err := q.Querier.Query(ctx, s)
	end.all(len(found.Identities), err)
	return found, err
}

type tracedHeader struct {
	Header

	tracer Tracer
}

// Head implements Header.
func (h tracedHeader) Head(ctx context.Context) (Revision, error) {
	ctx, end := h.tracer.Begin(ctx, "registry.head")
	head, err := h.Header.Head(ctx)
	end.all(0, err)
	return head, err
}

type tracedCounter struct {
	Counter

	tracer Tracer
}

// Count implements Counter.
func (c tracedCounter) Count(ctx context.Context) (int, error) {
	ctx, end := c.tracer.Begin(ctx, "registry.count")
	count, err := c.Counter.Count(ctx)
	end.all(count, err)
	return count, err
}

type tracedProber struct {
	Prober

	tracer Tracer
}

// Live implements Prober.
func (p tracedProber) Live(ctx context.Context, ids []string) ([]bool, error) {
	ctx, end := p.tracer.Begin(ctx, "registry.live")
	live, err := p.Prober.Live(ctx, ids)
	end.all(len(ids), err)
	return live, err
}

type tracedFinder struct {
	Finder

	tracer Tracer
}

// Find implements Finder.
func (f tracedFinder) Find(ctx context.Context, match *filter.Expr) iter.Seq2[string, error] {
	return tracedYields(ctx, f.tracer, "registry.find", func(ctx context.Context) iter.Seq2[string, error] {
		return f.Finder.Find(ctx, match)
	})
}

type tracedCopy struct {
	Copy

	tracer Tracer
}

// Reach implements Copy.
func (c tracedCopy) Reach(ctx context.Context, revision Revision) (Revision, error) {
	ctx, end := c.tracer.Begin(ctx, "registry.reach")
	reached, err := c.Copy.Reach(ctx, revision)
	end.all(0, err)
	return reached, err
}
