package memory

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/mailbox"
)

// Inbox implements multicastregistry.Messaging.
func (m *Messaging) Inbox(ctx context.Context) (multicastregistry.Inbox, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	in := &inbox{Receipts: mailbox.NewReceipts(), messaging: m, id: rand.Text()}
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
		receipt := multicastregistry.Receipt{Token: token, Reply: ack.Reply}
		if ack.Gone {
			receipt = multicastregistry.Receipt{Token: token, Err: multicastregistry.ErrGone}
		}
		if !in.Put(receipt) {
			results[i] = fmt.Errorf("memory: ack: %w: its sender reads too slowly", multicastregistry.ErrQueueFull)
		}
		if in.Claim() {
			told = append(told, in)
		}
	}
	m.mu.RUnlock()
	for _, in := range told {
		in.Wake()
	}
	return results
}

// inbox is a mailbox for acks.
type inbox struct {
	*mailbox.Receipts

	messaging *Messaging
	id        string
}

// Address implements multicastregistry.Inbox.
func (in *inbox) Address(token string) string { return in.id + " " + token }

// Close implements multicastregistry.Inbox.
func (in *inbox) Close() error {
	m := in.messaging
	m.mu.Lock()
	defer m.mu.Unlock()
	if in.Receipts.Close() {
		delete(m.inboxes, in.id)
	}
	return nil
}
