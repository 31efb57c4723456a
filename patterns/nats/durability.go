package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// Defaults of DurabilityConfig.
const (
	DefaultMaxMessages   = 10_000
	DefaultMaxBytes      = 64 << 20
	DefaultMaxAge        = 24 * time.Hour
	DefaultRetention     = 24 * time.Hour
	DefaultMaxMulticasts = 10_000
)

const (
	// overdue is how long the server keeps a message beyond MaxAge, so that whoever returns is told of the loss.
	overdue = time.Hour
	// codeStoreFailed is JetStream's code for several refusals, which only the text tells apart; storedAlready is that of a
	// message whose subject has one.
	codeStoreFailed = 10_077
	storedAlready   = "maximum messages per subject exceeded"
	// repeatPause is the pause before a repeat of a message that is being stored by somebody else is tried again.
	repeatPause = 5 * time.Millisecond
)

// DurabilityConfig is the configuration of a Durability.
type DurabilityConfig struct {
	// Namespace is the name of the namespace; the streams are "prism-queue-<namespace>", "prism-holders-<namespace>" and
	// "prism-ledger-<namespace>". Required.
	Namespace string
	// MaxMessages is the most messages stored for one identity; see Durability for how exact that is. Default (0):
	// DefaultMaxMessages.
	MaxMessages int
	// MaxBytes is the most bytes of payload stored for one identity, as exact as MaxMessages. What the streams take as a whole is
	// bounded by the account's limits, or by a max_bytes that an operator gives them. Default (0): DefaultMaxBytes.
	MaxBytes int
	// MaxAge is how long a message is stored. Older ones are dropped, and counted to whoever consumes their topic within an hour
	// after that. Default (0): DefaultMaxAge.
	MaxAge time.Duration
	// Replicas is how many servers keep the streams: 1, or 3 or 5 in a cluster. Existing streams grow to it, and keep what
	// they have above it. Default (0): 1.
	Replicas int
	// Storage is StorageFile or StorageMemory. It must be that of existing streams. Default (""): StorageFile.
	Storage string
	// Retention is how long records of multicasts are kept. Default (0): DefaultRetention.
	Retention time.Duration
	// MaxMulticasts is the most records of multicasts that are kept. Default (0): DefaultMaxMulticasts.
	MaxMulticasts int
}

// Validate returns an InvalidError that names the field with an impossible value.
func (c DurabilityConfig) Validate() error {
	if err := (RegistryConfig{Namespace: c.Namespace, Replicas: c.Replicas, Storage: c.Storage}).Validate(); err != nil {
		return err
	}
	for _, field := range []struct {
		name  string
		value int64
	}{
		{"max_messages", int64(c.MaxMessages)},
		{"max_bytes", int64(c.MaxBytes)},
		{"max_age", int64(c.MaxAge)},
		{"retention", int64(c.Retention)},
		{"max_multicasts", int64(c.MaxMulticasts)},
	} {
		if field.value < 0 {
			return invalid(field.name, "must not be negative")
		}
	}
	if c.Retention > 0 && c.Retention < time.Second {
		return invalid("retention", "must be at least 1s")
	}
	return nil
}

func (c DurabilityConfig) withDefaults() DurabilityConfig {
	if c.MaxMessages == 0 {
		c.MaxMessages = DefaultMaxMessages
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = DefaultMaxBytes
	}
	if c.MaxAge == 0 {
		c.MaxAge = DefaultMaxAge
	}
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	if c.Storage == "" {
		c.Storage = StorageFile
	}
	if c.Retention == 0 {
		c.Retention = DefaultRetention
	}
	if c.MaxMulticasts == 0 {
		c.MaxMulticasts = DefaultMaxMulticasts
	}
	return c
}

