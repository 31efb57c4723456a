package multicastregistry

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Coordinator runs the multicast registry of one namespace over its slots. It keeps no identities: what it holds are the
// multicasts that wait for acks right now. All methods may be called concurrently.
type Coordinator struct {
	cfg    Config
	slots  Slots // what is asked of them is traced, if it is
	bare   Slots // the same without
	tracer Tracer

	head    Header  // nil when the registry has no revisions
	counter Counter // nil when the registry cannot count
	prober  Prober  // nil when the registry cannot look identities up
	finder  Finder  // nil when the registry cannot evaluate filters exactly
	querier Querier // answers queries itself, or by scans
	watcher Watcher // nil when the registry cannot be watched
	copied  Copy    // nil when the registry is no copy of another one
	fielder Fielder // nil when the registry does not know its identities' fields

	follower Follower // nil when the registry is no copy that tells how far it is

	backlog Backlog // nil when nothing is stored, or nobody knows how much

	ledger   Ledger // nil when multicasts are not kept; so is the recaller then
	recaller Recaller

	inbox   Inbox
	mu      sync.Mutex
	closed  bool
	flights map[uint64]*flight // multicasts under way, by number
	ids     ids
	flown   atomic.Uint64 // number of the latest flight

	stop    context.CancelFunc
	running sync.WaitGroup
}

// Open returns a coordinator over slots. It opens the inbox that acks come back through, so it needs the messaging backend.
// The context covers the call; Close ends the coordinator.
func Open(ctx context.Context, cfg Config, slots Slots) (*Coordinator, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if slots.Registry == nil || slots.Messaging == nil {
		return nil, invalid("backend_slots", "registry and messaging are required")
	}
	inbox, err := slots.Messaging.Inbox(ctx)
	if err != nil {
		return nil, fmt.Errorf("namespace %s: open the inbox for acks: %w", cfg.Namespace, err)
	}
	c := &Coordinator{
		cfg: cfg, slots: slots, bare: slots, tracer: slots.Tracer, inbox: inbox, flights: make(map[uint64]*flight),
	}
	c.head, _ = slots.Registry.(Header)
	c.counter, _ = slots.Registry.(Counter)
	c.prober, _ = slots.Registry.(Prober)
	c.finder, _ = slots.Registry.(Finder)
	c.copied, _ = slots.Registry.(Copy)
	c.follower, _ = slots.Registry.(Follower)
	c.fielder, _ = slots.Registry.(Fielder)
	c.watcher, _ = slots.Registry.(Watcher)
	c.backlog, _ = slots.Durability.(Backlog)
	var ok bool
	if c.querier, ok = slots.Registry.(Querier); !ok {
		c.querier = scanner{slots.Registry}
	}
	if recaller, ok := slots.Durability.(Recaller); ok {
		if c.ledger, ok = slots.Durability.(Ledger); ok {
			c.recaller = recaller
		}
	}
	if c.tracer != nil {
		c.trace()
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	c.running.Go(func() { c.readInbox(life) })
	return c, nil
}

// Close ends the coordinator: multicasts in flight get no more acks. Subscribers must be closed before, and the slots'
// backends after it. Closing again does nothing.
func (c *Coordinator) Close() error {
	c.stop()
	err := c.inbox.Close()
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.running.Wait()
	return err
}

// later runs what may take longer than its caller waits for it. Close waits; what comes after it is waited for here.
func (c *Coordinator) later(run func()) {
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.running.Go(run)
	}
	c.mu.Unlock()
	if closed {
		run()
	}
}

// Config returns the configuration with its defaults.
func (c *Coordinator) Config() Config { return c.cfg }

// Registration is what Register takes.
type Registration struct {
	// ID is the name of the identity.
	ID string
	// Metadata is any JSON object, see CopyMetadata for what is accepted.
	Metadata map[string]any
	// TTL is the length of the lease, rounded up to the millisecond. 0 means the namespace's default; NoExpiry is explicit.
	TTL time.Duration
	// Mode says what to do when a live identity of that name exists.
	Mode PutMode
}

