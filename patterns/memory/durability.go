package memory

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// Defaults of DurabilityConfig.
const (
	DefaultMaxMessages = 10_000
	DefaultMaxBytes    = 64 << 20
	DefaultMaxAge      = 24 * time.Hour
)

// DurabilityConfig bounds the queue of each identity.
type DurabilityConfig struct {
	// MaxMessages is the most messages stored for one identity. Default (0): DefaultMaxMessages.
	MaxMessages int `yaml:"max_messages"`
	// MaxBytes is the most bytes of payload stored for one identity. Default (0): DefaultMaxBytes.
	MaxBytes int `yaml:"max_bytes"`
	// MaxAge is how long a message is stored; older ones are dropped and counted. Default (0): DefaultMaxAge.
	MaxAge time.Duration `yaml:"max_age"`
}

// Validate returns an InvalidError that names the field with an impossible value.
func (c DurabilityConfig) Validate() error {
	if err := atLeastZero("max_messages", c.MaxMessages); err != nil {
		return err
	}
	if err := atLeastZero("max_bytes", c.MaxBytes); err != nil {
		return err
	}
	return atLeastZero("max_age", int(c.MaxAge))
}

// Durability keeps messages in one queue for each topic, as long as the process lives. A topic's queue is held by one
// consumer at a time, the first that came; the others stand by. The zero value is not usable; see NewDurability.
type Durability struct {
	cfg DurabilityConfig

	mu     sync.Mutex // guards everything, consumers and queues included; never held while anybody waits
	queues map[string]*queue
}

var (
	_ multicastregistry.Durability = (*Durability)(nil)
	_ multicastregistry.Pinger     = (*Durability)(nil)
)

// NewDurability returns a durability slot that stores nothing yet.
func NewDurability(cfg DurabilityConfig) *Durability {
	if cfg.MaxMessages == 0 {
		cfg.MaxMessages = DefaultMaxMessages
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = DefaultMaxAge
	}
	return &Durability{cfg: cfg, queues: make(map[string]*queue)}
}

// Enqueue implements multicastregistry.Durability.
func (d *Durability) Enqueue(ctx context.Context, messages []multicastregistry.Message) []error {
	results := make([]error, len(messages))
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for i := range messages {
		if results[i] = ctx.Err(); results[i] == nil {
			results[i] = d.enqueue(messages[i], now)
		}
	}
	return results
}

func (d *Durability) enqueue(m multicastregistry.Message, now time.Time) error {
	if len(m.Payload) > d.cfg.MaxBytes {
		return fmt.Errorf("memory: store for %q: %w: %d bytes, %d are the limit",
			m.Identity, multicastregistry.ErrTooLarge, len(m.Payload), d.cfg.MaxBytes)
	}
	q := d.queue(m.Topic)
	q.dropOlder(now.Add(-d.cfg.MaxAge))
	if _, stored := q.ids[m.ID]; stored {
		return nil
	}
	if len(q.ids) >= d.cfg.MaxMessages || q.bytes+len(m.Payload) > d.cfg.MaxBytes {
		return fmt.Errorf("memory: store for %q: %w: %d messages of %d bytes wait", m.Identity, multicastregistry.ErrQueueFull,
			len(q.ids), q.bytes)
	}
	q.append(m, now)
	return nil
}

// queue returns the queue of a topic, and makes it if need be. The caller holds d.mu.
func (d *Durability) queue(topic string) *queue {
	q := d.queues[topic]
	if q == nil {
		q = &queue{topic: topic, ids: make(map[string]struct{})}
		d.queues[topic] = q
	}
	return q
}

// Consume implements multicastregistry.Durability.
func (d *Durability) Consume(ctx context.Context, topics ...string) (multicastregistry.Subscription, error) {
	c := &consumer{durability: d, topics: make(map[string]*queue), ready: make(chan struct{}, 1), gone: make(chan struct{})}
	if err := c.Add(ctx, topics...); err != nil {
		return nil, err
	}
	return c, nil
}

// ackAddress and parseAckAddress name one stored message. A topic has no spaces.
func ackAddress(topic string, sequence uint64) string {
	return strconv.FormatUint(sequence, 36) + " " + topic
}

func parseAckAddress(address string) (topic string, sequence uint64, ok bool) {
	number, topic, found := strings.Cut(address, " ")
	sequence, err := strconv.ParseUint(number, 36, 64)
	return topic, sequence, found && err == nil
}

// Ack implements multicastregistry.Durability.
func (d *Durability) Ack(ctx context.Context, acks []multicastregistry.Ack) []error {
	results := make([]error, len(acks))
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, ack := range acks {
		if results[i] = ctx.Err(); results[i] != nil {
			continue
		}
		topic, sequence, ok := parseAckAddress(ack.To)
		if q := d.queues[topic]; ok && q != nil {
			q.ack(sequence)
			d.forgetIdle(q)
		}
	}
	return results
}

// Purge implements multicastregistry.Durability.
func (d *Durability) Purge(ctx context.Context, topic string) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	q := d.queues[topic]
	if q == nil {
		return 0, nil
	}
	n := len(q.ids)
	q.clear()
	d.forgetIdle(q)
	return n, nil
}

// forgetIdle removes a queue that holds nothing and that nobody consumes. The caller holds d.mu.
func (d *Durability) forgetIdle(q *queue) {
	if len(q.ids) == 0 && len(q.consumers) == 0 {
		delete(d.queues, q.topic)
	}
}

// Ping implements multicastregistry.Pinger: this process is there.
func (d *Durability) Ping(ctx context.Context) error { return ctx.Err() }
