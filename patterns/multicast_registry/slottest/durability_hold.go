package slottest

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func (s *durabilitySuite) ackIsForGood(t *testing.T) {
	d, from := s.open(t), newSender()
	sent := from.numbered("a", 20)
	enqueue(t, d, sent...)
	sub := s.consume(t, d, from.topic("a"))
	got := receive(t, s.Patience, sub, len(sent))
	sendAcks(t, d)
	sendAcks(t, d, ack(got[0]), ack(got[0]))
	sendAcks(t, d, acksOf(got)...)
	sendAcks(t, d, acksOf(got)...)
	noError(t, sub.Close(), "close")
	sendAcks(t, d, acksOf(got)...)
	for range 2 {
		s.wantEmpty(t, d, from, "a")
	}
	if n, err := d.Purge(t.Context(), from.topic("a")); n != 0 || err != nil {
		t.Errorf("purge: %d, %v", n, err)
	}
}

// heldByOne has two consumers at once. What one of them holds comes to neither of them again.
func (s *durabilitySuite) heldByOne(t *testing.T) {
	d, from := s.open(t), newSender()
	first := s.consume(t, d, from.topic("a"))
	sent := from.numbered("a", 10)
	enqueue(t, d, sent...)
	wantStored(t, receive(t, s.Patience, first, len(sent)), sent)
	second := s.consume(t, d, from.topics("a", "b")...)
	s.settle(t, d, from, second, "b")
	noError(t, second.Close(), "close")
	s.settle(t, d, from, first, "a")
}

// wantRedelivered fails the test unless messages come in order and marked as delivered before.
func (s *durabilitySuite) wantRedelivered(t *testing.T, sub mr.Subscription, want []mr.Message) []mr.Message {
	t.Helper()
	got := receive(t, s.Patience, sub, len(want))
	wantStored(t, got, want)
	for _, message := range got {
		if !message.Redelivered {
			t.Errorf("%s is delivered again and not marked", message.ID)
		}
	}
	return got
}

func (s *durabilitySuite) redeliveredAfterClose(t *testing.T) {
	d, from := s.open(t), newSender()
	sent := from.numbered("a", 10)
	enqueue(t, d, sent...)
	sub := s.consume(t, d, from.topic("a"))
	got := receive(t, s.Patience, sub, len(sent))
	sendAcks(t, d, ack(got[0]), ack(got[4]), ack(got[9]))
	noError(t, sub.Close(), "close")
	left := append(append([]mr.Message{}, sent[1:4]...), sent[5:9]...)
	for range 2 {
		sub = s.consume(t, d, from.topic("a"))
		s.wantRedelivered(t, sub, left)
		noError(t, sub.Close(), "close")
	}
	sub = s.consume(t, d, from.topic("a"))
	sendAcks(t, d, acksOf(s.wantRedelivered(t, sub, left))...)
	noError(t, sub.Close(), "close")
	s.wantEmpty(t, d, from, "a")
}

func (s *durabilitySuite) redeliveredAfterRemove(t *testing.T) {
	d, from := s.open(t), newSender()
	stored, kept, live := from.numbered("a", 5), from.numbered("b", 5), from.numbered("a", 5)
	enqueue(t, d, stored...)
	sub := s.consume(t, d, from.topics("a", "b")...)
	ctx := within(t, s.Patience)
	for range 2 {
		receive(t, s.Patience, sub, len(stored))
		noError(t, sub.Remove(ctx, from.topic("a")), "remove")
		noError(t, sub.Add(ctx, from.topic("a")), "add")
	}
	s.wantRedelivered(t, sub, stored)
	enqueue(t, d, kept...)
	wantStored(t, receive(t, s.Patience, sub, len(kept)), kept)
	noError(t, sub.Remove(ctx, from.topic("a")), "remove")
	enqueue(t, d, live...)
	s.settle(t, d, from, sub, "b")
	other := s.consume(t, d, from.topic("a"))
	wantStored(t, receive(t, s.Patience, other, 10), append(stored, live...))
}

// redeliveredToStandby has a second consumer waiting when the holder goes.
func (s *durabilitySuite) redeliveredToStandby(t *testing.T) {
	d, from := s.open(t), newSender()
	for _, leave := range []func(sub mr.Subscription) error{
		func(sub mr.Subscription) error { return sub.Close() },
		func(sub mr.Subscription) error { return sub.Remove(within(t, s.Patience), from.topic("a")) },
	} {
		sent := from.numbered("a", 5)
		holder := s.consume(t, d, from.topic("a"))
		enqueue(t, d, sent...)
		receive(t, s.Patience, holder, len(sent))
		standby := s.consume(t, d, from.topic("a"))
		left := make(chan error, 1)
		go func() { left <- leave(holder) }()
		sendAcks(t, d, acksOf(s.wantRedelivered(t, standby, sent))...)
		noError(t, <-left, "leave")
		noError(t, standby.Close(), "close")
	}
}

