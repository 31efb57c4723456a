package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// stream speaks the protocol of one JetStream stream: one message out, one or many back. No consumer is ever made, so nothing
// is left on the server when a reader goes away.
type stream struct {
	conn     *Conn
	name     string
	replicas atomic.Int64
	clock    *clock // takes readings from infos; nil for none
}

// streamMsg is one message of a stream.
type streamMsg struct {
	subject string
	seq     uint64
	at      time.Time // when the stream stored it; zero: unknown
	header  nats.Header
	data    []byte
}

// streamInfo is what an info request is answered with, as far as we read it.
type streamInfo struct {
	Error   *jetstream.APIError `json:"error"`
	Created time.Time           `json:"created"`
	Now     time.Time           `json:"ts"`
	Total   int                 `json:"total"` // subjects, of which State has a page
	Config  struct {
		Replicas int64 `json:"num_replicas"`
	} `json:"config"`
	State struct {
		Messages uint64            `json:"messages"`
		Bytes    uint64            `json:"bytes"`
		FirstSeq uint64            `json:"first_seq"`
		FirstAt  time.Time         `json:"first_ts"`
		LastSeq  uint64            `json:"last_seq"`
		LastAt   time.Time         `json:"last_ts"`
		Subjects map[string]uint64 `json:"subjects"`
	} `json:"state"`
}

// request sends a message and waits for one answer, the timeout of the connection at most.
func (s *stream) request(ctx context.Context, subject string, header nats.Header, data []byte) (reply *nats.Msg, err error) {
	x := exchange{conn: s.conn, n: 1, atOnce: 1, out: func(_ int, m *nats.Msg) error {
		m.Subject, m.Header, m.Data = subject, header, data
		return nil
	}, in: func(_ int, m *nats.Msg) (bool, error) {
		if reply = m; len(m.Data) == 0 && first(m.Header, statusHeader) == noResponders {
			return true, nats.ErrNoResponders
		}
		return true, nil
	}}
	return reply, firstOf(x.do(ctx))
}

// about returns the refusal of a subject, if there was one.
func (w *watch) about(subject string) error {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	for _, err := range w.refused {
		if refusedSubject(err) == subject {
			return err
		}
	}
	return nil
}

// info asks the leader about the stream and, unless the filter is empty, for a page of the subjects that it matches.
func (s *stream) info(ctx context.Context, filter string, offset int) (info streamInfo, err error) {
	var body []byte
	if filter != "" {
		body = fmt.Appendf(nil, `{"subjects_filter":%q,"offset":%d}`, filter, offset)
	}
	of := s.conn.epoch()
	sent := time.Now()
	reply, err := s.request(ctx, "$JS.API.STREAM.INFO."+s.name, nil, body)
	received := time.Now()
	if err != nil {
		return info, err
	}
	if info, err = parseInfo(reply); err != nil {
		return info, err
	}
	s.replicas.Store(info.Config.Replicas)
	if s.clock != nil {
		s.clock.sample(info.Now, sent, received, of)
	}
	return info, nil
}

// parseInfo reads what the leader answers about a stream.
func parseInfo(reply *nats.Msg) (info streamInfo, err error) {
	if first(reply.Header, statusHeader) != "" {
		return info, statusError(reply)
	}
	if err := json.Unmarshal(reply.Data, &info); err != nil {
		return info, fmt.Errorf("an answer that is no stream info: %w", err)
	}
	if info.Error != nil {
		return info, info.Error
	}
	return info, nil
}

// last returns the last message of a subject; it is not ok when there is none. It sees everything that was acknowledged
// before: a stream with one replica is read directly, another one through its leader.
func (s *stream) last(ctx context.Context, subject string) (m streamMsg, ok bool, err error) {
	if s.replicas.Load() == 1 {
		return s.direct(ctx, "$JS.API.DIRECT.GET."+s.name+"."+subject, nil)
	}
	return s.fromLeader(ctx, fmt.Appendf(nil, `{"last_by_subj":%q}`, subject))
}

// get returns the message of a sequence, as last does.
func (s *stream) get(ctx context.Context, seq uint64) (m streamMsg, ok bool, err error) {
	body := fmt.Appendf(nil, `{"seq":%d}`, seq)
	if s.replicas.Load() == 1 {
		return s.direct(ctx, "$JS.API.DIRECT.GET."+s.name, body)
	}
	return s.fromLeader(ctx, body)
}

func (s *stream) direct(ctx context.Context, subject string, body []byte) (m streamMsg, ok bool, err error) {
	reply, err := s.request(ctx, subject, nil, body)
	if err != nil {
		return m, false, err
	}
	switch status := first(reply.Header, "Status"); status {
	case "":
		m, err = parseDirect(reply)
		return m, err == nil, err
	case "404":
		return m, false, nil
	default:
		return m, false, statusError(reply)
	}
}

