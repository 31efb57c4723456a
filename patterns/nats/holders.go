package nats

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// leaseTime is how long a process may hold topics after it has renewed its lease, and leaseEvery how often it does.
	leaseTime  = 5 * time.Second
	leaseEvery = 1500 * time.Millisecond
	// claimTries is how often a queue is claimed in one turn when others come in between; claimPause the pause between the later
	// ones.
	claimTries = 6
	claimPause = 5 * time.Millisecond
	// lookTimeout bounds what the goroutine that keeps the lease waits for anything else.
	lookTimeout = time.Second
	// everything stands for the sequence of whatever is stored.
	everything = math.MaxUint64
)

// hold is what is known of a queue's entry in the stream of holders.
type hold struct {
	seq   uint64    // of our entry; 0: we do not hold the queue
	since time.Time // when that was written
	renew bool      // it is to be written again
	over  uint64    // where we do not: the entry that ours takes the place of
	by    string    // where we do not: the process that does
}

// holderEntry says who holds a queue. It is the value of "prism-holders.<namespace>.topic.<name>".
type holderEntry struct {
	By      string `json:"by,omitempty"`      // the name of a lease; empty: given back
	Yielded uint64 `json:"yielded,omitempty"` // up to where the messages may have been yielded
}

// holders writes the entries of this process, and its lease, "prism-holders.<namespace>.lease.<name>". When the lease has ended
// against our will, the next one has another name, and the entries are written again if nobody has taken them.
type holders struct {
	hub     *hub
	stream  *stream
	prefix  string
	process string
	ttl     time.Duration // of entries

	writing sync.Mutex // by whoever renews the lease

	// The hub's lock guards these.
	lease struct {
		name    string
		number  int
		seq     uint64
		until   time.Time // of our clock; handing out messages ends
		written time.Time
	}
	count   int                 // queues we hold
	unsure  map[*queue]struct{} // those that others may have taken since the lease ended
	looked  time.Time           // when old entries were looked for
	stalled bool                // consumers were refused
}

func newHolders(h *hub, s *stream) *holders {
	l := &holders{
		hub: h, stream: s, prefix: "prism-holders." + h.d.cfg.Namespace + ".", process: rand.Text(),
		ttl: h.d.cfg.MaxAge + overdue, unsure: make(map[*queue]struct{}), looked: time.Now(),
	}
	l.rename()
	return l
}

func (l *holders) rename() {
	l.lease.number++
	l.lease.name, l.lease.seq = l.process+"-"+strconv.Itoa(l.lease.number), 0
	l.lease.until = time.Time{}
}

func (l *holders) topicSubject(name string) string  { return l.prefix + "topic." + name }
func (l *holders) leaseSubject(lease string) string { return l.prefix + "lease." + lease }

// mayYield tells whether what we hold is ours for certain. The caller holds the hub's lock.
func (l *holders) mayYield() bool {
	ok := l.count == 0 || len(l.unsure) == 0 && time.Now().Before(l.lease.until)
	l.stalled = l.stalled || !ok
	return ok
}

// resume wakes consumers that were refused. The caller holds the hub's lock.
func (l *holders) resume() {
	if !l.stalled || !l.mayYield() {
		return
	}
	l.stalled = false
	for c := range l.hub.consumers {
		wake(c.ready)
	}
}

// put writes a message to the stream of holders in the place of the one with the given sequence, 0 for none.
func (l *holders) put(m *nats.Msg, subject string, over uint64, ttl time.Duration, value any) error {
	data, err := json.Marshal(value)
	m.Subject, m.Data = subject, data
	m.Header = nats.Header{
		headerExpected: {strconv.FormatUint(over, 10)},
		headerTTL:      {strconv.FormatInt(int64((ttl+time.Second-1)/time.Second), 10)},
	}
	return err
}

// ensure makes sure that there is a lease.
func (l *holders) ensure(ctx context.Context) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	l.hub.mu.Lock()
	valid := time.Now().Before(l.lease.until)
	l.hub.mu.Unlock()
	if valid {
		return nil
	}
	return l.renew(ctx)
}

// renew writes the lease. The caller holds l.writing.
func (l *holders) renew(ctx context.Context) error {
	h := l.hub
	for attempt := 0; ; attempt++ {
		h.mu.Lock()
		name, seq := l.lease.name, l.lease.seq
		h.mu.Unlock()
		sent := time.Now()
		seqs, errs := l.stream.publish(ctx, 1, func(_ int, m *nats.Msg) error {
			return l.put(m, l.leaseSubject(name), seq, leaseTime, struct{}{})
		})
		if errs[0] == nil {
			h.mu.Lock()
			l.lease.seq, l.lease.written, l.lease.until = seqs[0], sent, sent.Add(leaseTime)
			l.resume()
			h.mu.Unlock()
			return nil
		}
		if !isConflict(errs[0]) || attempt >= claimTries {
			return errs[0]
		}
		m, ok, err := l.stream.last(ctx, l.leaseSubject(name))
		if err != nil {
			return err
		}
		h.mu.Lock()
		if ok { // an earlier renewal has arrived, of which we did not hear
			l.lease.seq = m.seq
		} else {
			l.ended()
		}
		h.mu.Unlock()
	}
}

