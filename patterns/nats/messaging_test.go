package nats

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// eventually polls until done returns true.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx := within(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func message(namespace, identity, payload string) mr.Message {
	return mr.Message{
		Topic: mr.Topic(namespace, identity), Identity: identity, ID: "id-" + payload, ContentType: "text/plain",
		Payload: []byte(payload), SentAt: time.Now().Truncate(time.Millisecond),
	}
}

// receive reads n messages.
func receive(t *testing.T, sub mr.Subscription, n int) []mr.Message {
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
	return got
}

func subscribe(t *testing.T, m *Messaging, topics ...string) mr.Subscription {
	t.Helper()
	sub, err := m.Subscribe(within(t), topics...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sub.Close() })
	return sub
}

func inboxOf(t *testing.T, m *Messaging) mr.Inbox {
	t.Helper()
	in, err := m.Inbox(within(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return in
}

func receipt(t *testing.T, in mr.Inbox) mr.Receipt {
	t.Helper()
	got, err := in.Next(within(t))
	if err != nil || len(got) != 1 {
		t.Fatalf("%d receipts, %v", len(got), err)
	}
	return got[0]
}

func foreign(t *testing.T, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// TestForeignPublisher receives and acks what plain NATS clients publish: without headers, with an id, as a request.
func TestForeignPublisher(t *testing.T) {
	url, ns := testenv.NATS(t).URL, testenv.Prefix(t)
	m, nc := messaging(opening(t, url)), foreign(t, url)
	sub := subscribe(t, m, mr.Topic(ns, "user-1"))
	if err := nc.Publish("prism."+ns+".user-1", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	got := receive(t, sub, 1)[0]
	if got.Identity != "user-1" || got.Topic != mr.Topic(ns, "user-1") || string(got.Payload) != "hello" || got.ID == "" ||
		got.AckTo != "" || time.Since(got.SentAt).Abs() > time.Minute {
		t.Errorf("%+v", got)
	}
	if err := nc.PublishMsg(&nats.Msg{
		Subject: "prism." + ns + ".user-1", Header: nats.Header{nats.MsgIdHdr: {"one"}, headerSentAt: {"yesterday"}},
	}); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, sub, 1)[0]; got.ID != "one" || time.Since(got.SentAt).Abs() > time.Minute {
		t.Errorf("%+v", got)
	}
	var acking sync.WaitGroup
	defer acking.Wait()
	acking.Go(func() {
		batch, err := sub.Next(within(t))
		if err != nil {
			t.Error(err)
			return
		}
		for _, got := range batch.Messages {
			if err := errors.Join(m.Ack(within(t), []mr.Ack{{To: got.AckTo, Identity: got.Identity, ID: got.ID}})...); err != nil {
				t.Error(err)
			}
		}
	})
	reply, err := nc.RequestWithContext(within(t), "prism."+ns+".user-1", []byte("answer me"))
	if err != nil || len(reply.Data) != 0 {
		t.Errorf("the answer to a request: %v, %v", reply, err)
	}
}

// TestForeignSubscriber publishes to plain NATS clients, which find the payload in the body and ack by a reply.
func TestForeignSubscriber(t *testing.T) {
	url, ns := testenv.NATS(t).URL, testenv.Prefix(t)
	m, nc := messaging(opening(t, url)), foreign(t, url)
	in := inboxOf(t, m)
	sub, err := nc.SubscribeSync("prism." + ns + ".user-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for n, reply := range []string{"", "+ACK", "I have it", `{"ok":true}`} {
		sent := message(ns, "user-1", fmt.Sprint("hello ", n))
		token := fmt.Sprintf("%d.t", n)
		sent.AckTo = in.Address(token)
		if err := errors.Join(m.Publish(t.Context(), []mr.Message{sent})...); err != nil {
			t.Fatal(err)
		}
		got, err := sub.NextMsgWithContext(within(t))
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, got.Header.Get("Prism-Sent-At"))
		if !bytes.Equal(got.Data, sent.Payload) || got.Header.Get("Prism-Message-Id") != sent.ID ||
			got.Header.Get("Content-Type") != "text/plain" || err != nil || !at.Equal(sent.SentAt) {
			t.Errorf("%+v", got)
		}
		if err := got.Respond([]byte(reply)); err != nil {
			t.Fatal(err)
		}
		if r := receipt(t, in); r.Token != token || r.Err != nil {
			t.Errorf("%+v", r)
		}
	}
}

// TestStreamIsNoRecipient has a JetStream stream that captures the topics. What it says about them is no ack, and it does not
// take the messages of one multicast for repeats.
func TestStreamIsNoRecipient(t *testing.T) {
	url, ns := testenv.NATS(t).URL, testenv.Prefix(t)
	m, nc := messaging(opening(t, url)), foreign(t, url)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.CreateStream(within(t), jetstream.StreamConfig{Name: ns, Subjects: []string{"prism." + ns + ".>"}, MaxMsgSize: 300})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { js.DeleteStream(context.WithoutCancel(t.Context()), ns) })
	in := inboxOf(t, m)
	sub := subscribe(t, m, mr.Topic(ns, "c"))
	a, b, c := message(ns, "a", "x"), message(ns, "b", "x"), message(ns, "c", strings.Repeat("x", 400))
	a.AckTo, b.AckTo, c.AckTo = in.Address("a"), in.Address("b"), in.Address("c")
	if err := errors.Join(m.Publish(within(t), []mr.Message{a, b, c})...); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Ack(within(t), []mr.Ack{{To: receive(t, sub, 1)[0].AckTo}})...); err != nil {
		t.Fatal(err)
	}
	if r := receipt(t, in); r.Token != "c" || r.Err != nil {
		t.Errorf("the stream's answer counts as an ack: %+v", r)
	}
	eventually(t, "the stream holds both small messages", func() bool {
		info, err := stream.Info(within(t))
		return err == nil && info.State.Msgs == 2
	})
}

