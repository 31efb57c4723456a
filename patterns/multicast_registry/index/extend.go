package index

import (
	"math/bits"
	"sync/atomic"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// extendAtOnce is how many words of the bitmap of documents are gone through while renewals of the segment wait.
const extendAtOnce = 16

// Extend makes every lease that ends after since, if ever, last for at least its TTL from until on. Queries and renewals go
// next to it.
func (ix *Index) Extend(since, until time.Time) {
	from, at := nanos(since), nanos(until)
	for _, s := range *ix.content.Load().segments.Load() {
		for word := 0; word < len(s.live); word += extendAtOnce {
			s.extend(word, from, at)
		}
	}
}

// extend goes through some words of the bitmap from one of them on. No lease ends sooner for it, so earliest stays true.
func (s *segment) extend(from int, since, until int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.lease.Lock()
	defer s.lease.Unlock()
	for i, word := range s.live[from:min(from+extendAtOnce, len(s.live))] {
		for ; word != 0; word &= word - 1 {
			slot := uint16((from+i)<<6 | bits.TrailingZeros64(word))
			ttl := atomic.LoadInt64(&s.records[slot].ttl)
			expires := atomic.LoadInt64(&s.expires[slot])
			if ttl == int64(multicastregistry.NoExpiry) || expires <= since || expires >= until+ttl {
				continue
			}
			atomic.StoreInt64(&s.records[slot].expires, until+ttl)
			atomic.StoreInt64(&s.expires[slot], until+ttl)
		}
	}
}
