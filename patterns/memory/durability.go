package memory

import (
	"context"
	"fmt"
	"slices"
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

	DefaultRetention     = 24 * time.Hour
	DefaultMaxMulticasts = 10_000
)

// DurabilityConfig bounds the queue of each identity, and what is kept of multicasts.
type DurabilityConfig struct {
	// MaxMessages is the most messages stored for one identity. Default (0): DefaultMaxMessages.
	MaxMessages int
	// MaxBytes is the most bytes of payload stored for one identity. Default (0): DefaultMaxBytes.
	MaxBytes int
	// MaxAge is how long a message is stored. Older ones are dropped, and counted to the next consumer; for a queue that
	// stores nothing else and that nobody consumes the count is kept for as long again. Default (0): DefaultMaxAge.
	MaxAge time.Duration
	// Retention is how long the record of a multicast is kept, from its beginning. Default (0): DefaultRetention.
	Retention time.Duration
	// MaxMulticasts is the most records that are kept; the oldest go first. They also do when all records together take more
	// than 256 MiB. Default (0): DefaultMaxMulticasts.
	MaxMulticasts int
}

// Validate returns an InvalidError that names the field with an impossible value.
func (c DurabilityConfig) Validate() error {
	if err := atLeastZero("max_messages", c.MaxMessages); err != nil {
		return err
	}
	if err := atLeastZero("max_bytes", c.MaxBytes); err != nil {
		return err
	}
	if err := atLeastZero("max_age", int(c.MaxAge)); err != nil {
		return err
	}
	if err := atLeastZero("retention", int(c.Retention)); err != nil {
		return err
	}
	return atLeastZero("max_multicasts", c.MaxMulticasts)
}

// Durability keeps messages in one queue for each topic, as long as the process lives; a topic for which nothing is stored
// and that nobody consumes takes no memory. A topic's queue is held by one consumer at a time, the first that came; the
// others stand by. It keeps the records of multicasts as well. The zero value is not usable; see NewDurability.
type Durability struct {
	ledger

	cfg DurabilityConfig

	mu       sync.Mutex // guards everything, consumers and queues included; never held while anybody waits
	queues   map[string]*queue
	all      []*queue // the same, for the sweep to go round
	swept    int      // how far it came
	total    int      // messages of all queues
	sequence uint64   // of the latest message, over all queues: an ack never meets a later message
}

var (
	_ multicastregistry.Durability = (*Durability)(nil)
	_ multicastregistry.Recaller   = (*Durability)(nil)
	_ multicastregistry.Ledger     = (*Durability)(nil)
	_ multicastregistry.Backlog    = (*Durability)(nil)
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
	if cfg.Retention == 0 {
		cfg.Retention = DefaultRetention
	}
	if cfg.MaxMulticasts == 0 {
		cfg.MaxMulticasts = DefaultMaxMulticasts
	}
	return &Durability{ledger: newLedger(cfg.Retention, cfg.MaxMulticasts), cfg: cfg, queues: make(map[string]*queue)}
}

const (
	// storedAtOnce is how many messages Enqueue and Ack treat before they let others at the queues.
	storedAtOnce = 256
	// sweepQueues is how many queues one stored message looks through for messages that are too old.
	sweepQueues = 2
)

// Enqueue implements multicastregistry.Durability.
func (d *Durability) Enqueue(ctx context.Context, messages []multicastregistry.Message) []error {
	results := make([]error, 0, len(messages))
	for chunk := range slices.Chunk(messages, storedAtOnce) {
		d.mu.Lock()
		now := time.Now()
		for _, message := range chunk {
			err := ctx.Err()
			if err == nil {
				d.sweep(now)
				err = d.enqueue(message, now)
			}
			results = append(results, err)
		}
		d.mu.Unlock()
	}
	return results
}

// sweep goes on through the queues, a few at a time, and drops what is too old. The caller holds d.mu.
func (d *Durability) sweep(now time.Time) {
	d.sweepSome(now, sweepQueues)
}

// sweepSome goes on through a number of queues. The caller holds d.mu.
func (d *Durability) sweepSome(now time.Time, queues int) {
	for range min(queues, len(d.all)) {
		d.swept = (d.swept + 1) % len(d.all)
		q := d.all[d.swept]
		if q.dropOlder(now.Add(-d.cfg.MaxAge), now) {
			q.tell()
		}
		if q.dropped > 0 && len(q.seats) == 0 && now.Sub(q.droppedAt) > d.cfg.MaxAge {
			q.dropped = 0
			d.forgetIdle(q)
		}
		if len(d.all) == 0 {
			return
		}
	}
}

