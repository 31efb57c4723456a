package redis

import (
	"context"
	_ "embed"
	"fmt"
	"slices"

	"github.com/redis/rueidis"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

var (
	_ multicastregistry.Prober = (*Registry)(nil)
	_ multicastregistry.Prober = (*Sharded)(nil)

	//go:embed lua/live.lua
	liveSource string
	liveScript = rueidis.NewLuaScriptReadOnly(liveSource)
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
		args := make([]string, 1, 1+len(some))
		args[0] = r.keys.identity
		for _, id := range some {
			args = append(args, multicastregistry.EncodeName(id))
		}
		reply, err := r.conn.run(ctx, r.conn.read, liveScript, []string{r.keys.leases}, args)
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
