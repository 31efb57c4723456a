package client

import (
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// The types that the client shares with the server. Their documentation stands at the originals.
type (
	// Identity is a registered device, service, user or agent.
	Identity = multicastregistry.Identity
	// Registration is what Register and Join take.
	Registration = multicastregistry.Registration
	// PutMode says what Register does when a live identity of that name exists.
	PutMode = multicastregistry.PutMode
	// Lease is what Heartbeat returns.
	Lease = multicastregistry.Lease
	// Page is what Enumerate returns.
	Page = multicastregistry.Page
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
	// MessageName names a message that was received.
	MessageName = multicastregistry.MessageName
)

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

// The delivery modes. An empty one means the namespace's.
const (
	// AtMostOnce is fire and forget: Delivered means that the messaging backend accepted the message.
	AtMostOnce = multicastregistry.AtMostOnce
	// AtLeastOnce waits for acks: Delivered means that a subscriber acknowledged the message.
	AtLeastOnce = multicastregistry.AtLeastOnce
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
)

// Why a multicast stopped waiting.
const (
	// Complete means that the outcome of every target is known.
	Complete = multicastregistry.Complete
	// DeadlinePassed means that the timeout or the context's deadline passed.
	DeadlinePassed = multicastregistry.DeadlinePassed
	// Cancelled means that the caller left.
	Cancelled = multicastregistry.Cancelled
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
}

// Name returns what Ack takes.
func (m Message) Name() MessageName { return MessageName{Identity: m.Identity, ID: m.ID} }

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
