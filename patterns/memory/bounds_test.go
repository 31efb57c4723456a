package memory_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"testing"

	"github.com/prism-data-layer/prism/patterns/memory"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func TestConfigs(t *testing.T) {
	t.Parallel()
	for field, err := range map[string]error{
		"max_identities": memory.RegistryConfig{MaxIdentities: -1}.Validate(),
		"buffer":         memory.MessagingConfig{Buffer: -1}.Validate(),
		"max_messages":   memory.DurabilityConfig{MaxMessages: -1}.Validate(),
		"max_bytes":      memory.DurabilityConfig{MaxBytes: -1}.Validate(),
		"max_age":        memory.DurabilityConfig{MaxAge: -1}.Validate(),
		"retention":      memory.DurabilityConfig{Retention: -1}.Validate(),
		"max_multicasts": memory.DurabilityConfig{MaxMulticasts: -1}.Validate(),
	} {
		if invalid := (*mr.InvalidError)(nil); !errors.As(err, &invalid) || invalid.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if err := errors.Join(
		memory.RegistryConfig{}.Validate(), memory.MessagingConfig{}.Validate(), memory.DurabilityConfig{}.Validate(),
		memory.RegistryConfig{MaxIdentities: 1}.Validate(), memory.MessagingConfig{Buffer: 1}.Validate(),
		memory.DurabilityConfig{MaxMessages: 1, MaxBytes: 1, MaxAge: math.MaxInt64, Retention: 1, MaxMulticasts: 1}.Validate(),
	); err != nil {
		t.Error(err)
	}
}

func TestPutRefusesWhatIsNotJSON(t *testing.T) {
	t.Parallel()
	r := memory.NewRegistry(memory.RegistryConfig{})
	bad := mr.Identity{ID: "a", TTL: mr.NoExpiry, Metadata: map[string]any{"x": []any{func() {}}}}
	if _, err := r.Put(t.Context(), bad, mr.Replace); !errors.Is(err, mr.ErrInvalid) {
		t.Error(err)
	}
	wantNames(t, r)
}

// TestTenThousandTopics has one subscription with 10,000 topics, in messaging and in durability.
func TestTenThousandTopics(t *testing.T) {
	t.Parallel()
	const many = 10_000
	var topics []string
	var messages []mr.Message
	for n := range many {
		topics = append(topics, mr.Topic("default", fmt.Sprint(n)))
		messages = append(messages, mr.Message{Topic: topics[n], Identity: fmt.Sprint(n), ID: "x"})
	}
	m, d := memory.NewMessaging(memory.MessagingConfig{}), memory.NewDurability(memory.DurabilityConfig{})
	live, err := m.Subscribe(t.Context(), topics...)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := d.Consume(t.Context(), topics...)
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		send func(context.Context, []mr.Message) []error
		sub  mr.Subscription
	}{"messaging": {m.Publish, live}, "durability": {d.Enqueue, stored}} {
		if err := errors.Join(row.send(t.Context(), messages)...); err != nil {
			t.Fatal(name, err)
		}
		for got := 0; got < many; {
			batch, err := row.sub.Next(t.Context())
			if err != nil || batch.Dropped > 0 {
				t.Fatal(name, batch.Dropped, err)
			}
			for _, message := range batch.Messages {
				if message.Topic != topics[got] {
					t.Fatalf("%s: %s comes when %s is due", name, message.Topic, topics[got])
				}
				got++
			}
		}
		for range 2 {
			if err := row.sub.Close(); err != nil {
				t.Error(name, err)
			}
		}
	}
}

