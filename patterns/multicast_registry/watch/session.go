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
	// BookmarkEvery is how often a watcher is told where it is while nothing happens.
	BookmarkEvery = 10 * time.Second
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

// session is one call of Watch.
type session struct {
	hub     *Hub
	yield   func(multicastregistry.News, error) bool
	watcher *watcher
	omit    bool   // no snapshots
	name    string // of the filter

	here   place  // what was told
	synced bool   // here is a place to go on from
	token  string // what was said last to go on from
	told   bool   // anything, by this watch or the one that it goes on from
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
			if err := s.hub.source.Reach(ctx, 0); err != nil {
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
		case time.Since(told) >= BookmarkEvery:
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
	reach := multicastregistry.Revision(0)
	if p.epoch == s.hub.currentEpoch() && !s.hub.cfg.Unordered {
		reach = multicastregistry.Revision(p.at)
	}
	s.token, s.told = token, true
	return &p, s.hub.source.Reach(ctx, reach)
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
	s.synced, s.token = false, ""
	if s.told { // else there is nothing to be void
		if err := s.tell(multicastregistry.WatchEvent{Type: multicastregistry.WatchReset}); err != nil {
			return err
		}
	}
	return s.snapshot(ctx)
}

// changes tells changes, each with the place behind it, or, in net form, all with the place behind the last.
func (s *session) changes(b *batch) error {
	unseen(b.changes, s.here.since)
	if b.net {
		b.changes = netOf(b.changes)
	}
	return s.list(b, b.changes)
}

// list tells changes that were taken as a batch.
func (s *session) list(b *batch, list []told) error {
	list = slices.DeleteFunc(list, func(c told) bool { return !c.was && !c.is })
	events, size := []multicastregistry.WatchEvent(nil), 0
	for n := range list {
		e := list[n].event()
		events = append(events, e)
		size += weight(&e.Identity)
		last := n == len(list)-1
		if !last && (len(events) < s.hub.page && size < maxNewsBytes || list[n+1].at == list[n].at) {
			continue
		}
		switch {
		case last:
			s.at(b)
		case !b.net:
			s.here.at, s.here.epoch = list[n].at, b.epoch
		}
		tell := s.tell
		if b.net && !last { // there is no place in the middle: who goes on from the place before is told all of them again
			tell = s.tellMore
		}
		if err := tell(events...); err != nil {
			return err
		}
		events, size = nil, 0
	}
	return nil
}

func weight(i *multicastregistry.Identity) int { return len(i.ID) + len(i.Encoded) + 64 }

// tell yields events after which a watcher can go on.
func (s *session) tell(events ...multicastregistry.WatchEvent) error {
	if s.synced {
		s.token = s.here.token(s.name)
	}
	return s.tellMore(events...)
}

// tellMore yields events after which a watcher goes on from where it could before.
func (s *session) tellMore(events ...multicastregistry.WatchEvent) error {
	s.told = true
	if !s.yield(multicastregistry.News{Events: events, Token: s.token}, nil) {
		return errStop
	}
	return nil
}

// snapshot tells all that match, and what changes meanwhile, up to Synced; see the package's comment. It begins again when it
// has to.
func (s *session) snapshot(ctx context.Context) error {
	s.here, s.synced = place{}, false
	now := s.hub.source.Now().Truncate(time.Millisecond) // of all pages: so it is known whom they do not show
	if !s.omit {
		s.here.since = now
	}
	for after := (*multicastregistry.Place)(nil); ; {
		var page multicastregistry.Selected
		if !s.omit {
			var err error
			page, err = s.hub.source.Query(ctx, now, multicastregistry.Selection{
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
			unseen(b.changes, s.here.since)
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
	b := batch{net: true, at: s.here.at, epoch: s.here.epoch}
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
			case !known && c.is && ended(c.after, s.here.since): // it was registered before the snapshot, which does not show it
				continue
			case known && !c.is:
				c.entry = &entry{seq: c.seq, at: c.at, before: &page.Identities[n], after: c.after, reason: c.reason}
			}
			c.was = known
		}
		list = append(list, c)
	}
	return s.list(&b, list)
}
