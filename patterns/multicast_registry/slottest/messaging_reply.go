package slottest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"testing"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// replies acks one batch of messages in one call, with every kind of reply and without: each ack keeps its own.
func (s *messagingSuite) replies(t *testing.T) {
	t.Run("One", func(t *testing.T) {
		m := s.open(t)
		s.reply(t, m, m)
	})
	t.Run("Pair", func(t *testing.T) {
		if s.OpenPair == nil {
			t.Skip("MessagingOptions.OpenPair is not set")
		}
		a, b := s.OpenPair(t)
		s.reply(t, a, b)
		s.reply(t, b, a)
	})
	t.Run("ManyLarge", s.largeReplies)
}

func someReplies() []mr.Reply {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	longest := make([]byte, mr.MaxReplyBytes)
	_, _ = rand.Read(longest)
	out := []mr.Reply{
		{},
		{Code: 1},
		{Body: []byte("fine")},
		{Body: []byte{}},
		{Code: 7, Body: []byte{}},
		{Code: math.MaxUint32, Body: every},
		{Body: []byte{0}},
		{Code: 10, Body: []byte("\r\n")},
		{Code: 13, Body: []byte("+OK\r\nPUB x 1\r\nx\r\n")},
		{Code: 255, Body: []byte(" ")},
		{Code: 256, Body: []byte("日本 😀")},
		{Code: 65536, Body: []byte(`{"ok":true}`)},
		{Body: longest},
		{Code: math.MaxUint32 - 1, Body: bytes.Repeat([]byte{0xff}, mr.MaxReplyBytes)},
	}
	for n := range 200 { // with and without, alternately
		r := mr.Reply{Code: uint32(n)}
		if n%2 == 0 {
			r = mr.Reply{}
		} else if n%3 == 0 {
			r.Body = fmt.Append(nil, n)
		}
		out = append(out, r)
	}
	return out
}

// reply sends from one slot to the other, which are the same or two processes'.
func (s *messagingSuite) reply(t *testing.T, sends, acks mr.Messaging) {
	t.Helper()
	from := newSender()
	inbox := s.inbox(t, sends)
	sub := s.subscribe(t, acks, from.topics("a", "b")...)
	want := map[string]mr.Receipt{}
	var sent []mr.Message
	for n, r := range someReplies() {
		token := fmt.Sprint(n)
		want[token] = mr.Receipt{Token: token, Reply: r}
		message := from.message([]string{"a", "b"}[n%2], token)
		message.AckTo = inbox.Address(token)
		sent = append(sent, message)
	}
	publish(t, sends, sent...)
	var out []mr.Ack
	for _, got := range receive(t, s.Patience, sub, len(sent)) {
		a := ack(got)
		a.Reply = want[string(got.Payload)].Reply
		out = append(out, a)
	}
	sendAcks(t, acks, out[:10]...)
	sendAcks(t, acks, out[10:]...)
	s.wantReceipts(t, inbox, want)
}

// wantReceipts reads receipts until each token has one, and fails the test unless they are as wanted. Repeats are passed over.
func (s *messagingSuite) wantReceipts(t *testing.T, inbox mr.Inbox, want map[string]mr.Receipt) {
	t.Helper()
	seen := map[string]bool{}
	receipts(t, s.Patience, inbox, func(got mr.Receipt) bool {
		w, known := want[got.Token]
		switch {
		case !known:
			t.Errorf("a receipt for token %q, which nobody acked: %v", got.Token, got.Err)
		case !errors.Is(got.Err, w.Err) || (got.Err == nil) != (w.Err == nil):
			t.Errorf("token %s: %v, want %v", got.Token, got.Err, w.Err)
		case got.Reply.Code != w.Reply.Code || !bytes.Equal(got.Reply.Body, w.Reply.Body):
			t.Errorf("token %s: code %d and %d bytes, want %d and %d, or others of them", got.Token, got.Reply.Code, len(got.Reply.Body),
				w.Reply.Code, len(w.Reply.Body))
		}
		seen[got.Token] = true
		return len(seen) >= len(want)
	})
}

// largeReplies has 500 replies of the largest size under way at once: more than a buffer of a connection holds.
func (s *messagingSuite) largeReplies(t *testing.T) {
	m, from := s.open(t), newSender()
	inbox := s.inbox(t, m)
	const many = 500
	want := map[string]mr.Receipt{}
	acks := make([]mr.Ack, many)
	for n := range acks {
		body := make([]byte, mr.MaxReplyBytes)
		_, _ = rand.Read(body)
		token := fmt.Sprint(n)
		want[token] = mr.Receipt{Token: token, Reply: mr.Reply{Code: uint32(n), Body: body}}
	}
	sub := s.subscribe(t, m, from.topic("a"))
	for n := 0; n < many; n += 100 {
		var sent []mr.Message
		for i := n; i < n+100; i++ {
			message := from.message("a", fmt.Sprint(i))
			message.AckTo = inbox.Address(fmt.Sprint(i))
			sent = append(sent, message)
		}
		publish(t, m, sent...)
		for i, got := range receive(t, s.Patience, sub, 100) {
			acks[n+i] = ack(got)
			acks[n+i].Reply = want[string(got.Payload)].Reply
		}
	}
	sendAcks(t, m, acks...)
	s.wantReceipts(t, inbox, want)
}

// gone gives messages back, among acks: each sender learns what became of its own.
func (s *messagingSuite) gone(t *testing.T) {
	m, from := s.open(t), newSender()
	inbox := s.inbox(t, m)
	sub := s.subscribe(t, m, from.topic("a"))
	want := map[string]mr.Receipt{}
	var sent []mr.Message
	for n := range 60 {
		token := fmt.Sprint(n)
		want[token] = []mr.Receipt{
			{Token: token},
			{Token: token, Err: mr.ErrGone},
			{Token: token, Reply: mr.Reply{Code: 3, Body: []byte(token)}},
		}[n%3]
		message := from.message("a", token)
		message.AckTo = inbox.Address(token)
		sent = append(sent, message)
	}
	publish(t, m, sent...)
	var acks []mr.Ack
	for _, got := range receive(t, s.Patience, sub, len(sent)) {
		a, w := ack(got), want[string(got.Payload)]
		a.Reply, a.Gone = w.Reply, w.Err != nil
		acks = append(acks, a)
	}
	noError(t, sub.Close(), "close") // whoever gives back has left, as a rule
	sendAcks(t, m, acks...)
	s.wantReceipts(t, inbox, want)

	for _, ctx := range []context.Context{cancelled(t), past(t)} {
		for _, err := range results(t, 1, m.Ack(ctx, []mr.Ack{{To: inbox.Address("x"), Identity: "a", ID: "x", Gone: true}})) {
			if err != nil && !isContextError(err) {
				t.Errorf("giving back with an ended context: %v", err)
			}
		}
	}
	left := s.inbox(t, m)
	address := left.Address("x")
	noError(t, left.Close(), "close")
	sendAcks(t, m, mr.Ack{To: address, Identity: "a", ID: "x", Gone: true})
}
