package client

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// The types that the client shares with the server. Their documentation stands at the originals.
type (
	// Registration is what Register and Join take.
	Registration = multicastregistry.Registration
	// PutMode says what Register does when a live identity of that name exists.
	PutMode = multicastregistry.PutMode
	// Lease is what Heartbeat returns.
	Lease = multicastregistry.Lease
	// Groups are identities counted by the values of one field.
	Groups = multicastregistry.Groups
	// Group is the identities whose field has one value.
	Group = multicastregistry.Group
	// Consistency says how recent an answer has to be.
	Consistency = multicastregistry.Consistency
	// Revision numbers the changes of a registry.
	Revision = multicastregistry.Revision
	// DeliveryMode says how much a multicast promises.
	DeliveryMode = multicastregistry.DeliveryMode
	// Target is what became of one target of a multicast.
	Target = multicastregistry.Target
	// Status is the outcome of one target.
	Status = multicastregistry.Status
	// Evidence is what Delivered and Pending rest on.
	Evidence = multicastregistry.Evidence
	// Reason says why a target was not delivered.
	Reason = multicastregistry.Reason
	// Ended says why a multicast stopped waiting.
	Ended = multicastregistry.Ended
	// State says how far a kept multicast is.
	State = multicastregistry.State
	// MessageName names a message that was received.
	MessageName = multicastregistry.MessageName
	// Reply is what a recipient answers with its ack. The zero Reply is a plain ack.
	Reply = multicastregistry.Reply
)

// MaxReplyBytes is the largest body of a Reply.
const MaxReplyBytes = multicastregistry.MaxReplyBytes

// NoExpiry as a TTL says that the identity stays until it is unregistered.
const NoExpiry = multicastregistry.NoExpiry

// DefaultNamespace is the namespace of a client that names none.
const DefaultNamespace = multicastregistry.DefaultNamespace

// What Register does when a live identity of that name exists.
const (
	// Create fails with ErrAlreadyExists.
	Create = multicastregistry.Create
	// Replace takes its place.
	Replace = multicastregistry.Replace
)

// How recent an answer has to be.
const (
	// Eventual reflects what was written through the same server, and what others wrote up to a moment ago.
	Eventual = multicastregistry.Eventual
	// Strong reflects all that anybody had written when the call began.
	Strong = multicastregistry.Strong
)

// The delivery modes. An empty one means the namespace's.
const (
	// AtMostOnce is fire and forget: Delivered means that the messaging backend accepted the message.
	AtMostOnce = multicastregistry.AtMostOnce
	// AtLeastOnce waits for acks: Delivered means that a subscriber acknowledged the message.
	AtLeastOnce = multicastregistry.AtLeastOnce
	// ExactlyOnce is AtLeastOnce, and the recipient's Join hands each message to its handler once: see WithWindow.
	ExactlyOnce = multicastregistry.ExactlyOnce
)

// The statuses of a target; it has exactly one of them.
const (
	// Delivered means that it arrived; the Evidence says how that is known.
	Delivered = multicastregistry.Delivered
	// Pending means that it is stored and will be delivered when the identity attaches.
	Pending = multicastregistry.Pending
	// Failed means that it did not arrive and will not.
	Failed = multicastregistry.Failed
	// Timeout means that nobody acknowledged it in time; whether it arrived is unknown.
	Timeout = multicastregistry.Timeout
)

// The kinds of evidence.
const (
	// Accepted means that the messaging backend took the message.
	Accepted = multicastregistry.Accepted
	// Stored means that the durability backend stored the message.
	Stored = multicastregistry.Stored
	// Acked means that a subscriber acknowledged the message.
	Acked = multicastregistry.Acked
)

// The reasons why a target was not delivered.
const (
	// NoSubscriber means that nobody is attached to the identity.
	NoSubscriber = multicastregistry.NoSubscriber
	// QueueFull means that the subscriber, or the durable queue, had no room left.
	QueueFull = multicastregistry.QueueFull
	// PayloadTooLarge means that the backend refuses messages of this size.
	PayloadTooLarge = multicastregistry.PayloadTooLarge
	// BackendError means that the backend failed; the target's Err says how.
	BackendError = multicastregistry.BackendError
	// NoAck means that no subscriber acknowledged the message in time.
	NoAck = multicastregistry.NoAck
	// NotSent means that the call ended before the message was handed to the backend.
	NotSent = multicastregistry.NotSent
	// Gone means that the target left during the call: with Failed nobody had received the message, with Timeout somebody may
	// have.
	Gone = multicastregistry.Gone
	// Expired means that the message was stored for longer than the durability slot keeps it, or was purged when the
	// identity unregistered.
	Expired = multicastregistry.Expired
	// Withdrawn means that CancelMulticast removed the stored message.
	Withdrawn = multicastregistry.Withdrawn
)

