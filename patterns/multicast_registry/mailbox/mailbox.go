// Package mailbox holds the bounded queues that stand between a messaging backend and whoever reads: a Box for a
// subscription's messages, and Receipts for an inbox's acks. A backend's Messaging puts what comes in, never waiting, and
// its Subscription and Inbox hand out what waits. What does not fit is dropped and counted.
package mailbox

import (
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	// DefaultBuffer is how many messages wait for one topic.
	DefaultBuffer = 1024
	// maxBytes bounds what waits in one box, over all of its topics: the payloads and about as much as the rest of each
	// message takes. One message fits, whatever its size.
	maxBytes = 64 << 20
	overhead = 512
	// batchSize is the most messages that Next returns at once.
	batchSize = 1024
)

// Box is the bounded mailbox of one subscription, for any number of topics. All methods may be called concurrently, Next by
// one goroutine at a time.
type Box struct {
	buffer int
	ready  chan struct{} // there is something to take
	gone   chan struct{} // closed by Close
	told   atomic.Bool   // see Claim

	mu      sync.Mutex
	queue   []multicastregistry.Message
	slots   map[string]*Slot
	bytes   int    // of what is in queue
	dropped uint64 // since the batch before
	emptied uint64 // how often all of queue was taken
	closed  bool

	expected int // room to make for the next batch: as much as the last one took
}

// Slot is one topic of a box, whose lock guards it.
type Slot struct {
	box     *Box
	waiting int    // messages in the box's queue; 0 if it was emptied since
	emptied uint64 // the box's, when waiting was counted
}

// New returns an empty box that keeps up to buffer messages for each topic; 0 means DefaultBuffer.
func New(buffer int) *Box {
	if buffer == 0 {
		buffer = DefaultBuffer
	}
	return &Box{buffer: buffer, ready: make(chan struct{}, 1), gone: make(chan struct{}), slots: make(map[string]*Slot)}
}

// Open begins to take messages of a topic. It is not added when the topic is open already; after Close the slot is nil.
func (b *Box) Open(topic string) (slot *Slot, added bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, false
	}
	if open := b.slots[topic]; open != nil {
		return open, false
	}
	slot = &Slot{box: b}
	b.slots[topic] = slot
	return slot, true
}

// Closed tells whether the box was closed.
func (b *Box) Closed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

// Slot returns the slot of an open topic, else nil.
func (b *Box) Slot(topic string) *Slot {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.slots[topic]
}

// Drop ends topics, and calls each for every one that was open. Messages that wait for them go too.
func (b *Box) Drop(topics []string, each func(topic string, slot *Slot)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	lost := false
	for _, topic := range topics {
		if s := b.slots[topic]; s != nil {
			each(topic, s)
			delete(b.slots, topic)
			lost = lost || s.waiting > 0 && s.emptied == b.emptied
		}
	}
	if lost {
		b.queue = slices.DeleteFunc(b.queue, func(message multicastregistry.Message) bool {
			removed := b.slots[message.Topic] == nil
			if removed {
				b.bytes -= len(message.Payload) + overhead
			}
			return removed
		})
	}
}

// Box returns the box that the slot is a part of.
func (s *Slot) Box() *Box { return s.box }

// Put appends a message of the slot's topic, or drops and counts it when there is no room. It wakes nobody: see Wake.
func (s *Slot) Put(message *multicastregistry.Message) (accepted bool) {
	b := s.box
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.slots[message.Topic] != s {
		return true // nobody wants it any more
	}
	if s.emptied != b.emptied {
		s.waiting, s.emptied = 0, b.emptied
	}
	size := len(message.Payload) + overhead
	if s.waiting >= b.buffer || b.bytes+size > maxBytes && len(b.queue) > 0 {
		b.dropped++
		return false
	}
	if b.queue == nil {
		b.queue = make([]multicastregistry.Message, 0, b.expected)
	}
	b.queue = append(b.queue, *message)
	s.waiting++
	b.bytes += size
	return true
}

// Lost counts messages that were dropped before they came here.
func (b *Box) Lost(n uint64) {
	b.mu.Lock()
	b.dropped += n
	b.mu.Unlock()
	b.Wake()
}

// Claim tells whether the caller, who has put something, is the one to call Wake: so that a batch of messages wakes its
// reader once. Wake gives the claim back.
func (b *Box) Claim() bool { return b.told.CompareAndSwap(false, true) }

// Wake lets Next look for what was put.
func (b *Box) Wake() {
	b.told.Store(false)
	wake(b.ready)
}

// Next waits for messages and returns all that wait, up to a limit. It implements multicastregistry.Subscription.
func (b *Box) Next(ctx context.Context) (multicastregistry.Batch, error) {
	for {
		if err := ctx.Err(); err != nil {
			return multicastregistry.Batch{}, err
		}
		if batch, ok := b.take(); ok {
			return batch, nil
		}
		select {
		case <-b.ready:
		case <-b.gone:
			return multicastregistry.Batch{}, io.EOF
		case <-ctx.Done():
		}
	}
}

func (b *Box) take() (batch multicastregistry.Batch, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || len(b.queue) == 0 && b.dropped == 0 {
		return batch, false
	}
	if len(b.queue) <= batchSize {
		batch.Messages, b.queue, b.bytes = b.queue, nil, 0
		b.emptied++ // which sets every topic's count to 0
	} else {
		batch.Messages, b.queue = b.queue[:batchSize:batchSize], b.queue[batchSize:]
		for i := range batch.Messages {
			if s := b.slots[batch.Messages[i].Topic]; s != nil {
				s.waiting--
			}
			b.bytes -= len(batch.Messages[i].Payload) + overhead
		}
	}
	b.expected = len(batch.Messages)
	batch.Dropped, b.dropped = b.dropped, 0
	return batch, true
}

// Close ends the box and calls each for every topic that was open. Closing again does nothing.
func (b *Box) Close(each func(topic string, slot *Slot)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.closed = true
	close(b.gone)
	for topic, s := range b.slots {
		each(topic, s)
	}
	b.queue, b.slots = nil, nil
}

func wake(ready chan struct{}) {
	select {
	case ready <- struct{}{}:
	default:
	}
}
