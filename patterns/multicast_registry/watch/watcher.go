package watch

import (
	"sync"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// told is a change as one watcher sees it.
type told struct {
	*entry

	was, is bool // whether the identity matched, and matches
}

// watcher is one who watches.
type watcher struct {
	match *filter.Expr
	wake  chan struct{}

	mu      sync.Mutex
	queue   []told
	bytes   int    // of queue
	lagging bool   // the queue was full: go on from the log
	from    uint64 // then: from there
	void    bool   // begin again
}

// push adds a change to the queue.
func (w *watcher) push(t told, cfg *Config) {
	size := t.size()
	w.mu.Lock()
	switch {
	case w.lagging || w.void:
	case len(w.queue) >= cfg.Queue || len(w.queue) > 0 && w.bytes+size > cfg.QueueBytes:
		w.lagging, w.from = true, w.queue[0].seq
		w.queue, w.bytes = nil, 0
	default:
		w.queue = append(w.queue, t)
		w.bytes += size
	}
	w.mu.Unlock()
	w.signal()
}

func (w *watcher) reset() {
	w.mu.Lock()
	w.void, w.lagging, w.queue, w.bytes = true, false, nil, 0
	w.mu.Unlock()
	w.signal()
}

func (w *watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// batch is what a watcher takes at once.
type batch struct {
	changes []told
	net     bool   // one for each identity is enough: the watcher is slow, or comes back
	at      uint64 // revision of all that was dispatched
	epoch   string
	void    bool  // begin again
	failed  error // stop
}

// take returns what a watcher has not been told, up to what was dispatched.
func (h *Hub) take(w *watcher) batch {
	b, entries := h.takeRaw(w)
	for _, e := range entries {
		c := candidate{entry: e}
		if was, is := c.matches(w.match); was || is {
			b.changes = append(b.changes, told{entry: e, was: was, is: is})
		}
	}
	return b
}

// takeRaw returns the queue, or the entries of the log that have to be looked at in its place.
func (h *Hub) takeRaw(w *watcher) (b batch, entries []*entry) {
	h.turn.Lock()
	defer h.turn.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	b.epoch, b.failed = h.epoch, h.failed
	if h.dispatched < h.log.first() { // the log was faster than dispatching
		w.void = true
	}
	if b.at = h.at; h.dispatched != h.log.next {
		b.at = h.log.floor
		if before := h.log.entries[h.log.dropped:]; h.dispatched > h.log.first() {
			b.at = before[h.dispatched-1-h.log.first()].at
		}
	}
	b.changes, w.queue, w.bytes = w.queue, nil, 0
	if w.lagging && !w.void {
		b.net = true
		var ok bool
		if entries, ok = h.log.from(w.from, int(h.dispatched-w.from)); !ok {
			w.void = true
		}
	}
	b.void, w.void, w.lagging = w.void, false, false
	if b.void {
		return b, nil
	}
	return b, entries
}

// resume makes a watcher that has joined go on behind a place; not ok where the log does not reach back so far.
func (h *Hub) resume(w *watcher, p place) (ok bool) {
	h.turn.Lock()
	defer h.turn.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.epoch != h.epoch || p.at > h.at {
		return false
	}
	from, ok := h.log.behind(p.at)
	if !ok {
		return false
	}
	if from > h.dispatched {
		return false // what the place reflects was to be dispatched before
	}
	w.lagging, w.from, w.queue, w.bytes = true, from, nil, 0
	return true
}

// netOf makes one change of all that were made to each identity. They come in the order of the last ones.
func netOf(changes []told) []told {
	type state struct {
		was   bool
		shown *multicastregistry.Identity // as it matched last
		last  int
	}
	states := make(map[string]*state)
	for n := range changes {
		c := &changes[n]
		s := states[c.id()]
		if s == nil {
			s = &state{was: c.was}
			states[c.id()] = s
		}
		if s.last = n; c.was {
			s.shown = c.before
		}
	}
	var net []told
	for n := range changes {
		c := changes[n]
		s := states[c.id()]
		if s.last != n {
			continue
		}
		if s.was && !c.is && s.shown != c.before { // it had left before, and changed since
			c.entry = &entry{seq: c.seq, at: c.at, before: s.shown, after: c.after, reason: c.reason}
		}
		c.was = s.was
		net = append(net, c)
	}
	return net
}

// event is what a watcher is told of a change.
func (t *told) event() multicastregistry.WatchEvent {
	switch {
	case t.was && t.is:
		return multicastregistry.WatchEvent{Type: multicastregistry.WatchUpdated, Identity: *t.after}
	case t.is:
		return multicastregistry.WatchEvent{Type: multicastregistry.WatchJoined, Identity: *t.after}
	case t.after != nil:
		return multicastregistry.WatchEvent{
			Type: multicastregistry.WatchLeft, Identity: *t.before, Reason: multicastregistry.LeftFilter,
		}
	}
	return multicastregistry.WatchEvent{Type: multicastregistry.WatchLeft, Identity: *t.before, Reason: t.reason}
}
