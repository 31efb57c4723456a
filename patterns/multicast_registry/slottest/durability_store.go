package slottest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func (s *durabilitySuite) storedThenConsumed(t *testing.T) {
	d, from := s.open(t), newSender()
	sent := from.numbered("a", 50)
	sent[1].ID = "an id with spaces, ünïcode and /.*>"
	sent[2].ContentType = `application/x-odd; name="a b"`
	sent[3].SentAt = time.UnixMilli(1_234_567_890_123)
	sent[4] = mr.Message{Topic: from.topic("a"), Identity: "a", ID: "bare", SentAt: time.UnixMilli(1)}
	enqueue(t, d, sent[:20]...)
	for i := 20; i < len(sent); i++ {
		enqueue(t, d, sent[i])
	}
	if got := d.Enqueue(t.Context(), nil); len(got) != 0 {
		t.Errorf("an empty batch has %d results", len(got))
	}
	sub := s.consume(t, d, from.topic("a"))
	got := receive(t, s.Patience, sub, len(sent))
	wantStored(t, got, sent)
	addresses := map[string]bool{}
	for _, message := range got {
		addresses[message.AckTo] = true
	}
	if len(addresses) != len(sent) {
		t.Errorf("%d messages have %d ack addresses", len(sent), len(addresses))
	}
}

// live has consumers attached first, several topics, and publishers at work at the same time.
func (s *durabilitySuite) live(t *testing.T) {
	d, from := s.open(t), newSender()
	const topics, each = 8, 40
	var all []string
	for n := range topics {
		all = append(all, from.topic(fmt.Sprint(n)))
	}
	sub := s.consume(t, d, all...)
	var working sync.WaitGroup
	defer working.Wait()
	for n := range topics {
		mine := newSender()
		mine.namespace = from.namespace
		batch := mine.numbered(fmt.Sprint(n), each)
		for i := range batch { // ids of several senders of one namespace would collide
			batch[i].ID = fmt.Sprintf("%d-%d", n, i)
		}
		working.Go(func() {
			for len(batch) > 0 {
				size := min(1+rand.IntN(7), len(batch))
				if err := errors.Join(d.Enqueue(t.Context(), batch[:size])...); err != nil {
					t.Error(err)
				}
				batch = batch[size:]
			}
		})
	}
	next := map[string]int{}
	for total(next) < topics*each {
		got := receiveSome(t, s.Patience, sub, 1)
		for _, message := range got {
			if string(message.Payload) != fmt.Sprint(next[message.Identity]) {
				t.Fatalf("message %s of %s comes when %d is due", message.Payload, message.Identity, next[message.Identity])
			}
			next[message.Identity]++
		}
		sendAcks(t, d, acksOf(got)...)
	}
	working.Wait()
	for n := range topics {
		s.settle(t, d, from, sub, fmt.Sprint(n))
	}
}

func total(counts map[string]int) int {
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return sum
}

// receiveSome reads at least n messages.
func receiveSome(t *testing.T, patience time.Duration, sub mr.Subscription, n int) []mr.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var got []mr.Message
	for len(got) < n {
		batch, err := sub.Next(ctx)
		if err != nil {
			t.Fatalf("after %d messages: %v", len(got), err)
		}
		got = append(got, batch.Messages...)
	}
	return got
}

func (s *durabilitySuite) payloads(t *testing.T) {
	d, from := s.open(t), newSender()
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	large := bytes.Repeat(every, 1<<12)[:1<<20]
	if s.MaxPayload > 0 && s.MaxPayload < len(large) {
		large = large[:s.MaxPayload]
	}
	var sent []mr.Message
	for _, payload := range [][]byte{nil, {}, {0}, []byte("\r\n"), every, large} {
		message := from.message("a", "")
		message.Payload = payload
		sent = append(sent, message)
	}
	enqueue(t, d, sent...)
	wantStored(t, receive(t, s.Patience, s.consume(t, d, from.topic("a")), len(sent)), sent)
}

func (s *durabilitySuite) batchReuse(t *testing.T) {
	d, from := s.open(t), newSender()
	batch := from.numbered("a", 10)
	sent := append([]mr.Message(nil), batch...)
	enqueue(t, d, batch...)
	for i := range batch {
		batch[i] = mr.Message{Topic: "x", Identity: "x", ID: "x", Payload: []byte("x")}
	}
	sub := s.consume(t, d, from.topic("a"))
	got := receive(t, s.Patience, sub, len(sent))
	wantStored(t, got, sent)
	for i := range got {
		got[i] = mr.Message{}
	}
	noError(t, sub.Close(), "close")
	wantStored(t, receive(t, s.Patience, s.consume(t, d, from.topic("a")), len(sent)), sent)
}

// hostileIdentities stores something for each identity: each consumer gets its own and nobody else's, an ack or a purge
// of one takes nothing from another.
func (s *durabilitySuite) hostileIdentities(t *testing.T) {
	d, from, elsewhere := s.open(t), newSender(), newSender()
	ids := HostileIdentities()
	var sent []mr.Message
	for _, id := range ids {
		message := from.message(id, id)
		message.ID = "the same for all"
		sent = append(sent, message)
	}
	enqueue(t, d, sent...)
	for i, id := range ids {
		sub := s.consume(t, d, from.topic(id))
		got := receive(t, s.Patience, sub, 1)
		wantStored(t, got, sent[i:i+1])
		switch i % 3 {
		case 0:
			sendAcks(t, d, acksOf(got)...)
		case 1:
			if n, err := d.Purge(t.Context(), from.topic(id)); n != 1 || err != nil {
				t.Errorf("purge of %q: %d, %v", id, n, err)
			}
		}
		if i%3 < 2 {
			s.settle(t, d, from, sub, id)
		}
		noError(t, sub.Close(), "close")
	}
	foreign := s.consume(t, d, elsewhere.topics(ids...)...)
	s.settle(t, d, elsewhere, foreign, ids[0])
	for i, id := range ids {
		if i%3 == 2 {
			wantStored(t, receive(t, s.Patience, s.consume(t, d, from.topic(id)), 1), sent[i:i+1])
		}
	}
}

