package nats

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	headerOperation = "KV-Operation" // of a message that says that a key has no value: as every client of a bucket knows it
	headerReason    = "Prism-Reason"
	headerTTL       = "Nats-TTL"
	headerExpected  = "Nats-Expected-Last-Subject-Sequence"

	operationDelete = "DEL"
	reasonExpired   = "expired"
)

// record is the value of a key. Times are microseconds of the Unix epoch.
type record struct {
	Metadata   json.RawMessage `json:"m,omitempty"`
	TTL        int64           `json:"t"` // milliseconds; -1: never expires
	Registered int64           `json:"r,omitempty"`
	Expires    int64           `json:"e,omitempty"` // 0: never
	Revision   uint64          `json:"v,omitempty"` // of the registration, in what a renewal wrote; 0: this message's own
}

// state is what a key's last message says.
type state struct {
	seq     uint64
	present bool // there is a record, live or expired
	expired bool // it says that a lease has ended
	record  record
}

// parseState reads a message of the bucket. What is no record of ours counts as absent.
func parseState(m streamMsg) state {
	s := state{seq: m.seq}
	if operation := m.header[headerOperation]; len(operation) > 0 || len(m.data) == 0 {
		s.expired = first(m.header, headerReason) == reasonExpired
		return s
	}
	if json.Unmarshal(m.data, &s.record) != nil || s.record.TTL == 0 {
		return state{seq: m.seq}
	}
	s.present = true
	return s
}

// registration is the revision of the registration that the record belongs to.
func (s *state) registration() uint64 {
	if s.record.Revision != 0 {
		return s.record.Revision
	}
	return s.seq
}

// live tells whether there is a record whose lease lasts.
func (s *state) live(now time.Time) bool { return s.present && !s.record.over(now) }

// over tells whether the lease has ended.
func (r *record) over(now time.Time) bool { return r.Expires != 0 && now.UnixMicro() >= r.Expires }

// begin starts a lease.
func (r *record) begin(ttl time.Duration, now time.Time) {
	r.TTL, r.Expires = -1, 0
	if ttl == multicastregistry.NoExpiry {
		return
	}
	r.TTL = int64((ttl + time.Millisecond - 1) / time.Millisecond)
	r.Expires = now.UnixMicro() + r.TTL*1000
}

// told is what the log says of a renewal.
func (r *record) told() *record { return &record{TTL: r.TTL, Expires: r.Expires, Revision: r.Revision} }

func (r *record) lease() multicastregistry.Lease {
	if r.Expires == 0 {
		return multicastregistry.Lease{TTL: multicastregistry.NoExpiry}
	}
	return multicastregistry.Lease{TTL: r.ttl(), ExpiresAt: instant(r.Expires)}
}

func (r *record) ttl() time.Duration {
	if r.TTL < 0 {
		return multicastregistry.NoExpiry
	}
	return time.Duration(r.TTL) * time.Millisecond
}

// identity returns what the record says about an identity.
func (r *record) identity(id string, revision uint64) (multicastregistry.Identity, error) {
	metadata, err := decodeMetadata(r.Metadata)
	if err != nil {
		return multicastregistry.Identity{}, fmt.Errorf("the record of %q: %w", id, err)
	}
	lease := r.lease()
	return multicastregistry.Identity{
		ID: id, Metadata: metadata, TTL: lease.TTL, ExpiresAt: lease.ExpiresAt,
		RegisteredAt: instant(r.Registered), Revision: multicastregistry.Revision(revision),
	}, nil
}

func instant(microseconds int64) time.Time { return time.UnixMicro(microseconds).UTC() }

// encodeMetadata returns metadata as JSON that decodeMetadata reads exactly: a float64 beyond the integers that it holds exactly
// has an exponent.
func encodeMetadata(metadata map[string]any) (json.RawMessage, error) {
	if len(metadata) == 0 {
		return nil, nil
	}
	return appendJSON(nil, metadata)
}

