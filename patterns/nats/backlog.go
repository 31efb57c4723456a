package nats

import (
	"context"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
)

// Backlog implements multicastregistry.Backlog. The leader of the stream knows how many messages it has; as long as the oldest of
// them is too old, the server is asked besides how many there are from the first one on that is not.
func (d *Durability) Backlog(ctx context.Context) (int, error) {
	info, err := d.queue.info(ctx, "", 0)
	if err != nil {
		return 0, wrap("count what is stored", "", err)
	}
	if info.State.Messages == 0 || info.State.FirstAt.After(info.Now.Add(-d.cfg.MaxAge)) {
		return int(info.State.Messages), nil
	}
	cutoff, err := d.cutoff(ctx)
	if err != nil {
		return 0, wrap("count what is stored", "", err)
	}
	n, err := d.queue.from(ctx, max(cutoff, 1))
	return n, wrap("count what is stored", "", err)
}

// from counts the messages from a sequence on. Every replica may answer, and one that lags behind by a moment does so. The filter
// is the one for which the server does not look at subjects.
func (s *stream) from(ctx context.Context, seq uint64) (n int, err error) {
	x := exchange{conn: s.conn, n: 1, atOnce: 1, out: func(_ int, m *nats.Msg) error {
		m.Subject = "$JS.API.DIRECT.GET." + s.name
		m.Data = fmt.Appendf(nil, `{"seq":%d,"next_by_subj":">","batch":1}`, seq)
		return nil
	}, in: func(_ int, m *nats.Msg) (bool, error) {
		switch first(m.Header, statusHeader) {
		case "":
			n = 1
			return false, nil
		case "204":
			pending, err := strconv.Atoi(first(m.Header, "Nats-Num-Pending"))
			n += pending
			return true, err
		case "404":
			return true, nil
		default:
			return true, statusError(m)
		}
	}}
	return n, firstOf(x.do(ctx))
}
