package redis

import (
	"cmp"
	"context"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// batchSize is the most messages that Next of a consumer returns at once, give or take those of one topic.
const batchSize = 1024

// entryID names an entry of a stream; later ones are greater.
type entryID struct{ ms, n uint64 }

func parseEntry(entry string) entryID {
	ms, n, _ := strings.Cut(entry, "-")
	var p entryID
	p.ms, _ = strconv.ParseUint(ms, 10, 64) // what Redis calls an entry is one
	p.n, _ = strconv.ParseUint(n, 10, 64)
	return p
}

func (p entryID) compare(other entryID) int {
	return cmp.Or(cmp.Compare(p.ms, other.ms), cmp.Compare(p.n, other.n))
}

func (p entryID) String() string {
	return strconv.FormatUint(p.ms, 10) + "-" + strconv.FormatUint(p.n, 10)
}

// holdState says how a consumer stands to a topic.
type holdState uint8

const (
	claiming  holdState = iota // it is being claimed, or in Durability.claiming
	held                       // it is ours, as far as we know
	standing                   // somebody else holds it; in Durability.standby
	abandoned                  // it was removed
)

// hold is one topic of a consumer, guarded by Durability.mu.
type hold struct {
	topic    string
	consumer *consumer
	claim    uint64  // makes the holder's name unlike that of an earlier claim, which may still be let go
	session  uint64  // of the latest claim
	fetched  entryID // the last entry that was read
	handed   entryID // the last entry that some holder has handed out
	target   entryID // the last entry there was when it was claimed
	state    holdState
	due      bool // in the consumer's due
	poked    bool // a notice came while it was being claimed
	mention  bool // in CaughtUp, once it is reached
}

// holder returns what names the hold in Redis.
func (h *hold) holder(d *Durability) string {
	text := make([]byte, 0, 64)
	text = append(append(text, d.name...), '/')
	text = append(strconv.AppendUint(text, h.session, 10), '/')
	text = append(strconv.AppendUint(text, h.consumer.number, 10), '.')
	return string(strconv.AppendUint(text, h.claim, 10))
}

// chunk is what was read of one topic.
type chunk struct {
	hold     *hold
	messages []multicastregistry.Message
	last     entryID
	caughtUp bool
}

// consumer is a subscription of a Durability. It has no goroutine: whatever is read for it, the Durability's work reads while
// Next waits.
type consumer struct {
	durability *Durability
	number     uint64
	turn       chan struct{} // held by one Add or Remove
	ready      chan struct{} // there may be something to take
	gone       chan struct{} // closed by Close

	// What follows is guarded by Durability.mu.
	topics   map[string]*hold
	due      []*hold // held topics with something to fetch
	chunks   []chunk
	buffered int // messages in chunks
	caughtUp []string
	dropped  uint64
	waiting  bool // Next waits
	queued   bool // in Durability.ready
	closed   bool
}

// Consume implements multicastregistry.Durability.
func (d *Durability) Consume(ctx context.Context, topics ...string) (multicastregistry.Subscription, error) {
	c := &consumer{
		durability: d, turn: make(chan struct{}, 1), ready: make(chan struct{}, 1), gone: make(chan struct{}),
		topics: make(map[string]*hold, len(topics)),
	}
	d.mu.Lock()
	d.number++
	c.number = d.number
	if d.closed {
		c.end()
	} else {
		d.consumers[c.number] = c
	}
	d.mu.Unlock()
	if err := c.Add(ctx, topics...); err != nil {
		_ = c.Close() //nolint:contextcheck // it has nothing to let go
		return nil, err
	}
	return c, nil
}

// begin takes the turn of this consumer's changes.
func (c *consumer) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-c.gone:
		return io.EOF
	default:
	}
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-c.gone:
		return io.EOF
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Add implements multicastregistry.Subscription. A call that fails has added nothing.
func (c *consumer) Add(ctx context.Context, topics ...string) error {
	if err := c.begin(ctx); err != nil {
		return failed("consume", err)
	}
	defer func() { <-c.turn }()
	d := c.durability
	holds := make([]*hold, 0, len(topics))
	d.mu.Lock()
	d.claims++
	for _, topic := range topics {
		if c.topics[topic] == nil && !c.closed {
			h := &hold{topic: topic, consumer: c, claim: d.claims, mention: true}
			c.topics[topic] = h
			holds = append(holds, h)
		}
	}
	d.mu.Unlock()
	err := d.claim(ctx, slices.Clone(holds))
	d.mu.Lock()
	closed := c.closed
	if err != nil {
		unknown := slices.DeleteFunc(slices.Clone(holds), func(h *hold) bool { return h.state != claiming && h.state != abandoned })
		d.letGo(c.leave(holds), unknown)
	}
	d.mu.Unlock()
	switch {
	case closed:
		return io.EOF
	case err != nil:
		return d.conn.wrap(ctx, "consume", "", err)
	}
	return nil
}

// Remove implements multicastregistry.Subscription. Messages that wait for the topics go back. When Redis does not confirm it
// in time, it is told later.
func (c *consumer) Remove(ctx context.Context, topics ...string) error {
	if err := c.begin(ctx); err != nil {
		return failed("stop to consume", err)
	}
	defer func() { <-c.turn }()
	d := c.durability
	var holds []*hold
	d.mu.Lock()
	for _, topic := range topics {
		if h := c.topics[topic]; h != nil {
			holds = append(holds, h)
			delete(c.topics, topic)
		}
	}
	releases := c.leave(holds)
	d.mu.Unlock()
	d.releaseNow(ctx, releases)
	return failed("stop to consume", ctx.Err())
}

