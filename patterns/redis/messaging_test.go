package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

// messaging opens a slot that ends with the test.
func messaging(t testing.TB, c *Conn) *Messaging {
	t.Helper()
	m, err := OpenMessaging(t.Context(), c, MessagingConfig{Buffer: 256})
	noError(t, err)
	t.Cleanup(m.Close)
	return m
}

func TestMessaging(t *testing.T) {
	open := func(t *testing.T) mr.Messaging { return messaging(t, shared(t)) }
	slottest.Messaging(t, open, slottest.MessagingOptions{
		Buffer: 256, MaxPayload: MaxPayload,
		OpenPair: func(t *testing.T) (a, b mr.Messaging) { return open(t), open(t) },
	})
}

// TestOnCluster runs the suites of the other slots on one cluster.
func TestOnCluster(t *testing.T) {
	t.Parallel()
	cluster := clusterOf(t)
	open := func(t *testing.T) mr.Messaging {
		return messaging(t, connect(t, Config{Addresses: cluster.Addrs, Cluster: true}))
	}
	t.Run("messaging", func(t *testing.T) {
		slottest.Messaging(t, open, slottest.MessagingOptions{
			Buffer: 256, MaxPayload: MaxPayload,
			OpenPair: func(t *testing.T) (a, b mr.Messaging) { return open(t), open(t) },
		})
	})
	t.Run("durability", func(t *testing.T) { durabilityOn(t, Config{Addresses: cluster.Addrs, Cluster: true}) })
	t.Run("ledger", func(t *testing.T) {
		slottest.Ledger(t, func(t *testing.T) mr.Ledger {
			return durability(t, connect(t, Config{Addresses: cluster.Addrs, Cluster: true}), DurabilityConfig{})
		}, slottest.LedgerOptions{Brief: true})
	})
}

func TestMessagingConfig(t *testing.T) {
	if err := (MessagingConfig{}).Validate(); err != nil {
		t.Error(err)
	}
	var bad *mr.InvalidError
	if err := (MessagingConfig{Buffer: -1}).Validate(); !errors.As(err, &bad) || bad.Field != "buffer" {
		t.Errorf("a negative buffer: %v", err)
	}
	if _, err := OpenMessaging(t.Context(), shared(t), MessagingConfig{Buffer: -1}); !errors.Is(err, mr.ErrInvalid) {
		t.Errorf("open with a negative buffer: %v", err)
	}
}

// A redis-cli publishes to and subscribes the topic itself.
func TestRawPubSub(t *testing.T) {
	c := shared(t)
	m := messaging(t, c)
	topic := mr.Topic(testenv.Prefix(t), "user-1")
	sub, err := m.Subscribe(t.Context(), topic)
	noError(t, err)
	defer sub.Close()
	if n, err := do(t, c, "PUBLISH", topic, "hello").AsInt64(); n != 1 || err != nil {
		t.Fatalf("publish reaches %d subscribers: %v", n, err)
	}
	got := next(t, sub)
	if string(got.Payload) != "hello" || got.Topic != topic || got.Identity != "user-1" || got.ID == "" || got.AckTo != "" {
		t.Errorf("got %+v", got)
	}
}

// next reads one message.
func next(t *testing.T, sub mr.Subscription) mr.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	batch, err := sub.Next(ctx)
	noError(t, err)
	if len(batch.Messages) != 1 || batch.Dropped > 0 {
		t.Fatalf("%d messages, %d dropped", len(batch.Messages), batch.Dropped)
	}
	return batch.Messages[0]
}

func message(namespace, identity, payload string) mr.Message {
	return mr.Message{
		Topic: mr.Topic(namespace, identity), Identity: identity, ID: payload, Payload: []byte(payload),
		SentAt: time.UnixMilli(1), AckTo: "nobody",
	}
}

// arrives sends until a message comes through, from a publisher that knows whether anybody receives it.
func arrives(t *testing.T, from mr.Messaging, sub mr.Subscription, namespace, identity string) {
	t.Helper()
	eventually(t, "a message for "+identity, func() bool {
		return from.Publish(t.Context(), []mr.Message{message(namespace, identity, identity)})[0] == nil
	})
	for {
		batch, err := sub.Next(t.Context())
		noError(t, err)
		for _, got := range batch.Messages {
			if got.Identity == identity {
				return
			}
		}
	}
}