// Durability keeps the messages of one namespace in a JetStream stream, until they are acked, and its multicasts in another.
//
// # Messages
//
// Each message has a subject of its own, "prism-queue.<namespace>.<name>.<id>.<bytes>", with the identity's name and the id as
// multicastregistry.EncodeName spells them, and the size of the payload. A subject takes one message: the server itself refuses
// a repeat as long as the first one is stored. An ack purges the subject, up to the sequence that was yielded. So what is stored
// for an identity, or of a multicast, is a question for subjects, which the server answers from memory; and an identity that has
// nothing stored costs the server nothing at all: there are no consumers, in the sense of JetStream, neither idle nor busy.
//
// What this process knows of the size of a queue it keeps, counts on, and asks for again when the queue seems full and every
// half minute. So the bounds are exact as long as one process stores messages for an identity at a time; several may exceed
// them by what the others have stored within that time.
//
// # Holders
//
// A topic for which something is stored is held by one process, as an entry of the stream of holders says. The entry
// names the process, which has one lease for whatever it holds, as a message that the server removes after 5 seconds unless it
// is renewed, and hands out nothing once it could not renew it in time. It gives topics back when its subscriptions remove them
// or close, and tells the others, who take over at once. Those of a process that was killed are free 5 to 7 seconds later.
//
// Whoever stores messages tells the topics to all processes over a plain subject, "prism-queue-news.<namespace>". What is lost
// there is found within ten seconds, by the stream's last sequence, and after a reconnect at once.
//
// # Guarantees
//
// A message is stored when the server has acknowledged it, and survives the end of the server's process, killed or not. A loss
// of power may cost what the server has left to the operating system: up to two minutes, its sync_interval, with one replica;
// nothing where sync_interval is "always", or while another replica is up.
type Durability struct {
	conn   *Conn
	cfg    DurabilityConfig
	prefix string // of the subjects of messages
	queue  *stream
	clock  *clock // of queue's leader
	depths depths
	ages   ages
	hub    *hub
	ledger *ledger
}

var (
	_ multicastregistry.Durability = (*Durability)(nil)
	_ multicastregistry.Recaller   = (*Durability)(nil)
	_ multicastregistry.Ledger     = (*Durability)(nil)
	_ multicastregistry.Backlog    = (*Durability)(nil)
	_ multicastregistry.Pinger     = (*Durability)(nil)
)

// OpenDurability opens the streams of a namespace, and makes them where they are absent. ErrUnsupported when the servers have
// no JetStream, or one older than that of nats-server 2.11; other errors when the streams exist and cannot serve. The
// connection stays the caller's, who closes the Durability first.
func OpenDurability(ctx context.Context, conn *Conn, cfg DurabilityConfig) (*Durability, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	d := &Durability{
		conn: conn, cfg: cfg, prefix: "prism-queue." + cfg.Namespace + ".",
		queue: &stream{conn: conn, name: "prism-queue-" + cfg.Namespace},
	}
	d.depths.init(d)
	d.ledger = newLedger(conn, cfg)
	d.clock = newClock(func(ctx context.Context) error {
		_, err := d.queue.info(ctx, "", 0)
		return err
	}, conn.epoch, time.Now)
	d.queue.clock = d.clock
	holders := &stream{conn: conn, name: "prism-holders-" + cfg.Namespace}
	if err := d.ensure(ctx, holders); err != nil {
		return nil, wrap("open durability", cfg.Namespace, err)
	}
	var err error
	if d.hub, err = openHub(ctx, d, holders); err != nil {
		return nil, wrap("open durability", cfg.Namespace, err)
	}
	return d, nil
}

