package nats

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// How a feed has every change once and in order. Changes are numbered without gaps by the bucket. Whoever makes one appends it
// to the log, so the log has them nearly in order, and lacks one when its maker broke down right behind it. The feed tells change
// n+1 after change n: what comes early is held, and what is not in the log after a moment is read from the bucket, where it is
// unless its key has changed again; whoever changes a key soon after tells of both. If a change is nowhere, because two makers
// broke down in a row, the reader gets a Reset. So does one whose place the log has lost.

const (
	logBatch = 500
	// headEvery is how often the leader is asked for its head: Synced comes as often.
	headEvery = multicastregistry.ChangesIdle * 2 / 5
	// orderPatience is how long the log may lack a change before the bucket is asked, and giveUp before the reader starts again.
	orderPatience = 20 * time.Millisecond
	giveUp        = 1500 * time.Millisecond
	// recheck is the pause while a change is missing.
	recheck = 5 * time.Millisecond
	// catchUp is how long a leader may know less than a reader has seen before it counts as having lost its data.
	catchUp = 500 * time.Millisecond
)

// errGap says that a feed cannot go on from where it is.
var errGap = errors.New("changes are lost")

// Changes implements multicastregistry.Changes over the change log. Ends of leases are told by whichever reader of a feed gets
// to write them first, some milliseconds after they have come, or before that by a Put; while nobody reads a feed, leases end
// without a change. A change that someone makes with another client of the bucket is passed over if it is no record.
//
// A Position names both streams, by when they were created, and a place in each.
func (r *Registry) Changes(
	ctx context.Context, after multicastregistry.Position,
) iter.Seq2[multicastregistry.Change, error] {
	return func(yield func(multicastregistry.Change, error) bool) {
		err := r.follow(ctx, after, func(c multicastregistry.Change) error {
			if !yield(c, nil) {
				return errStopped
			}
			return ctx.Err()
		})
		if !errors.Is(err, errStopped) {
			yield(multicastregistry.Change{}, wrap("changes", "", err))
		}
	}
}

// follow reads the feed until something fails.
func (r *Registry) follow(
	ctx context.Context, after multicastregistry.Position, tell func(multicastregistry.Change) error,
) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f := &feed{r: r, tell: tell, sweeper: newSweeper(r), hint: make(chan struct{}, 1)}
	hints, err := r.conn.nc.Subscribe(r.told, f.hear)
	if err != nil {
		return err
	}
	defer func() { _ = hints.Unsubscribe() }()
	if f.reader, err = r.log.open(); err != nil {
		return err
	}
	defer f.reader.close()
	working, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	all.Go(func() { f.sweeper.run(working) })

	resumed, err := f.resume(ctx, after)
	if err != nil {
		return err
	}
	if resumed {
		head := f.target
		all.Go(func() { // what is not known yet may expire too; where this fails, the feed does as well
			_ = r.everything(working, head, func(name string, s state) error {
				f.sweeper.note(name, s.seq, s.record.Expires, s.record.TTL)
				return nil
			})
		})
	}
	for {
		if !resumed {
			if err := f.snapshot(ctx); err != nil {
				return err
			}
		}
		if err := f.tail(ctx); !errors.Is(err, errGap) {
			return err
		}
		resumed = false
	}
}

// feed is a reader of the change log.
type feed struct {
	r       *Registry
	tell    func(multicastregistry.Change) error
	reader  *reader
	sweeper *sweeper
	hint    chan struct{} // something was appended
	heard   atomic.Uint64 // the last change that a hint was about

	epoch   string
	pos     uint64          // the change that was told last
	logPos  uint64          // the entry that was read last
	held    map[uint64]held // what came early, by its number
	target  uint64          // the head when it was last asked for
	due     bool            // Synced, once pos reaches target
	synced  bool            // it has come since the Reset
	asked   time.Time       // when target was asked for
	missing time.Time       // since when change pos+1 is missing; zero: it is not
	behind  time.Time       // since when the bucket has less than pos; zero: it has not
}

// held is a change that came early, with its place in the log.
type held struct {
	entry logEntry
	at    uint64
}

// hear takes a hint.
func (f *feed) hear(m *nats.Msg) {
	seq, ok := parseSeq(m.Data)
	if !ok {
		return
	}
	for {
		last := f.heard.Load()
		if seq <= last || f.heard.CompareAndSwap(last, seq) {
			break
		}
	}
	select {
	case f.hint <- struct{}{}:
	default:
	}
}

