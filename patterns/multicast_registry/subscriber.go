package multicastregistry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Event is what a subscriber receives at once. At least one field is set.
type Event struct {
	// Messages in order of arrival.
	Messages []Message
	// Dropped counts the messages lost since the event before because the subscriber read too slowly.
	Dropped uint64
	// LeasesLost names identities whose lease can no longer be kept alive, because they are not registered (any more).
	LeasesLost []string
}

// MessageName names a message that a subscriber received.
type MessageName struct {
	// Identity is the identity it was received for.
	Identity string
	// ID is the message's id.
	ID string
}

// Answer is the ack of a message that a subscriber received.
type Answer struct {
	MessageName

	// Reply goes to the sender with the ack.
	Reply Reply
}

// Subscriber receives the messages of any number of identities, live ones and stored ones. All methods may be called
// concurrently.
type Subscriber struct {
	c      *Coordinator
	live   Subscription
	stored Subscription // nil without a durability slot
	keeper *keeper

	events  chan Event
	life    context.Context // ends with Close
	stop    context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	unacked unacked
	broken  error // why a source ended before Close
}

// Subscribe returns a subscriber with no identities attached yet. The context covers the call; Close ends the subscriber.
func (c *Coordinator) Subscribe(ctx context.Context) (*Subscriber, error) {
	live, err := c.slots.Messaging.Subscribe(ctx)
	if err != nil {
		return nil, err
	}
	s := &Subscriber{c: c, live: live, events: make(chan Event), unacked: newUnacked()}
	if c.slots.Durability != nil {
		if s.stored, err = c.slots.Durability.Consume(ctx); err != nil {
			return nil, errors.Join(err, live.Close())
		}
	}
	s.life, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.keeper = newKeeper(c.slots.Registry)
	s.running.Go(func() { s.pump(s.live, false) })
	s.running.Go(func() { s.keeper.run(s.life) })
	if s.stored != nil {
		s.running.Go(func() { s.pump(s.stored, true) })
	}
	return s, nil
}

// Attach starts receiving the messages of identities, which need not be registered. When it returns, every message sent
// from now on arrives. With keepAlive the leases of these identities are renewed, at once and then about three times per
// TTL, until they are detached or the subscriber closes; without, that ends. Attaching again only changes keepAlive.
func (s *Subscriber) Attach(ctx context.Context, keepAlive bool, ids ...string) error {
	topics, err := s.topics(ids)
	if err != nil {
		return err
	}
	if err := s.live.Add(ctx, topics...); err != nil {
		return err
	}
	if s.stored != nil {
		if err := s.stored.Add(ctx, topics...); err != nil {
			return err
		}
	}
	if keepAlive {
		s.keeper.keep(ids)
	} else {
		s.keeper.drop(ids)
	}
	return nil
}

// Detach stops receiving the messages of identities. Messages that arrived before may still come out of Next.
func (s *Subscriber) Detach(ctx context.Context, ids ...string) error {
	topics, err := s.topics(ids)
	if err != nil {
		return err
	}
	s.keeper.drop(ids)
	if err := s.live.Remove(ctx, topics...); err != nil {
		return err
	}
	if s.stored != nil {
		return s.stored.Remove(ctx, topics...)
	}
	return nil
}

func (s *Subscriber) topics(ids []string) ([]string, error) {
	topics := make([]string, len(ids))
	for i, id := range ids {
		if err := CheckIdentity(id); err != nil {
			return nil, err
		}
		topics[i] = Topic(s.c.cfg.Namespace, id)
	}
	return topics, nil
}

// Next waits for the next event. It returns io.EOF after Close, the context's error when the context ends, and the error of
// a slot that gave the subscription up.
func (s *Subscriber) Next(ctx context.Context) (Event, error) {
	for {
		select {
		case e := <-s.events:
			return e, nil
		case <-s.keeper.lostSome:
			if lost := s.keeper.takeLost(); len(lost) > 0 {
				return Event{LeasesLost: lost}, nil
			}
		case <-ctx.Done():
			return Event{}, ctx.Err()
		case <-s.life.Done():
			return Event{}, s.end()
		}
	}
}

// end returns why the subscriber ended.
func (s *Subscriber) end() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cmp.Or(s.broken, io.EOF)
}

// pump carries what one slot's subscription yields into events, and remembers where the acks go.
func (s *Subscriber) pump(from Subscription, stored bool) {
	for {
		batch, err := from.Next(s.life)
		if err != nil {
			s.mu.Lock()
			if s.life.Err() == nil && s.broken == nil {
				s.broken = fmt.Errorf("subscription ended: %w", err)
			}
			s.mu.Unlock()
			s.stop()
			return
		}
		s.remember(batch.Messages, stored)
		select {
		case s.events <- Event{Messages: batch.Messages, Dropped: batch.Dropped}:
		case <-s.life.Done():
			return
		}
	}
}

func (s *Subscriber) remember(messages []Message, stored bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range messages {
		m := &messages[i]
		m.Redelivered = m.Redelivered || stored // it may have come live before it was stored
		if m.AckTo == "" {
			continue
		}
		s.unacked.add(MessageName{Identity: m.Identity, ID: m.ID}, m.AckTo, stored)
	}
}

// Ack acknowledges messages that this subscriber received. One that it did not receive, or acked before, is passed over.
func (s *Subscriber) Ack(ctx context.Context, answers ...Answer) error {
	var live, stored []Ack
	s.mu.Lock()
	for _, answer := range answers {
		address := s.unacked.take(answer.MessageName)
		ack := Ack{Identity: answer.Identity, ID: answer.ID, Reply: answer.Reply}
		if ack.To = address.live; ack.To != "" {
			live = append(live, ack)
		}
		if ack.To = address.stored; ack.To != "" {
			stored = append(stored, ack)
		}
	}
	s.mu.Unlock()
	var errs []error
	if len(live) > 0 {
		errs = s.c.slots.Messaging.Ack(ctx, live)
	}
	if len(stored) > 0 {
		errs = append(errs, s.c.slots.Durability.Ack(ctx, stored)...)
	}
	return errors.Join(errs...)
}

// Close ends the subscriber: it receives nothing more, and keeps no lease alive. Stored messages that it did not ack go to
// the next one. Closing again does nothing.
func (s *Subscriber) Close() error {
	s.stop()
	err := s.live.Close()
	if s.stored != nil {
		err = errors.Join(err, s.stored.Close())
	}
	s.running.Wait()
	return err
}
