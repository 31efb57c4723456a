package nats

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
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

// A record begins with recordMark, which begins no text, and its format. Then come TTL, Registered, Expires and Revision, as
// varints, and the metadata as multicastregistry.AppendMetadata writes it. Format 1 was JSON, without that beginning.
const (
	recordMark   = 0xf5
	recordFormat = 2
)

// errForeign says that a message is none of ours.
var errForeign = errors.New("it is no record")

// record is the value of a key. Times are microseconds of the Unix epoch.
type record struct {
	Metadata   string // in wire form
	TTL        int64  // milliseconds; -1: never expires
	Registered int64
	Expires    int64  // without outages; 0: never
	Revision   uint64 // of the registration, in what a renewal wrote; 0: this message's own
}

func (r *record) append(b []byte) []byte {
	b = append(b, recordMark, recordFormat)
	b = binary.AppendVarint(b, r.TTL)
	b = binary.AppendVarint(b, r.Registered)
	b = binary.AppendVarint(b, r.Expires)
	b = binary.AppendUvarint(b, r.Revision)
	return append(b, r.Metadata...)
}

// parseRecord is the inverse of append. errForeign for what is none; a record of another format is ErrUnsupported.
func parseRecord(data []byte) (r record, err error) {
	if len(data) < 2 || data[0] != recordMark {
		var first struct {
			TTL int64 `json:"t"`
		}
		if len(data) > 0 && data[0] == '{' && json.Unmarshal(data, &first) == nil && first.TTL != 0 {
			return r, otherFormat(1)
		}
		return r, errForeign
	}
	if data[1] != recordFormat {
		return r, otherFormat(data[1])
	}
	p := varints{rest: data[2:]}
	r.TTL, r.Registered, r.Expires, r.Revision = p.signed(), p.signed(), p.signed(), p.unsigned()
	if p.bad || r.TTL == 0 {
		return record{}, errForeign
	}
	r.Metadata = string(p.rest)
	return r, nil
}

func otherFormat(found byte) error {
	return fmt.Errorf("%w: a record has format %d, of another version of Prism; this version has format %d",
		multicastregistry.ErrUnsupported, found, recordFormat)
}

// varints reads one number after the other.
type varints struct {
	rest []byte
	bad  bool
}

func (p *varints) signed() int64 {
	v, n := binary.Varint(p.rest)
	p.skip(n)
	return v
}

func (p *varints) unsigned() uint64 {
	v, n := binary.Uvarint(p.rest)
	p.skip(n)
	return v
}

// text reads a number and as many bytes.
func (p *varints) text() string {
	n := p.unsigned()
	if p.bad || n > uint64(len(p.rest)) {
		p.bad = true
		return ""
	}
	text := string(p.rest[:n])
	p.rest = p.rest[n:]
	return text
}

func (p *varints) skip(n int) {
	if p.bad = p.bad || n <= 0; !p.bad {
		p.rest = p.rest[n:]
	}
}

// state is what a key's last message says.
type state struct {
	seq     uint64
	present bool // there is a record, live or expired
	expired bool // it says that a lease has ended
	record  record
}

// parseState reads a message of the bucket. What is no record of ours counts as absent; one of another format is an error.
func parseState(m streamMsg) (s state, err error) {
	s = state{seq: m.seq}
	if operation := m.header[headerOperation]; len(operation) > 0 || len(m.data) == 0 {
		s.expired = first(m.header, headerReason) == reasonExpired
		return s, nil
	}
	switch s.record, err = parseRecord(m.data); {
	case err == nil:
		s.present = true
	case errors.Is(err, errForeign):
		err = nil
	}
	return s, err
}

// registration is the revision of the registration that the record belongs to.
func (s *state) registration() uint64 {
	if s.record.Revision != 0 {
		return s.record.Revision
	}
	return s.seq
}

// over tells whether the lease has ended, with the outages that are known.
func (r *record) over(now time.Time, known outages) bool {
	return r.Expires != 0 && now.UnixMicro() >= known.end(r.Expires, r.TTL)
}

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

// lease returns the lease, with the outages that are known.
func (r *record) lease(known outages) multicastregistry.Lease {
	if r.Expires == 0 {
		return multicastregistry.Lease{TTL: multicastregistry.NoExpiry}
	}
	return multicastregistry.Lease{TTL: r.ttl(), ExpiresAt: instant(known.end(r.Expires, r.TTL))}
}

func (r *record) ttl() time.Duration {
	if r.TTL < 0 {
		return multicastregistry.NoExpiry
	}
	return time.Duration(r.TTL) * time.Millisecond
}

