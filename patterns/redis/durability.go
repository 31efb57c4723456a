package redis

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// Defaults of DurabilityConfig.
const (
	DefaultMaxMessages   = 10_000
	DefaultMaxBytes      = 64 << 20
	DefaultMaxAge        = 24 * time.Hour
	DefaultRetention     = 24 * time.Hour
	DefaultMaxMulticasts = 10_000
)

const (
	// leaseTTL is how long a process that is not heard of keeps its topics: then another one gets them.
	leaseTTL = 5 * time.Second
	// renewEvery is how often a process is heard of, and how often it looks whether the topics that it stands by for are free.
	renewEvery = 1500 * time.Millisecond
	// checkEvery is how often a process makes sure of the topics that it holds, and has their states kept on. keepIdle is how much
	// longer than twice the age of messages a state that nobody touches is kept.
	checkEvery = time.Minute
	keepIdle   = 2 * time.Hour

	// topicsAtOnce and messagesAtOnce bound one call of a script, which Redis is busy with for a few milliseconds at most.
	topicsAtOnce   = 500
	messagesAtOnce = 250
)

// DurabilityConfig is the configuration of a Durability.
type DurabilityConfig struct {
	// Namespace is the name of the namespace, which all keys carry.
	Namespace string
	// MaxMessages is the most messages stored for one identity. Default (0): DefaultMaxMessages.
	MaxMessages int
	// MaxBytes is the most bytes of payload stored for one identity. Default (0): DefaultMaxBytes.
	MaxBytes int
	// MaxAge is how long a message is stored. Older ones are dropped, and counted to the next consumer. Default (0):
	// DefaultMaxAge.
	MaxAge time.Duration
	// Retention is how long the record of a multicast is kept after it was stored. Default (0): DefaultRetention.
	Retention time.Duration
	// MaxMulticasts is the most records that are kept; the oldest go first. Default (0): DefaultMaxMulticasts.
	MaxMulticasts int
	// Log hears when Redis cannot be reached for what happens in the background, and when it can again. Default (nil): nobody.
	Log *slog.Logger
}

