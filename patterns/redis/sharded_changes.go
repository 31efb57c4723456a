package redis

import (
	"context"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// mergeBuffer is how many changes wait between the feeds of the shards and the reader of all.
const mergeBuffer = 64

// Changes implements multicastregistry.Changes. It merges the feeds of the shards, each of which occupies a connection, so
// the order of changes holds for each identity. Synced comes when all shards have said so since the last time, and tells the
// lowest of their revisions: up to there no change is to come. When one shard has to begin again, all do.
//
// An Extend is for the identities of all shards. So after an outage of some of them, those of the others that end without a
// renewal seem to last until a sweep has met them.
func (s *Sharded) Changes(
	ctx context.Context, after multicastregistry.Position,
) iter.Seq2[multicastregistry.Change, error] {
	return func(yield func(multicastregistry.Change, error) bool) {
		positions := s.split(after)
		for pause := restartPause; ; pause = min(2*pause, maxRestartPause) {
			m := newMerge(s, positions, yield)
			err := m.run(ctx)
			if err == errStop { //nolint:errorlint // our own, and never wrapped
				return
			}
			if err == errGap { //nolint:errorlint // our own, and never wrapped
				if m.settled {
					pause = restartPause
				}
				select {
				case <-ctx.Done():
					err = ctx.Err()
				case <-time.After(pause):
					positions = nil
					continue
				}
			}
			yield(multicastregistry.Change{}, s.shards[0].conn.wrap(ctx, "changes", "", err))
			return
		}
	}
}

// split returns the positions of the shards; nil when they cannot be told.
func (s *Sharded) split(p multicastregistry.Position) []multicastregistry.Position {
	parts := strings.Split(string(p), ",")
	if len(parts) != len(s.shards) {
		return nil
	}
	positions := make([]multicastregistry.Position, len(parts))
	for i, part := range parts {
		positions[i] = multicastregistry.Position(part)
		if _, ok := parsePosition(positions[i]); !ok {
			return nil
		}
	}
	return positions
}

// shardChange is an element of one shard's feed.
type shardChange struct {
	shard  int
	change multicastregistry.Change
	err    error
}

// merge is the state of the feeds of all shards together.
type merge struct {
	sharded *Sharded
	yield   func(multicastregistry.Change, error) bool

	fresh   bool // it begins with a Reset, and so does each shard
	settled bool // the reader has an exact copy
	at      []multicastregistry.Position
	began   []bool                       // the shard's Reset has come
	synced  []bool                       // since the reader was told last
	level   []multicastregistry.Revision // of the shard, when it was Synced last
	missing int                          // how many are not synced
	away    outage                       // of one of the shards, that is not recorded yet
}

func newMerge(
	s *Sharded, positions []multicastregistry.Position, yield func(multicastregistry.Change, error) bool,
) *merge {
	n := len(s.shards)
	m := &merge{
		sharded: s, yield: yield, fresh: positions == nil, settled: positions != nil, at: slices.Clone(positions),
		began: make([]bool, n), synced: make([]bool, n), level: make([]multicastregistry.Revision, n), missing: n,
	}
	if m.fresh {
		m.at = make([]multicastregistry.Position, n)
	}
	return m
}

// run reads the feeds of all shards until one fails, or the reader has had enough. It is errGap when all must begin again.
func (m *merge) run(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.fresh {
		if err := m.emit(multicastregistry.Change{Kind: multicastregistry.Reset}); err != nil {
			return err
		}
	}
	reading, stop := context.WithCancel(ctx)
	changes := make(chan shardChange, mergeBuffer)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer stop()
	for shard, r := range m.sharded.shards {
		after := m.at[shard] // taken here: take changes it
		readers.Go(func() {
			for c, err := range r.Changes(reading, after) {
				select {
				case changes <- shardChange{shard, c, err}:
				case <-reading.Done():
					return
				}
			}
		})
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case c := <-changes:
			if c.err != nil {
				return c.err
			}
			if err := m.take(ctx, c.shard, c.change); err != nil {
				return err
			}
		}
	}
}

// take hands on what a shard's feed yields.
func (m *merge) take(ctx context.Context, shard int, c multicastregistry.Change) error {
	before := m.at[shard]
	m.at[shard] = c.Position
	switch c.Kind {
	case multicastregistry.Reset:
		if !m.fresh || m.began[shard] {
			return errGap
		}
		m.began[shard] = true
		return nil
	case multicastregistry.Synced:
		m.level[shard] = c.Revision
		if !m.synced[shard] {
			m.synced[shard] = true
			m.missing--
		}
		if m.missing > 0 {
			return nil
		}
		return m.sync(ctx)
	case multicastregistry.Extend:
		if c.Position == before { // it is not recorded, and all shards are about to tell the same
			m.away = m.away.join(outage{c.Since, c.Until})
			return nil
		}
	case multicastregistry.Put:
		c.Identity.Revision = m.sharded.outer(shard, c.Identity.Revision)
	}
	c.Revision = m.sharded.outer(shard, c.Revision)
	return m.emit(c)
}

// sync tells the reader that it has everything, and sees to it that soon that is true up to the head.
func (m *merge) sync(ctx context.Context) error {
	m.settled, m.missing = true, len(m.synced)
	clear(m.synced)
	lowest := slices.Min(m.level)
	if away := m.away; !away.none() {
		m.away = outage{}
		extend := away.change(uint64(m.sharded.level(lowest)))
		if err := m.emit(extend); err != nil {
			return err
		}
	}
	if err := m.emit(multicastregistry.Change{
		Kind: multicastregistry.Synced, Revision: m.sharded.level(lowest),
	}); err != nil {
		return err
	}
	if lowest < slices.Max(m.level) {
		// A Redis that takes no changes now has no revisions to order either: reading goes on.
		_, _ = m.sharded.raise(ctx, m.level)
	}
	return nil
}

func (m *merge) emit(c multicastregistry.Change) error {
	c.Position = ""
	if m.settled {
		c.Position = m.position()
	}
	if !m.yield(c, nil) {
		return errStop
	}
	return nil
}

// position joins those of the shards.
func (m *merge) position() multicastregistry.Position {
	size := 0
	for _, p := range m.at {
		size += len(p) + 1
	}
	joined := make([]byte, 0, size)
	for i, p := range m.at {
		if i > 0 {
			joined = append(joined, ',')
		}
		joined = append(joined, p...)
	}
	return multicastregistry.Position(joined)
}

// Hurry implements multicastregistry.Hurrier.
func (s *Sharded) Hurry() {
	for _, r := range s.shards {
		r.Hurry()
	}
}
