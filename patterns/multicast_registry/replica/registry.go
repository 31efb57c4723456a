package replica

import (
	"context"
	"fmt"
	"iter"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

var (
	_ multicastregistry.Registry = (*Registry)(nil)
	_ multicastregistry.Header   = (*Registry)(nil)
	_ multicastregistry.Copy     = (*Registry)(nil)
	_ multicastregistry.Querier  = (*Registry)(nil)
	_ multicastregistry.Finder   = (*Registry)(nil)
	_ multicastregistry.Prober   = (*Registry)(nil)
	_ multicastregistry.Counter  = (*Registry)(nil)
	_ multicastregistry.Pinger   = (*Registry)(nil)
	_ multicastregistry.Watcher  = (*Registry)(nil)
)

// Put implements multicastregistry.Registry. Reads through this registry wait until they reflect it.
func (r *Registry) Put(
	ctx context.Context, identity multicastregistry.Identity, mode multicastregistry.PutMode,
) (multicastregistry.Identity, error) {
	stored, err := r.source.Put(ctx, identity, mode)
	if err == nil {
		r.wrote(stored.Revision)
	}
	return stored, err
}

func (r *Registry) wrote(revision multicastregistry.Revision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.floor = max(r.floor, revision)
}

// Renew implements multicastregistry.Registry. The copy has the lease at once, unless it has changed meanwhile: what it has
// then may be later than this renewal, and reads through this registry wait until they reflect all there is.
func (r *Registry) Renew(ctx context.Context, id string, ttl time.Duration) (multicastregistry.Lease, error) {
	was, known := r.copied.Load().Get(id)
	lease, err := r.source.Renew(ctx, id, ttl)
	if err != nil || known && was.Revision == lease.Of && r.copied.Load().RenewIf(was, lease.TTL, lease.ExpiresAt) {
		return lease, err
	}
	r.reflectHead(ctx)
	return lease, nil
}

// Delete implements multicastregistry.Registry. Reads through this registry wait until they reflect it.
func (r *Registry) Delete(ctx context.Context, id string, only multicastregistry.Revision) (existed bool, err error) {
	existed, err = r.source.Delete(ctx, id, only)
	if err == nil && existed {
		r.reflectHead(ctx)
	}
	return existed, err
}

// reflectHead makes reads through this registry wait for what is there by now. Should the source not tell what that is, the next
// one asks again.
func (r *Registry) reflectHead(ctx context.Context) {
	head, err := r.source.Head(ctx)
	if err == nil {
		r.wrote(head)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blind++
}

// Scan implements multicastregistry.Registry, exactly. Like every read it is as recent as the copy: see Reach.
func (r *Registry) Scan(ctx context.Context, match *filter.Expr) iter.Seq2[multicastregistry.Identity, error] {
	if r.native.Load() {
		return r.source.Scan(ctx, match)
	}
	return func(yield func(multicastregistry.Identity, error) bool) {
		for identity, err := range r.copied.Load().Scan(ctx, r.now(), match) {
			if err == nil && ended(&identity, r.now()) {
				continue
			}
			if err == nil {
				identity.Metadata, err = multicastregistry.DecodeMetadata(identity.Encoded)
				identity.Encoded = ""
			}
			if err != nil {
				yield(multicastregistry.Identity{}, fmt.Errorf("scan the copy: %w", err))
				return
			}
			if !yield(identity, nil) {
				return
			}
		}
	}
}

func ended(i *multicastregistry.Identity, now time.Time) bool {
	return !i.ExpiresAt.IsZero() && !now.Before(i.ExpiresAt)
}

// Find implements multicastregistry.Finder.
func (r *Registry) Find(ctx context.Context, match *filter.Expr) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		names, err := r.names(ctx, match)
		if err != nil {
			yield("", fmt.Errorf("find in the copy: %w", err))
			return
		}
		for _, name := range names {
			if !yield(name, nil) {
				return
			}
		}
	}
}

func (r *Registry) names(ctx context.Context, match *filter.Expr) (names []string, err error) {
	if !r.native.Load() {
		return r.copied.Load().Find(ctx, r.now(), match)
	}
	for identity, err := range r.source.Scan(ctx, match) {
		if err != nil {
			return nil, err
		}
		if filter.Match(match, identity.Metadata) {
			names = append(names, identity.ID)
		}
	}
	return names, nil
}

