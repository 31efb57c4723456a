package memory

import (
	"context"
	"io"
	"slices"
	"sync"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// subscription is one bounded mailbox for any number of topics.
type subscription struct {
	messaging *Messaging
	ready     chan struct{} // there is something to take
	gone      chan struct{} // closed by Close

	mu      sync.Mutex
	queue   []multicastregistry.Message
	waiting map[string]int // messages in queue, by topic; its keys are the topics received
	bytes   int            // of the payloads in queue
	dropped uint64
	closed  bool
}

// put appends a message, or drops it when there is no room. The caller holds the messaging's lock.
func (s *subscription) put(message *multicastregistry.Message, buffer int) bool {
	s.mu.Lock()
	n := s.waiting[message.Topic]
	fits := n < buffer && (s.bytes+len(message.Payload) <= maxBufferBytes || len(s.queue) == 0)
	if fits {
		s.queue = append(s.queue, *message)
		s.waiting[message.Topic] = n + 1
		s.bytes += len(message.Payload)
	} else {
		s.dropped++
	}
	s.mu.Unlock()
	wake(s.ready)
	return fits
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
		if _, received := s.waiting[topic]; !received {
			s.waiting[topic] = 0
			m.topics[topic] = append(m.topics[topic], s)
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
		if n, received := s.waiting[topic]; received {
			m.leave(topic, s)
			delete(s.waiting, topic)
			lost = lost || n > 0
		}
	}
	if lost {
		s.queue = slices.DeleteFunc(s.queue, func(message multicastregistry.Message) bool {
			_, received := s.waiting[message.Topic]
			if !received {
				s.bytes -= len(message.Payload)
			}
			return !received
		})
	}
	return nil
}

// leave takes a subscription off a topic. The caller holds m.mu.
func (m *Messaging) leave(topic string, s *subscription) {
	rest := slices.DeleteFunc(m.topics[topic], func(other *subscription) bool { return other == s })
	if len(rest) == 0 {
		delete(m.topics, topic)
		return
	}
	m.topics[topic] = rest
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
	n := min(len(s.queue), batchSize)
	batch.Messages, s.queue = s.queue[:n:n], s.queue[n:]
	if len(s.queue) == 0 {
		s.queue = nil // the receiver owns the array now
	}
	for i := range batch.Messages {
		s.waiting[batch.Messages[i].Topic]--
		s.bytes -= len(batch.Messages[i].Payload)
	}
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
	for topic := range s.waiting {
		m.leave(topic, s)
	}
	s.queue, s.waiting = nil, nil
	return nil
}

func wake(ready chan struct{}) {
	select {
	case ready <- struct{}{}:
	default:
	}
}
