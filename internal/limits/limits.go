// Package limits bounds what callers take of a namespace: how often they call, how many bytes they send, how many streams they
// hold and how many identities these are attached to. Each is bounded for every caller and for all of them together, and what
// does not fit is refused at once, with the limit, what is taken of it, and when to come back. Everything is counted in this
// process: of several proxies, each has the limits to itself.
package limits

import (
	"container/list"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/prism-data-layer/prism/internal/auth"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// maxCallers is how many callers are remembered who hold nothing; those who called longest ago are forgotten, which fills their
// buckets up.
const maxCallers = 100_000

// Rate is a token bucket.
type Rate struct {
	// PerSecond is how many tokens come in a second.
	PerSecond float64
	// Burst is how many there are at most. Default (0): what comes in a second, one at least.
	Burst int
}

// Share is what one caller, or all together, may take. The zero Share is without limits.
type Share struct {
	// Rates are how often operations of a role may be called. Each attach counts as one, and each stream.
	Rates map[auth.Role]Rate
	// PayloadBytes are how many bytes the payloads of multicasts may have, counted once for each multicast, to however many it
	// goes. A payload larger than what may come at once is never taken. The zero Rate is without a limit.
	PayloadBytes Rate
	// MetadataBytes are how many bytes the metadata of registrations may have, as max_metadata counts them. The zero Rate is
	// without a limit.
	MetadataBytes Rate
	// Streams is how many streams of subscribers and watchers there may be at once. 0: any number.
	Streams int
	// Attached is how many identities all these streams may be attached to. 0: any number.
	Attached int
}

// Config are the limits of a namespace. The zero Config has none.
type Config struct {
	// PerCaller is for each caller. Where nobody is asked who is calling, all are one.
	PerCaller Share
	// Total is for all callers together.
	Total Share
	// MinTTL and MaxTTL bound the TTL of a lease. 0: no bound. With a MaxTTL every lease ends.
	MinTTL, MaxTTL time.Duration
	// MaxTargets is how many identities a multicast may reach. 0: any number.
	MaxTargets int
}

// Validate returns an InvalidError that names the field with an impossible value.
func (c Config) Validate() error {
	for _, share := range []struct {
		name string
		Share
	}{{"per_caller", c.PerCaller}, {"total", c.Total}} {
		for _, role := range slices.Sorted(maps.Keys(share.Rates)) {
			r := share.Rates[role]
			field := share.name + ".rates." + string(role)
			switch {
			case !slices.Contains(auth.Roles(), role) || role == auth.RoleAdmin:
				return invalid(field, "is not a role that can be bounded")
			case !(r.PerSecond > 0) || math.IsInf(r.PerSecond, 0):
				return invalid(field, "must be more than 0")
			case r.Burst < 0:
				return invalid(field, "must have a burst of 1 at least")
			}
		}
		for field, r := range map[string]Rate{"payload_bytes": share.PayloadBytes, "metadata_bytes": share.MetadataBytes} {
			switch {
			case r == Rate{}:
			case !(r.PerSecond > 0) || math.IsInf(r.PerSecond, 0):
				return invalid(share.name+"."+field, "must be more than 0")
			case r.Burst < 0:
				return invalid(share.name+"."+field, "must have a burst of 1 at least")
			}
		}
		if share.Streams < 0 {
			return invalid(share.name+".streams", "must not be negative")
		}
		if share.Attached < 0 {
			return invalid(share.name+".attached", "must not be negative")
		}
	}
	switch {
	case c.MinTTL < 0:
		return invalid("min_ttl", "must not be negative")
	case c.MaxTTL < 0:
		return invalid("max_ttl", "must not be negative")
	case c.MaxTTL > 0 && c.MinTTL > c.MaxTTL:
		return invalid("min_ttl", "is more than max_ttl, which is %s", c.MaxTTL)
	case c.MaxTargets < 0:
		return invalid("max_targets", "must not be negative")
	}
	return nil
}

func invalid(field, format string, args ...any) error {
	return &multicastregistry.InvalidError{Field: field, Problem: fmt.Sprintf(format, args...)}
}

// ExceededError is an ErrQuota: a limit is reached.
type ExceededError struct {
	// Limit names the limit, as the configuration does, such as "per_caller.rates.register".
	Limit string
	// Most is what is allowed, and Taken what is taken of it.
	Most, Taken string
	// RetryAfter is when it may be otherwise. 0: when somebody lets go of something.
	RetryAfter time.Duration
}

// Error says what the limit is, what is taken of it, and when to come back.
func (e *ExceededError) Error() string {
	text := fmt.Sprintf("%s: %v: %s, at most %s", e.Limit, multicastregistry.ErrQuota, e.Taken, e.Most)
	if e.RetryAfter > 0 {
		text += fmt.Sprintf("; try again after %s", e.RetryAfter.Round(time.Millisecond))
	}
	return text
}

// Is makes errors.Is(err, ErrQuota) hold.
func (e *ExceededError) Is(target error) bool { return target == multicastregistry.ErrQuota }

// Limits are the limits of a namespace, and what is taken of them. A nil Limits has none. It is safe for concurrent use.
type Limits struct {
	*holdings

	cfg Config
	age int // how many others of the namespace there were before
}

// holdings are what is taken, whatever the limits are. Those that With returns share them.
type holdings struct {
	now func() time.Time

	mu      sync.Mutex
	total   *taken
	callers map[string]*taken
	idle    list.List // of the names of callers who hold nothing, who called last at the back
}

// taken is what a caller, or all together, have taken.
type taken struct {
	caller   string  // who; empty for all together
	name     string  // of the share, in a configuration
	by       *Limits // whose share it is
	share    Share
	buckets  map[auth.Role]*rate.Limiter
	bytes    [2]*rate.Limiter // of payloads and of metadata
	streams  int
	attached int
	place    *list.Element // among the idle
}

// New returns limits of which nothing is taken. The configuration must be valid.
func New(cfg Config) *Limits {
	l := &Limits{cfg: cfg, holdings: &holdings{now: time.Now, callers: make(map[string]*taken)}}
	l.total = &taken{name: "total"}
	return l
}

// With returns other limits of the same namespace, of which the same is taken: streams that are open count on. They hold for a
// caller from the first call that is made of them, or from Hold.
func (l *Limits) With(cfg Config) *Limits {
	if l == nil {
		return New(cfg)
	}
	return &Limits{cfg: cfg, holdings: l.holdings, age: l.age + 1}
}

// Hold makes the limits hold for who has taken something under others, at once.
func (l *Limits) Hold() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all()
	for _, t := range l.callers {
		t.under(l, &l.cfg.PerCaller)
	}
}

