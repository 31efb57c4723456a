package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// stocked returns messages with ids that are all different.
func stocked(ns, identity string, n int) []mr.Message {
	messages := make([]mr.Message, n)
	for i := range messages {
		messages[i] = message(ns, identity, fmt.Sprintf("%s-%d", identity, i))
		messages[i].AckTo = ""
	}
	return messages
}

func store(t *testing.T, d mr.Durability, messages ...mr.Message) {
	t.Helper()
	if err := errors.Join(d.Enqueue(within(t), messages)...); err != nil {
		t.Fatal(err)
	}
}

func consume(t *testing.T, d mr.Durability, topics ...string) mr.Subscription {
	t.Helper()
	sub, err := d.Consume(within(t), topics...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Close() })
	return sub
}

// take reads n messages.
func take(t *testing.T, sub mr.Subscription, n int) []mr.Message {
	t.Helper()
	ctx := within(t)
	var got []mr.Message
	for len(got) < n {
		batch, err := sub.Next(ctx)
		if err != nil {
			t.Fatalf("after %d of %d messages: %v", len(got), n, err)
		}
		got = append(got, batch.Messages...)
	}
	if len(got) > n {
		t.Fatalf("%d messages, want %d", len(got), n)
	}
	return got
}

// wantSame fails the test unless the messages are those with the same ids, in order.
func wantSame(t *testing.T, got, want []mr.Message) {
	t.Helper()
	id := func(m mr.Message) string { return m.ID }
	if g, w := mapped(got, id), mapped(want, id); !slices.Equal(g, w) {
		t.Errorf("got %v\nwant %v", g, w)
	}
}

func mapped[A, B any](from []A, to func(A) B) []B {
	out := make([]B, len(from))
	for i := range from {
		out[i] = to(from[i])
	}
	return out
}

func acksFor(messages []mr.Message) []mr.Ack {
	return mapped(messages, func(m mr.Message) mr.Ack { return mr.Ack{To: m.AckTo, Identity: m.Identity, ID: m.ID} })
}

func acking1(t *testing.T, d mr.Durability, messages []mr.Message) {
	t.Helper()
	if err := errors.Join(d.Ack(within(t), acksFor(messages))...); err != nil {
		t.Fatal(err)
	}
}

// TestHolderKilled ends the connection of a holder, as the end of its process does: after its lease somebody else gets what it
// held, marked.
func TestHolderKilled(t *testing.T) {
	t.Parallel()
	url, ns := testenv.NATS(t).URL, testenv.Prefix(t)
	killed := durability(t, opening(t, url), DurabilityConfig{Namespace: ns})
	other := durability(t, opening(t, url), DurabilityConfig{Namespace: ns})
	sent := stocked(ns, "a", 3)
	store(t, other, sent...)
	holder := consume(t, killed, mr.Topic(ns, "a"))
	wantSame(t, take(t, holder, 3), sent)
	standby := consume(t, other, mr.Topic(ns, "a"))
	if batch, err := standby.Next(within(t)); err != nil || len(batch.Messages) > 0 || len(batch.CaughtUp) != 1 {
		t.Fatalf("%+v, %v: it is held by another", batch, err)
	}
	killed.conn.nc.Close()
	start := time.Now()
	got := take(t, standby, 3)
	t.Logf("free after %v", time.Since(start))
	wantSame(t, got, sent)
	if !got[0].Redelivered || !got[2].Redelivered {
		t.Error("not marked as redelivered")
	}
	acking1(t, other, got)
	if n, err := other.Purge(within(t), mr.Topic(ns, "a")); n != 0 || err != nil {
		t.Errorf("%d are left, %v", n, err)
	}
}

