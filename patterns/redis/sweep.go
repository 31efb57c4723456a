package redis

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"
)

const (
	// sweepEvery is the pause between two sweeps, give or take a quarter.
	sweepEvery = time.Second
	// sweepBatch is how many identities one script removes: few enough that Redis answers others in between.
	sweepBatch = 100
	// sweepBackoff is the longest pause after sweeps that failed.
	sweepBackoff = 15 * time.Second
)

// Sweep removes, until the context ends, identities whose lease has ended, and logs that for the change feed. Any number of
// processes may sweep one namespace; one has to. It looks about once a second, and less and less often while that fails; the
// configuration's Log hears of it. It returns nil.
func (r *Registry) Sweep(ctx context.Context) error {
	var was error
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
		removed, err := r.sweep(ctx)
		if ctx.Err() != nil {
			return nil
		}
		r.sweeps.note(was, err)
		was = err
		switch {
		case err != nil:
			pause = min(2*pause, sweepBackoff)
			timer.Reset(jitter(pause))
		case removed == sweepBatch: // more may be due: let others have a turn
			pause = sweepEvery
			timer.Reset(time.Millisecond)
		default:
			pause = sweepEvery
			timer.Reset(jitter(pause))
		}
	}
}

// sweep removes a batch, and returns how many identities that were.
func (r *Registry) sweep(ctx context.Context) (int, error) {
	reply, err := r.change(ctx, sweepScript, []string{r.keys.leases, r.keys.head, r.keys.log},
		r.keys.identity, strconv.Itoa(sweepBatch))
	if err != nil {
		return 0, r.conn.wrap(ctx, "sweep", "", err)
	}
	if len(reply) > 1 {
		r.seen(reply[1])
	}
	return int(reply[0]), nil
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
