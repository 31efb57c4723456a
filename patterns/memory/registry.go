package memory

import (
	"context"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/index"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/watch"
)

var (
	_ multicastregistry.Registry = (*Registry)(nil)
	_ multicastregistry.Header   = (*Registry)(nil)
	_ multicastregistry.Counter  = (*Registry)(nil)
	_ multicastregistry.Prober   = (*Registry)(nil)
	_ multicastregistry.Finder   = (*Registry)(nil)
	_ multicastregistry.Querier  = (*Registry)(nil)
	_ multicastregistry.Pinger   = (*Registry)(nil)
	_ multicastregistry.Watcher  = (*Registry)(nil)
)

// sweepAtOnce is how many expired identities one write removes, so that it takes few steps however many leases end at once. An
// expired identity is absent whether it was swept or not.
const sweepAtOnce = 32

// RegistryConfig is the configuration of a Registry.
type RegistryConfig struct {
	// MaxIdentities is the most live identities; another one is ErrQuota. Default (0): no limit.
	MaxIdentities int
}

// Validate returns an InvalidError that names the field with an impossible value.
func (c RegistryConfig) Validate() error { return atLeastZero("max_identities", c.MaxIdentities) }

func atLeastZero(field string, n int) error {
	if n < 0 {
		return &multicastregistry.InvalidError{Field: field, Problem: "must not be negative"}
	}
	return nil
}

// Registry keeps identities in an index. The zero value is not usable; see NewRegistry.
type Registry struct {
	limit int // 0: none
	began time.Time
	index *index.Index

	sweeper sweeper

	hub      *watch.Hub // locked by whoever changes something
	revision multicastregistry.Revision
	head     atomic.Uint64 // revision, for who reads
}

// NewRegistry returns an empty registry.
func NewRegistry(cfg RegistryConfig) *Registry {
	r := &Registry{limit: cfg.MaxIdentities, began: time.Now(), index: index.New()}
	r.hub = watch.New(watched{r}, watch.Config{})
	return r
}

// unlock ends what r.hub.Lock began.
func (r *Registry) unlock() {
	r.head.Store(uint64(r.revision))
	r.hub.Unlock()
}

// now is the registry's clock, which does not follow when the computer's is set.
func (r *Registry) now() time.Time { return r.began.Add(time.Since(r.began)) }

// Put implements multicastregistry.Registry.
func (r *Registry) Put(
	ctx context.Context, identity multicastregistry.Identity, mode multicastregistry.PutMode,
) (multicastregistry.Identity, error) {
	metadata, err := multicastregistry.CopyMetadata(identity.Metadata)
	next := multicastregistry.Identity{ID: identity.ID, Metadata: metadata, TTL: identity.TTL}
	if err == nil {
		next.Encoded = string(multicastregistry.AppendMetadata(nil, metadata))
		err = ctx.Err()
	}
	if err == nil {
		next, err = r.put(next, mode)
	}
	if err != nil {
		return multicastregistry.Identity{}, fmt.Errorf("memory: put %q: %w", identity.ID, err)
	}
	next.Encoded = ""
	return next, nil
}

func (r *Registry) put(
	next multicastregistry.Identity, mode multicastregistry.PutMode,
) (multicastregistry.Identity, error) {
	r.hub.Lock()
	defer r.unlock()
	now := r.now()
	r.sweep(now)
	current, there := r.index.Get(next.ID)
	there = there && live(&current, now)
	switch {
	case there && mode == multicastregistry.Create:
		return next, multicastregistry.ErrAlreadyExists
	case !there && r.limit > 0 && r.index.Len(now) >= r.limit:
		return next, multicastregistry.ErrQuota
	}
	r.revision++
	next.RegisteredAt, next.ExpiresAt, next.Revision = now, ends(now, next.TTL), r.revision
	after := next
	after.Metadata = nil
	if before, replaced := r.index.Put(next); replaced {
		r.hub.Append(r.revision, &before, &after, 0)
	} else {
		r.hub.Append(r.revision, nil, &after, 0)
	}
	return next, nil
}

// Renew implements multicastregistry.Registry.
func (r *Registry) Renew(ctx context.Context, id string, ttl time.Duration) (multicastregistry.Lease, error) {
	lease, err := multicastregistry.Lease{}, ctx.Err()
	if err == nil {
		lease, err = r.renew(id, ttl)
	}
	if err != nil {
		return multicastregistry.Lease{}, fmt.Errorf("memory: renew %q: %w", id, err)
	}
	return lease, nil
}

