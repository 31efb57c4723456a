package redis

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/rueidis"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/mailbox"
)

const (
	// inboxPrefix begins the channel of every inbox. No topic begins with it, so no ack, however forged, reaches an identity.
	inboxPrefix = "prism-ack."
	// inboxNameBytes is the length of the name behind it, of rand.Text.
	inboxNameBytes = 26
	// maxTokenBytes is the length of the longest token.
	maxTokenBytes = 64
	// tokensAtOnce is the most tokens that one PUBLISH carries.
	tokensAtOnce = 1000
)

// inbox is a channel for acks. What is published there are tokens, with a space between any two.
type inbox struct {
	messaging *Messaging
	receipts  *mailbox.Receipts
	topic     string
}

// Inbox implements multicastregistry.Messaging.
func (m *Messaging) Inbox(ctx context.Context) (multicastregistry.Inbox, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("redis: inbox: %w", err)
	}
	in := &inbox{messaging: m, receipts: mailbox.NewReceipts(), topic: inboxPrefix + rand.Text()}
	waiters := m.change([]string{in.topic}, func(c *channel) { c.receipts = in.receipts })
	if err := m.wait(ctx, waiters, nil); err != nil {
		in.leave()
		return nil, fmt.Errorf("redis: inbox: %w", err)
	}
	return in, nil
}

func (in *inbox) leave() []*waiter {
	return in.messaging.change([]string{in.topic}, func(c *channel) { c.receipts = nil })
}

// Address implements multicastregistry.Inbox.
func (in *inbox) Address(token string) string { return in.topic + " " + token }

// Next implements multicastregistry.Inbox.
func (in *inbox) Next(ctx context.Context) ([]multicastregistry.Receipt, error) {
	return in.receipts.Next(ctx)
}

// Close implements multicastregistry.Inbox. It waits for Redis to forget the channel, for a few seconds at most.
func (in *inbox) Close() error {
	if in.receipts.Close() {
		_ = in.messaging.wait(context.Background(), in.leave(), nil) // if Redis is slow it is unsubscribed later
	}
	return nil
}

// deliverAcks puts published tokens into an inbox, and passes over what is none.
func deliverAcks(receipts *mailbox.Receipts, published string) {
	for token := range strings.SplitSeq(published, " ") {
		if isToken(token) {
			receipts.Put(multicastregistry.Receipt{Token: token})
		}
	}
	if receipts.Claim() {
		receipts.Wake()
	}
}

// parcel is the acks that one PUBLISH carries to an inbox.
type parcel struct {
	topic  string
	tokens []string
	acks   []int // their places in the batch
}

// Ack implements multicastregistry.Messaging. The acks of one inbox share a PUBLISH. What is no address of an inbox is passed
// over, as an inbox that is gone is.
func (m *Messaging) Ack(ctx context.Context, acks []multicastregistry.Ack) []error {
	results := make([]error, len(acks))
	var parcels []*parcel
	open := make(map[string]*parcel)
	for i, ack := range acks {
		topic, token, ok := parseAddress(ack.To)
		if !ok {
			continue
		}
		p := open[topic]
		if p == nil || len(p.tokens) == tokensAtOnce {
			p = &parcel{topic: topic}
			open[topic] = p
			parcels = append(parcels, p)
		}
		p.tokens, p.acks = append(p.tokens, token), append(p.acks, i)
	}
	bounded, cancel, err := m.conn.bound(ctx)
	if err != nil {
		for i := range results {
			results[i] = m.conn.wrap(ctx, "ack of", acks[i].Identity, err)
		}
		return results
	}
	defer cancel()
	for some := range slices.Chunk(parcels, commandsAtOnce) {
		commands := make(rueidis.Commands, len(some))
		for i, p := range some {
			commands[i] = m.command(p.topic, strings.Join(p.tokens, " "))
		}
		for i, result := range m.conn.write.DoMulti(bounded, commands...) {
			if err := result.Error(); err != nil {
				for _, ack := range some[i].acks {
					results[ack] = m.conn.wrap(ctx, "ack of", acks[ack].Identity, err)
				}
			}
		}
	}
	return results
}

// parseAddress splits what inbox.Address returned. It is not ok for anything else.
func parseAddress(address string) (topic, token string, ok bool) {
	topic, token, ok = strings.Cut(address, " ")
	return topic, token, ok && isInbox(topic) && isToken(token)
}

func isInbox(topic string) bool {
	name, ok := strings.CutPrefix(topic, inboxPrefix)
	if !ok || len(name) != inboxNameBytes {
		return false
	}
	for i := range len(name) {
		if c := name[i]; (c < 'A' || 'Z' < c) && (c < '2' || '7' < c) {
			return false
		}
	}
	return true
}

func isToken(token string) bool {
	if token == "" || len(token) > maxTokenBytes {
		return false
	}
	for i := range len(token) {
		if c := token[i]; c != '.' && (c < '0' || '9' < c) && (c < 'A' || 'Z' < c) && (c < 'a' || 'z' < c) {
			return false
		}
	}
	return true
}