// TestHolderCutOff cuts the connection of a holder for longer than its lease: somebody else takes over, and the first one hands
// out nothing of it any more when it is back, until the other one leaves. What it holds alone it goes on with.
func TestHolderCutOff(t *testing.T) {
	t.Parallel()
	url, ns := testenv.NATS(t).URL, testenv.Prefix(t)
	fault := testenv.NewFault(t, strings.TrimPrefix(url, "nats://"))
	far := durability(t, opening(t, "nats://"+fault.Addr), DurabilityConfig{Namespace: ns})
	near := durability(t, opening(t, url), DurabilityConfig{Namespace: ns})
	both, alone := stocked(ns, "both", 3), stocked(ns, "alone", 3)
	store(t, near, append(both[:2:2], alone[:2]...)...)
	first := consume(t, far, mr.Topic(ns, "both"), mr.Topic(ns, "alone"))
	take(t, first, 4)
	second := consume(t, near, mr.Topic(ns, "both"))
	fault.Cut()
	wantSame(t, take(t, second, 2), both[:2])
	if err := far.Enqueue(within(t), both[2:])[0]; !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("store without a connection: %v", err)
	}
	if _, err := far.Consume(within(t), mr.Topic(ns, "x")); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("consume without a connection: %v", err)
	}
	store(t, near, both[2], alone[2])
	fault.Heal()
	wantSame(t, take(t, first, 1), alone[2:])
	wantSame(t, take(t, second, 1), both[2:])
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	wantSame(t, take(t, first, 3), both)
}

// TestDurabilityRestart restarts the server: what was stored is there, and so are the multicasts; consumers go on.
func TestDurabilityRestart(t *testing.T) {
	t.Parallel()
	server, ns := testenv.NewNATS(t, nil), testenv.Prefix(t)
	d := durability(t, opening(t, server.URL), DurabilityConfig{Namespace: ns})
	sent := stocked(ns, "a", 20)
	store(t, d, sent[:10]...)
	if err := d.Finish(within(t), mr.Record{ID: "1", Key: "k", Summary: []byte("s"), Targets: [][]byte{[]byte("t")}}); err != nil {
		t.Fatal(err)
	}
	sub := consume(t, d, mr.Topic(ns, "a"))
	got := take(t, sub, 10)
	acking1(t, d, got[:5])
	server.Stop()
	if err := d.Ping(within(t)); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("ping: %v", err)
	}
	server.Start()
	deadline := time.Now().Add(patience)
	for {
		errs := d.Enqueue(within(t), sent[10:])
		if errors.Join(errs...) == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(errs)
		}
		_ = wait(t.Context(), 20*time.Millisecond)
	}
	wantSame(t, take(t, sub, 10), sent[10:])
	if err := sub.Close(); err != nil {
		t.Fatal(err)
	}
	wantSame(t, take(t, consume(t, d, mr.Topic(ns, "a")), 15), sent[5:])
	if held, began, err := d.Begin(within(t), mr.Record{ID: "2", Key: "k"}); began || err != nil || held.ID != "1" {
		t.Errorf("the key is free again: %+v, %v, %v", held, began, err)
	}
}

