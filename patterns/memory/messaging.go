package memory

import (
	"context"
	"fmt"
	"sync"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/mailbox"
)

// deliveriesAtOnce is how many messages Publish puts into subscriptions before it lets others add or remove topics.
const deliveriesAtOnce = 1024

// MessagingConfig is the configuration of a Messaging.
type MessagingConfig struct {
	// Buffer is the most messages that wait for one topic in one subscription; what does not fit is dropped and counted.
	// Default (0): mailbox.DefaultBuffer.
	Buffer int
}

// Validate returns an InvalidError that names the field with an impossible value.
func (c MessagingConfig) Validate() error { return atLeastZero("buffer", c.Buffer) }

// Messaging carries messages between the subscriptions of one process. The zero value is not usable; see NewMessaging.
type Messaging struct {
	buffer int

	mu      sync.RWMutex // before any subscription's
	topics  map[string][]*mailbox.Slot
	inboxes map[string]*inbox
}

var (
	_ multicastregistry.Messaging = (*Messaging)(nil)
	_ multicastregistry.Pinger    = (*Messaging)(nil)
)

// NewMessaging returns a messaging slot without subscriptions.
func NewMessaging(cfg MessagingConfig) *Messaging {
	return &Messaging{buffer: cfg.Buffer, topics: make(map[string][]*mailbox.Slot), inboxes: make(map[string]*inbox)}
}

// Publish implements multicastregistry.Messaging. A subscription is woken once for all of its messages, as a rule.
func (m *Messaging) Publish(ctx context.Context, messages []multicastregistry.Message) []error {
	results := make([]error, len(messages))
	var told []*mailbox.Box
	for next := 0; next < len(messages); {
		if err := ctx.Err(); err != nil {
			for ; next < len(messages); next++ {
				results[next] = err
			}
			break
		}
		told = told[:0]
		m.mu.RLock()
		for deliveries := 0; next < len(messages) && deliveries < deliveriesAtOnce; next++ {
			slots := m.topics[messages[next].Topic]
			told, results[next] = deliver(&messages[next], slots, told)
			deliveries += 1 + len(slots)
		}
		m.mu.RUnlock()
		for _, box := range told {
			box.Wake()
		}
	}
	return results
}

// deliver puts a message into the subscriptions of its topic, and appends the boxes that are to be woken to told.
func deliver(
	message *multicastregistry.Message, slots []*mailbox.Slot, told []*mailbox.Box,
) ([]*mailbox.Box, error) {
	accepted := false
	for _, slot := range slots {
		if slot.Put(message) {
			accepted = true
		}
		if slot.Box().Claim() {
			told = append(told, slot.Box())
		}
	}
	switch {
	case accepted:
		return told, nil
	case len(slots) > 0:
		return told, fmt.Errorf("memory: publish to %q: %w: its subscriber reads too slowly",
			message.Identity, multicastregistry.ErrQueueFull)
	case message.AckTo != "":
		return told, fmt.Errorf("memory: publish to %q: %w", message.Identity, multicastregistry.ErrNoSubscriber)
	}
	return told, nil
}

// Subscribe implements multicastregistry.Messaging.
func (m *Messaging) Subscribe(ctx context.Context, topics ...string) (multicastregistry.Subscription, error) {
	s := &subscription{Box: mailbox.New(m.buffer), messaging: m}
	if err := s.Add(ctx, topics...); err != nil {
		return nil, err
	}
	return s, nil
}

// Ping implements multicastregistry.Pinger: this process is there.
func (m *Messaging) Ping(ctx context.Context) error { return ctx.Err() }
