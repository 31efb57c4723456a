package nats

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	// peekOneByOne is up to how many queues are looked at one by one.
	peekOneByOne = 32
	// readGroup is how many queues one request reads: the server returns a thousand messages at the most.
	readGroup = 250
	// pageMessages is how many messages of a longer queue are read at once.
	pageMessages = 512
	// leaderRounds is how many messages of each queue are read in one turn through the leader, one after the other.
	leaderRounds = 128
	// listed is how many subjects the leader lists at once.
	listed = 100_000
)

// peek finds out for which queues something is stored; those are to be claimed.
func (h *hub) peek(t *turnOf) error {
	if len(t.peek) == 0 {
		return nil
	}
	suspects, err := h.suspects(t.peek)
	if err != nil {
		return err
	}
	found := make([]bool, len(suspects))
	if err := firstOf(h.d.queue.next(h.ended, len(suspects), func(i int) (string, uint64) {
		return h.d.prefix + suspects[i].name + ".>", 0
	}, func(i int, _ streamMsg, ok bool) error {
		found[i] = ok
		return nil
	})); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	stored := make(map[*queue]bool, len(suspects))
	for i, q := range suspects {
		stored[q] = found[i]
	}
	for _, q := range t.peek {
		switch {
		case len(q.consumers) == 0:
		case stored[q] || q.stored: // q.stored: we have just been told
			q.stored = true
			t.claim = append(t.claim, q)
		default:
			h.settledFor(q)
		}
	}
	return nil
}

// suspects returns the queues for which something may be stored.
func (h *hub) suspects(queues []*queue) ([]*queue, error) {
	s := h.d.queue
	if len(queues) <= peekOneByOne {
		return queues, nil
	}
	if s.replicas.Load() == 1 {
		return h.suspectGroups(queues)
	}
	info, err := s.info(h.ended, "", 0)
	if err != nil || info.State.Messages > listed {
		return queues, err
	}
	subjects, _, err := s.subjects(h.ended, h.d.prefix+">")
	if err != nil {
		return nil, err
	}
	stored := make(map[string]bool, len(subjects))
	for _, subject := range subjects {
		name, _, _, _ := parts(subject[len(h.d.prefix):])
		stored[name] = true
	}
	return slices.DeleteFunc(slices.Clone(queues), func(q *queue) bool { return !stored[q.name] }), nil
}

// suspectGroups asks for one message of hundreds of queues at once.
func (h *hub) suspectGroups(queues []*queue) ([]*queue, error) {
	s := h.d.queue
	groups := grouped(h.filters(queues))
	found := make([]bool, len(groups))
	x := exchange{conn: s.conn, n: len(groups), atOnce: readAtOnce, out: func(i int, m *nats.Msg) (err error) {
		m.Subject = "$JS.API.DIRECT.GET." + s.name
		m.Data, err = json.Marshal(struct {
			Last  []string `json:"multi_last"`
			Batch int      `json:"batch"`
		}{groups[i], 1})
		return err
	}, in: func(i int, m *nats.Msg) (bool, error) {
		switch first(m.Header, statusHeader) {
		case "":
			found[i] = true
			return false, nil
		case "204":
			return true, nil
		case "413":
			found[i] = true
			return true, nil
		case "404":
			found[i] = found[i] || first(m.Header, "Description") != noResults
			return true, nil
		default:
			return true, statusError(m)
		}
	}}
	if err := firstOf(x.do(h.ended)); err != nil {
		return nil, err
	}
	var suspects []*queue
	for i, group := range groups {
		if found[i] {
			suspects = append(suspects, queues[:len(group)]...)
		}
		queues = queues[len(group):]
	}
	return suspects, nil
}

func (h *hub) filters(queues []*queue) []string {
	filters := make([]string, len(queues))
	for i, q := range queues {
		filters[i] = h.d.prefix + q.name + ".>"
	}
	return filters
}

// reading is what is read of one queue in one turn.
type reading struct {
	q        *queue
	turn     uint64
	from     uint64
	messages []streamMsg
	more     bool // there may be more
}

// read reads queues that we hold, and hands the messages to their consumers.
func (h *hub) read(queues []*queue) error {
	if len(queues) == 0 {
		return nil
	}
	now, err := h.d.clock.now(h.ended)
	if err != nil {
		return err
	}
	all := h.readings(queues)
	if h.d.queue.replicas.Load() == 1 {
		err = h.readGroups(all)
	} else {
		err = h.readLeader(all)
	}
	if err != nil {
		return err
	}
	var old []streamMsg
	h.mu.Lock()
	for _, r := range all {
		old = append(old, h.deliver(r, now.Add(-h.d.cfg.MaxAge))...)
	}
	h.mu.Unlock()
	h.d.removeOld(h.ended, old)
	return nil
}