func (c DurabilityConfig) withDefaults() DurabilityConfig {
	c.MaxMessages = cmp.Or(c.MaxMessages, DefaultMaxMessages)
	c.MaxBytes = cmp.Or(c.MaxBytes, DefaultMaxBytes)
	c.MaxAge = cmp.Or(c.MaxAge, DefaultMaxAge)
	c.Retention = cmp.Or(c.Retention, DefaultRetention)
	c.MaxMulticasts = cmp.Or(c.MaxMulticasts, DefaultMaxMulticasts)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate returns an InvalidError that names the field with an impossible value.
func (c DurabilityConfig) Validate() error {
	c = c.withDefaults()
	switch {
	case c.MaxMessages < 0:
		return invalid("max_messages", "must not be negative")
	case c.MaxBytes < 0:
		return invalid("max_bytes", "must not be negative")
	case c.MaxAge < time.Millisecond:
		return invalid("max_age", "must be at least 1ms")
	case c.Retention < time.Millisecond:
		return invalid("retention", "must be at least 1ms")
	case c.MaxMulticasts < 0:
		return invalid("max_multicasts", "must not be negative")
	}
	return nil
}

// Durability keeps messages, and the records of multicasts, in Redis: as safe as Redis keeps its data (appendonly, appendfsync).
//
// # Queues
//
// Each topic with messages has a stream of them, and a state beside it: see queue.lua, which all scripts share. Consumer
// groups are not used: a group is a place in a stream, its pending list and a name for each consumer, for each of 10,000 topics,
// and it would neither find a message by its id nor hold a topic for one consumer. The state does both in one hash, which is
// gone with the last message and the holder. Keys expire by themselves, so that the queue of an identity that never comes back
// does too: its messages after MaxAge, the count of what was dropped after twice that.
//
// # Holding
//
// A topic is held by one consumer at a time, the first that came; the others stand by. The holder is named in the topic's
// state, and counts as long as its process keeps a lease of 5 seconds, one key for all of its consumers, which it renews every
// 1.5 seconds. Close and Remove let go at once, and tell who stands by. After a kill -9 the messages go to others within 5
// seconds, and 1.5 more for those that stood by. A process that could not renew its lease for that long hands out nothing any
// more; when it reaches Redis again it stands in line anew for all of its topics, and yields what it gets again, marked
// Redelivered.
//
// # Notices
//
// Storing a message tells the holder's process on a channel, which costs an idle topic nothing. Notices are numbered, and their
// number stands with the lease: a process that missed one looks through its topics at once, or with the next renewal. So a lost
// notice delays messages by a few seconds, and loses none.
type Durability struct {
	conn    *Conn
	cfg     DurabilityConfig
	tag     string
	keys    []string // of queue.lua
	head    []string // the arguments of queue.lua
	name    string   // of this process
	lane    *lane    // for notices
	renewal sync.Mutex
	wake    chan struct{} // there is something for work
	ctx     context.Context
	stop    context.CancelFunc
	ended   sync.WaitGroup

	mu        sync.Mutex // guards what follows, and all consumers; never held while waiting for Redis
	closed    bool
	session   uint64    // of the lease; another one whenever it was lost
	until     time.Time // the lease lasts at least until then
	published uint64    // notices for the session, as the renewal before said
	heard     uint64    // the number of the latest notice that came
	check     bool      // notices may have been missed
	consumers map[uint64]*consumer
	number    uint64             // of the latest consumer
	claims    uint64             // number of the latest claim
	standby   map[string][]*hold // topics that another consumer holds
	inFlight  int                // claims under way
	freed     map[string]bool    // topics that were let go meanwhile
	claiming  []*hold            // to be claimed
	releasing []release          // to be let go
	ready     []*consumer        // those that wait for messages and have topics that are due
}

var (
	_ multicastregistry.Durability = (*Durability)(nil)
	_ multicastregistry.Recaller   = (*Durability)(nil)
	_ multicastregistry.Ledger     = (*Durability)(nil)
	_ multicastregistry.Backlog    = (*Durability)(nil)
	_ multicastregistry.Pinger     = (*Durability)(nil)
)

// OpenDurability returns a durability slot on a connection that the caller keeps open until it has called Close, which a
// Durability needs though slots do not have it. It checks that Redis is there and lets this user do what is needed.
func OpenDurability(ctx context.Context, conn *Conn, cfg DurabilityConfig) (*Durability, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	d := &Durability{
		conn: conn, cfg: cfg.withDefaults(), tag: "{prism:" + cfg.Namespace + "}", name: rand.Text(), wake: make(chan struct{}, 1),
		ctx: running, stop: stop, consumers: make(map[uint64]*consumer), standby: make(map[string][]*hold),
		freed: make(map[string]bool),
	}
	maxAge := max(d.cfg.MaxAge.Milliseconds(), 1)
	age := strconv.FormatInt(maxAge, 10)
	d.keys = []string{d.tag + ":q:", d.tag + ":t:", d.tag + ":c:", d.tag + ":d:" + age}
	d.head = []string{age, strconv.FormatInt(2*maxAge+keepIdle.Milliseconds(), 10), "PUBLISH"}
	if conn.write.Mode() == rueidis.ClientModeCluster {
		d.lane, d.head[2] = newLane(running, conn, d.tag), "SPUBLISH"
	} else {
		d.lane = newLane(running, conn, "")
	}
	d.lane.notices = true
	if err := d.open(ctx); err != nil {
		d.Close() //nolint:contextcheck // the caller's may have ended
		return nil, conn.wrap(ctx, "open durability", "", err)
	}
	d.ended.Go(d.renewing)
	d.ended.Go(d.work)
	return d, nil
}

// open begins the lease and listens.
func (d *Durability) open(ctx context.Context) error {
	// A purge of nothing finds out whether this user may run all commands.
	if _, err := d.conn.run(ctx, d.conn.write, purgeQueue, d.keys, d.args("")); err != nil {
		return err
	}
	if err := d.renew(ctx); err != nil {
		return err
	}
	d.ended.Go(d.lane.run)
	w := d.lane.change([]string{d.channel("n:" + d.name), d.channel("free")}, func(c *channel) {
		if c.topic == d.channel("free") {
			c.notices = d.onFree
		} else {
			c.notices, c.joined = d.onNotice, d.missed
		}
	})
	timer := time.NewTimer(d.conn.timeout)
	defer timer.Stop()
	return w.wait(ctx, timer.C, nil)
}

// args returns the arguments of a script: those of queue.lua, and more.
func (d *Durability) args(more ...string) []string { return slices.Concat(d.head, more) }

// channel returns what the lane calls one of the namespace's channels.
func (d *Durability) channel(name string) string {
	if d.lane.sharded {
		return ":" + name
	}
	return d.tag + ":" + name
}

// Close gives up the lease, and with it all topics that are still held, and ends every consumer. It waits until all is ended.
// Closing again does nothing.
func (d *Durability) Close() {
	d.mu.Lock()
	first := !d.closed
	d.closed = true
	for _, c := range d.consumers {
		c.end()
	}
	leased, lease := d.session > 0, d.lease()
	d.mu.Unlock()
	d.stop()
	d.ended.Wait()
	if first && leased {
		ctx, cancel := context.WithTimeout(context.Background(), d.conn.timeout)
		defer cancel()
		_ = d.conn.write.Do(ctx, d.conn.write.B().Del().Key(d.keys[2]+lease).Build()) // else it ends by itself
	}
}

// lease returns the name of the process' lease. The caller holds d.mu.
func (d *Durability) lease() string { return d.name + "/" + strconv.FormatUint(d.session, 10) }

// Enqueue implements multicastregistry.Durability, with one script for 250 messages. A message for which the error says that
// the outcome is unknown may be stored; storing it again keeps one copy.
func (d *Durability) Enqueue(ctx context.Context, messages []multicastregistry.Message) []error {
	results := make([]error, len(messages))
	bounded, cancel, err := d.conn.bound(ctx)
	if err != nil {
		for i := range results {
			results[i] = d.conn.wrap(ctx, "store for", messages[i].Identity, err)
		}
		return results
	}
	defer cancel()
	at := make([]int, 0, len(messages)) // the places of what is not too large
	most := min(d.cfg.MaxBytes, MaxPayload)
	for i := range messages {
		if size := len(messages[i].Payload); size > most {
			results[i] = fmt.Errorf("redis: store for %q: %w: %d bytes, at most %d",
				messages[i].Identity, multicastregistry.ErrTooLarge, size, most)
			continue
		}
		at = append(at, i)
	}
	first := d.args(strconv.Itoa(d.cfg.MaxMessages), strconv.Itoa(d.cfg.MaxBytes))
	calls := split(len(at), messagesAtOnce, first, func(args []string, item int) []string {
		message := messages[at[item]]
		message.AckTo = ""
		return append(args, message.Topic, message.ID, strconv.Itoa(len(message.Payload)), rueidis.BinaryString(encodeFrame(&message)))
	})
	d.conn.runSplit(bounded, enqueueScript, d.keys, calls, func(first, items int, result rueidis.RedisResult) {
		answers, err := integers(result, items)
		for n := range items {
			i := at[first+n]
			if err != nil {
				results[i] = d.conn.unsure(ctx, "store for", messages[i].Identity, err)
			} else if answers[n] != 0 {
				results[i] = d.full(messages[i].Identity, answers[n])
			}
		}
	})
	return results
}

func (d *Durability) full(identity string, answer int64) error {
	if answer == 1 {
		return fmt.Errorf("redis: store for %q: %w: %d messages wait", identity, multicastregistry.ErrQueueFull, d.cfg.MaxMessages)
	}
	return fmt.Errorf("redis: store for %q: %w: more than %d bytes", identity, multicastregistry.ErrQueueFull, d.cfg.MaxBytes)
}

// unknown wraps the error of a change of which nobody knows whether it was made, unless it says that it was not.
func (d *Durability) unknown(ctx context.Context, op, identity string, err error) error {
	if refused(err) || unsent(err) || contextError(ctx) != nil {
		return d.conn.wrap(ctx, op, identity, err)
	}
	return d.conn.wrap(ctx, op, identity, fmt.Errorf("%w: outcome unknown: %w", multicastregistry.ErrUnavailable, err))
}

// integers reads a reply of that many integers.
func integers(result rueidis.RedisResult, n int) ([]int64, error) {
	answers, err := result.AsIntSlice()
	if err == nil && len(answers) != n {
		err = fmt.Errorf("%w: %d answers to %d questions", errReply, len(answers), n)
	}
	return answers, err
}

// ackAddress and parseAckAddress name one stored message. Neither an entry nor a topic has spaces.
func ackAddress(entry, topic, id string) string { return entry + " " + topic + " " + id }

func parseAckAddress(address string) (entry, topic, id string, ok bool) {
	entry, rest, _ := strings.Cut(address, " ")
	topic, id, ok = strings.Cut(rest, " ")
	return entry, topic, id, ok && entry != ""
}

// Ack implements multicastregistry.Durability. What is no address of a stored message is passed over, as one that is acked is.
func (d *Durability) Ack(ctx context.Context, acks []multicastregistry.Ack) []error {
	results := make([]error, len(acks))
	bounded, cancel, err := d.conn.bound(ctx)
	if err != nil {
		for i := range results {
			results[i] = d.conn.wrap(ctx, "ack of", acks[i].Identity, err)
		}
		return results
	}
	defer cancel()
	at := make([]int, 0, len(acks))
	for i := range acks {
		if _, _, _, ok := parseAckAddress(acks[i].To); ok {
			at = append(at, i)
		}
	}
	calls := split(len(at), topicsAtOnce, d.head, func(args []string, item int) []string {
		entry, topic, id, _ := parseAckAddress(acks[at[item]].To)
		return append(args, topic, id, entry)
	})
	d.conn.runSplit(bounded, removeScript, d.keys, calls, func(first, items int, result rueidis.RedisResult) {
		if _, err := integers(result, items); err != nil {
			for _, i := range at[first : first+items] {
				results[i] = d.unknown(ctx, "ack of", acks[i].Identity, err)
			}
		}
	})
	return results
}

// Purge implements multicastregistry.Durability.
func (d *Durability) Purge(ctx context.Context, topic string) (int, error) {
	reply, err := d.conn.run(ctx, d.conn.write, purgeQueue, d.keys, d.args(topic))
	if err != nil {
		return 0, d.conn.wrap(ctx, "purge", topic, err)
	}
	return int(reply[0]), nil
}

// Ping implements multicastregistry.Pinger. It also fails while there is no connection for notices.
func (d *Durability) Ping(ctx context.Context) error {
	if err := d.conn.Ping(ctx); err != nil {
		return err
	}
	if err := d.lane.down(); err != nil {
		return fmt.Errorf("redis: ping: %w: %w", multicastregistry.ErrUnavailable, err)
	}
	return nil
}
