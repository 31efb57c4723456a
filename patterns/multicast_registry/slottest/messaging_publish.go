package slottest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func (s *messagingSuite) roundTrip(t *testing.T) {
	m, from := s.open(t), newSender()
	sub := s.subscribe(t, m, from.topic("a"))
	inbox := s.inbox(t, m)
	plain := from.message("a", "hello")
	wants := from.message("a", "answer me")
	wants.AckTo = inbox.Address("1.x")
	odd := from.message("a", "")
	odd.ID = "an id with spaces, ünïcode and /.*>"
	odd.ContentType = `application/x-odd; name="a b"; q=0.5`
	odd.SentAt = time.UnixMilli(1_234_567_890_123)
	bare := mr.Message{Topic: from.topic("a"), Identity: "a", ID: "bare", SentAt: time.UnixMilli(1)}
	for _, sent := range []mr.Message{plain, wants, odd, bare} {
		publish(t, m, sent)
		got := receive(t, s.Patience, sub, 1)[0]
		wantMessage(t, got, sent)
		if got.Redelivered {
			t.Errorf("%s: redelivered", sent.ID)
		}
	}
}

func (s *messagingSuite) payloads(t *testing.T) {
	m, from := s.open(t), newSender()
	sub := s.subscribe(t, m, from.topic("a"))
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	large := bytes.Repeat(every, 1<<12)[:1<<20]
	if s.MaxPayload > 0 && s.MaxPayload < len(large) {
		large = large[:s.MaxPayload]
	}
	var sent []mr.Message
	for _, payload := range [][]byte{nil, {}, {0}, []byte("\r\n"), []byte("+OK\r\nPUB x 1\r\n"), every, large} {
		message := from.message("a", "")
		message.Payload = payload
		sent = append(sent, message)
	}
	publish(t, m, sent...)
	for i, got := range receive(t, s.Patience, sub, len(sent)) {
		wantMessage(t, got, sent[i])
	}
}

// batch publishes what succeeds and what fails together: each has its own result, in order.
func (s *messagingSuite) batch(t *testing.T) {
	m, from := s.open(t), newSender()
	sub := s.subscribe(t, m, from.topics("a", "b")...)
	inbox := s.inbox(t, m)
	if got := m.Publish(t.Context(), nil); len(got) != 0 {
		t.Errorf("an empty batch has %d results", len(got))
	}
	var messages []mr.Message
	var lost []string
	for n := range 100 {
		message := from.message([]string{"a", "nobody", "b", "nobody"}[n%4], fmt.Sprint(n))
		if n%4 != 3 { // the fourth goes to nobody either, and does not want to know
			message.AckTo = inbox.Address(fmt.Sprint(n))
		}
		messages = append(messages, message)
	}
	for n, err := range results(t, 100, m.Publish(t.Context(), messages)) {
		switch {
		case n%4 == 1 && err == nil:
			lost = append(lost, fmt.Sprint(n))
		case n%4 == 1 && errors.Is(err, mr.ErrNoSubscriber):
		case err != nil:
			t.Errorf("message %d: %v", n, err)
		}
	}
	got := receive(t, s.Patience, sub, 50)
	slices.SortFunc(got, func(a, b mr.Message) int { return strings.Compare(a.ID, b.ID) }) // topics may overtake each other
	for i, message := range got {
		wantMessage(t, message, messages[2*i])
	}
	if len(lost) > 0 {
		for token, err := range receiptsOf(t, s.Patience, inbox, lost...) {
			if !errors.Is(err, mr.ErrNoSubscriber) {
				t.Errorf("message %s: %v", token, err)
			}
		}
	}
}

// batchReuse changes the batch's slice as soon as Publish has returned.
func (s *messagingSuite) batchReuse(t *testing.T) {
	m, from := s.open(t), newSender()
	sub := s.subscribe(t, m, from.topic("a"))
	batch := make([]mr.Message, 10)
	var sent []mr.Message
	for range 5 {
		for i := range batch {
			batch[i] = from.message("a", fmt.Sprint(len(sent)))
			sent = append(sent, batch[i])
		}
		publish(t, m, batch...)
		for i := range batch {
			batch[i] = mr.Message{Topic: "x", Identity: "x", ID: "x", Payload: []byte("x")}
		}
	}
	for i, got := range receive(t, s.Patience, sub, len(sent)) {
		wantMessage(t, got, sent[i])
	}
}

