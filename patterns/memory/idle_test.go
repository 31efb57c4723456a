package memory

import (
	"crypto/rand"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// TestIdleTakesNothing checks that topics, subscriptions, inboxes and identities leave nothing behind.
func TestIdleTakesNothing(t *testing.T) {
	t.Parallel()
	const many = 500
	m, d, r := NewMessaging(MessagingConfig{}), NewDurability(DurabilityConfig{}), NewRegistry(RegistryConfig{})
	for n := range many {
		id := fmt.Sprint(n)
		topics := []string{id, "shared", "held"}
		live, err := m.Subscribe(t.Context(), topics...)
		check(t, err)
		in, err := m.Inbox(t.Context())
		check(t, err)
		stored, err := d.Consume(t.Context(), topics...)
		check(t, err)
		message := mr.Message{Topic: id, Identity: id, ID: "x"}
		check(t, m.Publish(t.Context(), []mr.Message{message})[0])
		check(t, d.Enqueue(t.Context(), []mr.Message{message})[0])
		batch, err := stored.Next(t.Context())
		check(t, err)
		if n%2 == 0 {
			check(t, d.Ack(t.Context(), []mr.Ack{{To: batch.Messages[0].AckTo}})[0])
		}
		check(t, stored.Remove(t.Context(), "held"))
		check(t, live.Close())
		check(t, in.Close())
		check(t, stored.Close())
		if n%2 != 0 {
			_, err := d.Purge(t.Context(), id)
			check(t, err)
		}
		_, err = r.Put(t.Context(), mr.Identity{ID: id, TTL: 1}, mr.Create)
		check(t, err)
	}
	n, err := r.Count(t.Context())
	check(t, err)
	kept := r.index.Len(time.Unix(0, 0))
	if left := len(m.topics) + len(m.inboxes) + len(d.queues) + len(d.all) + kept + n; left != 0 {
		t.Errorf("left behind: %d topics, %d inboxes, %d queues, %d in the sweep, %d identities",
			len(m.topics), len(m.inboxes), len(d.queues), len(d.all), kept)
	}
}

// TestUnackedMessageHoldsNothingElse checks that a queue does not grow behind a message that is never acked.
func TestUnackedMessageHoldsNothingElse(t *testing.T) {
	t.Parallel()
	d := NewDurability(DurabilityConfig{})
	sub, err := d.Consume(t.Context(), "a")
	check(t, err)
	for n := range 10_000 {
		check(t, d.Enqueue(t.Context(), []mr.Message{{Topic: "a", ID: fmt.Sprint(n)}})[0])
		batch, err := sub.Next(t.Context())
		check(t, err)
		if n == 0 || n == 5000 {
			continue
		}
		check(t, d.Ack(t.Context(), []mr.Ack{{To: batch.Messages[0].AckTo}})[0])
		if length := len(d.queues["a"].stored); length > 3*compactFrom {
			t.Fatalf("after %d messages the queue of 2 is %d long", n, length)
		}
	}
	if n, err := d.Purge(t.Context(), "a"); n != 2 || err != nil {
		t.Errorf("%d stored, %v", n, err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestDroppedCount checks that a topic whose messages all became too old is kept for its count, and for how long.
func TestDroppedCount(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const age = time.Hour
		d := NewDurability(DurabilityConfig{MaxAge: age})
		store := func(topic string) {
			t.Helper()
			check(t, d.Enqueue(t.Context(), []mr.Message{{Topic: topic, Identity: topic, ID: rand.Text()}})[0])
		}
		dropped := func(topic string) uint64 {
			t.Helper()
			sub, err := d.Consume(t.Context(), topic)
			check(t, err)
			batch, err := sub.Next(t.Context())
			check(t, err)
			check(t, sub.Close())
			if len(batch.CaughtUp) != 1 || len(batch.Messages) > 0 {
				t.Errorf("%s: %d messages, caught up %v", topic, len(batch.Messages), batch.CaughtUp)
			}
			return batch.Dropped
		}
		for range 3 {
			store("asked soon")
			store("asked late")
		}
		<-time.After(age + 1)
		for range 5 { // sweeps
			store("other")
		}
		if n := len(d.queues["asked soon"].stored); n > 0 {
			t.Errorf("%d messages are not swept", n)
		}
		<-time.After(age)
		if n := dropped("asked soon"); n != 3 {
			t.Errorf("%d are counted, want 3", n)
		}
		<-time.After(1)
		for range 5 {
			store("another")
		}
		if n := dropped("asked soon") + dropped("asked late"); n != 0 || d.queues["asked late"] != nil {
			t.Errorf("%d are counted, want none any more", n)
		}
	})
}
