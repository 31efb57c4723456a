package nats

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

var (
	_ multicastregistry.Registry = (*Registry)(nil)
	_ multicastregistry.Header   = (*Registry)(nil)
	_ multicastregistry.Prober   = (*Registry)(nil)
	_ multicastregistry.Changes  = (*Registry)(nil)
	_ multicastregistry.Clock    = (*Registry)(nil)
	_ multicastregistry.Pinger   = (*Registry)(nil)
)

const (
	// requiredLevel is JetStream's API level with a TTL for each message: nats-server 2.11.
	requiredLevel = 1
	// lag is how long the server keeps the marker in the place of a record: long enough to be told of in the change feed, and far
	// more than clocks differ by.
	lag = 10 * time.Second
	// keptFor is how long the server keeps a record after its lease has ended, or for its TTL, if that is longer: after an outage of
	// up to then it is there to be prolonged.
	keptFor = 24 * time.Hour
	// retell is how old a change is at most that is told of again by whoever puts another one in its place.
	retell = 5 * time.Second
)

// Registry keeps the identities of one namespace in a JetStream key-value bucket of that namespace's.
//
// # Records
//
// The bucket is "prism-<namespace>". Each identity has one key, its name as multicastregistry.EncodeName spells it, with one
// record: TTL, when it was registered, when it expires, the revision of its registration, and the metadata in wire form. A
// revision is the sequence of the message in the bucket's stream, so every change has one, and they have no gaps.
//
// Everything but a first create reads the record and writes it back under the condition that it is still the last one of its
// key, again and again until that holds or the context ends: two round trips. So a renewal never brings back what a replace or a
// delete took away. It does cost the metadata: a heartbeat rewrites the whole record.
//
// # Leases
//
// Times are the clock of the server that leads the bucket, as clock estimates it; the record has them to the microsecond, and
// whoever reads it finds it absent from that instant on. The server itself removes the record a day or the TTL later, whichever
// is more, and what is left in its place after an end or a delete seconds later, by its TTL for each message: no record of a
// finite lease lasts for ever, even if no Prism runs any more. That removal is by sequence and says nothing. The server's own
// markers for what has expired are not used: they are written without a condition, and can overwrite a registration that was
// acknowledged an instant before.
//
// # Outages
//
// When no process has reached the servers for OutageAfter, or none ran, whoever does so next records an outage: what had not
// ended when it began lasts for at least its TTL after it ended, if the outage took no longer than the servers keep records. It
// is logged as a warning, told in the change feed as an Extend, and shows in ExpiresAt. It is found out by a mark about once a
// second in a stream of its own, "prism-seen-<namespace>"; see keeper, and outages for how one is counted in.
//
// # Change log
//
// A bucket with one record for each key forgets what came before. So whoever changes it appends the change to a second, bounded
// stream, "prism-changes-<namespace>", behind the acknowledgement and without waiting; see Changes.
type Registry struct {
	losses atomic.Uint64 // names the latest loss of data that was seen; 0: none

	conn   *Conn
	cfg    RegistryConfig
	prefix string // of a key's subject
	bucket *stream
	log    *stream
	told   string // the log's subject
	seen   *stream
	mark   string // the subject of marks
	clock  *clock
	keeper *keeper
	lag    time.Duration
	kept   time.Duration
}

// OpenRegistry opens the bucket and the change log of a namespace, and makes them where they are absent. ErrUnsupported when
// the servers have no JetStream, or one older than that of nats-server 2.11; other errors when the streams exist with another
// configuration. The connection stays the caller's; until it is closed, the registry looks for outages.
func OpenRegistry(ctx context.Context, conn *Conn, cfg RegistryConfig) (*Registry, error) {
	return openRegistry(ctx, conn, cfg, lag, keptFor)
}

