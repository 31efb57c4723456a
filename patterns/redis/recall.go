package redis

import (
	"context"

	"github.com/redis/rueidis"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// Stored implements multicastregistry.Recaller.
func (d *Durability) Stored(ctx context.Context, messages []multicastregistry.Message) ([]bool, error) {
	return d.recall(ctx, "look for", storedScript, d.keys[1:2], d.head[:1], messages, false)
}

// Withdraw implements multicastregistry.Recaller. After an error some may have been withdrawn, and some not.
func (d *Durability) Withdraw(ctx context.Context, messages []multicastregistry.Message) ([]bool, error) {
	return d.recall(ctx, "withdraw from", removeScript, d.keys, d.head, messages, true)
}

// recall asks a script about each message.
func (d *Durability) recall(
	ctx context.Context, op string, s script, keys, head []string, messages []multicastregistry.Message, anyEntry bool,
) ([]bool, error) {
	found := make([]bool, len(messages))
	bounded, cancel, err := d.conn.bound(ctx)
	if err != nil {
		return nil, d.conn.wrap(ctx, op, "", err)
	}
	defer cancel()
	calls := split(len(messages), topicsAtOnce, head, func(args []string, item int) []string {
		args = append(args, messages[item].Topic, messages[item].ID)
		if anyEntry {
			args = append(args, "")
		}
		return args
	})
	d.conn.runSplit(bounded, s, keys, calls, func(first, items int, result rueidis.RedisResult) {
		answers, bad := integers(result, items)
		if bad != nil && err == nil {
			err = d.conn.wrap(ctx, op, messages[first].Identity, bad)
		}
		for i, answer := range answers {
			found[first+i] = answer == 1
		}
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}
