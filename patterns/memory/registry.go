package memory

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

var (
	_ multicastregistry.Registry = (*Registry)(nil)
	_ multicastregistry.Header   = (*Registry)(nil)
	_ multicastregistry.Counter  = (*Registry)(nil)
	_ multicastregistry.Prober   = (*Registry)(nil)
	_ multicastregistry.Finder   = (*Registry)(nil)
	_ multicastregistry.Pinger   = (*Registry)(nil)
)

// scanCheck is how many identities a scan passes over between two looks at its context.
const scanCheck = 256

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

// Registry keeps identities in a map. The zero value is not usable; see NewRegistry.
type Registry struct {
	limit    int // 0: none
	revision atomic.Uint64

	// mu guards which entries there are and when they are due. A renewal replaces an entry's identity holding it shared.
	mu      sync.RWMutex
	entries map[string]*entry // live ones, and expired ones that are not swept yet
	list    []*entry          // the same, for scans to copy at once
	leases  leases            // entries that expire
}

// entry is the place of one identity, until it is deleted or swept. The identity it points at is never changed, only
// replaced, so that a reader may use it without the lock.
type entry struct {
	identity atomic.Pointer[multicastregistry.Identity] // nil once the entry is dropped
	listed   int                                        // place in list
	place    int                                        // in leases; -1 when it is not there
	due      time.Time                                  // when a sweep looks at it: when the lease ends, or before
}

// NewRegistry returns an empty registry.
func NewRegistry(cfg RegistryConfig) *Registry {
	return &Registry{limit: cfg.MaxIdentities, entries: make(map[string]*entry)}
}

// Put implements multicastregistry.Registry.
func (r *Registry) Put(
	ctx context.Context, identity multicastregistry.Identity, mode multicastregistry.PutMode,
) (multicastregistry.Identity, error) {
	metadata, err := multicastregistry.CopyMetadata(identity.Metadata)
	next := &multicastregistry.Identity{ID: identity.ID, Metadata: metadata}
	for done := false; err == nil && !done; {
		if err = ctx.Err(); err == nil {
			done, err = r.put(next, identity.TTL, mode)
		}
	}
	if err != nil {
		return multicastregistry.Identity{}, fmt.Errorf("memory: put %q: %w", identity.ID, err)
	}
	return handOut(next), nil
}

// put is one attempt to store next. It is not done when there may be room as soon as more has been swept.
func (r *Registry) put(
	next *multicastregistry.Identity, ttl time.Duration, mode multicastregistry.PutMode,
) (done bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	more := r.sweep(now)
	e := r.entries[next.ID]
	switch {
	case e != nil && mode == multicastregistry.Create && live(e.identity.Load(), now):
		return true, multicastregistry.ErrAlreadyExists
	case e == nil && r.limit > 0 && len(r.list) >= r.limit:
		if more {
			return false, nil
		}
		return true, multicastregistry.ErrQuota
	case e == nil:
		e = &entry{listed: len(r.list), place: -1}
		r.entries[next.ID] = e
		r.list = append(r.list, e)
	}
	next.RegisteredAt = now
	begin(next, ttl, now)
	next.Revision = multicastregistry.Revision(r.revision.Add(1))
	e.identity.Store(next)
	r.leases.schedule(e, next.ExpiresAt)
	return true, nil
}

// Renew implements multicastregistry.Registry. As a rule it holds the lock shared, next to scans and other renewals.
func (r *Registry) Renew(ctx context.Context, id string, ttl time.Duration) (multicastregistry.Lease, error) {
	lease, err := multicastregistry.Lease{}, ctx.Err()
	if err == nil {
		r.mu.RLock()
		var done bool
		lease, done, err = r.renew(id, ttl, true)
		r.mu.RUnlock()
		if !done {
			r.mu.Lock()
			lease, _, err = r.renew(id, ttl, false)
			r.mu.Unlock()
		}
	}
	if err != nil {
		return multicastregistry.Lease{}, fmt.Errorf("memory: renew %q: %w", id, err)
	}
	return lease, nil
}

// renew restarts a lease. With the lock shared it is not done when the heap would have to change, or a sweep is due.
func (r *Registry) renew(id string, ttl time.Duration, shared bool) (lease multicastregistry.Lease, done bool, err error) {
	now := time.Now()
	if shared && r.leases.due(now) {
		return lease, false, nil
	}
	r.sweep(now)
	for e := r.entries[id]; e != nil; {
		old := e.identity.Load()
		now = time.Now() // after the load: a renewal that is overtaken must not take time back
		if !live(old, now) {
			break
		}
		next := *old
		if ttl == 0 {
			begin(&next, old.TTL, now)
		} else {
			begin(&next, ttl, now)
		}
		if shared && !e.fits(next.ExpiresAt) {
			return lease, false, nil
		}
		if !e.identity.CompareAndSwap(old, &next) {
			continue // another renewal came first
		}
		r.revision.Add(1)
		if !shared {
			r.leases.schedule(e, next.ExpiresAt)
		}
		return multicastregistry.Lease{TTL: next.TTL, ExpiresAt: next.ExpiresAt}, true, nil
	}
	return lease, true, multicastregistry.ErrNotFound
}

