package redis

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

var (
	_ multicastregistry.Prober = (*Registry)(nil)
	_ multicastregistry.Prober = (*Sharded)(nil)
	_ multicastregistry.Clock  = (*Registry)(nil)
	_ multicastregistry.Clock  = (*Sharded)(nil)

	//go:embed lua/live.lua
	liveSource string
	liveScript = rueidis.NewLuaScriptReadOnly(reading(liveSource))
)

// probedAtOnce is how many identities one script looks up: Redis is busy with them for less than a millisecond.
const probedAtOnce = 1000

// Live implements multicastregistry.Prober, by Redis' clock.
func (r *Registry) Live(ctx context.Context, ids []string) ([]bool, error) {
	live := make([]bool, 0, len(ids))
	if err := ctx.Err(); err != nil {
		return nil, r.conn.wrap(ctx, "look up", "", err)
	}
	for some := range slices.Chunk(ids, probedAtOnce) {
		args := make([]string, 2, 2+len(some))
		args[0], args[1] = r.after, r.keys.identity
		for _, id := range some {
			args = append(args, multicastregistry.EncodeName(id))
		}
		reply, err := r.conn.run(ctx, r.conn.read, liveScript, []string{r.keys.leases, r.keys.head}, args)
		if err == nil && len(reply) != len(some) {
			err = fmt.Errorf("%w: %d answers about %d identities", errReply, len(reply), len(some))
		}
		if err != nil {
			return nil, r.conn.wrap(ctx, "look up", "", err)
		}
		for _, answer := range reply {
			live = append(live, answer == 1)
		}
	}
	return live, nil
}

// Live implements multicastregistry.Prober, shard by shard.
func (s *Sharded) Live(ctx context.Context, ids []string) ([]bool, error) {
	names, places := make([][]string, len(s.shards)), make([][]int, len(s.shards))
	for i, id := range ids {
		shard := s.of(id)
		names[shard], places[shard] = append(names[shard], id), append(places[shard], i)
	}
	live := make([]bool, len(ids))
	if err := ctx.Err(); err != nil {
		return nil, s.shards[0].conn.wrap(ctx, "look up", "", err)
	}
	err := s.each(func(shard int, r *Registry) error {
		if len(names[shard]) == 0 {
			return nil
		}
		answers, err := r.Live(ctx, names[shard])
		for i, answer := range answers {
			live[places[shard][i]] = answer
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return live, nil
}

// Now implements multicastregistry.Clock.
func (r *Registry) Now(ctx context.Context) (time.Time, error) { return r.conn.now(ctx) }

// Now implements multicastregistry.Clock, by the clock of the first shard: the servers' clocks are taken to be the same.
func (s *Sharded) Now(ctx context.Context) (time.Time, error) { return s.shards[0].Now(ctx) }

func (c *Conn) now(ctx context.Context) (time.Time, error) {
	bounded, cancel, err := c.bound(ctx)
	if err != nil {
		return time.Time{}, err
	}
	defer cancel()
	reply, err := c.write.Do(bounded, c.write.B().Time().Build()).AsStrSlice()
	if err == nil && len(reply) != 2 {
		err = errReply
	}
	var parts [2]int64
	for i := range reply {
		if err == nil {
			parts[i], err = strconv.ParseInt(reply[i], 10, 64)
		}
	}
	return time.Unix(parts[0], parts[1]*1000), c.wrap(ctx, "time", "", err)
}
