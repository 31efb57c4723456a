package memory

import (
	"context"
	"io"
	"slices"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// batchSize is the most messages that Next returns at once.
const batchSize = 1024

// consumer is a subscription of a Durability, whose lock guards it.
type consumer struct {
	durability *Durability
	ready      chan struct{} // there is something to take
	gone       chan struct{} // closed by Close

	topics map[string]*queue
	due    []*queue // held queues with something to take
	closed bool
}

// Add implements multicastregistry.Subscription.
func (c *consumer) Add(ctx context.Context, topics ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d := c.durability
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.closed {
		return io.EOF
	}
	for _, topic := range topics {
		if c.topics[topic] != nil {
			continue
		}
		q := d.queue(topic)
		c.topics[topic] = q
		q.consumers = append(q.consumers, c)
		if q.consumers[0] == c {
			q.tell()
		}
	}
	return nil
}

// Remove implements multicastregistry.Subscription.
func (c *consumer) Remove(ctx context.Context, topics ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d := c.durability
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, topic := range topics {
		if q := c.topics[topic]; q != nil {
			c.leave(q)
		}
	}
	return nil
}

func (c *consumer) leave(q *queue) {
	delete(c.topics, q.topic)
	if q.due && q.consumers[0] == c {
		q.due = false
		c.due = slices.DeleteFunc(c.due, func(other *queue) bool { return other == q })
	}
	q.leave(c)
	c.durability.forgetIdle(q)
}

// Next implements multicastregistry.Subscription.
func (c *consumer) Next(ctx context.Context) (multicastregistry.Batch, error) {
	for {
		if err := ctx.Err(); err != nil {
			return multicastregistry.Batch{}, err
		}
		if batch := c.take(); len(batch.Messages) > 0 || batch.Dropped > 0 {
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

func (c *consumer) take() multicastregistry.Batch {
	d := c.durability
	d.mu.Lock()
	defer d.mu.Unlock()
	var batch multicastregistry.Batch
	oldest := time.Now().Add(-d.cfg.MaxAge)
	for len(c.due) > 0 && len(batch.Messages) < batchSize {
		q := c.due[0]
		q.dropOlder(oldest)
		batch.Dropped += q.dropped
		q.dropped = 0
		batch.Messages = q.take(batch.Messages, batchSize)
		if q.next == len(q.stored) {
			q.due = false
			c.due = c.due[1:]
		}
	}
	return batch
}

// Close implements multicastregistry.Subscription.
func (c *consumer) Close() error {
	d := c.durability
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	close(c.gone)
	for _, q := range c.due {
		q.due = false
	}
	c.due = nil
	for _, q := range c.topics {
		c.leave(q)
	}
	return nil
}

func wake(ready chan struct{}) {
	select {
	case ready <- struct{}{}:
	default:
	}
}
