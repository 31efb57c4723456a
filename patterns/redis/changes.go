package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

var (
	_ multicastregistry.Changes = (*Registry)(nil)
	_ multicastregistry.Hurrier = (*Registry)(nil)
)

const (
	// feedTick is how long a feed waits for an entry of the log before it looks whether the log is still the same, and says
	// Synced.
	feedTick = multicastregistry.ChangesIdle * 2 / 5
	// feedBatch is how many entries a feed reads at once.
	feedBatch = 500
	// A feed that has read feedGatherFrom entries at once lets more come, for feedGather, before it reads again: to be woken up
	// for each change would cost this process and Redis several times what the change does.
	feedGatherFrom = 4
	feedGather     = 5 * time.Millisecond
	// feedPoll is how many identities of a snapshot pass, and feedPollEvery how much time, between two looks at the log.
	feedPoll      = 32
	feedPollEvery = 10 * time.Millisecond
	// restartPause and maxRestartPause bound the pause before a reader that the log has left behind begins again.
	restartPause    = 5 * time.Millisecond
	maxRestartPause = multicastregistry.ChangesIdle / 2
)

var (
	// errGap says that the log does not tell what follows the cursor.
	errGap = errors.New("the change log has a gap")
	// errStop says that the reader has had enough.
	errStop = errors.New("the reader breaks off")
)

// Changes implements multicastregistry.Changes. It reads the change log, and a snapshot by Scan when there is nothing to go
// on from; see feed. While it waits it occupies a connection.
//
// When another server answers than before, after a restart or a failover, or because a Cluster has moved the keys, there is a
// snapshot too: the server may lack the latest changes and use their revisions again. After such a loss, revisions may grow by
// more than one.
func (r *Registry) Changes(
	ctx context.Context, after multicastregistry.Position,
) iter.Seq2[multicastregistry.Change, error] {
	return func(yield func(multicastregistry.Change, error) bool) {
		f := feed{registry: r, yield: yield, decode: asEncoded()}
		if err := f.run(ctx, after); err != errStop { //nolint:errorlint // our own, and never wrapped
			yield(multicastregistry.Change{}, r.conn.wrap(ctx, "changes", "", err))
		}
	}
}

// feed is the state of one change feed.
//
// Every entry of the log tells the revision before it, so that a gap shows. That it belongs to the history that the cursor
// is of shows in the epoch and the run id, which are read after it: neither comes back. A snapshot is a scan, with the changes
// since its begin in between; told remembers those, because a scan may yield something older than the log has told already.
type feed struct {
	registry *Registry
	yield    func(multicastregistry.Change, error) bool
	decode   metadataDecoder

	at      cursor // what was yielded
	head    cursor // of the registry, as it was read last
	away    outage // that was not recorded then
	settled bool   // the reader has an exact copy
	synced  time.Time
	named   string          // the history that the reader knows of
	told    map[string]told // during a snapshot
	outages []outage        // that the log has told of during a snapshot
}

// told is what the log told about an identity: all of it, or the latest lease only.
type told struct {
	all   bool
	lease multicastregistry.Lease
}

