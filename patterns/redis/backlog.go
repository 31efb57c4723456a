package redis

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// slicesOfAge is how many slices of the depth make up MaxAge: see lua/queue.lua.
const slicesOfAge = 256

// Backlog implements multicastregistry.Backlog, by counts that the scripts keep: see lua/queue.lua. It reads one hash of up to
// 270 numbers, and adds them up here: a script would hold Redis for several times as long. What became too old counts for up to
// a 256th of MaxAge longer. After a change of MaxAge, and after Redis has evicted something, the number is wrong until what was
// stored before is too old.
func (d *Durability) Backlog(ctx context.Context) (int, error) {
	n, err := d.backlog(ctx)
	if err != nil {
		return 0, d.conn.wrap(ctx, "count what is stored", "", err)
	}
	return n, nil
}

func (d *Durability) backlog(ctx context.Context) (int, error) {
	bounded, cancel, err := d.conn.bound(ctx)
	if err != nil {
		return 0, err
	}
	defer cancel()
	// On a cluster both go to the server that has the hash.
	replies := d.conn.read.DoMulti(bounded,
		d.conn.read.B().Time().Build().ToRetryable(), d.conn.read.B().Hgetall().Key(d.keys[3]).Build())
	clock, err := integers(replies[0], 2)
	if err != nil {
		return 0, err
	}
	counts, err := replies[1].AsIntMap()
	if err != nil {
		return 0, err
	}
	maxAge := max(d.cfg.MaxAge.Milliseconds(), 1)
	width := (maxAge + slicesOfAge - 1) / slicesOfAge
	first := (time.Unix(clock[0], clock[1]*1000).UnixMilli() - maxAge) / width
	total := int64(0)
	for field, n := range counts {
		slice, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%w: key %s: field %q: %w", errReply, d.keys[3], field, err)
		}
		if slice >= first {
			total += max(n, 0)
		}
	}
	return int(total), nil
}