func (s *stream) fromLeader(ctx context.Context, body []byte) (m streamMsg, ok bool, err error) {
	reply, err := s.request(ctx, "$JS.API.STREAM.MSG.GET."+s.name, nil, body)
	if err != nil {
		return m, false, err
	}
	return parseLeader(reply)
}

// parseLeader reads what the leader answers to the request for a message; it is not ok when there is none.
func parseLeader(reply *nats.Msg) (m streamMsg, ok bool, err error) {
	if first(reply.Header, statusHeader) != "" {
		return m, false, statusError(reply)
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message *struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Header  []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return m, false, fmt.Errorf("an answer that is no message: %w", err)
	}
	switch {
	case answer.Error != nil && answer.Error.Code == 404 && answer.Error.ErrorCode != jetstream.JSErrCodeStreamNotFound:
		return m, false, nil
	case answer.Error != nil:
		return m, false, answer.Error
	case answer.Message == nil:
		return m, false, errors.New("an answer without a message")
	}
	m = streamMsg{subject: answer.Message.Subject, seq: answer.Message.Seq, at: answer.Message.Time, data: answer.Message.Data}
	if len(answer.Message.Header) > 0 {
		if m.header, err = nats.DecodeHeadersMsg(answer.Message.Header); err != nil {
			return m, false, err
		}
	}
	return m, true, nil
}

// parseDirect reads a message that came as the answer to a direct request: what it had as headers, followed by the stream's.
func parseDirect(reply *nats.Msg) (streamMsg, error) {
	values := reply.Header[jetstream.SequenceHeader]
	subjects := reply.Header[jetstream.SubjectHeader]
	if len(values) == 0 || len(subjects) == 0 {
		return streamMsg{}, errors.New("an answer that is no message of a stream")
	}
	seq, err := strconv.ParseUint(values[len(values)-1], 10, 64)
	if err != nil {
		return streamMsg{}, err
	}
	m := streamMsg{subject: subjects[len(subjects)-1], seq: seq, header: reply.Header, data: reply.Data}
	if times := reply.Header[jetstream.TimeStampHeaer]; len(times) > 0 {
		if at, err := time.Parse(time.RFC3339Nano, times[len(times)-1]); err == nil {
			m.at = at
		}
	}
	return m, nil
}

// statusError is the error of an answer that is a status.
func statusError(reply *nats.Msg) error {
	if first(reply.Header, "Status") == "503" {
		return nats.ErrNoResponders
	}
	return fmt.Errorf("the server answers %s %s", first(reply.Header, "Status"), first(reply.Header, "Description"))
}

// reader makes direct requests that are answered by many messages. It belongs to one goroutine and is closed by whoever
// opened it.
type reader struct {
	stream *stream
	inbox  string
	sub    *nats.Subscription
	n      int
}

// page is the answer to one request of a reader.
type page struct {
	messages []streamMsg
	pending  uint64 // how many more there are
	upTo     uint64 // what the replica that answered had as its last sequence; 0: it did not say
}

