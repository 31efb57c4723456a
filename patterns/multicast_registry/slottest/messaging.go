package slottest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// messagingSuite is what the subtests of Messaging share.
type messagingSuite struct {
	MessagingOptions
	open func(t *testing.T) mr.Messaging
}

// Messaging runs the conformance suite of the messaging slot. Open is called for each subtest. Every subtest uses topics of
// a namespace of its own, so on a shared server the opener need not separate them.
func Messaging(t *testing.T, open func(t *testing.T) mr.Messaging, options MessagingOptions) {
	t.Helper()
	s := &messagingSuite{MessagingOptions: options.withDefaults(), open: open}
	for _, sub := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"RoundTrip", s.roundTrip},
		{"Payloads", s.payloads},
		{"Batch", s.batch},
		{"BatchReuse", s.batchReuse},
		{"FanOut", s.fanOut},
		{"Order", s.order},
		{"HostileIdentities", s.hostileIdentities},
		{"NoSubscriber", s.noSubscriber},
		{"ErrTooLarge", s.tooLarge},
		{"Pair", s.pair},
		{"Ping", func(t *testing.T) { pingSlot(t, s.open(t)) }},

		{"AddRemove", s.addRemove},
		{"ManyTopics", s.manyTopics},
		{"ManySubscriptions", s.manySubscriptions},
		{"AddContention", s.addContention},
		{"NextCancelled", s.nextCancelled},
		{"ContextCoversCall", s.contextCoversCall},
		{"Cancelled", s.cancelled},
		{"Close", s.close},
		{"CloseRace", s.closeRace},
		{"SlowSubscriber", s.slowSubscriber},
		{"SlowTopic", s.slowTopic},

		{"Acks", s.acks},
		{"AckAgain", s.ackAgain},
		{"AckOfEverySubscriber", s.ackOfEverySubscriber},
		{"Inboxes", s.inboxes},
		{"InboxClose", s.inboxClose},
		{"ForgedAcks", s.forgedAcks},
		{"Replies", s.replies},
		{"Gone", s.gone},
	} {
		t.Run(sub.name, sub.run)
	}
}

// sender makes messages of one namespace, each with an id of its own.
type sender struct {
	namespace string
	sent      int
}

func newSender() *sender { return &sender{namespace: "t" + strings.ToLower(rand.Text()[:12])} }

func (s *sender) topic(identity string) string { return mr.Topic(s.namespace, identity) }

func (s *sender) topics(identities ...string) []string {
	topics := make([]string, len(identities))
	for i, identity := range identities {
		topics[i] = s.topic(identity)
	}
	return topics
}

// message returns a message without an ack address.
func (s *sender) message(identity, payload string) mr.Message {
	s.sent++
	m := mr.Message{
		Topic: s.topic(identity), Identity: identity, ID: fmt.Sprintf("%s-%06d", s.namespace, s.sent),
		ContentType: "text/plain", Payload: []byte(payload), SentAt: time.Now().Truncate(time.Millisecond), Once: s.sent%2 == 0,
	}
	if s.sent%3 == 0 {
		m.TraceParent = fmt.Sprintf("00-%032x-%016x-01", s.sent, s.sent)
	}
	return m
}

func publish(t *testing.T, m mr.Messaging, messages ...mr.Message) {
	t.Helper()
	for i, err := range results(t, len(messages), m.Publish(t.Context(), messages)) {
		if err != nil {
			t.Fatalf("publish message %d of %d, to %q: %v", i, len(messages), messages[i].Identity, err)
		}
	}
}

// results checks that there is one result for each message.
func results(t *testing.T, want int, errs []error) []error {
	t.Helper()
	if len(errs) != want {
		t.Fatalf("%d results for %d messages", len(errs), want)
	}
	return errs
}

func (s *messagingSuite) subscribe(t *testing.T, m mr.Messaging, topics ...string) mr.Subscription {
	t.Helper()
	sub, err := m.Subscribe(within(t, s.Patience), topics...)
	noError(t, err, "subscribe")
	closing(t, sub)
	return sub
}

func (s *messagingSuite) inbox(t *testing.T, m mr.Messaging) mr.Inbox {
	t.Helper()
	inbox, err := m.Inbox(within(t, s.Patience))
	noError(t, err, "inbox")
	closing(t, inbox)
	return inbox
}

// nextMessages returns the next batch that says more than that topics have caught up.
func nextMessages(ctx context.Context, sub mr.Subscription) (mr.Batch, error) {
	for {
		batch, err := sub.Next(ctx)
		if err != nil || len(batch.Messages) > 0 || batch.Dropped > 0 {
			return batch, err
		}
	}
}