// ensure looks at the server and makes what is missing.
func (d *Durability) ensure(ctx context.Context, holders *stream) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c := d.conn
	w := c.watch.open()
	defer w.close()
	js, err := jetstream.New(c.nc)
	if err != nil {
		return err
	}
	if err := c.supported(ctx, js); err != nil {
		return w.instead(ctx, err)
	}
	storage := jetstream.FileStorage
	if d.cfg.Storage == StorageMemory {
		storage = jetstream.MemoryStorage
	}
	common := jetstream.StreamConfig{
		Storage: storage, Replicas: d.cfg.Replicas, AllowDirect: true,
		MaxMsgsPerSubject: 1, MaxMsgs: -1, MaxBytes: -1, MaxMsgSize: -1, MaxConsumers: -1,
	}
	queue, held, ledger := common, common, common
	queue.Name, queue.Subjects = d.queue.name, []string{d.prefix + ">"}
	queue.Description = "Prism: messages that wait for identities of namespace " + d.cfg.Namespace
	queue.Discard, queue.DiscardNewPerSubject, queue.MaxAge = jetstream.DiscardNew, true, d.cfg.MaxAge+overdue
	held.Name, held.Subjects = holders.name, []string{"prism-holders." + d.cfg.Namespace + ".>"}
	held.Description, held.AllowMsgTTL = "Prism: who reads these messages in namespace "+d.cfg.Namespace, true
	ledger.Name, ledger.Subjects = d.ledger.stream.name, []string{d.ledger.prefix + ">"}
	ledger.Description, ledger.MaxAge = "Prism: the multicasts of namespace "+d.cfg.Namespace, d.cfg.Retention
	for _, each := range []struct {
		stream *stream
		want   jetstream.StreamConfig
	}{{d.queue, queue}, {holders, held}, {d.ledger.stream, ledger}} {
		if err := each.stream.reconcile(ctx, js, each.want); err != nil {
			return w.instead(ctx, err)
		}
	}
	_, err = d.clock.now(ctx)
	return err
}

// Close ends all subscriptions, and gives back what they hold. Closing again does nothing. The connection stays open.
func (d *Durability) Close() { d.hub.close() }

// Ping implements multicastregistry.Pinger: it asks the stream's leader.
func (d *Durability) Ping(ctx context.Context) error {
	_, err := d.queue.info(ctx, "", 0)
	return wrap("ping", "", err)
}

// MaxPayload returns the largest payload that is sure to pass: see Conn.MaxPayload.
func (d *Durability) MaxPayload() int { return min(d.conn.MaxPayload(), d.cfg.MaxBytes) }

// name returns the token that stands for a topic in subjects: the identity's, with another namespace's name in front.
func (d *Durability) name(topic string) (string, error) {
	namespace, _, ok := multicastregistry.ParseTopic(topic)
	if !ok || !namespaceForm.MatchString(namespace) {
		return "", fmt.Errorf("%w: %q is not a topic", multicastregistry.ErrInvalid, topic)
	}
	encoded := topic[len("prism.")+len(namespace)+1:]
	if namespace == d.cfg.Namespace {
		return encoded, nil
	}
	return namespace + "~" + encoded, nil
}

// token returns the token that stands for an id.
func token(id string) string {
	if id == "" {
		return "~"
	}
	return multicastregistry.EncodeName(id)
}

// subject returns the subject of a message.
func (d *Durability) subject(name string, m *multicastregistry.Message) string {
	return d.prefix + name + "." + token(m.ID) + "." + strconv.Itoa(len(m.Payload))
}

// parts returns what a message's subject, without the prefix, is made of.
func parts(subject string) (name, id string, size int, ok bool) {
	name, rest, _ := strings.Cut(subject, ".")
	id, text, _ := strings.Cut(rest, ".")
	size, err := strconv.Atoi(text)
	return name, id, size, err == nil && name != "" && id != ""
}

// Enqueue implements multicastregistry.Durability.
func (d *Durability) Enqueue(ctx context.Context, messages []multicastregistry.Message) []error {
	results := make([]error, len(messages))
	if len(messages) == 0 {
		return results
	}
	e := enqueue{d: d, messages: messages, results: results, names: make([]string, len(messages))}
	if err := ctx.Err(); err != nil {
		e.failAll(err)
		return results
	}
	for i := range messages {
		m := &messages[i]
		var err error
		if e.names[i], err = d.name(m.Topic); err == nil && len(m.Payload) > d.MaxPayload() {
			err = fmt.Errorf("%w: %d bytes, %d are the limit", multicastregistry.ErrTooLarge, len(m.Payload), d.MaxPayload())
		}
		if err != nil {
			results[i] = wrap("store for", m.Identity, err)
		}
	}
	e.run(ctx)
	return results
}