// begin asks for the state of both streams, the log first: what changes after the bucket's head comes behind the log's end. The
// head is no older than the outages that somebody has a claim to: Synced comes behind their Extend.
func (f *feed) begin(ctx context.Context) (log, bucket streamInfo, err error) {
	for settled := false; !settled; settled = f.r.keeper.fresh() {
		if _, err = f.r.keeper.current(ctx); err != nil {
			return log, bucket, err
		}
		if log, err = f.r.log.info(ctx, "", 0); err != nil {
			return log, bucket, err
		}
		if bucket, err = f.r.bucket.info(ctx, "", 0); err != nil {
			return log, bucket, err
		}
	}
	f.epoch = strconv.FormatInt(bucket.Created.UnixNano(), 36) + "-" + strconv.FormatInt(log.Created.UnixNano(), 36)
	f.held, f.missing, f.behind = make(map[uint64]held), time.Time{}, time.Time{}
	f.logPos, f.pos = log.State.LastSeq, bucket.State.LastSeq
	f.target, f.due, f.asked = f.pos, true, time.Now()
	f.heard.Store(0)
	return log, bucket, nil
}

// resume goes back to a position. It is not ok where the log does not reach, or for what is no position of this registry.
func (f *feed) resume(ctx context.Context, after multicastregistry.Position) (ok bool, err error) {
	log, bucket, err := f.begin(ctx)
	if err != nil || after == "" {
		return false, err
	}
	pos, logPos, ok := f.parse(after)
	ahead := func() bool { return pos > bucket.State.LastSeq || logPos > log.State.LastSeq }
	for since := time.Now(); ok && ahead() && time.Since(since) < catchUp; { // a reader may know more than a new leader does yet
		if err := wait(ctx, recheck); err != nil {
			return false, err
		}
		if log, bucket, err = f.begin(ctx); err != nil {
			return false, err
		}
	}
	if ok && ahead() {
		f.r.loss()
	}
	if !ok || ahead() || logPos+1 < log.State.FirstSeq {
		return false, nil
	}
	f.pos, f.logPos, f.synced = pos, logPos, true
	return true, nil
}

// loss notes that the bucket has lost its data: its next changes have the revisions of others.
func (r *Registry) loss() { r.losses.Store(rand.Uint64() | 1) }

// history names the revisions of streams: after a loss, not even this process knows what others have seen of them.
func (r *Registry) history(epoch string) string {
	if loss := r.losses.Load(); loss != 0 {
		return epoch + "-" + strconv.FormatUint(loss, 36)
	}
	return epoch
}

// parse reads what position returns, and nothing else.
func (f *feed) parse(p multicastregistry.Position) (pos, logPos uint64, ok bool) {
	parts := strings.Split(string(p), ":")
	if len(parts) != 3 || parts[0] != f.epoch {
		return 0, 0, false
	}
	pos, err1 := strconv.ParseUint(parts[1], 10, 64)
	logPos, err2 := strconv.ParseUint(parts[2], 10, 64)
	return pos, logPos, err1 == nil && err2 == nil && f.spell(pos, logPos) == p
}

func (f *feed) spell(pos, logPos uint64) multicastregistry.Position {
	return multicastregistry.Position(fmt.Sprintf("%s:%d:%d", f.epoch, pos, logPos))
}

// position is where a reader goes on that has been told everything up to pos: behind the last entry of the log before which
// there is nothing else to read.
func (f *feed) position() multicastregistry.Position {
	if !f.synced {
		return ""
	}
	at := f.logPos
	for _, h := range f.held {
		at = min(at, h.at-1)
	}
	return f.spell(f.pos, at)
}

// snapshot tells a Reset and everything that is live. What changes meanwhile follows from the log.
func (f *feed) snapshot(ctx context.Context) error {
	if _, _, err := f.begin(ctx); err != nil {
		return err
	}
	f.synced = false
	if err := f.tell(multicastregistry.Change{Kind: multicastregistry.Reset}); err != nil {
		return err
	}
	latest := f.pos
	if _, err := f.r.keeper.load(ctx); err != nil { // every outage up to f.pos, by whomever it was found
		return err
	}
	err := f.r.everything(ctx, f.pos, func(name string, s state) error {
		latest = max(latest, s.seq)
		f.sweeper.note(name, s.seq, s.record.Expires, s.record.TTL)
		id, ok := multicastregistry.DecodeName(name)
		if !ok {
			return nil
		}
		if ended, err := f.r.over(ctx, &s, f.r.clock.estimate()); ended || err != nil {
			return err
		}
		identity := s.record.identity(id, s.registration(), f.r.keeper.known())
		return f.tell(multicastregistry.Change{Kind: multicastregistry.Put, Identity: identity, Revision: identity.Revision})
	})
	if err != nil {
		return err
	}
	f.target = latest
	return nil
}

