package memory

import (
	"fmt"
	"testing"

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
	if left := len(m.topics) + len(m.inboxes) + len(d.queues) + len(d.all) + len(r.entries) + len(r.list) + len(r.leases) + n; left != 0 {
		t.Errorf("left behind: %d topics, %d inboxes, %d queues, %d in the sweep, %d identities",
			len(m.topics), len(m.inboxes), len(d.queues), len(d.all), len(r.entries))
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
