package nats

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/prism-data-layer/prism/internal/testenv"
	"github.com/prism-data-layer/prism/patterns/memory"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// The environment of a process that subscribes for a benchmark: the server, the namespace, and how many targets there are.
const audienceEnv = "PRISM_BENCH_AUDIENCE"

func target(i int) string { return fmt.Sprintf("device-%05d", i) }

// audienceMain is what a process does that was started by audience: it subscribes every target twice, to the topics of the
// slot through the slot, and to subjects beside them by means of nats.go, acks by itself whatever wants an ack, and ends with its
// standard input.
func audienceMain() error {
	parts := strings.Fields(os.Getenv(audienceEnv))
	url, namespace := parts[0], parts[1]
	n, err := strconv.Atoi(parts[2])
	if err != nil {
		return err
	}
	ctx := context.Background()
	conn, err := Open(ctx, Config{Servers: []string{url}})
	if err != nil {
		return err
	}
	defer conn.Close()
	m := NewMessaging(conn, MessagingConfig{Buffer: 1 << 16})
	topics := make([]string, n)
	for i := range topics {
		topics[i] = mr.Topic(namespace, target(i))
	}
	sub, err := m.Subscribe(ctx, topics...)
	if err != nil {
		return err
	}
	go func() {
		for {
			batch, err := sub.Next(ctx)
			if err != nil {
				return
			}
			acks := make([]mr.Ack, 0, len(batch.Messages))
			for i := range batch.Messages {
				if got := &batch.Messages[i]; got.AckTo != "" {
					acks = append(acks, mr.Ack{To: got.AckTo, Identity: got.Identity, ID: got.ID})
				}
			}
			m.Ack(ctx, acks)
		}
	}()
	nc, err := nats.Connect(url)
	if err != nil {
		return err
	}
	defer nc.Close()
	received := make(chan *nats.Msg, 1<<16)
	for _, topic := range topics {
		if _, err := nc.ChanSubscribe("q"+topic[1:], received); err != nil {
			return err
		}
	}
	go func() {
		for got := range received {
			if got.Reply != "" {
				_ = nc.Publish(got.Reply, nil)
			}
		}
	}()
	if err := nc.Flush(); err != nil {
		return err
	}
	if _, err := os.Stdout.WriteString("ready\n"); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// audience starts a process that receives and acks for n targets, and returns once it listens.
func audience(b *testing.B, url, namespace string, n int) {
	b.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d", audienceEnv, url, namespace, n))
	command.Stderr = os.Stderr
	in, err := command.StdinPipe()
	check(b, err)
	out, err := command.StdoutPipe()
	check(b, err, command.Start())
	b.Cleanup(func() { check(b, in.Close(), command.Wait()) })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		b.Fatalf("the audience says %q, %v", line, err)
	}
}

// BenchmarkMulticast runs whole multicasts of a coordinator in this process, over NATS, to targets that another process
// receives for and acks by itself: at most once, until the server has accepted all; and at least once, until all acks are
// back. Floor, in the same turns: what nats.go does for the same payloads, to subjects as long, in one flush, with the other
// process acking in the same way, for each message by itself.
func BenchmarkMulticast(b *testing.B) {
	for _, mode := range []mr.DeliveryMode{mr.AtMostOnce, mr.AtLeastOnce} {
		for _, n := range sizes {
			b.Run(string(mode)+"/"+strconv.Itoa(n), func(b *testing.B) {
				c, namespace := multicaster(b, n, n)
				floor := rawMulticast(b, namespace, n, mode == mr.AtLeastOnce)
				body := make([]byte, payload)
				measured(b, n, func() {
					result, err := c.Multicast(b.Context(), mr.Request{Payload: body, Delivery: mode})
					check(b, err)
					if result.Delivered != n {
						b.Fatalf("%d of %d delivered", result.Delivered, n)
					}
				}, floor)
			})
		}
	}
}

// BenchmarkMulticastDead has one target in a hundred that nobody receives for: the answer is complete, and takes no timeout.
func BenchmarkMulticastDead(b *testing.B) {
	for _, n := range sizes[1:] {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			c, namespace := multicaster(b, n, n-n/100)
			floor := rawMulticast(b, namespace, n-n/100, true)
			body := make([]byte, payload)
			measured(b, n, func() {
				result, err := c.Multicast(b.Context(), mr.Request{Payload: body})
				check(b, err)
				if result.Delivered != n-n/100 || result.Failed != n/100 {
					b.Fatalf("%d of %d delivered, %d failed", result.Delivered, n, result.Failed)
				}
			}, floor)
		})
	}
}

// multicaster is a coordinator with n targets, for the first alive of which somebody receives.
func multicaster(b *testing.B, n, alive int) (c *mr.Coordinator, namespace string) {
	b.Helper()
	url := testenv.NATS(b).URL
	namespace = testenv.Prefix(b)[:12] + strconv.Itoa(n)
	registry := memory.NewRegistry(memory.RegistryConfig{})
	for i := range n {
		_, err := registry.Put(b.Context(), mr.Identity{
			ID: target(i), TTL: time.Hour, Metadata: map[string]any{"n": int64(i), "room": "engineering", "fw": "1.4.2"},
		}, mr.Create)
		check(b, err)
	}
	c, err := mr.Open(b.Context(), mr.Config{Namespace: namespace, Timeout: time.Minute}, mr.Slots{
		Registry: registry, Messaging: messaging(opening(b, url)),
	})
	check(b, err)
	b.Cleanup(func() { check(b, c.Close()) })
	audience(b, url, namespace, alive)
	return c, namespace
}

// rawMulticast returns the floor of a multicast.
func rawMulticast(b *testing.B, namespace string, n int, acked bool) func() {
	b.Helper()
	nc, acks := raw(b, testenv.NATS(b).URL), make(chan *nats.Msg, 1<<16)
	subjects, body, inbox := make([]string, n), make([]byte, payload), nats.NewInbox()
	for i := range subjects {
		subjects[i] = "q" + mr.Topic(namespace, target(i))[1:]
	}
	_, err := nc.ChanSubscribe(inbox+".*", acks)
	check(b, err, nc.Flush())
	return func() {
		for i, subject := range subjects {
			var err error
			if acked {
				err = nc.PublishRequest(subject, inbox+"."+strconv.Itoa(i), body)
			} else {
				err = nc.Publish(subject, body)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		check(b, nc.Flush())
		if acked {
			for range subjects {
				<-acks
			}
		}
	}
}
