package redis

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// probe notices that a lane's connection leads to another node than messages are published on. A replica takes subscriptions
// too: one that was the master when the lane looked for it, or that became a replica before it was asked. What is published on
// the master reaches its subscribers, but the master does not count them, and Publish would say ErrNoSubscriber for ever.
type probe struct {
	link    *link
	channel string // nobody else's
}

// place subscribes the link's probe. It returns nil where that is of no use, or not allowed.
func (k *link) place(ctx context.Context) (*probe, error) {
	if !k.lane.sharded {
		return nil, nil
	}
	p := &probe{link: k, channel: k.lane.tag + inboxPrefix + "probe." + rand.Text()}
	ctx, cancel := context.WithTimeout(ctx, k.lane.conn.timeout)
	defer cancel()
	err := k.client.Do(ctx, k.client.B().Ssubscribe().Channel(p.channel).Build()).Error()
	if answer, ok := rueidis.IsRedisErr(err); ok && strings.HasPrefix(answer.Error(), "NOPERM") {
		return nil, nil
	}
	return p, err
}

// watch publishes to the probe, the way messages are, until the context ends or nobody is counted.
func (p *probe) watch(ctx context.Context) {
	tick := time.NewTicker(topologyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if p.misplaced(ctx) {
			p.link.lose()
			return
		}
	}
}

// misplaced tells whether the node that publishes does not count the link. Without an answer that is not known.
func (p *probe) misplaced(ctx context.Context) bool {
	conn := p.link.lane.conn
	ctx, cancel := context.WithTimeout(ctx, conn.timeout)
	defer cancel()
	counted, err := conn.write.Do(ctx, conn.write.B().Spublish().Channel(p.channel).Message("").Build()).AsInt64()
	return err == nil && counted == 0
}
