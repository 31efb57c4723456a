package multicastregistry

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"sync"
	"time"
)

// ids makes version 7 UUIDs: unique, and ordered by time; those of one process in the order in which they were made.
type ids struct {
	mu   sync.Mutex
	last uint64 // the ms of the Unix epoch, and 12 bits that count within one
}

func (s *ids) next(now time.Time) string {
	var u [16]byte
	_, _ = rand.Read(u[8:]) // documented never to fail
	s.mu.Lock()
	s.last = max(uint64(now.UnixMilli())<<12, s.last+1)
	at := s.last
	s.mu.Unlock()
	binary.BigEndian.PutUint64(u[:8], at>>12<<16|7<<12|at&0xfff)
	u[8] = u[8]&0x3f | 0x80
	h := hex.EncodeToString(u[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
