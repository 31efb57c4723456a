package nats

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// How a scan misses nothing, sees every change acknowledged before it, and ends however fast records are rewritten: it asks
// the leader which keys there are and what the last sequence is, in one answer. Whatever is live throughout has its key there.
// Then it reads the last record of each key, a page of keys at a time. Any replica may answer, from one state of its own, and
// says up to which sequence it has got; one that is behind what the leader had is asked again. A key that such an answer lacks
// was removed, or rewritten while the answer was put together, so the leader is asked about that one. So each key is read
// once, from a state no older than the scan, and there is nothing to chase.

const (
	// scanKeys and scanRequest are the most keys, and bytes of their subjects, in one request: the server allows 1024 keys.
	scanKeys    = 500
	scanRequest = 256 << 10
	// scanAnswer is about how many bytes one answer has.
	scanAnswer = 4 << 20
	// keysOverlap is by how many keys two pages of the leader's list must overlap where it does not fit into one.
	keysOverlap = 1000
	// retryBehind is the pause before a replica that is behind is asked again.
	retryBehind = 5 * time.Millisecond
)

// Scan implements multicastregistry.Registry, and filters exactly, here: a bucket has no filters.
func (r *Registry) Scan(ctx context.Context, match *filter.Expr) iter.Seq2[multicastregistry.Identity, error] {
	return func(yield func(multicastregistry.Identity, error) bool) {
		stopped := false
		err := r.walk(ctx, func(name string, s state) error {
			if !s.live(r.clock.estimate()) {
				return nil
			}
			id, ok := multicastregistry.DecodeName(name)
			if !ok {
				return nil
			}
			found, err := s.record.identity(id, s.registration())
			if err != nil || !filter.Match(match, found.Metadata) {
				return err
			}
			if stopped = !yield(found, nil); stopped {
				return errStopped
			}
			return nil
		})
		if err != nil && !stopped {
			yield(multicastregistry.Identity{}, wrap("scan", "", err))
		}
	}
}

// errStopped says that the consumer of an iterator wants no more.
var errStopped = errors.New("stopped")

// walk visits what each key's last message says, once. An error of visit ends it.
func (r *Registry) walk(ctx context.Context, visit func(name string, s state) error) error {
	if _, err := r.clock.now(ctx); err != nil {
		return err
	}
	keys, head, err := r.bucket.subjects(ctx, ">")
	if err != nil || len(keys) == 0 {
		return err
	}
	reader, err := r.bucket.open()
	if err != nil {
		return err
	}
	defer reader.close()
	for len(keys) > 0 {
		n, size := 0, 0
		for n < len(keys) && n < scanKeys && (n == 0 || size+len(keys[n]) <= scanRequest) {
			size += len(keys[n])
			n++
		}
		if err := r.readKeys(ctx, reader, keys[:n], head, visit); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

// readKeys visits the last message of each of a few keys.
func (r *Registry) readKeys(
	ctx context.Context, reader *reader, keys []string, head uint64, visit func(name string, s state) error,
) error {
	for len(keys) > 0 {
		body, err := json.Marshal(struct {
			Last     []string `json:"multi_last"`
			MaxBytes int      `json:"max_bytes"`
		}{keys, scanAnswer})
		if err != nil {
			return err
		}
		p, err := reader.read(ctx, body)
		if err != nil {
			return err
		}
		if len(p.messages) > 0 && p.upTo < head {
			if err := wait(ctx, retryBehind); err != nil {
				return err
			}
			continue
		}
		missing := keys
		if len(p.messages) > 0 {
			got := make(map[string]struct{}, len(p.messages))
			for _, m := range p.messages {
				got[m.subject] = struct{}{}
			}
			missing = slices.DeleteFunc(slices.Clone(keys), func(key string) bool { _, ok := got[key]; return ok })
		}
		for _, m := range p.messages {
			if err := r.visitOne(ctx, m, visit); err != nil {
				return err
			}
		}
		if keys = missing; len(p.messages) > 0 && p.pending > 0 {
			continue // the answer was full
		}
		for _, key := range missing {
			m, ok, err := r.bucket.last(ctx, key)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			if err := r.visitOne(ctx, m, visit); err != nil {
				return err
			}
		}
		return nil
	}
	return nil
}

func (r *Registry) visitOne(ctx context.Context, m streamMsg, visit func(name string, s state) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return visit(r.name(m), parseState(m))
}
