package memory

import (
	"context"
	"time"
)

// Backlog implements multicastregistry.Backlog. It drops what is too old before it counts, a few queues at a time.
func (d *Durability) Backlog(ctx context.Context) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for left := len(d.all); left > 0; left -= storedAtOnce {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		d.sweepSome(time.Now(), min(left, storedAtOnce))
		d.mu.Unlock() // for others at the queues
		d.mu.Lock()
	}
	return d.total, ctx.Err()
}