// TestManyTopics has 10,000 topics on one subscription, with one goroutine for all of them.
func TestManyTopics(t *testing.T) {
	url, ns := testenv.NATS(t).URL, testenv.Prefix(t)
	m := messaging(opening(t, url))
	const many = 10_000
	topics, messages := make([]string, many), make([]mr.Message, many)
	for n := range many {
		messages[n] = message(ns, fmt.Sprint("dev-", n), fmt.Sprint(n))
		topics[n] = messages[n].Topic
	}
	sub := subscribe(t, m, topics...)
	if err := errors.Join(m.Publish(within(t), messages)...); err != nil {
		t.Fatal(err)
	}
	for n, got := range receive(t, sub, many) {
		if got.Identity != messages[n].Identity {
			t.Fatalf("message %d is for %q", n, got.Identity)
		}
	}
}

// TestDroppedByDriver fills the channel between the driver and the router: what the driver drops is reported.
func TestDroppedByDriver(t *testing.T) {
	url, ns := testenv.NATS(t).URL, testenv.Prefix(t)
	c := opening(t, url)
	m := NewMessaging(c, MessagingConfig{Buffer: 1 << 20})
	sub := subscribe(t, m, mr.Topic(ns, "a"))
	c.router.mu.Lock() // which keeps the router from delivering
	const many = incoming + 5000
	batch := make([]mr.Message, many)
	for n := range batch {
		batch[n] = message(ns, "a", "x")
	}
	err := errors.Join(m.Publish(within(t), batch)...)
	c.router.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	got, dropped := 0, 0
	ctx := within(t)
	for got+dropped < many {
		batch, err := sub.Next(ctx)
		if err != nil {
			t.Fatalf("%d received and %d dropped of %d: %v", got, dropped, many, err)
		}
		got, dropped = got+len(batch.Messages), dropped+int(batch.Dropped)
	}
	if got+dropped != many || dropped < 4000 {
		t.Errorf("%d received and %d dropped of %d", got, dropped, many)
	}
}

