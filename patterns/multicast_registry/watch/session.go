package watch

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

const (
	// pageSize and maxNewsBytes bound what is told at once, so that it fits into a message of any transport.
	pageSize     = 1000
	maxNewsBytes = 1 << 20
	// bookmarkEvery is how often a watcher is told where it is while nothing happens.
	bookmarkEvery = 10 * time.Second
	// behindAtMost is how long a token may be ahead of the index before it counts as one of another history.
	behindAtMost = 2 * time.Second
	// checkEvery is how often a watcher makes sure that the index is current.
	checkEvery = time.Second
)

// Watch implements multicastregistry.Watcher.
func (h *Hub) Watch(ctx context.Context, w multicastregistry.Watch) iter.Seq2[multicastregistry.News, error] {
	return func(yield func(multicastregistry.News, error) bool) {
		match := w.Match
		if match == nil {
			match = &filter.Expr{}
		}
		s := &session{
			hub: h, yield: yield, omit: w.OmitSnapshot, name: match.String(),
			watcher: &watcher{match: match, wake: make(chan struct{}, 1)},
		}
		if err := s.run(ctx, w.After); err != nil && err != errStop { //nolint:errorlint // our own, and never wrapped
			yield(multicastregistry.News{}, fmt.Errorf("watch: %w", err))
		}
	}
}

type stopError struct{}

func (stopError) Error() string { return "the reader breaks off" }

var errStop error = stopError{}

// never is before the end of any lease. A snapshot shows whoever is in the index: who expires leaves it by a change, which is
// what watchers are told of.
var never time.Time

// session is one call of Watch.
type session struct {
	hub     *Hub
	yield   func(multicastregistry.News, error) bool
	watcher *watcher
	omit    bool   // no snapshots
	name    string // of the filter

	here   place // what was told
	synced bool  // here is a place to go on from
	told   bool  // anything, by this watch or the one that it goes on from
}

func (s *session) run(ctx context.Context, after string) error {
	p, err := s.where(ctx, after)
	if err != nil {
		return err
	}
	s.hub.join(s.watcher)
	defer s.hub.leave(s.watcher)
	if err := s.begin(ctx, p); err != nil {
		return err
	}
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	told := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.watcher.wake:
		case <-s.hub.work:
			s.hub.dispatch()
		case <-check.C:
			if err := s.hub.source.Current(); err != nil {
				return err
			}
			s.hub.dispatch()
		}
		some, err := s.goOn(ctx)
		if err != nil {
			return err
		}
		switch {
		case some:
			told = time.Now()
		case time.Since(told) >= bookmarkEvery:
			told = time.Now()
			if err := s.tell(multicastregistry.WatchEvent{Type: multicastregistry.WatchBookmark}); err != nil {
				return err
			}
		}
	}
}

// where reads a token, and waits until the index is where it says; nil without a token.
func (s *session) where(ctx context.Context, token string) (*place, error) {
	if token == "" {
		return nil, s.hub.source.Reach(ctx, 0)
	}
	p, err := parseToken(token, s.name)
	if err != nil {
		return nil, err
	}
	s.told = true
	if err := s.hub.source.Reach(ctx, 0); err != nil {
		return nil, err
	}
	if p.epoch == s.hub.currentEpoch() && !s.hub.cfg.Unordered {
		soon, cancel := context.WithTimeout(ctx, behindAtMost)
		defer cancel()
		if err := s.hub.source.Reach(soon, multicastregistry.Revision(p.at)); err != nil && ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return &p, nil
}

// begin tells all that comes up to Synced.
func (s *session) begin(ctx context.Context, from *place) error {
	if from == nil {
		return s.snapshot(ctx)
	}
	s.hub.dispatch()
	if !s.hub.resume(s.watcher, *from) {
		return s.reset(ctx)
	}
	s.here, s.synced = *from, true
	b := s.hub.take(s.watcher)
	if b.void || b.failed != nil {
		return s.again(ctx, &b)
	}
	if err := s.changes(&b); err != nil {
		return err
	}
	s.at(&b)
	return s.tell(multicastregistry.WatchEvent{Type: multicastregistry.WatchSynced})
}

func (h *Hub) currentEpoch() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.epoch
}

// goOn tells what has happened, if anything has.
func (s *session) goOn(ctx context.Context) (some bool, err error) {
	b := s.hub.take(s.watcher)
	if b.void || b.failed != nil {
		return true, s.again(ctx, &b)
	}
	some = len(b.changes) > 0
	if err = s.changes(&b); err == nil {
		s.at(&b)
	}
	return some, err
}

