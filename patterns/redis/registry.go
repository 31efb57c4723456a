package redis

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

var (
	_ multicastregistry.Registry = (*Registry)(nil)
	_ multicastregistry.Header   = (*Registry)(nil)
	_ multicastregistry.Counter  = (*Registry)(nil)
	_ multicastregistry.Pinger   = (*Registry)(nil)
)

const (
	// DefaultChangeLog is how many changes the log keeps.
	DefaultChangeLog = 65536
	// EnumerateNative evaluates filters in Redis, in small batches.
	EnumerateNative = "native"
	// EnumerateScan fetches all identities and evaluates filters here.
	EnumerateScan = "scan"

	// MaxShards is the most shards: few enough that several change feeds, which wait on a connection for each, share a Conn.
	MaxShards = 128
	// DefaultOutageAfter is how long nobody reaches Redis before that is an outage.
	DefaultOutageAfter = 3 * time.Second
	// minOutageAfter leaves room for a sweep that is late.
	minOutageAfter = 2 * sweepEvery
	// exactLog is from which length on the log is cut at whole nodes, which is cheaper and leaves it a little longer.
	exactLog = 1000
)

// RegistryConfig is the configuration of a registry.
type RegistryConfig struct {
	// Namespace is the name of the namespace, which all keys carry.
	Namespace string
	// MaxIdentities is the most live identities; another one is ErrQuota. Default (0): no limit.
	MaxIdentities int
	// Shards spreads the namespace over that many hash tags. Default (0): 1.
	Shards int
	// ChangeLog is how many changes the log keeps for readers that were away. Default (0): DefaultChangeLog.
	ChangeLog int
	// Enumerate says where filters are evaluated: EnumerateNative or EnumerateScan. Default: EnumerateNative.
	Enumerate string
	// OutageAfter is for how long no sweep of any process must have reached Redis, so that it counts as an outage, after which
	// leases last for their TTL once more. To the millisecond; at least 2 seconds. Default (0): DefaultOutageAfter.
	OutageAfter time.Duration
	// Log hears when sweeping fails, when it works again, and of outages. Default (nil): nobody does.
	Log *slog.Logger
}