func openRegistry(ctx context.Context, conn *Conn, cfg RegistryConfig, lag, kept time.Duration) (*Registry, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	bucket := "prism-" + cfg.Namespace
	r := &Registry{
		conn: conn, cfg: cfg, lag: lag, kept: kept,
		prefix: "$KV." + bucket + ".",
		bucket: &stream{conn: conn, name: "KV_" + bucket},
		log:    &stream{conn: conn, name: "prism-changes-" + cfg.Namespace},
		told:   "prism-changes." + cfg.Namespace,
		seen:   &stream{conn: conn, name: "prism-seen-" + cfg.Namespace},
		mark:   "prism-seen." + cfg.Namespace,
	}
	r.keeper = newKeeper(r, cfg.OutageAfter)
	r.clock = newClock(func(ctx context.Context) error {
		_, err := r.bucket.info(ctx, "", 0)
		return err
	}, conn.epoch, time.Now)
	r.bucket.clock = r.clock
	if err := r.ensure(ctx); err != nil {
		return nil, wrap("open registry", cfg.Namespace, err)
	}
	if err := r.keeper.start(ctx); err != nil {
		return nil, wrap("open registry", cfg.Namespace, err)
	}
	return r, nil
}

// ensure looks at the server and makes what is missing.
func (r *Registry) ensure(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w := r.conn.watch.open()
	defer w.close()
	js, err := jetstream.New(r.conn.nc)
	if err != nil {
		return err
	}
	if err := r.conn.supported(ctx, js); err != nil {
		return w.instead(ctx, err)
	}
	storage := jetstream.FileStorage
	if r.cfg.Storage == StorageMemory {
		storage = jetstream.MemoryStorage
	}
	if err := r.bucket.ensure(ctx, js, jetstream.StreamConfig{
		Name: r.bucket.name, Subjects: []string{r.prefix + ">"}, Storage: storage, Replicas: r.cfg.Replicas,
		Description:       "Prism: the identities of namespace " + r.cfg.Namespace,
		MaxMsgsPerSubject: 1, MaxMsgs: -1, MaxBytes: -1, MaxMsgSize: -1, MaxConsumers: -1, Discard: jetstream.DiscardNew,
		AllowRollup: true, DenyDelete: true, AllowDirect: true, AllowMsgTTL: true,
	}); err != nil {
		return w.instead(ctx, err)
	}
	if err := r.log.ensure(ctx, js, jetstream.StreamConfig{
		Name: r.log.name, Subjects: []string{r.told}, Storage: storage, Replicas: r.cfg.Replicas,
		Description:       "Prism: the latest changes of namespace " + r.cfg.Namespace,
		MaxMsgsPerSubject: -1, MaxMsgs: int64(r.cfg.ChangeLog), MaxAge: changeLogAge, MaxBytes: -1, MaxMsgSize: -1, MaxConsumers: -1,
		AllowDirect: true,
	}); err != nil {
		return w.instead(ctx, err)
	}
	if err := r.seen.ensure(ctx, js, jetstream.StreamConfig{
		Name: r.seen.name, Subjects: []string{r.mark}, Storage: storage, Replicas: r.cfg.Replicas,
		Description:       "Prism: when somebody last reached namespace " + r.cfg.Namespace,
		MaxMsgsPerSubject: 1, MaxMsgs: -1, MaxBytes: -1, MaxMsgSize: -1, MaxConsumers: -1, AllowDirect: true,
	}); err != nil {
		return w.instead(ctx, err)
	}
	_, err = r.clock.now(ctx)
	return err
}

// supported returns an error that says what the server lacks.
func (c *Conn) supported(ctx context.Context, js jetstream.JetStream) error {
	limited, cancel := c.within(ctx)
	defer cancel()
	info, err := js.AccountInfo(limited)
	if err != nil {
		return c.ended(ctx, err)
	}
	if info.API.Level < requiredLevel {
		return fmt.Errorf("%w: nats-server %s has no TTL for each message, 2.11 or newer has",
			multicastregistry.ErrUnsupported, c.nc.ConnectedServerVersion())
	}
	return nil
}