// ended begins anew after a lease that ended against our will. The caller holds the hub's lock.
func (l *holders) ended() {
	l.rename()
	for _, q := range l.hub.queues {
		if q.hold.seq != 0 {
			q.hold.renew = true
			l.unsure[q] = struct{}{}
			l.hub.mark(q)
		}
	}
}

// keep renews the lease when it is due, and entries long before their time ends.
func (l *holders) keep(ctx context.Context, now time.Time) {
	l.hub.mu.Lock()
	due := l.count > 0 && now.Sub(l.lease.written) >= leaseEvery
	if now.Sub(l.looked) > time.Minute {
		l.looked = now
		for _, q := range l.hub.queues {
			if q.hold.seq != 0 && now.Sub(q.hold.since) > l.ttl/2 {
				q.hold.renew = true
				l.hub.mark(q)
			}
		}
	}
	l.hub.mu.Unlock()
	if !due {
		return
	}
	l.writing.Lock()
	defer l.writing.Unlock()
	limited, cancel := context.WithTimeout(ctx, leaseTime)
	defer cancel()
	_ = l.renew(limited) // in vain: again before long, and nothing is handed out once the lease has ended
}

// end removes the lease.
func (l *holders) end(ctx context.Context) {
	l.hub.mu.Lock()
	name, seq := l.lease.name, l.lease.seq
	l.hub.mu.Unlock()
	if seq != 0 {
		l.stream.purge(ctx, 1, func(int) (string, uint64) { return l.leaseSubject(name), 0 }) // in vain: it ends by itself
	}
}

// claim takes hold of queues. Those that are ours then are to be read.
func (h *hub) claim(t *turnOf) error {
	if len(t.claim) == 0 {
		return nil
	}
	l := h.holders
	if err := l.ensure(h.ended); err != nil {
		return err
	}
	pending := t.claim
	for attempt := 0; len(pending) > 0; attempt++ {
		if attempt >= claimTries {
			return errConflict
		}
		if attempt > 1 {
			if err := wait(h.ended, claimPause<<attempt); err != nil {
				return err
			}
		}
		contested, err := h.write(t, pending)
		if err != nil {
			return err
		}
		if pending, err = h.contest(t, contested); err != nil {
			return err
		}
	}
	return nil
}