// under makes the share that limits give the one that holds, unless later ones do. Buckets whose rates are the same stay as they
// are.
func (t *taken) under(l *Limits, share *Share) *taken {
	if t.by != nil && t.by.age >= l.age {
		return t
	}
	buckets := make(map[auth.Role]*rate.Limiter, len(share.Rates))
	for role, r := range share.Rates {
		if t.share.Rates[role] == r {
			buckets[role] = t.buckets[role]
		} else {
			buckets[role] = bucket(r)
		}
	}
	before := t.share.bytes()
	for of, r := range share.bytes() {
		if before[of] != r {
			t.bytes[of] = bucket(r)
		}
	}
	t.by, t.share, t.buckets = l, *share, buckets
	return t
}

// all returns what all together have taken. The caller holds the lock.
func (l *Limits) all() *taken { return l.total.under(l, &l.cfg.Total) }

// bucket returns the full bucket of a rate. Nil: there is no limit.
func bucket(r Rate) *rate.Limiter {
	if r.PerSecond == 0 {
		return nil
	}
	burst := r.Burst
	if burst == 0 {
		burst = max(int(math.Ceil(r.PerSecond)), 1)
	}
	return rate.NewLimiter(rate.Limit(r.PerSecond), burst)
}

// Call takes one call of an operation. Every error is an ExceededError.
func (l *Limits) Call(caller string, op auth.Operation) error {
	if l == nil || len(l.cfg.PerCaller.Rates)+len(l.cfg.Total.Rates) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now, role := l.now(), op.Role()
	undo, err := l.caller(caller).call(role, now)
	if err != nil {
		return err
	}
	if _, err = l.all().call(role, now); err != nil {
		undo()
	}
	return err
}

// call takes a token, which undo gives back.
func (t *taken) call(role auth.Role, now time.Time) (undo func(), err error) {
	bucket := t.buckets[role]
	if bucket == nil {
		return func() {}, nil
	}
	token := bucket.ReserveN(now, 1)
	wait := token.DelayFrom(now)
	if wait == 0 {
		return func() { token.CancelAt(now) }, nil
	}
	token.CancelAt(now)
	return nil, &ExceededError{
		Limit: t.name + ".rates." + string(role), Taken: "calls come faster",
		Most: fmt.Sprintf("%g a second, %d at once", float64(bucket.Limit()), bucket.Burst()), RetryAfter: max(wait, time.Millisecond),
	}
}

