package slottest

import (
	"context"
	"iter"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// Copied is a registry that answers reads from a copy.
type Copied interface {
	mr.Registry
	mr.Header
	mr.Copy
	mr.Finder
	mr.Prober
	mr.Pinger
	mr.Watcher
}

// Strong makes every read of a copy reflect all that was written before, as a coordinator does for strong consistency: so it
// keeps the contract of a Registry.
func Strong(copied Copied) mr.Registry { return strong{copied} }

type strong struct{ Copied }

func (s strong) reach(ctx context.Context) error {
	head, err := s.Head(ctx)
	if err == nil {
		_, err = s.Reach(ctx, head)
	}
	return err
}

// Scan implements mr.Registry.
func (s strong) Scan(ctx context.Context, match *filter.Expr) iter.Seq2[mr.Identity, error] {
	return after(s.reach, ctx, s.Copied.Scan(ctx, match))
}

// Find implements mr.Finder.
func (s strong) Find(ctx context.Context, match *filter.Expr) iter.Seq2[string, error] {
	return after(s.reach, ctx, s.Copied.Find(ctx, match))
}

// Live implements mr.Prober.
func (s strong) Live(ctx context.Context, ids []string) ([]bool, error) {
	if err := s.reach(ctx); err != nil {
		return nil, err
	}
	return s.Copied.Live(ctx, ids)
}

// Watch implements mr.Watcher.
func (s strong) Watch(ctx context.Context, w mr.Watch) iter.Seq2[mr.News, error] {
	return after(s.reach, ctx, s.Copied.Watch(ctx, w))
}

// Ping implements mr.Pinger, once the copy is there.
func (s strong) Ping(ctx context.Context) error {
	if err := s.reach(ctx); err != nil {
		return err
	}
	return s.Copied.Ping(ctx)
}

func after[T any](reach func(context.Context) error, ctx context.Context, all iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		if err := reach(ctx); err != nil {
			var none T
			yield(none, err)
			return
		}
		all(yield)
	}
}
