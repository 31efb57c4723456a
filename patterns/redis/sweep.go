package redis

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"
)

const (
	// sweepEvery is the pause between two sweeps, give or take a quarter.
	sweepEvery = time.Second
	// sweepBatch is how many identities one script looks at: few enough that Redis answers others in between.
	sweepBatch = 100
	// sweepBackoff is the longest pause after sweeps that failed: they are to be back before somebody finds an outage where
	// changes work already.
	sweepBackoff = sweepEvery * 3 / 2
)

// Sweep removes, until the context ends, identities whose lease has ended, and logs that for the change feed. Any number of
// processes may sweep one namespace; one has to, or an outage is found where there is none: see lua/outage.lua. It looks about
// once a second, and less often while that fails; the configuration's Log hears of it, and of outages. It returns nil.
func (r *Registry) Sweep(ctx context.Context) error {
	var was error
	var known *outage
	defer func() { r.sweeps.leave(was) }()
	pause := sweepEvery
	timer := time.NewTimer(jitter(pause))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		s, err := r.sweep(ctx)
		if ctx.Err() != nil {
			return nil
		}
		r.sweeps.note(was, err)
		was = err
		if err == nil {
			r.outages.note(s.latest, known, s.at)
			known = &s.latest
		}
		switch {
		case err != nil:
			pause = min(2*pause, sweepBackoff)
			timer.Reset(jitter(pause))
		case s.met == sweepBatch: // more may be due: let others have a turn
			pause = sweepEvery
			timer.Reset(time.Millisecond)
		default:
			pause = sweepEvery
			timer.Reset(jitter(pause))
		}
	}
}

// swept is what a sweep tells.
type swept struct {
	met    int // identities that were due
	latest outage
	at     time.Time
}

// sweep looks at a batch of what is due.
func (r *Registry) sweep(ctx context.Context) (swept, error) {
	reply, err := r.change(ctx, sweepScript, []string{r.keys.leases, r.keys.head, r.keys.log},
		r.keys.identity, strconv.Itoa(sweepBatch))
	if err == nil && len(reply) != 5 {
		err = fmt.Errorf("%w: sweep: %v", errReply, reply)
	}
	if err != nil {
		return swept{}, r.conn.wrap(ctx, "sweep", "", err)
	}
	r.seen(reply[1])
	return swept{int(reply[0]), outageOf(reply[2], reply[3]), time.UnixMilli(reply[4])}, nil
}

// sweepLog reports how the sweepers of a namespace fare: when the first begins to fail, and when none does any more.
type sweepLog struct {
	log       *slog.Logger
	namespace string

	mu      sync.Mutex
	failing int
}

// note takes notice of a sweep's outcome, and of the same sweeper's before it.
func (l *sweepLog) note(was, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case was == nil && err != nil:
		if l.failing++; l.failing == 1 {
			l.log.Warn("redis: sweeping fails: expiries are not told", slog.String("namespace", l.namespace), slog.Any("error", err))
		}
	case was != nil && err == nil:
		if l.failing--; l.failing == 0 {
			l.log.Info("redis: sweeping works again", slog.String("namespace", l.namespace))
		}
	}
}

// leave takes notice of a sweeper's end, after an outcome.
func (l *sweepLog) leave(was error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if was != nil {
		l.failing--
	}
}

// jitter spreads what many processes do after the same pause.
func jitter(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2) }
