package redis

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// listAtOnce is how many records List reads at once: their summaries are up to MaxChunk each.
const listAtOnce = 64

// ledgerKeys returns the keys of record.lua.
func (d *Durability) ledgerKeys() []string {
	return []string{d.tag + ":m:", d.tag + ":s:", d.tag + ":k:", d.tag + ":ids"}
}

func (d *Durability) retention() string {
	return strconv.FormatInt(max(d.cfg.Retention.Milliseconds(), 1), 10)
}

// store runs record.lua, and returns the record that stands in the way, if one does.
func (d *Durability) store(
	ctx context.Context, how string, record multicastregistry.Record, was []byte,
) (held multicastregistry.Record, exists bool, err error) {
	bounded, cancel, err := d.conn.bound(ctx)
	if err != nil {
		return held, false, err
	}
	defer cancel()
	args := make([]string, 0, 7+len(record.Targets))
	args = append(args, how, d.retention(), strconv.Itoa(d.cfg.MaxMulticasts), record.ID, record.Key,
		rueidis.BinaryString(record.Summary), rueidis.BinaryString(was))
	for _, part := range record.Targets {
		args = append(args, rueidis.BinaryString(part))
	}
	reply, err := recordScript.Exec(bounded, d.conn.write, d.ledgerKeys(), args).AsStrSlice()
	switch {
	case err != nil:
		return held, false, err
	case len(reply) == 0:
		return record, false, nil
	case len(reply) != 2:
		return held, false, fmt.Errorf("%w: record: %d fields", errReply, len(reply))
	}
	return multicastregistry.Record{ID: reply[0], Key: record.Key, Summary: []byte(reply[1])}, true, nil
}

// Begin implements multicastregistry.Ledger.
func (d *Durability) Begin(
	ctx context.Context, record multicastregistry.Record,
) (held multicastregistry.Record, began bool, err error) {
	held, exists, err := d.store(ctx, "begin", record, nil)
	if err != nil {
		return multicastregistry.Record{}, false, d.unknown(ctx, "begin multicast", record.ID, err)
	}
	return held, !exists, nil
}

// Finish implements multicastregistry.Ledger.
func (d *Durability) Finish(ctx context.Context, record multicastregistry.Record) error {
	if _, _, err := d.store(ctx, "finish", record, nil); err != nil {
		return d.unknown(ctx, "finish multicast", record.ID, err)
	}
	return nil
}

// Replace implements multicastregistry.Ledger.
func (d *Durability) Replace(ctx context.Context, record multicastregistry.Record, was []byte) (bool, error) {
	_, differs, err := d.store(ctx, "replace", record, was)
	if err != nil {
		return false, d.unknown(ctx, "replace multicast", record.ID, err)
	}
	return !differs, nil
}

// Held implements multicastregistry.Ledger.
func (d *Durability) Held(ctx context.Context, key string) (record multicastregistry.Record, err error) {
	bounded, cancel, err := d.conn.bound(ctx)
	if err != nil {
		return record, d.conn.wrap(ctx, "find the multicast of key", key, err)
	}
	defer cancel()
	keys, client := d.ledgerKeys(), d.conn.read
	id, err := client.Do(bounded, client.B().Get().Key(keys[2]+key).Build()).ToString()
	var summary string
	if err == nil {
		summary, err = client.Do(bounded, client.B().Hget().Key(keys[0]+id).Field("s").Build()).ToString()
	}
	if rueidis.IsRedisNil(err) {
		err = multicastregistry.ErrNotFound
	}
	if err != nil {
		return record, d.conn.wrap(ctx, "find the multicast of key", key, err)
	}
	return multicastregistry.Record{ID: id, Key: key, Summary: []byte(summary)}, nil
}

