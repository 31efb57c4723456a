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

	seats    map[string]*seat   // by topic
	due      []*queue           // held queues with something to take
	standing map[*seat]struct{} // where it stood by when it came, and has not learned yet that there is nothing to catch up on
	closed   bool
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
		if c.seats[topic] != nil {
			continue
		}
		q := d.queue(topic)
		s := &seat{consumer: c, queue: q, behind: true, until: d.sequence}
		c.seats[topic] = s
		q.seats = append(q.seats, s)
		if q.seats[0] == s {
			q.tell()
			continue
		}
		c.standing[s] = struct{}{}
		wake(c.ready)
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
		if s := c.seats[topic]; s != nil {
			c.leave(s)
		}
	}
	return nil
}

func (c *consumer) leave(s *seat) {
	q := s.queue
	delete(c.seats, q.topic)
	delete(c.standing, s)
	if q.due && q.seats[0] == s {
		q.due = false
		c.due = slices.DeleteFunc(c.due, func(other *queue) bool { return other == q })
	}
	q.leave(s)
	c.durability.forgetIdle(q)
}

// Next implements multicastregistry.Subscription.
func (c *consumer) Next(ctx context.Context) (multicastregistry.Batch, error) {
	for {
		if err := ctx.Err(); err != nil {
			return multicastregistry.Batch{}, err
		}
		if batch := c.take(); len(batch.Messages) > 0 || batch.Dropped > 0 || len(batch.CaughtUp) > 0 {
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
	for s := range c.standing {
		if s.behind && s.queue.seats[0] != s { // else it holds the queue by now, which is due
			s.behind = false
			batch.CaughtUp = append(batch.CaughtUp, s.queue.topic)
		}
	}
	clear(c.standing)
	now := time.Now()
	oldest := now.Add(-d.cfg.MaxAge)
	for len(c.due) > 0 && len(batch.Messages) < batchSize && len(batch.CaughtUp) < batchSize {
		q := c.due[0]
		q.dropOlder(oldest, now)
		batch.Dropped += q.dropped
		q.dropped = 0
		batch.Messages = q.take(batch.Messages, batchSize)
		if s := q.seats[0]; s.behind && q.caughtUp(s.until) {
			s.behind = false
			batch.CaughtUp = append(batch.CaughtUp, q.topic)
		}
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
	for _, s := range c.seats {
		c.leave(s)
	}
	return nil
}

func wake(ready chan struct{}) {
	select {
	case ready <- struct{}{}:
	default:
	}
}
