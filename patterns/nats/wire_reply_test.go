package nats

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// TestForeignReplies answers by means of nats.go alone, in every form that a reply may have.
func TestForeignReplies(t *testing.T) {
	t.Parallel()
	url, ns := testenv.NATS(t).URL, testenv.Prefix(t)
	m := messaging(opening(t, url))
	in, err := m.Inbox(within(t))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync(mr.Topic(ns, "a"))
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", mr.MaxReplyBytes+1)
	pubAck := `{"stream":"S","seq":1}`
	for _, row := range []struct {
		header, value, body string
		want                mr.Receipt
	}{
		{want: mr.Receipt{}},
		{body: "hello", want: mr.Receipt{Reply: mr.Reply{Body: []byte("hello")}}},
		{body: long, want: mr.Receipt{Reply: mr.Reply{Body: []byte(long[1:])}}},
		{headerReplyCode, "7", "", mr.Receipt{Reply: mr.Reply{Code: 7}}},
		{headerReplyCode, "4294967295", "b", mr.Receipt{Reply: mr.Reply{Code: 1<<32 - 1, Body: []byte("b")}}},
		{headerReplyCode, "4294967296", "b", mr.Receipt{Reply: mr.Reply{Body: []byte("b")}}},
		{headerReplyCode, "many", "", mr.Receipt{}},
		{headerReplyCode, "0", pubAck, mr.Receipt{Reply: mr.Reply{Body: []byte(pubAck)}}},
		{headerGone, "true", "", mr.Receipt{Err: mr.ErrGone}},
		{headerGone, "no", "", mr.Receipt{}},
	} {
		sent := message(ns, "a", "question")
		sent.AckTo, sent.Once = in.Address("1"), true
		if err := m.Publish(within(t), []mr.Message{sent})[0]; err != nil {
			t.Fatal(err)
		}
		got, err := sub.NextMsgWithContext(within(t))
		if err != nil || first(got.Header, headerDelivery) != deliveryOnce {
			t.Fatal(got, err)
		}
		answers := []*nats.Msg{{Subject: got.Reply, Data: []byte(row.body)}}
		if row.header != "" {
			answers[0].Header = nats.Header{row.header: {row.value}}
		}
		if row.header == "" && row.body == "" { // a stream's acknowledgement is passed over
			answers = append([]*nats.Msg{{Subject: got.Reply, Data: []byte(pubAck)}}, answers...)
		}
		for _, answer := range answers {
			if err := nc.PublishMsg(answer); err != nil {
				t.Fatal(err)
			}
		}
		receipts, err := in.Next(within(t))
		if err != nil || len(receipts) != 1 {
			t.Fatal(receipts, err)
		}
		r := receipts[0]
		if r.Reply.Code != row.want.Reply.Code || !bytes.Equal(r.Reply.Body, row.want.Reply.Body) || !errors.Is(r.Err, row.want.Err) {
			t.Errorf("%s: %s %.20q is received as %+v", row.header, row.value, row.body, r)
		}
	}
	tooLong := mr.Ack{To: in.Address("1"), Reply: mr.Reply{Body: []byte(long)}}
	if err := m.Ack(within(t), []mr.Ack{tooLong})[0]; !errors.Is(err, mr.ErrTooLarge) {
		t.Errorf("a reply that is too long: %v", err)
	}
}