// TestLostNews stores a message of which nobody tells.
func TestLostNews(t *testing.T) {
	t.Parallel()
	url, ns := testenv.NATS(t).URL, testenv.Prefix(t)
	d := durability(t, opening(t, url), DurabilityConfig{Namespace: ns})
	sub := consume(t, d, mr.Topic(ns, "a"))
	if batch, err := sub.Next(within(t)); err != nil || len(batch.CaughtUp) != 1 {
		t.Fatalf("%+v, %v", batch, err)
	}
	d.hub.lookForNews(false, false)
	if _, err := d.conn.nc.RequestWithContext(within(t), "prism-queue."+ns+".a.1.5", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	d.hub.lookForNews(false, false)
	if got := take(t, sub, 1); string(got[0].Payload) != "hello" || got[0].ID == "" {
		t.Errorf("%+v", got)
	}
}

// TestIdleTopicsCostNothing adds topics for which nothing is stored: nothing is left on the server.
func TestIdleTopicsCostNothing(t *testing.T) {
	t.Parallel()
	url, ns := testenv.NATS(t).URL, testenv.Prefix(t)
	d := durability(t, opening(t, url), DurabilityConfig{Namespace: ns})
	const many = 3000
	var topics []string
	for i := range many {
		topics = append(topics, mr.Topic(ns, fmt.Sprint(i)))
	}
	sub := consume(t, d, topics...)
	for said := 0; said < many; {
		batch, err := sub.Next(within(t))
		if err != nil {
			t.Fatal(err)
		}
		said += len(batch.CaughtUp)
	}
	js, err := jetstream.New(d.conn.nc)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"prism-queue-" + ns, "prism-holders-" + ns} {
		s, err := js.Stream(within(t), name)
		if err != nil {
			t.Fatal(err)
		}
		if state := s.CachedInfo().State; state.Msgs != 0 || state.Consumers != 0 {
			t.Errorf("%s has %d messages and %d consumers", name, state.Msgs, state.Consumers)
		}
	}
	store(t, d, stocked(ns, "7", 1)...)
	acking1(t, d, take(t, sub, 1))
	if err := sub.Close(); err != nil {
		t.Fatal(err)
	}
	d.Close()
	s, err := js.Stream(within(t), "prism-holders-"+ns)
	if err != nil {
		t.Fatal(err)
	}
	if state := s.CachedInfo().State; state.Msgs != 0 {
		t.Errorf("%d entries are left of a holder that has gone", state.Msgs)
	}
}

