package nats

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/mailbox"
)

const (
	// statusHeader is where the driver puts the status of a message from the server itself; noResponders is the one that says
	// that nobody receives the subject.
	statusHeader = "Status"
	noResponders = "503"
	// waitingReceipts and waitingBytes bound what the driver keeps for an inbox.
	waitingReceipts = 1 << 20
	waitingBytes    = 256 << 20
)

// inbox is one wildcard subject, "<prefix>.prism.<random>.*". Its last token is the caller's, with '-' for each dot.
type inbox struct {
	conn     *Conn
	receipts *mailbox.Receipts
	subject  string // up to the last dot, with it
	sub      *nats.Subscription
}

// Inbox implements multicastregistry.Messaging.
func (m *Messaging) Inbox(ctx context.Context) (multicastregistry.Inbox, error) {
	if err := ctx.Err(); err != nil {
		return nil, wrap("open inbox", "", err)
	}
	c := m.conn
	in := &inbox{conn: c, receipts: mailbox.NewReceipts(), subject: c.cfg.InboxPrefix + ".prism." + rand.Text() + "."}
	w := c.watch.open()
	defer w.close()
	last := c.nc.LastError()
	var err error
	if in.sub, err = c.nc.Subscribe(in.subject+"*", in.take); err != nil {
		return nil, wrap("open inbox", "", err)
	}
	if !c.router.own(in) {
		return nil, wrap("open inbox", "", nats.ErrConnectionClosed)
	}
	if err = in.sub.SetPendingLimits(waitingReceipts, waitingBytes); err == nil {
		err = c.roundTrip(ctx)
	}
	for _, refusal := range c.refusals(ctx, w, last) {
		if err == nil && refusedSubject(refusal) == in.subject+"*" {
			err = refusal
		}
	}
	if err != nil {
		_ = in.Close()
		return nil, wrap("open inbox", "", err)
	}
	return in, nil
}

// take turns what comes in into a receipt.
func (in *inbox) take(m *nats.Msg) {
	receipt := multicastregistry.Receipt{Token: strings.ReplaceAll(m.Subject[len(in.subject):], "-", ".")}
	switch {
	case len(m.Data) == 0 && first(m.Header, statusHeader) == noResponders:
		receipt.Err = fmt.Errorf("nats: publish: %w", multicastregistry.ErrNoSubscriber)
	case fromStream(m):
		return
	case len(m.Header) > 0 && first(m.Header, headerGone) == flagged:
		receipt.Err = fmt.Errorf("nats: receive: %w: its subscriber gave the message back", multicastregistry.ErrGone)
	default:
		receipt.Reply = replyOf(m)
	}
	in.receipts.Put(receipt)
	if in.receipts.Claim() {
		in.receipts.Wake()
	}
}

// fromStream tells whether a reply is that of a JetStream stream which captures the topic: it has stored the message, and says
// nothing of the recipient. A reply of ours that looks like that has a header.
func fromStream(m *nats.Msg) bool {
	if !bytes.HasPrefix(m.Data, []byte(`{"stream":"`)) && !bytes.HasPrefix(m.Data, []byte(`{"error":{`)) {
		return false
	}
	return len(m.Header[headerReplyCode]) == 0
}

// replyOf returns what a recipient answers, ours or a foreign one, who may have more to say than fits.
func replyOf(m *nats.Msg) (reply multicastregistry.Reply) {
	if len(m.Data) > 0 {
		n := min(len(m.Data), multicastregistry.MaxReplyBytes)
		reply.Body = m.Data[:n:n]
	}
	if len(m.Header) > 0 {
		code, err := strconv.ParseUint(first(m.Header, headerReplyCode), 10, 32)
		if err == nil {
			reply.Code = uint32(code)
		}
	}
	return reply
}

// answer makes a message of an ack. That of a plain one is as small as can be.
func answer(out *nats.Msg, ack *multicastregistry.Ack) {
	*out = nats.Msg{Subject: ack.To}
	switch {
	case ack.Gone:
		out.Header = nats.Header{headerGone: {flagged}}
	case ack.Reply.Code != 0 || len(ack.Reply.Body) > 0:
		out.Header = nats.Header{headerReplyCode: {strconv.FormatUint(uint64(ack.Reply.Code), 10)}}
		out.Data = ack.Reply.Body
	}
}

// Address implements multicastregistry.Inbox.
func (in *inbox) Address(token string) string {
	return in.subject + strings.ReplaceAll(token, ".", "-")
}

// Next implements multicastregistry.Inbox.
func (in *inbox) Next(ctx context.Context) ([]multicastregistry.Receipt, error) {
	return in.receipts.Next(ctx)
}

// Close implements multicastregistry.Inbox.
func (in *inbox) Close() error {
	if in.receipts.Close() {
		_ = in.sub.Unsubscribe() // fails on a closed connection, where nothing is left to end
		in.conn.router.disown(in)
	}
	return nil
}

// Ack implements multicastregistry.Messaging: a message to each address, empty for a plain ack, and one flush. Addresses that
// are not those of an inbox reach nothing.
func (m *Messaging) Ack(ctx context.Context, acks []multicastregistry.Ack) []error {
	results := make([]error, len(acks))
	c := m.conn
	failed := ctx.Err()
	if failed == nil && !c.nc.IsConnected() {
		failed = c.down()
	}
	written := make([]int, 0, len(acks))
	var out nats.Msg
	for i, ack := range acks {
		switch {
		case failed != nil:
			results[i] = wrap("ack", ack.Identity, failed)
		case len(ack.Reply.Body) > multicastregistry.MaxReplyBytes:
			results[i] = fmt.Errorf("nats: ack %q: %w: a reply of %d bytes, %d are the limit",
				ack.Identity, multicastregistry.ErrTooLarge, len(ack.Reply.Body), multicastregistry.MaxReplyBytes)
		case c.takesAcks(ack.To):
			answer(&out, &acks[i])
			if err := c.nc.PublishMsg(&out); err != nil {
				results[i] = wrap("ack", ack.Identity, err)
				continue
			}
			written = append(written, i)
		}
	}
	if len(written) == 0 {
		return results
	}
	if err := c.roundTrip(ctx); err != nil {
		for _, i := range written {
			results[i] = wrap("ack", acks[i].Identity, err)
		}
	}
	return results
}

// takesAcks tells whether an address, which a recipient may have made up, is below a subject of replies: that of our
// configuration, the usual one, or what the server makes of either between accounts and clusters.
func (c *Conn) takesAcks(address string) bool {
	if !validReply(address) {
		return false
	}
	for _, prefix := range []string{c.cfg.InboxPrefix, DefaultInboxPrefix, "_R_", "_GR_"} {
		if len(address) > len(prefix)+1 && address[:len(prefix)] == prefix && address[len(prefix)] == '.' {
			return true
		}
	}
	return false
}

// validReply tells whether a subject can be replied to: tokens of printable ASCII without wildcards, outside of the topics and
// of the server's own subjects.
func validReply(subject string) bool {
	if subject == "" || len(subject) > 1<<10 || subject[0] == '$' || subject == "prism" || strings.HasPrefix(subject, "prism.") {
		return false
	}
	for token := range strings.SplitSeq(subject, ".") {
		if token == "" {
			return false
		}
		for i := range len(token) {
			if c := token[i]; c <= ' ' || c > '~' || c == '*' || c == '>' {
				return false
			}
		}
	}
	return true
}
