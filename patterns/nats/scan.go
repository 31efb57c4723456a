package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
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
	// pageOfAll is how many messages one answer has when everything is read, pagesAhead how many answers may wait to be visited,
	// and pagesBeyond how many are read behind what was there at first.
	pageOfAll   = 2000
	pagesAhead  = 2
	pagesBeyond = 500
	// retryBehind is the pause before a replica that is behind is asked again.
	retryBehind = 5 * time.Millisecond
)

// Scan implements multicastregistry.Registry, and filters exactly, here: a bucket has no filters.
func (r *Registry) Scan(ctx context.Context, match *filter.Expr) iter.Seq2[multicastregistry.Identity, error] {
	return func(yield func(multicastregistry.Identity, error) bool) {
		stopped := false
		err := r.walk(ctx, func(name string, s state) error {
			now := r.clock.estimate()
			ended, err := r.over(ctx, &s, now)
			if err != nil {
				return err
			}
			id, ok := multicastregistry.DecodeName(name)
			if ended || !ok {
				if ok && s.present && s.record.over(now.Add(-r.lag), r.keeper.known()) {
					r.keeper.bury(name, s.seq)
				}
				return nil
			}
			found := s.record.identity(id, s.registration(), r.keeper.known())
			if found.Metadata, err = multicastregistry.DecodeMetadata(found.Encoded); err != nil {
				return fmt.Errorf("the record of %q: %w", id, err)
			}
			found.Encoded = ""
			if !filter.Match(match, found.Metadata) {
				return nil
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

// everything visits what each key's last message says, at least once, and newer states later. It is for who follows the changes
// behind a sequence as well. A bucket of one replica is read from its begin to its end, where everything is that was rewritten
// meanwhile: several times as fast as by its keys.
func (r *Registry) everything(ctx context.Context, head uint64, visit func(name string, s state) error) error {
	if r.bucket.replicas.Load() != 1 {
		return r.walk(ctx, visit)
	}
	reading, stop := context.WithCancel(ctx)
	pages := make(chan []streamMsg, pagesAhead)
	var failure error
	var reader sync.WaitGroup
	defer reader.Wait()
	defer stop()
	reader.Go(func() {
		defer close(pages)
		failure = r.readThrough(reading, head, pages)
	})
	for page := range pages {
		for _, m := range page {
			if err := r.visitOne(ctx, m, visit); err != nil {
				return err
			}
		}
	}
	if errors.Is(failure, errNoEnd) {
		return r.walk(ctx, visit)
	}
	return failure
}

// errNoEnd says that a bucket is rewritten faster than it is read.
var errNoEnd = errors.New("there is no end")

// readThrough reads a bucket from its begin to its end: until there is nothing where it goes on.
func (r *Registry) readThrough(ctx context.Context, head uint64, pages chan<- []streamMsg) error {
	reader, err := r.bucket.open()
	if err != nil {
		return err
	}
	defer reader.close()
	for next, beyond := uint64(1), 0; ; {
		body := fmt.Appendf(nil, `{"seq":%d,"next_by_subj":">","batch":%d,"max_bytes":%d}`, next, pageOfAll, scanAnswer)
		p, err := reader.read(ctx, body)
		if err != nil || len(p.messages) == 0 {
			return err
		}
		select {
		case pages <- p.messages:
		case <-ctx.Done():
			return ctx.Err()
		}
		if p.pending == 0 { // at the end of the answer, not at its begin
			return nil
		}
		if next = p.messages[len(p.messages)-1].seq + 1; next > head {
			if beyond++; beyond > pagesBeyond {
				return errNoEnd
			}
		}
	}
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
	s, err := parseState(m)
	if err != nil {
		return fmt.Errorf("%s: %w", m.subject, err)
	}
	return visit(r.name(m), s)
}
