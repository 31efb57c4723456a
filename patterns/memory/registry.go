package memory

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// sweepAtOnce is how many expired identities one write sweeps, so that no write is slow because many expired.
const sweepAtOnce = 16

// RegistryConfig is the configuration of a Registry.
type RegistryConfig struct {
	// MaxIdentities is the most live identities; another one is ErrQuota. Default (0): no limit.
	MaxIdentities int `yaml:"max_identities"`
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
	cfg RegistryConfig

	mu       sync.RWMutex
	entries  map[string]*entry // live ones, and expired ones that are not swept yet
	leases   leases            // entries that expire, the earliest first
	revision multicastregistry.Revision
}

var (
	_ multicastregistry.Registry = (*Registry)(nil)
	_ multicastregistry.Header   = (*Registry)(nil)
	_ multicastregistry.Counter  = (*Registry)(nil)
	_ multicastregistry.Pinger   = (*Registry)(nil)
)

// NewRegistry returns an empty registry.
func NewRegistry(cfg RegistryConfig) *Registry {
	return &Registry{cfg: cfg, entries: make(map[string]*entry)}
}

// entry is the place of one identity. The identity it points at is never changed, only replaced, so that a reader may use
// it without the lock.
type entry struct {
	identity *multicastregistry.Identity
	place    int // in leases; -1 when it never expires
}

func expired(i *multicastregistry.Identity, now time.Time) bool {
	return i.TTL != multicastregistry.NoExpiry && !now.Before(i.ExpiresAt)
}

// Put implements multicastregistry.Registry.
func (r *Registry) Put(
	ctx context.Context, identity multicastregistry.Identity, mode multicastregistry.PutMode,
) (multicastregistry.Identity, error) {
	if err := ctx.Err(); err != nil {
		return multicastregistry.Identity{}, err
	}
	metadata, err := multicastregistry.CopyMetadata(identity.Metadata)
	if err != nil {
		return multicastregistry.Identity{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.sweep(now, sweepAtOnce)
	e := r.entries[identity.ID]
	live := e != nil && !expired(e.identity, now)
	if live && mode == multicastregistry.Create {
		return multicastregistry.Identity{}, fmt.Errorf("memory: put %q: %w", identity.ID, multicastregistry.ErrAlreadyExists)
	}
	if limit := r.cfg.MaxIdentities; !live && limit > 0 && r.count(now) >= limit {
		return multicastregistry.Identity{}, fmt.Errorf("memory: put %q: %w: %d identities are the limit",
			identity.ID, multicastregistry.ErrQuota, limit)
	}
	if e = r.entries[identity.ID]; e == nil { // counting may have swept it
		e = &entry{place: -1}
		r.entries[identity.ID] = e
	}
	r.revision++
	identity.RegisteredAt = now
	identity.ExpiresAt = expiry(now, identity.TTL)
	identity.Revision = r.revision
	stored := identity
	stored.Metadata = metadata
	e.identity = &stored
	r.reschedule(e)
	return identity, nil
}

func expiry(now time.Time, ttl time.Duration) time.Time {
	if ttl == multicastregistry.NoExpiry {
		return time.Time{}
	}
	return now.Add(ttl)
}

// Renew implements multicastregistry.Registry.
func (r *Registry) Renew(ctx context.Context, id string, ttl time.Duration) (multicastregistry.Lease, error) {
	if err := ctx.Err(); err != nil {
		return multicastregistry.Lease{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	e := r.entries[id]
	if e == nil || expired(e.identity, now) {
		return multicastregistry.Lease{}, fmt.Errorf("memory: renew %q: %w", id, multicastregistry.ErrNotFound)
	}
	renewed := *e.identity
	if ttl != 0 {
		renewed.TTL = ttl
	}
	renewed.ExpiresAt = expiry(now, renewed.TTL)
	e.identity = &renewed
	r.reschedule(e)
	return multicastregistry.Lease{TTL: renewed.TTL, ExpiresAt: renewed.ExpiresAt}, nil
}

// Delete implements multicastregistry.Registry.
func (r *Registry) Delete(ctx context.Context, id string) (existed bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.sweep(now, sweepAtOnce)
	e := r.entries[id]
	if e == nil {
		return false, nil
	}
	existed = !expired(e.identity, now)
	r.drop(e)
	return existed, nil
}

// Scan implements multicastregistry.Registry. It works on a snapshot, taken when the range begins, and filters exactly.
func (r *Registry) Scan(ctx context.Context, match *filter.Expr) iter.Seq2[multicastregistry.Identity, error] {
	return func(yield func(multicastregistry.Identity, error) bool) {
		for i, stored := range r.snapshot() {
			// Reading clock and context for each identity would cost more than the filter does.
			if i%64 == 0 && ctx.Err() != nil {
				yield(multicastregistry.Identity{}, ctx.Err())
				return
			}
			if !filter.Match(match, stored.Metadata) || expired(stored, time.Now()) {
				continue
			}
			identity := *stored
			identity.Metadata, _ = multicastregistry.CopyMetadata(stored.Metadata) // it was checked when it was stored
			if !yield(identity, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(multicastregistry.Identity{}, err)
		}
	}
}

func (r *Registry) snapshot() []*multicastregistry.Identity {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make([]*multicastregistry.Identity, 0, len(r.entries))
	for _, e := range r.entries {
		all = append(all, e.identity)
	}
	return all
}

// Head implements multicastregistry.Header.
func (r *Registry) Head(ctx context.Context) (multicastregistry.Revision, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.revision, ctx.Err()
}

// Count implements multicastregistry.Counter.
func (r *Registry) Count(ctx context.Context) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count(time.Now()), ctx.Err()
}

// Ping implements multicastregistry.Pinger: this process is there.
func (r *Registry) Ping(ctx context.Context) error { return ctx.Err() }
