package memory

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// Inbox implements multicastregistry.Messaging.
func (m *Messaging) Inbox(ctx context.Context) (multicastregistry.Inbox, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	in := &inbox{messaging: m, id: rand.Text(), ready: make(chan struct{}, 1), gone: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inboxes[in.id] = in
	return in, nil
}

// Ack implements multicastregistry.Messaging. An inbox is woken once for all of its acks, as a rule.
func (m *Messaging) Ack(ctx context.Context, acks []multicastregistry.Ack) []error {
	results := make([]error, len(acks))
	var told []*inbox
	m.mu.RLock()
	for i, ack := range acks {
		if results[i] = ctx.Err(); results[i] != nil {
			continue
		}
		id, token, _ := strings.Cut(ack.To, " ")
		in := m.inboxes[id]
		if in == nil {
			continue
		}
		results[i] = in.put(token)
		if in.told.CompareAndSwap(false, true) {
			told = append(told, in)
		}
	}
	m.mu.RUnlock()
	for _, in := range told {
		in.told.Store(false)
		wake(in.ready)
	}
	return results
}

// inbox is a mailbox for acks.
type inbox struct {
	messaging *Messaging
	id        string
	ready     chan struct{}
	gone      chan struct{}
	told      atomic.Bool // an Ack under way will write to ready

	mu       sync.Mutex
	receipts []multicastregistry.Receipt
}

func (in *inbox) put(token string) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.receipts) >= maxReceipts {
		return fmt.Errorf("memory: ack: %w: its sender reads too slowly", multicastregistry.ErrQueueFull)
	}
	in.receipts = append(in.receipts, multicastregistry.Receipt{Token: token})
	return nil
}

// Address implements multicastregistry.Inbox.
func (in *inbox) Address(token string) string { return in.id + " " + token }

// Next implements multicastregistry.Inbox.
func (in *inbox) Next(ctx context.Context) ([]multicastregistry.Receipt, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		in.mu.Lock()
		receipts := in.receipts
		in.receipts = nil
		in.mu.Unlock()
		if len(receipts) > 0 {
			return receipts, nil
		}
		select {
		case <-in.ready:
		case <-in.gone:
			return nil, io.EOF
		case <-ctx.Done():
		}
	}
}

// Close implements multicastregistry.Inbox.
func (in *inbox) Close() error {
	m := in.messaging
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.inboxes[in.id] == in {
		delete(m.inboxes, in.id)
		close(in.gone)
	}
	return nil
}
