package nats

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// How a stream is read and changed in bulk. A stream with one replica answers direct requests, a hundred times cheaper for each
// message than its leader does. Other replicas of a stream may lack what was acknowledged, and have what was removed, so a stream
// with several is asked through its leader.

// readAtOnce is how many requests that are answered by many messages are under way.
const readAtOnce = 8

// noResults describes the answer to a request that matches nothing.
const noResults = "No Results"

// errTooMany says that a request for many subjects met more messages than the server returns.
var errTooMany = errors.New("too many messages for one answer")

// publish stores messages and returns the sequence of each, or an error.
func (s *stream) publish(ctx context.Context, n int, out func(i int, m *nats.Msg) error) ([]uint64, []error) {
	seqs := make([]uint64, n)
	x := exchange{conn: s.conn, n: n, atOnce: writesAtOnce, out: out, in: func(i int, m *nats.Msg) (bool, error) {
		seq, err := parsePubAck(m)
		seqs[i] = seq
		return true, err
	}}
	return seqs, x.do(ctx)
}

// parsePubAck returns the sequence at which a stream has stored a message.
func parsePubAck(m *nats.Msg) (uint64, error) {
	var found bool
	rest := m.Data
	if !bytes.Contains(rest, []byte(`"error"`)) {
		_, rest, found = bytes.Cut(rest, []byte(`"seq":`))
	}
	if !found {
		return 0, apiError(m)
	}
	rest = bytes.TrimLeft(rest, " ")
	n := 0
	for n < len(rest) && '0' <= rest[n] && rest[n] <= '9' {
		n++
	}
	return strconv.ParseUint(string(rest[:n]), 10, 64)
}

// apiError returns what an answer that is none says.
func apiError(m *nats.Msg) error {
	if len(m.Data) == 0 {
		return statusError(m)
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil || answer.Error == nil {
		return fmt.Errorf("an answer that says nothing: %.100q", m.Data)
	}
	return answer.Error
}

// isCode tells whether an error is JetStream's with the given code.
func isCode(err error, code jetstream.ErrorCode) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == code
}

// isConflict tells whether a message was refused because its subject's last message is another one than expected, or another
// one is under way.
func isConflict(err error) bool {
	return isCode(err, jetstream.JSErrCodeStreamWrongLastSequence) || isCode(err, codeInProcess)
}

// purge removes what a filter matches below a sequence, 0 for all, for each of a number of filters, and returns how many
// messages each were.
func (s *stream) purge(ctx context.Context, n int, filter func(i int) (filter string, below uint64)) ([]int, []error) {
	purged := make([]int, n)
	subject := "$JS.API.STREAM.PURGE." + s.name
	x := exchange{conn: s.conn, n: n, atOnce: requestsAtOnce, out: func(i int, m *nats.Msg) error {
		filter, below := filter(i)
		m.Subject = subject
		m.Data = strconv.AppendUint(append(append([]byte(`{"filter":"`), filter...), `","seq":`...), below, 10)
		m.Data = append(m.Data, '}')
		return nil
	}, in: func(i int, m *nats.Msg) (bool, error) {
		var answer struct {
			Error  *jetstream.APIError `json:"error"`
			Purged int                 `json:"purged"`
		}
		if len(m.Data) == 0 {
			return true, statusError(m)
		}
		if err := json.Unmarshal(m.Data, &answer); err != nil {
			return true, err
		}
		if answer.Error != nil {
			return true, answer.Error
		}
		purged[i] = answer.Purged
		return true, nil
	}}
	return purged, x.do(ctx)
}