// Register stores an identity and starts its lease. It returns the identity as stored, ErrAlreadyExists when a live one
// exists and the mode is Create, or an InvalidError.
func (c *Coordinator) Register(ctx context.Context, r Registration) (Identity, error) {
	if err := CheckIdentity(r.ID); err != nil {
		return Identity{}, err
	}
	ttl, err := checkTTL(r.TTL, c.cfg.TTLDefault)
	if err != nil {
		return Identity{}, err
	}
	metadata, err := CopyMetadata(r.Metadata)
	if err != nil {
		return Identity{}, err
	}
	if size := metadataSize(metadata); size > c.cfg.MaxMetadata {
		return Identity{}, invalid("metadata", "is %d bytes large; this namespace allows %d", size, c.cfg.MaxMetadata)
	}
	return c.slots.Registry.Put(ctx, Identity{ID: r.ID, Metadata: metadata, TTL: ttl}, r.Mode)
}

// Heartbeat renews the lease of a live identity, with the TTL it has when ttl is 0. ErrNotFound when it is not live.
func (c *Coordinator) Heartbeat(ctx context.Context, id string, ttl time.Duration) (Lease, error) {
	if err := CheckIdentity(id); err != nil {
		return Lease{}, err
	}
	ttl, err := checkTTL(ttl, 0)
	if err != nil {
		return Lease{}, err
	}
	return c.slots.Registry.Renew(ctx, id, ttl)
}

// Unregister removes an identity, with all that is stored for it, and tells whether a live one existed. With a revision
// above 0 it removes only the registration that Register returned that Revision for; when another program has taken the
// identity over since, nothing is touched.
func (c *Coordinator) Unregister(ctx context.Context, id string, only Revision) (existed bool, err error) {
	if err := CheckIdentity(id); err != nil {
		return false, err
	}
	existed, err = c.slots.Registry.Delete(ctx, id, only)
	if existed {
		c.unregistered(id)
	}
	if err != nil || c.slots.Durability == nil || only != 0 && !existed {
		return existed, err
	}
	if _, err := c.slots.Durability.Purge(ctx, Topic(c.cfg.Namespace, id)); err != nil {
		return existed, fmt.Errorf("unregistered %q, but its stored messages remain: %w", id, err)
	}
	return existed, nil
}

// checkTTL rounds a TTL up to the millisecond, puts the default for 0, and refuses what can be no lease.
func checkTTL(ttl, ifZero time.Duration) (time.Duration, error) {
	switch {
	case ttl == 0:
		return ifZero, nil
	case ttl == NoExpiry:
		return ttl, nil
	case ttl < 0:
		return 0, invalid("ttl", "must not be negative")
	case ttl > maxTTL:
		return 0, invalid("ttl", "must be at most %s; ask for no expiry instead", maxTTL)
	}
	return (ttl + time.Millisecond - 1).Truncate(time.Millisecond), nil
}

// maxTTL keeps expiry times within what every backend can hold.
const maxTTL = 100 * 365 * 24 * time.Hour

// Count returns the number of live identities; ok is false when the registry cannot count.
func (c *Coordinator) Count(ctx context.Context) (n int, ok bool, err error) {
	if c.counter == nil {
		return 0, false, nil
	}
	n, err = c.counter.Count(ctx)
	return n, true, err
}

// Backlog returns how many messages are stored for all identities together; ok is false when nothing is stored, or the slot
// cannot tell.
func (c *Coordinator) Backlog(ctx context.Context) (messages int, ok bool, err error) {
	if c.backlog == nil {
		return 0, false, nil
	}
	messages, err = c.backlog.Backlog(ctx)
	return messages, true, err
}

// Followed tells how far the copy has followed that answers reads; ok is false when none does.
func (c *Coordinator) Followed() (f Followed, ok bool) {
	if c.follower == nil {
		return Followed{}, false
	}
	return c.follower.Followed()
}