// at notes that everything up to what a batch was taken from has been told.
func (s *session) at(b *batch) {
	if b.epoch != s.here.epoch || b.at > s.here.at {
		s.here.epoch, s.here.at = b.epoch, b.at
	}
}

// again begins again, or ends.
func (s *session) again(ctx context.Context, b *batch) error {
	if b.failed != nil {
		return b.failed
	}
	return s.reset(ctx)
}

func (s *session) reset(ctx context.Context) error {
	s.synced = false
	if s.told { // else there is nothing to be void
		if err := s.tell(multicastregistry.WatchEvent{Type: multicastregistry.WatchReset}); err != nil {
			return err
		}
	}
	return s.snapshot(ctx)
}

// changes tells changes: each of them, or, in net form, what they come to for each identity, of so many at a time that it fits
// into one message. So there is a place to go on from behind every message.
func (s *session) changes(b *batch) error {
	for len(b.changes) > 0 {
		n, size := 0, 0
		for ; n < len(b.changes); n++ {
			size += b.changes[n].size()
			if n > 0 && (n >= s.hub.page || size > maxNewsBytes) && b.changes[n].at > b.changes[n-1].at {
				break
			}
		}
		run := b.changes[:n]
		b.changes = b.changes[n:]
		end := *b
		if len(b.changes) > 0 {
			end.at = run[n-1].at
		}
		if b.net {
			run = netOf(run)
		}
		s.at(&end)
		if err := s.list(run); err != nil {
			return err
		}
	}
	return nil
}

// list tells changes in one message.
func (s *session) list(changes []told) error {
	var events []multicastregistry.WatchEvent
	for n := range changes {
		if c := &changes[n]; c.was || c.is {
			events = append(events, c.event())
		}
	}
	if len(events) == 0 {
		return nil
	}
	return s.tell(events...)
}

// tell yields events.
func (s *session) tell(events ...multicastregistry.WatchEvent) error {
	news := multicastregistry.News{Events: events}
	if s.synced {
		news.Token = s.here.token(s.name)
	}
	s.told = true
	if !s.yield(news, nil) {
		return errStop
	}
	return nil
}

// snapshot tells all that match, and what changes meanwhile, up to Synced; see the package's comment. It begins again when it
// has to.
func (s *session) snapshot(ctx context.Context) error {
	s.here, s.synced = place{}, false
	for after := (*multicastregistry.Place)(nil); ; {
		var page multicastregistry.Selected
		if !s.omit {
			var err error
			page, err = s.hub.source.Query(ctx, never, multicastregistry.Selection{
				Match: s.watcher.match, After: after, Limit: s.hub.page, MaxBytes: maxNewsBytes,
			})
			if err != nil {
				return err
			}
		}
		s.hub.dispatch()
		b := s.hub.take(s.watcher)
		if b.void || b.failed != nil {
			return s.again(ctx, &b)
		}
		s.at(&b)
		if !s.omit {
			if err := s.page(&page, after, netOf(b.changes)); err != nil {
				return err
			}
		}
		if !page.More {
			break
		}
		after = page.Last
	}
	s.synced = true
	return s.tell(multicastregistry.WatchEvent{Type: multicastregistry.WatchSynced})
}

// page tells a page of the snapshot, and then what is new, since the page before, of identities up to the end of this page.
func (s *session) page(page *multicastregistry.Selected, after *multicastregistry.Place, net []told) error {
	var events []multicastregistry.WatchEvent
	for i := range page.Identities {
		events = append(events, multicastregistry.WatchEvent{
			Type: multicastregistry.WatchPresent, Identity: page.Identities[i],
		})
	}
	if len(events) > 0 {
		if err := s.tell(events...); err != nil {
			return err
		}
	}
	var list []told
	for _, c := range net {
		if page.More && c.id() > page.Last.ID {
			continue
		}
		if after == nil || c.id() > after.ID { // the page tells what was
			n, known := slices.BinarySearchFunc(page.Identities, c.id(), func(i multicastregistry.Identity, id string) int {
				return strings.Compare(i.ID, id)
			})
			switch {
			case known && c.is && page.Identities[n].Revision >= c.after.Revision:
				continue
			case known && !c.is:
				c.entry = &entry{seq: c.seq, at: c.at, before: &page.Identities[n], after: c.after, reason: c.reason}
			}
			c.was = known
		}
		list = append(list, c)
	}
	for len(list) > 0 {
		n, size := 0, 0
		for ; n < len(list) && n < s.hub.page && (n == 0 || size < maxNewsBytes); n++ {
			size += list[n].size()
		}
		if err := s.list(list[:n]); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}