// lastOf returns the last message of each subject that has one, in any order.
func (s *stream) lastOf(ctx context.Context, subjects []string, visit func(m streamMsg) error) error {
	if s.replicas.Load() != 1 {
		return firstOf(s.ask(ctx, len(subjects), func(i int) []byte {
			return fmt.Appendf(nil, `{"last_by_subj":%q}`, subjects[i])
		}, func(_ int, m streamMsg, ok bool) error {
			if !ok {
				return nil
			}
			return visit(m)
		}))
	}
	seen := make(map[string]bool, len(subjects))
	groups := grouped(subjects)
	errs := s.multi(ctx, groups, func(int) uint64 { return 0 }, func(_ int, m streamMsg) error {
		seen[m.subject] = true
		return visit(m)
	}, func(int) {})
	if err := firstOf(errs); err != nil {
		return err
	}
	// What lacks has no message, or was rewritten while the answer was put together, or did not fit into it.
	missing := slices.DeleteFunc(slices.Clone(subjects), func(subject string) bool { return seen[subject] })
	return firstOf(s.direct1(ctx, len(missing), func(i int, m *nats.Msg) {
		m.Subject = "$JS.API.DIRECT.GET." + s.name + "." + missing[i]
	}, func(_ int, m streamMsg, ok bool) error {
		if !ok {
			return nil
		}
		return visit(m)
	}))
}

// direct1 makes direct requests that are answered by one message each; it is not ok when there is none.
func (s *stream) direct1(
	ctx context.Context, n int, out func(i int, m *nats.Msg), visit func(i int, m streamMsg, ok bool) error,
) []error {
	x := exchange{conn: s.conn, n: n, atOnce: requestsAtOnce, out: func(i int, m *nats.Msg) error {
		out(i, m)
		return nil
	}, in: func(i int, m *nats.Msg) (bool, error) {
		switch first(m.Header, statusHeader) {
		case "":
			one, err := parseDirect(m)
			if err == nil {
				err = visit(i, one, true)
			}
			return true, err
		case "404":
			return true, visit(i, streamMsg{}, false)
		default:
			return true, statusError(m)
		}
	}}
	return x.do(ctx)
}

// grouped divides subjects into as many as one request may name.
func grouped(subjects []string) (groups [][]string) {
	for len(subjects) > 0 {
		n, size := 0, 0
		for n < len(subjects) && n < scanKeys && (n == 0 || size+len(subjects[n]) <= scanRequest) {
			size += len(subjects[n])
			n++
		}
		groups = append(groups, subjects[:n])
		subjects = subjects[n:]
	}
	return groups
}

// multi asks for the last message of each subject that each group matches, from a sequence on. It visits them by sequence, and
// calls cut for each group of whose messages there are more. A group that matches too much is errTooMany.
func (s *stream) multi(
	ctx context.Context, groups [][]string, from func(i int) uint64, visit func(i int, m streamMsg) error,
	cut func(i int),
) []error {
	x := exchange{conn: s.conn, n: len(groups), atOnce: readAtOnce, out: func(i int, m *nats.Msg) (err error) {
		m.Subject = "$JS.API.DIRECT.GET." + s.name
		m.Data, err = json.Marshal(struct {
			Seq      uint64   `json:"seq,omitempty"`
			Last     []string `json:"multi_last"`
			MaxBytes int      `json:"max_bytes"`
		}{from(i), groups[i], scanAnswer})
		return err
	}, in: func(i int, m *nats.Msg) (bool, error) {
		switch status := first(m.Header, statusHeader); status {
		case "":
			one, err := parseDirect(m)
			if err == nil {
				err = visit(i, one)
			}
			return false, err
		case "204":
			if pending := first(m.Header, "Nats-Num-Pending"); pending != "0" && pending != "" {
				cut(i)
			}
			return true, nil
		case "404":
			if first(m.Header, "Description") != noResults { // something was removed meanwhile
				cut(i)
			}
			return true, nil
		case "413":
			return true, errTooMany
		default:
			return true, statusError(m)
		}
	}}
	return x.do(ctx)
}

// ask asks the leader for one message each; it is not ok when there is none.
func (s *stream) ask(ctx context.Context, n int, body func(i int) []byte, visit func(i int, m streamMsg, ok bool) error) []error {
	x := exchange{conn: s.conn, n: n, atOnce: requestsAtOnce, out: func(i int, m *nats.Msg) error {
		m.Subject, m.Data = "$JS.API.STREAM.MSG.GET."+s.name, body(i)
		return nil
	}, in: func(i int, m *nats.Msg) (bool, error) {
		one, ok, err := parseLeader(m)
		if err == nil {
			err = visit(i, one, ok)
		}
		return true, err
	}}
	return x.do(ctx)
}

