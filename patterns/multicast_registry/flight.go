package multicastregistry

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// How a multicast flies: its targets are handed to the messaging slot in chunks, a few chunks at a time (this file); every
// result of Publish and every receipt from the inbox (inbox.go) settles one target, or plans its next attempt (retry.go);
// meanwhile the registry is asked whether the targets that are still open are registered at all (presence.go). The flight ends
// with its last open target, with the deadline, or with the caller.

const (
	// chunkSize is how many messages are handed to the messaging slot at once.
	chunkSize = 1024
	// chunksAtOnce bounds the chunks of one multicast that are being published at the same time.
	chunksAtOnce = 2
)

// flight is one multicast under way. Its targets are settled, each once, by the results of Publish and by receipts from the
// inbox; whichever comes first counts, except that an ack always does: it is proof.
type flight struct {
	number    uint64
	messaging Messaging
	namespace string
	message   Message // what all targets get, without identity, topic and ack address
	inbox     Inbox   // nil when no acks are wanted
	retry     retry
	start     time.Time
	observed  bool               // somebody wants to know of outcomes as they become final
	cancel    context.CancelFunc // ends the flight, see cancelled
	cancelled atomic.Bool        // by the multicast's id

	done       chan struct{} // closed when no target is open
	wake       chan struct{} // there is news, or an attempt is due earlier than before
	publishing sync.WaitGroup

	mu       sync.Mutex
	targets  []Target
	attempts []attempt // of the targets, in the same order
	open     int       // targets that are not settled
	due      time.Duration
	news     []int // targets that became Delivered, which is final, since the last look; if observed
	landed   bool  // the result was taken; nothing changes any more
	gone     []int // targets that unregistered since, see forget
}

// attempt is how far the delivery to one target is. Times are since the flight's start; 0 is none.
type attempt struct {
	sent time.Duration // when the message was handed over last
	due  time.Duration // when to hand it over again
	// reached counts the attempts that may have reached somebody. Receipts can come before results: it may be off by one
	// below for a moment.
	reached int
	// reason and err are why the latest attempt failed, if it did.
	reason Reason
	err    error
}

// launch makes a flight and, when it wants acks, a place for the receipts to come back to.
func (c *Coordinator) launch(
	message Message, req *Request, start time.Time, names []string, cancel context.CancelFunc,
) *flight {
	f := &flight{
		number: c.flown.Add(1), messaging: c.slots.Messaging, namespace: c.cfg.Namespace, message: message,
		retry: newRetry(c.cfg, req), start: start, observed: req.Settled != nil, cancel: cancel,
		targets: make([]Target, len(names)), attempts: make([]attempt, len(names)), open: len(names),
		done: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	for i := range names {
		f.targets[i].Identity = names[i]
	}
	if f.open == 0 {
		close(f.done)
	}
	if req.Delivery.acked() {
		f.inbox = c.inbox
	}
	c.mu.Lock()
	c.flights[f.number] = f
	c.mu.Unlock()
	return f
}

// fly hands all messages over and returns when the last target is settled or ctx has ended, and nothing is being published
// any more. The outcomes that become final meanwhile go to settled.
func (c *Coordinator) fly(ctx context.Context, f *flight, settled func([]Target)) {
	defer f.publishing.Wait()
	all := make([]int, len(f.targets))
	for i := range all {
		all[i] = i
	}
	f.publish(ctx, all)
	p := c.watchPresence(f)
	defer p.stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		again, news, next := f.turn()
		if len(again) > 0 {
			f.publish(ctx, again)
		}
		if len(news) > 0 {
			settled(news)
		}
		timer.Reset(next)
		select {
		case <-f.done:
			return
		case <-ctx.Done():
			return
		case <-f.wake:
		case <-timer.C:
		case <-p.due():
			p.look(ctx)
		}
	}
}

// turn takes what is due to be handed over again and what there is to tell, and says how long there is until something will
// be due.
func (f *flight) turn() (again []int, news []Target, next time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	again, next = f.takeDue(time.Since(f.start))
	return again, f.takeNews(), next
}

// takeNews returns the targets that became Delivered since the last call. The caller holds f.mu.
func (f *flight) takeNews() (news []Target) {
	for _, i := range f.news {
		news = append(news, f.targets[i])
	}
	f.news = f.news[:0]
	return news
}

// publish begins to hand the messages of some targets over, in chunks.
func (f *flight) publish(ctx context.Context, which []int) {
	if len(which) == 0 {
		return
	}
	chunks := slices.Collect(slices.Chunk(which, chunkSize))
	var next atomic.Int64
	for range min(chunksAtOnce, len(chunks)) {
		f.publishing.Go(func() {
			for ctx.Err() == nil {
				n := int(next.Add(1)) - 1
				if n >= len(chunks) {
					return
				}
				f.publishChunk(ctx, chunks[n])
			}
		})
	}
}

