package redis

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const benchTopics = 10_000

// benchMessages returns a message of 256 bytes for each of 10,000 identities.
func benchMessages(namespace string) (messages []mr.Message, topics []string) {
	payload := make([]byte, 256)
	for n := range benchTopics {
		id := fmt.Sprint("user-", n)
		topic := mr.Topic(namespace, id)
		messages = append(messages, mr.Message{
			Topic: topic, Identity: id, ContentType: "application/json", Payload: payload, SentAt: time.UnixMilli(1),
		})
		topics = append(topics, topic)
	}
	return messages, topics
}

// BenchmarkEnqueue stores a message for each of 10,000 identities: of which nobody is attached, or all to one consumer of
// another process. Peer: a pipeline of XADD of the same frames to as many streams, over the same connection, in the same run.
func BenchmarkEnqueue(b *testing.B) {
	for _, attached := range []bool{false, true} {
		b.Run(fmt.Sprintf("attached=%v", attached), func(b *testing.B) {
			c := connect(b, Config{Host: testenv.NewRedis(b).Addr})
			cfg := DurabilityConfig{Namespace: "bench"}
			d := durability(b, c, cfg)
			messages, topics := benchMessages("bench")
			if attached {
				sub, err := durability(b, c, cfg).Consume(b.Context(), topics...)
				noError(b, err)
				defer sub.Close()
			}
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				n++
				for i := range messages {
					messages[i].ID = "01JDZ6Y3T5W2" + strconv.Itoa(n)
				}
				noError(b, errors.Join(d.Enqueue(b.Context(), messages)...))
			}
			took := b.Elapsed()
			raw := time.Duration(0)
			for range b.N {
				raw += rawXadd(b, c, messages)
			}
			b.ReportMetric(float64(took)/float64(raw), "x-raw")
			b.ReportMetric(float64(len(messages))*float64(b.N)/took.Seconds(), "messages/s")
		})
	}
}

// rawXadd is the peer's work.
func rawXadd(b *testing.B, c *Conn, messages []mr.Message) time.Duration {
	b.Helper()
	start := time.Now()
	commands := make(rueidis.Commands, 0, commandsAtOnce)
	for i := range messages {
		commands = append(commands, c.write.B().Xadd().Key("{raw}:"+messages[i].Topic).Id("*").FieldValue().
			FieldValue("f", rueidis.BinaryString(encodeFrame(&messages[i]))).Build())
		if len(commands) == commandsAtOnce || i == len(messages)-1 {
			for _, result := range c.write.DoMulti(b.Context(), commands...) {
				noError(b, result.Error())
			}
			commands = commands[:0]
		}
	}
	return time.Since(start)
}

// BenchmarkBacklog has a consumer attach for 10,000 identities and read and ack a message of each, or for one with 10,000
// messages. Peer: the driver reads as many entries with XRANGE, and deletes them with XDEL, in pipelines.
func BenchmarkBacklog(b *testing.B) {
	for _, topics := range []int{benchTopics, 1} {
		b.Run(fmt.Sprintf("topics=%d", topics), func(b *testing.B) {
			c := connect(b, Config{Host: testenv.NewRedis(b).Addr})
			d := durability(b, c, DurabilityConfig{Namespace: "bench"})
			messages, names := benchMessages("bench")
			if topics == 1 {
				for i := range messages {
					messages[i].Topic, messages[i].Identity = names[0], messages[0].Identity
				}
				names = names[:1]
			}
			var raw, attach time.Duration
			for b.Loop() {
				b.StopTimer()
				for i := range messages {
					messages[i].ID = "01JDZ6Y3T5W2" + strconv.Itoa(i)
				}
				noError(b, errors.Join(d.Enqueue(b.Context(), messages)...))
				rawXadd(b, c, messages)
				raw += rawBacklog(b, c, names)
				b.StartTimer()
				start := time.Now()
				sub, err := d.Consume(b.Context(), names...)
				noError(b, err)
				attach += time.Since(start)
				for got := 0; got < len(messages); {
					batch, err := sub.Next(b.Context())
					noError(b, err)
					acks := make([]mr.Ack, len(batch.Messages))
					for i, message := range batch.Messages {
						acks[i] = mr.Ack{To: message.AckTo, Identity: message.Identity, ID: message.ID}
					}
					noError(b, errors.Join(d.Ack(b.Context(), acks)...))
					got += len(acks)
				}
				b.StopTimer()
				noError(b, sub.Close())
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed())/float64(raw), "x-raw")
			b.ReportMetric(float64(attach.Microseconds())/1000/float64(b.N), "attach-ms")
			b.ReportMetric(float64(len(messages))*float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

// rawBacklog is the peer's work.
func rawBacklog(b *testing.B, c *Conn, topics []string) time.Duration {
	b.Helper()
	start := time.Now()
	each := benchTopics / len(topics)
	for len(topics) > 0 {
		some := topics[:min(commandsAtOnce, len(topics))]
		topics = topics[len(some):]
		reads := make(rueidis.Commands, len(some))
		for i, topic := range some {
			reads[i] = c.write.B().Xrange().Key("{raw}:" + topic).Start("-").End("+").Count(int64(each)).Build()
		}
		deletes := make(rueidis.Commands, 0, benchTopics)
		for i, result := range c.write.DoMulti(b.Context(), reads...) {
			entries, err := result.AsXRange()
			noError(b, err)
			for _, entry := range entries {
				deletes = append(deletes, c.write.B().Xdel().Key("{raw}:"+some[i]).Id(entry.ID).Build())
			}
		}
		for len(deletes) > 0 {
			n := min(commandsAtOnce, len(deletes))
			for _, result := range c.write.DoMulti(b.Context(), deletes[:n]...) {
				noError(b, result.Error())
			}
			deletes = deletes[n:]
		}
	}
	return time.Since(start)
}

// BenchmarkIdleTopics measures what 10,000 topics without messages cost a consumer: the time of Add, the memory of this process
// and of Redis for each.
func BenchmarkIdleTopics(b *testing.B) {
	c := connect(b, Config{Host: testenv.NewRedis(b).Addr})
	d := durability(b, c, DurabilityConfig{Namespace: "bench"})
	_, topics := benchMessages("bench")
	var here, there uint64
	for b.Loop() {
		b.StopTimer()
		here, there = heap(), used(b, c)
		b.StartTimer()
		sub, err := d.Consume(b.Context(), topics...)
		noError(b, err)
		b.StopTimer()
		if n := caughtUp(b, sub); n != len(topics) {
			b.Fatalf("%d topics are caught up", n)
		}
		here, there = heap()-here, used(b, c)-there
		noError(b, sub.Close())
		b.StartTimer()
	}
	b.ReportMetric(float64(here)/benchTopics, "B/topic")
	b.ReportMetric(float64(there)/benchTopics, "redis-B/topic")
}

// caughtUp reads one batch, and returns how many topics it mentions.
func caughtUp(b *testing.B, sub mr.Subscription) int {
	b.Helper()
	batch, err := sub.Next(b.Context())
	noError(b, err)
	return len(batch.CaughtUp)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// used returns how much memory Redis uses.
func used(b *testing.B, c *Conn) uint64 {
	b.Helper()
	_, after, _ := strings.Cut(text(b, c, "INFO", "memory"), "used_memory:")
	value, _, _ := strings.Cut(after, "\r\n")
	n, err := strconv.ParseUint(value, 10, 64)
	noError(b, err)
	return n
}
