package nats

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// turnQueues is how many queues the hub treats in one turn, and turnReads how many it reads.
	turnQueues = 8192
	turnReads  = 1000
	// hubTick is how often the hub looks whether something is to be done without being told; the other two are how often it looks
	// for holders that have gone, and for news that were lost.
	hubTick     = 500 * time.Millisecond
	lookHolders = time.Second
	lookNews    = 10 * time.Second
	// firstRetry and lastRetry bound the pause after a turn that failed.
	firstRetry = 50 * time.Millisecond
	lastRetry  = time.Second
	// leaveTimeout bounds what close waits for holders' entries to be given back.
	leaveTimeout = 2 * time.Second
)

// hub reads the queues that this process consumes, for all of its consumers: one goroutine asks the server, for many queues
// at once, and brings what it finds to the consumers' buffers; another one keeps the lease and looks for what nobody has told.
type hub struct {
	d       *Durability
	holders *holders
	news    *nats.Subscription

	gone    chan struct{}
	ended   context.Context //nolint:containedctx // ends the goroutines' requests
	end     context.CancelFunc
	running sync.WaitGroup
	once    sync.Once
	wake    chan struct{} // something is due

	mu        sync.Mutex // guards all of this, queues and consumers included; never held while anybody waits
	queues    map[string]*queue
	due       []*queue
	consumers map[*consumer]struct{}
	lost      map[string]uint64    // by age, of queues that nobody consumes here
	freed     map[string]time.Time // when queues were given back, lately
	seen      uint64               // the last sequence that we know everything up to
	closed    bool
}

// queue is one topic that is consumed here, or held still.
type queue struct {
	name, topic, identity string

	consumers []*consumer // the first holds the queue, the others stand by
	turn      uint64      // changes whenever another consumer comes first, or everything is to be read anew
	due, busy bool        // due: listed; busy: in the hands of the goroutine
	again     bool        // due once more when it is no longer busy
	parked    bool        // the holder has no room

	stored  bool   // something is, as far as we know
	next    uint64 // where to read on
	read    uint64 // the last sequence that was yielded in this process
	yielded uint64 // up to here messages may have been yielded before
	held    map[uint64]struct{}

	hold hold // what the stream of holders says
}

// openHub begins to hear the news.
func openHub(ctx context.Context, d *Durability, held *stream) (*hub, error) {
	h := &hub{
		d: d, gone: make(chan struct{}), wake: make(chan struct{}, 1), queues: make(map[string]*queue),
		consumers: make(map[*consumer]struct{}), lost: make(map[string]uint64), freed: make(map[string]time.Time),
	}
	h.ended, h.end = context.WithCancel(context.WithoutCancel(ctx))
	h.holders = newHolders(h, held)
	c := d.conn
	sub, err := c.nc.Subscribe(h.newsSubject(), h.hear)
	if err != nil {
		h.end()
		return nil, err
	}
	h.news = sub
	if err = sub.SetPendingLimits(incoming, waitingBytes); err == nil {
		err = c.roundTrip(ctx)
	}
	if err != nil {
		_ = sub.Unsubscribe()
		h.end()
		return nil, err
	}
	h.running.Go(h.pump)
	h.running.Go(h.keep)
	if !c.router.own(h) {
		h.close()
		return nil, nats.ErrConnectionClosed
	}
	return h, nil
}

// Close ends everything: it is for the connection's end.
func (h *hub) Close() error {
	h.close()
	return nil
}

func (h *hub) close() {
	h.once.Do(func() {
		h.mu.Lock()
		h.closed = true
		consumers := make([]*consumer, 0, len(h.consumers))
		for c := range h.consumers {
			consumers = append(consumers, c)
		}
		h.mu.Unlock()
		for _, c := range consumers {
			_ = c.Close()
		}
		close(h.gone)
		_ = h.news.Unsubscribe() // fails on a closed connection, where nothing is left to end
		timer := time.AfterFunc(leaveTimeout, h.end)
		h.running.Wait()
		timer.Stop()
		h.end()
		h.d.conn.router.disown(h)
	})
}

// consumer returns a new one, or nil after close.
func (h *hub) consumer() *consumer {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	c := &consumer{hub: h, topics: make(map[string]*queue), ready: make(chan struct{}, 1), gone: make(chan struct{})}
	h.consumers[c] = struct{}{}
	return c
}

