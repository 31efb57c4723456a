package redis

import (
	"log/slog"
	"sync"
	"time"

	"github.com/redis/rueidis"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// outage is a time during which nobody has reached Redis. The zero outage is none. lua/outage.lua says what follows from one.
type outage struct {
	since, until time.Time
}

// outageOf reads an outage as the scripts tell it.
func outageOf(since, until int64) outage {
	if until == 0 {
		return outage{}
	}
	return outage{time.UnixMilli(since), time.UnixMilli(until)}
}

func (o outage) none() bool { return o.until.IsZero() }

// join returns an outage that saves all that either of two does.
func (o outage) join(other outage) outage {
	switch {
	case o.none():
		return other
	case other.none():
		return o
	}
	if other.since.Before(o.since) {
		o.since = other.since
	}
	if other.until.After(o.until) {
		o.until = other.until
	}
	return o
}

// extended returns when a lease ends after the outage.
func (o outage) extended(expires time.Time, ttl time.Duration) time.Time {
	if o.none() || expires.IsZero() || ttl < 0 || !expires.After(o.since) {
		return expires
	}
	if saved := o.until.Add(ttl); saved.After(expires) {
		return saved
	}
	return expires
}

// change is what a feed tells of the outage, at a revision.
func (o outage) change(revision uint64) multicastregistry.Change {
	return multicastregistry.Change{
		Kind: multicastregistry.Extend, Since: o.since, Until: o.until, Revision: multicastregistry.Revision(revision),
	}
}

// parseOutage reads what head.lua tells of an outage that is not in the log yet.
func parseOutage(since, until rueidis.RedisMessage) (outage, error) {
	from, err := since.AsInt64()
	if err != nil {
		return outage{}, err
	}
	to, err := until.AsInt64()
	return outageOf(from, to), err
}

// outageLog reports outages, each once, whatever the number of shards that find it, one soon after the other.
type outageLog struct {
	log       *slog.Logger
	namespace string

	mu   sync.Mutex
	told time.Time // when the last one ended
}

// note takes notice of what a sweep tells of the latest outage; known is what the same sweeper's last sweep has told, nil before
// its first one: then an outage that has ended long before the present, at, is not news.
func (l *outageLog) note(latest outage, known *outage, at time.Time) {
	const soon = 5 * sweepEvery
	if latest.none() || known != nil && known.until.Equal(latest.until) || known == nil && at.Sub(latest.until) > soon {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if latest.until.Sub(l.told) < 2*sweepEvery {
		return
	}
	l.told = latest.until
	l.log.Warn("redis: leases are extended after an outage", slog.String("namespace", l.namespace),
		slog.Time("since", latest.since), slog.Time("until", latest.until))
}