func (h *hub) readings(queues []*queue) []*reading {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*reading, 0, len(queues))
	for _, q := range queues {
		switch {
		case len(q.consumers) == 0:
		case q.consumers[0].full():
			h.park(q)
		default:
			all = append(all, &reading{q: q, turn: q.turn, from: q.next})
		}
	}
	slices.SortFunc(all, func(a, b *reading) int { return int(min(a.from, 1<<62)) - int(min(b.from, 1<<62)) })
	return all
}

// park has a queue wait until its consumer has room. The caller holds h.mu.
func (h *hub) park(q *queue) {
	if !q.parked {
		q.parked = true
		c := q.consumers[0]
		c.parked = append(c.parked, q)
	}
}

// readGroups reads a stream of one replica: many queues at once, and those in which there is more to read one by one.
func (h *hub) readGroups(all []*reading) error {
	work := slices.Collect(slices.Chunk(all, readGroup))
	for len(work) > 0 {
		groups, byName := make([][]string, len(work)), make(map[string]*reading)
		for i, group := range work {
			for _, r := range group {
				groups[i] = append(groups[i], h.d.prefix+r.q.name+".>")
				byName[r.q.name] = r
			}
		}
		errs := h.d.queue.multi(h.ended, groups, func(i int) uint64 { return work[i][0].from }, func(_ int, m streamMsg) error {
			name, _, _, _ := parts(m.subject[len(h.d.prefix):])
			if r := byName[name]; r != nil && m.seq >= r.from {
				r.messages = append(r.messages, m)
			}
			return nil
		}, func(i int) {
			for _, r := range work[i] {
				r.more = true
			}
		})
		var next [][]*reading
		for i, err := range errs {
			switch group := work[i]; {
			case err == nil:
			case !errors.Is(err, errTooMany):
				return err
			case len(group) > 1:
				next = append(next, group[:len(group)/2], group[len(group)/2:])
			default:
				if err := h.readPage(group[0]); err != nil {
					return err
				}
			}
		}
		work = next
	}
	return nil
}

func (h *hub) readPage(r *reading) (err error) {
	r.messages = nil
	r.more, err = h.d.queue.page(h.ended, h.d.prefix+r.q.name+".>", r.from, pageMessages, func(m streamMsg) error {
		r.messages = append(r.messages, m)
		return nil
	})
	return err
}

// readLeader reads a stream of several replicas, through its leader.
func (h *hub) readLeader(all []*reading) error {
	open := all
	for round := 0; len(open) > 0; round++ {
		var next []*reading
		errs := h.d.queue.next(h.ended, len(open), func(i int) (string, uint64) {
			r := open[i]
			from := r.from
			if n := len(r.messages); n > 0 {
				from = r.messages[n-1].seq + 1
			}
			return h.d.prefix + r.q.name + ".>", from
		}, func(i int, m streamMsg, ok bool) error {
			if ok {
				open[i].messages = append(open[i].messages, m)
				next = append(next, open[i])
			}
			return nil
		})
		if err := firstOf(errs); err != nil {
			return err
		}
		if open = next; round == leaderRounds {
			for _, r := range open {
				r.more = true
			}
			return nil
		}
	}
	return nil
}

// deliver hands what was read to the queue's consumer, and returns what was stored before an instant. The caller holds h.mu.
func (h *hub) deliver(r *reading, oldest time.Time) (old []streamMsg) {
	q := r.q
	if q.turn != r.turn || len(q.consumers) == 0 || q.hold.seq == 0 {
		return nil // it is to be read anew, by somebody else
	}
	c := q.consumers[0]
	var headers headerReader
	for i := range r.messages {
		m := &r.messages[i]
		q.next = m.seq + 1
		if m.at.Before(oldest) {
			old = append(old, *m)
			continue
		}
		message := multicastregistry.Message{Topic: q.topic, Identity: q.identity, Payload: m.data, AckTo: h.d.ackAddress(m)}
		headers.read(m.header, &message)
		message.Redelivered = m.seq <= q.yielded
		c.waiting = append(c.waiting, waiting{q: q, seq: m.seq, message: message})
		c.bytes += len(message.Payload)
	}
	switch {
	case r.more && c.full():
		h.park(q)
	case r.more:
		h.mark(q)
	default:
		if q.yielded == everything {
			q.yielded = max(q.next, 1) - 1
		}
		h.settledFor(q)
	}
	wake(c.ready)
	return old
}

// removeOld removes messages that are too old, and counts them to whoever consumes their topics.
func (d *Durability) removeOld(ctx context.Context, old []streamMsg) {
	if len(old) == 0 {
		return
	}
	purged, _ := d.queue.purge(ctx, len(old), func(i int) (string, uint64) { return old[i].subject, old[i].seq + 1 })
	lost := make(map[string]int)
	for i, n := range purged {
		name, _, _, _ := parts(old[i].subject[len(d.prefix):])
		lost[name] += n
	}
	for name, n := range lost {
		d.hub.tooOld(name, n)
	}
}
