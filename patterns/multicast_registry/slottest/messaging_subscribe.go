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

func (s *messagingSuite) addRemove(t *testing.T) {
	m, from := s.open(t), newSender()
	sub := s.subscribe(t, m)
	s.addAndRemove(t, m, from, sub)
	both := s.subscribe(t, m, from.topics("a", "a", "b")...)
	for range 3 {
		s.settle(t, m, from, both, "a")
		s.settle(t, m, from, both, "b")
	}
}

func (s *messagingSuite) addAndRemove(t *testing.T, m mr.Messaging, from *sender, sub mr.Subscription) {
	t.Helper()
	ctx := within(t, s.Patience)
	noError(t, sub.Add(ctx), "add nothing")
	noError(t, sub.Remove(ctx), "remove nothing")
	noError(t, sub.Remove(ctx, from.topics("a", "b")...), "remove what is not received")
	noError(t, sub.Add(ctx, from.topic("keep")), "add")
	for range 5 {
		noError(t, sub.Add(ctx, from.topics("a", "b", "a")...), "add")
		noError(t, sub.Add(ctx, from.topics("b", "a")...), "add again")
		s.settle(t, m, from, sub, "a")
		s.settle(t, m, from, sub, "b")
		noError(t, sub.Remove(ctx, from.topics("b", "b")...), "remove")
		publish(t, m, from.message("b", "too late"))
		s.settle(t, m, from, sub, "a")
		noError(t, sub.Remove(ctx, from.topics("a", "b")...), "remove")
		publish(t, m, from.message("a", "too late"), from.message("b", "too late"))
		s.settle(t, m, from, sub, "keep")
	}
}

// manyTopics has one subscription with 2,000 topics that come and go in batches and one by one.
func (s *messagingSuite) manyTopics(t *testing.T) {
	m, from := s.open(t), newSender()
	const many = 2000
	sub := s.subscribe(t, m)
	var topics []string
	var messages []mr.Message
	for n := range many {
		topics = append(topics, from.topic(fmt.Sprint(n)))
		messages = append(messages, from.message(fmt.Sprint(n), fmt.Sprint(n)))
	}
	ctx := within(t, s.Patience)
	noError(t, sub.Add(ctx, topics[:many-100]...), "add")
	for _, topic := range topics[many-100:] {
		noError(t, sub.Add(ctx, topic), "add")
	}
	publish(t, m, messages...)
	seen := map[string]bool{}
	for _, got := range receive(t, s.Patience, sub, many) {
		seen[got.Topic] = true
	}
	if len(seen) != many {
		t.Errorf("%d of %d topics received their message", len(seen), many)
	}
	noError(t, sub.Remove(ctx, topics[100:]...), "remove")
	for _, topic := range topics[1:100] {
		noError(t, sub.Remove(ctx, topic), "remove")
	}
	publish(t, m, messages[1:]...)
	s.settle(t, m, from, sub, "0")
}

// manySubscriptions has 500 subscriptions of one topic each, and of one topic that all of them share.
func (s *messagingSuite) manySubscriptions(t *testing.T) {
	m, from := s.open(t), newSender()
	const many = 500
	var subs []mr.Subscription
	batch := []mr.Message{from.message("everybody", "all")}
	for n := range many {
		subs = append(subs, s.subscribe(t, m, from.topics(fmt.Sprint(n), "everybody")...))
		batch = append(batch, from.message(fmt.Sprint(n), fmt.Sprint(n)))
	}
	publish(t, m, batch...)
	for n, sub := range subs {
		payloads := map[string]bool{}
		for _, got := range receive(t, s.Patience, sub, 2) {
			payloads[string(got.Payload)] = true
		}
		if !payloads["all"] || !payloads[fmt.Sprint(n)] {
			t.Errorf("subscription %d received %v", n, payloads)
		}
	}
}