// Ten thousand topics, in one call.
func TestTenThousandTopics(t *testing.T) {
	m := messaging(t, shared(t))
	namespace := testenv.Prefix(t)
	var topics []string
	var messages []mr.Message
	for n := range 10_000 {
		messages = append(messages, message(namespace, strconv.Itoa(n), strconv.Itoa(n)))
		topics = append(topics, messages[n].Topic)
	}
	start := time.Now()
	sub, err := m.Subscribe(t.Context(), topics...)
	noError(t, err)
	t.Logf("subscribed after %v", time.Since(start))
	defer sub.Close()
	noError(t, errors.Join(m.Publish(t.Context(), messages)...))
	for seen := 0; seen < len(topics); {
		batch, err := sub.Next(t.Context())
		noError(t, err)
		seen += len(batch.Messages)
		if batch.Dropped > 0 {
			t.Fatalf("%d dropped", batch.Dropped)
		}
	}
	start = time.Now()
	noError(t, sub.Remove(t.Context(), topics...))
	t.Logf("unsubscribed after %v", time.Since(start))
	for _, err := range m.Publish(t.Context(), messages) {
		if !errors.Is(err, mr.ErrNoSubscriber) {
			t.Fatalf("published to a removed topic: %v", err)
		}
	}
}

// remembers fails the test unless a lane keeps just these topics.
func remembers(t *testing.T, m *Messaging, topics ...string) {
	t.Helper()
	l := m.lanes[0]
	l.mu.RLock()
	defer l.mu.RUnlock()
	waiting := 0
	for _, topic := range topics {
		if c := l.channels[topic]; c != nil {
			waiting += len(c.waiting)
			continue
		}
		t.Errorf("%s is forgotten", topic)
	}
	if len(l.channels) != len(topics) || waiting > 0 {
		t.Errorf("%d channels and %d waiters are kept, want %d and none", len(l.channels), waiting, len(topics))
	}
}

// A connection that is cut comes back by itself, with all that was added and without what was removed meanwhile.
func TestMessagingConnectionCut(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(*testenv.Fault){
		"Cut": (*testenv.Fault).Cut, "Stall": (*testenv.Fault).Stall,
	} {
		t.Run(name, func(t *testing.T) {
			server := testenv.Redis(t)
			proxy := testenv.NewFault(t, server.Addr)
			m := messaging(t, connect(t, Config{Host: proxy.Addr, Timeout: 500 * time.Millisecond}))
			other := messaging(t, shared(t))
			namespace := testenv.Prefix(t)
			sub, err := m.Subscribe(t.Context(), mr.Topic(namespace, "a"), mr.Topic(namespace, "b"))
			noError(t, err)
			defer sub.Close()
			acks, err := m.Inbox(t.Context())
			noError(t, err)
			defer acks.Close()
			arrives(t, other, sub, namespace, "a")

			fault(proxy)
			duringOutage(t, m, sub, namespace)
			added := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				err := sub.Add(ctx, mr.Topic(namespace, "added"))
				for errors.Is(err, mr.ErrUnavailable) && ctx.Err() == nil {
					err = sub.Add(ctx, mr.Topic(namespace, "added"))
				}
				added <- err
			}()
			proxy.Heal()
			noError(t, <-added)
			for _, id := range []string{"a", "added"} {
				arrives(t, other, sub, namespace, id)
			}
			for _, id := range []string{"b", "never"} {
				if err := other.Publish(t.Context(), []mr.Message{message(namespace, id, id)})[0]; !errors.Is(err, mr.ErrNoSubscriber) {
					t.Errorf("published to %s, who left: %v", id, err)
				}
			}
			noError(t, other.Ack(t.Context(), []mr.Ack{{To: acks.Address("x"), Identity: "a", ID: "x"}})[0])
			if got, err := acks.Next(t.Context()); err != nil || len(got) != 1 || got[0].Token != "x" {
				t.Errorf("receipts %v, %v", got, err)
			}
			eventually(t, "ping", func() bool { return m.Ping(t.Context()) == nil })
			remembers(t, m, mr.Topic(namespace, "a"), mr.Topic(namespace, "added"), acks.(*inbox).topic)
		})
	}
}

