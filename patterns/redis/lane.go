package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/mailbox"
)

const (
	// channelsAtOnce is the most channels that one SUBSCRIBE names.
	channelsAtOnce = 1000
	// The wait before the next try to connect doubles from firstBackoff up to maxBackoff, less up to half of it by chance.
	firstBackoff = 20 * time.Millisecond
	maxBackoff   = 2 * time.Second
)

// lane is one connection with subscribed channels, for as long as its Messaging is open.
//
// What is wanted stands in channels: those that have listeners. One goroutine, run, makes Redis agree, in rounds: it takes
// every channel where the two differ, sends one pipeline for all, and looks again. Callers change what is wanted, under the
// lock and without a round trip, then wait for their channels to agree. So whatever many callers want of one channel at once,
// it ends as the last one wanted it; 10,000 channels take one round trip; and delivery waits for nobody.
//
// A connection that is lost, from which Redis takes a channel away (its slot moves to another node), or that a probe finds on
// the wrong node, is replaced, with backoff and for ever, and what is wanted subscribed again. What was published meanwhile is
// lost.
type lane struct {
	conn    *Conn
	tag     string // before a topic in the name of its channel; empty unless sharded
	sharded bool   // SSUBSCRIBE, on the node that has the tag's slot
	notices bool   // its channels are a Durability's
	ctx     context.Context
	wake    chan struct{} // there is something in changed

	mu       sync.RWMutex // before any Box's; never held while waiting for Redis
	channels map[string]*channel
	changed  map[*channel]struct{} // those that differ
	link     *link                 // nil while disconnected
	failure  error                 // of the connection before, until one works
}

// channel is one topic, guarded by its lane's lock. It is in the lane's channels while it is wanted or subscribed.
type channel struct {
	topic, identity string
	slots           []*mailbox.Slot   // of subscriptions
	receipts        *mailbox.Receipts // of an inbox
	notices         func(text string) // of a Durability; it waits for nothing
	joined          func()            // is told when it is subscribed, again too; it waits for nothing
	subscribed      bool              // by the link
	busy            bool              // a command that changes subscribed is under way
	waiting         []*waiter
}

func (c *channel) wanted() bool { return len(c.slots) > 0 || c.receipts != nil || c.notices != nil }

// waiter waits until channels of one lane agree with what is wanted. The lane's lock guards it, except done.
type waiter struct {
	lane *lane
	on   []*channel
	open int
	err  error         // Redis refuses
	done chan struct{} // closed when none is open, or Redis refuses
}

func newLane(ctx context.Context, conn *Conn, tag string) *lane {
	return &lane{
		conn: conn, tag: tag, sharded: tag != "", ctx: ctx, wake: make(chan struct{}, 1),
		channels: make(map[string]*channel), changed: make(map[*channel]struct{}),
	}
}

// change edits channels of topics, and returns what waits for Redis to agree.
func (l *lane) change(topics []string, edit func(*channel)) *waiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &waiter{lane: l, done: make(chan struct{})}
	for _, topic := range topics {
		c := l.channels[topic]
		if c == nil {
			c = &channel{topic: topic}
			_, c.identity, _ = multicastregistry.ParseTopic(topic)
			l.channels[topic] = c
		}
		edit(c)
		if !l.review(c) {
			c.waiting = append(c.waiting, w)
			w.on = append(w.on, c)
			w.open++
		}
	}
	if w.open == 0 {
		close(w.done)
	}
	return w
}

// review tells whether a channel agrees with what is wanted, releases who waits for that, and else lets run change it.
// The caller holds the lock.
func (l *lane) review(c *channel) bool {
	if c.busy {
		return false // it is reviewed afterwards
	}
	if c.subscribed != c.wanted() {
		l.changed[c] = struct{}{}
		select {
		case l.wake <- struct{}{}:
		default:
		}
		return false
	}
	delete(l.changed, c)
	if !c.wanted() {
		delete(l.channels, c.topic)
	}
	for _, w := range c.waiting {
		if w.open--; w.open == 0 {
			close(w.done)
		}
	}
	c.waiting = nil
	return true
}