func appendJSON(b []byte, value any) ([]byte, error) {
	var err error
	switch v := value.(type) {
	case map[string]any:
		b = append(b, '{')
		for key, inner := range v {
			if b[len(b)-1] != '{' {
				b = append(b, ',')
			}
			if b, err = appendText(b, key); err != nil {
				return nil, err
			}
			if b, err = appendJSON(append(b, ':'), inner); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	case []any:
		b = append(b, '[')
		for i, inner := range v {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendJSON(b, inner); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case string:
		return appendText(b, v)
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	case uint64:
		return strconv.AppendUint(b, v, 10), nil
	case float64:
		return strconv.AppendFloat(b, v, 'g', -1, 64), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case nil:
		return append(b, "null"...), nil
	}
	return nil, fmt.Errorf("metadata with a Go %T", value)
}

func appendText(b []byte, text string) ([]byte, error) {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, err := json.Marshal(text)
			return append(b, quoted...), err
		}
	}
	b = append(b, '"')
	b = append(b, text...)
	return append(b, '"'), nil
}

// decodeMetadata is the inverse of encodeMetadata. Integers stay exact.
func decodeMetadata(raw json.RawMessage) (map[string]any, error) {
	metadata := map[string]any{}
	if len(raw) == 0 {
		return metadata, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(&metadata); err != nil {
		return nil, err
	}
	for key, value := range metadata {
		exact, err := exactNumbers(value)
		if err != nil {
			return nil, err
		}
		metadata[key] = exact
	}
	return metadata, nil
}

// exactNumbers turns the numbers in a value, in place, into int64, uint64 above those, or float64.
func exactNumbers(value any) (any, error) {
	var err error
	switch v := value.(type) {
	case json.Number:
		return exactNumber(string(v))
	case map[string]any:
		for key, inner := range v {
			if v[key], err = exactNumbers(inner); err != nil {
				return nil, err
			}
		}
	case []any:
		for i, inner := range v {
			if v[i], err = exactNumbers(inner); err != nil {
				return nil, err
			}
		}
	}
	return value, nil
}

func exactNumber(text string) (any, error) {
	if !strings.ContainsAny(text, ".eE") {
		if i, err := strconv.ParseInt(text, 10, 64); err == nil {
			return i, nil
		}
		if u, err := strconv.ParseUint(text, 10, 64); err == nil {
			return u, nil
		}
	}
	return strconv.ParseFloat(text, 64)
}

// The kinds of a logEntry.
const (
	entryPut    = "p"
	entryRenew  = "r"
	entryDelete = "d"
	entryExpire = "x"
)

// logEntry tells one change of the bucket in the change log. That of a renewal lacks the metadata.
type logEntry struct {
	Seq    uint64  `json:"s"` // of the bucket
	Kind   string  `json:"k"`
	Name   string  `json:"n"` // encoded
	Record *record `json:"d,omitempty"`
}

// entryOf returns what a message of the bucket changed. It is not ok for what is none of our changes.
func entryOf(name string, s *state, m streamMsg) (e logEntry, ok bool) {
	e = logEntry{Seq: s.seq, Name: name}
	switch {
	case s.present && s.record.Revision != 0:
		e.Kind, e.Record = entryRenew, s.record.told()
	case s.present:
		e.Kind, e.Record = entryPut, &s.record
	case s.expired:
		e.Kind = entryExpire
	case len(m.header[headerOperation]) > 0:
		e.Kind = entryDelete
	default:
		return e, false
	}
	return e, true
}

// change returns a log entry as readers of a feed get it.
func (e *logEntry) change() (multicastregistry.Change, error) {
	id, ok := multicastregistry.DecodeName(e.Name)
	if !ok || (e.Kind == entryPut || e.Kind == entryRenew) && e.Record == nil {
		return multicastregistry.Change{}, fmt.Errorf("change %d of the log is none: %+v", e.Seq, *e)
	}
	c := multicastregistry.Change{Revision: multicastregistry.Revision(e.Seq), Identity: multicastregistry.Identity{ID: id}}
	switch e.Kind {
	case entryPut:
		c.Kind = multicastregistry.Put
		identity, err := e.Record.identity(id, e.Seq)
		c.Identity = identity
		return c, err
	case entryRenew:
		c.Kind = multicastregistry.Renew
		lease := e.Record.lease()
		c.Identity.TTL, c.Identity.ExpiresAt = lease.TTL, lease.ExpiresAt
	case entryDelete:
		c.Kind = multicastregistry.Delete
	case entryExpire:
		c.Kind = multicastregistry.Expire
	default:
		return c, fmt.Errorf("change %d of the log is of kind %q", e.Seq, e.Kind)
	}
	return c, nil
}