// mark puts a queue on the list. The caller holds h.mu.
func (h *hub) mark(q *queue) {
	switch {
	case q.busy:
		q.again = true
	case !q.due:
		q.due = true
		h.due = append(h.due, q)
		wake(h.wake)
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// pump takes turns as long as something is due. At the end it gives back what is held.
func (h *hub) pump() {
	pause := time.Duration(0)
	for {
		if pause > 0 {
			_ = wait(h.ended, pause)
		}
		select {
		case <-h.wake:
		case <-h.gone:
			h.leave()
			return
		}
		for more := true; more; {
			var err error
			if more, err = h.turn(); err == nil {
				pause = 0
				continue
			}
			if h.ended.Err() != nil {
				return
			}
			if pause == 0 {
				h.d.conn.log.Warn("nats: reading stored messages fails", slog.Any("error", err))
			}
			pause = min(max(2*pause, firstRetry), lastRetry)
			wake(h.wake)
			break
		}
	}
}

// leave gives back what is held still.
func (h *hub) leave() {
	for {
		more, err := h.turn()
		if err != nil || !more {
			break
		}
	}
	h.holders.end(h.ended)
}

// turn treats what is due: it finds out what is stored where nothing was, takes hold of it, reads it, and gives back what nobody
// consumes any more.
func (h *hub) turn() (more bool, err error) {
	t := h.sort()
	if err = h.release(t.release); err == nil {
		err = h.peek(t)
	}
	if err == nil {
		err = h.claim(t)
	}
	if err == nil {
		reads := t.read
		for len(reads) > 0 && err == nil {
			n := min(len(reads), turnReads)
			err = h.read(reads[:n])
			reads = reads[n:]
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, q := range t.all {
		q.busy = false
		if q.again || err != nil {
			q.again = false
			h.mark(q)
		}
		h.drop(q)
	}
	return len(h.due) > 0, err
}

// drop forgets a queue that is nobody's. The caller holds h.mu.
func (h *hub) drop(q *queue) {
	if len(q.consumers) == 0 && q.hold.seq == 0 && !q.due && !q.busy {
		delete(h.queues, q.name)
	}
}

// turnOf is what is to be done in one turn.
type turnOf struct {
	all, release, peek, claim, read []*queue
}

// sort takes queues off the list, and says what is to be done about each.
func (h *hub) sort() *turnOf {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := &turnOf{}
	n := min(len(h.due), turnQueues)
	t.all = slices.Clone(h.due[:n])
	h.due = slices.Delete(h.due, 0, n)
	for _, q := range t.all {
		q.due, q.busy = false, true
		switch {
		case len(q.consumers) == 0:
			if q.hold.seq != 0 {
				t.release = append(t.release, q)
			}
		case q.hold.renew:
			t.claim = append(t.claim, q)
		case q.hold.seq != 0:
			t.read = append(t.read, q)
		case q.stored:
			t.claim = append(t.claim, q)
		default:
			t.peek = append(t.peek, q)
		}
	}
	return t
}

// settledFor tells the consumers of a queue that all is yielded that is theirs to get. The caller holds h.mu.
func (h *hub) settledFor(q *queue) {
	if n := h.lost[q.name]; n > 0 && len(q.consumers) > 0 && q.hold.by == "" {
		delete(h.lost, q.name)
		q.consumers[0].dropped += n
		wake(q.consumers[0].ready)
	}
	for _, c := range q.consumers {
		c.mention(q)
	}
}

// tell passes on what was stored, by name: here, and to other processes.
func (h *hub) tell(stored map[string]uint64) {
	if len(stored) == 0 {
		return
	}
	h.mu.Lock()
	for name, seq := range stored {
		h.heard(name, seq)
	}
	h.mu.Unlock()
	h.spread(stored)
}

// heard takes in that something was stored. The caller holds h.mu.
func (h *hub) heard(name string, seq uint64) {
	h.seen = max(h.seen, seq)
	q := h.queues[name]
	if q == nil || len(q.consumers) == 0 || q.hold.seq != 0 && seq < q.next {
		return
	}
	q.stored = true
	if q.hold.by == "" && !q.parked {
		h.mark(q)
	}
}

// acked takes in that a message is gone for good.
func (h *hub) acked(subject string, seq uint64) {
	name, _, _ := strings.Cut(subject, ".")
	h.mu.Lock()
	defer h.mu.Unlock()
	if q := h.queues[name]; q != nil {
		delete(q.held, seq)
	}
}

// purged takes what waits for a topic's consumer from it: it is not stored any more.
func (h *hub) purged(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.lost, name)
	q := h.queues[name]
	if q == nil {
		return
	}
	clear(q.held)
	if len(q.consumers) > 0 {
		q.consumers[0].forget(q, func(*waiting) bool { return true })
	}
}

// withdrawn takes one message from a topic's consumer, if it waits there still.
func (h *hub) withdrawn(name, id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	q := h.queues[name]
	if q == nil || len(q.consumers) == 0 {
		return
	}
	q.consumers[0].forget(q, func(w *waiting) bool { return w.message.ID == id })
}

// tooOld counts messages that were removed because of their age.
func (h *hub) tooOld(name string, n int) {
	if n == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if q := h.queues[name]; q != nil && q.hold.seq != 0 && len(q.consumers) > 0 {
		c := q.consumers[0]
		c.dropped += uint64(n)
		wake(c.ready)
		return
	}
	if len(h.lost) < depthsKept {
		h.lost[name] += uint64(n)
	}
}

// join adds a consumer to a queue. The caller holds h.mu.
func (h *hub) join(name, topic, identity string, c *consumer) *queue {
	q := h.queues[name]
	if q == nil {
		q = &queue{name: name, topic: topic, identity: identity}
		h.queues[name] = q
	}
	q.consumers = append(q.consumers, c)
	if q.consumers[0] == c {
		h.anew(q)
		h.mark(q)
	}
	return q
}

// part takes a consumer from a queue. The caller holds h.mu.
func (h *hub) part(q *queue, c *consumer) {
	held := q.consumers[0] == c
	q.consumers = slices.DeleteFunc(q.consumers, func(other *consumer) bool { return other == c })
	if !held {
		return
	}
	h.anew(q)
	if len(q.consumers) > 0 || q.hold.seq != 0 {
		h.mark(q)
	}
	h.drop(q)
}

// anew has everything read once more, for another consumer. The caller holds h.mu.
func (h *hub) anew(q *queue) {
	q.turn++
	q.next, q.parked = 0, false
	q.yielded = max(q.yielded, q.read)
}

// lose has a queue begin again without a hold. The caller holds h.mu.
func (h *hub) lose(q *queue) {
	if len(q.consumers) > 0 {
		q.consumers[0].forget(q, func(*waiting) bool { return true })
	}
	h.anew(q)
	q.hold = hold{}
	q.yielded, q.read = 0, 0
	clear(q.held)
}

// doubt has every queue claimed that another process held as far as we know: that it was given back is news, which may be lost.
// The caller holds h.mu.
func (h *hub) doubt() {
	for _, q := range h.queues {
		if len(q.consumers) > 0 && q.hold.by != "" {
			q.hold.by, q.stored = "", true
			h.mark(q)
		}
	}
}

// rescan has every queue looked at. The caller holds h.mu.
func (h *hub) rescan() {
	for _, q := range h.queues {
		if len(q.consumers) > 0 && q.hold.by == "" && !q.parked {
			h.mark(q)
		}
	}
}

// keep looks after what nobody tells.
func (h *hub) keep() {
	tick := time.NewTicker(hubTick)
	defer tick.Stop()
	c := h.d.conn
	epoch, dropped := c.epoch(), 0
	var holders, news time.Time
	rescanned := time.Now()
	for {
		select {
		case <-tick.C:
		case <-h.gone:
			return
		}
		if !c.nc.IsConnected() {
			continue
		}
		now := time.Now()
		h.holders.keep(h.ended, now)
		again := c.epoch() != epoch
		epoch = c.epoch()
		h.repeat(again, now)
		if n, err := h.news.Dropped(); err == nil && n != dropped {
			dropped, again = n, true
		}
		if again || now.Sub(news) >= lookNews {
			news = now
			// News of one message may be lost while those of later ones are heard: its sender's connection broke.
			anyway := now.Sub(rescanned) >= rescanEvery
			if again || anyway {
				rescanned = now
			}
			h.lookForNews(again || anyway, again)
		}
		if now.Sub(holders) >= lookHolders {
			holders = now
			h.holders.look(h.ended)
		}
	}
}

// rescanEvery is how often all queues are looked at, whatever is heard.
const rescanEvery = 15 * time.Second

// lookForNews asks for the last sequence, and has all queues looked at when that is one nobody has told of, or anyway. With doubt
// those that others held are claimed as well.
func (h *hub) lookForNews(all, doubt bool) {
	h.mu.Lock()
	idle := len(h.queues) == 0
	h.mu.Unlock()
	if idle {
		return
	}
	info, err := h.d.queue.info(h.ended, "", 0)
	if err != nil {
		return // the next time
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if doubt {
		h.doubt()
	}
	if all || info.State.LastSeq > h.seen {
		h.rescan()
	}
	h.seen = max(h.seen, info.State.LastSeq)
}