// enqueue is one call of Enqueue.
type enqueue struct {
	d        *Durability
	messages []multicastregistry.Message
	names    []string
	results  []error

	stored map[string]uint64 // the last sequence for each name
}

func (e *enqueue) failAll(err error) {
	for i := range e.messages {
		e.results[i] = wrap("store for", e.messages[i].Identity, err)
	}
}

func (e *enqueue) run(ctx context.Context) {
	fits, full, err := e.d.depths.admit(ctx, e)
	if err != nil {
		for _, i := range append(fits, full...) {
			e.results[i] = wrap("store for", e.messages[i].Identity, err)
		}
		return
	}
	e.stored = make(map[string]uint64)
	e.publish(ctx, fits)
	e.refuse(ctx, full)
	e.d.hub.tell(e.stored)
}

// publish stores messages. It tries those again that are no repeats after all.
func (e *enqueue) publish(ctx context.Context, which []int) {
	for len(which) > 0 {
		var headers headerWriter
		seqs, errs := e.d.queue.publish(ctx, len(which), func(n int, m *nats.Msg) error {
			message := &e.messages[which[n]]
			m.Subject, m.Header, m.Data = e.d.subject(e.names[which[n]], message), headers.of(message), message.Payload
			return nil
		})
		var repeats []int
		for n, i := range which {
			message := &e.messages[i]
			switch {
			case errs[n] == nil:
				e.d.depths.settled(e.names[i], len(message.Payload), true)
				e.stored[e.names[i]] = max(e.stored[e.names[i]], seqs[n])
				continue
			case isStoredAlready(errs[n]):
				repeats = append(repeats, i)
				continue
			default:
				e.results[i] = stored(message.Identity, errs[n])
			}
			e.d.depths.settled(e.names[i], len(message.Payload), isUnanswered(errs[n]))
		}
		which = e.confirm(ctx, repeats)
	}
}

// confirm looks at what the server took for repeats, and returns what is to be stored after all: because the first one is too
// old, or because a replicated stream was about to store it and may not have done so.
func (e *enqueue) confirm(ctx context.Context, repeats []int) (again []int) {
	if len(repeats) == 0 {
		return nil
	}
	d := e.d
	cutoff, err := d.cutoff(ctx)
	if err == nil && cutoff == 0 && d.queue.replicas.Load() == 1 {
		for _, i := range repeats {
			d.depths.settled(e.names[i], len(e.messages[i].Payload), false)
		}
		return nil
	}
	errs := make([]error, len(repeats))
	var old []streamMsg
	for n := range errs {
		errs[n] = err
	}
	if err == nil {
		errs = d.queue.ask(ctx, len(repeats), func(n int) []byte {
			i := repeats[n]
			return fmt.Appendf(nil, `{"last_by_subj":%q}`, d.subject(e.names[i], &e.messages[i]))
		}, func(_ int, m streamMsg, ok bool) error {
			if ok && m.seq >= cutoff {
				return nil
			}
			if ok {
				old = append(old, m)
			}
			return errConflict
		})
	}
	d.removeOld(ctx, old)
	for n, i := range repeats {
		if errors.Is(errs[n], errConflict) {
			again = append(again, i)
			continue
		}
		if errs[n] != nil {
			e.results[i] = stored(e.messages[i].Identity, errs[n])
		}
		d.depths.settled(e.names[i], len(e.messages[i].Payload), false)
	}
	if len(again) == 0 {
		return nil
	}
	if err := wait(ctx, repeatPause); err != nil {
		for _, i := range again {
			e.results[i] = stored(e.messages[i].Identity, &unansweredError{cause: err})
			d.depths.settled(e.names[i], len(e.messages[i].Payload), true)
		}
		return nil
	}
	return again
}