// wait returns when Redis agrees. An error says why it did not; io.EOF that gone was closed.
func (w *waiter) wait(ctx context.Context, timeout <-chan time.Time, gone <-chan struct{}) error {
	l := w.lane
	var err error
	select {
	case <-w.done:
		return w.err
	case <-gone:
		err = io.EOF
	case <-l.ctx.Done():
		err = fmt.Errorf("%w: closed", multicastregistry.ErrUnavailable)
	case <-ctx.Done():
		err = ctx.Err()
		if why := l.down(); why != nil {
			err = fmt.Errorf("%w: %w: %w", multicastregistry.ErrUnavailable, err, why)
		}
	case <-timeout:
		err = fmt.Errorf("%w: not confirmed within %v", multicastregistry.ErrUnavailable, l.conn.timeout)
		if why := l.down(); why != nil {
			err = fmt.Errorf("%w: %w", err, why)
		}
	}
	return err
}

// abandon forgets a waiter for whom nobody waits any more.
func (w *waiter) abandon() {
	w.lane.mu.Lock()
	defer w.lane.mu.Unlock()
	for _, c := range w.on {
		c.waiting = slices.DeleteFunc(c.waiting, func(other *waiter) bool { return other == w })
	}
}

// down returns why there is no connection though there is something to subscribe, else nil.
func (l *lane) down() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.channels) == 0 {
		return nil
	}
	return l.failure
}

