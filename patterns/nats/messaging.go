package nats

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// checkEvery is how many messages Publish writes between two looks at its context.
const checkEvery = 256

// errLostWrites stands for the connection that broke after a message was written to it, although there is another one by now.
var errLostWrites = errors.New("the connection broke meanwhile")

// MessagingConfig is the configuration of a Messaging.
type MessagingConfig struct {
	// Buffer is the most messages that wait for one topic in one subscription; what does not fit is dropped and counted.
	// Default (0): mailbox.DefaultBuffer.
	Buffer int
}

// Validate returns an InvalidError that names the field with an impossible value.
func (c MessagingConfig) Validate() error {
	if c.Buffer < 0 {
		return invalid("buffer", "must not be negative")
	}
	return nil
}

// Messaging carries messages as NATS messages whose subject is the topic. See the package's comment for what travels how.
type Messaging struct {
	conn   *Conn
	buffer int
}

var (
	_ multicastregistry.Messaging = (*Messaging)(nil)
	_ multicastregistry.Pinger    = (*Messaging)(nil)
)

// NewMessaging returns a messaging slot on a connection. Any number of them may share it.
func NewMessaging(conn *Conn, cfg MessagingConfig) *Messaging {
	return &Messaging{conn: conn, buffer: cfg.Buffer}
}

// Ping implements multicastregistry.Pinger.
func (m *Messaging) Ping(ctx context.Context) error { return m.conn.Ping(ctx) }

// MaxPayload returns the largest payload that is sure to pass, as the server we are connected to says: its max_payload less 4
// KiB for the headers. What is larger is ErrTooLarge.
func (m *Messaging) MaxPayload() int { return m.conn.MaxPayload() }

// Publish implements multicastregistry.Messaging: one flush for the batch. Whether a message without a subscriber that wants
// an ack comes back is known later, through its Inbox.
func (m *Messaging) Publish(ctx context.Context, messages []multicastregistry.Message) []error {
	results := make([]error, len(messages))
	if len(messages) == 0 {
		return results
	}
	b := batch{ctx: ctx, conn: m.conn, messages: messages, results: results}
	b.watch = m.conn.watch.open()
	defer b.watch.close()
	b.publish()
	return results
}

// batch is one call of Publish.
type batch struct {
	ctx      context.Context
	conn     *Conn
	watch    *watch
	messages []multicastregistry.Message
	results  []error
}

func (b *batch) publish() {
	c := b.conn
	if err := b.ctx.Err(); err != nil {
		b.fail(0, err)
		return
	}
	if !c.nc.IsConnected() {
		b.fail(0, c.down())
		return
	}
	epoch, last := c.epoch(), c.nc.LastError()
	if written, err := b.write(); !written {
		return
	} else if err != nil {
		b.unknown(err)
		return
	}
	err := c.roundTrip(b.ctx)
	if err == nil && c.epoch() != epoch {
		err = errLostWrites
	}
	if err != nil {
		b.unknown(err)
		return
	}
	if refusals := c.refusals(b.ctx, b.watch, last); len(refusals) > 0 {
		b.refuse(refusals)
	}
}

// write appends the messages to the connection's buffer, which writes to the network whenever it is full. It returns whether
// anything was written, and an error after which nobody knows what of it has arrived.
func (b *batch) write() (written bool, err error) {
	var headers headerWriter
	largest := b.conn.MaxPayload()
	out := &nats.Msg{}
	for i := range b.messages {
		message := &b.messages[i]
		if i%checkEvery == checkEvery-1 && b.ctx.Err() != nil { // the round trip will find so, too
			b.fail(i, b.ctx.Err())
			break
		}
		if len(message.Payload) > largest {
			b.results[i] = wrap("publish to", message.Identity, nats.ErrMaxPayload)
			continue
		}
		out.Subject, out.Reply, out.Data, out.Header = message.Topic, message.AckTo, message.Payload, headers.of(message)
		switch err := b.conn.nc.PublishMsg(out); {
		case err == nil:
			written = true
		case untouched(err):
			b.results[i] = wrap("publish to", message.Identity, err)
		default: // what was in the buffer may be lost, also what others have put there
			b.conn.broken.Add(1)
			b.fail(i+1, nats.ErrDisconnected)
			return true, err
		}
	}
	return written, nil
}

// untouched tells whether PublishMsg has failed before it wrote anything.
func untouched(err error) bool {
	return sentinelOf(err) != nil || errors.Is(err, nats.ErrBadSubject) || errors.Is(err, nats.ErrBadHeaderMsg)
}

// fail gives a reason to all messages from the given one on, which were not written.
func (b *batch) fail(from int, reason error) {
	for i := from; i < len(b.messages); i++ {
		b.results[i] = wrap("publish to", b.messages[i].Identity, reason)
	}
}

// unknown gives a reason to all messages that were written.
func (b *batch) unknown(reason error) {
	for i := range b.messages {
		if b.results[i] == nil {
			b.results[i] = &unknownError{op: "publish to", identity: b.messages[i].Identity, cause: reason}
		}
	}
}

// refuse tells the messages whose topic, or ack address, we have no right to use. One whose ack address is refused was not
// sent either.
func (b *batch) refuse(refusals []error) {
	of := make(map[string]error, len(refusals))
	for _, err := range refusals {
		of[refusedSubject(err)] = err
	}
	for i := range b.messages {
		message := &b.messages[i]
		err := of[message.Topic]
		if err == nil && message.AckTo != "" {
			err = of[message.AckTo]
		}
		if err != nil && b.results[i] == nil {
			b.results[i] = wrap("publish to", message.Identity, err)
		}
	}
}