// Query implements multicastregistry.Querier.
func (r *Registry) Query(ctx context.Context, q multicastregistry.Selection) (multicastregistry.Selected, error) {
	if r.native.Load() {
		return multicastregistry.Scanning(r.source).Query(ctx, q)
	}
	found, err := r.copied.Load().Query(ctx, r.now(), q)
	if err != nil {
		return found, fmt.Errorf("query the copy: %w", err)
	}
	return found, nil
}

// Head implements multicastregistry.Header: it is the source's.
func (r *Registry) Head(ctx context.Context) (multicastregistry.Revision, error) {
	return r.source.Head(ctx)
}

// Live implements multicastregistry.Prober.
func (r *Registry) Live(ctx context.Context, ids []string) ([]bool, error) {
	if _, err := r.Reach(ctx, 0); err != nil {
		return nil, err
	}
	if prober, ok := r.source.(multicastregistry.Prober); ok && r.native.Load() {
		return prober.Live(ctx, ids)
	}
	return r.copied.Load().Live(r.now(), ids), nil
}

// Count implements multicastregistry.Counter.
func (r *Registry) Count(ctx context.Context) (int, error) {
	if counter, ok := r.source.(multicastregistry.Counter); ok {
		return counter.Count(ctx)
	}
	if _, err := r.Reach(ctx, 0); err != nil {
		return 0, err
	}
	return r.copied.Load().Len(r.now()), nil
}

// Ping implements multicastregistry.Pinger. A copy that does not answer is as bad as a backend that does not.
func (r *Registry) Ping(ctx context.Context) error {
	if pinger, ok := r.source.(multicastregistry.Pinger); ok {
		if err := pinger.Ping(ctx); err != nil {
			return err
		}
	}
	return watched{r}.Current()
}

// Watch implements multicastregistry.Watcher. It ends with ErrUnavailable when the copy is older than it may be.
func (r *Registry) Watch(ctx context.Context, w multicastregistry.Watch) iter.Seq2[multicastregistry.News, error] {
	return r.hub.Watch(ctx, w)
}

// watched is the copy as those see it who watch.
type watched struct{ r *Registry }

// Query implements watch.Source.
func (w watched) Query(
	ctx context.Context, now time.Time, q multicastregistry.Selection,
) (multicastregistry.Selected, error) {
	return w.r.copied.Load().Query(ctx, now, q)
}

// Current implements watch.Source.
func (w watched) Current() error {
	w.r.mu.Lock()
	heard := w.r.heard
	w.r.mu.Unlock()
	if w.r.native.Load() || !heard.IsZero() && time.Since(heard) <= w.r.cfg.MaxStaleness {
		return nil
	}
	return w.r.behind(0)
}

// Reach implements watch.Source.
func (w watched) Reach(ctx context.Context, revision multicastregistry.Revision) error {
	_, err := w.r.Reach(ctx, revision)
	return err
}

var (
	_ multicastregistry.Fielder  = (*Registry)(nil)
	_ multicastregistry.Follower = (*Registry)(nil)
	_ multicastregistry.Sourcer  = (*Registry)(nil)
)

// Followed implements multicastregistry.Follower.
func (r *Registry) Followed() (multicastregistry.Followed, bool) {
	if r.native.Load() {
		return multicastregistry.Followed{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	current := r.heard
	if current.IsZero() {
		current = r.began
	}
	return multicastregistry.Followed{Revision: r.reached, Current: current, Expired: r.expired.Load()}, true
}

// Fields implements multicastregistry.Fielder: the copy knows them.
func (r *Registry) Fields() (multicastregistry.Fields, time.Time) {
	if r.native.Load() {
		return nil, time.Time{}
	}
	return r.copied.Load(), r.now()
}

// Source implements multicastregistry.Sourcer.
func (r *Registry) Source() multicastregistry.Source {
	if !r.native.Load() {
		return multicastregistry.SourceIndex
	}
	if sourcer, ok := r.source.(multicastregistry.Sourcer); ok {
		return sourcer.Source()
	}
	return multicastregistry.SourceScan
}
