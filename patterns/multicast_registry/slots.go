package multicastregistry

import (
	"context"
	"iter"
	"time"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// Slots are the backends that fill one namespace. Whoever opened a backend's connection closes it: slots have no Close,
// because one client may fill three of them.
type Slots struct {
	// Registry keeps the identities. Required.
	Registry Registry
	// Messaging carries messages and acks. Required.
	Messaging Messaging
	// Durability keeps what an offline identity has not acked. Optional: nil means that nothing is kept.
	Durability Durability
	// Tracer is told of what is asked of them. Optional: nil costs nothing.
	Tracer Tracer
}

// PutMode says what Registry.Put does when a live identity of that name exists.
type PutMode uint8

const (
	// Create fails with ErrAlreadyExists.
	Create PutMode = iota
	// Replace takes its place.
	Replace
)

// Registry is the slot that keeps identities, metadata and leases. The backend is the truth: the coordinator stores no
// identities. All methods may be called concurrently.
//
// An expired identity behaves as absent everywhere from the instant it expires, swept or not. An outage of the backend that
// is longer than the registry takes to tell it from a pause, seconds, ends no lease: what was live when it began is live for at
// least its TTL after it has ended. Times are the backend's
// own clock; TTLs keep millisecond precision. Metadata that is handed over or out is never shared with the caller: no
// change that a caller makes to it can be seen by another one.
//
// Errors wrap ErrUnavailable when the backend cannot be reached, and the context's error when the context ended. A call
// that failed has changed nothing, or all of what it was to change.
type Registry interface {
	// Put stores an identity and starts its lease, atomically in the backend: of any number of concurrent creates one
	// succeeds. It reads ID, Metadata and TTL, and returns the stored identity with its RegisteredAt, ExpiresAt and
	// Revision. TTL is positive or NoExpiry. ErrAlreadyExists when mode is Create and the identity is live; ErrQuota when
	// the backend refuses another one.
	Put(ctx context.Context, identity Identity, mode PutMode) (Identity, error)

	// Renew restarts the lease of a live identity, from now on with the given TTL (positive or NoExpiry), or with the TTL
	// it has when ttl is 0. It never rewrites metadata. ErrNotFound when the identity is not live.
	Renew(ctx context.Context, id string, ttl time.Duration) (Lease, error)

	// Delete removes an identity and tells whether a live one existed. Deleting what is absent is no error. With a revision
	// above 0 it removes only the registration that Put returned that Revision for, and does nothing when another one has
	// taken its place: check and removal are one step.
	Delete(ctx context.Context, id string, only Revision) (existed bool, err error)

	// Scan yields live identities in any order, each at most once. It must yield every match of the filter that is live
	// from the start of the scan to its end; it may yield others, because the coordinator checks each with filter.Match:
	// a backend pushes down what it can and never has to be exact. A nil filter matches everything. An error is yielded
	// once, as the last element. Breaking off leaks nothing. The caller may call any method while it ranges.
	Scan(ctx context.Context, match *filter.Expr) iter.Seq2[Identity, error]
}

// Header is an optional ability of a registry that numbers its changes.
type Header interface {
	// Head returns the revision of the latest change. A scan that starts afterwards reflects at least this revision.
	Head(ctx context.Context) (Revision, error)
}

// Clock is an optional ability of a registry whose backend has a clock of its own.
type Clock interface {
	// Now returns the backend's time at some instant of the call.
	Now(ctx context.Context) (time.Time, error)
}

// Counter is an optional ability of a registry that counts without scanning.
type Counter interface {
	// Count returns the number of live identities.
	Count(ctx context.Context) (int, error)
}

// Prober is an optional ability of a registry that looks identities up by name.
type Prober interface {
	// Live tells of each identity whether it is live, in order.
	Live(ctx context.Context, ids []string) ([]bool, error)
}

// Finder is an optional ability of a registry that evaluates filters itself, exactly.
type Finder interface {
	// Find yields the names of the live identities that match, as Scan would yield the identities.
	Find(ctx context.Context, match *filter.Expr) iter.Seq2[string, error]
}

// Querier is an optional ability of a registry that answers whole queries itself, exactly: it has an index.
type Querier interface {
	// Query returns live identities that match, in order, and counts. Errors are those of Scan.
	Query(ctx context.Context, q Selection) (Selected, error)
}

// Selection is a query as a Querier takes it.
type Selection struct {
	// Match selects; nil matches everything.
	Match *filter.Expr
	// Order sorts by fields; identities that are equal in them, or all without any, come in byte order of their names.
	Order []Order
	// After leaves out what comes before a place in that order, and what is there. Nil: from the beginning.
	After *Place
	// Limit is the most identities; 0: only counts.
	Limit int
	// MaxBytes ends the answer early, though not before the first identity, when names and metadata, with 64 bytes for each
	// identity, would be more. 0: no bound.
	MaxBytes int
	// Total says that all matches are counted, whatever After and Limit.
	Total bool
	// CountBy counts all matches by the values of each of these fields.
	CountBy [][]string
	// MaxGroups is the most groups for each of CountBy: the largest first, of equal ones in the order of filter.Compare.
	MaxGroups int
	// Into is memory that the identities may be written to, whatever it holds. Optional.
	Into []Identity
}

// Order is a field to sort by, in the order of filter.Compare; what has no scalar there comes last.
type Order struct {
	// Path are the keys from the outside in.
	Path []string
	// Descending turns the order of this field round.
	Descending bool
}

// Place is where an identity stands in an order.
type Place struct {
	// Values are the scalars, in the form of filter.Scalar, of the fields of Order; Absent where there is none.
	Values []any
	// ID is the identity.
	ID string
}

// Absent is the value of a field that is missing or no scalar. filter.Compare puts it last.
type Absent struct{}

// Selected is what a Querier returns.
type Selected struct {
	// Identities have Encoded set in place of Metadata.
	Identities []Identity
	// More says that further matches come after the last of Identities.
	More bool
	// Last is the place of the last of Identities; nil when there are none.
	Last *Place
	// Total counts all matches, when that was asked for.
	Total int
	// Groups are the counts by each of CountBy.
	Groups []Groups
	// Revision is what the answer reflects at the least.
	Revision Revision
}

// Groups are matches counted by the value of one field.
type Groups struct {
	// Path are the field's keys from the outside in.
	Path []string
	// Groups are the largest groups.
	Groups []Group
	// Omitted is how many further groups there are.
	Omitted int
	// Missing counts the matches that are in no group: their field is missing, an object, or an array without scalars.
	Missing int
}

// Group is the matches whose field is equal to one value. An array is in the group of each of its scalars.
type Group struct {
	// Value is in the form of filter.Scalar.
	Value any
	// Count is how many matches there are.
	Count int
}

// Copy is an optional ability of a registry that answers reads from a copy of another registry, which it keeps by that one's
// Changes. Head is the other one's.
type Copy interface {
	// Reach waits until the copy reflects a revision, and in any case all that was written through this registry, and returns
	// what it reflects then. ErrUnavailable when the copy is not there in time, and when it is older than it may be.
	Reach(ctx context.Context, revision Revision) (Revision, error)
}

// Follower is an optional ability of a Copy that tells how far it has followed.
type Follower interface {
	// Followed tells how far; ok is false while nothing is copied, and reads go to the registry itself. It asks nobody.
	Followed() (f Followed, ok bool)
}

// Followed is how far a copy has followed its registry.
type Followed struct {
	// Revision is what the copy reflects.
	Revision Revision
	// Current is when the copy was last known to have everything; when it was made, as long as it never was.
	Current time.Time
	// Expired counts the leases that the copy was told have ended: not those that ended before it was there, or while it began
	// again.
	Expired uint64
}

// Fielder is an optional ability of a registry that knows the fields of its identities without looking at each.
type Fielder interface {
	// Fields returns what knows them, and the backend's time; nil while nothing does, and filters are answered by scans.
	Fields() (fields Fields, now time.Time)
}

// Fields knows the metadata of live identities by its fields. An identity whose lease has ended by the time that is given does
// not count. All methods may be called concurrently.
type Fields interface {
	// Len counts the identities.
	Len(now time.Time) int
	// Has tells whether any identity has a field in one of the given shapes. It allocates nothing and takes about as long as one
	// look into a map, as a rule; it is called for each condition of each filter.
	Has(now time.Time, path []string, shapes Shape) bool
	// Field returns all there is to know of a field.
	Field(now time.Time, path []string) Field
	// Paths lists fields, in order, up to a number of them: beyond that, any.
	Paths(now time.Time, most int) [][]string
}

// Sourcer is an optional ability of a registry that does not scan all identities for every filter.
type Sourcer interface {
	// Source tells where filters are answered now.
	Source() Source
}

// Changes is an optional ability of a registry: a feed of its changes, from which a reader keeps an exact copy.
type Changes interface {
	// Changes yields what has changed after a position, then what changes, as it happens, without a gap, until the context
	// ends or the backend fails; the error comes once, as the last element. A reader that lost its connection calls again
	// with the position of the last change that it has applied.
	//
	// With an empty position, and with one from which the backend can no longer tell every change, the feed begins with a
	// Reset: the reader forgets all it knows. Then come live identities as Put, mixed with changes, in an order in which the
	// reader has an exact copy by the first Synced, and not before: a change may tell of something that a Put before it
	// reflects already. From Synced on, changes come in the order in which the backend made them, each once, with revisions
	// that grow by one; of a registry in parts, which change independently, those of each identity do, with gaps. Synced comes
	// again at least every ChangesIdle while nothing changes: what the reader has is as old as the last Synced or change (of a
	// registry in parts: the last Synced, give or take one ChangesIdle).
	//
	// An identity whose lease ends is absent from ExpiresAt on, by the backend's clock, whether an Expire has come or not.
	// A reader that is too slow for the backend's log gets a Reset, never a gap.
	Changes(ctx context.Context, after Position) iter.Seq2[Change, error]
}

// Hurrier is an optional ability of Changes whose feed lets changes gather for a few milliseconds when many come.
type Hurrier interface {
	// Hurry has a feed that does so tell at once what there is: somebody waits for it.
	Hurry()
}

// ChangesIdle is the longest time that a change feed is silent.
const ChangesIdle = time.Second

// Position is a place in a registry's change feed, opaque to everyone but the backend. Empty: the beginning.
type Position string

// ChangeKind says what a Change is.
type ChangeKind uint8

// The kinds of change.
const (
	// Reset means that the reader's copy is void; what it is to know follows.
	Reset ChangeKind = iota + 1
	// Put means that an identity was registered or replaced. All of Identity is set, Encoded or Metadata.
	Put
	// Renew means that a lease was renewed. ID, TTL and ExpiresAt of Identity are set.
	Renew
	// Delete means that an identity was removed. ID of Identity is set.
	Delete
	// Expire means that a lease has ended. ID of Identity is set.
	Expire
	// Extend means that the backend was away from Since to Until, when nobody could renew a lease: a lease that had not ended
	// at Since lasts for at least its TTL from Until on. It has no identity. It may come, and come again, with the Revision of the
	// change before it, until the backend has noted the outage.
	Extend
	// Synced means that the reader has everything up to Revision: no change up to there is to come. The Synced
	// that reaches a revision which Put or Head has returned is not long in coming. Before it, a change that reaches that
	// revision says as much, except of a registry in parts.
	Synced
)

// Change is an element of a change feed.
type Change struct {
	// Kind says what has happened, and what else is set.
	Kind ChangeKind
	// Identity is what it happened to.
	Identity Identity
	// Since and Until are set of an Extend.
	Since, Until time.Time
	// Revision is the registry's revision of this change; of a Put in a snapshot the identity's own; of Synced see there.
	Revision Revision
	// Epoch is set of a Synced, and of a change when it is another one than before, where two feeds can have it in common: they have
	// the same changes under the same revisions then.
	Epoch string
	// Position is where to continue after this change. Empty between a Reset and the first Synced: a reader that is cut off
	// there begins again.
	Position Position
}

// Pinger is an optional ability of any slot whose backend can be away.
type Pinger interface {
	// Ping makes one round trip to the backend. ErrUnavailable when that fails.
	Ping(ctx context.Context) error
}

// Message is one message for one identity, as both the messaging and the durability slot carry it.
type Message struct {
	// Topic is the address of the identity: Topic(namespace, identity).
	Topic string
	// Identity is the name behind the topic.
	Identity string
	// ID is the id of the multicast. Together with Identity it names the message; every attempt keeps it.
	ID string
	// ContentType is the media type of the payload.
	ContentType string
	// Payload is the content. It must not be changed once it was handed over.
	Payload []byte
	// SentAt is when the multicast was sent, by the sender's clock, to the millisecond.
	SentAt time.Time
	// AckTo is the address that acks go to: an Inbox's when publishing; opaque to recipients, who hand it back in an Ack.
	// Empty: no ack is wanted.
	AckTo string
	// Once says that the multicast is exactly-once: the recipient's library drops repeats.
	Once bool
	// TraceParent is the place in a trace that the recipient goes on from, as TraceParent returns it. Empty: none.
	TraceParent string
	// Redelivered is set by a slot on a message that it has yielded before, and by a Subscriber on every stored message:
	// the recipient may know it already.
	Redelivered bool
}

// Ack acknowledges one message, or gives it back.
type Ack struct {
	// To is the AckTo of the message.
	To string
	// Identity and ID name the message.
	Identity, ID string
	// Reply goes to the sender with the ack. A durability slot passes it over.
	Reply Reply
	// Gone says that this is no ack: the subscriber that received the message is leaving and will not ack it. Never set on
	// acks to a durability slot.
	Gone bool
}

// Reply is what a recipient answers with its ack. The zero Reply is a plain ack.
type Reply struct {
	// Code tells the kind of answer, as the applications have agreed: 0 is success, like an exit code.
	Code uint32
	// Body is the answer itself, up to MaxReplyBytes.
	Body []byte
}

// MaxReplyBytes is the largest body of a Reply.
const MaxReplyBytes = 4096

// Batch is what a subscription yields at once.
type Batch struct {
	// Messages in order of arrival; per topic in the order in which they were published. The receiver owns the slice.
	Messages []Message
	// Dropped counts the messages that were dropped since the batch before because this subscription was full, or, by a
	// durability slot, because they were stored for longer than the slot keeps messages: it remembers how many for as long again.
	Dropped uint64
	// CaughtUp names topics of a durability slot's subscription: everything that was stored for such a topic when it was added
	// has been yielded, the last of it in this batch, or is held by another subscription. Each Add of a topic is followed by
	// one mention, unless the topic is removed before; a batch may consist of nothing else.
	CaughtUp []string
}

// Subscription receives messages of any number of topics. Add, Remove and Close may be called concurrently with each
// other and with Next; Next by one goroutine at a time.
type Subscription interface {
	// Add starts receiving topics. When it returns, every message that is published from now on arrives. A topic that is
	// received already is passed over. io.EOF after Close.
	Add(ctx context.Context, topics ...string) error
	// Remove stops receiving topics. Messages that wait already may still come, or not. A topic that is not received is
	// passed over.
	Remove(ctx context.Context, topics ...string) error
	// Next waits for messages and returns all that wait, up to a limit of the slot's. It returns io.EOF after Close, and
	// the context's error when the context ends; no message is lost by that.
	Next(ctx context.Context) (Batch, error)
	// Close ends the subscription and releases what it holds. Closing again does nothing.
	Close() error
}

// Messaging is the slot that carries messages to whoever is attached now, and acks back. All methods may be called
// concurrently.
type Messaging interface {
	// Publish hands a batch to the backend, with one flush for all of it, and returns one result for each message, in
	// order: nil when the backend accepted it. Every subscription of the topic receives the message; messages for one topic
	// arrive in the order of the calls. A slow subscription never delays the call nor another subscription.
	//
	// A message that wants an ack and has no subscriber is ErrNoSubscriber, either as its result or, where the backend
	// learns that later, through the Inbox. ErrQueueFull when every subscription of the topic is full; ErrTooLarge when the
	// backend refuses the size; ErrUnavailable when the backend was not reached and does not have the message. Any other
	// error, the context's included, says that the outcome is unknown. One failing message fails no other.
	Publish(ctx context.Context, messages []Message) []error

	// Subscribe opens a subscription that receives the given topics (and those added later). Its buffers are bounded per
	// topic; what does not fit is dropped and counted. The context covers the call, not the subscription's life.
	Subscribe(ctx context.Context, topics ...string) (Subscription, error)

	// Inbox opens an address space for acks. One serves a whole coordinator. The context covers the call only.
	Inbox(ctx context.Context) (Inbox, error)

	// Ack sends acks, each with its Reply, to the addresses that came with messages, from any process, and returns one
	// result for each. Acking again, or to an inbox that is gone, is no error: acks are hints to a sender that may have
	// stopped waiting.
	Ack(ctx context.Context, acks []Ack) []error
}

// Inbox receives acks. Address may be called concurrently with everything; Next by one goroutine at a time.
type Inbox interface {
	// Address returns the AckTo that leads to this inbox under a token of the caller's: 1 to 64 ASCII letters, digits and
	// dots.
	Address(token string) string
	// Next waits for acks and returns all that wait. io.EOF after Close; the context's error when the context ends.
	Next(ctx context.Context) ([]Receipt, error)
	// Close gives the address space up. Closing again does nothing.
	Close() error
}

// Receipt is what an inbox learned about one message.
type Receipt struct {
	// Token is what Address was called with.
	Token string
	// Reply is what came with the ack.
	Reply Reply
	// Err is nil for an ack, ErrNoSubscriber when the backend found that nobody receives the topic, and ErrGone when a
	// subscriber gave the message back (Ack.Gone).
	Err error
}

// Durability is the slot that keeps messages until they are acked. All methods may be called concurrently.
type Durability interface {
	// Enqueue stores messages, in order, and returns one result for each: nil when the message will survive what the
	// backend promises to survive. Storing a message again (same topic and ID) while it is stored is no error and keeps one
	// copy. ErrQueueFull at the bound of the topic's queue; ErrTooLarge; ErrUnavailable when the backend was not reached and does
	// not have the message. Any other error, the context's included, says that the outcome is unknown.
	Enqueue(ctx context.Context, messages []Message) []error

	// Consume opens a subscription that yields what is stored for the topics and what is stored later, per topic in the
	// order of Enqueue, with AckTo set. Each message is held by one subscription at a time; one that was yielded and not
	// acked is yielded again, marked Redelivered, to the next subscription after its holder has closed or removed the topic.
	Consume(ctx context.Context, topics ...string) (Subscription, error)

	// Ack removes messages, named by the AckTo they were yielded with, for good. Acking again is no error.
	Ack(ctx context.Context, acks []Ack) []error

	// Purge removes everything stored for a topic and returns how many messages that were.
	Purge(ctx context.Context, topic string) (int, error)
}

// Recaller is an optional ability of a durability slot: to find and withdraw single messages, which Topic and ID name. The
// messages of one call mostly share their ID. A Coordinator keeps multicasts only where a slot is both a Recaller and a Ledger.
type Recaller interface {
	// Stored tells of each message whether it is stored: not acked, withdrawn, purged or too old.
	Stored(ctx context.Context, messages []Message) ([]bool, error)

	// Withdraw removes messages for good, held ones too, and tells of each whether it was stored until then: of a withdrawal
	// and an ack at the same time exactly one finds it.
	Withdraw(ctx context.Context, messages []Message) ([]bool, error)
}

// Backlog is an optional ability of a durability slot that knows how much it stores without looking at every queue.
type Backlog interface {
	// Backlog returns how many messages are stored for all identities together: yielded or not, and not acked, withdrawn or
	// purged. What has become too old may count for a small part of its age longer.
	Backlog(ctx context.Context) (messages int, err error)
}

// Ledger is an optional ability of a durability slot: it keeps the records of multicasts, and their idempotency keys, for
// its retention, and of those at most a number; the oldest go first. All methods may be called concurrently.
//
// Errors wrap ErrUnavailable when the backend cannot be reached.
type Ledger interface {
	// Begin stores a new record. When a kept record has the same Key, which is not empty, it stores nothing and returns that
	// record, without Targets: of any number of concurrent Begins with one key exactly one stores. began tells which.
	Begin(ctx context.Context, record Record) (held Record, began bool, err error)

	// Finish stores the record again, Summary and Targets included, or for the first time, with its Key.
	Finish(ctx context.Context, record Record) error

	// Held returns the record that has a key, which is not empty, without Targets. ErrNotFound when none has.
	Held(ctx context.Context, key string) (Record, error)

	// Replace stores a record as Finish does, if one with its ID is kept whose Summary is was, byte for byte; else it changes
	// nothing. replaced tells which: of any number of concurrent Replaces of a Summary by others exactly one stores. With an
	// error nobody knows.
	Replace(ctx context.Context, record Record, was []byte) (replaced bool, err error)

	// Settle adds what has become of single targets afterwards, and returns one result for each. A settlement takes the place
	// of an earlier one of the same multicast and identity, except that one which is not Final never takes the place of one
	// that is. One that comes before its record shows once that is stored. To settle what is not kept (any more) is no error and
	// leaves nothing behind for longer than the retention.
	Settle(ctx context.Context, settlements []Settlement) []error

	// Get returns a record with all of its settlements, in any order. ErrNotFound when none is kept.
	Get(ctx context.Context, id string) (Record, []Settlement, error)

	// List returns records without Targets, latest first, by ID: up to limit of those whose ID is before the given one in
	// that order; empty: from the latest.
	List(ctx context.Context, before string, limit int) ([]Record, error)
}

// Record is what a Ledger keeps of one multicast. Its contents are the coordinator's; to a backend they are bytes.
type Record struct {
	// ID is the multicast's id, whose byte order is that of time.
	ID string
	// Key is the idempotency key, up to MaxKeyBytes of any characters. Empty: none.
	Key string
	// Summary is what List returns, up to MaxChunk.
	Summary []byte
	// Targets are further parts that belong together, each up to MaxChunk and not empty.
	Targets [][]byte
}

// Bounds of a Record.
const (
	MaxChunk    = 256 << 10
	MaxKeyBytes = 256
)

// Settlement is what has become of one target after the multicast returned.
type Settlement struct {
	// ID is the multicast's id.
	ID string
	// Identity is the target; empty: the multicast itself.
	Identity string
	// Final says that another settlement takes its place only if that is Final too.
	Final bool
	// Data is what the coordinator has to say, up to 2 * MaxReplyBytes.
	Data []byte
}
