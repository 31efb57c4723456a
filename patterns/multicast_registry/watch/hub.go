package watch

import (
	"cmp"
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// Defaults of Config.
const (
	DefaultLogEntries = 100_000
	DefaultLogBytes   = 32 << 20
	DefaultQueue      = 256
	DefaultQueueBytes = 256 << 10
)

// atOnce and turnTime are how many changes are dispatched, and for how long, before somebody else gets a turn.
const (
	atOnce   = 256
	turnTime = 2 * time.Millisecond
)

// Source is what is watched: a registry's index, kept together with a Hub.
type Source interface {
	// Query answers from the index, which has all that was appended to the Hub. Leases end by now, whatever the clock says.
	Query(ctx context.Context, now time.Time, q multicastregistry.Selection) (multicastregistry.Selected, error)
	// Reach waits until the index reflects a revision. ErrUnavailable when that takes too long, and, with 0, when nothing
	// current is known.
	Reach(ctx context.Context, revision multicastregistry.Revision) error
	// Current returns ErrUnavailable when nothing current is known. It does not wait.
	Current() error
}

// Config is the configuration of a Hub. Zero fields take their defaults.
type Config struct {
	// LogEntries and LogBytes bound the log, from which slow watchers and those that come back go on. Default: 100,000 changes
	// and 32 MiB.
	LogEntries, LogBytes int
	// Queue and QueueBytes bound the changes that wait for one watcher before it has to go on from the log. Default: 256, and
	// 256 KiB.
	Queue, QueueBytes int
	// Unordered says that revisions are those of parts that change independently: places are numbered here then, and nobody can
	// go on with a token of another Hub.
	Unordered bool
}

// WithDefaults returns the configuration with its zero fields set.
func (c Config) WithDefaults() Config {
	c.LogEntries = cmp.Or(c.LogEntries, DefaultLogEntries)
	c.LogBytes = cmp.Or(c.LogBytes, DefaultLogBytes)
	c.Queue = cmp.Or(c.Queue, DefaultQueue)
	c.QueueBytes = cmp.Or(c.QueueBytes, DefaultQueueBytes)
	return c
}

// Hub tells watchers what changes. All methods may be called concurrently.
type Hub struct {
	cfg    Config
	source Source
	own    string // epoch of numbers of our own
	page   int    // the most that is told at once

	mu     sync.Mutex // held for each change of the index and its Append as one step; never for long
	log    history
	at     uint64 // everything up to this revision was appended
	epoch  string // of the revisions
	failed error  // nothing can be watched any more

	watched atomic.Int64  // watchers
	work    chan struct{} // something was appended that is not dispatched

	turn       sync.Mutex // of dispatching; taken before mu, and before a watcher's
	groups     groups
	dispatched uint64 // seq of the first entry that is not
}

// New returns a hub for an empty index.
func New(source Source, cfg Config) *Hub {
	cfg = cfg.WithDefaults()
	h := &Hub{
		cfg: cfg, source: source, own: strconv.FormatUint(rand.Uint64(), 36), work: make(chan struct{}, 1), groups: newGroups(),
		log: history{maxEntries: cfg.LogEntries, maxBytes: cfg.LogBytes, next: 1},
	}
	h.epoch, h.page = h.own, pageSize
	return h
}

// Lock begins a change of the index, which Unlock ends. What the change is has to be appended in between.
func (h *Hub) Lock() { h.mu.Lock() }

// Unlock ends what Lock began.
func (h *Hub) Unlock() { h.mu.Unlock() }

// Append tells of a change: what the identity was, with Encoded, and what it is; nil: it was not there, or is not there any
// more, for that reason. Revisions grow. Between Lock and Unlock only.
func (h *Hub) Append(
	revision multicastregistry.Revision, before, after *multicastregistry.Identity, reason multicastregistry.LeftReason,
) {
	if before != nil && after != nil && !before.ExpiresAt.IsZero() && !before.ExpiresAt.After(after.RegisteredAt) {
		h.Append(revision, before, nil, multicastregistry.LeftExpired)
		before = nil
	}
	e := &entry{at: uint64(revision), before: before, after: after, reason: reason}
	if h.cfg.Unordered {
		e.at = h.log.next
	}
	h.at = max(h.at, e.at)
	h.log.append(e)
	if h.watched.Load() > 0 {
		h.workToDo()
	}
}

// Advance tells that there is nothing to tell up to a revision, of an epoch if it is not empty. Between Lock and Unlock only.
func (h *Hub) Advance(revision multicastregistry.Revision, epoch string) {
	if h.cfg.Unordered {
		return
	}
	if epoch != "" {
		h.epoch = epoch
	}
	h.at = max(h.at, uint64(revision))
}

// Reset tells that the index has been replaced, by change: every watcher begins again. The revision is what it reflects, of
// an epoch that is empty if no other hub shares it. Not between Lock and Unlock.
func (h *Hub) Reset(revision multicastregistry.Revision, epoch string, change func()) {
	h.turn.Lock()
	defer h.turn.Unlock()
	h.mu.Lock()
	change()
	h.epoch, h.at = cmp.Or(epoch, h.own), uint64(revision)
	if h.cfg.Unordered {
		h.epoch, h.at = h.own, h.log.next-1
	}
	h.log.clear(h.at)
	h.dispatched = h.log.next
	h.mu.Unlock()
	h.resetAll()
}

// Fail ends all watching, with an error.
func (h *Hub) Fail(err error) {
	h.turn.Lock()
	defer h.turn.Unlock()
	h.mu.Lock()
	h.failed = err
	h.log.clear(h.at)
	h.mu.Unlock()
	h.resetAll()
}

// resetAll has every watcher begin again. The caller holds h.turn.
func (h *Hub) resetAll() {
	for _, g := range h.groups.byFilter {
		for w := range g.watchers {
			w.reset()
		}
	}
}

// join adds a watcher, which is told of what is dispatched from now on.
func (h *Hub) join(w *watcher) {
	h.turn.Lock()
	defer h.turn.Unlock()
	if h.watched.Add(1) == 1 {
		h.mu.Lock()
		h.dispatched = h.log.next
		h.mu.Unlock()
	}
	h.groups.join(w)
}

func (h *Hub) leave(w *watcher) {
	h.turn.Lock()
	defer h.turn.Unlock()
	h.groups.leave(w)
	h.watched.Add(-1)
}

// dispatch hands what has been appended by now to the watchers that it concerns.
func (h *Hub) dispatch() {
	h.mu.Lock()
	goal := h.log.next
	h.mu.Unlock()
	for h.dispatchSome(goal) {
	}
	h.mu.Lock()
	more := h.log.next > goal
	h.mu.Unlock()
	if more {
		h.workToDo()
	}
}

func (h *Hub) workToDo() {
	select {
	case h.work <- struct{}{}:
	default:
	}
}

func (h *Hub) dispatchSome(goal uint64) (more bool) {
	h.turn.Lock()
	defer h.turn.Unlock()
	if h.dispatched >= goal {
		return false
	}
	h.mu.Lock()
	entries, ok := h.log.from(h.dispatched, atOnce)
	if !ok { // the log was faster
		h.dispatched = h.log.next
	}
	h.mu.Unlock()
	if !ok {
		h.resetAll()
		return false
	}
	began := time.Now()
	for n, e := range entries {
		h.tell(e)
		h.dispatched = e.seq + 1
		if n+1 < len(entries) && entries[n+1].at > e.at && time.Since(began) > turnTime {
			break
		}
	}
	return len(entries) > 0
}

// tell hands a change to those it concerns.
func (h *Hub) tell(e *entry) {
	c := candidate{entry: e}
	h.groups.concerned(e, func(g *group) {
		was, is := c.matches(g.match)
		if !was && !is {
			return
		}
		for w := range g.watchers {
			w.push(told{entry: e, was: was, is: is}, &h.cfg)
		}
	})
}

// candidate is a change whose metadata is decoded once it is needed.
type candidate struct {
	*entry

	decoded       bool
	before, after map[string]any
	broken        [2]bool
}

// matches tells whether an identity matched before the change, and matches after it.
func (c *candidate) matches(match *filter.Expr) (was, is bool) {
	if match.MatchesAll() {
		return c.entry.before != nil, c.entry.after != nil
	}
	if !c.decoded {
		c.decoded = true
		c.before, c.broken[0] = decode(c.entry.before)
		c.after, c.broken[1] = decode(c.entry.after)
	}
	was = c.entry.before != nil && !c.broken[0] && filter.Match(match, c.before)
	is = c.entry.after != nil && !c.broken[1] && filter.Match(match, c.after)
	return was, is
}

func decode(i *multicastregistry.Identity) (metadata map[string]any, broken bool) {
	if i == nil {
		return nil, false
	}
	metadata, err := multicastregistry.DecodeMetadata(i.Encoded)
	return metadata, err != nil
}
