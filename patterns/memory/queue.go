package memory

import (
	"cmp"
	"slices"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// compactFrom is how many acked messages a queue puts up with behind one that is not.
const compactFrom = 64

// queue holds what is stored for one topic. The Durability's lock guards it.
type queue struct {
	topic     string
	listed    int               // place among all queues
	stored    []storedMessage   // by sequence; acked ones stay until they reach the front or are too many
	acked     int               // how many of stored
	total     *int              // messages of all queues
	ids       map[string]uint64 // sequences of what is stored, by id
	bytes     int
	next      int       // place in stored of the first message that the holder has not got yet
	dropped   uint64    // by age, and not reported yet
	droppedAt time.Time // when the last of them was
	seats     []*seat   // the consumer on the first holds the queue, the others stand by
	due       bool      // the holder has it among what is due
}

// seat is the place of a consumer at a queue.
type seat struct {
	consumer *consumer
	queue    *queue
	behind   bool   // the consumer is to learn that it has caught up
	until    uint64 // which it has when it got this sequence
}

type storedMessage struct {
	message  multicastregistry.Message
	sequence uint64
	at       time.Time
	yielded  bool // to some holder
	acked    bool
}

func (q *queue) append(m multicastregistry.Message, sequence uint64, now time.Time) {
	q.stored = append(q.stored, storedMessage{message: m, sequence: sequence, at: now})
	q.ids[m.ID] = sequence
	q.bytes += len(m.Payload)
	*q.total++
	q.tell()
}

// tell lets the holder know that there is something to take.
func (q *queue) tell() {
	if len(q.seats) > 0 && (q.next < len(q.stored) || q.dropped > 0 || q.seats[0].behind) {
		holder := q.seats[0].consumer
		if !q.due {
			q.due = true
			holder.due = append(holder.due, q)
		}
		wake(holder.ready)
	}
}

// take appends what the holder has not got yet, up to a limit.
func (q *queue) take(to []multicastregistry.Message, limit int) []multicastregistry.Message {
	for ; q.next < len(q.stored) && len(to) < limit; q.next++ {
		s := &q.stored[q.next]
		if s.acked {
			continue
		}
		m := s.message
		m.AckTo = ackAddress(q.topic, s.sequence)
		m.Redelivered = s.yielded
		s.yielded = true
		to = append(to, m)
	}
	return to
}

// caughtUp tells whether the holder has got everything up to a sequence, as far as it is still stored.
func (q *queue) caughtUp(until uint64) bool {
	return q.next == len(q.stored) || q.stored[q.next].sequence > until
}

// ack removes one message.
func (q *queue) ack(sequence uint64) {
	bySequence := func(s storedMessage, n uint64) int { return cmp.Compare(s.sequence, n) }
	i, found := slices.BinarySearchFunc(q.stored, sequence, bySequence)
	if found && !q.stored[i].acked {
		q.remove(i)
		q.trim()
	}
}

func (q *queue) remove(i int) {
	s := &q.stored[i]
	delete(q.ids, s.message.ID)
	*q.total--
	q.bytes -= len(s.message.Payload)
	s.message = multicastregistry.Message{}
	s.acked = true
	q.acked++
}

// trim cuts acked messages off the front, and all of them once they are most of what is there.
func (q *queue) trim() {
	n := 0
	for n < len(q.stored) && q.stored[n].acked {
		n++
	}
	q.stored = q.stored[n:]
	q.next = max(q.next-n, 0)
	q.acked -= n
	if len(q.stored) == 0 {
		q.stored = nil
	}
	if q.acked <= compactFrom || q.acked <= len(q.stored)/2 {
		return
	}
	kept := make([]storedMessage, 0, len(q.stored)-q.acked)
	next := 0
	for i, s := range q.stored {
		if s.acked {
			continue
		}
		if i < q.next {
			next++
		}
		kept = append(kept, s)
	}
	q.stored, q.next, q.acked = kept, next, 0
}

// dropOlder removes and counts what was stored before an instant, and tells whether that was anything.
func (q *queue) dropOlder(than, now time.Time) bool {
	before := len(q.ids)
	for i := range q.stored {
		if !q.stored[i].at.Before(than) {
			break
		}
		if !q.stored[i].acked {
			q.remove(i)
		}
	}
	dropped := before - len(q.ids)
	if dropped > 0 {
		q.dropped += uint64(dropped)
		q.droppedAt = now
		q.trim()
	}
	return dropped > 0
}

func (q *queue) clear() {
	*q.total -= len(q.ids)
	clear(q.ids)
	q.stored, q.acked, q.bytes, q.next, q.dropped = nil, 0, 0, 0, 0
}

// leave takes a consumer off. When it held the queue, the next one gets everything that is not acked.
func (q *queue) leave(s *seat) {
	held := len(q.seats) > 0 && q.seats[0] == s
	q.seats = slices.DeleteFunc(q.seats, func(other *seat) bool { return other == s })
	if held {
		q.next = 0
		q.tell()
	}
}