// write writes our entries, and returns the queues whose entry is another one than expected.
func (h *hub) write(t *turnOf, queues []*queue) (contested []*queue, err error) {
	l := h.holders
	h.mu.Lock()
	name := l.lease.name
	over, yielded := make([]uint64, len(queues)), make([]uint64, len(queues))
	for i, q := range queues {
		over[i], yielded[i] = q.hold.over, q.yielded
		if q.hold.seq != 0 {
			over[i] = q.hold.seq
		}
	}
	h.mu.Unlock()
	now := time.Now()
	seqs, errs := l.stream.publish(h.ended, len(queues), func(i int, m *nats.Msg) error {
		return l.put(m, l.topicSubject(queues[i].name), over[i], l.ttl, holderEntry{By: name, Yielded: yielded[i]})
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, q := range queues {
		switch {
		case errs[i] == nil:
			l.took(t, q, seqs[i], now, name)
		case isConflict(errs[i]):
			contested = append(contested, q)
		default:
			err = errs[i]
		}
	}
	l.resume()
	return contested, err
}

// took notes that an entry is ours. The caller holds the hub's lock.
func (l *holders) took(t *turnOf, q *queue, seq uint64, now time.Time, name string) {
	if q.hold.seq == 0 {
		l.count++
	}
	q.hold = hold{seq: seq, since: now}
	delete(l.unsure, q)
	if name != l.lease.name { // that lease has ended meanwhile
		q.hold.renew = true
		l.unsure[q] = struct{}{}
		l.hub.mark(q)
		return
	}
	t.read = append(t.read, q)
}

// contest looks at entries that are not what we expected, and returns the queues that can be claimed.
func (h *hub) contest(t *turnOf, queues []*queue) (free []*queue, err error) {
	if len(queues) == 0 {
		return nil, nil
	}
	l := h.holders
	entries, err := l.entries(h.ended, queues)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	var leases []string
	for _, e := range entries {
		if e.By != "" && e.By != l.lease.name {
			leases = append(leases, e.By)
		}
	}
	h.mu.Unlock()
	alive, err := l.alive(h.ended, leases)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, q := range queues {
		e := entries[q.name]
		if q.hold.seq != 0 && e.seq != q.hold.seq && (e.By != l.lease.name || e.seq == 0) {
			l.count--
			delete(l.unsure, q)
			h.lose(q)
		}
		switch {
		case e.seq != 0 && e.By == l.lease.name: // written by an earlier try
			l.took(t, q, e.seq, time.Now(), e.By)
		case e.By != "" && alive[e.By]:
			q.hold = hold{by: e.By}
			h.settledFor(q)
		case q.hold.seq != 0:
			free = append(free, q)
		default:
			q.hold = hold{over: e.seq}
			q.yielded = max(q.yielded, e.Yielded)
			if e.By != "" { // whose process is gone, nobody knows how far it came
				q.yielded = everything
			}
			free = append(free, q)
		}
	}
	l.resume()
	return free, nil
}

// entryOf is an entry with its sequence; 0: there is none.
type sequenced struct {
	holderEntry

	seq uint64
}

func (l *holders) entries(ctx context.Context, queues []*queue) (map[string]sequenced, error) {
	subjects := make([]string, len(queues))
	for i, q := range queues {
		subjects[i] = l.topicSubject(q.name)
	}
	entries := make(map[string]sequenced, len(queues))
	return entries, l.stream.lastOf(ctx, subjects, func(m streamMsg) error {
		e := sequenced{seq: m.seq}
		if err := json.Unmarshal(m.data, &e.holderEntry); err != nil {
			return err
		}
		entries[m.subject[len(l.topicSubject("")):]] = e
		return nil
	})
}

// alive tells which leases have not ended.
func (l *holders) alive(ctx context.Context, leases []string) (map[string]bool, error) {
	alive := make(map[string]bool, len(leases))
	var subjects []string
	for _, name := range leases {
		if _, asked := alive[name]; !asked {
			alive[name] = false
			subjects = append(subjects, l.leaseSubject(name))
		}
	}
	return alive, l.stream.lastOf(ctx, subjects, func(m streamMsg) error {
		alive[m.subject[len(l.leaseSubject("")):]] = true
		return nil
	})
}

// look looks for holders that have gone.
func (l *holders) look(ctx context.Context) {
	h := l.hub
	h.mu.Lock()
	held := make(map[string][]*queue)
	for _, q := range h.queues {
		if q.hold.by != "" && len(q.consumers) > 0 {
			held[q.hold.by] = append(held[q.hold.by], q)
		}
	}
	h.mu.Unlock()
	if len(held) == 0 {
		return
	}
	leases := make([]string, 0, len(held))
	for name := range held {
		leases = append(leases, name)
	}
	limited, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	alive, err := l.alive(limited, leases)
	if err != nil {
		return // the next time
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, queues := range held {
		for _, q := range queues {
			if !alive[name] && q.hold.by == name {
				q.hold.by = ""
				q.stored = true
				h.mark(q)
			}
		}
	}
}

// release gives queues back that nobody consumes here, and tells the others.
func (h *hub) release(queues []*queue) error {
	if len(queues) == 0 {
		return nil
	}
	var clean, open []*queue // open: something was yielded and is not acked, as far as we know
	var over []hold
	yielded := make(map[*queue]uint64)
	h.mu.Lock()
	for _, q := range queues {
		if len(q.held) == 0 && q.yielded <= q.read {
			clean = append(clean, q)
			over = append(over, q.hold)
		} else {
			open = append(open, q)
			yielded[q] = q.yielded
		}
	}
	h.mu.Unlock()
	l := h.holders
	_, errs := l.stream.purge(h.ended, len(clean), func(i int) (string, uint64) {
		return l.topicSubject(clean[i].name), over[i].seq + 1
	})
	err := h.gave(clean, make([]uint64, len(clean)), errs)
	seqs, errs := l.stream.publish(h.ended, len(open), func(i int, m *nats.Msg) error {
		return l.put(m, l.topicSubject(open[i].name), open[i].hold.seq, l.ttl, holderEntry{Yielded: yielded[open[i]]})
	})
	return errors.Join(err, h.gave(open, seqs, errs))
}

// gave notes what was given back.
func (h *hub) gave(queues []*queue, seqs []uint64, errs []error) (failed error) {
	l := h.holders
	var free []string
	h.mu.Lock()
	for i, q := range queues {
		if errs[i] != nil && !isConflict(errs[i]) {
			failed = errs[i]
			continue
		}
		l.count--
		delete(l.unsure, q)
		q.hold = hold{over: seqs[i]}
		free = append(free, q.name)
		h.freed[q.name] = time.Now()
	}
	l.resume()
	h.mu.Unlock()
	h.spreadBack(free)
	return failed
}
