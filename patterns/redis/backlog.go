package redis

import "context"

// Backlog implements multicastregistry.Backlog, by counts that the scripts keep. What became too old counts for up to a 256th of
// MaxAge longer. After a change of MaxAge, and after Redis has evicted something, the number is wrong until what was stored
// before is too old.
func (d *Durability) Backlog(ctx context.Context) (int, error) {
	reply, err := d.conn.run(ctx, d.conn.read, depthScript, d.keys[3:], d.head[:1])
	if err != nil {
		return 0, d.conn.wrap(ctx, "count what is stored", "", err)
	}
	return int(reply[0]), nil
}