// tail tells what the log has, and what it gets, until something fails or a change is lost.
func (f *feed) tail(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if err := f.read(ctx); err != nil {
			return err
		}
		if f.due && f.pos >= f.target {
			f.due, f.synced = false, true
			if err := f.tell(multicastregistry.Change{
				Kind: multicastregistry.Synced, Revision: multicastregistry.Revision(f.pos), Position: f.position(),
				Epoch: f.r.history(f.epoch),
			}); err != nil {
				return err
			}
		}
		pause := headEvery - time.Since(f.asked)
		if len(f.held) > 0 || f.pos < max(f.target, f.heard.Load()) {
			found, err := f.search(ctx)
			if err != nil {
				return err
			}
			if found {
				continue
			}
			pause = min(pause, recheck)
		}
		timer.Reset(pause)
		select {
		case <-f.hint:
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if time.Since(f.asked) >= headEvery {
			if err := f.ask(ctx); err != nil {
				return err
			}
		}
	}
}

// ask asks for the head, which the next Synced has to reach.
func (f *feed) ask(ctx context.Context) error {
	info, err := f.r.bucket.info(ctx, "", 0)
	for err == nil && !f.r.keeper.fresh() { // else there may be an outage between the last mark and the answer
		if _, err = f.r.keeper.current(ctx); err == nil {
			info, err = f.r.bucket.info(ctx, "", 0)
		}
	}
	if err != nil {
		return err
	}
	f.asked = time.Now()
	switch {
	case info.State.LastSeq >= f.pos:
		f.target, f.due, f.behind = info.State.LastSeq, true, time.Time{}
	case f.behind.IsZero():
		f.behind = f.asked
	case f.asked.Sub(f.behind) > catchUp:
		f.r.loss()
		return errGap
	}
	return nil
}

// read reads the log up to its end and tells what is next in order.
func (f *feed) read(ctx context.Context) error {
	for {
		body := fmt.Appendf(nil, `{"seq":%d,"next_by_subj":">","batch":%d,"max_bytes":%d}`, f.logPos+1, logBatch, scanAnswer)
		p, err := f.reader.read(ctx, body)
		if err != nil {
			return err
		}
		for _, m := range p.messages {
			if m.seq != f.logPos+1 {
				return errGap // the log was faster than we are
			}
			f.logPos = m.seq
			e, err := parseEntry(m.data)
			if err != nil && !errors.Is(err, errForeign) {
				return err
			}
			if err != nil || e.Seq <= f.pos {
				continue
			}
			f.held[e.Seq] = held{entry: e, at: m.seq}
			if err := f.advance(); err != nil {
				return err
			}
		}
		if p.pending == 0 || len(p.messages) == 0 {
			return nil
		}
		if time.Since(f.asked) >= headEvery {
			if err := f.ask(ctx); err != nil {
				return err
			}
		}
	}
}

// advance tells what is next as far as it is there.
func (f *feed) advance() error {
	for {
		h, ok := f.held[f.pos+1]
		if !ok {
			return nil
		}
		delete(f.held, f.pos+1)
		if err := f.change(&h.entry); err != nil {
			return err
		}
	}
}

// change tells the next change.
func (f *feed) change(e *logEntry) error {
	f.pos, f.missing = e.Seq, time.Time{}
	switch {
	case e.Kind == entryExtend:
		f.r.keeper.learn(e.Outages, e.Seq, time.Time{})
	case e.Record != nil:
		f.sweeper.note(e.Name, e.Seq, e.Record.Expires, e.Record.TTL)
	default:
		f.sweeper.note(e.Name, e.Seq, 0, 0)
	}
	c, err := e.change(f.r.keeper.known())
	if err != nil {
		return err
	}
	c.Position = f.position()
	return f.tell(c)
}

// search looks for change pos+1, which the log lacks, in the bucket.
func (f *feed) search(ctx context.Context) (found bool, err error) {
	switch since := time.Since(f.missing); {
	case f.missing.IsZero():
		f.missing = time.Now()
		return false, nil
	case since < orderPatience:
		return false, nil
	case since > giveUp:
		return false, errGap
	}
	m, ok, err := f.r.bucket.get(ctx, f.pos+1)
	if err != nil || !ok {
		return false, err
	}
	e, ours, err := entryOf(f.r.name(m), m)
	if err != nil {
		return false, err
	}
	if ours {
		if err := f.change(&e); err != nil {
			return false, err
		}
		return true, f.advance()
	}
	f.pos, f.missing = m.seq, time.Time{} // somebody else's
	return true, f.advance()
}
