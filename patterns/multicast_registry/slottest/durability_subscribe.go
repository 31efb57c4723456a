package slottest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func (s *durabilitySuite) addRemove(t *testing.T) {
	d, from := s.open(t), newSender()
	sub := s.consume(t, d)
	ctx := within(t, s.Patience)
	noError(t, sub.Add(ctx), "add nothing")
	noError(t, sub.Remove(ctx, from.topics("a", "b")...), "remove what is not received")
	noError(t, sub.Add(ctx, from.topic("keep")), "add")
	for range 3 {
		stored := from.numbered("b", 2)
		enqueue(t, d, stored...)
		s.settle(t, d, from, sub, "keep")
		noError(t, sub.Add(ctx, from.topics("a", "b", "a")...), "add")
		noError(t, sub.Add(ctx, from.topics("b", "a")...), "add again")
		got := receive(t, s.Patience, sub, len(stored))
		wantStored(t, got, stored)
		sendAcks(t, d, acksOf(got)...)
		s.settle(t, d, from, sub, "a")
		noError(t, sub.Remove(ctx, from.topics("a", "b", "b")...), "remove")
	}
}

func (s *durabilitySuite) nextCancelled(t *testing.T) {
	d, from := s.open(t), newSender()
	sub := s.consume(t, d, from.topic("a"))
	cancelledNext(t, sub)
	enqueue(t, d, from.message("a", "waiting"))
	cancelledNext(t, sub)
	sendAcks(t, d, acksOf(receive(t, s.Patience, sub, 1))...)
	readCancelling(t, s.Patience, sub, func(n int) error {
		_, err := d.Purge(t.Context(), from.topic("a")) // so that no bound of the queue is met
		return errors.Join(append(d.Enqueue(t.Context(), []mr.Message{from.message("a", fmt.Sprint(n))}), err)...)
	})
}

func (s *durabilitySuite) contextCoversCall(t *testing.T) {
	d, from := s.open(t), newSender()
	ctx, cancel := context.WithCancel(t.Context())
	sub, err := d.Consume(ctx, from.topic("a"))
	noError(t, err, "consume")
	closing(t, sub)
	noError(t, sub.Add(ctx, from.topic("b")), "add")
	cancel()
	s.settle(t, d, from, sub, "a")
	s.settle(t, d, from, sub, "b")
}

// cancelled makes every call with a context that has ended. What such an Enqueue says about a message must be true: no
// error means that it is stored, an error that it is not.
func (s *durabilitySuite) cancelled(t *testing.T) {
	d, from := s.open(t), newSender()
	stored := from.numbered("b", 2)
	enqueue(t, d, stored...)
	held := s.consume(t, d, from.topic("b"))
	got := receive(t, s.Patience, held, 2)
	for _, ctx := range []context.Context{cancelled(t), past(t)} {
		if _, err := d.Consume(ctx, from.topic("a")); !isContextError(err) {
			t.Errorf("consume: %v", err)
		}
		if err := held.Add(ctx, from.topic("a")); !isContextError(err) {
			t.Errorf("add: %v", err)
		}
		if n, err := d.Purge(ctx, from.topic("b")); n != 0 || !isContextError(err) {
			t.Errorf("purge: %d, %v", n, err)
		}
		for i, err := range results(t, 1, d.Ack(ctx, acksOf(got[:1]))) {
			if !isContextError(err) {
				t.Errorf("ack %d: %v", i, err)
			}
		}
		for i, err := range results(t, 2, d.Enqueue(ctx, from.numbered("a", 2))) {
			if !isContextError(err) {
				t.Errorf("enqueue %d: %v", i, err)
			}
		}
		s.wantEmpty(t, d, from, "a")
	}
	noError(t, held.Close(), "close")
	s.wantRedelivered(t, s.consume(t, d, from.topic("b")), stored)
}

func (s *durabilitySuite) close(t *testing.T) {
	d, from := s.open(t), newSender()
	sub := s.consume(t, d, from.topics("a", "b")...)
	closeSubscription(t, s.Patience, sub, from.topic("c"))
	sent := from.numbered("a", 3)
	enqueue(t, d, sent...)
	wantStored(t, receive(t, s.Patience, s.consume(t, d, from.topic("a")), 3), sent)

	unread := s.consume(t, d, from.topic("c"))
	waiting := from.numbered("c", 3)
	enqueue(t, d, waiting...)
	noError(t, unread.Close(), "close with messages waiting")
	eventually(t, s.Patience, "a closed subscription ends", func() bool {
		_, err := unread.Next(t.Context())
		return errors.Is(err, io.EOF)
	})
	wantStored(t, receive(t, s.Patience, s.consume(t, d, from.topic("c")), 3), waiting)
}

// closeRace closes consumers while messages are stored and read: whatever they did not ack is there afterwards.
func (s *durabilitySuite) closeRace(t *testing.T) {
	d, from := s.open(t), newSender()
	for round := range 20 {
		id := fmt.Sprint(round)
		sent := from.numbered(id, 10)
		sub := s.consume(t, d, from.topic(id))
		var working sync.WaitGroup
		working.Go(func() {
			for i := range sent {
				if err := errors.Join(d.Enqueue(t.Context(), sent[i:i+1])...); err != nil {
					t.Error(err)
				}
			}
		})
		working.Go(func() {
			for {
				if _, err := sub.Next(t.Context()); err != nil {
					if !errors.Is(err, io.EOF) {
						t.Errorf("next: %v", err)
					}
					return
				}
			}
		})
		working.Go(func() { _ = sub.Add(t.Context(), from.topic("another")) })
		working.Go(func() {
			<-time.After(time.Duration(rand.IntN(200)) * time.Microsecond)
			if err := sub.Close(); err != nil {
				t.Error(err)
			}
		})
		working.Wait()
		wantStored(t, receive(t, s.Patience, s.consume(t, d, from.topic(id)), len(sent)), sent)
	}
}
