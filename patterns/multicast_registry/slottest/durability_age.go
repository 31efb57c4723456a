package slottest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// age is how long messages are stored in the tests of that: long enough for a few calls on a slow machine.
const age = 2 * time.Second

// maxBytes fills a queue by bytes.
func (s *durabilitySuite) maxBytes(t *testing.T) {
	if s.MaxBytes == 0 {
		t.Skip("DurabilityOptions.MaxBytes is not set")
	}
	d, from := s.open(t), newSender()
	const parts = 8
	var stored []mr.Message
	var refused error
	for n := 0; n < 2*parts+1 && refused == nil; n++ {
		message := from.message("a", "")
		message.Payload = make([]byte, s.MaxBytes/parts)
		message.Payload[0] = byte(n)
		if refused = d.Enqueue(t.Context(), []mr.Message{message})[0]; refused == nil {
			stored = append(stored, message)
		}
	}
	if !errors.Is(refused, mr.ErrQueueFull) || len(stored) < parts/2 {
		t.Fatalf("%d messages of an eighth of the bytes fit, then: %v", len(stored), refused)
	}
	neighbour := from.message("b", "has a queue of its own")
	enqueue(t, d, neighbour)
	sub := s.consume(t, d, from.topic("a"))
	got := receive(t, s.Patience, sub, len(stored))
	wantStored(t, got, stored)
	next := from.message("a", "")
	next.Payload = make([]byte, s.MaxBytes/parts)
	if err := d.Enqueue(t.Context(), []mr.Message{next})[0]; !errors.Is(err, mr.ErrQueueFull) {
		t.Errorf("a queue whose bytes are all held takes another message: %v", err)
	}
	sendAcks(t, d, acksOf(got[:2])...)
	enqueue(t, d, next)
	wantStored(t, receive(t, s.Patience, sub, 1), []mr.Message{next})
	if n, err := d.Purge(t.Context(), from.topic("a")); n != len(stored)-1 || err != nil {
		t.Errorf("purge: %d, %v", n, err)
	}
	enqueue(t, d, stored[:parts/2]...)
}

// aged is the slot with messages that are too old.
type aged struct {
	d     mr.Durability
	from  *sender
	first time.Time // before any was stored
}

func (s *durabilitySuite) openAged(t *testing.T) *aged {
	t.Helper()
	if s.OpenAged == nil {
		t.Skip("DurabilityOptions.OpenAged is not set")
	}
	return &aged{d: s.OpenAged(t, age), from: newSender(), first: time.Now()}
}

// fresh tells whether nothing can be too old yet.
func (a *aged) fresh() bool { return time.Since(a.first) < age-age/20 }

// counted tells whether the slot must still know how many became too old, by now.
func (a *aged) counted() bool { return time.Since(a.first) < 2*age }

// wantAged fails the test unless a new consumer of an identity gets the fresh messages only, and learns how many were dropped.
func (s *durabilitySuite) wantAged(t *testing.T, a *aged, identity string, fresh []mr.Message, dropped int) {
	t.Helper()
	topic := a.from.topic(identity)
	f := s.follow(t, s.consume(t, a.d, topic))
	f.caughtUp(1, topic)
	inTime := a.counted()
	if inTime {
		f.until(fmt.Sprintf("%d are counted for %q", dropped, identity), func() bool { return f.dropped >= uint64(dropped) })
	}
	wantStored(t, f.got[topic], fresh)
	if f.dropped > uint64(dropped) || inTime && f.dropped < uint64(dropped) {
		t.Errorf("%q: %d messages count as dropped, want %d", identity, f.dropped, dropped)
	}
	sendAcks(t, a.d, acksOf(f.got[topic])...)
	noError(t, f.sub.Close(), "close")
	again := s.follow(t, s.consume(t, a.d, topic))
	again.caughtUp(1, topic)
	if again.dropped != 0 {
		t.Errorf("%q: %d are counted a second time", identity, again.dropped)
	}
	noError(t, again.sub.Close(), "close")
}