// Why a multicast stopped waiting.
const (
	// Complete means that the outcome of every target is known.
	Complete = multicastregistry.Complete
	// DeadlinePassed means that the timeout or the context's deadline passed.
	DeadlinePassed = multicastregistry.DeadlinePassed
	// Cancelled means that the caller left, or that the multicast was cancelled by its id.
	Cancelled = multicastregistry.Cancelled
	// DryRun means that nothing was sent, because the request asked only who is meant.
	DryRun = multicastregistry.DryRun
)

// The states of a kept multicast.
const (
	// Running means that the call is under way, or that the server which ran it is gone.
	Running = multicastregistry.Running
	// Returned means that the call has returned. Pending targets may become Delivered still.
	Returned = multicastregistry.Returned
	// WithdrawnByID means that CancelMulticast was called.
	WithdrawnByID = multicastregistry.WithdrawnByID
)

// Message is one message that was received for one identity.
type Message struct {
	// Identity is the name it was received for.
	Identity string
	// ID is the id of its multicast. Together with Identity it names the message: the same pair again is a redelivery.
	ID string
	// ContentType is the media type of the payload.
	ContentType string
	// Payload is the content.
	Payload []byte
	// SentAt is when the multicast was sent, by the sending server's clock.
	SentAt time.Time
	// AckWanted tells whether the sender waits for an ack.
	AckWanted bool
	// Redelivered tells that the message was stored while the identity was away, or is handed over again.
	Redelivered bool
	// Once tells that the multicast is exactly-once. Join and Receive drop its repeats, as those of every acknowledged message;
	// who reads a Stream acknowledges again what it has handled, and does nothing else.
	Once bool
	// TraceParent is where the multicast is in its trace, as a traceparent of W3C Trace Context: see Context. Empty when it is
	// not traced.
	TraceParent string

	answer *answer // nil on a message that no handler was called with
}

// Name returns what Ack takes.
func (m Message) Name() MessageName { return MessageName{Identity: m.Identity, ID: m.ID} }

// answer is what a handler has set to go with the ack.
type answer struct{ reply atomic.Pointer[Reply] }

// Reply sets what goes to the sender with the ack, in the manner of an http.ResponseWriter: the handler of Join, JoinAll or
// Receive calls it before it returns nil. Calling it again replaces what was set; a handler that returns an error sends no ack
// and no reply. Code tells the kind of answer, as the applications have agreed: 0 is success, like an exit code, and what a
// handler sends that does not call Reply. An InvalidError says that the body is longer than MaxReplyBytes, or that no handler
// was called with the message: Stream.Answer takes the replies to those.
func (m Message) Reply(code uint32, body []byte) error {
	if err := checkReply(body); err != nil {
		return err
	}
	if m.answer == nil {
		return &InvalidError{Field: "message", Problem: "came from a Stream, whose Answer takes the reply"}
	}
	m.answer.reply.Store(&Reply{Code: code, Body: bytes.Clone(body)})
	return nil
}

// take returns what was set; nil for a plain ack.
func (a *answer) take() *Reply {
	reply := a.reply.Load()
	if reply != nil && reply.Code == 0 && len(reply.Body) == 0 {
		return nil
	}
	return reply
}

// checkReply refuses the body of a reply that the server would end the stream for.
func checkReply(body []byte) error {
	if len(body) > MaxReplyBytes {
		return &InvalidError{Field: "reply_body", Problem: fmt.Sprintf(
			"is %d bytes long; a reply has at most %d", len(body), MaxReplyBytes)}
	}
	return nil
}

// Event is what a stream receives at once. At least one field is set.
type Event struct {
	// Messages in order of arrival.
	Messages []Message
	// Dropped counts the messages lost since the event before because this stream was read too slowly.
	Dropped uint64
	// LeasesLost names identities whose leases the server no longer keeps alive, because they are not registered (any
	// more). Register and attach them again.
	LeasesLost []string
}
