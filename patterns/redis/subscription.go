package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/mailbox"
)

// subscription is one bounded mailbox for any number of topics.
type subscription struct {
	messaging *Messaging
	box       *mailbox.Box
	turn      chan struct{} // held by one Add or Remove until Redis has confirmed it
	gone      chan struct{} // closed by Close

	mu     sync.Mutex // before any lane's; box and lanes change together
	closed bool
}

// Subscribe implements multicastregistry.Messaging.
func (m *Messaging) Subscribe(ctx context.Context, topics ...string) (multicastregistry.Subscription, error) {
	s := &subscription{
		messaging: m, box: mailbox.New(m.buffer), turn: make(chan struct{}, 1), gone: make(chan struct{}),
	}
	if err := s.Add(ctx, topics...); err != nil {
		return nil, err
	}
	return s, nil
}

// Add implements multicastregistry.Subscription. A call that fails has added nothing. Without a connection to Redis it waits
// for one, for a few seconds, and is ErrUnavailable then.
func (s *subscription) Add(ctx context.Context, topics ...string) error {
	if err := s.begin(ctx); err != nil {
		return failed("subscribe", err)
	}
	defer s.end()
	added, waiters, err := s.join(topics)
	if err == nil {
		err = s.messaging.wait(ctx, waiters, s.gone)
	}
	if err != nil {
		s.leave(added) // Redis is told when it can be
		return failed("subscribe", err)
	}
	return nil
}

// Remove implements multicastregistry.Subscription. Messages that wait for the topics go too. When Redis does not confirm it in
// time, it is told later: nothing arrives either way.
func (s *subscription) Remove(ctx context.Context, topics ...string) error {
	if err := s.begin(ctx); err != nil {
		return failed("unsubscribe", err)
	}
	defer s.end()
	err := s.messaging.wait(ctx, s.leave(topics), s.gone)
	if errors.Is(err, multicastregistry.ErrUnavailable) && ctx.Err() == nil {
		return nil
	}
	return failed("unsubscribe", err)
}

// Next implements multicastregistry.Subscription.
func (s *subscription) Next(ctx context.Context) (multicastregistry.Batch, error) {
	return s.box.Next(ctx)
}

// Close implements multicastregistry.Subscription. It waits for Redis to forget the topics, for a few seconds at most.
func (s *subscription) Close() error {
	_ = s.messaging.wait(context.Background(), s.close(), nil) // if Redis is slow they are unsubscribed later
	return nil
}

// begin takes the turn of this subscription's changes: without it, an Add that fails could take a topic away that another one
// was just told it has.
func (s *subscription) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-s.gone:
		return io.EOF
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *subscription) end() { <-s.turn }

// join opens the mailbox for topics, and returns those that were not open.
func (s *subscription) join(topics []string) (added []string, waiters []*waiter, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, io.EOF
	}
	for _, topic := range topics {
		if _, isNew := s.box.Open(topic); isNew {
			added = append(added, topic)
		}
	}
	return added, s.messaging.change(added, func(c *channel) { c.slots = append(c.slots, s.box.Slot(c.topic)) }), nil
}

// leave closes the mailbox for topics.
func (s *subscription) leave(topics []string) []*waiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	var open []string
	s.box.Drop(topics, func(topic string, _ *mailbox.Slot) { open = append(open, topic) })
	return s.messaging.change(open, s.quit)
}

func (s *subscription) close() []*waiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.gone)
	var open []string
	s.box.Close(func(topic string, _ *mailbox.Slot) { open = append(open, topic) })
	return s.messaging.change(open, s.quit)
}

// quit takes the subscription off a channel.
func (s *subscription) quit(c *channel) {
	c.slots = slices.DeleteFunc(c.slots, func(slot *mailbox.Slot) bool { return slot.Box() == s.box })
}

// failed wraps an error of a subscription; io.EOF stays what it is.
func failed(op string, err error) error {
	if err == nil || err == io.EOF { //nolint:errorlint // the contract's own io.EOF, never one of a connection
		return err
	}
	return fmt.Errorf("redis: %s: %w", op, err)
}