// duringOutage checks what calls do while Redis cannot be reached.
func duringOutage(t *testing.T, m *Messaging, sub mr.Subscription, namespace string) {
	t.Helper()
	var err error
	eventually(t, "the cut is noticed", func() bool {
		err = m.Publish(t.Context(), []mr.Message{message(namespace, "a", "lost")})[0]
		return err != nil
	})
	if errors.Is(err, mr.ErrNoSubscriber) {
		t.Errorf("publish during an outage: %v", err)
	}
	noError(t, sub.Remove(t.Context(), mr.Topic(namespace, "b")))
	if err := sub.Add(t.Context(), mr.Topic(namespace, "never")); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("add during an outage: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := sub.Add(short, mr.Topic(namespace, "never")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("add during an outage, with little time: %v", err)
	}
	if _, err := m.Subscribe(t.Context(), mr.Topic(namespace, "never")); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("subscribe during an outage: %v", err)
	}
	if _, err := m.Inbox(t.Context()); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("inbox during an outage: %v", err)
	}
	if err := m.Ack(t.Context(), []mr.Ack{{To: inboxPrefix + strings.Repeat("A", 26) + " x"}})[0]; !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("ack during an outage: %v", err)
	}
	if err := m.Ping(t.Context()); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("ping during an outage: %v", err)
	}
}

// Once the cut is known, a message was surely not sent.
func TestPublishUnreached(t *testing.T) {
	server := testenv.NewRedis(t)
	m := messaging(t, connect(t, Config{Host: server.Addr}))
	server.Kill()
	eventually(t, "a message that was surely not sent", func() bool {
		err := m.Publish(t.Context(), []mr.Message{message("x", "a", "x")})[0]
		if err == nil {
			t.Fatal("published to nobody")
		}
		return errors.Is(err, mr.ErrUnavailable)
	})
}

// What was handed to a Redis that does not answer has an unknown outcome, which is not ErrUnavailable.
func TestPublishUnanswered(t *testing.T) {
	t.Parallel()
	proxy := testenv.NewFault(t, testenv.Redis(t).Addr)
	m := messaging(t, connect(t, Config{Host: proxy.Addr, Timeout: 300 * time.Millisecond}))
	proxy.Stall()
	err := m.Publish(t.Context(), []mr.Message{message(testenv.Prefix(t), "a", "x")})[0]
	if err == nil || errors.Is(err, mr.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("published to a Redis that does not answer: %v", err)
	}
}

func TestMessagingServerRestart(t *testing.T) {
	server := testenv.NewRedis(t)
	c := connect(t, Config{Host: server.Addr})
	m := messaging(t, c)
	sub, err := m.Subscribe(t.Context(), mr.Topic("x", "a"), mr.Topic("x", "b"))
	noError(t, err)
	defer sub.Close()
	for _, stop := range []func(){server.Stop, server.Kill} {
		stop()
		server.Start()
		arrives(t, m, sub, "x", "a")
		arrives(t, m, sub, "x", "b")
	}
	for range 3 {
		if n, err := do(t, c, "CLIENT", "KILL", "TYPE", "pubsub").AsInt64(); err != nil || n != 1 {
			t.Fatalf("%d connections for subscriptions: %v", n, err)
		}
		arrives(t, m, sub, "x", "a")
		arrives(t, m, sub, "x", "b")
	}
	remembers(t, m, mr.Topic("x", "a"), mr.Topic("x", "b"))
}

// A user who may not use some channels is told so, and the other subscriptions go on.
func TestMessagingRefused(t *testing.T) {
	server := testenv.NewRedis(t)
	admin := connect(t, Config{Host: server.Addr})
	noError(t, do(t, admin, "ACL", "SETUSER", "app", "on", ">secret", "+@all", "resetchannels", "&prism.mine.*", "&prism-ack.*").Error())
	m := messaging(t, connect(t, Config{Host: server.Addr, Username: "app", Password: "secret"}))
	sub, err := m.Subscribe(t.Context(), mr.Topic("mine", "a"))
	noError(t, err)
	defer sub.Close()
	start := time.Now()
	if err := sub.Add(t.Context(), mr.Topic("other", "a")); !errors.Is(err, mr.ErrUnsupported) {
		t.Errorf("add of another's topic: %v", err)
	}
	if waited := time.Since(start); waited > DefaultTimeout/2 {
		t.Errorf("the refusal came after %v", waited)
	}
	if err := m.Publish(t.Context(), []mr.Message{message("other", "a", "x")})[0]; !errors.Is(err, mr.ErrUnsupported) {
		t.Errorf("publish to another's topic: %v", err)
	}
	arrives(t, m, sub, "mine", "a")
	remembers(t, m, mr.Topic("mine", "a"))

	// Redis ends the connection of a user who loses a channel that it has subscribed.
	noError(t, do(t, admin, "ACL", "SETUSER", "app", "resetchannels", "&prism-ack.*").Error())
	eventually(t, "the subscription is refused", func() bool {
		return errors.Is(sub.Add(t.Context(), mr.Topic("mine", "b")), mr.ErrUnsupported)
	})
	noError(t, do(t, admin, "ACL", "SETUSER", "app", "&prism.mine.*").Error())
	arrives(t, m, sub, "mine", "a")

	noError(t, do(t, admin, "ACL", "SETUSER", "none", "on", ">secret", "+@all", "resetchannels").Error())
	none := connect(t, Config{Host: server.Addr, Username: "none", Password: "secret"})
	if _, err := OpenMessaging(t.Context(), none, MessagingConfig{}); !errors.Is(err, mr.ErrUnsupported) {
		t.Errorf("open without any channel: %v", err)
	}
}