// TestTenThousandSubscriptions has 10,000 subscriptions with a topic each and one that they share.
func TestTenThousandSubscriptions(t *testing.T) {
	t.Parallel()
	const many = 10_000
	m := memory.NewMessaging(memory.MessagingConfig{Buffer: 1})
	var subs []mr.Subscription
	messages := []mr.Message{{Topic: "shared", ID: "x"}, {Topic: "shared", ID: "one too many"}}
	for n := range many {
		sub, err := m.Subscribe(t.Context(), fmt.Sprint(n), "shared")
		if err != nil {
			t.Fatal(err)
		}
		subs = append(subs, sub)
		messages = append(messages, mr.Message{Topic: fmt.Sprint(n), ID: "x"})
	}
	for i, err := range m.Publish(t.Context(), messages) {
		if (i == 1) != errors.Is(err, mr.ErrQueueFull) || i != 1 && err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	for n, sub := range subs {
		batch, err := sub.Next(t.Context())
		if err != nil || len(batch.Messages) != 2 || batch.Dropped != 1 || batch.Messages[1].Topic != fmt.Sprint(n) {
			t.Fatalf("subscription %d: %+v, %v", n, batch, err)
		}
		if err := sub.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := m.Publish(t.Context(), []mr.Message{{Topic: "shared", AckTo: "x"}})[0]; !errors.Is(err, mr.ErrNoSubscriber) {
		t.Error(err)
	}
}

// TestSubscriptionBytes fills a subscription with payloads over several topics until its bytes are used up.
func TestSubscriptionBytes(t *testing.T) {
	t.Parallel()
	m := memory.NewMessaging(memory.MessagingConfig{})
	sub, err := m.Subscribe(t.Context(), "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	payload := make([]byte, 1<<20)
	for round := range 2 {
		accepted, refused := 0, 0
		for n := range 80 {
			err := m.Publish(t.Context(), []mr.Message{{Topic: []string{"a", "b"}[n%2], ID: fmt.Sprint(n), Payload: payload}})[0]
			switch {
			case err == nil && refused == 0:
				accepted++
			case errors.Is(err, mr.ErrQueueFull):
				refused++
			default:
				t.Fatalf("message %d: %v", n, err)
			}
		}
		batch, err := sub.Next(t.Context())
		if err != nil || len(batch.Messages) != accepted || batch.Dropped != uint64(refused) || accepted != 63 {
			t.Errorf("round %d: %d accepted, %d received, %d refused, %d dropped, %v",
				round, accepted, len(batch.Messages), refused, batch.Dropped, err)
		}
	}
	huge := mr.Message{Topic: "a", ID: "huge", Payload: make([]byte, 65<<20)} // fits alone
	if err := m.Publish(t.Context(), []mr.Message{huge})[0]; err != nil {
		t.Error(err)
	}
}

// TestLargeBacklog takes what is more than one batch, with topics that come and go and messages that come between.
func TestLargeBacklog(t *testing.T) {
	t.Parallel()
	const many = 3000
	m := memory.NewMessaging(memory.MessagingConfig{Buffer: many})
	sub, err := m.Subscribe(t.Context(), "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	publish := func(topic string, from, to int) (full int) {
		t.Helper()
		for n := from; n < to; n++ {
			err := m.Publish(t.Context(), []mr.Message{{Topic: topic, ID: fmt.Sprint(n)}})[0]
			if errors.Is(err, mr.ErrQueueFull) {
				full++
			} else if err != nil {
				t.Fatal(err)
			}
		}
		return full
	}
	if full := publish("b", 0, many) + publish("a", 0, many+7); full != 7 {
		t.Errorf("%d did not fit", full)
	}
	got, dropped := 0, uint64(0)
	read := func() {
		t.Helper()
		batch, err := sub.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		dropped += batch.Dropped
		for _, message := range batch.Messages {
			if message.Topic == "a" {
				if message.ID != fmt.Sprint(got) {
					t.Fatalf("%s comes when %d is due", message.ID, got)
				}
				got++
			}
		}
	}
	read()
	if err := sub.Remove(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	for got < many {
		read()
	}
	if full := publish("a", many, 2*many); full != 0 {
		t.Errorf("%d do not fit into an empty subscription", full)
	}
	for got < 2*many {
		read()
	}
	if dropped != 7 {
		t.Errorf("%d dropped, want 7", dropped)
	}
	if err := sub.Remove(cancelled(t), "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("remove, cancelled: %v", err)
	}
}

func cancelled(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// TestInboxBound floods an inbox that nobody reads: it is bounded, and whoever acks learns that the ack is lost.
func TestInboxBound(t *testing.T) {
	t.Parallel()
	m := memory.NewMessaging(memory.MessagingConfig{})
	inbox, err := m.Inbox(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	acks := make([]mr.Ack, 1<<20+1)
	address := inbox.Address("x")
	for i := range acks {
		acks[i].To = address
	}
	results := m.Ack(t.Context(), acks)
	for i, err := range results {
		if lost := i == len(acks)-1; lost != errors.Is(err, mr.ErrQueueFull) || !lost && err != nil {
			t.Fatalf("ack %d: %v", i, err)
		}
	}
	if got, err := inbox.Next(t.Context()); len(got) != 1<<20 || err != nil {
		t.Errorf("%d receipts, %v", len(got), err)
	}
	if err := m.Ack(t.Context(), acks[:1])[0]; err != nil {
		t.Error(err)
	}
	if err := errors.Join(inbox.Close(), inbox.Close()); err != nil {
		t.Error(err)
	}
	for err = nil; err == nil; { // what was acked before is still there
		_, err = inbox.Next(t.Context())
	}
	if !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// TestDurabilityBytes bounds the bytes of a queue.
func TestDurabilityBytes(t *testing.T) {
	t.Parallel()
	d := memory.NewDurability(memory.DurabilityConfig{MaxBytes: 10})
	store := func(id string, bytes int) error {
		return d.Enqueue(t.Context(), []mr.Message{{Topic: "a", ID: id, Payload: make([]byte, bytes)}})[0]
	}
	if err := errors.Join(store("1", 4), store("2", 6), store("empty", 0), store("1", 4)); err != nil {
		t.Error(err)
	}
	if err := store("3", 1); !errors.Is(err, mr.ErrQueueFull) {
		t.Error(err)
	}
	if err := store("4", 11); !errors.Is(err, mr.ErrTooLarge) {
		t.Error(err)
	}
	if n, err := d.Purge(t.Context(), "a"); n != 3 || err != nil {
		t.Error(n, err)
	}
	if err := store("5", 10); err != nil {
		t.Error(err)
	}
	if sub, err := d.Consume(cancelled(t), "a"); sub != nil || !errors.Is(err, context.Canceled) {
		t.Error(sub, err)
	}
}
