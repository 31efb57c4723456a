package proxy

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// sparing writes what may come again and again, of a backend that is away or a caller who wants to fill a disk, so many times and
// then once each while, with how many like it were not written. Nothing is lost without being counted.
type sparing struct {
	log *slog.Logger

	mu    sync.Mutex
	kinds map[kindName]*kind
}

// kindName names lines that are alike: what they are about, such as a method, and which, such as a code.
type kindName struct{ what, which string }

const (
	// mostLines is how many lines of a kind are written within sparingTime, of those that come first.
	mostLines   = 10
	sparingTime = time.Second
)

// kind is what is known of lines that are alike.
type kind struct {
	since   time.Time // when the first line of those that are counted was written
	written int
	left    int         // lines that were not written
	last    line        // of those
	due     *time.Timer // writes it
}

type line struct {
	level   slog.Level
	message string
	attrs   []slog.Attr
}

func newSparing(log *slog.Logger) *sparing {
	return &sparing{log: log, kinds: make(map[kindName]*kind)}
}

// write writes a line, or counts it. There must be few kinds: their names are remembered.
func (s *sparing) write(ctx context.Context, level slog.Level, name kindName, message string, attrs ...slog.Attr) {
	if !s.log.Enabled(ctx, level) {
		return
	}
	s.mu.Lock()
	k := s.kinds[name]
	if k == nil {
		k = &kind{}
		s.kinds[name] = k
	}
	now := time.Now()
	if now.Sub(k.since) >= sparingTime && k.left == 0 {
		k.since, k.written = now, 0
	}
	if k.written < mostLines {
		k.written++
		s.mu.Unlock()
		s.log.LogAttrs(ctx, level, message, attrs...) //nolint:sloglint // callers have constants
		return
	}
	defer s.mu.Unlock()
	k.left++
	k.last = line{level: level, message: message, attrs: attrs}
	if k.due == nil {
		//nolint:contextcheck // the call has ended by then
		k.due = time.AfterFunc(k.since.Add(sparingTime).Sub(now), func() { s.catchUp(k) })
	}
}

// catchUp writes the last of the lines that were not written, and how many others there were. Until then k.left keeps the next
// ones from being written, so that the order is kept.
func (s *sparing) catchUp(k *kind) {
	s.mu.Lock()
	if k.left == 0 { // somebody else was here
		s.mu.Unlock()
		return
	}
	last, others := k.last, k.left-1
	if k.due != nil {
		k.due.Stop()
	}
	k.left, k.due, k.last = 0, nil, line{}
	k.since, k.written = time.Now(), 1
	s.mu.Unlock()
	if others > 0 {
		last.attrs = append(slices.Clone(last.attrs), slog.Int("not_written", others))
	}
	s.log.LogAttrs(context.Background(), last.level, last.message, last.attrs...) //nolint:sloglint // as above
}

// flush writes what waits to be written.
func (s *sparing) flush() {
	s.mu.Lock()
	var all []*kind
	for _, k := range s.kinds {
		if k.left > 0 {
			all = append(all, k)
		}
	}
	s.mu.Unlock()
	for _, k := range all {
		s.catchUp(k)
	}
}
