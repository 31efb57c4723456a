package slottest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// acks sends a batch with every kind of token and acks half of it.
func (s *messagingSuite) acks(t *testing.T) {
	m, from := s.open(t), newSender()
	inbox := s.inbox(t, m)
	sub := s.subscribe(t, m, from.topic("a"))
	tokens := []string{
		"a", "0", "z9", "a.b", "1.2.3", ".", "..", "a..b", ".a", "a.", "A", "prism", strings.Repeat("x", 64), strings.Repeat("0.", 32),
	}
	for n := range 100 {
		tokens = append(tokens, fmt.Sprintf("many.%d", n))
	}
	seen := map[string]bool{}
	var sent []mr.Message
	for _, token := range tokens {
		message := from.message("a", token)
		message.AckTo = inbox.Address(token)
		if message.AckTo == "" || seen[message.AckTo] {
			t.Errorf("the address of token %q is %q", token, message.AckTo)
		}
		seen[message.AckTo] = true
		sent = append(sent, message)
	}
	publish(t, m, sent...)
	var acks []mr.Ack
	var acked []string
	for i, got := range receive(t, s.Patience, sub, len(sent)) {
		if string(got.Payload) != tokens[i] {
			t.Fatalf("received %q when %q is due", got.Payload, tokens[i])
		}
		if i%2 == 0 {
			acks, acked = append(acks, ack(got)), append(acked, tokens[i])
		}
	}
	sendAcks(t, m)
	sendAcks(t, m, acks...)
	for token, err := range receiptsOf(t, s.Patience, inbox, acked...) {
		if err != nil {
			t.Errorf("token %q: %v", token, err)
		}
	}
}

// ackAgain acks twice, which may be reported twice and is no error.
func (s *messagingSuite) ackAgain(t *testing.T) {
	m, from := s.open(t), newSender()
	inbox := s.inbox(t, m)
	sub := s.subscribe(t, m, from.topic("a"))
	first, last := from.message("a", "first"), from.message("a", "last")
	first.AckTo, last.AckTo = inbox.Address("first"), inbox.Address("last")
	publish(t, m, first, last)
	got := receive(t, s.Patience, sub, 2)
	sendAcks(t, m, ack(got[0]), ack(got[0]))
	sendAcks(t, m, ack(got[0]))
	sendAcks(t, m, ack(got[1]))
	times := 0
	receipts(t, s.Patience, inbox, func(r mr.Receipt) bool {
		if r.Err != nil {
			t.Errorf("receipt %+v", r)
		}
		if r.Token == "first" {
			times++
		}
		return r.Token == "last"
	})
	if times < 1 || times > 3 {
		t.Errorf("three acks come as %d receipts", times)
	}
}

// ackOfEverySubscriber: whichever of an identity's subscribers acks, the sender learns it.
func (s *messagingSuite) ackOfEverySubscriber(t *testing.T) {
	m, from := s.open(t), newSender()
	inbox := s.inbox(t, m)
	subs := []mr.Subscription{s.subscribe(t, m, from.topic("a")), s.subscribe(t, m, from.topic("a")), s.subscribe(t, m, from.topic("a"))}
	for n := range subs {
		token := fmt.Sprint(n)
		message := from.message("a", token)
		message.AckTo = inbox.Address(token)
		publish(t, m, message)
		for i, sub := range subs {
			if got := receive(t, s.Patience, sub, 1)[0]; i == n {
				sendAcks(t, m, ack(got))
			}
		}
		if err := receiptsOf(t, s.Patience, inbox, token)[token]; err != nil {
			t.Error(err)
		}
	}
}

// inboxes has several inboxes, with the same tokens, under load from several subscribers.
func (s *messagingSuite) inboxes(t *testing.T) {
	m, from := s.open(t), newSender()
	const boxes, each = 4, 30
	var all []mr.Inbox
	addresses := map[string]bool{}
	for range boxes {
		inbox := s.inbox(t, m)
		all = append(all, inbox)
		addresses[inbox.Address("0")] = true
	}
	if len(addresses) != boxes {
		t.Fatalf("%d inboxes have %d addresses", boxes, len(addresses))
	}
	sub := s.subscribe(t, m, from.topic("a"))
	var working sync.WaitGroup
	defer working.Wait()
	for b, inbox := range all {
		mine := newSender()
		mine.namespace = from.namespace
		working.Go(func() {
			var batch []mr.Message
			for n := range each {
				message := mine.message("a", fmt.Sprint(b))
				message.AckTo = inbox.Address(fmt.Sprint(n))
				batch = append(batch, message)
			}
			if err := errors.Join(m.Publish(t.Context(), batch)...); err != nil {
				t.Error(err)
			}
		})
	}
	sendAcks(t, m, acksOf(receive(t, s.Patience, sub, boxes*each))...)
	for _, inbox := range all {
		var tokens []string
		for n := range each {
			tokens = append(tokens, fmt.Sprint(n))
		}
		got := receiptsOf(t, s.Patience, inbox, tokens...)
		for token, err := range got {
			if err != nil {
				t.Errorf("token %s: %v", token, err)
			}
		}
	}
}

