package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/mailbox"
)

var acksOfAllKinds = []mr.Ack{
	{To: "a"},
	{To: strings.Repeat("a.", maxTokenBytes/2), Reply: mr.Reply{Code: 1}},
	{To: "b", Reply: mr.Reply{Body: []byte("hello world")}},
	{To: "c", Gone: true},
	{To: "1.7", Reply: mr.Reply{Code: math.MaxUint32, Body: bytes.Repeat([]byte(" :!\x00"), mr.MaxReplyBytes/4)}},
	{To: "d", Reply: mr.Reply{Body: []byte(" ")}},
	{To: "e"},
}

func sameReceipt(got mr.Receipt, want mr.Ack) bool {
	return got.Token == want.To && got.Reply.Code == want.Reply.Code && bytes.Equal(got.Reply.Body, want.Reply.Body) &&
		errors.Is(got.Err, mr.ErrGone) == want.Gone && (got.Err == nil) == !want.Gone
}

// published returns some acks as they are published together.
func published(acks []mr.Ack) string {
	var text []byte
	for i := range acks {
		text = appendAck(text, acks[i].To, &acks[i])
	}
	return string(text)
}

func received(t testing.TB, text string) []mr.Receipt {
	t.Helper()
	receipts := mailbox.NewReceipts()
	deliverAcks(receipts, text)
	receipts.Put(mr.Receipt{Token: "end"})
	all, err := receipts.Next(t.Context())
	noError(t, err)
	return all[:len(all)-1]
}

func TestPublishedAcks(t *testing.T) {
	t.Parallel()
	if text := published(acksOfAllKinds[2:4]); text != "b:0:11:hello world c!" {
		t.Errorf("published is %q", text)
	}
	if text := published([]mr.Ack{{To: "a"}, {To: "b"}}); text != "a b" {
		t.Errorf("published is %q", text)
	}
	got := received(t, published(acksOfAllKinds))
	if len(got) != len(acksOfAllKinds) {
		t.Fatalf("%d of %d acks arrive", len(got), len(acksOfAllKinds))
	}
	for i := range got {
		if !sameReceipt(got[i], acksOfAllKinds[i]) {
			t.Errorf("%+v arrives as %+v", acksOfAllKinds[i], got[i])
		}
	}
	for text, want := range map[string]int{
		"": 0, " ": 0, "a": 1, "a  b": 2, " a": 1, "a ": 1, "ä b": 1, strings.Repeat("a", maxTokenBytes+1) + " b": 1, "a!x b": 1, "a! b": 2,
		"a: b": 1, "a:1 b": 1, "a:1:1 b": 1, "a:1:1: b": 0, "a:1:2:xy b": 2, "a:1:2:xyz b": 1, "a:1:3:xy": 0, "a:-1:0: b": 1, "a:4294967296:0: b": 1,
		"a:0:0: b": 2, fmt.Sprint("a:0:", mr.MaxReplyBytes+1, ":", strings.Repeat("x", mr.MaxReplyBytes+1)): 0, "a:0:9999999999999999999999:x b": 1,
	} {
		got := received(t, text)
		got = slices.DeleteFunc(got, func(r mr.Receipt) bool { return r.Token != "a" && r.Token != "b" })
		if len(got) != want {
			t.Errorf("%q: %d acks arrive, want %d: %+v", text, len(got), want, got)
		}
	}
}

func FuzzPublishedAcks(f *testing.F) {
	f.Add("")
	f.Add(published(acksOfAllKinds))
	f.Add("a:1:2:x b!x c: d:1:1:1")
	f.Fuzz(func(t *testing.T, text string) {
		for _, receipt := range received(t, text) {
			ack := mr.Ack{To: receipt.Token, Reply: receipt.Reply, Gone: receipt.Err != nil}
			again := received(t, published([]mr.Ack{ack}))
			if len(again) != 1 || !sameReceipt(again[0], ack) {
				t.Fatalf("%q: %+v, then %+v", text, receipt, again)
			}
		}
	})
}