// addContention adds and removes topics from many goroutines while others publish and Next runs: whatever the last call
// for a topic was holds afterwards.
func (s *messagingSuite) addContention(t *testing.T) {
	m, from := s.open(t), newSender()
	sub := s.subscribe(t, m, from.topic("end"))
	reading := make(chan error, 1)
	go func() {
		for {
			batch, err := sub.Next(t.Context())
			if err != nil {
				reading <- err
				return
			}
			for _, got := range batch.Messages {
				if got.Identity == "end" {
					close(reading)
					return
				}
			}
		}
	}()
	ctx := within(t, s.Patience)
	var working sync.WaitGroup
	for g := range 8 {
		mine := newSender()
		mine.namespace = from.namespace
		working.Go(func() {
			for n := range 50 {
				topic := mine.topic(fmt.Sprint(g*10 + n%10))
				err := errors.Join(m.Publish(ctx, []mr.Message{mine.message(fmt.Sprint(rand.IntN(80)), "x")})...)
				if n%2 == 0 {
					err = errors.Join(err, sub.Add(ctx, topic, mine.topic("shared")))
				} else {
					err = errors.Join(err, sub.Remove(ctx, topic, mine.topic("shared")))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	working.Wait()
	noError(t, sub.Remove(ctx, from.topic("shared")), "remove")
	publish(t, m, from.message("end", ""))
	select {
	case err := <-reading:
		noError(t, err, "next")
	case <-ctx.Done():
		t.Fatal("the last message does not arrive")
	}
	// Of the topics of each goroutine those with an even last number were added last.
	var removed []mr.Message
	for topic := range 80 {
		if topic%2 == 0 {
			s.settle(t, m, from, sub, fmt.Sprint(topic))
		} else {
			removed = append(removed, from.message(fmt.Sprint(topic), "removed"))
		}
	}
	publish(t, m, append(removed, from.message("shared", "removed"))...)
	s.settle(t, m, from, sub, "end")
}

// nextCancelled ends the contexts of Next before, between and while messages come: none gets lost.
func (s *messagingSuite) nextCancelled(t *testing.T) {
	m, from := s.open(t), newSender()
	sub := s.subscribe(t, m, from.topic("a"))
	cancelledNext(t, sub)
	publish(t, m, from.message("a", "waiting"))
	cancelledNext(t, sub)
	receive(t, s.Patience, sub, 1)
	readCancelling(t, s.Patience, sub, func(n int) error {
		return errors.Join(m.Publish(t.Context(), []mr.Message{from.message("a", fmt.Sprint(n))})...)
	})
}

// cancelledNext checks what Next does with a context that has ended.
func cancelledNext(t *testing.T, sub mr.Subscription) {
	t.Helper()
	if _, err := sub.Next(cancelled(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("next, cancelled: %v", err)
	}
	if _, err := sub.Next(past(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("next, past its deadline: %v", err)
	}
}

// readCancelling lets the arrival of a message and the end of the context that Next waits with race, 200 times. Either
// Next returns the message, or the following Next does.
func readCancelling(t *testing.T, patience time.Duration, sub mr.Subscription, send func(n int) error) {
	t.Helper()
	for n := range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		var racing sync.WaitGroup
		racing.Go(func() {
			<-time.After(time.Duration(rand.Int64N(int64(100 * time.Microsecond)))) // so that Next waits, as a rule
			if n%2 == 0 {
				cancel()
			}
			if err := send(n); err != nil {
				t.Error(err)
			}
			cancel()
		})
		batch, err := nextMessages(ctx, sub)
		racing.Wait()
		if err != nil {
			if !errors.Is(err, context.Canceled) || len(batch.Messages) > 0 {
				t.Fatalf("next: %d messages, %v", len(batch.Messages), err)
			}
			batch, err = nextMessages(within(t, patience), sub)
		}
		if err != nil || len(batch.Messages) != 1 || string(batch.Messages[0].Payload) != fmt.Sprint(n) {
			t.Fatalf("message %d: got %d messages, %v", n, len(batch.Messages), err)
		}
	}
}

// contextCoversCall ends the contexts that subscriptions and inboxes were opened with, which must go on working.
func (s *messagingSuite) contextCoversCall(t *testing.T) {
	m, from := s.open(t), newSender()
	ctx, cancel := context.WithCancel(t.Context())
	sub, err := m.Subscribe(ctx, from.topic("a"))
	noError(t, err, "subscribe")
	closing(t, sub)
	inbox, err := m.Inbox(ctx)
	noError(t, err, "inbox")
	closing(t, inbox)
	noError(t, sub.Add(ctx, from.topic("b")), "add")
	cancel()
	for _, id := range []string{"a", "b"} {
		message := from.message(id, "x")
		message.AckTo = inbox.Address(id)
		publish(t, m, message)
		sendAcks(t, m, ack(receive(t, s.Patience, sub, 1)[0]))
		if err := receiptsOf(t, s.Patience, inbox, id)[id]; err != nil {
			t.Error(err)
		}
	}
}

// cancelled makes every call with a context that has ended. What such a Publish says about a message must be true: no error
// means that it arrives.
func (s *messagingSuite) cancelled(t *testing.T) {
	m, from := s.open(t), newSender()
	sub := s.subscribe(t, m, from.topics("a", "b")...)
	for _, ctx := range []context.Context{cancelled(t), past(t)} {
		if _, err := m.Subscribe(ctx, from.topic("a")); !isContextError(err) {
			t.Errorf("subscribe: %v", err)
		}
		if _, err := m.Inbox(ctx); !isContextError(err) {
			t.Errorf("inbox: %v", err)
		}
		if err := sub.Add(ctx, from.topic("c")); !isContextError(err) {
			t.Errorf("add: %v", err)
		}
		for _, err := range results(t, 1, m.Ack(ctx, []mr.Ack{{To: "gone", Identity: "a", ID: "x"}})) {
			if err != nil && !isContextError(err) {
				t.Errorf("ack: %v", err)
			}
		}
		batch := []mr.Message{from.message("a", "1"), from.message("b", "2")}
		accepted := map[string]bool{}
		for i, err := range results(t, 2, m.Publish(ctx, batch)) {
			if err == nil {
				accepted[batch[i].ID] = true
			} else if !isContextError(err) {
				t.Errorf("publish: %v", err)
			}
		}
		fence := from.message("a", "fence")
		publish(t, m, fence)
		for fenced := false; !fenced; {
			next, err := sub.Next(within(t, s.Patience))
			noError(t, err, "next")
			for _, got := range next.Messages {
				fenced = fenced || got.ID == fence.ID
				delete(accepted, got.ID)
			}
		}
		if len(accepted) > 0 {
			t.Errorf("%d messages were accepted and do not arrive", len(accepted))
		}
	}
	for range 100 { // during
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(100*time.Microsecond))))
		for _, err := range results(t, 1, m.Publish(ctx, []mr.Message{from.message("nobody", "")})) {
			if err != nil && !isContextError(err) {
				t.Errorf("publish: %v", err)
			}
		}
		cancel()
	}
}

func (s *messagingSuite) close(t *testing.T) {
	m, from := s.open(t), newSender()
	inbox := s.inbox(t, m)
	sub := s.subscribe(t, m, from.topics("a", "b")...)
	stays := s.subscribe(t, m, from.topic("b"))
	closeSubscription(t, s.Patience, sub, from.topic("c"))
	message := from.message("a", "nobody is left")
	message.AckTo = inbox.Address("x")
	s.wantNoSubscriber(t, m, inbox, []mr.Message{message}, []string{"x"})
	s.settle(t, m, from, stays, "b")
	s.settle(t, m, from, s.subscribe(t, m, from.topic("a")), "a")

	unread := s.subscribe(t, m, from.topic("c"))
	publish(t, m, from.message("c", "never read"))
	noError(t, unread.Close(), "close with a message waiting")
	eventually(t, s.Patience, "a closed subscription ends", func() bool {
		_, err := unread.Next(t.Context())
		return errors.Is(err, io.EOF)
	})
}

// closeSubscription closes a subscription while Next waits, and checks what it does afterwards.
func closeSubscription(t *testing.T, patience time.Duration, sub mr.Subscription, topic string) {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := sub.Next(t.Context()); err != nil {
				ended <- err
				return
			}
		}
	}()
	var closers sync.WaitGroup
	for range 4 {
		closers.Go(func() {
			if err := sub.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	closers.Wait()
	select {
	case err := <-ended:
		if !errors.Is(err, io.EOF) {
			t.Errorf("next, while the subscription is closed: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("next waits on a closed subscription")
	}
	for range 2 {
		if _, err := sub.Next(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("next on a closed subscription: %v", err)
		}
	}
	if err := sub.Add(t.Context(), topic); err == nil {
		t.Error("a closed subscription takes a topic")
	}
	if err := sub.Remove(t.Context(), topic); err != nil && !errors.Is(err, io.EOF) {
		t.Errorf("remove on a closed subscription: %v", err)
	}
	if err := sub.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
}

// closeRace closes subscriptions while messages for them are published and read.
func (s *messagingSuite) closeRace(t *testing.T) {
	m, from := s.open(t), newSender()
	stays := s.subscribe(t, m, from.topic("stays"))
	for range 30 {
		sub := s.subscribe(t, m, from.topics("a", "b")...)
		var working sync.WaitGroup
		batch := []mr.Message{from.message("a", ""), from.message("b", ""), from.message("a", "")}
		working.Go(func() {
			for range 10 {
				if err := errors.Join(m.Publish(t.Context(), batch)...); err != nil {
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
		working.Go(func() { _ = sub.Add(t.Context(), from.topic("c")) })
		working.Go(func() {
			if err := sub.Close(); err != nil {
				t.Error(err)
			}
		})
		working.Wait()
	}
	s.settle(t, m, from, stays, "stays")
}