// TestPermissions has a user who may use a part of the subjects only: the server says no later, and the results know.
func TestPermissions(t *testing.T) {
	limited := &server.User{Username: "limited", Password: "secret", Permissions: &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{"prism.mine.>", "_INBOX.>"}},
		Subscribe: &server.SubjectPermission{Allow: []string{"prism.mine.>", "_INBOX.>"}},
	}}
	n := testenv.NewNATS(t, func(o *server.Options) { o.Users = []*server.User{limited} })
	m := messaging(opened(t, Config{Servers: []string{n.URL}, User: "limited", Password: "secret"}))
	if _, err := m.Subscribe(within(t), mr.Topic("mine", "a"), mr.Topic("theirs", "b")); !errors.Is(err, mr.ErrUnsupported) {
		t.Errorf("subscribe: %v", err)
	}
	sub := subscribe(t, m, mr.Topic("mine", "a"))
	if err := sub.Add(within(t), mr.Topic("theirs", "b")); !errors.Is(err, mr.ErrUnsupported) || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("add: %v", err)
	}
	wrongReply := message("mine", "a", "3")
	wrongReply.AckTo = "elsewhere.x"
	batch := []mr.Message{message("mine", "a", "0"), message("theirs", "b", "1"), message("theirs", "c", "2"), wrongReply, message("mine", "a", "4")}
	for range 2 {
		for i, err := range m.Publish(within(t), batch) {
			if forbidden := i == 1 || i == 2; forbidden != errors.Is(err, mr.ErrUnsupported) || errors.Is(err, mr.ErrUnavailable) {
				t.Errorf("message %d: %v", i, err)
			}
		}
		if got := receive(t, sub, 3); string(got[0].Payload) != "0" || string(got[2].Payload) != "4" {
			t.Errorf("%d messages: %+v", len(got), got)
		}
	}
	other := messaging(opened(t, Config{Servers: []string{n.URL}, User: "limited", Password: "secret", InboxPrefix: "elsewhere"}))
	if _, err := other.Inbox(within(t)); !errors.Is(err, mr.ErrUnsupported) {
		t.Errorf("inbox: %v", err)
	}
}

// TestMaxSubscriptions has a server that limits them.
func TestMaxSubscriptions(t *testing.T) {
	n := testenv.NewNATS(t, func(o *server.Options) { o.MaxSubs = 3 })
	m := messaging(opening(t, n.URL))
	if _, err := m.Subscribe(within(t), mr.Topic("x", "a"), mr.Topic("x", "b"), mr.Topic("x", "c"), mr.Topic("x", "d")); !errors.Is(err, mr.ErrQuota) {
		t.Errorf("subscribe: %v", err)
	}
	subscribe(t, m, mr.Topic("x", "a"))
}

// TestClosedConn checks that everything ends with the connection, and what calls say afterwards.
func TestClosedConn(t *testing.T) {
	c := opening(t, testenv.NATS(t).URL)
	m := messaging(c)
	sub, in := subscribe(t, m, mr.Topic("x", "a")), inboxOf(t, m)
	c.Close()
	c.Close()
	if _, err := sub.Next(within(t)); !errors.Is(err, io.EOF) {
		t.Errorf("next: %v", err)
	}
	if _, err := in.Next(within(t)); !errors.Is(err, io.EOF) {
		t.Errorf("next receipt: %v", err)
	}
	if err := sub.Add(within(t), mr.Topic("x", "b")); !errors.Is(err, io.EOF) {
		t.Errorf("add: %v", err)
	}
	_, subscribed := m.Subscribe(within(t), mr.Topic("x", "b"))
	_, in2 := m.Inbox(within(t))
	for what, err := range map[string]error{
		"publish": errors.Join(m.Publish(within(t), []mr.Message{message("x", "a", "x")})...), "subscribe": subscribed, "inbox": in2,
		"ping": m.Ping(within(t)), "ack": errors.Join(m.Ack(within(t), []mr.Ack{{To: in.Address("x")}})...),
	} {
		if !errors.Is(err, mr.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestInvalid(t *testing.T) {
	m := messaging(opening(t, testenv.NATS(t).URL))
	for _, topic := range []string{"prism.x.*", "prism.>", "x", ""} {
		if _, err := m.Subscribe(within(t), topic); !errors.Is(err, mr.ErrInvalid) {
			t.Errorf("subscribe to %q: %v", topic, err)
		}
	}
	if err := (MessagingConfig{Buffer: -1}).Validate(); !errors.Is(err, mr.ErrInvalid) {
		t.Error(err)
	}
	if err := (MessagingConfig{}).Validate(); err != nil {
		t.Error(err)
	}
}
