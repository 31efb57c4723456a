package nats

import (
	"context"
	"io"
	"slices"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// consumer is a subscription of a Durability, whose hub's lock guards it.
type consumer struct {
	hub   *hub
	ready chan struct{}
	gone  chan struct{}

	topics  map[string]*queue // by name
	unsaid  map[*queue]bool   // topics that were not mentioned in CaughtUp yet
	waiting []waiting
	bytes   int
	parked  []*queue
	dropped uint64
	closed  bool
}

// waiting is a message that waits in a consumer's buffer, or what it is told of a topic.
type waiting struct {
	q        *queue
	seq      uint64
	caughtUp bool
	message  multicastregistry.Message
}

const (
	// yieldAtOnce is the most messages that Next returns.
	yieldAtOnce = 1024
	// waitingMessages and waitingPayload bound what waits in a consumer before another queue is read for it.
	waitingMessages = 2 * yieldAtOnce
	waitingPayload  = 8 << 20
)

func (c *consumer) full() bool { return len(c.waiting) >= waitingMessages || c.bytes >= waitingPayload }

// mention tells of a topic that it has caught up, once. The caller holds the lock.
func (c *consumer) mention(q *queue) {
	if !c.unsaid[q] {
		return
	}
	delete(c.unsaid, q)
	c.waiting = append(c.waiting, waiting{q: q, caughtUp: true})
	wake(c.ready)
}

// forget takes messages of a queue out of the buffer. The caller holds the lock.
func (c *consumer) forget(q *queue, which func(w *waiting) bool) {
	c.waiting = slices.DeleteFunc(c.waiting, func(w waiting) bool {
		if w.q != q || w.caughtUp || !which(&w) {
			return false
		}
		c.bytes -= len(w.message.Payload)
		return true
	})
}

// Add implements multicastregistry.Subscription. It makes no round trip: what is stored is found behind it.
func (c *consumer) Add(ctx context.Context, topics ...string) error {
	h := c.hub
	if err := ctx.Err(); err != nil {
		return wrap("consume", "", err)
	}
	if !h.d.conn.nc.IsConnected() {
		return wrap("consume", "", h.d.conn.down())
	}
	names, identities := make([]string, len(topics)), make([]string, len(topics))
	for i, topic := range topics {
		_, identities[i], _ = multicastregistry.ParseTopic(topic)
		var err error
		if names[i], err = h.d.name(topic); err != nil {
			return wrap("consume", "", err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.closed {
		return io.EOF
	}
	if c.unsaid == nil {
		c.unsaid = make(map[*queue]bool)
	}
	for i, name := range names {
		if c.topics[name] != nil {
			continue
		}
		q := h.join(name, topics[i], identities[i], c)
		c.topics[name] = q
		c.unsaid[q] = true
		if q.consumers[0] != c || q.hold.by != "" { // another one holds it
			c.mention(q)
		}
	}
	return nil
}

// Remove implements multicastregistry.Subscription. Messages that wait for the topics go too.
func (c *consumer) Remove(ctx context.Context, topics ...string) error {
	h := c.hub
	if err := ctx.Err(); err != nil {
		return wrap("consume", "", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	removed := make(map[*queue]bool, len(topics))
	for _, topic := range topics {
		name, err := h.d.name(topic)
		if q := c.topics[name]; err == nil && q != nil {
			removed[q] = true
			delete(c.topics, name)
			delete(c.unsaid, q)
			h.part(q, c)
		}
	}
	if len(removed) == 0 {
		return nil
	}
	c.waiting = slices.DeleteFunc(c.waiting, func(w waiting) bool {
		if removed[w.q] {
			c.bytes -= len(w.message.Payload)
		}
		return removed[w.q]
	})
	c.parked = slices.DeleteFunc(c.parked, func(q *queue) bool { return removed[q] })
	return nil
}

// Next implements multicastregistry.Subscription.
func (c *consumer) Next(ctx context.Context) (multicastregistry.Batch, error) {
	for {
		if err := ctx.Err(); err != nil {
			return multicastregistry.Batch{}, err
		}
		if batch, ok := c.take(); ok {
			return batch, nil
		}
		select {
		case <-c.ready:
		case <-c.gone:
			return multicastregistry.Batch{}, io.EOF
		case <-ctx.Done():
		}
	}
}

func (c *consumer) take() (batch multicastregistry.Batch, ok bool) {
	h := c.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.closed {
		return batch, false
	}
	batch.Dropped, c.dropped = c.dropped, 0
	n := 0
	if h.holders.mayYield() { // else they wait for the lease
		for n < len(c.waiting) && len(batch.Messages) < yieldAtOnce {
			w := &c.waiting[n]
			n++
			if w.caughtUp {
				batch.CaughtUp = append(batch.CaughtUp, w.q.topic)
				continue
			}
			w.q.yield(w.seq)
			c.bytes -= len(w.message.Payload)
			batch.Messages = append(batch.Messages, w.message)
		}
		clear(c.waiting[:n])
		c.waiting = c.waiting[n:]
	}
	if len(c.parked) > 0 && !c.full() {
		for _, q := range c.parked {
			q.parked = false
			h.mark(q)
		}
		c.parked = nil
	}
	return batch, n > 0 || batch.Dropped > 0
}

// yield notes that a message is in its consumer's hands. The caller holds the lock.
func (q *queue) yield(seq uint64) {
	if q.held == nil {
		q.held = make(map[uint64]struct{})
	}
	q.held[seq] = struct{}{}
	q.read = max(q.read, seq)
}

// Close implements multicastregistry.Subscription.
func (c *consumer) Close() error {
	h := c.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	close(c.gone)
	c.waiting, c.parked = nil, nil
	for _, q := range c.topics {
		h.part(q, c)
	}
	delete(h.consumers, c)
	return nil
}
