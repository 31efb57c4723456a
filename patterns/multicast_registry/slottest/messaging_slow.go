package slottest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// slowSubscriber has one subscription that does not read and one that does. The slow one loses messages, counted; the
// other one none. Once both are full the publisher may be told; it never waits.
func (s *messagingSuite) slowSubscriber(t *testing.T) {
	if s.Buffer == 0 {
		t.Skip("MessagingOptions.Buffer is not set")
	}
	m, from := s.open(t), newSender()
	slow, fast := s.subscribe(t, m, from.topic("a")), s.subscribe(t, m, from.topic("a"))
	const rounds = 4
	size := max(s.Buffer/2, 1)
	for range 2 * rounds {
		batch := make([]mr.Message, size)
		for i := range batch {
			batch[i] = from.message("a", fmt.Sprint(from.sent))
		}
		publish(t, m, batch...)
		for i, got := range receive(t, s.Patience, fast, size) {
			wantMessage(t, got, batch[i])
		}
	}
	total := 2 * rounds * size
	got, dropped := readCounting(t, s.Patience, slow, total)
	if got == 0 || dropped == 0 {
		t.Errorf("the slow subscription received %d of %d messages, %d were dropped", got, total, dropped)
	}
	s.settle(t, m, from, slow, "a")

	alone := s.subscribe(t, m, from.topic("b"))
	lost, kept := 0, 0
	for range 3 * size {
		err := m.Publish(t.Context(), []mr.Message{from.message("b", fmt.Sprint(from.sent))})[0]
		switch {
		case err == nil:
			kept++
		case errors.Is(err, mr.ErrQueueFull):
			lost++
		default:
			t.Fatal(err)
		}
	}
	got, dropped = readCounting(t, s.Patience, alone, kept+lost)
	if dropped < lost || got > kept {
		t.Errorf("the publisher was told that %d were lost; %d were received, %d dropped", lost, got, dropped)
	}
}

// readCounting reads until messages and losses add up to a total, and checks that the messages, numbered by their
// payloads, are in order.
func readCounting(t *testing.T, patience time.Duration, sub mr.Subscription, total int) (got, dropped int) {
	t.Helper()
	last := -1
	ctx := within(t, patience)
	for got+dropped < total {
		batch, err := sub.Next(ctx)
		if err != nil {
			t.Fatalf("%d received and %d dropped of %d: %v", got, dropped, total, err)
		}
		dropped += int(batch.Dropped)
		got += len(batch.Messages)
		for _, message := range batch.Messages {
			var n int
			if _, err := fmt.Sscan(string(message.Payload), &n); err != nil || n <= last {
				t.Fatalf("message %q after %d", message.Payload, last)
			}
			last = n
		}
	}
	if got+dropped != total {
		t.Fatalf("%d received and %d dropped of %d", got, dropped, total)
	}
	return got, dropped
}

// slowTopic floods one topic of a subscription: the others lose nothing.
func (s *messagingSuite) slowTopic(t *testing.T) {
	if s.Buffer == 0 {
		t.Skip("MessagingOptions.Buffer is not set")
	}
	m, from := s.open(t), newSender()
	sub := s.subscribe(t, m, from.topics("flooded", "calm")...)
	total := 3 * s.Buffer
	for range total {
		if err := m.Publish(t.Context(), []mr.Message{from.message("flooded", "x")})[0]; err != nil && !errors.Is(err, mr.ErrQueueFull) {
			t.Fatal(err)
		}
	}
	publish(t, m, from.message("calm", "0"), from.message("calm", "1"))
	ctx := within(t, s.Patience)
	calm, flooded, dropped := 0, 0, 0
	for calm < 2 || flooded+dropped < total {
		batch, err := sub.Next(ctx)
		if err != nil {
			t.Fatalf("%d calm, %d flooded, %d dropped: %v", calm, flooded, dropped, err)
		}
		dropped += int(batch.Dropped)
		for _, message := range batch.Messages {
			if message.Identity == "flooded" {
				flooded++
			} else {
				calm++
			}
		}
	}
	if dropped == 0 || flooded == 0 || flooded+dropped != total {
		t.Errorf("of %d messages %d were received and %d dropped", total, flooded, dropped)
	}
}
