package redis

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
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
	// acksAtOnce and ackBytes bound what one PUBLISH carries: the acks, and their bytes unless it is just one.
	acksAtOnce = 1000
	ackBytes   = 128 << 10
)

// inbox is a channel for acks: see appendAck for what is published there.
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

// appendAck appends one ack to those that are published together, with a space between any two:
//
//	token                      a plain ack
//	token!                     the subscriber is leaving and will not ack
//	token:code:length:body     an ack with a reply, code and length in decimal, and length bytes of body
func appendAck(published []byte, token string, ack *multicastregistry.Ack) []byte {
	if len(published) > 0 {
		published = append(published, ' ')
	}
	published = append(published, token...)
	switch {
	case ack.Gone:
		return append(published, '!')
	case ack.Reply.Code == 0 && len(ack.Reply.Body) == 0:
		return published
	}
	published = append(published, ':')
	published = strconv.AppendUint(published, uint64(ack.Reply.Code), 10)
	published = append(published, ':')
	published = strconv.AppendInt(published, int64(len(ack.Reply.Body)), 10)
	published = append(published, ':')
	return append(published, ack.Reply.Body...)
}

// cutAck is the inverse of appendAck: it takes the first ack off. It is not ok for anything else; what follows cannot be told
// then, except after a space.
func cutAck(published string) (receipt multicastregistry.Receipt, rest string, ok bool) {
	end := 0
	for end < len(published) && isTokenByte(published[end]) {
		end++
	}
	receipt.Token, rest = published[:end], published[end:]
	if end == 0 || end > maxTokenBytes {
		return receipt, rest, false
	}
	switch {
	case strings.HasPrefix(rest, "!"):
		receipt.Err, rest = multicastregistry.ErrGone, rest[1:]
	case strings.HasPrefix(rest, ":"):
		code, after, _ := strings.Cut(rest[1:], ":")
		length, body, found := strings.Cut(after, ":")
		n, bad := strconv.ParseUint(code, 10, 32)
		size, worse := strconv.ParseUint(length, 10, 31)
		if !found || bad != nil || worse != nil || size > multicastregistry.MaxReplyBytes || size > uint64(len(body)) {
			return receipt, rest, false
		}
		receipt.Reply.Code, rest = uint32(n), body[size:]
		if size > 0 {
			receipt.Reply.Body = []byte(body[:size])
		}
	}
	if rest == "" {
		return receipt, rest, true
	}
	return receipt, rest[1:], rest[0] == ' '
}

// deliverAcks puts published acks into an inbox, and passes over what is none.
func deliverAcks(receipts *mailbox.Receipts, published string) {
	for published != "" {
		receipt, rest, ok := cutAck(published)
		if ok {
			receipts.Put(receipt)
		} else {
			_, rest, _ = strings.Cut(rest, " ")
		}
		published = rest
	}
	if receipts.Claim() {
		receipts.Wake()
	}
}

// parcel is the acks that one PUBLISH carries to an inbox.
type parcel struct {
	topic     string
	published []byte
	acks      []int // their places in the batch
}

// Ack implements multicastregistry.Messaging. The acks of one inbox share a PUBLISH. What is no address of an inbox is passed
// over, as an inbox that is gone is. A reply with a larger body than MaxReplyBytes is ErrTooLarge.
func (m *Messaging) Ack(ctx context.Context, acks []multicastregistry.Ack) []error {
	results := make([]error, len(acks))
	parcels := pack(acks, results)
	bounded, cancel, err := m.conn.bound(ctx)
	if err != nil {
		for i, ack := range acks {
			results[i] = m.conn.wrap(ctx, "ack of", ack.Identity, err)
		}
		return results
	}
	defer cancel()
	for len(parcels) > 0 {
		n, size := 0, 0
		for n < len(parcels) && n < commandsAtOnce && (n == 0 || size+len(parcels[n].published) <= bytesAtOnce) {
			size += len(parcels[n].published)
			n++
		}
		some := parcels[:n]
		parcels = parcels[n:]
		commands := make(rueidis.Commands, len(some))
		for i, p := range some {
			commands[i] = m.command(p.topic, rueidis.BinaryString(p.published))
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

// pack puts acks into parcels, and the error of what cannot be sent into its result.
func pack(acks []multicastregistry.Ack, results []error) []*parcel {
	var parcels []*parcel
	open := make(map[string]*parcel)
	for i := range acks {
		ack := &acks[i]
		topic, token, ok := parseAddress(ack.To)
		if !ok {
			continue
		}
		size := len(ack.Reply.Body)
		if size > multicastregistry.MaxReplyBytes {
			results[i] = fmt.Errorf("redis: ack of %q: %w: a reply of %d bytes, at most %d",
				ack.Identity, multicastregistry.ErrTooLarge, size, multicastregistry.MaxReplyBytes)
			continue
		}
		p := open[topic]
		if p == nil || len(p.acks) == acksAtOnce || len(p.published)+size > ackBytes {
			p = &parcel{topic: topic}
			open[topic] = p
			parcels = append(parcels, p)
		}
		p.published, p.acks = appendAck(p.published, token, ack), append(p.acks, i)
	}
	return parcels
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
		if !isTokenByte(token[i]) {
			return false
		}
	}
	return true
}

func isTokenByte(c byte) bool {
	return c == '.' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}