// lateAck acks after the holder has gone, before and after somebody else holds the message.
func (s *durabilitySuite) lateAck(t *testing.T) {
	d, from := s.open(t), newSender()
	sent := from.numbered("a", 3)
	enqueue(t, d, sent...)
	sub := s.consume(t, d, from.topic("a"))
	got := receive(t, s.Patience, sub, 3)
	noError(t, sub.Close(), "close")
	sendAcks(t, d, ack(got[0]))
	sub = s.consume(t, d, from.topic("a"))
	again := s.wantRedelivered(t, sub, sent[1:])
	sendAcks(t, d, ack(again[0]), ack(again[1]))
	sendAcks(t, d, ack(got[1]), ack(got[2]))
	noError(t, sub.Close(), "close")
	s.wantEmpty(t, d, from, "a")
}

// staleAck repeats acks of messages that are gone, when others are stored in their place: those stay.
func (s *durabilitySuite) staleAck(t *testing.T) {
	d, from := s.open(t), newSender()
	var stale []mr.Ack
	for round := range 5 {
		sent := from.numbered("a", 3)
		enqueue(t, d, sent...)
		sendAcks(t, d, stale...)
		sub := s.consume(t, d, from.topic("a"))
		got := receive(t, s.Patience, sub, len(sent))
		wantStored(t, got, sent)
		sendAcks(t, d, stale...)
		noError(t, sub.Close(), "close")
		if n, err := d.Purge(t.Context(), from.topic("b")); n != 0 || err != nil {
			t.Errorf("purge of another topic: %d, %v", n, err)
		}
		sub = s.consume(t, d, from.topic("a"))
		got = s.wantRedelivered(t, sub, sent)
		stale = append(stale, acksOf(got)...)
		if round%2 == 0 {
			sendAcks(t, d, acksOf(got)...)
		} else if n, err := d.Purge(t.Context(), from.topic("a")); n != len(sent) || err != nil {
			t.Errorf("purge: %d, %v", n, err)
		}
		noError(t, sub.Close(), "close")
	}
	s.wantEmpty(t, d, from, "a")
}

// oneLeftBehind acks everything but the first message, many times over: that one stays, and takes the place of one.
func (s *durabilitySuite) oneLeftBehind(t *testing.T) {
	d, from := s.open(t), newSender()
	first := from.message("a", "left behind")
	enqueue(t, d, first)
	sub := s.consume(t, d, from.topic("a"))
	receive(t, s.Patience, sub, 1)
	for range 5 {
		sent := from.numbered("a", 90)
		enqueue(t, d, sent...)
		got := receive(t, s.Patience, sub, len(sent))
		wantStored(t, got, sent)
		for n := len(got) - 1; n >= 0; n -= 2 { // back to front, and out of order
			sendAcks(t, d, ack(got[n]))
		}
		for n := 0; n < len(got); n += 2 {
			sendAcks(t, d, ack(got[n]))
		}
	}
	noError(t, sub.Close(), "close")
	s.wantRedelivered(t, s.consume(t, d, from.topic("a")), []mr.Message{first})
}

// competing has several consumers of one topic that ack as they read: each message comes to exactly one of them.
func (s *durabilitySuite) competing(t *testing.T) {
	d, from := s.open(t), newSender()
	const consumers, many = 4, 90
	var mu sync.Mutex
	seen := map[string]int{}
	done := make(chan struct{})
	all := sync.OnceFunc(func() { close(done) })
	ctx, stop := context.WithTimeout(t.Context(), s.Patience)
	defer stop()
	var reading sync.WaitGroup
	for range consumers {
		sub := s.consume(t, d, from.topic("a"))
		reading.Go(func() {
			for {
				batch, err := sub.Next(ctx)
				if err != nil {
					return
				}
				err = errors.Join(d.Ack(ctx, acksOf(batch.Messages))...)
				mu.Lock()
				for _, message := range batch.Messages {
					seen[message.ID]++
				}
				if err != nil {
					t.Error(err)
				}
				if len(seen) == many {
					all()
				}
				mu.Unlock()
			}
		})
	}
	sent := from.numbered("a", many)
	for len(sent) > 0 {
		enqueue(t, d, sent[:3]...)
		sent = sent[3:]
	}
	select {
	case <-done:
	case <-ctx.Done():
		t.Error("not all messages come")
	}
	stop()
	reading.Wait()
	for id, times := range seen {
		if times != 1 {
			t.Errorf("%s came %d times", id, times)
		}
	}
	s.wantPurged(t, d, from, "a")
}

