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
	// maxBufferBytes bounds what waits in one subscription, over all of its topics: the payloads and about as much as the
	// rest of each message takes. One message fits, whatever its size.
	maxBufferBytes  = 64 << 20
	messageOverhead = 512
	// deliveriesAtOnce is how many messages Publish puts into subscriptions before it lets others add or remove topics.
	deliveriesAtOnce = 1024
	// batchSize is the most messages that Next returns at once.
	batchSize = 1024
	// maxReceipts bounds the acks that wait in one inbox; one beyond is ErrQueueFull to the recipient, and lost.
	maxReceipts = 1 << 20
)

// MessagingConfig is the configuration of a Messaging.
type MessagingConfig struct {
	// Buffer is the most messages that wait for one topic in one subscription; what does not fit is dropped and counted.
	// Default (0): DefaultBuffer.
	Buffer int
}

// Validate returns an InvalidError that names the field with an impossible value.
func (c MessagingConfig) Validate() error { return atLeastZero("buffer", c.Buffer) }

// Messaging carries messages between the subscriptions of one process. The zero value is not usable; see NewMessaging.
type Messaging struct {
	buffer int

	mu      sync.RWMutex // before any subscription's
	topics  map[string][]*reception
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
	return &Messaging{buffer: cfg.Buffer, topics: make(map[string][]*reception), inboxes: make(map[string]*inbox)}
}

// Publish implements multicastregistry.Messaging. A subscription is woken once for all of its messages, as a rule.
func (m *Messaging) Publish(ctx context.Context, messages []multicastregistry.Message) []error {
	results := make([]error, len(messages))
	var told []*subscription
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
			receptions := m.topics[messages[next].Topic]
			told, results[next] = m.deliver(&messages[next], receptions, told)
			deliveries += 1 + len(receptions)
		}
		m.mu.RUnlock()
		for _, s := range told {
			s.told.Store(false)
			wake(s.ready)
		}
	}
	return results
}

// deliver puts a message into the subscriptions of its topic, and appends those that are to be told to told.
func (m *Messaging) deliver(
	message *multicastregistry.Message, receptions []*reception, told []*subscription,
) ([]*subscription, error) {
	accepted := false
	for _, r := range receptions {
		if r.put(message, m.buffer) {
			accepted = true
		}
		if r.to.told.CompareAndSwap(false, true) {
			told = append(told, r.to)
		}
	}
	switch {
	case accepted:
		return told, nil
	case len(receptions) > 0:
		return told, fmt.Errorf("memory: publish to %q: %w: its subscriber reads too slowly",
			message.Identity, multicastregistry.ErrQueueFull)
	case message.AckTo != "":
		return told, fmt.Errorf("memory: publish to %q: %w", message.Identity, multicastregistry.ErrNoSubscriber)
	}
	return told, nil
}

// Subscribe implements multicastregistry.Messaging.
func (m *Messaging) Subscribe(ctx context.Context, topics ...string) (multicastregistry.Subscription, error) {
	s := &subscription{
		messaging: m, topics: make(map[string]*reception), ready: make(chan struct{}, 1), gone: make(chan struct{}),
	}
	if err := s.Add(ctx, topics...); err != nil {
		return nil, err
	}
	return s, nil
}

// Ping implements multicastregistry.Pinger: this process is there.
func (m *Messaging) Ping(ctx context.Context) error { return ctx.Err() }
