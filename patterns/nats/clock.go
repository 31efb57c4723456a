package nats

import (
	"context"
	"sync"
	"time"
)

const (
	// clockRefresh is how old an estimate of the server's clock may be before it is taken again.
	clockRefresh = 30 * time.Second
	// clockDrift bounds how fast two clocks part: 50 microseconds a second. By it, older estimates are worth less.
	clockDrift = 50e-6
	// clockSamples is how many readings the first estimate is the best of.
	clockSamples = 4
)

// clock estimates the clock of the server that leads a stream, which tells it in each answer about the stream. A reading is
// off by half of its round trip at most; the best one is kept, and counts as off by clockDrift for its age on top. Between
// readings the process' monotonic clock goes on, so setting the local clock does no harm. Processes agree to the sum of
// their two errors, and when another server becomes the leader, to what the servers' own clocks differ by.
type clock struct {
	ask   func(ctx context.Context) error // asks the server, and calls sample with what it says
	epoch func() uint64                   // changes when the connection may lead to another server
	local func() time.Time                // with a monotonic part

	turn chan struct{} // holds one while a caller takes a new reading

	mu     sync.Mutex
	failed time.Time // local time of the last reading in vain, and why
	why    error
	at     time.Time // local
	server time.Time // at that instant
	err    time.Duration
	asked  time.Time // local time of the last reading, kept or not
	of     uint64    // epoch of the estimate
	heard  time.Time // the latest time that a server has told
	set    bool
}

// newClock returns a clock without an estimate.
func newClock(ask func(ctx context.Context) error, epoch func() uint64, local func() time.Time) *clock {
	return &clock{ask: ask, epoch: epoch, local: local, turn: make(chan struct{}, 1)}
}

// now returns the server's time. Where the estimate has become old, one caller takes a new one first, and others go on with
// what there is. Where there is none of this connection at all, they wait for that caller and share what comes of it, or
// until their context ends.
func (c *clock) now(ctx context.Context) (time.Time, error) {
	began := c.local()
	now, fresh, usable := c.reading()
	if fresh {
		return now, nil
	}
	if usable {
		select {
		case c.turn <- struct{}{}:
		default:
			return now, nil
		}
	} else {
		select {
		case c.turn <- struct{}{}:
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
	defer func() { <-c.turn }()
	if now, fresh, usable = c.reading(); fresh { // somebody else did it meanwhile
		return now, nil
	}
	err := c.failedSince(began)
	if err == nil {
		err = c.refresh(ctx, usable)
	}
	now, _, usable = c.reading()
	if err != nil && !usable {
		return time.Time{}, err
	}
	return now, nil
}

// refresh takes readings. That they came to nothing is of use to others, unless it is due to this caller's context.
func (c *clock) refresh(ctx context.Context, usable bool) error {
	samples := 1
	if !usable {
		samples = clockSamples
	}
	for range samples {
		if err := c.ask(ctx); err != nil {
			if ctx.Err() == nil {
				c.mu.Lock()
				c.failed, c.why = c.local(), err
				c.mu.Unlock()
			}
			return err
		}
	}
	return nil
}

// failedSince returns why a reading was in vain, if one was since an instant.
func (c *clock) failedSince(began time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == nil || !c.failed.After(began) {
		return nil
	}
	return c.why
}

// reading returns the server's time by the estimate, and whether that is new enough, or at least of this connection.
func (c *clock) reading() (now time.Time, fresh, usable bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	local := c.local()
	usable = c.set && c.of == c.epoch()
	return c.server.Add(local.Sub(c.at)), usable && local.Sub(c.asked) < clockRefresh, usable
}

// estimate returns the server's time, good or bad. It is for who waits for an instant, and looks again.
func (c *clock) estimate() time.Time {
	now, _, _ := c.reading()
	return now
}

// contact returns the latest time, by the server's clock, at which a server is known to have been reached.
func (c *clock) contact() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.heard
}

// sample takes a reading into account: the server's time at some instant between two local ones.
func (c *clock) sample(server, sent, received time.Time, of uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	half := received.Sub(sent) / 2
	c.asked = received
	if server.After(c.heard) {
		c.heard = server
	}
	age := time.Duration(float64(received.Sub(c.at)) * clockDrift)
	if c.set && c.of == of && half > c.err+age {
		return
	}
	c.set, c.of, c.err = true, of, half
	c.at, c.server = sent.Add(half), server
}
