package memory

import (
	"context"
	"crypto/rand"
	"io"
	"strings"
	"sync"

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

// Ack implements multicastregistry.Messaging.
func (m *Messaging) Ack(ctx context.Context, acks []multicastregistry.Ack) []error {
	results := make([]error, len(acks))
	m.mu.RLock()
	defer m.mu.RUnlock()
	for i, ack := range acks {
		if results[i] = ctx.Err(); results[i] != nil {
			continue
		}
		id, token, _ := strings.Cut(ack.To, " ")
		if in := m.inboxes[id]; in != nil {
			in.put(token)
		}
	}
	return results
}

// inbox is a mailbox for acks.
type inbox struct {
	messaging *Messaging
	id        string
	ready     chan struct{}
	gone      chan struct{}

	mu       sync.Mutex
	receipts []multicastregistry.Receipt
}

func (in *inbox) put(token string) {
	in.mu.Lock()
	if len(in.receipts) < maxReceipts {
		in.receipts = append(in.receipts, multicastregistry.Receipt{Token: token})
	}
	in.mu.Unlock()
	wake(in.ready)
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
