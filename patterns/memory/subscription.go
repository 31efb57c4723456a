package memory

import (
	"context"
	"io"
	"slices"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/mailbox"
)

// subscription is a mailbox whose topics are known to the messaging slot.
type subscription struct {
	*mailbox.Box

	messaging *Messaging
}

// Add implements multicastregistry.Subscription.
func (s *subscription) Add(ctx context.Context, topics ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m := s.messaging
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, topic := range topics {
		slot, added := s.Open(topic)
		if slot == nil {
			return io.EOF
		}
		if added {
			m.topics[topic] = append(m.topics[topic], slot)
		}
	}
	if s.Closed() {
		return io.EOF
	}
	return nil
}

// Remove implements multicastregistry.Subscription. Messages that wait for the topics go too.
func (s *subscription) Remove(ctx context.Context, topics ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.messaging.mu.Lock()
	defer s.messaging.mu.Unlock()
	s.Drop(topics, s.messaging.leave)
	return nil
}

// leave takes a subscription off a topic. The caller holds m.mu.
func (m *Messaging) leave(topic string, slot *mailbox.Slot) {
	slots := m.topics[topic]
	last := len(slots) - 1
	if last == 0 {
		delete(m.topics, topic)
		return
	}
	slots[slices.Index(slots, slot)] = slots[last]
	slots[last] = nil
	m.topics[topic] = slots[:last]
}

// Close implements multicastregistry.Subscription.
func (s *subscription) Close() error {
	s.messaging.mu.Lock()
	defer s.messaging.mu.Unlock()
	s.Box.Close(s.messaging.leave)
	return nil
}