// fanOut has several subscriptions of one identity, which each receive everything, and may do with it what they like
// except change payloads.
func (s *messagingSuite) fanOut(t *testing.T) {
	m, from := s.open(t), newSender()
	var subs []mr.Subscription
	for range 5 {
		subs = append(subs, s.subscribe(t, m, from.topics("a", "b")...))
	}
	other := s.subscribe(t, m, from.topic("other"))
	var sent []mr.Message
	for n := range 40 {
		sent = append(sent, from.message([]string{"a", "b"}[n%2], fmt.Sprint(n)))
	}
	publish(t, m, sent...)
	for _, sub := range subs {
		got := receive(t, s.Patience, sub, len(sent))
		slices.SortFunc(got, func(a, b mr.Message) int { return strings.Compare(a.ID, b.ID) })
		for i := range got {
			wantMessage(t, got[i], sent[i])
			got[i] = mr.Message{}
		}
	}
	s.settle(t, m, from, other, "other")
}

// order has publishers that work at the same time, each on its own topics, in batches of odd sizes.
func (s *messagingSuite) order(t *testing.T) {
	m, from := s.open(t), newSender()
	const publishers, topics, each = 4, 5, 60
	var all []string
	for p := range publishers * topics {
		all = append(all, from.topic(fmt.Sprint(p)))
	}
	subs := []mr.Subscription{s.subscribe(t, m, all...), s.subscribe(t, m, all...)}
	var working sync.WaitGroup
	defer working.Wait()
	for p := range publishers {
		mine := newSender()
		mine.namespace = from.namespace
		working.Go(func() {
			var batch []mr.Message
			for n := range each {
				for i := range topics {
					batch = append(batch, mine.message(fmt.Sprint(p*topics+i), fmt.Sprint(n)))
				}
				if n%7 != 0 && n != each-1 {
					continue
				}
				if err := errors.Join(m.Publish(t.Context(), batch)...); err != nil {
					t.Error(err)
				}
				batch = batch[:0]
			}
		})
	}
	for _, sub := range subs {
		next := map[string]int{}
		for _, got := range receive(t, s.Patience, sub, publishers*topics*each) {
			if string(got.Payload) != fmt.Sprint(next[got.Topic]) {
				t.Fatalf("message %s of %s comes when %d is due", got.Payload, got.Identity, next[got.Topic])
			}
			next[got.Topic]++
		}
	}
}

// hostileIdentities gives each identity a subscription of its own: each receives its own message and nobody else's, and
// neither does the same name in another namespace.
func (s *messagingSuite) hostileIdentities(t *testing.T) {
	m, from, elsewhere := s.open(t), newSender(), newSender()
	inbox := s.inbox(t, m)
	ids := HostileIdentities()
	var messages []mr.Message
	var tokens []string
	for i, id := range ids {
		message := from.message(id, id)
		message.AckTo = inbox.Address(fmt.Sprint(i))
		messages, tokens = append(messages, message), append(tokens, fmt.Sprint(i))
	}
	// Half of them are attached at first: none of these receives what is sent to the other half.
	subs := map[string]mr.Subscription{}
	var unattached []mr.Message
	var lost []string
	for i, id := range ids {
		if i%2 == 0 {
			subs[id] = s.subscribe(t, m, from.topic(id))
			continue
		}
		unattached, lost = append(unattached, messages[i]), append(lost, tokens[i])
	}
	s.wantNoSubscriber(t, m, inbox, unattached, lost)
	for i, id := range ids {
		if i%2 == 1 {
			subs[id] = s.subscribe(t, m, from.topic(id))
		}
	}
	foreign := s.subscribe(t, m, elsewhere.topics(ids...)...)
	publish(t, m, messages...)
	for i, id := range ids {
		got := receive(t, s.Patience, subs[id], 1)[0]
		if got.Identity != id {
			t.Errorf("the subscriber of %q received what was for %q", id, got.Identity)
			continue
		}
		wantMessage(t, got, messages[i])
		sendAcks(t, m, ack(got))
	}
	for token, err := range receiptsOf(t, s.Patience, inbox, tokens...) {
		if err != nil {
			t.Errorf("%q: %v", ids[slices.Index(tokens, token)], err)
		}
	}
	for _, id := range ids {
		s.settle(t, m, from, subs[id], id)
	}
	s.settle(t, m, elsewhere, foreign, ids[0])
}

