package nats

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// How an outage is found. A stream of one message, "prism-seen-<namespace>", has a mark, whose time is when it was stored. Each
// process looks at it every markEvery, and stores another one when it has become as old, under the condition that it is still
// the last: so there is about one a second, whatever the number of processes. It is no part of the bucket, whose every message
// is a revision, nor of the change log, which would fill up with marks.
//
// A mark that is older than OutageAfter means that nobody has reached the servers since, or that no process ran. Whoever finds
// that out records the outage in the bucket, under the condition that nobody else has, and only then stores the next mark. A
// mark that was sent before an outage may also be stored after it: a network that stands still delivers what it holds when it
// goes on. So a mark says what the latest contact before it was, and when it was stored too long after that, this too was an
// outage, which whoever reads the mark records. Each mark is read before it is replaced.
//
// Nobody is taken for absent on the word of a mark that is older than OutageAfter: whoever is about to do so looks first. So
// there is no moment after an outage, for whichever call or feed comes first, in which leases have ended that are prolonged.

const (
	// DefaultOutageAfter is how long nobody reaches the servers before that counts as an outage, unless RegistryConfig says
	// otherwise.
	DefaultOutageAfter = 5 * time.Second
	// markEvery is how old a mark is when the next one is due.
	markEvery = time.Second
	// minOutageAfter leaves room for a mark that is late, without an outage.
	minOutageAfter = 2 * markEvery
	// buryAtOnce is how many ended leases may wait for their end to be written.
	buryAtOnce = 1000
	// outagesName is the key of the record of outages. It is no name of an identity, which has no dot.
	outagesName = "prism.outages"
)

// keeper knows the outages. It ends with its connection.
type keeper struct {
	r       *Registry
	after   time.Duration
	view    atomic.Pointer[view]
	turn    chan struct{} // holds one while somebody looks
	dead    chan leaseEnd // leases that ended long ago
	stop    context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	failed time.Time // local time of the last look in vain, and why
	why    error
}

// view is what is known of outages.
type view struct {
	outages outages
	seq     uint64    // of their record; 0: there is none
	seen    time.Time // when somebody is known to have reached the servers, by their clock
}

// mark is the last message of the stream of marks.
type mark struct {
	Before  int64  `json:"before"`  // the latest contact before this one, in microseconds of the Unix epoch
	Outages uint64 `json:"outages"` // the sequence of the record of outages; 0: there was none

	seq uint64
	at  int64 // when it was stored, in microseconds of the Unix epoch
}

func newKeeper(r *Registry, after time.Duration) *keeper {
	k := &keeper{r: r, after: after, turn: make(chan struct{}, 1), dead: make(chan leaseEnd, buryAtOnce)}
	k.view.Store(&view{})
	return k
}

// start looks once, and then until the connection is closed.
func (k *keeper) start(ctx context.Context) error {
	if err := k.check(ctx, true); err != nil {
		return err
	}
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	k.stop = stop
	k.running.Go(func() { k.run(life) })
	if !k.r.conn.router.own(k) {
		_ = k.Close()
		return nats.ErrConnectionClosed
	}
	return nil
}

// Close ends it. It is for the connection's end.
func (k *keeper) Close() error {
	k.stop()
	k.running.Wait()
	return nil
}

func (k *keeper) run(ctx context.Context) {
	timer := time.NewTimer(rand.N(markEvery)) // so that processes that start together do not look together
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			_ = k.check(ctx, true) // the connection logs outages, and who needs the answer gets the error
			timer.Reset(markEvery)
		case l := <-k.dead:
			// An error is another change that came first, or an outage: the server removes the record in the end.
			_, _ = k.r.expire(ctx, l.name, &last{state: state{seq: l.seq}})
		case <-ctx.Done():
			return
		}
	}
}

// bury has the end of a lease written that ended so long ago that no feed is read whose sweeper does that.
func (k *keeper) bury(name string, seq uint64) {
	select {
	case k.dead <- leaseEnd{name: name, seq: seq}:
	default: // the next scan finds it again
	}
}

// known returns the outages without looking.
func (k *keeper) known() outages { return k.view.Load().outages }

// fresh tells whether what is known leaves no room for an outage until now.
func (k *keeper) fresh() bool {
	return k.r.clock.estimate().Sub(k.view.Load().seen) <= k.after
}

// current returns the outages, all that anybody has a claim to.
func (k *keeper) current(ctx context.Context) (outages, error) {
	if !k.fresh() {
		if err := k.check(ctx, false); err != nil {
			return nil, err
		}
	}
	return k.known(), nil
}

// check looks, one caller at a time; unless it must, not when somebody else has just done so.
func (k *keeper) check(ctx context.Context, must bool) error {
	began := time.Now()
	select {
	case k.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-k.turn }()
	if !must && k.fresh() {
		return nil
	}
	k.mu.Lock()
	failed, why := k.failed, k.why
	k.mu.Unlock()
	if !must && why != nil && failed.After(began) {
		return why
	}
	err := k.look(ctx)
	if err != nil && ctx.Err() == nil {
		k.mu.Lock()
		k.failed, k.why = time.Now(), err
		k.mu.Unlock()
	}
	return err
}