func (s *messagingSuite) inboxClose(t *testing.T) {
	m, from := s.open(t), newSender()
	sub := s.subscribe(t, m, from.topic("a"))
	inbox, stays := s.inbox(t, m), s.inbox(t, m)
	for _, ctx := range []context.Context{cancelled(t), past(t)} {
		if _, err := inbox.Next(ctx); !isContextError(err) {
			t.Errorf("next, with an ended context: %v", err)
		}
	}
	message, other := from.message("a", ""), from.message("a", "")
	message.AckTo, other.AckTo = inbox.Address("x"), stays.Address("x")
	publish(t, m, message, other)
	got := receive(t, s.Patience, sub, 2)
	ended := make(chan error, 1)
	go func() {
		_, err := inbox.Next(t.Context())
		ended <- err
	}()
	noError(t, inbox.Close(), "close")
	select {
	case err := <-ended:
		if !errors.Is(err, io.EOF) {
			t.Errorf("next, while the inbox is closed: %v", err)
		}
	case <-time.After(s.Patience):
		t.Fatal("next waits on a closed inbox")
	}
	noError(t, inbox.Close(), "close again")
	sendAcks(t, m, acksOf(got)...)
	if _, err := inbox.Next(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("next on a closed inbox: %v", err)
	}
	if err := receiptsOf(t, s.Patience, stays, "x")["x"]; err != nil {
		t.Error(err)
	}
	s.inboxCancelled(t, m, stays, sub, from)
}

// inboxCancelled ends the contexts of Next at random moments: no ack gets lost.
func (s *messagingSuite) inboxCancelled(t *testing.T, m mr.Messaging, inbox mr.Inbox, sub mr.Subscription, from *sender) {
	t.Helper()
	var tokens []string
	var batch []mr.Message
	for n := range 100 {
		tokens = append(tokens, fmt.Sprint(n))
		message := from.message("a", "")
		message.AckTo = inbox.Address(tokens[n])
		batch = append(batch, message)
	}
	publish(t, m, batch...)
	acks := acksOf(receive(t, s.Patience, sub, len(batch)))
	var acking sync.WaitGroup
	defer acking.Wait()
	acking.Go(func() {
		for _, a := range acks {
			if err := errors.Join(m.Ack(t.Context(), []mr.Ack{a})...); err != nil {
				t.Error(err)
			}
		}
	})
	eventually(t, s.Patience, "all acks arrive", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(3*time.Millisecond))))
		defer cancel()
		got, err := inbox.Next(ctx)
		if err != nil && !isContextError(err) {
			t.Fatalf("next: %v", err)
		}
		for _, r := range got {
			tokens = slices.DeleteFunc(tokens, func(token string) bool { return token == r.Token })
		}
		return len(tokens) == 0
	})
}

// forgedAcks sends acks to what recipients may make up. They reach no subscriber, break nothing, and are errors or not.
func (s *messagingSuite) forgedAcks(t *testing.T) {
	m, from := s.open(t), newSender()
	inbox := s.inbox(t, m)
	sub := s.subscribe(t, m, from.topics("a", "b")...)
	address := inbox.Address("x")
	targets := append(HostileIdentities(), "", from.topic("a"), from.topic("b"), "prism.*", "prism.>", "prism."+from.namespace+".*",
		address[:len(address)-1], address[:len(address)/2], address+" ", address+"\r\nPUB "+from.topic("a")+" 1\r\nx\r\n", strings.ToUpper(address))
	for _, to := range targets {
		results(t, 3, m.Ack(t.Context(), []mr.Ack{
			{To: to, Identity: "a", ID: "x"},
			{To: to, Identity: "a", ID: "x", Reply: mr.Reply{Code: 1, Body: []byte("\r\nPUB " + from.topic("a") + " 1\r\nx\r\n")}},
			{To: to, Identity: "a", ID: "x", Gone: true},
		}))
	}
	s.settle(t, m, from, sub, "a")
	s.settle(t, m, from, sub, "b")
	message := from.message("a", "")
	message.AckTo = inbox.Address("real")
	publish(t, m, message)
	sendAcks(t, m, ack(receive(t, s.Patience, sub, 1)[0]))
	receipts(t, s.Patience, inbox, func(r mr.Receipt) bool { return r.Token == "real" && r.Err == nil })
}