func (s *durabilitySuite) wantPurged(t *testing.T, d mr.Durability, from *sender, identity string) {
	t.Helper()
	if n, err := d.Purge(t.Context(), from.topic(identity)); n != 0 || err != nil {
		t.Errorf("%d messages of %q are left, %v", n, identity, err)
	}
}

// crashing has consumers that read a little, ack some of it and go, while messages are stored: in the end each message
// was acked, and none was held by two at once.
func (s *durabilitySuite) crashing(t *testing.T) {
	d, from := s.open(t), newSender()
	const many = 90
	var mu sync.Mutex
	held, acked := map[string]bool{}, map[string]bool{}
	ctx, stop := context.WithTimeout(t.Context(), s.Patience)
	defer stop()
	consumer := func() error {
		sub, err := d.Consume(ctx, from.topic("a"))
		if err != nil {
			return err
		}
		defer sub.Close()
		batch, err := nextMessages(ctx, sub)
		if err != nil {
			return err
		}
		mu.Lock()
		for _, message := range batch.Messages {
			if held[message.ID] {
				t.Errorf("%s is held by two", message.ID)
			}
			held[message.ID] = true
		}
		mu.Unlock()
		for _, message := range batch.Messages {
			ok := rand.IntN(2) == 0
			if ok {
				err = errors.Join(err, errors.Join(d.Ack(ctx, []mr.Ack{ack(message)})...))
			}
			mu.Lock()
			acked[message.ID] = acked[message.ID] || ok
			delete(held, message.ID)
			if len(acked) == many && allTrue(acked) {
				stop()
			}
			mu.Unlock()
		}
		return err
	}
	var reading sync.WaitGroup
	for range 3 {
		reading.Go(func() {
			for ctx.Err() == nil {
				if err := consumer(); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	sent := from.numbered("a", many)
	for len(sent) > 0 {
		enqueue(t, d, sent[:3]...)
		sent = sent[3:]
	}
	reading.Wait()
	if len(acked) != many || !allTrue(acked) {
		t.Errorf("%d of %d messages came; all were acked: %v", len(acked), many, allTrue(acked))
	}
	s.wantPurged(t, d, from, "a")
}

func allTrue(of map[string]bool) bool {
	for _, yes := range of {
		if !yes {
			return false
		}
	}
	return true
}

func (s *durabilitySuite) purge(t *testing.T) {
	d, from := s.open(t), newSender()
	s.wantPurged(t, d, from, "a")
	enqueue(t, d, from.numbered("a", 10)...)
	kept := from.numbered("b", 2)
	enqueue(t, d, kept...)
	sub := s.consume(t, d, from.topic("a"))
	held := receive(t, s.Patience, sub, 10)
	sendAcks(t, d, ack(held[0]), ack(held[5]))
	if n, err := d.Purge(t.Context(), from.topic("a")); n != 8 || err != nil {
		t.Errorf("purge: %d, %v; want 8", n, err)
	}
	s.wantPurged(t, d, from, "a")
	sendAcks(t, d, acksOf(held)...)
	s.settle(t, d, from, sub, "a")
	noError(t, sub.Close(), "close")
	s.wantEmpty(t, d, from, "a")
	enqueue(t, d, from.numbered("a", 10)...)
	if n, err := d.Purge(t.Context(), from.topic("a")); n != 10 || err != nil {
		t.Errorf("purge: %d, %v; want 10", n, err)
	}
	s.wantEmpty(t, d, from, "a")
	wantStored(t, receive(t, s.Patience, s.consume(t, d, from.topic("b")), 2), kept)
}

// forgedAcks sends acks to what recipients may make up. They remove nothing, break nothing, and are errors or not.
func (s *durabilitySuite) forgedAcks(t *testing.T) {
	d, from := s.open(t), newSender()
	sent := from.numbered("a", 3)
	enqueue(t, d, sent...)
	sub := s.consume(t, d, from.topic("a"))
	address := receive(t, s.Patience, sub, 3)[1].AckTo
	targets := append(HostileIdentities(), "", from.topic("a"), from.topic("b"), "prism.*", "prism.>", "prism."+from.namespace+".*",
		address[:len(address)-1], address[:len(address)/2], address+" ", address+"0", address+"\r\nx", strings.Repeat(address, 50))
	for _, to := range targets {
		results(t, 1, d.Ack(t.Context(), []mr.Ack{{To: to, Identity: "a", ID: sent[1].ID}}))
	}
	noError(t, sub.Close(), "close")
	s.wantRedelivered(t, s.consume(t, d, from.topic("a")), sent)
}
