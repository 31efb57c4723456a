package memory

import (
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// subscription is one bounded mailbox for any number of topics.
type subscription struct {
	messaging *Messaging
	ready     chan struct{} // there is something to take
	gone      chan struct{} // closed by Close
	told      atomic.Bool   // a Publish under way will write to ready

	mu      sync.Mutex
	queue   []multicastregistry.Message
	topics  map[string]*reception
	bytes   int    // of what is in queue
	dropped uint64 // since the batch before
	emptied uint64 // how often all of queue was taken
	closed  bool

	expected int // room to make for the next batch: as much as the last one took
}

// reception is one topic of one subscription, whose lock guards it.
type reception struct {
	to      *subscription
	waiting int    // messages in the subscription's queue; 0 if it was emptied since
	emptied uint64 // the subscription's, when waiting was counted
}

// put appends a message, or drops it when there is no room. The caller holds the messaging's lock.
func (r *reception) put(message *multicastregistry.Message, buffer int) bool {
	s := r.to
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.emptied != s.emptied {
		r.waiting, r.emptied = 0, s.emptied
	}
	size := len(message.Payload) + messageOverhead
	if r.waiting >= buffer || s.bytes+size > maxBufferBytes && len(s.queue) > 0 {
		s.dropped++
		return false
	}
	if s.queue == nil {
		s.queue = make([]multicastregistry.Message, 0, s.expected)
	}
	s.queue = append(s.queue, *message)
	r.waiting++
	s.bytes += size
	return true
}

// Add implements multicastregistry.Subscription.
func (s *subscription) Add(ctx context.Context, topics ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m := s.messaging
	m.mu.Lock()
	defer m.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return io.EOF
	}
	for _, topic := range topics {
		if s.topics[topic] == nil {
			r := &reception{to: s}
			s.topics[topic] = r
			m.topics[topic] = append(m.topics[topic], r)
		}
	}
	return nil
}

// Remove implements multicastregistry.Subscription. Messages that wait for the topics go too.
func (s *subscription) Remove(ctx context.Context, topics ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m := s.messaging
	m.mu.Lock()
	defer m.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := false
	for _, topic := range topics {
		if r := s.topics[topic]; r != nil {
			m.leave(topic, r)
			delete(s.topics, topic)
			lost = lost || r.waiting > 0 && r.emptied == s.emptied
		}
	}
	if lost {
		s.queue = slices.DeleteFunc(s.queue, func(message multicastregistry.Message) bool {
			removed := s.topics[message.Topic] == nil
			if removed {
				s.bytes -= len(message.Payload) + messageOverhead
			}
			return removed
		})
	}
	return nil
}

// leave takes a subscription off a topic. The caller holds m.mu.
func (m *Messaging) leave(topic string, r *reception) {
	receptions := m.topics[topic]
	last := len(receptions) - 1
	if last == 0 {
		delete(m.topics, topic)
		return
	}
	receptions[slices.Index(receptions, r)] = receptions[last]
	receptions[last] = nil
	m.topics[topic] = receptions[:last]
}

// Next implements multicastregistry.Subscription.
func (s *subscription) Next(ctx context.Context) (multicastregistry.Batch, error) {
	for {
		if err := ctx.Err(); err != nil {
			return multicastregistry.Batch{}, err
		}
		if batch, ok := s.take(); ok {
			return batch, nil
		}
		select {
		case <-s.ready:
		case <-s.gone:
			return multicastregistry.Batch{}, io.EOF
		case <-ctx.Done():
		}
	}
}

func (s *subscription) take() (batch multicastregistry.Batch, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.queue) == 0 && s.dropped == 0 {
		return batch, false
	}
	if len(s.queue) <= batchSize {
		batch.Messages, s.queue, s.bytes = s.queue, nil, 0
		s.emptied++ // which sets every topic's count to 0
	} else {
		batch.Messages, s.queue = s.queue[:batchSize:batchSize], s.queue[batchSize:]
		for i := range batch.Messages {
			if r := s.topics[batch.Messages[i].Topic]; r != nil {
				r.waiting--
			}
			s.bytes -= len(batch.Messages[i].Payload) + messageOverhead
		}
	}
	s.expected = len(batch.Messages)
	batch.Dropped, s.dropped = s.dropped, 0
	return batch, true
}

// Close implements multicastregistry.Subscription.
func (s *subscription) Close() error {
	m := s.messaging
	m.mu.Lock()
	defer m.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.gone)
	for topic, r := range s.topics {
		m.leave(topic, r)
	}
	s.queue, s.topics = nil, nil
	return nil
}

func wake(ready chan struct{}) {
	select {
	case ready <- struct{}{}:
	default:
	}
}