// refuse answers for messages that do not fit: those that are stored already are as good as stored now.
func (e *enqueue) refuse(ctx context.Context, full []int) {
	if len(full) == 0 {
		return
	}
	errs := e.d.queue.counts(ctx, len(full), func(n int) string {
		return e.d.subject(e.names[full[n]], &e.messages[full[n]])
	}, func(_ int, info streamInfo) error {
		if len(info.State.Subjects) > 0 {
			return nil
		}
		return multicastregistry.ErrQueueFull
	})
	for n, i := range full {
		e.results[i] = wrap("store for", e.messages[i].Identity, errs[n])
	}
}

func isStoredAlready(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == codeStoreFailed && strings.Contains(api.Description, storedAlready)
}

func isUnanswered(err error) bool {
	var unanswered *unansweredError
	return errors.As(err, &unanswered)
}

// stored is the result of a message that was to be stored: with an error, nobody may take one that may be stored for one that
// is not.
func stored(identity string, err error) error {
	if isUnanswered(err) {
		return &unknownError{op: "store for", identity: identity, cause: err}
	}
	return wrap("store for", identity, err)
}

// ackAddress and parseAckAddress name one stored message: the sequence, and the subject without the prefix.
func (d *Durability) ackAddress(m *streamMsg) string {
	return strconv.FormatUint(m.seq, 36) + " " + m.subject[len(d.prefix):]
}

func (d *Durability) parseAckAddress(address string) (subject string, seq uint64, ok bool) {
	number, subject, _ := strings.Cut(address, " ")
	seq, err := strconv.ParseUint(number, 36, 64)
	if err != nil || seq == 0 || strings.Count(subject, ".") != 2 || len(subject) > 4<<10 {
		return "", 0, false
	}
	for i := range len(subject) {
		switch c := subject[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-', c == '=', c == '~', c == '.':
		default:
			return "", 0, false
		}
	}
	return subject, seq, isSubject(subject)
}

// isSubject tells whether a text is made of the parts of a message's subject.
func isSubject(subject string) bool {
	name, id, _, ok := parts(subject)
	return ok && name != "" && id != ""
}

// Ack implements multicastregistry.Durability. Addresses that name nothing reach nothing.
func (d *Durability) Ack(ctx context.Context, acks []multicastregistry.Ack) []error {
	results := make([]error, len(acks))
	type named struct {
		i       int
		subject string
		seq     uint64
	}
	valid := make([]named, 0, len(acks))
	for i, ack := range acks {
		if subject, seq, ok := d.parseAckAddress(ack.To); ok {
			valid = append(valid, named{i, subject, seq})
		} else {
			results[i] = wrap("ack stored message for", ack.Identity, ctx.Err())
		}
	}
	_, errs := d.queue.purge(ctx, len(valid), func(n int) (string, uint64) { return d.prefix + valid[n].subject, valid[n].seq + 1 })
	for n, each := range valid {
		if errs[n] == nil {
			d.hub.acked(each.subject, each.seq)
		}
		results[each.i] = wrap("ack stored message for", acks[each.i].Identity, errs[n])
	}
	return results
}

// Purge implements multicastregistry.Durability. What another process has read already may still be yielded there.
func (d *Durability) Purge(ctx context.Context, topic string) (int, error) {
	_, identity, _ := multicastregistry.ParseTopic(topic)
	name, err := d.name(topic)
	if err != nil {
		return 0, wrap("purge", identity, err)
	}
	err = d.makeRoom(ctx, []string{name}) // what is too old does not count
	if err != nil {
		return 0, wrap("purge", identity, err)
	}
	purged, errs := d.queue.purge(ctx, 1, func(int) (string, uint64) { return d.prefix + name + ".>", 0 })
	if errs[0] != nil {
		return 0, wrap("purge", identity, errs[0])
	}
	d.depths.forget(name)
	d.hub.purged(name)
	return purged[0], nil
}

// Consume implements multicastregistry.Durability.
func (d *Durability) Consume(ctx context.Context, topics ...string) (multicastregistry.Subscription, error) {
	c := d.hub.consumer()
	if c == nil {
		return nil, wrap("consume", "", nats.ErrConnectionClosed)
	}
	if err := c.Add(ctx, topics...); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}