// Delete implements multicastregistry.Registry.
func (r *Registry) Delete(ctx context.Context, id string, only multicastregistry.Revision) (existed bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, fmt.Errorf("memory: delete %q: %w", id, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.sweep(now)
	e := r.entries[id]
	if e == nil {
		return false, nil
	}
	current := e.identity.Load()
	existed = live(current, now)
	if existed && only != 0 && current.Revision != only {
		return false, nil
	}
	r.drop(e)
	return existed, nil
}

// Scan implements multicastregistry.Registry, and filters exactly. What it looks through is the list of a moment; each
// identity is read, checked and copied when its turn comes.
func (r *Registry) Scan(ctx context.Context, match *filter.Expr) iter.Seq2[multicastregistry.Identity, error] {
	return func(yield func(multicastregistry.Identity, error) bool) {
		err := r.walk(ctx, match, func(i *multicastregistry.Identity) bool { return yield(handOut(i), nil) })
		if err != nil {
			yield(multicastregistry.Identity{}, err)
		}
	}
}

// Find implements multicastregistry.Finder.
func (r *Registry) Find(ctx context.Context, match *filter.Expr) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		err := r.walk(ctx, match, func(i *multicastregistry.Identity) bool { return yield(i.ID, nil) })
		if err != nil {
			yield("", err)
		}
	}
}

// walk calls visit for every live match until that returns false.
func (r *Registry) walk(ctx context.Context, match *filter.Expr, visit func(*multicastregistry.Identity) bool) error {
	r.mu.RLock()
	list := slices.Clone(r.list)
	r.mu.RUnlock()
	err := ctx.Err()
	for i := 0; i < len(list) && err == nil; i++ {
		current := list[i].identity.Load()
		if current == nil || !filter.Match(match, current.Metadata) || !live(current, time.Now()) {
			if i%scanCheck == 0 {
				err = ctx.Err()
			}
			continue
		}
		if err = ctx.Err(); err == nil && !visit(current) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("memory: scan: %w", err)
	}
	return nil
}

// Head implements multicastregistry.Header. Puts, renewals, deletions and swept expiries are changes.
func (r *Registry) Head(ctx context.Context) (multicastregistry.Revision, error) {
	return multicastregistry.Revision(r.revision.Load()), ctx.Err()
}

// Count implements multicastregistry.Counter. It sweeps what has expired before it counts, a little at a time.
func (r *Registry) Count(ctx context.Context) (int, error) {
	for {
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("memory: count: %w", err)
		}
		r.mu.RLock()
		n, due := len(r.list), r.leases.due(time.Now())
		r.mu.RUnlock()
		if !due {
			return n, nil
		}
		r.mu.Lock()
		r.sweep(time.Now())
		r.mu.Unlock()
	}
}

// Live implements multicastregistry.Prober.
func (r *Registry) Live(ctx context.Context, ids []string) ([]bool, error) {
	found := make([]bool, 0, len(ids))
	for chunk := range slices.Chunk(ids, scanCheck) {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("memory: live: %w", err)
		}
		r.mu.RLock()
		now := time.Now()
		for _, id := range chunk {
			e := r.entries[id]
			found = append(found, e != nil && live(e.identity.Load(), now))
		}
		r.mu.RUnlock()
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("memory: live: %w", err)
	}
	return found, nil
}

// Ping implements multicastregistry.Pinger: memory is never away.
func (r *Registry) Ping(ctx context.Context) error { return ctx.Err() }

// live tells whether a lease lasts. It ends at ExpiresAt: at that instant the identity is absent.
func live(i *multicastregistry.Identity, now time.Time) bool {
	return i != nil && (i.ExpiresAt.IsZero() || now.Before(i.ExpiresAt))
}

// begin starts a lease.
func begin(i *multicastregistry.Identity, ttl time.Duration, now time.Time) {
	i.TTL, i.ExpiresAt = ttl, time.Time{}
	if ttl != multicastregistry.NoExpiry {
		i.ExpiresAt = now.Add(ttl)
	}
}

// handOut returns an identity that shares nothing with what is stored.
func handOut(i *multicastregistry.Identity) multicastregistry.Identity {
	out := *i
	out.Metadata = copyObject(i.Metadata)
	return out
}

func copyObject(object map[string]any) map[string]any {
	out := make(map[string]any, len(object))
	for key, value := range object {
		out[key] = copyValue(value)
	}
	return out
}

func copyValue(value any) any {
	switch v := value.(type) {
	case map[string]any:
		return copyObject(v)
	case []any:
		out := make([]any, len(v))
		for i, inner := range v {
			out[i] = copyValue(inner)
		}
		return out
	default:
		return value
	}
}