func (s *durabilitySuite) manyTopics(t *testing.T) {
	d, from := s.open(t), newSender()
	const many = 1000
	var topics []string
	var sent []mr.Message
	for n := range many {
		topics = append(topics, from.topic(fmt.Sprint(n)))
		sent = append(sent, from.message(fmt.Sprint(n), "stored"))
	}
	enqueue(t, d, sent...)
	sub := s.consume(t, d, topics...)
	for round := range 2 {
		seen := map[string]bool{}
		got := receive(t, s.Patience, sub, many)
		for _, message := range got {
			seen[message.Topic] = true
		}
		if len(seen) != many {
			t.Errorf("round %d: %d of %d topics yield their message", round, len(seen), many)
		}
		sendAcks(t, d, acksOf(got)...)
		if round == 0 {
			for i := range sent {
				sent[i] = from.message(fmt.Sprint(i), "live")
			}
			enqueue(t, d, sent...)
		}
	}
	s.settle(t, d, from, sub, "0")
}

// duplicates stores messages again: before they are consumed, while they are held, and after their holder has gone.
func (s *durabilitySuite) duplicates(t *testing.T) {
	d, from := s.open(t), newSender()
	sent := from.numbered("a", 3)
	other := sent[0]
	other.Identity, other.Topic = "b", from.topic("b")
	again := func() {
		t.Helper()
		enqueue(t, d, sent[2], sent[0], sent[1], sent[0])
	}
	enqueue(t, d, sent[0], sent[1], sent[0])
	enqueue(t, d, sent[2], other)
	again()
	sub := s.consume(t, d, from.topic("a"))
	wantStored(t, receive(t, s.Patience, sub, 3), sent)
	again()
	s.settle(t, d, from, sub, "a")
	noError(t, sub.Close(), "close")
	again()
	wantStored(t, receive(t, s.Patience, s.consume(t, d, from.topic("a")), 3), sent)
	wantStored(t, receive(t, s.Patience, s.consume(t, d, from.topic("b")), 1), []mr.Message{other})
}

func (s *durabilitySuite) duplicateContention(t *testing.T) {
	d, from := s.open(t), newSender()
	sent := from.numbered("a", 10)
	var working sync.WaitGroup
	for range 8 {
		working.Go(func() {
			for _, i := range rand.Perm(len(sent)) {
				if err := errors.Join(d.Enqueue(t.Context(), sent[i:i+1])...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	working.Wait()
	sub := s.consume(t, d, from.topic("a"))
	got := receive(t, s.Patience, sub, len(sent))
	ids := map[string]bool{}
	for _, message := range got {
		ids[message.ID] = true
	}
	if len(ids) != len(sent) {
		t.Errorf("%d messages of %d are stored", len(ids), len(sent))
	}
	sendAcks(t, d, acksOf(got)...)
	s.settle(t, d, from, sub, "a")
}

// queueBound fills a queue: it refuses what is too much, message by message, keeps what it has, and takes more when there
// is room.
func (s *durabilitySuite) queueBound(t *testing.T) {
	if s.QueueBound == 0 {
		t.Skip("DurabilityOptions.QueueBound is not set")
	}
	d, from := s.open(t), newSender()
	const over = 20
	sent := from.numbered("a", s.QueueBound+over)
	neighbour := from.message("b", "has a queue of its own")
	enqueue(t, d, sent[:s.QueueBound-5]...)
	batch := append(append([]mr.Message{}, sent[s.QueueBound-5:]...), neighbour, sent[0])
	for i, err := range results(t, len(batch), d.Enqueue(t.Context(), batch)) {
		switch full := i >= 5 && i < 5+over; {
		case full && !errors.Is(err, mr.ErrQueueFull):
			t.Errorf("message %d beyond the bound: %v", i, err)
		case !full && err != nil:
			t.Errorf("message %d, which fits or is stored already: %v", i, err)
		}
	}
	wantStored(t, receive(t, s.Patience, s.consume(t, d, from.topic("b")), 1), []mr.Message{neighbour})
	sub := s.consume(t, d, from.topic("a"))
	got := receive(t, s.Patience, sub, s.QueueBound)
	wantStored(t, got, sent[:s.QueueBound])
	if err := d.Enqueue(t.Context(), sent[s.QueueBound:s.QueueBound+1])[0]; !errors.Is(err, mr.ErrQueueFull) {
		t.Errorf("a queue whose messages are all held takes another: %v", err)
	}
	sendAcks(t, d, acksOf(got[:over])...)
	enqueue(t, d, sent[s.QueueBound:]...)
	wantStored(t, receive(t, s.Patience, sub, over), sent[s.QueueBound:])
	if err := d.Enqueue(t.Context(), []mr.Message{from.message("a", "")})[0]; !errors.Is(err, mr.ErrQueueFull) {
		t.Errorf("the queue has grown: %v", err)
	}
	if n, err := d.Purge(t.Context(), from.topic("a")); n != s.QueueBound || err != nil {
		t.Errorf("purge: %d, %v; want %d", n, err, s.QueueBound)
	}
	enqueue(t, d, from.numbered("a", s.QueueBound)...)
}
