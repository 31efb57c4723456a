package redis

import (
	"context"
	"iter"
	"sync"

	"github.com/redis/rueidis"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// snapshotAhead is how many batches a snapshot reads ahead.
const snapshotAhead = 2

// batches yields all live identities as Scan does, with Encoded, a batch of the scan at a time, and the error as the last
// element. While the reader is busy with one, the next one is decoded, and Redis reads the one after that.
func (r *Registry) batches(ctx context.Context) iter.Seq2[[]multicastregistry.Identity, error] {
	return func(yield func([]multicastregistry.Identity, error) bool) {
		reading, stop := context.WithCancel(ctx)
		var stages sync.WaitGroup
		defer stages.Wait()
		defer stop()
		s := newScan(r, "", asEncoded())
		raw := make(chan batch[rueidis.RedisMessage], snapshotAhead)
		ready := make(chan batch[multicastregistry.Identity], snapshotAhead)
		stages.Go(func() { fetch(reading, s, raw) })
		stages.Go(func() { interpret(reading, s, raw, ready) })
		for b := range ready {
			if !yield(b.items, b.err) || b.err != nil {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// batch is what a stage of a snapshot hands to the next; with an error it is the last one.
type batch[T any] struct {
	items []T
	err   error
}

// forward hands a batch on, unless the reading ends.
func forward[T any](ctx context.Context, to chan<- batch[T], b batch[T]) bool {
	select {
	case to <- b:
		return b.err == nil
	case <-ctx.Done():
		return false
	}
}

// fetch reads batches from Redis.
func fetch(ctx context.Context, s *scan, to chan<- batch[rueidis.RedisMessage]) {
	defer close(to)
	for !s.done() {
		matches, err := s.batch(ctx)
		if !forward(ctx, to, batch[rueidis.RedisMessage]{matches, err}) {
			return
		}
	}
}

// interpret makes identities of what was read.
func interpret(
	ctx context.Context, s *scan, from <-chan batch[rueidis.RedisMessage], to chan<- batch[multicastregistry.Identity],
) {
	defer close(to)
	for b := range from {
		next := batch[multicastregistry.Identity]{make([]multicastregistry.Identity, 0, len(b.items)/matchFields), b.err}
		if next.err == nil {
			_, next.err = s.yield(ctx, b.items, func(identity multicastregistry.Identity, _ error) bool {
				next.items = append(next.items, identity)
				return true
			})
		}
		if !forward(ctx, to, next) {
			return
		}
	}
}