// age lets messages become too old that nobody consumed, and others that were yielded and given back.
func (s *durabilitySuite) age(t *testing.T) {
	a := s.openAged(t)
	d, from := a.d, a.from
	old := from.numbered("mixed", 3)
	enqueue(t, d, old...)
	enqueue(t, d, from.numbered("all old", 2)...)
	enqueue(t, d, from.numbered("given back", 4)...)
	acked := from.numbered("acked", 2)
	enqueue(t, d, acked...)
	sub := s.consume(t, d, from.topics("given back", "acked")...)
	for _, got := range receive(t, s.Patience, sub, 6) {
		if got.Identity == "acked" {
			sendAcks(t, d, ack(got))
		}
	}
	noError(t, sub.Close(), "close")
	stored := time.Now()
	recaller, recalls := d.(mr.Recaller)
	if recalls {
		all, err := recaller.Stored(t.Context(), old)
		noError(t, err, "stored")
		if time.Since(a.first) < age-age/20 && (!all[0] || !all[1] || !all[2]) {
			t.Errorf("before their age: stored %v", all)
		}
	}
	waitUntil(stored.Add(age / 2))
	fresh := from.numbered("mixed", 2)
	enqueue(t, d, fresh...)
	waitUntil(stored.Add(age + age/10))
	if recalls {
		all, err := recaller.Stored(t.Context(), append(old[:3:3], fresh...))
		noError(t, err, "stored")
		if all[0] || all[1] || all[2] || time.Since(stored) < age+age/3 && (!all[3] || !all[4]) {
			t.Errorf("after the age of the first three: stored %v", all)
		}
		withdrawn, err := recaller.Withdraw(t.Context(), old[:1])
		noError(t, err, "withdraw")
		if withdrawn[0] {
			t.Error("what is too old can be withdrawn")
		}
	}
	s.wantAged(t, a, "mixed", fresh, 3)
	s.wantAged(t, a, "all old", nil, 2)
	s.wantAged(t, a, "given back", nil, 4)
	s.wantAged(t, a, "acked", nil, 0)
	s.wantAged(t, a, "never", nil, 0)
}

// ageMakesRoom fills a queue, and again when what it holds is too old.
func (s *durabilitySuite) ageMakesRoom(t *testing.T) {
	if s.QueueBound == 0 {
		t.Skip("DurabilityOptions.QueueBound is not set")
	}
	a := s.openAged(t)
	d, from := a.d, a.from
	enqueue(t, d, from.numbered("a", s.QueueBound)...)
	purged := from.numbered("b", 3)
	enqueue(t, d, purged...)
	full := time.Now()
	if err := d.Enqueue(t.Context(), []mr.Message{from.message("a", "")})[0]; !errors.Is(err, mr.ErrQueueFull) {
		if time.Since(a.first) < age-age/20 {
			t.Errorf("one more: %v", err)
		}
	}
	waitUntil(full.Add(age + age/10))
	if n, err := d.Purge(t.Context(), from.topic("b")); n != 0 || err != nil {
		t.Errorf("purge of what is too old: %d, %v", n, err)
	}
	enqueue(t, d, purged[0]) // stored again, as it is stored no more
	fresh := from.numbered("a", s.QueueBound)
	enqueue(t, d, fresh...)
	again := time.Now()
	if err := d.Enqueue(t.Context(), []mr.Message{from.message("a", "")})[0]; !errors.Is(err, mr.ErrQueueFull) {
		if time.Since(again) < age/2 {
			t.Errorf("one more: %v", err)
		}
	}
	s.wantAged(t, a, "a", fresh, s.QueueBound)
	f := s.follow(t, s.consume(t, d, from.topic("b")))
	f.caughtUp(1, from.topic("b"))
	wantStored(t, f.got[from.topic("b")], purged[:1])
}