// run keeps a connection, while there is anything to subscribe, until the context ends.
func (l *lane) run() {
	failures := 0
	for {
		if !l.await() {
			return
		}
		since := time.Now()
		err := l.connect()
		l.disconnected(err)
		if time.Since(since) > 2*maxBackoff {
			failures = 0
		}
		backoff := min(firstBackoff<<min(failures, 16), maxBackoff)
		timer := time.NewTimer(backoff - rand.N(backoff/2))
		failures++
		select {
		case <-l.ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// await waits for something to do. It returns false when the context ends.
func (l *lane) await() bool {
	for {
		l.mu.RLock()
		something := len(l.changed) > 0
		l.mu.RUnlock()
		if something {
			return l.ctx.Err() == nil
		}
		select {
		case <-l.wake:
		case <-l.ctx.Done():
			return false
		}
	}
}

// disconnected notes that Redis has forgotten all subscriptions.
func (l *lane) disconnected(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.link, l.failure = nil, err
	for _, c := range l.channels {
		c.subscribed, c.busy = false, false
		l.review(c)
	}
}

// connect opens a connection and keeps it in line with what is wanted until it fails or the context ends.
func (l *lane) connect() error {
	k := &link{lane: l, lost: make(chan struct{}, 1)}
	k.client, _ = l.conn.write.Dedicate()
	defer k.client.Close()
	broken := k.client.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: k.onMessage, OnSubscription: k.onSubscription})
	if p, err := k.place(l.ctx); err != nil {
		return err
	} else if p != nil {
		ctx, cancel := context.WithCancel(l.ctx)
		var ended sync.WaitGroup
		ended.Go(func() { p.watch(ctx) })
		defer func() {
			cancel()
			ended.Wait()
		}()
	}
	var again <-chan time.Time // after a refusal
	for {
		select {
		case err := <-broken:
			return lost(err)
		case <-k.lost:
			return errMoved
		case <-l.ctx.Done():
			return l.ctx.Err()
		default:
		}
		if more, off := l.take(k); len(more)+len(off) > 0 {
			refused, err := k.apply(more, off)
			if err != nil {
				return err
			}
			if refused {
				again = time.After(maxBackoff)
			}
			continue
		}
		select {
		case err := <-broken:
			return lost(err)
		case <-k.lost:
			return errMoved
		case <-l.wake:
		case <-again:
			l.reviewAll()
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
	}
}

// errMoved says that Redis ended subscriptions by itself, or that they are on the wrong node.
var errMoved = errors.New("the channels moved to another node")

func lost(err error) error {
	if err == nil {
		err = net.ErrClosed
	}
	return fmt.Errorf("connection lost: %w", err)
}

// take returns the channels to subscribe and those to unsubscribe, and marks them busy.
func (l *lane) take(k *link) (more, off []*channel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.link = k
	for c := range l.changed {
		c.busy = true
		if c.subscribed {
			off = append(off, c)
		} else {
			more = append(more, c)
		}
	}
	clear(l.changed)
	return more, off
}

func (l *lane) reviewAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.channels {
		l.review(c)
	}
}

// link is one connection of a lane.
type link struct {
	lane   *lane
	client rueidis.DedicatedClient
	lost   chan struct{} // Redis took a channel away, or counts none of them where it publishes
}

// apply subscribes and unsubscribes channels in one pipeline. Refused says that Redis does not allow some of it; an error that
// the connection is of no use.
func (k *link) apply(more, off []*channel) (refused bool, err error) {
	var commands rueidis.Commands
	var chunks [][]*channel
	for chunk := range slices.Chunk(off, channelsAtOnce) {
		commands, chunks = append(commands, k.command(chunk, false)), append(chunks, chunk)
	}
	for chunk := range slices.Chunk(more, channelsAtOnce) {
		commands, chunks = append(commands, k.command(chunk, true)), append(chunks, chunk)
	}
	ctx, cancel := context.WithTimeout(k.lane.ctx, k.lane.conn.timeout)
	defer cancel()
	results := k.client.DoMulti(ctx, commands...)
	k.lane.mu.Lock()
	defer k.lane.mu.Unlock()
	for i, result := range results {
		err := result.Error()
		if err != nil {
			if answer, ok := rueidis.IsRedisErr(err); !ok || !strings.HasPrefix(answer.Error(), "NOPERM") {
				return refused, err
			}
			refused = true
		}
		for _, c := range chunks[i] {
			c.busy = false
			if err != nil {
				c.refuse(err)
				continue
			}
			c.subscribed = !c.subscribed
			if c.subscribed && c.joined != nil {
				c.joined()
			}
			k.lane.review(c)
		}
	}
	k.lane.failure = nil
	return refused, nil
}

// refuse tells whoever waits for a channel that Redis does not allow it. The caller holds the lane's lock.
func (c *channel) refuse(err error) {
	for _, w := range c.waiting {
		if w.err == nil {
			w.err = classify(err, "")
			close(w.done)
		}
	}
	c.waiting = nil
}

func (k *link) command(channels []*channel, subscribe bool) rueidis.Completed {
	names := make([]string, len(channels))
	for i, c := range channels {
		names[i] = k.lane.tag + c.topic
	}
	b := k.client.B()
	switch {
	case k.lane.sharded && subscribe:
		return b.Ssubscribe().Channel(names...).Build()
	case k.lane.sharded:
		return b.Sunsubscribe().Channel(names...).Build()
	case subscribe:
		return b.Subscribe().Channel(names...).Build()
	}
	return b.Unsubscribe().Channel(names...).Build()
}

// onSubscription notices when Redis ends a subscription by itself.
func (k *link) onSubscription(event rueidis.PubSubSubscription) {
	if !strings.HasSuffix(event.Kind, "unsubscribe") {
		return
	}
	l := k.lane
	l.mu.RLock()
	c := l.channels[strings.TrimPrefix(event.Channel, l.tag)]
	ours := l.link != k || c == nil || c.busy && c.subscribed
	l.mu.RUnlock()
	if !ours {
		k.lose()
	}
}

// lose has the connection replaced.
func (k *link) lose() {
	select {
	case k.lost <- struct{}{}:
	default:
	}
}

// onMessage delivers. It runs in the goroutine that reads the connection, and waits for nothing.
func (k *link) onMessage(published rueidis.PubSubMessage) {
	l := k.lane
	topic := strings.TrimPrefix(published.Channel, l.tag)
	var message multicastregistry.Message
	acks, notice := strings.HasPrefix(topic, inboxPrefix), l.notices
	if !acks && !notice {
		message = decodeFrame(published.Message)
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	c := l.channels[topic]
	switch {
	case l.link != k || c == nil || !c.wanted(): // the last of a channel that is being left
		return
	case notice:
		c.notices(published.Message)
		return
	case acks:
		deliverAcks(c.receipts, published.Message)
		return
	}
	message.Topic, message.Identity = c.topic, c.identity
	for _, slot := range c.slots {
		slot.Put(&message)
		if box := slot.Box(); box.Claim() {
			box.Wake()
		}
	}
}
