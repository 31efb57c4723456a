package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	// MaxPayload is the largest payload that is published. Redis itself takes 512 MB, but cuts off a subscriber for whom more
	// than 32 MB wait (client-output-buffer-limit pubsub 32mb 8mb 60): a larger message would tear down whom it is for.
	MaxPayload = 8 << 20
	// commandsAtOnce and bytesAtOnce bound one pipeline: few enough that rueidis keeps to one connection, on which order rests,
	// and that Redis can pass on what it has read.
	commandsAtOnce = 1000
	bytesAtOnce    = 8 << 20
	// shards is the number of lanes on a cluster. All processes have to agree on it.
	shards = 16
)

// MessagingConfig is the configuration of a Messaging.
type MessagingConfig struct {
	// Buffer is the most messages that wait for one topic in one subscription; what does not fit is dropped and counted.
	// Default (0): 1,024.
	Buffer int
}

// Validate returns an InvalidError that names the field with an impossible value.
func (c MessagingConfig) Validate() error {
	if c.Buffer < 0 {
		return invalid("buffer", "must not be negative")
	}
	return nil
}

// Messaging carries messages over Redis pub/sub. One serves any number of namespaces.
//
// On one server, or a Sentinel group, the channel of an identity is its topic: `redis-cli subscribe prism.presence.user-1`
// shows what it is sent, in frames (see encodeFrame), and `redis-cli publish prism.presence.user-1 hello` sends it something.
// All subscriptions share one connection.
//
// On a Cluster, where PUBLISH would go through every node, channels are sharded (Redis 7): "{prism:<lane>}" and the topic, with
// lane one of 16 by the FNV-1a hash of the topic, each with a connection of its own to the node that has its slot. Messages of
// different topics may then overtake each other.
//
// Delivery is at most once. What is published while a connection for subscriptions is down is lost; it comes back by itself.
// Without a subscriber that Redis knows at that moment, Publish says ErrNoSubscriber.
type Messaging struct {
	conn   *Conn
	buffer int
	lanes  []*lane
	stop   context.CancelFunc
	ended  sync.WaitGroup
}

var (
	_ multicastregistry.Messaging = (*Messaging)(nil)
	_ multicastregistry.Pinger    = (*Messaging)(nil)
)

// OpenMessaging returns a messaging slot on a connection that the caller keeps open until it has called Close, which a
// Messaging needs though slots do not have it. It checks that Redis is there and lets this user publish.
func OpenMessaging(ctx context.Context, conn *Conn, cfg MessagingConfig) (*Messaging, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	m := &Messaging{conn: conn, buffer: cfg.Buffer, stop: stop}
	if conn.write.Mode() == rueidis.ClientModeCluster {
		for n := range shards {
			m.lanes = append(m.lanes, newLane(running, conn, "{prism:"+strconv.Itoa(n)+"}"))
		}
	} else {
		m.lanes = []*lane{newLane(running, conn, "")}
	}
	// Nobody listens there. A server that has no sharded channels, or does not allow ours, answers with an error.
	bounded, cancel, err := conn.bound(ctx)
	if err == nil {
		defer cancel()
		err = conn.write.Do(bounded, m.command(inboxPrefix+"probe", "")).Error()
	}
	if err != nil {
		stop()
		return nil, conn.wrap(ctx, "open messaging", "", err)
	}
	for _, l := range m.lanes {
		m.ended.Go(l.run)
	}
	return m, nil
}

// Close ends the connections of subscriptions, which receive nothing any more; close those first. It waits until all is ended.
// Closing again does nothing.
func (m *Messaging) Close() {
	m.stop()
	m.ended.Wait()
}

// Publish implements multicastregistry.Messaging, with one pipeline for a thousand messages. As a result,
// ErrUnavailable means that Redis was not reached or refused the message; when the connection was lost before Redis answered,
// the outcome is unknown and the error is another one.
func (m *Messaging) Publish(ctx context.Context, messages []multicastregistry.Message) []error {
	results := make([]error, len(messages))
	bounded, cancel, err := m.conn.bound(ctx)
	if err != nil {
		for i := range results {
			results[i] = m.conn.wrap(ctx, "publish to", messages[i].Identity, err)
		}
		return results
	}
	defer cancel()
	commands := make(rueidis.Commands, 0, min(len(messages), commandsAtOnce))
	at := make([]int, 0, cap(commands)) // the places of their messages
	size := 0
	flush := func() {
		if len(commands) == 0 {
			return
		}
		for i, result := range m.conn.write.DoMulti(bounded, commands...) {
			results[at[i]] = m.published(ctx, &messages[at[i]], result)
		}
		commands, at, size = commands[:0], at[:0], 0
	}
	for i := range messages {
		message := &messages[i]
		if len(message.Payload) > MaxPayload {
			results[i] = fmt.Errorf("redis: publish to %q: %w: %d bytes, at most %d",
				message.Identity, multicastregistry.ErrTooLarge, len(message.Payload), MaxPayload)
			continue
		}
		if len(commands) == commandsAtOnce || size+len(message.Payload) > bytesAtOnce {
			flush()
		}
		commands = append(commands, m.command(message.Topic, rueidis.BinaryString(encodeFrame(message))))
		at = append(at, i)
		size += len(message.Payload)
	}
	flush()
	return results
}