// noSubscriber: whoever wants an ack learns that nobody listens; whoever does not is not bothered.
func (s *messagingSuite) noSubscriber(t *testing.T) {
	m, from := s.open(t), newSender()
	inbox := s.inbox(t, m)
	other := s.subscribe(t, m, from.topic("other"))
	publish(t, m, from.message("a", "into the blue"), from.message("b", "into the blue"))
	var messages []mr.Message
	var tokens []string
	for n := range 50 {
		tokens = append(tokens, fmt.Sprintf("t.%d", n))
		message := from.message(fmt.Sprint(n%10), "is anybody there?")
		message.AckTo = inbox.Address(tokens[n])
		messages = append(messages, message)
	}
	s.wantNoSubscriber(t, m, inbox, messages, tokens)
	publish(t, m, from.message("a", "into the blue"))
	late := s.subscribe(t, m, from.topics("a", "b", "0")...)
	s.settle(t, m, from, late, "a")
	s.settle(t, m, from, other, "other")
}

func (s *messagingSuite) tooLarge(t *testing.T) {
	if s.MaxPayload == 0 {
		t.Skip("MessagingOptions.MaxPayload is not set")
	}
	m, from := s.open(t), newSender()
	sub := s.subscribe(t, m, from.topic("a"))
	before, large, fits, after := from.message("a", "1"), from.message("a", ""), from.message("a", ""), from.message("a", "3")
	large.Payload = make([]byte, s.MaxPayload+1)
	fits.Payload = make([]byte, s.MaxPayload)
	for i, err := range results(t, 4, m.Publish(t.Context(), []mr.Message{before, large, fits, after})) {
		if (i == 1) != errors.Is(err, mr.ErrTooLarge) || i != 1 && err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
	for i, got := range receive(t, s.Patience, sub, 3) {
		wantMessage(t, got, []mr.Message{before, fits, after}[i])
	}
}

// pair has publisher and subscriber in two processes.
func (s *messagingSuite) pair(t *testing.T) {
	if s.OpenPair == nil {
		t.Skip("MessagingOptions.OpenPair is not set")
	}
	a, b := s.OpenPair(t)
	from := newSender()
	here, there := s.inbox(t, a), s.inbox(t, b)
	sub := s.subscribe(t, b, from.topic("a"))
	for n := range 20 {
		message, nobody := from.message("a", fmt.Sprint(n)), from.message("nobody", "")
		message.AckTo, nobody.AckTo = here.Address(fmt.Sprint(n)), here.Address("nobody")
		publish(t, a, message)
		got := receive(t, s.Patience, sub, 1)[0]
		wantMessage(t, got, message)
		sendAcks(t, b, ack(got))
		if err := receiptsOf(t, s.Patience, here, fmt.Sprint(n))[fmt.Sprint(n)]; err != nil {
			t.Error(err)
		}
		s.wantNoSubscriber(t, a, here, []mr.Message{nobody}, []string{"nobody"})
	}
	message := from.message("a", "last")
	message.AckTo = there.Address("last")
	publish(t, b, message)
	sendAcks(t, a, ack(receive(t, s.Patience, sub, 1)[0]))
	if err := receiptsOf(t, s.Patience, there, "last")["last"]; err != nil {
		t.Error(err)
	}
}
