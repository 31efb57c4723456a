package bench

import (
	"encoding/binary"
	"hash/crc32"
	"sync"
	"time"

	"github.com/prism-data-layer/prism/client"
)

// tally holds what is sent against what arrives. Its methods may be called concurrently.
type tally struct {
	run   uint64 // that messages carry
	size  int    // of a message
	mode  client.DeliveryMode
	index func(identity string) (n int, ok bool)

	mu   sync.Mutex
	sent map[uint64]*sent // what is not all accounted for, by number
	next uint64
	d    Delivery
}

// sent is one multicast, to the identities from first on.
type sent struct {
	due      time.Time
	first    int
	received []uint8 // by target: how often, up to 255
	missing  int     // targets that have received nothing
	result   *client.Result
	over     bool // the call has ended
}

func newTally(run uint64, size int, mode client.DeliveryMode, index func(string) (int, bool)) *tally {
	return &tally{
		run: run, size: size, mode: mode, index: index, sent: make(map[uint64]*sent), d: Delivery{Reasons: make(map[string]uint64)},
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// send numbers a multicast that was due, and returns its message: the run, the number, a filling that the number decides, and a
// checksum.
func (t *tally) send(due time.Time, first, targets int) (number uint64, payload []byte) {
	t.mu.Lock()
	number = t.next
	t.next++
	t.sent[number] = &sent{due: due, first: first, received: make([]uint8, targets), missing: targets}
	t.mu.Unlock()
	payload = make([]byte, t.size)
	binary.BigEndian.PutUint64(payload, t.run)
	binary.BigEndian.PutUint64(payload[8:], number)
	sum := len(payload) - crc32.Size
	for i := 16; i < sum; i++ {
		payload[i] = byte(uint64(i) * (number + 0x9e37))
	}
	binary.BigEndian.PutUint32(payload[sum:], crc32.Checksum(payload[:sum], castagnoli))
	return number, payload
}

// reported takes down how a call ended; with nil it had no answer.
func (t *tally) reported(number uint64, result *client.Result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sent[number]
	s.result, s.over = result, true
	t.settle(number, s)
}

// received takes down a message, and returns when it was due. ok is false for one that is none of this run's, or came again.
func (t *tally) received(identity string, payload []byte) (due time.Time, ok bool) {
	sum := len(payload) - crc32.Size
	whole := len(payload) == t.size && binary.BigEndian.Uint32(payload[sum:]) == crc32.Checksum(payload[:sum], castagnoli) &&
		binary.BigEndian.Uint64(payload) == t.run
	t.mu.Lock()
	defer t.mu.Unlock()
	if !whole {
		t.d.Corrupted++
		return due, false
	}
	number := binary.BigEndian.Uint64(payload[8:])
	n, known := t.index(identity)
	s := t.sent[number]
	switch {
	case number >= t.next || !known:
		t.d.Uninvited++
	case s == nil: // accounted for, so this is a repeat
		t.repeat()
	case n < s.first || n >= s.first+len(s.received):
		t.d.Uninvited++
	case s.received[n-s.first] > 0:
		t.repeat()
	default:
		s.received[n-s.first]++
		s.missing--
		t.d.Received++
		due = s.due
		t.settle(number, s)
		return due, true
	}
	return due, false
}

func (t *tally) repeat() {
	t.d.Repeats++
	if t.mode == client.AtMostOnce {
		t.d.Repeated++
	}
}

// settle forgets a multicast about which all is known: mu is held.
func (t *tally) settle(number uint64, s *sent) {
	if s.missing == 0 && s.result != nil && s.result.Delivered == len(s.received) {
		t.reckon(s)
		delete(t.sent, number)
	}
}

// arriving is how many messages were reported as delivered and have not arrived yet.
func (t *tally) arriving() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.sent {
		if s.over && s.result != nil {
			n += max(0, s.result.Delivered-(len(s.received)-s.missing))
		}
	}
	return n
}

// close reckons with all that is left.
func (t *tally) close() Delivery {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.sent {
		t.reckon(s)
	}
	clear(t.sent)
	return t.d
}

// reckon holds what a multicast reported against what has arrived: mu is held.
func (t *tally) reckon(s *sent) {
	r := s.result
	if r == nil {
		t.d.Unanswered++
		return
	}
	t.d.Multicasts++
	t.d.Targets += uint64(r.TargetCount)
	t.d.Delivered += uint64(r.Delivered)
	t.d.Pending += uint64(r.Pending)
	t.d.Failed += uint64(r.Failed)
	t.d.TimedOut += uint64(r.TimedOut)
	if r.TargetCount != len(s.received) || r.Delivered+r.Pending+r.Failed+r.TimedOut != r.TargetCount ||
		len(r.Targets) != r.TargetCount-r.Delivered {
		t.d.WrongCount++
	}
	undelivered := make(map[int]struct{}, len(r.Targets))
	for i := range r.Targets {
		target := &r.Targets[i]
		t.d.Reasons[target.Reason.String()]++
		n, known := t.index(target.Identity)
		if n -= s.first; !known || n < 0 || n >= len(s.received) {
			t.d.WrongCount++
			continue
		}
		undelivered[n] = struct{}{}
		if target.Status == client.Failed && s.received[n] > 0 {
			t.d.Contradicted++
		}
	}
	for n, times := range s.received {
		if _, not := undelivered[n]; times > 0 || not {
			continue
		}
		if t.mode == client.AtMostOnce {
			t.d.Lost++
		} else {
			t.d.Missing++
		}
	}
}