// next asks for the first message of each filter from a sequence on; it is not ok when there is none.
func (s *stream) next(
	ctx context.Context, n int, filter func(i int) (string, uint64), visit func(i int, m streamMsg, ok bool) error,
) []error {
	body := func(i int) []byte {
		subjects, from := filter(i)
		return fmt.Appendf(nil, `{"seq":%d,"next_by_subj":%q}`, max(from, 1), subjects)
	}
	return s.one(ctx, n, body, visit)
}

// one makes requests that are answered by one message each, directly where that shows all there is; it is not ok when there is
// none.
func (s *stream) one(ctx context.Context, n int, body func(i int) []byte, visit func(i int, m streamMsg, ok bool) error) []error {
	if s.replicas.Load() != 1 {
		return s.ask(ctx, n, body, visit)
	}
	return s.direct1(ctx, n, func(i int, m *nats.Msg) { m.Subject, m.Data = "$JS.API.DIRECT.GET."+s.name, body(i) }, visit)
}

// page asks a stream of one replica for up to a number of messages that a filter matches, from a sequence on. The server looks
// for all of them first, which takes it a millisecond and more. It is not more when these are all.
func (s *stream) page(
	ctx context.Context, filter string, from uint64, atMost int, visit func(m streamMsg) error,
) (more bool, err error) {
	x := exchange{conn: s.conn, n: 1, atOnce: 1, out: func(_ int, m *nats.Msg) error {
		m.Subject = "$JS.API.DIRECT.GET." + s.name
		m.Data = fmt.Appendf(nil, `{"seq":%d,"next_by_subj":%q,"batch":%d,"max_bytes":%d}`, max(from, 1), filter, atMost, scanAnswer)
		return nil
	}, in: func(_ int, m *nats.Msg) (bool, error) {
		switch first(m.Header, statusHeader) {
		case "":
			one, err := parseDirect(m)
			if err == nil {
				err = visit(one)
			}
			return false, err
		case "204":
			more = first(m.Header, "Nats-Num-Pending") != "0"
			return true, nil
		case "404":
			return true, nil
		default:
			return true, statusError(m)
		}
	}}
	return more, firstOf(x.do(ctx))
}

// subjects returns the subjects that a filter matches and that have a message, and the last sequence before they were listed, as
// the leader knows them. The leader lists 100,000 at a time, sorted: pages are made to overlap, so that none is missed when
// others vanish between two pages.
func (s *stream) subjects(ctx context.Context, filter string) (keys []string, head uint64, err error) {
	info, err := s.info(ctx, filter, 0)
	if err != nil {
		return nil, 0, err
	}
	head = info.State.LastSeq
	keys = make([]string, 0, len(info.State.Subjects))
	for key := range info.State.Subjects {
		keys = append(keys, key)
	}
	if len(keys) >= info.Total {
		return keys, head, nil
	}
	slices.Sort(keys)
	for offset := len(keys); ; {
		offset = max(0, offset-keysOverlap)
		if info, err = s.info(ctx, filter, offset); err != nil {
			return nil, 0, err
		}
		next := make([]string, 0, len(info.State.Subjects))
		for key := range info.State.Subjects {
			next = append(next, key)
		}
		slices.Sort(next)
		last := keys[len(keys)-1]
		if offset > 0 && (len(next) == 0 || next[0] > last) {
			continue // more have vanished than the pages overlap by: farther back
		}
		offset += len(next)
		from, found := slices.BinarySearch(next, last)
		if found {
			from++
		}
		keys = append(keys, next[from:]...)
		if offset >= info.Total {
			return keys, head, nil
		}
	}
}

// counts asks the leader for the subjects of many filters at once, each of which matches 100,000 at the most.
func (s *stream) counts(ctx context.Context, n int, filter func(i int) string, visit func(i int, info streamInfo) error) []error {
	x := exchange{conn: s.conn, n: n, atOnce: requestsAtOnce, out: func(i int, m *nats.Msg) error {
		m.Subject, m.Data = "$JS.API.STREAM.INFO."+s.name, fmt.Appendf(nil, `{"subjects_filter":%q}`, filter(i))
		return nil
	}, in: func(i int, m *nats.Msg) (bool, error) {
		info, err := parseInfo(m)
		if err == nil {
			err = visit(i, info)
		}
		return true, err
	}}
	return x.do(ctx)
}
