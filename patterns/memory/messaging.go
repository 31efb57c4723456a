package memory

import (
	"context"
	"fmt"
	"sync"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	// DefaultBuffer is how many messages wait for one topic in one subscription.
	DefaultBuffer = 1024
	// maxBufferBytes bounds the payloads that wait in one subscription, over all of its topics.
	maxBufferBytes = 64 << 20
	// batchSize is the most messages that Next returns at once.
	batchSize = 1024
	// maxReceipts bounds the acks that wait in one inbox; the ones beyond are lost, as if their recipient had not acked.
	maxReceipts = 1 << 20
)

// MessagingConfig is the configuration of a Messaging.
type MessagingConfig struct {
	// Buffer is the most messages that wait for one topic in one subscription; what does not fit is dropped and counted.
	// Default (0): DefaultBuffer.
	Buffer int `yaml:"buffer"`
}

// Validate returns an InvalidError that names the field with an impossible value.
func (c MessagingConfig) Validate() error { return atLeastZero("buffer", c.Buffer) }

// Messaging carries messages between the subscriptions of one process. The zero value is not usable; see NewMessaging.
type Messaging struct {
	buffer int

	mu      sync.RWMutex // before any subscription's
	topics  map[string][]*subscription
	inboxes map[string]*inbox
}

var (
	_ multicastregistry.Messaging = (*Messaging)(nil)
	_ multicastregistry.Pinger    = (*Messaging)(nil)
)

// NewMessaging returns a messaging slot without subscriptions.
func NewMessaging(cfg MessagingConfig) *Messaging {
	if cfg.Buffer == 0 {
		cfg.Buffer = DefaultBuffer
	}
	return &Messaging{buffer: cfg.Buffer, topics: make(map[string][]*subscription), inboxes: make(map[string]*inbox)}
}

// Publish implements multicastregistry.Messaging.
func (m *Messaging) Publish(ctx context.Context, messages []multicastregistry.Message) []error {
	results := make([]error, len(messages))
	if err := ctx.Err(); err != nil {
		for i := range results {
			results[i] = err
		}
		return results
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	for i := range messages {
		results[i] = m.deliver(&messages[i])
	}
	return results
}

func (m *Messaging) deliver(message *multicastregistry.Message) error {
	subscriptions := m.topics[message.Topic]
	accepted := 0
	for _, s := range subscriptions {
		if s.put(message, m.buffer) {
			accepted++
		}
	}
	switch {
	case accepted > 0:
		return nil
	case len(subscriptions) > 0:
		return fmt.Errorf("memory: publish to %q: %w: its subscriber reads too slowly",
			message.Identity, multicastregistry.ErrQueueFull)
	case message.AckTo != "":
		return fmt.Errorf("memory: publish to %q: %w", message.Identity, multicastregistry.ErrNoSubscriber)
	}
	return nil
}

// Subscribe implements multicastregistry.Messaging.
func (m *Messaging) Subscribe(ctx context.Context, topics ...string) (multicastregistry.Subscription, error) {
	s := &subscription{messaging: m, waiting: make(map[string]int), ready: make(chan struct{}, 1), gone: make(chan struct{})}
	if err := s.Add(ctx, topics...); err != nil {
		return nil, err
	}
	return s, nil
}

// Ping implements multicastregistry.Pinger: this process is there.
func (m *Messaging) Ping(ctx context.Context) error { return ctx.Err() }
