package redis

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// BenchmarkMulticast publishes to 100 and 1,000 identities and waits until all of them have received the message, and with
// acks until the sender has an ack of each. Peer: the same payloads, by the driver alone, in one pipeline of PUBLISH to a
// connection that has subscribed as many channels and counts. x-peer is how many times longer ours takes.
func BenchmarkMulticast(b *testing.B) {
	for _, size := range []int{100, 1000} {
		for _, acks := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d/acks=%v", size, acks), func(b *testing.B) { benchmarkMulticast(b, size, acks) })
		}
	}
}

func benchmarkMulticast(b *testing.B, size int, acks bool) {
	b.Helper()
	c := shared(b)
	m := messaging(b, c)
	namespace := testenv.Prefix(b)
	payload := make([]byte, 256)
	in, err := m.Inbox(b.Context())
	noError(b, err)
	defer in.Close()
	batch := make([]mr.Message, size)
	topics := make([]string, size)
	for i := range batch {
		id := fmt.Sprint("user-", i)
		batch[i] = mr.Message{
			Topic: mr.Topic(namespace, id), Identity: id, ID: "01JDZ6Y3T5W2", ContentType: "application/json", Payload: payload,
			SentAt: time.UnixMilli(1),
		}
		if acks {
			batch[i].AckTo = in.Address(fmt.Sprint("1.", i))
		}
		topics[i] = batch[i].Topic
	}
	sub, err := m.Subscribe(b.Context(), topics...)
	noError(b, err)
	defer sub.Close()
	raw := rawMulticast(b, c, namespace, size, payload)
	b.ReportAllocs()
	for b.Loop() {
		noError(b, errors.Join(m.Publish(b.Context(), batch)...))
		receiveAll(b, m, sub, in, size, acks)
	}
	took := b.Elapsed()
	start := time.Now()
	for range b.N {
		raw()
	}
	b.ReportMetric(float64(took)/float64(max(time.Since(start), 1)), "x-peer")
	b.ReportMetric(float64(size)*float64(b.N)/took.Seconds(), "messages/s")
}

// receiveAll is the recipients, and the sender that waits for their acks.
func receiveAll(b *testing.B, m *Messaging, sub mr.Subscription, in mr.Inbox, size int, acks bool) {
	b.Helper()
	for got := 0; got < size; {
		received, err := sub.Next(b.Context())
		noError(b, err)
		got += len(received.Messages)
		if acks {
			answers := make([]mr.Ack, len(received.Messages))
			for i, message := range received.Messages {
				answers[i] = mr.Ack{To: message.AckTo, Identity: message.Identity, ID: message.ID}
			}
			noError(b, errors.Join(m.Ack(b.Context(), answers)...))
		}
	}
	for got := 0; acks && got < size; {
		receipts, err := in.Next(b.Context())
		noError(b, err)
		got += len(receipts)
	}
}

// rawMulticast returns the peer's work.
func rawMulticast(b *testing.B, c *Conn, namespace string, size int, payload []byte) func() {
	b.Helper()
	channels := make([]string, size)
	for i := range channels {
		channels[i] = fmt.Sprint("raw.", namespace, ".", i)
	}
	subscriber, release := c.write.Dedicate()
	b.Cleanup(release)
	var count atomic.Int64
	all := make(chan struct{}, 1)
	subscriber.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: func(rueidis.PubSubMessage) {
		if count.Add(1)%int64(size) == 0 {
			all <- struct{}{}
		}
	}})
	noError(b, subscriber.Do(b.Context(), subscriber.B().Subscribe().Channel(channels...).Build()).Error())
	return func() {
		commands := make(rueidis.Commands, size)
		for i, channel := range channels {
			commands[i] = c.write.B().Publish().Channel(channel).Message(rueidis.BinaryString(payload)).Build()
		}
		for _, result := range c.write.DoMulti(b.Context(), commands...) {
			noError(b, result.Error())
		}
		<-all
	}
}
