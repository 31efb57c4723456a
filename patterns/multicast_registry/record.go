package multicastregistry

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// What a Ledger keeps of a multicast: a summary in JSON, its targets in a form of their own, in chunks, and settlements, each of
// which is one letter with what belongs to it.

// summary is the Summary of a Record.
type summary struct {
	State        State        `json:"state"`
	CreatedAt    time.Time    `json:"created_at"`
	Deadline     time.Time    `json:"deadline"` // when it will have returned
	Filter       string       `json:"filter,omitempty"`
	PayloadBytes int          `json:"payload_bytes"`
	ContentType  string       `json:"content_type"`
	Delivery     DeliveryMode `json:"delivery"`
	Key          string       `json:"key,omitempty"`
	Fingerprint  string       `json:"fingerprint,omitempty"`
	Owner        string       `json:"owner,omitempty"`

	Revision  Revision       `json:"revision,omitempty"`
	Targets   int            `json:"targets"`
	Delivered int            `json:"delivered"`
	Pending   int            `json:"pending"`
	Failed    int            `json:"failed"`
	TimedOut  int            `json:"timed_out"`
	Ended     Ended          `json:"ended,omitempty"`
	Elapsed   time.Duration  `json:"elapsed,omitempty"`
	Replies   map[uint32]int `json:"replies,omitempty"`
}

func filterText(match *filter.Expr) string {
	if match.MatchesAll() {
		return ""
	}
	return match.String()
}

// of takes in the result.
func (s *summary) of(r *Result) {
	s.State, s.Revision, s.Targets, s.Ended, s.Elapsed = Returned, r.Revision, r.TargetCount, r.Ended, r.Elapsed
	s.Delivered, s.Pending, s.Failed, s.TimedOut = r.Delivered, r.Pending, r.Failed, r.TimedOut
	s.Replies = r.Replies
}

func (s summary) encode() []byte {
	if len(s.Filter) > maxFilterText {
		s.Filter = ""
	}
	if len(s.Replies) > maxReplyCodes {
		s.Replies = nil // the targets have them all
	}
	out, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("encode the summary of a multicast: %v", err)) // it consists of texts and numbers
	}
	return out
}

// maxReplyCodes bounds the counts by code in a summary; they are counted again from the targets.
const maxReplyCodes = 1000

func decodeSummary(raw []byte) (s summary, err error) {
	if err := json.Unmarshal(raw, &s); err != nil {
		return s, fmt.Errorf("the record of a multicast cannot be read: %w", err)
	}
	return s, nil
}

// record returns what callers see of a summary.
func (s *summary) record(id string) *MulticastRecord {
	out := &MulticastRecord{
		State: s.State, CreatedAt: s.CreatedAt, Filter: s.Filter, PayloadBytes: s.PayloadBytes, ContentType: s.ContentType,
		IdempotencyKey: s.Key, Owner: s.Owner, Result: Result{ID: id, Delivery: s.Delivery},
	}
	if s.State == Running {
		return out
	}
	r := &out.Result
	r.Revision, r.TargetCount, r.Ended, r.Elapsed, r.Replies = s.Revision, s.Targets, s.Ended, s.Elapsed, s.Replies
	r.Delivered, r.Pending, r.Failed, r.TimedOut = s.Delivered, s.Pending, s.Failed, s.TimedOut
	return out
}

// decodeRecord returns what a record says, without settlements.
func decodeRecord(r Record) (*MulticastRecord, error) {
	s, err := decodeSummary(r.Summary)
	if err != nil {
		return nil, err
	}
	out := s.record(r.ID)
	if s.State == Running {
		return out, nil
	}
	if out.Result.Targets, err = decodeTargets(r.Targets); err != nil {
		return nil, err
	}
	if len(out.Result.Targets) != s.Targets {
		return nil, fmt.Errorf("the record of multicast %s has %d of its %d targets", r.ID, len(out.Result.Targets), s.Targets)
	}
	out.Result.count()
	return out, nil
}

const (
	// targetsVersion is the first byte of a chunk of targets.
	targetsVersion = 1
	// maxErrText is how much of a target's error is kept.
	maxErrText = 256
	// chunkRoom is what a target can take at most.
	chunkRoom = MaxIdentityBytes + MaxReplyBytes + maxErrText + 64
)

// encodeTargets returns chunks of targets, each:
//
//	version byte | for each target: Identity, Status<<4|Evidence, Reason, Attempts, Latency in µs, Reply.Code, Reply.Body, error
//
// Numbers are uvarints, texts have their length in front.
func encodeTargets(targets []Target) (chunks [][]byte) {
	var chunk []byte
	for i := range targets {
		if len(chunk)+chunkRoom > MaxChunk || chunk == nil {
			if chunk != nil {
				chunks = append(chunks, chunk)
			}
			chunk = append(make([]byte, 0, min(MaxChunk, 64*(len(targets)-i)+chunkRoom)), targetsVersion)
		}
		t := &targets[i]
		chunk = appendText(chunk, t.Identity)
		chunk = append(chunk, byte(t.Status)<<4|byte(t.Evidence), byte(t.Reason))
		chunk = binary.AppendUvarint(chunk, uint64(max(t.Attempts, 0)))
		chunk = binary.AppendUvarint(chunk, uint64(max(t.Latency, 0).Microseconds()))
		chunk = appendReply(chunk, t.Reply)
		text := ""
		if t.Err != nil {
			text = t.Err.Error()
		}
		chunk = appendText(chunk, text[:min(len(text), maxErrText)])
	}
	if chunk != nil {
		chunks = append(chunks, chunk)
	}
	return chunks
}

