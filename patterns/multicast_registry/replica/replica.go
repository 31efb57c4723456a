package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/index"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/watch"
)

// Defaults of Config.
const (
	DefaultMaxStaleness = 5 * time.Second
	DefaultMaxBytes     = min(2<<30, math.MaxInt) // of 32 bits, there
)

const (
	// firstRetry and lastRetry bound the waits before the feed is opened again.
	firstRetry = 20 * time.Millisecond
	lastRetry  = time.Second
	// sayAgain is between two lines of the log about the same.
	sayAgain = time.Minute
	// clockEvery is how often the backend's clock is read.
	clockEvery = 10 * time.Second
	// sizeEvery is how many changes are applied between two looks at the size.
	sizeEvery = 1024
)

// Source is what can be copied.
type Source interface {
	multicastregistry.Registry
	multicastregistry.Header
	multicastregistry.Changes
}

// Config is the configuration of a Registry. Zero fields take their defaults.
type Config struct {
	// MaxStaleness is how long the copy answers without news of the source: at least 2 * multicastregistry.ChangesIdle. Default: 5
	// seconds.
	MaxStaleness time.Duration
	// MaxBytes bounds the memory of the copy, about. What does not fit is not copied: from then on the source answers itself, which
	// is logged. Default: 2 GiB.
	MaxBytes int
	// Partitioned says that the source consists of parts that make changes independently, so that only its Synced tells how far
	// its feed is.
	Partitioned bool
	// Log is told when the copy is complete, when the feed fails, and when the copy is given up. Nil: nobody is.
	Log *slog.Logger
}

