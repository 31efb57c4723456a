package redis

import (
	"context"
	_ "embed"
	"hash/fnv"
	"iter"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

var (
	_ SweptRegistry = (*Registry)(nil)
	_ SweptRegistry = (*Sharded)(nil)

	//go:embed lua/raise.lua
	raiseSource string
	raiseScript = rueidis.NewLuaScript(changing(raiseSource))
)

// shardsAtOnce is how many shards are asked at the same time.
const shardsAtOnce = 16

// SweptRegistry is what OpenRegistry returns: a registry with all abilities that Redis gives it.
type SweptRegistry interface {
	multicastregistry.Registry
	multicastregistry.Header
	multicastregistry.Counter
	multicastregistry.Prober
	multicastregistry.Changes
	multicastregistry.Pinger
	// Sweep removes what has expired until the context ends; see Registry.Sweep.
	Sweep(ctx context.Context) error
}

// OpenRegistry returns the registry of a namespace: a Registry, or a Sharded one when the configuration asks for more than
// one shard. An InvalidError names a field that does not fit. Nothing is asked of Redis yet. Somebody must run Sweep, in this
// process or another.
func OpenRegistry(conn *Conn, cfg RegistryConfig) (SweptRegistry, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Shards > 1 {
		return NewSharded(conn, cfg), nil
	}
	return NewRegistry(conn, cfg), nil
}

// Sharded is a registry whose identities are spread over several groups of keys, so that a Cluster's nodes share the work.
//
// An identity belongs to the shard whose number is the 64-bit FNV-1a hash of its name, modulo the number of shards. Both are
// as persistent as the data: with another number of shards the namespace must begin empty.
//
// The limit of identities is divided among the shards, rounded up. So it is reached when a shard is full: with many more
// identities than shards a little before, and with few it may be exceeded by less than one for each shard. Each shard's log
// keeps ChangeLog changes.
//
// A revision is the shard's own times the number of shards, plus the shard's number: unique, and growing for each identity.
// What happens after something else, through one process or after having seen the head, has the higher revision of the two.
type Sharded struct {
	shards []*Registry
	clock  *atomic.Uint64 // the highest revision of any shard that was seen
}

// NewSharded returns the registry of a namespace that is kept in cfg.Shards groups of keys. The configuration must be valid.
// Somebody must run Sweep, in this process or another.
func NewSharded(conn *Conn, cfg RegistryConfig) *Sharded {
	cfg = cfg.withDefaults()
	n := cfg.Shards
	cfg.MaxIdentities = (cfg.MaxIdentities + n - 1) / n
	s := &Sharded{shards: make([]*Registry, n), clock: new(atomic.Uint64)}
	for i := range s.shards {
		s.shards[i] = newShard(conn, cfg, i, n)
		s.shards[i].clock, s.shards[i].sweeps, s.shards[i].outages = s.clock, s.shards[0].sweeps, s.shards[0].outages
	}
	return s
}

// of returns the number of the shard that an identity belongs to.
func (s *Sharded) of(id string) int {
	h := fnv.New64a()
	h.Write([]byte(id)) // never fails
	return int(h.Sum64() % uint64(len(s.shards)))
}

// outer returns a shard's revision as it is seen from outside.
func (s *Sharded) outer(shard int, revision multicastregistry.Revision) multicastregistry.Revision {
	return revision*multicastregistry.Revision(len(s.shards)) + multicastregistry.Revision(shard)
}

// level returns the highest revision that is seen from outside while no shard is beyond the given one.
func (s *Sharded) level(revision multicastregistry.Revision) multicastregistry.Revision {
	if revision == 0 {
		return 0
	}
	return s.outer(len(s.shards)-1, revision)
}

// Put implements multicastregistry.Registry.
func (s *Sharded) Put(
	ctx context.Context, identity multicastregistry.Identity, mode multicastregistry.PutMode,
) (multicastregistry.Identity, error) {
	shard := s.of(identity.ID)
	stored, err := s.shards[shard].Put(ctx, identity, mode)
	if err == nil {
		stored.Revision = s.outer(shard, stored.Revision)
	}
	return stored, err
}

// Renew implements multicastregistry.Registry.
func (s *Sharded) Renew(
	ctx context.Context, id string, ttl time.Duration,
) (multicastregistry.Lease, error) {
	shard := s.of(id)
	lease, err := s.shards[shard].Renew(ctx, id, ttl)
	if err == nil {
		lease.Of = s.outer(shard, lease.Of)
	}
	return lease, err
}

// Delete implements multicastregistry.Registry.
func (s *Sharded) Delete(ctx context.Context, id string, only multicastregistry.Revision) (existed bool, err error) {
	shard, n := s.of(id), multicastregistry.Revision(len(s.shards))
	if only != 0 && (int(only%n) != shard || only < n) { // no registration of that name ever had this revision
		return false, s.shards[shard].conn.wrap(ctx, "delete", id, ctx.Err())
	}
	return s.shards[shard].Delete(ctx, id, only/n)
}

// Scan implements multicastregistry.Registry, shard by shard.
func (s *Sharded) Scan(ctx context.Context, match *filter.Expr) iter.Seq2[multicastregistry.Identity, error] {
	return func(yield func(multicastregistry.Identity, error) bool) {
		for shard, r := range s.shards {
			for identity, err := range r.Scan(ctx, match) {
				identity.Revision = s.outer(shard, identity.Revision)
				if err != nil {
					identity = multicastregistry.Identity{}
				}
				if !yield(identity, err) || err != nil {
					return
				}
			}
		}
	}
}

// Head implements multicastregistry.Header. It brings all shards up to the highest revision among them, so that every change
// to come is beyond the head, and what the head covers is what a change feed has when it is Synced at that revision.
func (s *Sharded) Head(ctx context.Context) (multicastregistry.Revision, error) {
	heads := make([]multicastregistry.Revision, len(s.shards))
	err := s.each(func(i int, r *Registry) (err error) {
		heads[i], err = r.Head(ctx)
		return err
	})
	if err != nil {
		return 0, err
	}
	return s.raise(ctx, heads)
}

// raise brings all shards up to the highest of their revisions, and returns that as it is seen from outside.
func (s *Sharded) raise(ctx context.Context, at []multicastregistry.Revision) (multicastregistry.Revision, error) {
	highest := multicastregistry.Revision(0)
	for _, revision := range at {
		highest = max(highest, revision)
	}
	err := s.each(func(i int, r *Registry) error {
		if at[i] == highest {
			return nil
		}
		return r.raise(ctx, highest)
	})
	return s.level(highest), err
}

// raise brings the revision up to the given one.
func (r *Registry) raise(ctx context.Context, to multicastregistry.Revision) error {
	floor := strconv.FormatUint(uint64(to-1), 10)
	_, err := r.conn.run(ctx, r.conn.write, raiseScript, []string{r.keys.leases, r.keys.head, r.keys.log},
		[]string{epoch(), floor, r.maxlen, r.trim, r.after, ""})
	return r.conn.wrap(ctx, "head", "", err)
}

// Count implements multicastregistry.Counter.
func (s *Sharded) Count(ctx context.Context) (int, error) {
	var total atomic.Int64
	err := s.each(func(_ int, r *Registry) error {
		n, err := r.Count(ctx)
		total.Add(int64(n))
		return err
	})
	if err != nil {
		return 0, err
	}
	return int(total.Load()), nil
}

// Ping implements multicastregistry.Pinger.
func (s *Sharded) Ping(ctx context.Context) error { return s.shards[0].Ping(ctx) }

// Sweep sweeps all shards until the context ends; see Registry.Sweep. It returns nil.
func (s *Sharded) Sweep(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	for _, r := range s.shards {
		all.Go(func() { _ = r.Sweep(ctx) }) // it returns nil
	}
	return nil
}

// each calls a function for each shard, some at a time, and returns one of the errors.
func (s *Sharded) each(call func(shard int, r *Registry) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	work := func() {
		for i := int(next.Add(1)) - 1; i < len(s.shards) && failed.Load() == nil; i = int(next.Add(1)) - 1 {
			if err := call(i, s.shards[i]); err != nil {
				failed.CompareAndSwap(nil, &err)
			}
		}
	}
	for range min(len(s.shards), shardsAtOnce) - 1 {
		all.Go(work)
	}
	work()
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}
