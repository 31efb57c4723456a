package multicastregistry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// How a subscriber works: one goroutine takes messages from the messaging slot and one from the durability slot, and both hand
// events to Next, one at a time. An identity that was just attached is catching up until the durability slot has said that all
// that was stored has come; its live messages wait behind it, so that a sender's messages arrive in order (catchup.go). Acks go
// where their messages came from; those of stored ones are noted in the ledger, too. What is detached, or left when the
// subscriber closes, without an ack is given back to its sender.

// Event is what a subscriber receives at once. At least one field is set.
type Event struct {
	// Messages in order of arrival.
	Messages []Message
	// Dropped counts the messages lost since the event before: because the subscriber read too slowly, or because they were
	// stored for too long.
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

	emitting sync.Mutex // held while what one slot yielded is handed on, so that the other waits its turn
	catchup  catchup

	mu      sync.Mutex
	unacked unacked
	broken  error // why a source ended before Close
	closed  bool
}

// giveBackTimeout bounds the giving back of messages that were not acked.
const giveBackTimeout = 2 * time.Second

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
	s.running.Go(func() { s.end(s.pumpLive(s.life)) })
	s.running.Go(func() { s.keeper.run(s.life) })
	if s.stored != nil {
		s.running.Go(func() { s.end(s.pumpStored(s.life)) })
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
	if s.stored != nil {
		s.catchup.begin(topics)
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

// Detach stops receiving the messages of identities. Messages that arrived before may still come out of Next, and be acked;
// but the senders of those that are not acked by now are told that this subscriber has left.
func (s *Subscriber) Detach(ctx context.Context, ids ...string) error {
	topics, err := s.topics(ids)
	if err != nil {
		return err
	}
	s.keeper.drop(ids)
	if err := s.live.Remove(ctx, topics...); err != nil {
		return err
	}
	s.catchup.forget(topics)
	var errStored error
	if s.stored != nil {
		errStored = s.stored.Remove(ctx, topics...)
	}
	gone := make(map[string]bool, len(ids))
	for _, id := range ids {
		gone[id] = true
	}
	s.giveBack(ctx, func(name MessageName) bool { return gone[name.Identity] })
	return errStored
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
			return Event{}, s.reason()
		}
	}
}

// reason returns why the subscriber ended.
func (s *Subscriber) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cmp.Or(s.broken, io.EOF)
}

// end ends the subscriber because a slot gave a subscription up.
func (s *Subscriber) end(err error) {
	s.mu.Lock()
	if s.life.Err() == nil && s.broken == nil {
		s.broken = fmt.Errorf("subscription ended: %w", err)
	}
	s.mu.Unlock()
	s.stop()
}

// pumpLive carries what the messaging slot yields into events.
func (s *Subscriber) pumpLive(life context.Context) error {
	for {
		batch, err := s.live.Next(life)
		if err != nil {
			return err
		}
		s.emitting.Lock()
		messages, dropped := s.catchup.hold(batch.Messages)
		err = s.emit(Event{Messages: messages, Dropped: batch.Dropped + dropped}, false)
		s.emitting.Unlock()
		if err != nil {
			return err
		}
	}
}

// pumpStored carries what the durability slot yields into events, and behind it what came live meanwhile.
func (s *Subscriber) pumpStored(life context.Context) error {
	for {
		patience, cancel := context.WithTimeout(life, catchupPatience)
		batch, err := s.stored.Next(patience)
		cancel()
		silent := err != nil && life.Err() == nil && errors.Is(err, context.DeadlineExceeded)
		if err != nil && !silent {
			return err
		}
		s.emitting.Lock()
		err = s.emit(Event{Messages: batch.Messages, Dropped: batch.Dropped}, true)
		if err == nil {
			err = s.emit(Event{Messages: s.catchup.release(batch.CaughtUp, silent)}, false)
		}
		s.emitting.Unlock()
		if err != nil {
			return err
		}
	}
}

// emit hands an event to Next, after noting where its acks go. The caller holds s.emitting.
func (s *Subscriber) emit(e Event, stored bool) error {
	if len(e.Messages) == 0 && e.Dropped == 0 {
		return nil
	}
	s.remember(e.Messages, stored)
	select {
	case s.events <- e:
		return nil
	case <-s.life.Done():
		return s.life.Err()
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
		errs = append(errs, s.c.ackStored(ctx, stored)...)
	}
	return errors.Join(errs...)
}

// ackStored notes in the ledger that stored messages were acked, and removes those that it could note. In this order: whoever
// finds no message any more finds the note. It takes the slice over.
func (c *Coordinator) ackStored(ctx context.Context, acks []Ack) []error {
	var errs []error
	if c.ledger != nil {
		now := time.Now()
		settlements := make([]Settlement, len(acks))
		for i, ack := range acks {
			settlements[i] = acknowledged(ack.ID, ack.Identity, ack.Reply, now)
		}
		errs = c.ledger.Settle(ctx, settlements)
		noted := acks[:0]
		for i, err := range errs {
			if err == nil { // else it stays stored, and is delivered and acked again
				noted = append(noted, acks[i])
			}
		}
		acks = noted
	}
	return append(errs, c.slots.Durability.Ack(ctx, acks)...)
}

// giveBack tells the senders of messages that came live and were not acked that this subscriber has left. Nobody waits for
// that to succeed: a sender that is not told has its own patience.
func (s *Subscriber) giveBack(ctx context.Context, which func(MessageName) bool) {
	s.mu.Lock()
	acks := s.unacked.giveBack(which)
	s.mu.Unlock()
	if len(acks) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackTimeout)
	defer cancel()
	s.c.slots.Messaging.Ack(ctx, acks)
}

// Close ends the subscriber: it receives nothing more, and keeps no lease alive. Messages that it did not ack go to the next
// one, or back to their senders. Closing again does nothing.
func (s *Subscriber) Close() error {
	s.stop()
	err := s.live.Close()
	if s.stored != nil {
		err = errors.Join(err, s.stored.Close())
	}
	s.running.Wait()
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if !again {
		s.giveBack(context.Background(), func(MessageName) bool { return true })
	}
	return err
}