func (s *stream) open() (*reader, error) {
	if !s.conn.nc.IsConnected() {
		return nil, s.conn.down()
	}
	inbox := s.conn.nc.NewInbox()
	sub, err := s.conn.nc.SubscribeSync(inbox + ".*")
	if err != nil {
		return nil, err
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil { // a page is bounded by what was asked for
		return nil, errors.Join(err, sub.Unsubscribe())
	}
	return &reader{stream: s, inbox: inbox, sub: sub}, nil
}

func (r *reader) close() { _ = r.sub.Unsubscribe() } // fails only where the connection is gone, and the subscription with it

// read makes one request. What is left of an answer that was given up is passed over.
func (r *reader) read(ctx context.Context, body []byte) (p page, err error) {
	if err := ctx.Err(); err != nil {
		return p, err
	}
	c := r.stream.conn
	if !c.nc.IsConnected() {
		return p, c.down()
	}
	r.n++
	inbox, subject := r.inbox+"."+strconv.Itoa(r.n), "$JS.API.DIRECT.GET."+r.stream.name
	w := c.watch.open()
	defer w.close()
	epoch := c.epoch()
	if err := c.nc.PublishRequest(subject, inbox, body); err != nil {
		return p, err
	}
	limited, cancel := c.within(ctx)
	defer cancel()
	for {
		m, err := r.next(limited, epoch)
		if err != nil {
			if refusal := w.about(subject); refusal != nil && ctx.Err() == nil {
				return p, refusal
			}
			return p, c.ended(ctx, err)
		}
		if m.Subject != inbox {
			continue
		}
		switch status := first(m.Header, "Status"); status {
		case "":
			one, err := parseDirect(m)
			if err != nil {
				return p, err
			}
			p.messages = append(p.messages, one)
		case "204":
			p.pending, _ = strconv.ParseUint(first(m.Header, "Nats-Num-Pending"), 10, 64)
			p.upTo, _ = strconv.ParseUint(first(m.Header, "Nats-UpTo-Sequence"), 10, 64)
			return p, nil
		case "404":
			return p, nil
		default:
			return p, statusError(m)
		}
	}
}

// next waits for a message, as long as the connection is the one that the request was written to.
func (r *reader) next(ctx context.Context, epoch uint64) (*nats.Msg, error) {
	for {
		slice, cancel := context.WithTimeout(ctx, lookForLoss)
		m, err := r.sub.NextMsgWithContext(slice)
		cancel()
		c := r.stream.conn
		switch {
		case err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
			return m, err
		case c.epoch() != epoch || !c.nc.IsConnected():
			return nil, &unansweredError{cause: errLostWrites}
		}
	}
}

// ensure makes the stream, or checks that the one which is there is what it should be. What an operator has set besides, such
// as limits or placement, stays.
func (s *stream) ensure(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) error {
	limited, cancel := s.conn.within(ctx)
	defer cancel()
	made, err := js.CreateStream(limited, want)
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		made, err = js.Stream(limited, want.Name)
	}
	if err != nil {
		return s.conn.ended(ctx, err)
	}
	got := made.CachedInfo().Config
	s.replicas.Store(int64(got.Replicas))
	for _, check := range []struct {
		what      string
		got, want any
	}{
		{"replicas", got.Replicas, want.Replicas},
		{"storage", got.Storage, want.Storage},
		{"max_msgs_per_subject", got.MaxMsgsPerSubject, want.MaxMsgsPerSubject},
		{"max_msgs", got.MaxMsgs, want.MaxMsgs},
		{"allow_direct", got.AllowDirect, want.AllowDirect},
		{"allow_msg_ttl", got.AllowMsgTTL, want.AllowMsgTTL},
		{"subject_delete_marker_ttl", got.SubjectDeleteMarkerTTL, want.SubjectDeleteMarkerTTL},
		{"max_age", got.MaxAge, want.MaxAge},
	} {
		if check.got != check.want {
			return fmt.Errorf("stream %s exists with %s %v, this configuration needs %v", want.Name, check.what, check.got, check.want)
		}
	}
	if !slices.Equal(got.Subjects, want.Subjects) {
		return fmt.Errorf("stream %s exists with the subjects %v, this configuration needs %v", want.Name, got.Subjects, want.Subjects)
	}
	return nil
}

// reconcile makes the stream, or lets the one which is there grow to what it should be: in replicas and in age. It shrinks in
// age only when nothing stored would be lost by that, and never in replicas. What an operator has set besides stays.
func (s *stream) reconcile(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) error {
	limited, cancel := s.conn.within(ctx)
	defer cancel()
	made, err := js.CreateStream(limited, want)
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		made, err = js.Stream(limited, want.Name)
	}
	if err != nil {
		return s.conn.ended(ctx, err)
	}
	info := made.CachedInfo()
	got := info.Config
	for _, check := range []struct {
		what      string
		got, want any
	}{
		{"storage", got.Storage, want.Storage},
		{"max_msgs_per_subject", got.MaxMsgsPerSubject, want.MaxMsgsPerSubject},
		{"discard", got.Discard, want.Discard},
		{"discard_new_per_subject", got.DiscardNewPerSubject, want.DiscardNewPerSubject},
		{"allow_direct", got.AllowDirect, want.AllowDirect},
		{"allow_msg_ttl", got.AllowMsgTTL || !want.AllowMsgTTL, true},
		{"subjects", strings.Join(got.Subjects, " "), strings.Join(want.Subjects, " ")},
	} {
		if check.got != check.want {
			return fmt.Errorf("stream %s exists with %s %v, this configuration needs %v", want.Name, check.what, check.got, check.want)
		}
	}
	next := got
	next.Replicas = max(got.Replicas, want.Replicas)
	young := info.State.Msgs == 0 || time.Since(info.State.FirstTime) < want.MaxAge/2 // by another clock, so with room
	if want.MaxAge > got.MaxAge && got.MaxAge != 0 || want.MaxAge < got.MaxAge && young {
		next.MaxAge = want.MaxAge
		next.Duplicates = min(got.Duplicates, want.MaxAge) // no message has an id of that kind
	}
	if next.Replicas != got.Replicas || next.MaxAge != got.MaxAge {
		if made, err = js.UpdateStream(limited, next); err != nil {
			return s.conn.ended(ctx, err)
		}
	}
	s.replicas.Store(int64(made.CachedInfo().Config.Replicas))
	return nil
}