func (f *flight) publishChunk(ctx context.Context, which []int) {
	if which = f.handOver(which); len(which) == 0 {
		return
	}
	messages := make([]Message, len(which))
	for n, i := range which {
		m := &messages[n]
		*m = f.message
		m.Identity = f.targets[i].Identity // never changes
		m.Topic = Topic(f.namespace, m.Identity)
		if f.inbox != nil {
			m.AckTo = f.inbox.Address(f.token(i))
		}
	}
	results := f.messaging.Publish(ctx, messages)
	now := time.Since(f.start)
	f.mu.Lock()
	defer f.mu.Unlock()
	for n, err := range results {
		if err == nil {
			f.accepted(which[n], now)
		} else {
			f.failed(which[n], err, now)
		}
	}
}

func reasonOf(err error) Reason {
	switch {
	case errors.Is(err, ErrNoSubscriber):
		return NoSubscriber
	case errors.Is(err, ErrQueueFull):
		return QueueFull
	case errors.Is(err, ErrTooLarge):
		return PayloadTooLarge
	}
	return BackendError
}

// settle sets the outcome of one target. The caller holds f.mu.
func (f *flight) settle(i int, outcome Target, now time.Duration) {
	t := &f.targets[i]
	open := t.Status == 0
	if !open && (outcome.Status != Delivered || t.Status == Delivered) {
		return
	}
	t.Status, t.Evidence, t.Reason, t.Err, t.Reply = outcome.Status, outcome.Evidence, outcome.Reason, outcome.Err, outcome.Reply
	t.Latency = now - f.attempts[i].sent
	if f.observed && t.Status == Delivered {
		f.news = append(f.news, i)
		signal(f.wake)
	}
	if !open {
		return
	}
	f.open--
	if f.open == 0 {
		close(f.done)
	}
}

// land takes the flight's targets for good, whatever receipts still come. What is open becomes Timeout where somebody may have
// received it, and Failed elsewhere. It tells whether nothing was open, and returns the news that nobody has looked at.
func (f *flight) land() (complete bool, news []Target) {
	now := time.Since(f.start)
	f.mu.Lock()
	defer f.mu.Unlock()
	news, complete = f.takeNews(), f.open == 0
	for i := range f.targets {
		t, a := &f.targets[i], &f.attempts[i]
		switch {
		case t.Status != 0:
		case t.Attempts == 0:
			t.Status, t.Reason, t.Err = Failed, NotSent, errNotSent
		case a.reached > 0 && a.reason != BackendError:
			f.settle(i, Target{Status: Timeout, Reason: NoAck, Err: errNoAck}, now)
		case a.reached > 0: // what became of the latest attempt is unknown
			f.settle(i, Target{Status: Timeout, Reason: a.reason, Err: a.err}, now)
		default:
			f.settle(i, Target{Status: Failed, Reason: a.reason, Err: a.err}, now)
		}
	}
	f.landed = true
	return complete, news
}

var (
	errNotSent = errors.New("the call ended before the message was sent")
	errNoAck   = errors.New("no subscriber acknowledged the message in time")
)

// forget ends the life of a flight whose messages are stored. For targets that unregistered while they were being stored they
// are withdrawn, where the slot can do that: they would go to the next one of that name. Who unregisters later purges them.
func (c *Coordinator) forget(ctx context.Context, f *flight) {
	c.mu.Lock()
	delete(c.flights, f.number)
	c.mu.Unlock()
	f.mu.Lock()
	gone := slices.DeleteFunc(f.gone, func(i int) bool { return f.targets[i].Status == Delivered })
	f.mu.Unlock()
	if len(gone) == 0 || c.recaller == nil {
		return
	}
	messages := make([]Message, len(gone))
	for n, i := range gone {
		messages[n] = c.stored(f.message.ID, f.targets[i].Identity)
	}
	ctx, cancel := detach(ctx, c.cfg.Timeout)
	defer cancel()
	was, err := c.recaller.Withdraw(ctx, messages)
	for n, i := range gone {
		if err == nil && was[n] { // else it was purged, or stays what it is
			t := &f.targets[i]
			t.Status, t.Evidence, t.Reason, t.Err = f.unregisteredStatus(i), 0, Gone, errUnregistered
		}
	}
}

// find returns the flight of a multicast that is under way in this process, else nil.
func (c *Coordinator) find(id string) *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.flights {
		if f.message.ID == id {
			return f
		}
	}
	return nil
}
