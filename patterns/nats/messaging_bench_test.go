package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// measured runs the work and its floor in turns, and reports how much longer the work takes.
func measured(b *testing.B, n int, work, floor func()) {
	b.Helper()
	work()
	floor()
	var worked, least time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		work()
		between := time.Now()
		b.StopTimer()
		floor()
		worked, least = worked+between.Sub(start), least+time.Since(between)
		b.StartTimer()
	}
	b.ReportMetric(float64(worked)/float64(least), "x-raw")
	b.ReportMetric(float64(least.Nanoseconds())/float64(b.N), "raw-ns/op")
	b.ReportMetric(float64(n)*float64(b.N)/worked.Seconds(), "msg/s")
}

const payload = 128

func batchOf(b *testing.B, n int) []mr.Message {
	b.Helper()
	ns := testenv.Prefix(b)[:12] + strconv.Itoa(n)
	messages := make([]mr.Message, n)
	at := time.Now().Truncate(time.Millisecond)
	for i := range messages {
		id := fmt.Sprintf("device-%05d", i)
		messages[i] = mr.Message{
			Topic: mr.Topic(ns, id), Identity: id, ID: "01JD4Z7Q5T8W9X0Y1Z2A3B4C5D", ContentType: "application/json",
			Payload: make([]byte, payload), SentAt: at,
		}
	}
	return messages
}

func raw(b *testing.B, url string) *nats.Conn {
	b.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nc.Close)
	return nc
}

// rawSubjects are as long as the topics.
func rawSubjects(messages []mr.Message) []string {
	subjects := make([]string, len(messages))
	for i := range messages {
		subjects[i] = "q" + messages[i].Topic[1:]
	}
	return subjects
}

func check(b *testing.B, errs ...error) {
	if err := errors.Join(errs...); err != nil {
		b.Fatal(err)
	}
}

var sizes = []int{10, 100, 1_000, 10_000}

// BenchmarkAccepted publishes a batch of 128 bytes each to as many topics, which nobody receives, until the server has it.
// Floor: Publish of bare payloads and Flush, by nats.go itself.
func BenchmarkAccepted(b *testing.B) {
	for _, n := range sizes {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			url := testenv.NATS(b).URL
			m, messages, nc := messaging(opening(b, url)), batchOf(b, n), raw(b, url)
			subjects := rawSubjects(messages)
			measured(b, n, func() {
				check(b, m.Publish(b.Context(), messages)...)
			}, func() {
				for i, subject := range subjects {
					check(b, nc.Publish(subject, messages[i].Payload))
				}
				check(b, nc.Flush())
			})
		})
	}
}

// BenchmarkReceived publishes a batch until another connection's subscription of all topics has it. Floor: the same with
// nats.go, bare payloads, and one channel.
func BenchmarkReceived(b *testing.B) {
	for _, n := range sizes {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			url := testenv.NATS(b).URL
			m, messages := messaging(opening(b, url)), batchOf(b, n)
			sub, err := messaging(opening(b, url)).Subscribe(b.Context(), topicsOf(messages)...)
			check(b, err)
			b.Cleanup(func() { sub.Close() })
			nc, rc, in := raw(b, url), raw(b, url), make(chan *nats.Msg, 1<<16)
			subjects := rawSubjects(messages)
			for _, subject := range subjects {
				_, err := rc.ChanSubscribe(subject, in)
				check(b, err)
			}
			check(b, rc.Flush())
			measured(b, n, func() {
				check(b, m.Publish(b.Context(), messages)...)
				for got := 0; got < n; {
					batch, err := sub.Next(b.Context())
					check(b, err)
					got += len(batch.Messages)
				}
			}, func() {
				for i, subject := range subjects {
					check(b, nc.Publish(subject, messages[i].Payload))
				}
				check(b, nc.Flush())
				for range n {
					<-in
				}
			})
		})
	}
}

func topicsOf(messages []mr.Message) []string {
	topics := make([]string, len(messages))
	for i := range messages {
		topics[i] = messages[i].Topic
	}
	return topics
}