func (r *Registry) renew(id string, ttl time.Duration) (lease multicastregistry.Lease, err error) {
	r.hub.Lock()
	defer r.unlock()
	now := r.now()
	r.sweep(now)
	current, ok := r.index.Get(id)
	if !ok || !live(&current, now) {
		return lease, multicastregistry.ErrNotFound
	}
	if ttl == 0 {
		ttl = current.TTL
	}
	lease = multicastregistry.Lease{TTL: ttl, ExpiresAt: ends(now, ttl), Of: current.Revision}
	r.revision++
	r.index.Renew(id, lease.TTL, lease.ExpiresAt)
	r.hub.Advance(r.revision, "")
	return lease, nil
}

// Delete implements multicastregistry.Registry.
func (r *Registry) Delete(ctx context.Context, id string, only multicastregistry.Revision) (existed bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("memory: delete %q: %w", id, err)
	}
	r.hub.Lock()
	defer r.unlock()
	now := r.now()
	r.sweep(now)
	current, ok := r.index.Get(id)
	if !ok || only != 0 && current.Revision != only {
		return false, nil
	}
	r.revision++
	r.index.Remove(id)
	if existed = live(&current, now); existed {
		r.hub.Append(r.revision, &current, nil, multicastregistry.LeftUnregistered)
	} else {
		r.hub.Append(r.revision, &current, nil, multicastregistry.LeftExpired)
	}
	return existed, nil
}

// sweep removes some of what has expired, which is a change each, and tells whether there may be more. The hub is locked.
func (r *Registry) sweep(now time.Time) (more bool) {
	expired, more := r.index.Sweep(now, sweepAtOnce)
	for i := range expired {
		r.revision++
		r.hub.Append(r.revision, &expired[i], nil, multicastregistry.LeftExpired)
	}
	return more
}

// Scan implements multicastregistry.Registry, and filters exactly. Identities come in order of their names.
func (r *Registry) Scan(ctx context.Context, match *filter.Expr) iter.Seq2[multicastregistry.Identity, error] {
	return func(yield func(multicastregistry.Identity, error) bool) {
		for identity, err := range r.index.Scan(ctx, r.now(), match) {
			if err == nil && !live(&identity, r.now()) {
				continue
			}
			if err == nil {
				identity.Metadata, err = multicastregistry.DecodeMetadata(identity.Encoded)
				identity.Encoded = ""
			}
			if err != nil {
				yield(multicastregistry.Identity{}, fmt.Errorf("memory: scan: %w", err))
				return
			}
			if !yield(identity, nil) {
				return
			}
		}
	}
}

// Find implements multicastregistry.Finder. Names come in order.
func (r *Registry) Find(ctx context.Context, match *filter.Expr) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		names, err := r.index.Find(ctx, r.now(), match)
		if err != nil {
			yield("", fmt.Errorf("memory: find: %w", err))
			return
		}
		for _, name := range names {
			if !yield(name, nil) {
				return
			}
		}
	}
}

// Query implements multicastregistry.Querier.
func (r *Registry) Query(ctx context.Context, q multicastregistry.Selection) (multicastregistry.Selected, error) {
	revision, err := r.Head(ctx)
	if err != nil {
		return multicastregistry.Selected{}, err
	}
	found, err := r.index.Query(ctx, r.now(), q)
	if err != nil {
		return found, fmt.Errorf("memory: query: %w", err)
	}
	found.Revision = revision
	return found, nil
}

// Head implements multicastregistry.Header. Puts, renewals, deletions and swept expiries are changes.
func (r *Registry) Head(ctx context.Context) (multicastregistry.Revision, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("memory: head: %w", err)
	}
	return multicastregistry.Revision(r.head.Load()), nil
}

// Count implements multicastregistry.Counter. It sweeps what has expired before it counts, a little at a time.
func (r *Registry) Count(ctx context.Context) (int, error) {
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("memory: count: %w", err)
		}
		r.hub.Lock()
		more = r.sweep(r.now())
		r.unlock()
	}
	return r.index.Len(r.now()), nil
}

// Live implements multicastregistry.Prober.
func (r *Registry) Live(ctx context.Context, ids []string) ([]bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("memory: live: %w", err)
	}
	return r.index.Live(r.now(), ids), nil
}

// Ping implements multicastregistry.Pinger: memory is never away.
func (r *Registry) Ping(ctx context.Context) error { return ctx.Err() }

// live tells whether a lease lasts. It ends at ExpiresAt: at that instant the identity is absent.
func live(i *multicastregistry.Identity, now time.Time) bool {
	return i.ExpiresAt.IsZero() || now.Before(i.ExpiresAt)
}

// ends returns when a lease ends that begins now.
func ends(now time.Time, ttl time.Duration) time.Time {
	if ttl == multicastregistry.NoExpiry {
		return time.Time{}
	}
	return now.Add(ttl)
}

var _ multicastregistry.Fielder = (*Registry)(nil)

// Fields implements multicastregistry.Fielder.
func (r *Registry) Fields() (multicastregistry.Fields, time.Time) { return r.index, r.now() }
