package index

import (
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// sweepAtOnce is how many documents are removed while the segment is locked.
const sweepAtOnce = 64

// Sweep removes up to most identities whose lease has ended, a few at a time so that nobody waits for long, and returns them
// with Encoded only. More says that there may be others.
func (ix *Index) Sweep(now time.Time, most int) (expired []multicastregistry.Identity, more bool) {
	at := clock(now)
	c := ix.content.Load()
	for _, s := range *c.segments.Load() {
		for s.earliest.Load() <= at {
			limit := min(sweepAtOnce, most-len(expired))
			if limit <= 0 {
				return expired, true
			}
			gone, ok := ix.sweep(c, s, at, limit)
			if !ok {
				return expired, false
			}
			if len(gone) == 0 {
				break
			}
			expired = append(expired, gone...)
		}
	}
	return expired, false
}

// sweep is not ok after a Reset.
func (ix *Index) sweep(c *content, s *segment, now int64, limit int) (gone []multicastregistry.Identity, ok bool) {
	ix.write.Lock()
	defer ix.write.Unlock()
	if ix.content.Load() != c {
		return nil, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	slots, _ := s.lapsedSlots(now, limit)
	for _, slot := range slots {
		gone = append(gone, c.remove(s, slot))
	}
	return gone, true
}