// instead returns a refusal during the call in place of the silence that follows from it.
func (w *watch) instead(ctx context.Context, err error) error {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	if len(w.refused) > 0 && ctx.Err() == nil && errors.Is(err, multicastregistry.ErrUnavailable) {
		return w.refused[len(w.refused)-1]
	}
	return err
}

// errConflict says that a key's last message is another one than expected, or that one is on its way.
var errConflict = errors.New("another change came first")

// write publishes a message to a key under the condition that the last one of the key has the given sequence, 0 for none, and
// returns the new one's. A TTL of 0 is none.
func (r *Registry) write(
	ctx context.Context, name string, expected uint64, ttl time.Duration, header nats.Header, data []byte,
) (seq uint64, err error) {
	if header == nil {
		header = nats.Header{}
	}
	if ttl > 0 {
		header[headerTTL] = []string{strconv.FormatInt(int64((ttl+time.Second-1)/time.Second), 10)}
	}
	return r.bucket.write(ctx, r.prefix+name, expected, header, data)
}

// write publishes a message under the condition that the last one of its subject has the given sequence, 0 for none, and returns
// the new one's. errConflict when that does not hold.
func (s *stream) write(
	ctx context.Context, subject string, expected uint64, header nats.Header, data []byte,
) (seq uint64, err error) {
	header[headerExpected] = []string{strconv.FormatUint(expected, 10)}
	reply, err := s.request(ctx, subject, header, data)
	if err != nil {
		return 0, err
	}
	if seq, err = parsePubAck(reply); isConflict(err) {
		return 0, errConflict
	}
	return seq, err
}

// codeInProcess is what a replicated stream answers while another change of the key is under way.
const codeInProcess = 10_164

// store writes a record. The caller tells of it.
func (r *Registry) store(ctx context.Context, name string, expected uint64, next *record) (uint64, error) {
	data := next.append(nil)
	if most := r.conn.MaxPayload(); len(data) > most {
		return 0, invalid("metadata", "takes %d bytes, this server takes %d", len(data), most)
	}
	ttl := time.Duration(0)
	if next.TTL > 0 {
		ttl = next.ttl()
		if kept := max(ttl, r.kept); kept <= math.MaxInt64-ttl {
			ttl += kept
		}
	}
	return r.write(ctx, name, expected, ttl, nil, data)
}

// tell appends a change to the log, without waiting. Before it goes the change in whose place this one came, if that is so young
// that its maker may have been cut off before it told of it: once it is overwritten, nobody else can. Readers pass over what
// they know. What is lost all the same is found in the bucket, or noticed, by whoever reads the log.
func (r *Registry) tell(over *last, e logEntry) {
	if over.ours && r.clock.estimate().Sub(over.at) < retell {
		r.append(&over.entry)
	}
	r.append(&e)
}

func (r *Registry) append(e *logEntry) {
	_ = r.conn.nc.Publish(r.told, e.append(nil))
}

// last is a key's last message: what it says, and what it changed. That of an absent key has sequence 0.
type last struct {
	state
	entry logEntry
	ours  bool      // there is such an entry
	at    time.Time // when it was stored
}

// current returns a key's last message.
func (r *Registry) current(ctx context.Context, name string) (l last, err error) {
	m, ok, err := r.bucket.last(ctx, r.prefix+name)
	if err != nil || !ok {
		return l, err
	}
	if l.state, err = parseState(m); err != nil {
		return l, err
	}
	if l.at = m.at; l.at.IsZero() {
		l.at = r.clock.estimate()
	}
	l.entry, l.ours, err = entryOf(name, m)
	return l, err
}

// over tells whether there is no lease that lasts. Before it takes somebody for absent whom an outage may have prolonged, it
// looks.
func (r *Registry) over(ctx context.Context, s *state, now time.Time) (bool, error) {
	if !s.present {
		return true, nil
	}
	if !s.record.over(now, r.keeper.known()) {
		return false, nil
	}
	known, err := r.keeper.current(ctx)
	if err != nil {
		return false, err
	}
	return s.record.over(now, known), nil
}