// run yields changes until something fails, or the reader has had enough.
func (f *feed) run(ctx context.Context, after multicastregistry.Position) error {
	if err := f.readHead(ctx); err != nil {
		return err
	}
	from, ok := parsePosition(after)
	if ok && f.head.continues(from) {
		f.at, f.settled = cursor{f.head.epoch, from.revision, cmp.Or(from.run, f.head.run)}, true
		if err := f.follow(ctx); err != errGap { //nolint:errorlint // our own, and never wrapped
			return err
		}
	}
	for pause := restartPause; ; pause = min(2*pause, maxRestartPause) {
		err := f.snapshot(ctx)
		if err == nil {
			pause = restartPause
			err = f.follow(ctx)
		}
		if err != errGap { //nolint:errorlint // our own, and never wrapped
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// follow yields what the log tells after the cursor. When the log cannot tell it, that is errGap.
func (f *feed) follow(ctx context.Context) error {
	f.synced = time.Time{}
	for goal := f.head.revision; ; {
		if f.at.revision >= goal && time.Since(f.synced) >= feedTick {
			if err := f.extend(); err != nil {
				return err
			}
			if err := f.sync(); err != nil {
				return err
			}
		}
		goal = f.head.revision
		before := f.at.revision
		if err := f.advance(ctx, f.registry.conn.waitAtMost(feedTick)); err != nil {
			return err
		}
		if f.at.revision >= before+feedGatherFrom {
			f.gather(ctx)
		}
	}
}

// gather lets changes come, until somebody is in a hurry.
func (f *feed) gather(ctx context.Context) {
	timer := time.NewTimer(feedGather)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.registry.hurry:
	case <-ctx.Done():
	}
}

// Hurry implements multicastregistry.Hurrier.
func (r *Registry) Hurry() {
	select {
	case r.hurry <- struct{}{}:
	default:
	}
}

// extend tells the reader of an outage that nobody has recorded yet, under the revision that it has reached already: before it
// is Synced, and again until the outage is in the log.
func (f *feed) extend() error {
	if f.away.none() {
		return nil
	}
	return f.emit(f.away.change(f.at.revision))
}

// sync tells the reader that it has everything up to the cursor.
func (f *feed) sync() error {
	f.settled, f.synced = true, time.Now()
	return f.emit(multicastregistry.Change{
		Kind: multicastregistry.Synced, Revision: multicastregistry.Revision(f.at.revision), Epoch: f.history(),
	})
}

// snapshot yields a Reset and everything that is live, up to an exact copy. When the log is cut meanwhile, that is errGap.
func (f *feed) snapshot(ctx context.Context) error {
	f.settled, f.told = false, make(map[string]told)
	defer func() { f.told, f.outages = nil, nil }()
	if err := f.emit(multicastregistry.Change{Kind: multicastregistry.Reset}); err != nil {
		return err
	}
	if err := f.readHead(ctx); err != nil {
		return err
	}
	f.at = f.head
	polled, n := time.Now(), 0
	for batch, err := range f.registry.batches(ctx) {
		if err != nil {
			return err
		}
		for _, identity := range batch {
			if err := f.found(identity); err != nil {
				return err
			}
			if n++; n%feedPoll == 0 && time.Since(polled) > feedPollEvery {
				if err := f.catchUp(ctx); err != nil {
					return err
				}
				polled = time.Now()
			}
		}
	}
	return f.catchUp(ctx)
}

// catchUp yields what the log tells up to the revision that is the head's now.
func (f *feed) catchUp(ctx context.Context) error {
	if err := f.readHead(ctx); err != nil {
		return err
	}
	if !f.head.continues(f.at) {
		return errGap
	}
	for goal := f.head.revision; f.at.revision < goal; {
		if err := f.advance(ctx, 0); err != nil {
			return err
		}
	}
	return nil
}

// found yields an identity of the snapshot, unless the log has told more of it.
func (f *feed) found(identity multicastregistry.Identity) error {
	known, ok := f.told[identity.ID]
	if ok && known.all {
		return nil
	}
	if ok {
		identity.TTL, identity.ExpiresAt = known.lease.TTL, known.lease.ExpiresAt
	}
	for _, o := range f.outages { // the scan may have read it before
		identity.ExpiresAt = o.extended(identity.ExpiresAt, identity.TTL)
	}
	return f.emit(multicastregistry.Change{
		Kind: multicastregistry.Put, Identity: identity, Revision: identity.Revision,
	})
}

// advance yields the next entries of the log, if any come within the wait.
func (f *feed) advance(ctx context.Context, wait time.Duration) error {
	goal := f.head.revision
	entries, err := f.read(ctx, wait)
	if err != nil {
		return err
	}
	if err := f.readHead(ctx); err != nil {
		return err
	}
	if f.at.epoch == "" { // nothing had happened; the entries are read again as those of the history that has begun
		f.at.epoch = f.head.epoch
		return nil
	}
	if !f.head.continues(f.at) || len(entries) == 0 && f.at.revision < goal {
		return errGap
	}
	for i := range entries {
		change, before, err := f.registry.parseEntry(&entries[i], f.decode)
		if err != nil {
			return err
		}
		if before != f.at.revision {
			return errGap
		}
		f.at.revision = uint64(f.registry.seen(int64(change.Revision)))
		if change.Kind == 0 {
			continue
		}
		f.remember(change)
		if err := f.emit(change); err != nil {
			return err
		}
	}
	return nil
}

// remember notes during a snapshot what the log tells.
func (f *feed) remember(c multicastregistry.Change) {
	if f.told == nil {
		return
	}
	if c.Kind == multicastregistry.Extend {
		f.outages = append(f.outages, outage{c.Since, c.Until})
		return
	}
	known := f.told[c.Identity.ID]
	known.all = known.all || c.Kind != multicastregistry.Renew
	known.lease = multicastregistry.Lease{TTL: c.Identity.TTL, ExpiresAt: c.Identity.ExpiresAt}
	f.told[c.Identity.ID] = known
}

func (f *feed) emit(c multicastregistry.Change) error {
	if f.settled {
		c.Position = f.at.position()
		if now := f.history(); now != f.named {
			c.Epoch, f.named = now, now
		}
	}
	if !f.yield(c, nil) {
		return errStop
	}
	return nil
}

// history names the revisions as the reader knows them.
func (f *feed) history() string { return f.at.epoch + ":" + f.at.run }

// readHead finds out where the registry is.
func (f *feed) readHead(ctx context.Context) error {
	conn := f.registry.conn
	bounded, cancel, err := conn.bound(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if f.head, f.away, err = f.registry.readHead(bounded); err == nil {
		f.registry.seen(int64(f.head.revision))
	}
	return err
}

// read returns the entries of the log after the cursor. With a wait it waits that long for the first of them.
func (f *feed) read(ctx context.Context, wait time.Duration) ([]rueidis.XRangeEntry, error) {
	conn, key := f.registry.conn, f.registry.keys.log
	bounded, cancel, err := conn.bound(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	after := strconv.FormatUint(f.at.revision, 10) + "-0"
	command := conn.read.B().Xread().Count(feedBatch).Streams().Key(key).Id(after).Build()
	if wait > 0 {
		command = conn.read.B().Xread().Count(feedBatch).Block(wait.Milliseconds()).Streams().Key(key).Id(after).Build().
			UnblockOnCancel()
	}
	streams, err := conn.read.Do(bounded, command).AsXRead()
	if rueidis.IsRedisNil(err) {
		return nil, nil
	}
	return streams[key], err
}

// parseEntry returns what an entry of the log tells, and the revision before it. Kind is 0 when only the revision has changed.
func (r *Registry) parseEntry(
	entry *rueidis.XRangeEntry, decode metadataDecoder,
) (c multicastregistry.Change, before uint64, err error) {
	p := entryParser{fields: entry.FieldValues, decode: decode}
	c, before = p.parse(entry.ID)
	if p.err != nil {
		return c, 0, fmt.Errorf("%w: entry %s of %s: %w", errReply, entry.ID, r.keys.log, p.err)
	}
	return c, before, nil
}

// entryParser reads the fields of an entry of the log, and keeps the first error.
type entryParser struct {
	fields map[string]string
	decode metadataDecoder
	err    error
}

func (p *entryParser) parse(id string) (c multicastregistry.Change, before uint64) {
	text, rest, _ := strings.Cut(id, "-")
	revision, err := strconv.ParseUint(text, 10, 63)
	if err != nil || revision == 0 || rest != "0" {
		p.failf("the id is not a revision")
	}
	c.Revision, before = multicastregistry.Revision(revision), revision-1
	if _, ok := p.fields["b"]; ok {
		before = uint64(p.number("b"))
	}
	switch p.fields["k"] {
	case "n":
		return c, before
	case "o":
		away := outageOf(p.number("s"), p.number("u"))
		c.Kind, c.Since, c.Until = multicastregistry.Extend, away.since, away.until
		return c, before
	}
	i := &c.Identity
	var ok bool
	if i.ID, ok = multicastregistry.DecodeName(p.fields["i"]); !ok {
		p.failf("i %q is not an encoded name", p.fields["i"])
	}
	switch p.fields["k"] {
	case "p":
		c.Kind = multicastregistry.Put
		if err = p.decode(i, p.fields["m"]); err != nil {
			p.failf("identity %q: %w", i.ID, err)
		}
		i.RegisteredAt = time.UnixMilli(p.number("r"))
		i.Revision = c.Revision
		i.TTL, i.ExpiresAt = duration(p.number("t")), instant(p.number("e"))
	case "r":
		c.Kind = multicastregistry.Renew
		i.TTL, i.ExpiresAt = duration(p.number("t")), instant(p.number("e"))
	case "d":
		c.Kind = multicastregistry.Delete
	case "x":
		c.Kind = multicastregistry.Expire
	default:
		p.failf("k %q is no kind of change", p.fields["k"])
	}
	return c, before
}

func (p *entryParser) number(field string) int64 {
	n, err := strconv.ParseInt(p.fields[field], 10, 64)
	if err != nil {
		p.failf("%s %q is not a number", field, p.fields[field])
	}
	return n
}

func (p *entryParser) failf(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}
