package multicastregistry

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// chunkSize is how many messages are handed to the messaging slot at once.
	chunkSize = 256
	// chunksAtOnce bounds the chunks of one multicast that are being published at the same time.
	chunksAtOnce = 4
)

// flight is one multicast under way. Its targets are settled, each once, by the results of Publish and by receipts from
// the inbox; whichever comes first counts, except that an ack always does: it is proof.
type flight struct {
	number    uint64
	messaging Messaging
	namespace string
	message   Message // what all targets get, without identity, topic and ack address
	inbox     Inbox   // nil when no acks are wanted

	mu      sync.Mutex
	targets []Target
	sent    []time.Time // when each target's message was handed over; zero before
	open    int         // targets that are not settled
	landed  bool        // the result was taken; nothing changes any more
	done    chan struct{}
}

// launch makes a flight and, when it wants acks, a place for the receipts to come back to.
func (c *Coordinator) launch(message Message, acks bool, matches []Identity) *flight {
	f := &flight{
		number: c.flown.Add(1), messaging: c.slots.Messaging, namespace: c.cfg.Namespace, message: message,
		targets: make([]Target, len(matches)), sent: make([]time.Time, len(matches)),
		open: len(matches), done: make(chan struct{}),
	}
	for i := range matches {
		f.targets[i].Identity = matches[i].ID
	}
	if f.open == 0 {
		close(f.done)
		return f
	}
	if acks {
		f.inbox = c.inbox
		c.mu.Lock()
		c.flights[f.number] = f
		c.mu.Unlock()
	}
	return f
}

// publish hands all messages over, in chunks. It returns when the backend has answered for all of them or ctx has ended.
func (f *flight) publish(ctx context.Context) {
	var next atomic.Int64
	work := func() {
		for ctx.Err() == nil {
			from := int(next.Add(chunkSize)) - chunkSize
			if from >= len(f.targets) {
				return
			}
			f.publishChunk(ctx, from, min(from+chunkSize, len(f.targets)))
		}
	}
	var others sync.WaitGroup
	for range min(chunksAtOnce, (len(f.targets)+chunkSize-1)/chunkSize) - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
}

func (f *flight) publishChunk(ctx context.Context, from, to int) {
	messages := make([]Message, to-from)
	for i := range messages {
		m := &messages[i]
		*m = f.message
		m.Identity = f.targets[from+i].Identity
		m.Topic = Topic(f.namespace, m.Identity)
		if f.inbox != nil {
			m.AckTo = f.inbox.Address(f.token(from + i))
		}
	}
	now := time.Now()
	f.mu.Lock()
	for i := from; i < to; i++ {
		f.sent[i] = now
		f.targets[i].Attempts++
	}
	f.mu.Unlock()
	results := f.messaging.Publish(ctx, messages)
	now = time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, err := range results {
		switch {
		case err != nil:
			f.settle(from+i, f.failure(err), now)
		case f.inbox == nil:
			f.settle(from+i, Target{Status: Delivered, Evidence: Accepted}, now)
		}
	}
}

// failure turns the error of one message into an outcome. Without acks, what the backend did not accept has failed. With
// acks, an error that leaves the outcome open counts as such.
func (f *flight) failure(err error) Target {
	t := Target{Status: Failed, Reason: reasonOf(err), Err: err}
	if f.inbox != nil && t.Reason == BackendError && !errors.Is(err, ErrUnavailable) {
		t.Status = Timeout
	}
	return t
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
func (f *flight) settle(i int, outcome Target, now time.Time) {
	t := &f.targets[i]
	open := t.Status == 0
	if f.landed || !open && (outcome.Status != Delivered || t.Status == Delivered) {
		return
	}
	t.Status, t.Evidence, t.Reason, t.Err = outcome.Status, outcome.Evidence, outcome.Reason, outcome.Err
	t.Latency = now.Sub(f.sent[i])
	if !open {
		return
	}
	f.open--
	if f.open == 0 {
		close(f.done)
	}
}

// wait returns when the last target is settled or ctx has ended.
func (f *flight) wait(ctx context.Context) {
	select {
	case <-f.done:
	case <-ctx.Done():
	}
}

// land takes the flight's targets for good, whatever receipts still come. Those that are open become Timeout, or Failed
// where the message was never handed over. It tells whether none was open.
func (c *Coordinator) land(f *flight) (complete bool) {
	c.mu.Lock()
	delete(c.flights, f.number)
	c.mu.Unlock()
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	complete = f.open == 0
	for i := range f.targets {
		switch {
		case f.targets[i].Status != 0:
		case f.sent[i].IsZero():
			t := &f.targets[i]
			t.Status, t.Reason, t.Err = Failed, NotSent, errNotSent
		default:
			f.settle(i, Target{Status: Timeout, Reason: NoAck, Err: errNoAck}, now)
		}
	}
	f.landed = true
	return complete
}

var (
	errNotSent = errors.New("the call ended before the message was sent")
	errNoAck   = errors.New("no subscriber acknowledged the message in time")
)

// A token leads a receipt to its target: the flight's number and the target's place, in base 36.
func (f *flight) token(i int) string {
	return strconv.FormatUint(f.number, 36) + "." + strconv.FormatUint(uint64(i), 36)
}

func parseToken(token string) (number, i uint64, ok bool) {
	a, b, found := strings.Cut(token, ".")
	number, err1 := strconv.ParseUint(a, 36, 64)
	i, err2 := strconv.ParseUint(b, 36, 64)
	return number, i, found && err1 == nil && err2 == nil
}

// readInbox settles targets as receipts come in, until the inbox is closed.
func (c *Coordinator) readInbox(ctx context.Context) {
	for {
		receipts, err := c.inbox.Next(ctx)
		if err != nil {
			return
		}
		now := time.Now()
		for _, r := range receipts {
			c.receive(r, now)
		}
	}
}

// receive settles the target of one receipt. Receipts of multicasts that have returned, and tokens that were never given
// out, lead nowhere.
func (c *Coordinator) receive(r Receipt, now time.Time) {
	number, i, ok := parseToken(r.Token)
	if !ok {
		return
	}
	c.mu.Lock()
	f := c.flights[number]
	c.mu.Unlock()
	if f == nil || i >= uint64(len(f.targets)) {
		return
	}
	outcome := Target{Status: Delivered, Evidence: Acked}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Err != nil {
		outcome = f.failure(r.Err)
	}
	f.settle(int(i), outcome, now)
}