// expire puts the end of a lease in the place of its record, and returns what is the key's last message then.
func (r *Registry) expire(ctx context.Context, name string, over *last) (last, error) {
	seq, err := r.write(ctx, name, over.seq, r.lag, nats.Header{
		headerOperation: {operationDelete}, headerReason: {reasonExpired},
	}, nil)
	if err != nil {
		return last{}, err
	}
	r.tell(over, logEntry{Seq: seq, Kind: entryExpire, Name: name})
	return last{state: state{seq: seq, expired: true}}, nil
}

// Put implements multicastregistry.Registry.
func (r *Registry) Put(
	ctx context.Context, identity multicastregistry.Identity, mode multicastregistry.PutMode,
) (multicastregistry.Identity, error) {
	stored, err := r.put(ctx, identity, mode)
	if err != nil {
		return multicastregistry.Identity{}, wrap("put", identity.ID, err)
	}
	return stored, nil
}

func (r *Registry) put(
	ctx context.Context, identity multicastregistry.Identity, mode multicastregistry.PutMode,
) (stored multicastregistry.Identity, err error) {
	metadata, err := multicastregistry.CopyMetadata(identity.Metadata)
	if err != nil {
		return stored, err
	}
	next := record{Metadata: string(multicastregistry.AppendMetadata(nil, metadata))}
	name := multicastregistry.EncodeName(identity.ID)
	known := mode == multicastregistry.Create // as a rule a create finds nothing
	over := last{}
	for attempt := 0; ; attempt++ {
		if !known {
			if over, err = r.current(ctx, name); err != nil {
				return stored, err
			}
		}
		now, err := r.clock.now(ctx)
		if err != nil {
			return stored, err
		}
		ended, err := r.over(ctx, &over.state, now)
		switch {
		case err != nil:
			return stored, err
		case !ended && mode == multicastregistry.Create:
			return stored, multicastregistry.ErrAlreadyExists
		case ended && over.present:
			over, err = r.expire(ctx, name, &over)
		}
		if err == nil {
			if before := instant(over.record.Registered); now.Before(before) {
				now = before // readings of the clock may differ a little
			}
			next.Registered = now.UnixMicro()
			next.begin(identity.TTL, now)
			var seq uint64
			if seq, err = r.store(ctx, name, over.seq, &next); err == nil {
				r.tell(&over, logEntry{Seq: seq, Kind: entryPut, Name: name, Record: &next})
				stored = next.identity(identity.ID, seq, nil)
				stored.Metadata, stored.Encoded = metadata, ""
				return stored, nil
			}
		}
		if !errors.Is(err, errConflict) {
			return stored, err
		}
		known = false
		if err := giveWay(ctx, attempt); err != nil {
			return stored, err
		}
	}
}

// giveWay waits a little where changes of one key keep coming in each other's way.
func giveWay(ctx context.Context, attempt int) error {
	if attempt < 2 {
		return ctx.Err()
	}
	return wait(ctx, rand.N(time.Millisecond<<min(attempt-2, 5)))
}

// wait returns after a while, or with the context's error.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Renew implements multicastregistry.Registry.
func (r *Registry) Renew(ctx context.Context, id string, ttl time.Duration) (multicastregistry.Lease, error) {
	lease, err := r.renew(ctx, multicastregistry.EncodeName(id), ttl)
	return lease, wrap("renew", id, err)
}

func (r *Registry) renew(ctx context.Context, name string, ttl time.Duration) (lease multicastregistry.Lease, err error) {
	for attempt := 0; ; attempt++ {
		over, err := r.current(ctx, name)
		if err != nil {
			return lease, err
		}
		now, err := r.clock.now(ctx)
		if err != nil {
			return lease, err
		}
		switch ended, err := r.over(ctx, &over.state, now); {
		case err != nil:
			return lease, err
		case ended:
			return lease, multicastregistry.ErrNotFound
		}
		next := over.record
		next.Revision = over.registration()
		if ttl == 0 {
			next.begin(over.record.ttl(), now)
		} else {
			next.begin(ttl, now)
		}
		seq, err := r.store(ctx, name, over.seq, &next)
		switch {
		case err == nil:
			r.tell(&over, logEntry{Seq: seq, Kind: entryRenew, Name: name, Record: next.told()})
			lease = next.lease(nil)
			lease.Of = multicastregistry.Revision(next.Revision)
			return lease, nil
		case !errors.Is(err, errConflict):
			return lease, err
		}
		if err := giveWay(ctx, attempt); err != nil {
			return lease, err
		}
	}
}