func (d *Durability) enqueue(m multicastregistry.Message, now time.Time) error {
	if len(m.Payload) > d.cfg.MaxBytes {
		return fmt.Errorf("memory: store for %q: %w: %d bytes, %d are the limit",
			m.Identity, multicastregistry.ErrTooLarge, len(m.Payload), d.cfg.MaxBytes)
	}
	q := d.queue(m.Topic)
	q.dropOlder(now.Add(-d.cfg.MaxAge), now)
	if _, stored := q.ids[m.ID]; stored {
		return nil
	}
	if len(q.ids) >= d.cfg.MaxMessages || q.bytes+len(m.Payload) > d.cfg.MaxBytes {
		return fmt.Errorf("memory: store for %q: %w: %d messages of %d bytes wait", m.Identity, multicastregistry.ErrQueueFull,
			len(q.ids), q.bytes)
	}
	d.sequence++
	q.append(m, d.sequence, now)
	return nil
}

// queue returns the queue of a topic, and makes it if need be. The caller holds d.mu.
func (d *Durability) queue(topic string) *queue {
	q := d.queues[topic]
	if q == nil {
		q = &queue{topic: topic, ids: make(map[string]uint64), listed: len(d.all), total: &d.total}
		d.queues[topic] = q
		d.all = append(d.all, q)
	}
	return q
}

// Consume implements multicastregistry.Durability.
func (d *Durability) Consume(ctx context.Context, topics ...string) (multicastregistry.Subscription, error) {
	c := &consumer{
		durability: d, ready: make(chan struct{}, 1), gone: make(chan struct{}),
		seats: make(map[string]*seat), standing: make(map[*seat]struct{}),
	}
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
	results := make([]error, 0, len(acks))
	for chunk := range slices.Chunk(acks, storedAtOnce) {
		d.mu.Lock()
		for _, ack := range chunk {
			err := ctx.Err()
			topic, sequence, ok := parseAckAddress(ack.To)
			if q := d.queues[topic]; err == nil && ok && q != nil {
				q.ack(sequence)
				d.forgetIdle(q)
			}
			results = append(results, err)
		}
		d.mu.Unlock()
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
	now := time.Now()
	q.dropOlder(now.Add(-d.cfg.MaxAge), now)
	n := len(q.ids)
	q.clear()
	d.forgetIdle(q)
	return n, nil
}

// Stored implements multicastregistry.Recaller.
func (d *Durability) Stored(ctx context.Context, messages []multicastregistry.Message) ([]bool, error) {
	return d.each(ctx, messages, func(q *queue, id string) bool {
		_, stored := q.ids[id]
		return stored
	})
}

// Withdraw implements multicastregistry.Recaller.
func (d *Durability) Withdraw(ctx context.Context, messages []multicastregistry.Message) ([]bool, error) {
	return d.each(ctx, messages, func(q *queue, id string) bool {
		sequence, stored := q.ids[id]
		if stored {
			q.ack(sequence)
		}
		return stored
	})
}

// each looks at the queues of messages, a few at a time, and returns the answers. What is too old is dropped before. It never
// stops half-way: a context that ends meanwhile is passed over.
func (d *Durability) each(
	ctx context.Context, messages []multicastregistry.Message, answer func(q *queue, id string) bool,
) ([]bool, error) {
	answers := make([]bool, 0, len(messages))
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for chunk := range slices.Chunk(messages, storedAtOnce) {
		d.mu.Lock()
		now := time.Now()
		for i := range chunk {
			q := d.queues[chunk[i].Topic]
			if q == nil {
				answers = append(answers, false)
				continue
			}
			if q.dropOlder(now.Add(-d.cfg.MaxAge), now) {
				q.tell()
			}
			answers = append(answers, answer(q, chunk[i].ID))
			d.forgetIdle(q)
		}
		d.mu.Unlock()
	}
	return answers, nil
}

// forgetIdle removes a queue that holds nothing, not even a count, and that nobody consumes. The caller holds d.mu.
func (d *Durability) forgetIdle(q *queue) {
	if len(q.ids) > 0 || len(q.seats) > 0 || q.dropped > 0 {
		return
	}
	delete(d.queues, q.topic)
	last := len(d.all) - 1
	d.all[q.listed] = d.all[last]
	d.all[q.listed].listed = q.listed
	d.all[last] = nil
	d.all = d.all[:last]
}

// Ping implements multicastregistry.Pinger: this process is there.
func (d *Durability) Ping(ctx context.Context) error { return ctx.Err() }
