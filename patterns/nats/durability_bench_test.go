package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// rawStream makes a stream as plain as can be: what the benchmarks of Durability are compared with.
func rawStream(b *testing.B, url string) (js jetstream.JetStream, s jetstream.Stream, prefix string) {
	b.Helper()
	nc := raw(b, url)
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4000))
	check(b, err)
	name := testenv.Prefix(b)
	s, err = js.CreateStream(b.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{name + ".>"}, AllowDirect: true})
	check(b, err)
	b.Cleanup(func() { _ = js.DeleteStream(context.Background(), name) })
	return js, s, name + "."
}

// BenchmarkEnqueue stores a message of 128 bytes for each of as many identities. Both streams are emptied before each turn, which is
// not measured.
// Floor: PublishAsync by nats.go, of bare payloads to as many subjects, until all are acknowledged.
func BenchmarkEnqueue(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			url := testenv.NATS(b).URL
			messages := batchOf(b, n)
			ns, _, _ := mr.ParseTopic(messages[0].Topic)
			d := durability(b, opening(b, url), DurabilityConfig{Namespace: ns})
			js, s, prefix := rawStream(b, url)
			round := 0
			timed(b, n, func() {
				check(b, d.Enqueue(b.Context(), messages)...)
			}, func() {
				check(b, rawStored(js, prefix, messages)...)
			}, func() {
				round++
				for i := range messages {
					messages[i].ID = strconv.Itoa(round)
				}
				_, errs := d.queue.purge(b.Context(), 1, func(int) (string, uint64) { return d.prefix + ">", 0 })
				check(b, errors.Join(errs...), s.Purge(b.Context()))
			})
		})
	}
}

// timed is measured with something to do before each turn that counts for neither.
func timed(b *testing.B, n int, work, floor, before func()) {
	b.Helper()
	var worked, least time.Duration
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		before()
		b.StartTimer()
		worked += elapsed(work)
		b.StopTimer()
		least += elapsed(floor)
		b.StartTimer()
	}
	b.ReportMetric(float64(worked)/float64(least), "x-raw")
	b.ReportMetric(float64(least.Nanoseconds())/float64(b.N), "raw-ns/op")
	b.ReportMetric(float64(n)*float64(b.N)/worked.Seconds(), "msg/s")
}

func elapsed(work func()) time.Duration {
	start := time.Now()
	work()
	return time.Since(start)
}

func rawStored(js jetstream.JetStream, prefix string, messages []mr.Message) []error {
	var errs []error
	for i := range messages {
		_, err := js.PublishAsync(prefix+messages[i].Identity, messages[i].Payload)
		errs = append(errs, err)
	}
	<-js.PublishAsyncComplete()
	return errs
}

// BenchmarkBacklog consumes what is stored for as many identities, and acks it: of one message each, or of one identity that has
// all of them. Floor: one pull consumer of all subjects, by nats.go, that acks each message and waits for the last ack only.
func BenchmarkBacklog(b *testing.B) {
	const n = 10_000
	for _, identities := range []int{n, 1} {
		b.Run(fmt.Sprintf("%d messages of %d", n, identities), func(b *testing.B) {
			url := testenv.NATS(b).URL
			messages := batchOf(b, n)
			for i := range messages {
				messages[i].Topic, messages[i].Identity = messages[i%identities].Topic, messages[i%identities].Identity
				messages[i].ID = strconv.Itoa(i)
			}
			ns, _, _ := mr.ParseTopic(messages[0].Topic)
			d := durability(b, opening(b, url), DurabilityConfig{Namespace: ns})
			js, s, prefix := rawStream(b, url)
			timed(b, n, func() {
				consumed(b, d, topicsOf(messages[:identities]), n)
			}, func() {
				rawConsumed(b, s, n)
			}, func() {
				check(b, s.Purge(b.Context()))
				check(b, d.Enqueue(b.Context(), messages)...)
				check(b, rawStored(js, prefix, messages)...)
			})
		})
	}
}

func consumed(b *testing.B, d *Durability, topics []string, n int) {
	b.Helper()
	sub, err := d.Consume(b.Context(), topics...)
	check(b, err)
	for got := 0; got < n; {
		batch, err := sub.Next(b.Context())
		check(b, err)
		got += len(batch.Messages)
		check(b, errors.Join(d.Ack(b.Context(), acksFor(batch.Messages))...))
	}
	check(b, sub.Close())
}

func rawConsumed(b *testing.B, s jetstream.Stream, n int) {
	b.Helper()
	c, err := s.CreateConsumer(b.Context(), jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1})
	check(b, err)
	for got := 0; got < n; {
		batch, err := c.FetchNoWait(n - got)
		check(b, err)
		for m := range batch.Messages() {
			if got++; got == n {
				check(b, m.DoubleAck(b.Context()))
			} else {
				check(b, m.Ack())
			}
		}
	}
	check(b, s.DeleteConsumer(b.Context(), c.CachedInfo().Name))
}

// BenchmarkIdle adds as many identities for which nothing is stored, until all have caught up, while 20,000 messages are stored for
// others, and closes the subscription. Floor: subscribing as many subjects by nats.go, and one Flush.
func BenchmarkIdle(b *testing.B) {
	const n = 10_000
	url := testenv.NATS(b).URL
	messages := batchOf(b, n)
	ns, _, _ := mr.ParseTopic(messages[0].Topic)
	d := durability(b, opening(b, url), DurabilityConfig{Namespace: ns})
	for i := range 2 {
		for j := range messages {
			messages[j].ID = strconv.Itoa(i)
		}
		check(b, d.Enqueue(b.Context(), messages)...)
	}
	topics := make([]string, n)
	for i := range topics {
		topics[i] = mr.Topic(ns, fmt.Sprintf("idle-%05d", i))
	}
	nc, in, subs := raw(b, url), make(chan *nats.Msg, 1), make([]*nats.Subscription, n)
	measured(b, n, func() {
		sub, err := d.Consume(b.Context(), topics...)
		check(b, err)
		for said := 0; said < n; {
			batch, err := sub.Next(b.Context())
			check(b, err)
			said += len(batch.CaughtUp)
		}
		check(b, sub.Close())
	}, func() {
		var err error
		for i, topic := range topics {
			subs[i], err = nc.ChanSubscribe("q"+topic[1:], in)
			check(b, err)
		}
		check(b, nc.Flush())
		for _, sub := range subs {
			check(b, sub.Unsubscribe())
		}
	})
}