// Close implements multicastregistry.Subscription. When Redis does not confirm it in time, it is told later.
func (c *consumer) Close() error {
	d := c.durability
	d.mu.Lock()
	if c.closed {
		d.mu.Unlock()
		return nil
	}
	c.end()
	holds := make([]*hold, 0, len(c.topics))
	for _, h := range c.topics {
		holds = append(holds, h)
	}
	releases := c.leave(holds)
	delete(d.consumers, c.number)
	if d.closed { // the lease is gone, or going
		releases = nil
	}
	d.mu.Unlock()
	d.releaseNow(context.Background(), releases)
	return nil
}

// end closes the consumer, and leaves its topics to the caller, who holds Durability.mu.
func (c *consumer) end() {
	if !c.closed {
		c.closed = true
		close(c.gone)
	}
}

// leave gives up topics, and returns what is to be let go. A topic that is just being claimed is let go when that is done. The
// caller holds Durability.mu.
func (c *consumer) leave(holds []*hold) []release {
	d := c.durability
	var releases []release
	for _, h := range holds {
		delete(c.topics, h.topic)
		switch h.state {
		case held:
			releases = append(releases, release{session: h.session, holder: h.holder(d), topic: h.topic, handed: h.handed.String()})
		case standing:
			d.standsNoMore(h)
		case claiming, abandoned:
		}
		h.state = abandoned
	}
	if len(holds) > 0 {
		c.forget(func(h *hold) bool { return h.state == abandoned })
	}
	return releases
}

// forget drops what was read of some holds. The caller holds Durability.mu.
func (c *consumer) forget(which func(*hold) bool) {
	c.due = slices.DeleteFunc(c.due, which)
	c.chunks = slices.DeleteFunc(c.chunks, func(some chunk) bool {
		gone := which(some.hold)
		if gone {
			c.buffered -= len(some.messages)
			some.hold.mention = some.hold.mention || some.caughtUp
		}
		return gone
	})
	c.caughtUp = slices.DeleteFunc(c.caughtUp, func(topic string) bool { return c.topics[topic] == nil })
}

// Next implements multicastregistry.Subscription.
func (c *consumer) Next(ctx context.Context) (multicastregistry.Batch, error) {
	for {
		if err := ctx.Err(); err != nil {
			return multicastregistry.Batch{}, err
		}
		if batch, ok := c.take(); ok {
			return batch, nil
		}
		select {
		case <-c.ready:
		case <-c.gone:
			return multicastregistry.Batch{}, io.EOF
		case <-ctx.Done():
			c.durability.mu.Lock()
			c.waiting = false
			c.durability.mu.Unlock()
		}
	}
}

// take returns what waits, or has it fetched. While the lease may have been lost, it returns nothing: the messages may be
// another consumer's by now.
func (c *consumer) take() (batch multicastregistry.Batch, ok bool) {
	d := c.durability
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.closed {
		return batch, false
	}
	if time.Now().Before(d.until) {
		if n := min(c.buffered, batchSize); n > 0 {
			batch.Messages = make([]multicastregistry.Message, 0, n)
		}
		for len(c.chunks) > 0 && len(batch.Messages) < batchSize {
			some := c.chunks[0]
			c.chunks[0] = chunk{}
			c.chunks = c.chunks[1:]
			batch.Messages = append(batch.Messages, some.messages...)
			if some.last.compare(some.hold.handed) > 0 {
				some.hold.handed = some.last
			}
			if some.caughtUp {
				c.caughtUp = append(c.caughtUp, some.hold.topic)
			}
		}
		c.buffered -= len(batch.Messages)
		if len(c.chunks) == 0 {
			c.chunks = nil
		}
		batch.Dropped, c.dropped = c.dropped, 0
		batch.CaughtUp, c.caughtUp = c.caughtUp, nil
	}
	ok = len(batch.Messages) > 0 || batch.Dropped > 0 || len(batch.CaughtUp) > 0
	c.waiting = !ok
	d.enlist(c)
	return batch, ok
}

// caught mentions a topic in the next batch's CaughtUp, if it has to be. The caller holds Durability.mu.
func (h *hold) caught() {
	if h.mention {
		h.mention = false
		h.consumer.caughtUp = append(h.consumer.caughtUp, h.topic)
		signal(h.consumer.ready)
	}
}

// poke takes in that there may be something to fetch. The caller holds Durability.mu.
func (h *hold) poke() {
	switch c := h.consumer; {
	case h.state != held:
		h.poked = true
	case !h.due:
		h.due = true
		c.due = append(c.due, h)
		c.durability.enlist(c)
	}
}

// enlist has a consumer's due topics fetched if it waits. The caller holds d.mu.
func (d *Durability) enlist(c *consumer) {
	if c.waiting && !c.queued && len(c.due) > 0 {
		c.queued = true
		d.ready = append(d.ready, c)
		signal(d.wake)
	}
}

func signal(ready chan struct{}) {
	select {
	case ready <- struct{}{}:
	default:
	}
}