// clusterTests counts the tests that have a cluster.
var clusterTests atomic.Int32

// clusterOf starts a cluster for the test. The last such test ends when the driver's clients have: closed ones stay for up to
// five seconds.
func clusterOf(t *testing.T) *testenv.RedisClusterProcess {
	t.Helper()
	clusterTests.Add(1)
	t.Cleanup(func() {
		if clusterTests.Add(-1) > 0 {
			return
		}
		stacks := make([]byte, 1<<22)
		var left string
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); <-time.After(50 * time.Millisecond) {
			left = ""
			for stack := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
				if strings.Contains(stack, "rueidis.(*clusterClient)") || strings.Contains(stack, "rueidis.(*call)") {
					left = stack
				}
			}
			if left == "" || clusterTests.Load() > 0 {
				return
			}
		}
		t.Errorf("the driver's goroutines do not end: %s", left)
	})
	return testenv.RedisCluster(t)
}

// node opens a client of one node of a cluster.
func node(t *testing.T, addr string) rueidis.Client {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true, DisableCache: true})
	noError(t, err)
	t.Cleanup(c.Close)
	return c
}

func ask(t *testing.T, c rueidis.Client, words ...string) string {
	t.Helper()
	reply, err := c.Do(t.Context(), c.B().Arbitrary(words...).Build()).ToAny()
	if err != nil {
		t.Fatalf("%q: %v", words, err)
	}
	return fmt.Sprint(reply)
}

// spread subscribes topics of all lanes of a cluster, and returns what checks that all of them arrive, from elsewhere: from who
// was there before, and from who is new and knows the cluster as it is now.
func spread(t *testing.T, cluster *testenv.RedisClusterProcess) (m *Messaging, allArrive func()) {
	t.Helper()
	m = messaging(t, connect(t, Config{Addresses: cluster.Addrs, Cluster: true}))
	other := messaging(t, connect(t, Config{Addresses: cluster.Addrs, Cluster: true}))
	var topics []string
	for n := range 64 {
		topics = append(topics, mr.Topic("x", strconv.Itoa(n)))
	}
	sub, err := m.Subscribe(t.Context(), topics...)
	noError(t, err)
	t.Cleanup(func() { noError(t, sub.Close()) })
	for i, l := range m.lanes {
		if len(l.channels) == 0 {
			t.Errorf("lane %d has no topic", i)
		}
	}
	return m, func() {
		t.Helper()
		var newcomer *Messaging
		eventually(t, "a newcomer is let in", func() bool {
			c, err := Open(t.Context(), Config{Addresses: cluster.Addrs, Cluster: true})
			if err != nil {
				return false
			}
			t.Cleanup(c.Close)
			newcomer, err = OpenMessaging(t.Context(), c, MessagingConfig{})
			return err == nil
		})
		t.Cleanup(newcomer.Close)
		for n := range topics {
			arrives(t, other, sub, "x", strconv.Itoa(n))
			arrives(t, newcomer, sub, "x", strconv.Itoa(n))
		}
	}
}

// A slot that moves to another node takes its subscriptions along.
func TestClusterSlotMoves(t *testing.T) {
	t.Parallel()
	cluster := clusterOf(t)
	_, allArrive := spread(t, cluster)
	allArrive()
	var masters []rueidis.Client
	for _, addr := range cluster.Addrs[:3] {
		masters = append(masters, node(t, addr))
	}
	slot := ask(t, masters[0], "CLUSTER", "KEYSLOT", "{prism:3}")
	number, err := strconv.Atoi(slot)
	noError(t, err)
	owner := min(number/5461, 2) // the masters share the slots in their order
	from, to := masters[owner], masters[(owner+1)%3]
	fromID, toID := ask(t, from, "CLUSTER", "MYID"), ask(t, to, "CLUSTER", "MYID")
	ask(t, to, "CLUSTER", "SETSLOT", slot, "IMPORTING", fromID)
	ask(t, from, "CLUSTER", "SETSLOT", slot, "MIGRATING", toID)
	allArrive()
	for _, c := range []rueidis.Client{to, from} {
		ask(t, c, "CLUSTER", "SETSLOT", slot, "NODE", toID)
	}
	allArrive()
}

