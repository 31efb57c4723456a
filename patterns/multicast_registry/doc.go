// Package multicastregistry answers "who is out there, and did every one of them get it?".
//
// Programs register identities (devices, services, users, agents) with JSON metadata and a TTL, enumerate them with a
// filter over that metadata, and multicast a payload to every identity that matches, with an outcome for each target.
//
// # Flow
//
// A Coordinator runs one namespace over three slots, the small interfaces in slots.go, which backends fill:
//
//	Register, Heartbeat, Unregister ──> Registry      identities, metadata, leases, revisions
//	Enumerate ──────────────────────> Registry.Scan   then filter.Match on each, so that every backend agrees
//	Multicast ──> Registry.Scan ────> Messaging       publish in chunks; acks come back through one Inbox
//	                                └> Durability     what nobody received is stored, if there is such a slot
//	Subscribe ──> Messaging.Subscribe + Durability.Consume, merged by a Subscriber, which also keeps leases alive
//
// The backend is the truth: a coordinator keeps no identities. What it holds are the multicasts that wait for acks right
// now, so any number of coordinators, in any number of processes, can serve one namespace over the same backends.
//
// # Guarantees
//
//   - An identity is live from Register to Unregister or to the instant its lease ends, by the backend's clock. An expired
//     identity is absent everywhere at once and never stands in the way of a new registration.
//   - A filter means the same for Enumerate and Multicast on every backend, because the same evaluator decides.
//   - Every target of a multicast appears exactly once in its Result, and Delivered + Pending + Failed + TimedOut is the
//     number of targets. Delivered rests on evidence: an ack, or with at-most-once the backend's acceptance.
//   - A multicast returns as soon as its last target is settled, and at the latest when its timeout has passed.
//   - What a slow or dead subscriber costs is its own messages, counted and reported.
//
// Errors wrap the sentinels in errors.go, whatever the backend.
package multicastregistry
