package index

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// Query answers as a Querier does, at a time: a lease that ends then has ended. Revision is left to the caller. It fails only
// with the context's error.
func (ix *Index) Query(
	ctx context.Context, now time.Time, q multicastregistry.Selection,
) (answer multicastregistry.Selected, err error) {
	c := ix.content.Load()
	began := c.stamp.Load()
	b := newByName(c, clock(now), q.Match)
	defer b.close()
	counts := newCounts(q)
	b.unlocked = counts.merge
	page := page{limit: q.Limit, bytes: q.MaxBytes, identities: q.Into[:0]}
	switch {
	case q.Limit <= 0:
		err = b.each(ctx, func(s *segment, selected set) { counts.count(&b.eval, s, selected) })
	case len(q.Order) > 0:
		sorted := newSorted(q, began)
		err = b.each(ctx, func(s *segment, selected set) {
			counts.count(&b.eval, s, selected)
			sorted.offer(&b.eval, selected)
		})
		if err == nil {
			sorted.emit(page.add)
			answer.Last = sorted.place(len(page.identities))
		}
	default:
		if q.After != nil {
			b.after, b.from = q.After.ID, true
		}
		b.wanted = q.Limit + 1
		if err = b.collect(ctx, func(s *segment, selected set) { counts.count(&b.eval, s, selected) }); err == nil {
			page.identities = slices.Grow(page.identities, min(q.Limit, b.selected))
			b.emit(ctx, page.add)
			err = ctxError(ctx)
		}
		if n := len(page.identities); n > 0 {
			answer.Last = &multicastregistry.Place{ID: page.identities[n-1].ID}
		}
	}
	if err != nil {
		return multicastregistry.Selected{}, err
	}
	answer.Identities, answer.More = page.identities, page.more
	if q.Total {
		answer.Total = counts.total
	}
	answer.Groups = counts.groups()
	return answer, nil
}

func ctxError(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	return nil
}

// page takes identities until it is full.
type page struct {
	limit, bytes int
	size         int
	identities   []multicastregistry.Identity
	more         bool
}

// add is false when the page was full.
func (p *page) add(f *found) bool {
	p.size += 64 + len(f.text)
	if len(p.identities) == p.limit || p.bytes > 0 && p.size > p.bytes && len(p.identities) > 0 {
		p.more = true
		return false
	}
	n := len(p.identities)
	p.identities = slices.Grow(p.identities, 1)[:n+1]
	f.write(&p.identities[n])
	return true
}

// Find returns the names of the identities that match, in order.
func (ix *Index) Find(ctx context.Context, now time.Time, match *filter.Expr) ([]string, error) {
	b := newByName(ix.content.Load(), clock(now), match)
	defer b.close()
	if err := b.collect(ctx, func(*segment, set) {}); err != nil {
		return nil, err
	}
	ids := make([]string, 0, b.selected)
	b.emit(ctx, func(f *found) bool {
		ids = append(ids, f.id())
		return true
	})
	return ids, ctxError(ctx)
}

// Scan yields the identities that match, with Encoded only, in order of their names: all that match from the start of the
// scan to its end, and none twice. The context's error comes as the last element. The caller may call any method while it
// ranges.
func (ix *Index) Scan(
	ctx context.Context, now time.Time, match *filter.Expr,
) iter.Seq2[multicastregistry.Identity, error] {
	return func(yield func(multicastregistry.Identity, error) bool) {
		b := newByName(ix.content.Load(), clock(now), match)
		defer b.close()
		err := b.collect(ctx, func(*segment, set) {})
		broken := false
		if err == nil {
			n := 0
			b.emit(ctx, func(f *found) bool {
				if n++; n%256 == 0 && ctx.Err() != nil {
					return false
				}
				broken = !yield(f.identity(), nil)
				return !broken
			})
			err = ctxError(ctx)
		}
		if err != nil && !broken {
			yield(multicastregistry.Identity{}, err)
		}
	}
}

// Count counts the identities that match.
func (ix *Index) Count(now time.Time, match *filter.Expr) int {
	q := ix.content.Load().search(clock(now), match)
	defer q.close()
	n := 0
	q.each(context.Background(), func(_ *segment, selected set) { n += selected.n }) //nolint:errcheck // only the context fails
	return n
}
