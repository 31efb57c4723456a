// Package nats fills slots with NATS: messaging over plain subjects, the registry over a JetStream key-value bucket, durability
// and the ledger over JetStream streams; see Registry and Durability for those. One Conn
// serves any number of slots and namespaces; it speaks to a server or a cluster, or to a server inside the process, which
// StartEmbedded runs.
//
// # Messaging
//
// A topic is a subject, "prism.<namespace>.<name>", so any NATS client can take part:
//
//	nats sub prism.presence.user-1              receives what is multicast to user-1: the payload is the body
//	nats reply prism.presence.user-1 ""         receives and acks: an ack is a reply
//	nats reply prism.presence.user-1 hello      receives, and answers "hello" with its ack
//	nats pub prism.presence.user-1 hello        is received by user-1
//	nats request prism.presence.user-1 hello    is received by user-1, and answered by its ack
//
// Everything else travels in headers: Prism-Message-Id, Content-Type (left out for application/octet-stream), Prism-Sent-At
// (RFC 3339, to the millisecond; left out where the id tells it, as the version 7 UUIDs of multicasts do), and "Prism-Delivery:
// exactly-once" where repeats are to be dropped. What is not printable ASCII in their values, and '%', is
// percent-encoded. A message without them gets an id of its own. An ack may have a body, of which the first 4 KiB reach the
// sender, and a code in the header Prism-Reply-Code; with "Prism-Gone: true" it is none, but says that the recipient leaves.
//
// Publish writes a batch to the connection and flushes once: nil means that the server has taken the message. When the
// connection breaks between the two, whatever was written has an unknown outcome, and says so. While there is no connection
// everything fails at once with ErrUnavailable; nothing is queued to be sent some time later.
//
// A subscription is one subject for each of its topics. Add returns when the server has them: what anybody publishes through
// that server from then on arrives. Within a cluster the news of a subscription travels to the other servers behind the
// answer; for the milliseconds that this takes, a message published through another server may miss it. After an outage the
// connection subscribes again by itself; what was published meanwhile has not been kept.
//
// The inbox of a coordinator is one wildcard subject. A message that wants an ack and meets no subscriber comes back through
// it as ErrNoSubscriber, from the server itself. A JetStream stream that captures a topic counts as a subscriber there; its own
// acknowledgement is recognised, and is not an ack of the recipient.
//
// # Outages
//
// An outage of the servers ends no lease. When no process has reached them for RegistryConfig.OutageAfter, 5 seconds by default,
// or when none ran, whatever was live when that began is live for at least its TTL after it has ended; see Registry. A warning,
// "leases are extended after an outage", says from when to when it was. Shorter ones go by unnoticed: a heartbeat that is missed
// in one of them must leave time for the next.
package nats
