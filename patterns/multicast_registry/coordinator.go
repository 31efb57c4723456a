package multicastregistry

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// Page sizes of Enumerate.
const (
	DefaultPageSize = 100
	MaxPageSize     = 10_000
	// maxPageBytes ends a page early, so that it fits into a message of gRPC's default size, 4 MiB.
	maxPageBytes = 2 << 20
	// identityBytes is what an identity takes besides its name and metadata, about.
	identityBytes = 64
)

// Coordinator runs the multicast registry of one namespace over its slots. It keeps no identities: what it holds are the
// multicasts that wait for acks right now. All methods may be called concurrently.
type Coordinator struct {
	cfg   Config
	slots Slots

	head    Header  // nil when the registry has no revisions
	counter Counter // nil when the registry cannot count
	prober  Prober  // nil when the registry cannot look identities up
	finder  Finder  // nil when the registry cannot evaluate filters exactly

	ledger   Ledger // nil when multicasts are not kept; so is the recaller then
	recaller Recaller

	inbox   Inbox
	mu      sync.Mutex
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
	c := &Coordinator{cfg: cfg, slots: slots, inbox: inbox, flights: make(map[uint64]*flight)}
	c.head, _ = slots.Registry.(Header)
	c.counter, _ = slots.Registry.(Counter)
	c.prober, _ = slots.Registry.(Prober)
	c.finder, _ = slots.Registry.(Finder)
	if recaller, ok := slots.Durability.(Recaller); ok {
		if c.ledger, ok = slots.Durability.(Ledger); ok {
			c.recaller = recaller
		}
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
	c.running.Wait()
	return err
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

// Query is what Enumerate takes.
type Query struct {
	// Filter selects by metadata; nil matches every identity.
	Filter *filter.Expr
	// PageSize is the most identities to return: up to MaxPageSize; 0 means DefaultPageSize. A page of more than about 2 MiB
	// ends early.
	PageSize int
	// PageToken is the NextPageToken of the page before. Empty: the first page.
	PageToken string
}

// Page is one page of matching identities.
type Page struct {
	// Identities in byte order of their names.
	Identities []Identity
	// NextPageToken leads to the next page. Empty: this was the last one.
	NextPageToken string
	// Total counts the matches on all pages, at the time of this one.
	Total int
	// Revision is what the page reflects at the least. 0 when the backend keeps no revisions.
	Revision Revision
}

// Enumerate returns a page of the live identities that match. Walking the pages neither skips nor repeats an identity
// that stays registered meanwhile.
func (c *Coordinator) Enumerate(ctx context.Context, q Query) (Page, error) {
	size := cmp.Or(q.PageSize, DefaultPageSize)
	if size < 0 || size > MaxPageSize {
		return Page{}, invalid("page_size", "must be between 1 and %d", MaxPageSize)
	}
	after, err := parsePageToken(q.PageToken)
	if err != nil {
		return Page{}, err
	}
	matches, revision, err := c.matches(ctx, q.Filter)
	if err != nil {
		return Page{}, err
	}
	page := Page{Total: len(matches), Revision: revision}
	start, found := slices.BinarySearchFunc(matches, after, func(m Identity, id string) int { return cmp.Compare(m.ID, id) })
	if found {
		start++
	}
	rest := matches[start:]
	if n := fitting(rest, size); n < len(rest) {
		rest = rest[:n]
		page.NextPageToken = pageToken(rest[n-1].ID)
	}
	page.Identities = rest
	return page, nil
}

// fitting returns how many identities make up a page: one at least, if there is one.
func fitting(identities []Identity, most int) int {
	bytes := 0
	for i := range min(len(identities), most) {
		bytes += identityBytes + len(identities[i].ID) + metadataSize(identities[i].Metadata)
		if bytes > maxPageBytes && i > 0 {
			return i
		}
	}
	return min(len(identities), most)
}

// matches returns every live identity that matches, ordered by name, and the revision they reflect at the least.
func (c *Coordinator) matches(ctx context.Context, match *filter.Expr) ([]Identity, Revision, error) {
	revision, err := c.revision(ctx)
	if err != nil {
		return nil, 0, err
	}
	var found []Identity
	for identity, err := range c.slots.Registry.Scan(ctx, match) {
		if err != nil {
			return nil, 0, err
		}
		if filter.Match(match, identity.Metadata) {
			found = append(found, identity)
		}
	}
	slices.SortFunc(found, func(a, b Identity) int { return cmp.Compare(a.ID, b.ID) })
	return found, revision, nil
}

// names is matches for those who need no more than the names.
func (c *Coordinator) names(ctx context.Context, match *filter.Expr) (found []string, revision Revision, err error) {
	if revision, err = c.revision(ctx); err != nil {
		return nil, 0, err
	}
	if c.finder == nil {
		for identity, err := range c.slots.Registry.Scan(ctx, match) {
			if err != nil {
				return nil, 0, err
			}
			if filter.Match(match, identity.Metadata) {
				found = append(found, identity.ID)
			}
		}
	} else {
		for name, err := range c.finder.Find(ctx, match) {
			if err != nil {
				return nil, 0, err
			}
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found, revision, nil
}

// revision is the one that what is read from now on reflects at the least; 0 when the registry has none.
func (c *Coordinator) revision(ctx context.Context) (Revision, error) {
	if c.head == nil {
		return 0, nil
	}
	return c.head.Head(ctx)
}

// A page token is the last identity of the page before, so that it stays good whatever is registered meanwhile.
func pageToken(last string) string { return base64.RawURLEncoding.EncodeToString([]byte(last)) }

func parsePageToken(token string) (after string, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) > MaxIdentityBytes {
		return "", invalid("page_token", "is not a token that this server handed out")
	}
	return string(raw), nil
}

// Count returns the number of live identities; ok is false when the registry cannot count.
func (c *Coordinator) Count(ctx context.Context) (n int, ok bool, err error) {
	if c.counter == nil {
		return 0, false, nil
	}
	n, err = c.counter.Count(ctx)
	return n, true, err
}

// Ping asks every slot that can be asked whether its backend answers, and joins the errors.
func (c *Coordinator) Ping(ctx context.Context) error {
	var errs []error
	for name, slot := range map[string]any{
		"registry": c.slots.Registry, "messaging": c.slots.Messaging, "durability": c.slots.Durability,
	} {
		if p, ok := slot.(Pinger); ok {
			if err := p.Ping(ctx); err != nil {
				errs = append(errs, fmt.Errorf("namespace %s: %s: %w", c.cfg.Namespace, name, err))
			}
		}
	}
	return errors.Join(errs...)
}