// TestParcels divides acks among PUBLISHes, of a bounded size each.
func TestParcels(t *testing.T) {
	t.Parallel()
	topic := inboxPrefix + strings.Repeat("A", inboxNameBytes)
	acks := make([]mr.Ack, 3000)
	for i := range acks {
		acks[i].To = topic + " " + fmt.Sprint(i)
	}
	results := make([]error, len(acks))
	if parcels := pack(acks, results); len(parcels) != 3 || string(parcels[0].published[:8]) != "0 1 2 3 " {
		t.Errorf("%d parcels of plain acks", len(parcels))
	}
	for i := range acks {
		acks[i].Reply.Body = make([]byte, mr.MaxReplyBytes)
	}
	acks[7].Reply.Body = make([]byte, mr.MaxReplyBytes+1)
	packed := 0
	for _, p := range pack(acks, results) {
		packed += len(p.acks)
		if len(p.published) > ackBytes+100 {
			t.Errorf("a parcel of %d bytes", len(p.published))
		}
	}
	if packed != len(acks)-1 || !errors.Is(results[7], mr.ErrTooLarge) {
		t.Errorf("%d acks are packed, one too large is %v", packed, results[7])
	}
}

// TestManyReplies sends 4,000 acks with bodies at once.
func TestManyReplies(t *testing.T) {
	t.Parallel()
	m := messaging(t, shared(t))
	in, err := m.Inbox(t.Context())
	noError(t, err)
	defer in.Close()
	const many = 4000
	acks := make([]mr.Ack, many)
	for i := range acks {
		acks[i] = mr.Ack{To: in.Address(fmt.Sprint(i)), Reply: mr.Reply{Code: uint32(i), Body: bytes.Repeat([]byte{byte(i)}, mr.MaxReplyBytes)}}
	}
	noError(t, errors.Join(m.Ack(t.Context(), acks)...))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for got := 0; got < many; {
		receipts, err := in.Next(ctx)
		noError(t, err)
		for _, receipt := range receipts {
			if receipt.Token != fmt.Sprint(got) || receipt.Reply.Code != uint32(got) || len(receipt.Reply.Body) != mr.MaxReplyBytes ||
				receipt.Reply.Body[0] != byte(got) {
				t.Fatalf("reply %d: token %s, code %d", got, receipt.Token, receipt.Reply.Code)
			}
			got++
		}
	}
}

// TestOnce has the flag travel.
func TestOnce(t *testing.T) {
	t.Parallel()
	c := shared(t)
	m, d := messaging(t, c), durability(t, c, DurabilityConfig{})
	namespace := testenv.Prefix(t)
	live, err := m.Subscribe(t.Context(), mr.Topic(namespace, "a"))
	noError(t, err)
	defer live.Close()
	kept, err := d.Consume(t.Context(), mr.Topic(namespace, "a"))
	noError(t, err)
	defer kept.Close()
	for _, once := range []bool{true, false} {
		sent := message(namespace, "a", fmt.Sprint(once))
		sent.Once = once
		noError(t, m.Publish(t.Context(), []mr.Message{sent})[0])
		send(t, d, sent)
		if next(t, live).Once != once || receive(t, kept, 1)[0].Once != once {
			t.Errorf("once %v does not arrive", once)
		}
	}
}

// TestLateAcks lets acks and notices arrive for what has been left and is not unsubscribed yet: nothing takes them.
func TestLateAcks(t *testing.T) {
	for _, notices := range []bool{false, true} {
		l := &lane{channels: map[string]*channel{inboxPrefix + "left": {topic: inboxPrefix + "left", subscribed: true}}, notices: notices}
		l.link = &link{lane: l}
		l.link.onMessage(rueidis.PubSubMessage{Channel: inboxPrefix + "left", Message: "abc def!"})
		if len(l.changed) > 0 || len(l.channels) != 1 {
			t.Errorf("notices %v: %v", notices, l.channels)
		}
	}
}