func appendText(dst []byte, text string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(text))), text...)
}

func appendReply(dst []byte, r Reply) []byte {
	dst = binary.AppendUvarint(dst, uint64(r.Code))
	return append(binary.AppendUvarint(dst, uint64(len(r.Body))), r.Body...)
}

func decodeTargets(chunks [][]byte) (targets []Target, err error) {
	for _, chunk := range chunks {
		if len(chunk) == 0 || chunk[0] != targetsVersion {
			return nil, errBroken
		}
		for r := (reader{rest: chunk[1:]}); len(r.rest) > 0; {
			var t Target
			t.Identity = string(r.bytes())
			outcome := r.byte()
			t.Status, t.Evidence, t.Reason = Status(outcome>>4), Evidence(outcome&15), Reason(r.byte())
			t.Attempts, t.Latency = int(r.uvarint()), time.Duration(r.uvarint())*time.Microsecond
			t.Reply = r.reply()
			if text := r.bytes(); len(text) > 0 {
				t.Err = recordedError(t.Reason, string(text))
			}
			if r.failed || t.Status == 0 || t.Status > Timeout {
				return nil, errBroken
			}
			targets = append(targets, t)
		}
	}
	return targets, nil
}

var errBroken = errors.New("the record of a multicast is broken")

// reader reads what the append functions wrote.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) uvarint() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.rest, r.failed = nil, true
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) byte() byte {
	if len(r.rest) == 0 {
		r.failed = true
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.rest, r.failed = nil, true
		return nil
	}
	out := r.rest[:n:n]
	r.rest = r.rest[n:]
	return out
}

func (r *reader) reply() Reply {
	out := Reply{Code: uint32(r.uvarint())}
	if body := r.bytes(); len(body) > 0 {
		out.Body = slices.Clone(body)
	}
	return out
}

// recordedError is the error of a target as it was, for errors.Is as well.
func recordedError(reason Reason, text string) error {
	sentinels := map[Reason]error{
		NoSubscriber: ErrNoSubscriber, QueueFull: ErrQueueFull, PayloadTooLarge: ErrTooLarge, Gone: ErrGone,
	}
	return &textError{text: text, of: sentinels[reason]}
}

// textError is an error that was written down.
type textError struct {
	text string
	of   error
}

func (e *textError) Error() string { return e.text }

// Unwrap returns the sentinel, or nil.
func (e *textError) Unwrap() error { return e.of }

// The letters of settlements.
const (
	settledDelivered = 'd' // time of the ack in ms of the Unix epoch, uvarint, and the reply
	settledWithdrawn = 'w'
	settledCancelled = 'c' // of a multicast itself
)

var (
	errWithdrawn = errors.New("the multicast was cancelled")
	errExpired   = errors.New("it is not stored any more: it was too old, or was purged when the identity unregistered")
)

// acknowledged is the settlement of a stored message that was acked.
func acknowledged(id, identity string, reply Reply, at time.Time) Settlement {
	data := binary.AppendUvarint([]byte{settledDelivered}, uint64(at.UnixMilli()))
	return Settlement{ID: id, Identity: identity, Final: true, Data: appendReply(data, reply)}
}

func cancelled(settlements []Settlement) bool {
	return slices.ContainsFunc(settlements, func(s Settlement) bool { return s.Identity == "" && letter(s) == settledCancelled })
}

func letter(s Settlement) byte {
	if len(s.Data) == 0 {
		return 0
	}
	return s.Data[0]
}

// settle takes in what has become of targets after the multicast returned.
func (m *MulticastRecord) settle(settlements []Settlement) {
	m.marked = m.marked || cancelled(settlements)
	for _, s := range settlements {
		targets := m.Result.Targets
		i, found := slices.BinarySearchFunc(targets, s.Identity, func(t Target, id string) int { return cmp.Compare(t.Identity, id) })
		if !found {
			continue
		}
		t := &targets[i]
		switch letter(s) {
		case settledDelivered:
			r := reader{rest: s.Data[1:]}
			at := time.UnixMilli(int64(r.uvarint()))
			if reply := r.reply(); !r.failed && t.Status != Delivered {
				t.Status, t.Evidence, t.Reason, t.Err, t.Reply = Delivered, Acked, 0, nil, reply
				t.Latency = max(at.Sub(m.CreatedAt), 0)
			}
		case settledWithdrawn:
			if t.Status == Pending {
				t.Status, t.Evidence, t.Reason, t.Err = Failed, 0, Withdrawn, errWithdrawn
			}
		}
	}
	withdrawn := func(t Target) bool { return t.Reason == Withdrawn }
	if m.marked && (m.State == Running || slices.ContainsFunc(m.Result.Targets, withdrawn)) { // else the mark came too late
		m.State = WithdrawnByID
	}
	m.Result.count()
}
