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

	refreshing sync.Mutex // held by the one caller that takes a new reading

	mu     sync.Mutex
	at     time.Time // local
	server time.Time // at that instant
	err    time.Duration
	asked  time.Time // local time of the last reading, kept or not
	of     uint64    // epoch of the estimate
	set    bool
}

// now returns the server's time. Where the estimate has become old, one caller takes a new one first, and others go on with
// what there is; it fails only where there is no estimate of this connection at all.
func (c *clock) now(ctx context.Context) (time.Time, error) {
	now, fresh, usable := c.reading()
	if fresh {
		return now, nil
	}
	if usable {
		if !c.refreshing.TryLock() {
			return now, nil
		}
	} else {
		c.refreshing.Lock()
	}
	defer c.refreshing.Unlock()
	if now, fresh, usable = c.reading(); fresh { // somebody else did it meanwhile
		return now, nil
	}
	samples := 1
	if !usable {
		samples = clockSamples
	}
	for range samples {
		if err := c.ask(ctx); err != nil {
			return time.Time{}, err
		}
	}
	now, _, _ = c.reading()
	return now, nil
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

// sample takes a reading into account: the server's time at some instant between two local ones.
func (c *clock) sample(server, sent, received time.Time, of uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	half := received.Sub(sent) / 2
	c.asked = received
	age := time.Duration(float64(received.Sub(c.at)) * clockDrift)
	if c.set && c.of == of && half > c.err+age {
		return
	}
	c.set, c.of, c.err = true, of, half
	c.at, c.server = sent.Add(half), server
}