// Stream takes a stream. Every error is an ExceededError.
func (l *Limits) Stream(caller string) (*Stream, error) {
	if l == nil {
		return nil, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	own := l.caller(caller)
	for _, t := range []*taken{own, l.all()} {
		if most := t.share.Streams; most > 0 && t.streams >= most {
			return nil, &ExceededError{
				Limit: t.name + ".streams", Taken: fmt.Sprintf("%d are open", t.streams), Most: strconv.Itoa(most),
			}
		}
	}
	own.streams++
	l.total.streams++
	l.hold(own)
	return &Stream{limits: l.holdings, caller: caller}, nil
}

// Stream is one stream that was taken. A nil Stream has no limits. It is safe for concurrent use.
type Stream struct {
	limits *holdings
	caller string

	attached int // under limits.mu
	over     bool
}

// Attach takes so many identities more for the stream.
func (s *Stream) Attach(n int) error {
	if s == nil || n == 0 {
		return nil
	}
	l := s.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.over {
		return nil
	}
	own := l.callers[s.caller] // under the limits that hold by now
	for _, t := range []*taken{own, l.total} {
		if most := t.share.Attached; most > 0 && t.attached+n > most {
			return &ExceededError{
				Limit: t.name + ".attached", Taken: fmt.Sprintf("%d are attached, %d more are asked for", t.attached, n),
				Most: strconv.Itoa(most),
			}
		}
	}
	s.attached += n
	own.attached += n
	l.total.attached += n
	return nil
}

// Detach gives identities back.
func (s *Stream) Detach(n int) {
	if s == nil {
		return
	}
	s.limits.mu.Lock()
	defer s.limits.mu.Unlock()
	s.detach(min(n, s.attached))
}

func (s *Stream) detach(n int) {
	s.attached -= n
	s.limits.callers[s.caller].attached -= n // who holds a stream is not forgotten
	s.limits.total.attached -= n
}

// End gives the stream back, and all that it was attached to. Ending again does nothing.
func (s *Stream) End() {
	if s == nil {
		return
	}
	l := s.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.over {
		return
	}
	s.over = true
	s.detach(s.attached)
	own := l.callers[s.caller]
	own.streams--
	l.total.streams--
	l.hold(own)
}

// CheckTTL returns an InvalidError for a TTL that is out of bounds; 0 is the namespace's default, which is within.
func (l *Limits) CheckTTL(ttl time.Duration) error {
	switch {
	case l == nil || ttl == 0:
	case l.cfg.MaxTTL > 0 && ttl == multicastregistry.NoExpiry:
		return invalid("never_expires", "is not allowed in this namespace: leases last %s at most", l.cfg.MaxTTL)
	case ttl == multicastregistry.NoExpiry:
	case l.cfg.MaxTTL > 0 && ttl > l.cfg.MaxTTL:
		return invalid("ttl", "is %s; leases last %s at most in this namespace", ttl, l.cfg.MaxTTL)
	case ttl < l.cfg.MinTTL:
		return invalid("ttl", "is %s; leases last %s at least in this namespace", ttl, l.cfg.MinTTL)
	}
	return nil
}

// MaxTargets returns how many identities a multicast may reach that asks for a bound of its own, where 0 is any number.
func (l *Limits) MaxTargets(asked int) int {
	if l == nil || l.cfg.MaxTargets == 0 || asked > 0 && asked < l.cfg.MaxTargets {
		return asked
	}
	return l.cfg.MaxTargets
}

// caller returns what a caller has taken. The caller of this function holds the lock.
func (l *Limits) caller(name string) *taken {
	t := l.callers[name]
	switch {
	case t == nil:
		t = &taken{caller: name, name: "per_caller"}
		l.callers[name] = t
		t.place = l.idle.PushBack(name)
		for l.idle.Len() > maxCallers {
			delete(l.callers, l.idle.Remove(l.idle.Front()).(string))
		}
	case t.place != nil:
		l.idle.MoveToBack(t.place)
	}
	return t.under(l, &l.cfg.PerCaller)
}

// hold keeps a caller with streams from being forgotten, and lets one without be.
func (l *holdings) hold(t *taken) {
	switch {
	case t.streams > 0 && t.place != nil:
		l.idle.Remove(t.place)
		t.place = nil
	case t.streams == 0 && t.place == nil:
		t.place = l.idle.PushBack(t.caller)
	}
}
