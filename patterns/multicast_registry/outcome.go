package multicastregistry

import (
	"strconv"
	"time"
)

// Status is what became of a target. It is a closed algebra: every target of a multicast has exactly one of the four.
type Status uint8

// The statuses.
const (
	// Delivered means that it arrived; the Evidence says how that is known.
	Delivered Status = iota + 1
	// Pending means that it is stored and will be delivered when the identity attaches.
	Pending
	// Failed means that it did not arrive and will not.
	Failed
	// Timeout means that nobody acknowledged it in time; whether it arrived is unknown.
	Timeout
)

// String returns the status as users know it.
func (s Status) String() string {
	names := [...]string{"UNKNOWN", "DELIVERED", "PENDING", "FAILED", "TIMEOUT"}
	if int(s) >= len(names) { // a client may meet a newer server's
		return names[0]
	}
	return names[s]
}

// Evidence is what Delivered and Pending rest on.
type Evidence uint8

// The kinds of evidence.
const (
	// Accepted means that the messaging backend took the message.
	Accepted Evidence = iota + 1
	// Stored means that the durability backend stored the message.
	Stored
	// Acked means that a subscriber acknowledged the message.
	Acked
)

// Reason says why a target was not delivered.
type Reason uint8

// The reasons.
const (
	// NoSubscriber means that nobody is attached to the identity.
	NoSubscriber Reason = iota + 1
	// QueueFull means that the subscriber, or the durable queue, had no room left.
	QueueFull
	// PayloadTooLarge means that the backend refuses messages of this size.
	PayloadTooLarge
	// BackendError means that the backend failed; the target's Err says how.
	BackendError
	// NoAck means that no subscriber acknowledged the message in time.
	NoAck
	// NotSent means that the call ended before the message was handed to the backend.
	NotSent
	// Gone means that the target left during the call: it is not registered any more, or the subscriber that had received the
	// message detached without acknowledging it. With Failed nobody had received it, with Timeout somebody may have.
	Gone
	// Expired means that the message was stored for longer than the durability slot keeps it, or was purged when the
	// identity unregistered.
	Expired
	// Withdrawn means that CancelMulticast removed the stored message.
	Withdrawn
)

// String returns the reason as users know it: empty for none, a number for one of a newer server's.
func (r Reason) String() string {
	names := [...]string{
		"", "NO_SUBSCRIBER", "QUEUE_FULL", "PAYLOAD_TOO_LARGE", "BACKEND_ERROR", "NO_ACK", "NOT_SENT", "GONE", "EXPIRED", "WITHDRAWN",
	}
	if int(r) >= len(names) {
		return strconv.Itoa(int(r))
	}
	return names[r]
}

// Target is what became of one target.
type Target struct {
	// Identity is the name.
	Identity string
	// Status is the outcome.
	Status Status
	// Evidence is what Delivered and Pending rest on; 0 otherwise.
	Evidence Evidence
	// Reason says why the target is not Delivered; 0 if it is.
	Reason Reason
	// Err is the reason in detail; nil when the target was delivered.
	Err error
	// Attempts counts how often the message was handed to the backend.
	Attempts int
	// Reply is what came with the ack.
	Reply Reply
	// Latency is the time from handing the message over to the outcome. 0 when it was never handed over.
	Latency time.Duration
}

// Ended says why a multicast stopped waiting.
type Ended uint8

// The endings.
const (
	// Complete means that the outcome of every target is known.
	Complete Ended = iota + 1
	// DeadlinePassed means that the timeout or the context's deadline passed.
	DeadlinePassed
	// Cancelled means that the caller left, or that the multicast was cancelled by its id.
	Cancelled
	// DryRun means that nothing was sent, because the request asked only who is meant.
	DryRun
)

// Result is what became of a multicast. Its targets are ordered by identity, each exactly once.
type Result struct {
	// ID is the multicast's id and the id of its messages.
	ID string
	// Revision is the registry's revision that the targets reflect at the least. 0 when the backend keeps none.
	Revision Revision
	// TargetCount is the number of identities that matched.
	TargetCount int
	// Targets holds every target; in a list of multicasts none.
	Targets []Target
	// Delivered, Pending, Failed and TimedOut count the targets by status; they add up to TargetCount.
	Delivered, Pending, Failed, TimedOut int
	// Delivery is the mode, the request's or else the namespace's: what Delivered means.
	Delivery DeliveryMode
	// Ended says why the multicast stopped waiting.
	Ended Ended
	// Elapsed is the time from the call to its result.
	Elapsed time.Duration
	// Replies counts the acknowledged targets by the code of their reply; a plain ack counts as 0. Nil when there is none.
	Replies map[uint32]int
	// Replayed says that this is the result of an earlier request with the same idempotency key.
	Replayed bool
	// Warnings are what is suspicious about the filter, where an index answers. They are not kept: a replayed result has none.
	Warnings []Warning
	// Unrecorded says why the record of this multicast could not be stored where multicasts are kept. The result is what it is.
	Unrecorded error
}

// count sets the counts from the targets.
func (r *Result) count() {
	var n [Timeout + 1]int
	r.Replies = nil
	for i := range r.Targets {
		t := &r.Targets[i]
		n[t.Status]++
		if t.Evidence == Acked {
			if r.Replies == nil {
				r.Replies = make(map[uint32]int)
			}
			r.Replies[t.Reply.Code]++
		}
	}
	r.TargetCount = len(r.Targets)
	r.Delivered, r.Pending, r.Failed, r.TimedOut = n[Delivered], n[Pending], n[Failed], n[Timeout]
}