// WithDefaults returns the configuration with its zero fields set.
func (c Config) WithDefaults() Config {
	c.MaxStaleness = cmp.Or(c.MaxStaleness, DefaultMaxStaleness)
	c.MaxBytes = cmp.Or(c.MaxBytes, DefaultMaxBytes)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate returns an InvalidError that names the first field with an impossible value.
func (c Config) Validate() error {
	c = c.WithDefaults()
	if c.MaxStaleness < 2*multicastregistry.ChangesIdle {
		return &multicastregistry.InvalidError{
			Field: "max_staleness", Problem: fmt.Sprintf("must be at least %s", 2*multicastregistry.ChangesIdle),
		}
	}
	if c.MaxBytes < 1 {
		return &multicastregistry.InvalidError{Field: "max_bytes", Problem: "must be at least 1"}
	}
	return nil
}

// Registry is a registry served from a copy. See New.
type Registry struct {
	cfg    Config
	source Source
	hurry  func()    // has the source's feed not wait for more
	began  time.Time // what the local clock is read against

	copied  atomic.Pointer[index.Index]
	hub     *watch.Hub
	native  atomic.Bool   // the copy was given up
	offset  atomic.Int64  // of the backend's clock against ours, in nanoseconds
	expired atomic.Uint64 // leases, as the feed told

	mu      sync.Mutex
	reached multicastregistry.Revision // what the copy reflects
	floor   multicastregistry.Revision // what was written through here
	blind   int                        // how often something was written through here of which the revision is not known
	heard   time.Time                  // when the source was last known to have nothing newer; zero: never
	failure error                      // of the feed, while it is away
	waiting int                        // those who wait for moved
	moved   chan struct{}              // closed, if anybody waits, when one of these changes
}

// New returns a registry that answers once Run has copied the source.
func New(source Source, cfg Config) (*Registry, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := &Registry{cfg: cfg.WithDefaults(), source: source, began: time.Now(), moved: make(chan struct{})}
	r.hurry = func() {}
	if hurrier, ok := source.(multicastregistry.Hurrier); ok {
		r.hurry = hurrier.Hurry
	}
	r.copied.Store(index.New())
	r.hub = watch.New(watched{r}, watch.Config{Unordered: cfg.Partitioned})
	return r, nil
}

// Run follows the source until the context ends, and returns its error; nil when the copy was given up.
func (r *Registry) Run(ctx context.Context) error {
	var clock sync.WaitGroup
	defer clock.Wait()
	clock.Go(func() { r.readClock(ctx) })
	var after multicastregistry.Position
	var said time.Time // that it cannot be followed
	for retry := firstRetry; ctx.Err() == nil && !r.native.Load(); retry = min(2*retry, lastRetry) {
		began := time.Now()
		var err error
		if after, err = r.follow(ctx, after); err == nil || ctx.Err() != nil {
			continue
		}
		if time.Since(said) >= sayAgain {
			said = time.Now()
			r.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "the registry's changes cannot be followed", slog.Any("error", err))
		}
		r.update(func() { r.failure = err })
		if time.Since(began) > lastRetry {
			retry = firstRetry
		}
		timer := time.NewTimer(retry)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
	return ctx.Err()
}

// follow applies changes until the feed ends, and returns where to go on.
func (r *Registry) follow(ctx context.Context, after multicastregistry.Position) (multicastregistry.Position, error) {
	into, began := r.copied.Load(), time.Now()
	fresh, n := false, 0   // into is a new copy, which nobody sees yet
	ordered := after != "" // and without gaps
	current := false       // what comes has just happened: a feed begins with what was missed
	for change, err := range r.source.Changes(ctx, after) {
		if err != nil {
			return after, err
		}
		after = change.Position
		switch change.Kind {
		case multicastregistry.Reset:
			into, fresh, began, ordered = index.New(), true, time.Now(), false
		case multicastregistry.Synced:
			if fresh {
				if err := r.forgetLost(ctx, change.Revision); err != nil {
					return "", err
				}
				r.hub.Reset(change.Revision, change.Epoch, func() { r.copied.Store(into) })
				r.cfg.Log.LogAttrs(ctx, slog.LevelInfo, "the registry is copied", slog.Int("identities", into.Len(r.now())),
					slog.Int64("bytes", into.Bytes()), slog.Duration("took", time.Since(began)))
				fresh = false
			}
			ordered, current = true, true
			r.hub.Lock()
			r.hub.Advance(change.Revision, change.Epoch)
			r.hub.Unlock()
			r.update(func() { r.reached, r.heard, r.failure = change.Revision, time.Now(), nil })
		default:
			if fresh {
				apply(into, &change)
			} else {
				r.change(into, &change)
			}
			if ordered && !r.cfg.Partitioned {
				r.update(func() {
					if r.reached = change.Revision; current {
						r.heard = time.Now()
					}
				})
			}
		}
		if n++; n%sizeEvery == 0 && into.Bytes() > int64(r.cfg.MaxBytes) {
			r.giveUp(ctx, into)
			return after, nil
		}
	}
	return after, nil
}

// forgetLost has reads wait no longer for what was written through here and is lost: the source has begun again without it.
func (r *Registry) forgetLost(ctx context.Context, at multicastregistry.Revision) error {
	r.mu.Lock()
	floor := r.floor
	r.mu.Unlock()
	if floor <= at {
		return nil
	}
	head, err := r.source.Head(ctx)
	if err != nil {
		return err
	}
	r.update(func() {
		if r.floor == floor { // else something was written since, which is above it
			r.floor = min(floor, head)
		}
	})
	return nil
}

// apply makes a change in a copy that nobody sees yet.
func apply(into *index.Index, change *multicastregistry.Change) (before, after *multicastregistry.Identity) {
	i := &change.Identity
	switch change.Kind {
	case multicastregistry.Put:
		if i.Encoded == "" {
			i.Encoded = string(multicastregistry.AppendMetadata(nil, i.Metadata))
		}
		i.Metadata = nil
		if previous, replaced := into.Put(*i); replaced {
			return &previous, i
		}
		return nil, i
	case multicastregistry.Renew:
		into.Renew(i.ID, i.TTL, i.ExpiresAt)
	case multicastregistry.Extend:
		into.Extend(change.Since, change.Until)
	default:
		if previous, ok := into.Remove(i.ID); ok {
			return &previous, nil
		}
	}
	return nil, nil
}

// change makes a change in the copy that answers, and tells those who watch.
func (r *Registry) change(into *index.Index, change *multicastregistry.Change) {
	lease := change.Kind == multicastregistry.Renew || change.Kind == multicastregistry.Extend // which is no event
	if lease {
		apply(into, change)
	}
	r.hub.Lock()
	defer r.hub.Unlock()
	if change.Epoch != "" {
		r.hub.Advance(0, change.Epoch)
	}
	var before, after *multicastregistry.Identity
	if !lease {
		before, after = apply(into, change)
	}
	if before == nil && after == nil {
		r.hub.Advance(change.Revision, "")
		return
	}
	if after != nil {
		after = new(*after) // the change is the feed's
	}
	reason := multicastregistry.LeftUnregistered
	if change.Kind == multicastregistry.Expire {
		reason = multicastregistry.LeftExpired
		r.expired.Add(1)
	}
	r.hub.Append(change.Revision, before, after, reason)
}

// giveUp has the source answer from now on.
func (r *Registry) giveUp(ctx context.Context, into *index.Index) {
	r.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "the registry is too large to be copied: every read goes to its backend from now on",
		slog.Int("max_bytes", r.cfg.MaxBytes), slog.Int("identities", into.Len(r.now())))
	r.native.Store(true)
	r.copied.Store(index.New())
	r.hub.Fail(fmt.Errorf("%w: the registry is too large to be copied, and only a copy can be watched (max_bytes is %d)",
		multicastregistry.ErrUnsupported, r.cfg.MaxBytes))
	r.update(func() { r.failure = nil })
}