// TestDeepQueue stores more for one identity than one answer has, through both ways to read.
func TestDeepQueue(t *testing.T) {
	t.Parallel()
	url, ns := testenv.NATS(t).URL, testenv.Prefix(t)
	d := durability(t, opening(t, url), DurabilityConfig{Namespace: ns})
	sent := stocked(ns, "deep", 3000)
	store(t, d, sent...)
	store(t, d, stocked(ns, "other", 5)...)
	for _, replicas := range []int64{1, 3} { // with 3 it asks the leader
		d.queue.replicas.Store(replicas)
		sub := consume(t, d, mr.Topic(ns, "deep"), mr.Topic(ns, "other"))
		got := slices.DeleteFunc(take(t, sub, 3005), func(m mr.Message) bool { return m.Identity == "other" })
		wantSame(t, got, sent)
		if err := sub.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReconcile opens streams again with other configurations.
func TestReconcile(t *testing.T) {
	t.Parallel()
	url, ns := testenv.NATS(t).URL, testenv.Prefix(t)
	c := opening(t, url)
	js, err := jetstream.New(c.nc)
	if err != nil {
		t.Fatal(err)
	}
	age := func(of string) time.Duration {
		t.Helper()
		s, err := js.Stream(within(t), "prism-"+of+"-"+ns)
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().Config.MaxAge
	}
	open := func(cfg DurabilityConfig) *Durability {
		cfg.Namespace = ns
		return durability(t, c, cfg)
	}
	open(DurabilityConfig{MaxAge: time.Hour, Retention: time.Hour})
	d := open(DurabilityConfig{MaxAge: 4 * time.Hour, Retention: 2 * time.Hour})
	if q, l := age("queue"), age("ledger"); q != 5*time.Hour || l != 2*time.Hour {
		t.Errorf("grown to %v and %v", q, l)
	}
	store(t, d, stocked(ns, "a", 1)...)
	if _, _, err := d.Begin(within(t), mr.Record{ID: "1"}); err != nil {
		t.Fatal(err)
	}
	open(DurabilityConfig{MaxAge: time.Hour, Retention: time.Second})
	if q, l := age("queue"), age("ledger"); q != 2*time.Hour {
		t.Errorf("shrunk to %v and %v, although nothing would be lost", q, l)
	}
	if _, err := OpenDurability(within(t), c, DurabilityConfig{Namespace: ns, Storage: StorageMemory}); err == nil {
		t.Error("streams of another storage are taken")
	}
	if _, err := OpenDurability(within(t), c, DurabilityConfig{Namespace: ns, Replicas: 3}); err == nil {
		t.Error("a single server has three replicas")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := OpenDurability(ended, c, DurabilityConfig{Namespace: ns}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestDurabilityConfig(t *testing.T) {
	t.Parallel()
	for field, cfg := range map[string]DurabilityConfig{
		"namespace":      {Namespace: "A"},
		"max_messages":   {Namespace: "a", MaxMessages: -1},
		"max_bytes":      {Namespace: "a", MaxBytes: -1},
		"max_age":        {Namespace: "a", MaxAge: -1},
		"replicas":       {Namespace: "a", Replicas: 9},
		"storage":        {Namespace: "a", Storage: "tape"},
		"retention":      {Namespace: "a", Retention: time.Millisecond},
		"max_multicasts": {Namespace: "a", MaxMulticasts: -1},
	} {
		var fault *mr.InvalidError
		if err := cfg.Validate(); !errors.As(err, &fault) || fault.Field != field {
			t.Errorf("%s: %v", field, err)
		}
		if _, err := OpenDurability(t.Context(), nil, cfg); !errors.Is(err, mr.ErrInvalid) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestNotATopic makes every call with something that is no topic.
func TestNotATopic(t *testing.T) {
	t.Parallel()
	d := durability(t, opening(t, testenv.NATS(t).URL), DurabilityConfig{Namespace: testenv.Prefix(t)})
	for _, topic := range []string{"", "a", "prism.>", "prism.*.a", "prism.a.>", "prism.A.b"} {
		m := []mr.Message{{Topic: topic, ID: "1"}}
		_, purge := d.Purge(within(t), topic)
		_, consume := d.Consume(within(t), topic)
		_, stored := d.Stored(within(t), m)
		_, withdraw := d.Withdraw(within(t), m)
		for i, err := range []error{d.Enqueue(within(t), m)[0], purge, consume, stored, withdraw} {
			if !errors.Is(err, mr.ErrInvalid) {
				t.Errorf("%q, call %d: %v", topic, i, err)
			}
		}
	}
	d.Close()
	d.Close()
	if _, err := d.Consume(within(t)); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("consume after close: %v", err)
	}
}

// TestSlowConsumer stores far more than waits in a consumer that does not read: reading stops there, goes on when it reads, and
// another consumer of the same process is not held up. Nothing is lost or out of order.
func TestSlowConsumer(t *testing.T) {
	t.Parallel()
	url, ns := testenv.NATS(t).URL, testenv.Prefix(t)
	d := durability(t, opening(t, url), DurabilityConfig{Namespace: ns})
	one, two := stocked(ns, "one", 3000), stocked(ns, "two", 3000)
	store(t, d, one...)
	store(t, d, two...)
	slow := consume(t, d, mr.Topic(ns, "one"), mr.Topic(ns, "two"))
	c, ok := slow.(*consumer)
	if !ok {
		t.Fatal("another type of subscription")
	}
	deadline := time.Now().Add(patience)
	for {
		d.hub.mu.Lock()
		waiting, parked := len(c.waiting), len(c.parked)
		d.hub.mu.Unlock()
		if parked > 0 && waiting >= waitingMessages {
			if most := waitingMessages + 2*pageMessages; waiting > most+2 {
				t.Errorf("%d messages wait, want %d at the most", waiting, most)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d messages wait, %d queues are parked", waiting, parked)
		}
		_ = wait(t.Context(), 5*time.Millisecond)
	}
	store(t, d, stocked(ns, "quick", 1)...)
	take(t, consume(t, d, mr.Topic(ns, "quick")), 1)
	byIdentity := map[string][]mr.Message{}
	for _, m := range take(t, slow, 6000) {
		byIdentity[m.Identity] = append(byIdentity[m.Identity], m)
	}
	wantSame(t, byIdentity["one"], one)
	wantSame(t, byIdentity["two"], two)
}