// Delete implements multicastregistry.Registry.
func (r *Registry) Delete(ctx context.Context, id string, only multicastregistry.Revision) (existed bool, err error) {
	existed, err = r.remove(ctx, multicastregistry.EncodeName(id), only)
	return existed, wrap("delete", id, err)
}

func (r *Registry) remove(ctx context.Context, name string, only multicastregistry.Revision) (existed bool, err error) {
	for attempt := 0; ; attempt++ {
		over, err := r.current(ctx, name)
		if err != nil {
			return false, err
		}
		now, err := r.clock.now(ctx)
		if err != nil {
			return false, err
		}
		ended, err := r.over(ctx, &over.state, now)
		if err != nil || ended || only != 0 && uint64(only) != over.registration() {
			return false, err
		}
		seq, err := r.write(ctx, name, over.seq, r.lag, nats.Header{headerOperation: {operationDelete}}, nil)
		switch {
		case err == nil:
			r.tell(&over, logEntry{Seq: seq, Kind: entryDelete, Name: name})
			return true, nil
		case !errors.Is(err, errConflict):
			return false, err
		}
		if err := giveWay(ctx, attempt); err != nil {
			return false, err
		}
	}
}

// Live implements multicastregistry.Prober. Hundreds of records come with one request from a bucket of one replica; another one
// is asked for each, through its leader, and all at once.
func (r *Registry) Live(ctx context.Context, ids []string) ([]bool, error) {
	states := make(map[string]state, len(ids))
	subjects := make([]string, 0, len(ids))
	for _, id := range ids {
		if multicastregistry.CheckIdentity(id) != nil {
			continue // nothing is registered under such a name
		}
		subject := r.prefix + multicastregistry.EncodeName(id)
		if _, asked := states[subject]; !asked {
			states[subject] = state{}
			subjects = append(subjects, subject)
		}
	}
	err := r.bucket.lastOf(ctx, subjects, func(m streamMsg) error {
		s, err := parseState(m)
		s.record.Metadata = ""
		states[m.subject] = s
		return err
	})
	if err != nil {
		return nil, wrap("probe", "", err)
	}
	now, err := r.clock.now(ctx)
	if err != nil {
		return nil, wrap("probe", "", err)
	}
	live := make([]bool, len(ids))
	for i, id := range ids {
		s := states[r.prefix+multicastregistry.EncodeName(id)]
		ended, err := r.over(ctx, &s, now)
		if err != nil {
			return nil, wrap("probe", "", err)
		}
		live[i] = !ended
	}
	return live, nil
}

// Head implements multicastregistry.Header: it is the last sequence of the bucket's stream, as its leader knows it.
func (r *Registry) Head(ctx context.Context) (multicastregistry.Revision, error) {
	info, err := r.bucket.info(ctx, "", 0)
	return multicastregistry.Revision(info.State.LastSeq), wrap("head", "", err)
}

// Ping implements multicastregistry.Pinger: it asks the bucket's leader.
func (r *Registry) Ping(ctx context.Context) error {
	_, err := r.bucket.info(ctx, "", 0)
	return wrap("ping", "", err)
}

// Now implements multicastregistry.Clock.
func (r *Registry) Now(ctx context.Context) (time.Time, error) { return r.clock.now(ctx) }

// name returns the key of a message of the bucket.
func (r *Registry) name(m streamMsg) string { return strings.TrimPrefix(m.subject, r.prefix) }