// look reads the mark, records the outages that it tells of, and stores another one where that is due.
func (k *keeper) look(ctx context.Context) error {
	for attempt := 0; ; attempt++ {
		done, err := k.step(ctx)
		if done || err != nil && !errors.Is(err, errConflict) {
			return err
		}
		if err := giveWay(ctx, attempt); err != nil {
			return err
		}
	}
}

// step does one thing of look. It is done when there is nothing left to do; errConflict says that another process did something.
func (k *keeper) step(ctx context.Context) (done bool, err error) {
	m, err := k.read(ctx)
	if err != nil {
		return false, err
	}
	v := k.view.Load()
	if m.seq == 0 || m.Outages != v.seq {
		if v, err = k.load(ctx); err != nil {
			return false, err
		}
	}
	at, err := k.r.clock.now(ctx)
	if err != nil {
		return false, err
	}
	now, recorded, most := at.UnixMicro(), v.outages.last().Until, k.after.Microseconds()
	if before := max(m.Before, recorded); m.at-before > most {
		return false, k.record(ctx, v, outage{before, m.at})
	}
	contact := max(m.at, recorded)
	if now-contact > most {
		return false, k.record(ctx, v, outage{contact, now})
	}
	if m.seq != 0 && m.Outages == v.seq && now-m.at < markEvery.Microseconds()*3/4 {
		k.learn(v.outages, v.seq, instant(m.at))
		return true, nil
	}
	if err := k.mark(ctx, m.seq, mark{Before: contact, Outages: v.seq}); err != nil {
		return false, err
	}
	k.learn(v.outages, v.seq, instant(max(m.at, now))) // or later: then it is late, and somebody finds that out
	return true, nil
}

// read returns the mark. In the place of one that is missing stands the last change of the bucket, or the present for one that
// never had any: there is nobody to be prolonged.
func (k *keeper) read(ctx context.Context) (m mark, err error) {
	stored, ok, err := k.r.seen.fromLeader(ctx, []byte(`{"last_by_subj":`+strconv.Quote(k.r.mark)+`}`))
	if err != nil {
		return m, err
	}
	if ok && json.Unmarshal(stored.data, &m) == nil {
		m.seq, m.at = stored.seq, stored.at.UnixMicro()
		return m, nil
	}
	info, err := k.r.bucket.info(ctx, "", 0)
	if err != nil {
		return m, err
	}
	m = mark{seq: stored.seq, at: info.Now.UnixMicro()}
	if info.State.LastSeq > 0 {
		m.at = info.State.LastAt.UnixMicro()
	}
	m.Before = m.at
	return m, nil
}

// load reads the record of outages.
func (k *keeper) load(ctx context.Context) (*view, error) {
	m, ok, err := k.r.bucket.fromLeader(ctx, []byte(`{"last_by_subj":`+strconv.Quote(k.r.prefix+outagesName)+`}`))
	if err != nil {
		return nil, err
	}
	v := &view{}
	if ok {
		if v.outages, err = parseOutages(m.data); err != nil {
			return nil, err
		}
		v.seq = m.seq
	}
	k.learn(v.outages, v.seq, time.Time{})
	return v, nil
}

// learn takes the record of outages with a sequence into account, and that somebody has reached the servers at an instant.
func (k *keeper) learn(o outages, seq uint64, seen time.Time) {
	for {
		was := k.view.Load()
		next := &view{outages: o, seq: seq, seen: seen}
		if was.seq > seq {
			next.outages, next.seq = was.outages, was.seq
		}
		if was.seen.After(seen) {
			next.seen = was.seen
		}
		if k.view.CompareAndSwap(was, next) {
			return
		}
	}
}

// record adds an outage to those in the record, unless another one has been added since.
func (k *keeper) record(ctx context.Context, was *view, one outage) error {
	next := was.outages.with(one)
	seq, err := k.r.write(ctx, outagesName, was.seq, 0, nil, next.encode())
	if errors.Is(err, errConflict) {
		_, err = k.load(ctx)
		return err
	}
	if err != nil {
		return err
	}
	k.learn(next, seq, time.Time{})
	k.r.append(&logEntry{Seq: seq, Kind: entryExtend, Name: outagesName, Outages: next})
	since, until := one.span()
	k.r.conn.log.LogAttrs(ctx, slog.LevelWarn, "nats: leases are extended after an outage",
		slog.String("namespace", k.r.cfg.Namespace), slog.Time("since", since), slog.Time("until", until),
		slog.Duration("took", until.Sub(since)))
	return nil
}

// mark stores another mark in the place of one.
func (k *keeper) mark(ctx context.Context, over uint64, m mark) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = k.r.seen.write(ctx, k.r.mark, over, nats.Header{}, data)
	return err
}