// published turns Redis' answer into a message's result.
func (m *Messaging) published(ctx context.Context, message *multicastregistry.Message, answer rueidis.RedisResult) error {
	receivers, err := answer.AsInt64()
	switch {
	case err == nil && receivers == 0 && message.AckTo != "":
		return fmt.Errorf("redis: publish to %q: %w", message.Identity, multicastregistry.ErrNoSubscriber)
	case err == nil:
		return nil
	}
	return m.conn.unsure(ctx, "publish to", message.Identity, err)
}

// unsure wraps the error of a message that may have been taken: as ErrUnavailable only if it was surely not.
func (c *Conn) unsure(ctx context.Context, op, identity string, err error) error {
	switch {
	case refused(err) || unsent(err) || contextError(ctx) != nil:
		return c.wrap(ctx, op, identity, err)
	case errors.Is(err, context.DeadlineExceeded): // our own
		return fmt.Errorf("redis: %s %q: outcome unknown: no answer within %v", op, identity, c.timeout)
	}
	return fmt.Errorf("redis: %s %q: outcome unknown: %w", op, identity, err)
}

// refused tells whether Redis answered with an error.
func refused(err error) bool {
	_, ok := rueidis.IsRedisErr(err)
	return ok
}

// unsent tells whether an error says for sure that nothing was sent: there was no connection to send it on.
func unsent(err error) bool {
	var op *net.OpError
	return errors.Is(err, rueidis.ErrClosing) || errors.Is(err, rueidis.ErrNoSlot) || errors.As(err, &op) && op.Op == "dial"
}

// Ping implements multicastregistry.Pinger. It also fails while there is no connection for subscriptions.
func (m *Messaging) Ping(ctx context.Context) error {
	if err := m.conn.Ping(ctx); err != nil {
		return err
	}
	for _, l := range m.lanes {
		if err := l.down(); err != nil {
			return fmt.Errorf("redis: ping: %w: %w", multicastregistry.ErrUnavailable, err)
		}
	}
	return nil
}

// command publishes to the channel of a topic.
func (m *Messaging) command(topic, content string) rueidis.Completed {
	l := m.lane(topic)
	if l.sharded {
		return m.conn.write.B().Spublish().Channel(l.tag + topic).Message(content).Build()
	}
	return m.conn.write.B().Publish().Channel(topic).Message(content).Build()
}

// lane returns the lane of a topic, the same in every process.
func (m *Messaging) lane(topic string) *lane {
	if len(m.lanes) == 1 {
		return m.lanes[0]
	}
	hash := uint32(2166136261)
	for i := range len(topic) {
		hash = (hash ^ uint32(topic[i])) * 16777619
	}
	return m.lanes[hash%uint32(len(m.lanes))]
}

// change edits the channels of topics: see lane.change.
func (m *Messaging) change(topics []string, edit func(*channel)) []*waiter {
	if len(m.lanes) == 1 {
		return []*waiter{m.lanes[0].change(topics, edit)}
	}
	parts := make(map[*lane][]string)
	for _, topic := range topics {
		l := m.lane(topic)
		parts[l] = append(parts[l], topic)
	}
	waiters := make([]*waiter, 0, len(parts))
	for l, part := range parts {
		waiters = append(waiters, l.change(part, edit))
	}
	return waiters
}

// wait waits for changes: see waiter.wait.
func (m *Messaging) wait(ctx context.Context, waiters []*waiter, gone <-chan struct{}) error {
	timer := time.NewTimer(m.conn.timeout)
	defer timer.Stop()
	for i, w := range waiters {
		if err := w.wait(ctx, timer.C, gone); err != nil {
			for _, rest := range waiters[i:] {
				rest.abandon()
			}
			return err
		}
	}
	return nil
}