func (c RegistryConfig) withDefaults() RegistryConfig {
	if c.Shards == 0 {
		c.Shards = 1
	}
	if c.ChangeLog == 0 {
		c.ChangeLog = DefaultChangeLog
	}
	if c.Enumerate == "" {
		c.Enumerate = EnumerateNative
	}
	if c.OutageAfter == 0 {
		c.OutageAfter = DefaultOutageAfter
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate returns an InvalidError that names the field with an impossible value.
func (c RegistryConfig) Validate() error {
	c = c.withDefaults()
	switch {
	case c.MaxIdentities < 0:
		return invalid("max_identities", "must not be negative")
	case c.Shards < 1 || c.Shards > MaxShards:
		return invalid("shards", "must be from 1 to %d", MaxShards)
	case c.ChangeLog < 1:
		return invalid("change_log", "must be at least 1")
	case c.OutageAfter < minOutageAfter:
		return invalid("outage_after", "must be at least %s", minOutageAfter)
	case c.Enumerate != EnumerateNative && c.Enumerate != EnumerateScan:
		return invalid("enumerate", "%q is not a way to enumerate; legal values: %s, %s", c.Enumerate, EnumerateNative, EnumerateScan)
	}
	return nil
}

// Registry keeps the identities of one group of keys.
type Registry struct {
	conn *Conn
	keys keys
	cfg  RegistryConfig
	// maxlen and trim are how the log is cut, as change.lua takes it.
	maxlen, trim string
	// after is OutageAfter, as outage.lua takes it.
	after string
	// clock is the highest revision that was seen: a change gets one above it, and raises it. So no revision that Redis has
	// lost comes again through a process that knows it. The shards of a namespace share it: whatever happens after something
	// else through one process has the higher revision, whichever shards they are on.
	clock *atomic.Uint64
	// sweeps reports how sweeping goes; the shards of a namespace share it.
	sweeps *sweepLog
	// outages reports outages; the shards of a namespace share it.
	outages *outageLog

	puts, renewals sharing
	// hurry has a feed that lets changes gather read them.
	hurry chan struct{}
}

// NewRegistry returns the registry of a namespace that is kept in one group of keys: shards are not looked at. The
// configuration must be valid. Somebody must run Sweep, in this process or another.
func NewRegistry(conn *Conn, cfg RegistryConfig) *Registry { return newShard(conn, cfg, 0, 1) }

// newShard returns one of a namespace's shards.
func newShard(conn *Conn, cfg RegistryConfig, shard, of int) *Registry {
	cfg = cfg.withDefaults()
	r := &Registry{
		conn: conn, keys: keysOf(cfg.Namespace, shard, of), cfg: cfg, maxlen: strconv.Itoa(cfg.ChangeLog), trim: "=",
		after: millis(cfg.OutageAfter),
		clock: new(atomic.Uint64), sweeps: &sweepLog{log: cfg.Log, namespace: cfg.Namespace},
		outages: &outageLog{log: cfg.Log, namespace: cfg.Namespace},
		hurry:   make(chan struct{}, 1),
		puts: sharing{
			script: putScript, common: []string{strconv.Itoa(cfg.MaxIdentities)}, fields: putFields, atOnce: putAtOnce, most: putScripts,
		},
		renewals: sharing{script: renewScript, fields: renewFields, atOnce: renewedAtOnce, most: renewScripts},
	}
	if cfg.ChangeLog >= exactLog {
		r.trim = "~"
	}
	return r
}

// Delete implements multicastregistry.Registry.
func (r *Registry) Delete(ctx context.Context, id string, only multicastregistry.Revision) (existed bool, err error) {
	name := multicastregistry.EncodeName(id)
	reply, err := r.change(ctx, deleteScript, []string{r.keys.leases, r.keys.head, r.keys.log, r.keys.identity + name},
		name, strconv.FormatUint(uint64(only), 10))
	if err != nil {
		return false, r.conn.wrap(ctx, "delete", id, err)
	}
	if len(reply) > 1 {
		r.seen(reply[1])
	}
	return reply[0] == 1, nil
}

// change runs one of the scripts that change something, on keys and with the arguments that change.lua does not know. The
// reply has at least one element.
func (r *Registry) change(ctx context.Context, script *rueidis.Lua, keys []string, args ...string) ([]int64, error) {
	floor := strconv.FormatUint(r.clock.Load(), 10)
	all := make([]string, 0, 5+len(args))
	all = append(all, epoch(), floor, r.maxlen, r.trim, r.after)
	all = append(all, args...)
	return r.conn.run(ctx, r.conn.write, script, keys, all)
}

// seen takes notice of a revision that Redis told.
func (r *Registry) seen(revision int64) multicastregistry.Revision {
	now := uint64(revision)
	for before := r.clock.Load(); before < now && !r.clock.CompareAndSwap(before, now); {
		before = r.clock.Load()
	}
	return multicastregistry.Revision(now)
}

// Head implements multicastregistry.Header. Puts, renewals, deletions and logged expiries are changes.
func (r *Registry) Head(ctx context.Context) (multicastregistry.Revision, error) {
	bounded, cancel, err := r.conn.bound(ctx)
	if err == nil {
		defer cancel()
		var revision int64
		revision, err = r.conn.read.Do(bounded, r.conn.read.B().Hget().Key(r.keys.head).Field("revision").Build()).AsInt64()
		if err == nil {
			return r.seen(revision), nil
		}
		if rueidis.IsRedisNil(err) {
			return 0, nil
		}
	}
	return 0, r.conn.wrap(ctx, "head", "", err)
}

// Count implements multicastregistry.Counter.
func (r *Registry) Count(ctx context.Context) (int, error) {
	bounded, cancel, err := r.conn.bound(ctx)
	if err == nil {
		defer cancel()
		var n int64
		keys, args := []string{r.keys.leases, r.keys.head}, []string{r.after, r.keys.identity}
		n, err = countScript.Exec(bounded, r.conn.read, keys, args).AsInt64()
		if err == nil {
			return int(n), nil
		}
	}
	return 0, r.conn.wrap(ctx, "count", "", err)
}

// Ping implements multicastregistry.Pinger.
func (r *Registry) Ping(ctx context.Context) error { return r.conn.Ping(ctx) }

// epoch returns random text. A script uses it only when Redis has no head.
func epoch() string { return strconv.FormatUint(rand.Uint64(), 36) }

// millis returns a TTL as the scripts take it: milliseconds, rounded up, or -1.
func millis(ttl time.Duration) string {
	if ttl < 0 {
		return "-1"
	}
	return strconv.FormatInt(int64(roundUp(ttl)/time.Millisecond), 10)
}

func roundUp(ttl time.Duration) time.Duration {
	if ttl < 0 {
		return multicastregistry.NoExpiry
	}
	if rest := ttl % time.Millisecond; rest > 0 {
		ttl += time.Millisecond - rest
	}
	return ttl
}

// duration is the inverse of millis.
func duration(ms int64) time.Duration {
	if ms < 0 {
		return multicastregistry.NoExpiry
	}
	return time.Duration(ms) * time.Millisecond
}

// instant returns when a lease ends, as the scripts tell it.
func instant(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

func invalid(field, format string, args ...any) error {
	return &multicastregistry.InvalidError{Field: field, Problem: fmt.Sprintf(format, args...)}
}