// receive reads n messages, in as many batches as it takes. Losses fail the test.
func receive(t *testing.T, patience time.Duration, sub mr.Subscription, n int) []mr.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var got []mr.Message
	for len(got) < n {
		batch, err := sub.Next(ctx)
		if err != nil {
			t.Fatalf("after %d of %d messages: %v", len(got), n, err)
		}
		if batch.Dropped > 0 {
			t.Errorf("%d messages were dropped", batch.Dropped)
		}
		got = append(got, batch.Messages...)
	}
	if len(got) > n {
		t.Fatalf("%d messages, want %d; the last is %q for %q", len(got), n, got[len(got)-1].ID, got[len(got)-1].Identity)
	}
	return got
}

// settle sends a last message to one of a subscription's identities, reads up to it, and fails the test if anything else
// comes before it: whatever was sent earlier, and was to come, has come by then.
func (s *messagingSuite) settle(t *testing.T, m mr.Messaging, from *sender, sub mr.Subscription, identity string) {
	t.Helper()
	fence := from.message(identity, "fence")
	publish(t, m, fence)
	if got := receive(t, s.Patience, sub, 1); got[0].ID != fence.ID {
		t.Errorf("subscriber of %q received %q for %q unasked", identity, got[0].Payload, got[0].Identity)
	}
}

// receipts reads receipts until done returns true.
func receipts(t *testing.T, patience time.Duration, inbox mr.Inbox, done func(mr.Receipt) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for finished := false; !finished; {
		got, err := inbox.Next(ctx)
		if err != nil {
			t.Fatalf("inbox: %v", err)
		}
		for _, r := range got {
			finished = done(r) || finished
		}
	}
}

// receiptsOf reads receipts until each token has one, and returns the first of each. Other tokens fail the test.
func receiptsOf(t *testing.T, patience time.Duration, inbox mr.Inbox, tokens ...string) map[string]error {
	t.Helper()
	open := make(map[string]bool, len(tokens))
	for _, token := range tokens {
		open[token] = true
	}
	got := make(map[string]error, len(tokens))
	receipts(t, patience, inbox, func(r mr.Receipt) bool {
		if _, known := open[r.Token]; !known {
			t.Errorf("a receipt for token %q: %v", r.Token, r.Err)
			return false
		}
		if open[r.Token] {
			open[r.Token] = false
			got[r.Token] = r.Err
		}
		return len(got) == len(tokens)
	})
	return got
}

// wantNoSubscriber publishes messages, which want acks under these tokens and have no subscriber, and fails the test
// unless each is ErrNoSubscriber, as its result or through the inbox.
func (s *messagingSuite) wantNoSubscriber(t *testing.T, m mr.Messaging, inbox mr.Inbox, messages []mr.Message, tokens []string) {
	t.Helper()
	var later []string
	for i, err := range results(t, len(messages), m.Publish(t.Context(), messages)) {
		switch {
		case err == nil:
			later = append(later, tokens[i])
		case !errors.Is(err, mr.ErrNoSubscriber):
			t.Errorf("a message nobody receives: %v", err)
		}
	}
	if len(later) == 0 {
		return
	}
	for token, err := range receiptsOf(t, s.Patience, inbox, later...) {
		if !errors.Is(err, mr.ErrNoSubscriber) {
			t.Errorf("the receipt for %q, which nobody receives: %v", token, err)
		}
	}
}

// wantMessage fails the test unless a message arrived as it was sent. The ack address is the slot's business, except that
// it is there if and only if an ack was wanted.
func wantMessage(t *testing.T, got, want mr.Message) {
	t.Helper()
	if got.Topic != want.Topic || got.Identity != want.Identity || got.ID != want.ID || got.ContentType != want.ContentType ||
		!got.SentAt.Equal(want.SentAt) || got.Once != want.Once || got.TraceParent != want.TraceParent {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if !bytes.Equal(got.Payload, want.Payload) {
		t.Errorf("%s: the payload of %d bytes arrives as %d others", want.ID, len(want.Payload), len(got.Payload))
	}
	if (got.AckTo == "") != (want.AckTo == "") {
		t.Errorf("%s: sent with the ack address %q, received with %q", want.ID, want.AckTo, got.AckTo)
	}
}

func ack(m mr.Message) mr.Ack { return mr.Ack{To: m.AckTo, Identity: m.Identity, ID: m.ID} }

func acksOf(messages []mr.Message) []mr.Ack {
	acks := make([]mr.Ack, len(messages))
	for i, m := range messages {
		acks[i] = ack(m)
	}
	return acks
}

// sendAcks sends acks and fails the test if one is refused. Messaging and Durability both ack.
func sendAcks(t *testing.T, to interface {
	Ack(ctx context.Context, acks []mr.Ack) []error
}, acks ...mr.Ack,
) {
	t.Helper()
	for i, err := range results(t, len(acks), to.Ack(t.Context(), acks)) {
		if err != nil {
			t.Errorf("ack of %q: %v", acks[i].ID, err)
		}
	}
}