// Settle implements multicastregistry.Ledger, with one script for 500 settlements.
func (d *Durability) Settle(ctx context.Context, settlements []multicastregistry.Settlement) []error {
	results := make([]error, len(settlements))
	bounded, cancel, err := d.conn.bound(ctx)
	if err != nil {
		for i := range results {
			results[i] = d.conn.wrap(ctx, "settle multicast", settlements[i].ID, err)
		}
		return results
	}
	defer cancel()
	calls := split(len(settlements), topicsAtOnce, []string{d.retention()}, func(args []string, item int) []string {
		s := &settlements[item]
		final := "0"
		if s.Final {
			final = "1"
		}
		return append(args, s.ID, s.Identity, final, rueidis.BinaryString(s.Data))
	})
	d.conn.runSplit(bounded, settleScript, d.ledgerKeys()[1:2], calls, func(first, items int, result rueidis.RedisResult) {
		if err := result.Error(); err != nil {
			for i := first; i < first+items; i++ {
				results[i] = d.unknown(ctx, "settle multicast", settlements[i].ID, err)
			}
		}
	})
	return results
}

// Get implements multicastregistry.Ledger.
func (d *Durability) Get(
	ctx context.Context, id string,
) (record multicastregistry.Record, settlements []multicastregistry.Settlement, err error) {
	bounded, cancel, err := d.conn.bound(ctx)
	if err != nil {
		return record, nil, d.conn.wrap(ctx, "get multicast", id, err)
	}
	defer cancel()
	keys, client := d.ledgerKeys(), d.conn.read
	results := client.DoMulti(bounded,
		client.B().Hgetall().Key(keys[0]+id).Build(), client.B().Hgetall().Key(keys[1]+id).Build())
	fields, err := results[0].AsStrMap()
	var settled map[string]string
	if err == nil {
		settled, err = results[1].AsStrMap()
	}
	summary, kept := fields["s"]
	if err == nil && !kept {
		err = multicastregistry.ErrNotFound
	}
	if err != nil {
		return record, nil, d.conn.wrap(ctx, "get multicast", id, err)
	}
	record = multicastregistry.Record{ID: id, Key: fields["k"], Summary: []byte(summary)}
	for n := 1; ; n++ {
		part, more := fields["t"+strconv.Itoa(n)]
		if !more {
			break
		}
		record.Targets = append(record.Targets, []byte(part))
	}
	for identity, value := range settled {
		final := strings.HasPrefix(value, "1")
		settlements = append(settlements, multicastregistry.Settlement{
			ID: id, Identity: identity, Final: final, Data: []byte(value[min(1, len(value)):]),
		})
	}
	return record, settlements, nil
}

// List implements multicastregistry.Ledger.
func (d *Durability) List(ctx context.Context, before string, limit int) ([]multicastregistry.Record, error) {
	bounded, cancel, err := d.conn.bound(ctx)
	if err != nil {
		return nil, d.conn.wrap(ctx, "list multicasts", "", err)
	}
	defer cancel()
	var records []multicastregistry.Record
	for len(records) < limit {
		some, last, err := d.listSome(bounded, before, min(limit-len(records), listAtOnce))
		if err != nil {
			return nil, d.conn.wrap(ctx, "list multicasts", "", err)
		}
		records = append(records, some...)
		if last == "" {
			break
		}
		before = last
	}
	return records, nil
}

// listSome returns the kept ones among the next ids, and the last of those ids, or "" when there are no more.
func (d *Durability) listSome(
	ctx context.Context, before string, n int,
) (records []multicastregistry.Record, last string, err error) {
	keys, client := d.ledgerKeys(), d.conn.read
	from := "+"
	if before != "" {
		from = "(" + before
	}
	list := client.B().Zrevrangebylex().Key(keys[3]).Max(from).Min("-").Limit(0, int64(n)).Build()
	ids, err := client.Do(ctx, list).AsStrSlice()
	if err != nil || len(ids) == 0 {
		return nil, "", err
	}
	commands := make(rueidis.Commands, len(ids))
	for i, id := range ids {
		commands[i] = client.B().Hmget().Key(keys[0]+id).Field("s", "k").Build()
	}
	for i, result := range client.DoMulti(ctx, commands...) {
		fields, err := result.ToArray()
		if err == nil && len(fields) != 2 {
			err = fmt.Errorf("%w: record: %d fields", errReply, len(fields))
		}
		if err != nil {
			return nil, "", err
		}
		summary, bad := fields[0].ToString()
		key, worse := fields[1].ToString()
		if bad == nil && worse == nil { // else its time was up
			records = append(records, multicastregistry.Record{ID: ids[i], Key: key, Summary: []byte(summary)})
		}
	}
	return records, ids[len(ids)-1], nil
}