// identity returns what the record says about an identity, with the outages that are known. It has Encoded, not Metadata.
func (r *record) identity(id string, revision uint64, known outages) multicastregistry.Identity {
	lease := r.lease(known)
	return multicastregistry.Identity{
		ID: id, Encoded: r.Metadata, TTL: lease.TTL, ExpiresAt: lease.ExpiresAt,
		RegisteredAt: instant(r.Registered), Revision: multicastregistry.Revision(revision),
	}
}

func instant(microseconds int64) time.Time { return time.UnixMicro(microseconds).UTC() }

// The kinds of a logEntry.
const (
	entryPut    = 'p'
	entryRenew  = 'r'
	entryDelete = 'd'
	entryExpire = 'x'
	entryExtend = 'e'
)

// logMark begins an entry of the change log, followed by recordFormat, the kind, the sequence in the bucket as a varint, and the
// name with its length before it. Then comes a record for a put and a renewal, whose lacks the metadata, and all outages, as
// JSON, for an extension.
const logMark = 0xf6

// logEntry tells one change of the bucket in the change log.
type logEntry struct {
	Seq     uint64 // of the bucket
	Kind    byte
	Name    string // encoded
	Record  *record
	Outages outages
}

func (e *logEntry) append(b []byte) []byte {
	b = append(b, logMark, recordFormat, e.Kind)
	b = binary.AppendUvarint(b, e.Seq)
	b = binary.AppendUvarint(b, uint64(len(e.Name)))
	b = append(b, e.Name...)
	if e.Record != nil {
		b = e.Record.append(b)
	}
	if e.Kind == entryExtend {
		b = append(b, e.Outages.encode()...)
	}
	return b
}

// parseSeq reads only what change an entry tells of; it is not ok for what is no entry.
func parseSeq(data []byte) (seq uint64, ok bool) {
	if len(data) < 3 || data[0] != logMark {
		return 0, false
	}
	p := varints{rest: data[3:]}
	seq = p.unsigned()
	return seq, !p.bad
}

// parseEntry is the inverse of append. errForeign for what is no entry; one of another format is ErrUnsupported.
func parseEntry(data []byte) (e logEntry, err error) {
	switch {
	case len(data) < 3 || data[0] != logMark:
		return e, errForeign
	case data[1] != recordFormat:
		return e, otherFormat(data[1])
	}
	p := varints{rest: data[3:]}
	e.Kind, e.Seq, e.Name = data[2], p.unsigned(), p.text()
	if p.bad {
		return e, errForeign
	}
	switch e.Kind {
	case entryPut, entryRenew:
		var r record
		if r, err = parseRecord(p.rest); err == nil {
			e.Record = &r
		}
	case entryExtend:
		e.Outages, err = parseOutages(p.rest)
	}
	return e, err
}

// entryOf returns what a message of the bucket changed. It is not ok for what is none of our changes.
func entryOf(name string, m streamMsg) (e logEntry, ok bool, err error) {
	e = logEntry{Seq: m.seq, Name: name}
	if name == outagesName {
		e.Kind = entryExtend
		e.Outages, err = parseOutages(m.data)
		return e, len(e.Outages) > 0, err
	}
	if _, ok := multicastregistry.DecodeName(name); !ok {
		return e, false, nil
	}
	s, err := parseState(m)
	switch {
	case err != nil:
		return e, false, err
	case s.present && s.record.Revision != 0:
		e.Kind, e.Record = entryRenew, s.record.told()
	case s.present:
		e.Kind, e.Record = entryPut, &s.record
	case s.expired:
		e.Kind = entryExpire
	case len(m.header[headerOperation]) > 0:
		e.Kind = entryDelete
	default:
		return e, false, nil
	}
	return e, true, nil
}

// change returns a log entry as readers of a feed get it, with the outages that are known.
func (e *logEntry) change(known outages) (multicastregistry.Change, error) {
	c := multicastregistry.Change{Revision: multicastregistry.Revision(e.Seq)}
	if e.Kind == entryExtend {
		c.Kind = multicastregistry.Extend
		c.Since, c.Until = e.Outages.last().span()
		return c, nil
	}
	id, ok := multicastregistry.DecodeName(e.Name)
	if !ok || (e.Kind == entryPut || e.Kind == entryRenew) && e.Record == nil {
		return c, fmt.Errorf("change %d of the log is none: %+v", e.Seq, *e)
	}
	c.Identity.ID = id
	switch e.Kind {
	case entryPut:
		c.Kind = multicastregistry.Put
		c.Identity = e.Record.identity(id, e.Seq, known)
	case entryRenew:
		c.Kind = multicastregistry.Renew
		lease := e.Record.lease(known)
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