// Replicas that take over, by order and because their master is dead, take the subscriptions over.
func TestClusterFailover(t *testing.T) {
	t.Parallel()
	cluster := clusterOf(t)
	m, allArrive := spread(t, cluster)
	allArrive()
	for _, addr := range cluster.Addrs[3:] {
		replica := node(t, addr)
		ask(t, replica, "CLUSTER", "FAILOVER")
		eventually(t, "a replica takes over", func() bool {
			return strings.Contains(ask(t, replica, "INFO", "replication"), "role:master")
		})
	}
	allArrive()
	cluster.Nodes[3].Kill()
	allArrive()
	eventually(t, "ping", func() bool { return m.Ping(t.Context()) == nil })
}

func TestMessagingClosed(t *testing.T) {
	m, err := OpenMessaging(t.Context(), shared(t), MessagingConfig{})
	noError(t, err)
	topic := mr.Topic(testenv.Prefix(t), "a")
	sub, err := m.Subscribe(t.Context(), topic)
	noError(t, err)
	m.Close()
	m.Close()
	if err := sub.Add(t.Context(), topic+"b"); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("add after the end: %v", err)
	}
	if _, err := m.Inbox(t.Context()); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("inbox after the end: %v", err)
	}
	noError(t, sub.Remove(t.Context(), topic))
	noError(t, sub.Close())
	if _, err := sub.Next(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("next after close: %v", err)
	}
}

// Closing a subscription ends an Add that waits for Redis, and who waits for its turn behind it.
func TestCloseDuringAdd(t *testing.T) {
	proxy := testenv.NewFault(t, testenv.Redis(t).Addr)
	m := messaging(t, connect(t, Config{Host: proxy.Addr}))
	sub, err := m.Subscribe(t.Context())
	noError(t, err)
	proxy.Cut()
	ended := make(chan error, 2)
	for n := range 2 {
		go func() { ended <- sub.Add(t.Context(), mr.Topic("x", fmt.Sprint(n))) }()
	}
	eventually(t, "an add under way", func() bool {
		m.lanes[0].mu.RLock()
		defer m.lanes[0].mu.RUnlock()
		return len(m.lanes[0].channels) > 0
	})
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := sub.Remove(short, mr.Topic("x", "0")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("remove behind an add: %v", err)
	}
	noError(t, sub.Close())
	for range 2 {
		if err := <-ended; !errors.Is(err, io.EOF) {
			t.Errorf("add, while closed: %v", err)
		}
	}
	remembers(t, m)
}

func TestAddresses(t *testing.T) {
	name := inboxPrefix + strings.Repeat("A7", 13)
	for address, ok := range map[string]bool{
		name + " x": true, name + " a.B.9": true, name + " " + strings.Repeat("x", 64): true,
		"": false, " ": false, name: false, name + " ": false, name + "  x": false, name + " x ": false, name + " x y": false,
		name + " " + strings.Repeat("x", 65): false, name + " x\r\n": false, name + "A x": false, name[1:] + " x": false,
		"prism.a.b x": false, "prism-ack. x": false, inboxPrefix + strings.Repeat("a", 26) + " x": false,
		inboxPrefix + strings.Repeat("*", 26) + " x": false, name + " ü": false,
	} {
		if _, _, got := parseAddress(address); got != ok {
			t.Errorf("%q: %v", address, got)
		}
	}
}

// The lane of a topic is the same in every process and version.
func TestLanes(t *testing.T) {
	m := &Messaging{}
	for range shards {
		m.lanes = append(m.lanes, &lane{})
	}
	used := map[*lane]int{}
	for n := range 1600 {
		used[m.lane(mr.Topic("x", strconv.Itoa(n)))]++
	}
	for i, l := range m.lanes {
		if used[l] < 50 {
			t.Errorf("lane %d has %d of 1600 topics", i, used[l])
		}
	}
	if m.lane("prism.presence.user-1") != m.lanes[12] {
		t.Error("user-1 has moved")
	}
}