// update changes what Reach waits for.
func (r *Registry) update(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	if r.waiting > 0 {
		close(r.moved)
		r.moved, r.waiting = make(chan struct{}), 0
	}
}

// Reach implements multicastregistry.Copy. It waits for as long as the copy may be stale at the most.
func (r *Registry) Reach(ctx context.Context, revision multicastregistry.Revision) (multicastregistry.Revision, error) {
	patience, cancel := context.WithTimeout(ctx, r.cfg.MaxStaleness)
	defer cancel()
	r.mu.Lock()
	blind := r.blind
	r.mu.Unlock()
	if blind > 0 && !r.native.Load() {
		head, err := r.source.Head(patience)
		if err != nil {
			return 0, err
		}
		r.update(func() {
			if r.floor = max(r.floor, head); r.blind == blind {
				r.blind = 0
			}
		})
	}
	r.mu.Lock()
	want := max(revision, r.floor) // what is written from now on need not be in it
	r.mu.Unlock()
	for {
		if r.native.Load() {
			return r.reachNative(ctx, revision)
		}
		r.mu.Lock()
		reached, heard, moved := r.reached, r.heard, r.moved
		if !heard.IsZero() && reached >= want && time.Since(heard) <= r.cfg.MaxStaleness {
			r.mu.Unlock()
			return reached, nil
		}
		r.waiting++
		r.mu.Unlock()
		r.hurry()
		select {
		case <-moved:
		case <-patience.Done():
			return 0, errors.Join(r.behind(want), ctx.Err())
		}
	}
}

func (r *Registry) reachNative(ctx context.Context, revision multicastregistry.Revision) (multicastregistry.Revision, error) {
	head, err := r.source.Head(ctx)
	if err == nil && head < revision {
		err = fmt.Errorf("%w: the registry is at revision %d, not yet at %d", multicastregistry.ErrUnavailable, head, revision)
	}
	return head, err
}

// behind says why the copy does not answer.
func (r *Registry) behind(want multicastregistry.Revision) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch silent := time.Since(r.heard); {
	case r.heard.IsZero() && r.failure != nil:
		return fmt.Errorf("%w: the registry is not copied yet: %w", multicastregistry.ErrUnavailable, r.failure)
	case r.heard.IsZero():
		return fmt.Errorf("%w: the registry is not copied yet", multicastregistry.ErrUnavailable)
	case silent > r.cfg.MaxStaleness && r.failure != nil:
		return fmt.Errorf("%w: no news of the registry for %s, max_staleness is %s: %w", multicastregistry.ErrUnavailable,
			silent.Round(time.Millisecond), r.cfg.MaxStaleness, r.failure)
	case silent > r.cfg.MaxStaleness:
		return fmt.Errorf("%w: no news of the registry for %s, max_staleness is %s", multicastregistry.ErrUnavailable,
			silent.Round(time.Millisecond), r.cfg.MaxStaleness)
	}
	return fmt.Errorf("%w: the copy of the registry is at revision %d, not yet at %d", multicastregistry.ErrUnavailable,
		r.reached, want)
}

// now is the backend's clock, as well as it is known.
func (r *Registry) now() time.Time {
	return r.began.Add(time.Since(r.began)).Add(time.Duration(r.offset.Load()))
}

// readClock learns how far the backend's clock is from ours: of some readings the one that took least says it best.
func (r *Registry) readClock(ctx context.Context) {
	clock, ok := r.source.(multicastregistry.Clock)
	if !ok {
		return
	}
	const readings = 5
	for ticker := time.NewTicker(clockEvery); ; {
		best := time.Hour
		for range readings {
			start := time.Now()
			at, err := clock.Now(ctx)
			took := time.Since(start)
			if err == nil && took < best {
				best = took
				r.offset.Store(int64(at.Sub(r.began.Add(start.Sub(r.began)).Add(took / 2))))
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			ticker.Stop()
			return
		}
	}
}