// BenchmarkAcked publishes a batch until all acks are back, from a subscription of all topics on another connection. Floor:
// the same with nats.go, bare payloads, one channel and one wildcard inbox.
func BenchmarkAcked(b *testing.B) {
	for _, n := range sizes {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			url := testenv.NATS(b).URL
			m, messages := messaging(opening(b, url)), batchOf(b, n)
			in, err := m.Inbox(b.Context())
			check(b, err)
			b.Cleanup(func() { in.Close() })
			for i := range messages {
				messages[i].AckTo = in.Address("1." + strconv.Itoa(i))
			}
			acking(b, messaging(opening(b, url)), messages)
			floor := rawAcked(b, url, messages)
			measured(b, n, func() {
				check(b, m.Publish(b.Context(), messages)...)
				for got := 0; got < n; {
					receipts, err := in.Next(b.Context())
					check(b, err)
					got += len(receipts)
				}
			}, floor)
		})
	}
}

// acking acks whatever comes for the messages' topics.
func acking(b *testing.B, m *Messaging, messages []mr.Message) {
	b.Helper()
	sub, err := m.Subscribe(b.Context(), topicsOf(messages)...)
	check(b, err)
	var running sync.WaitGroup
	b.Cleanup(func() {
		sub.Close()
		running.Wait()
	})
	running.Go(func() {
		for {
			batch, err := sub.Next(context.Background())
			if err != nil {
				return
			}
			acks := make([]mr.Ack, len(batch.Messages))
			for i, got := range batch.Messages {
				acks[i] = mr.Ack{To: got.AckTo, Identity: got.Identity, ID: got.ID}
			}
			if err := errors.Join(m.Ack(context.Background(), acks)...); err != nil {
				b.Error(err)
			}
		}
	})
}

// rawAcked returns what publishes the payloads and waits for all acks, by means of nats.go.
func rawAcked(b *testing.B, url string, messages []mr.Message) func() {
	b.Helper()
	nc, rc, received, acks := raw(b, url), raw(b, url), make(chan *nats.Msg, 1<<16), make(chan *nats.Msg, 1<<16)
	subjects, inbox := rawSubjects(messages), nats.NewInbox()
	for _, subject := range subjects {
		_, err := rc.ChanSubscribe(subject, received)
		check(b, err)
	}
	_, err := nc.ChanSubscribe(inbox+".*", acks)
	check(b, err, rc.Flush(), nc.Flush())
	var running sync.WaitGroup
	b.Cleanup(func() {
		rc.Close()
		close(received)
		running.Wait()
	})
	running.Go(func() {
		for m := range received {
			if err := rc.Publish(m.Reply, nil); err != nil {
				b.Error(err)
			}
		}
	})
	return func() {
		for i, subject := range subjects {
			check(b, nc.PublishRequest(subject, inbox+"."+strconv.Itoa(i), messages[i].Payload))
		}
		check(b, nc.Flush())
		for range subjects {
			<-acks
		}
	}
}

// BenchmarkSubscribe opens a subscription of as many topics and closes it. Floor: the same with nats.go, and one Flush.
func BenchmarkSubscribe(b *testing.B) {
	for _, n := range sizes {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			url := testenv.NATS(b).URL
			m, messages, nc := messaging(opening(b, url)), batchOf(b, n), raw(b, url)
			topics, subjects, in := topicsOf(messages), rawSubjects(messages), make(chan *nats.Msg, 1)
			subs := make([]*nats.Subscription, n)
			measured(b, n, func() {
				sub, err := m.Subscribe(b.Context(), topics...)
				check(b, err, sub.Close())
			}, func() {
				var err error
				for i, subject := range subjects {
					subs[i], err = nc.ChanSubscribe(subject, in)
					check(b, err)
				}
				check(b, nc.Flush())
				for _, sub := range subs {
					check(b, sub.Unsubscribe())
				}
			})
		})
	}
}
