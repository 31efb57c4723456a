package client

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/connectivity"
)

const (
	firstWait = 50 * time.Millisecond
	maxWait   = 5 * time.Second
)

// retry is how long to wait after the failures so far.
type retry struct{ failures int }

// next counts a failure and returns the wait after it: it doubles from 50 ms up to 5 s, less a random part of up to one
// half, so that those who failed together do not come back together.
func (r *retry) next() time.Duration {
	wait := maxWait
	if r.failures < 7 {
		wait = min(maxWait, firstWait<<r.failures)
	}
	r.failures++
	return wait/2 + rand.N(wait/2)
}

// pause waits, but no longer than until a lost connection is there again. It returns the context's error if that ends
// before.
func (c *Client) pause(ctx context.Context, wait time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		state := c.conn.GetState()
		if state == connectivity.Idle {
			c.conn.Connect()
		}
		if !c.conn.WaitForStateChange(waiting, state) {
			return ctx.Err()
		}
		if c.conn.GetState() == connectivity.Ready {
			break
		}
	}
	// Others have waited for the same moment.
	spread := time.NewTimer(rand.N(min(wait, firstWait)))
	defer spread.Stop()
	select {
	case <-spread.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
