package nats

import (
	"cmp"
	"crypto/rand"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// The headers of a message. The id is not in nats.MsgIdHdr: the messages of one multicast share it, and a stream that captures
// them would keep the first and drop the others as its repeats.
const (
	headerID          = "Prism-Message-Id"
	headerContentType = "Content-Type"
	headerSentAt      = "Prism-Sent-At"
	headerDelivery    = "Prism-Delivery" // deliveryOnce, or absent
	headerTrace       = "traceparent"    // as W3C Trace Context spells it, and OpenTelemetry looks for it
	headerTraceHTTP   = "Traceparent"    // as those write it whose libraries treat headers like those of HTTP
	headerReplyCode   = "Prism-Reply-Code"
	headerGone        = "Prism-Gone" // flagged, or absent

	deliveryOnce = "exactly-once"
	flagged      = "true"
	// unmarked is the content type of messages of ours that name none; noType stands for an empty one.
	unmarked     = "application/octet-stream"
	noType       = "-"
	sentAtLayout = "2006-01-02T15:04:05.000Z07:00"
)

// headerReserve is the part of the server's max_payload, which covers headers too, that is left for them.
const headerReserve = 4 << 10

// headerWriter makes the headers of messages, and again only where they differ from those of the message before.
type headerWriter struct {
	id, contentType string
	sentAt          time.Time
	once            bool
	trace           string
	header          nats.Header
}

// of returns the headers of a message, good until the next call.
func (w *headerWriter) of(m *multicastregistry.Message) nats.Header {
	if w.header != nil && m.ID == w.id && m.ContentType == w.contentType && m.Once == w.once && m.SentAt.Equal(w.sentAt) &&
		m.TraceParent == w.trace {
		return w.header
	}
	w.id, w.contentType, w.once, w.trace = m.ID, m.ContentType, m.Once, m.TraceParent
	if w.header == nil {
		w.header = make(nats.Header, 4)
	}
	delivery := ""
	if m.Once {
		delivery = deliveryOnce
	}
	w.set(headerDelivery, delivery)
	w.set(headerID, escape(m.ID))
	w.set(headerTrace, multicastregistry.TraceParent(m.TraceParent))
	switch m.ContentType {
	case unmarked:
		w.set(headerContentType, "")
	case "":
		w.set(headerContentType, noType)
	default:
		w.set(headerContentType, escape(m.ContentType))
	}
	w.sentAt = m.SentAt
	sentAt := ""
	if at, ok := timeOf(m.ID); !m.SentAt.IsZero() && (!ok || !at.Equal(m.SentAt)) {
		sentAt = m.SentAt.UTC().Format(sentAtLayout)
	}
	w.set(headerSentAt, sentAt)
	return w.header
}

// timeOf returns the time in a version 7 UUID, to the millisecond. Headers cost the server as much as payloads do: a time that
// the id tells already is left out.
func timeOf(id string) (at time.Time, ok bool) {
	const dashes = 1<<8 | 1<<13 | 1<<18 | 1<<23
	if len(id) != 36 || id[14] != '7' {
		return at, false
	}
	var ms int64
	for i := range 36 {
		if dashes>>i&1 == 1 {
			if id[i] != '-' {
				return at, false
			}
			continue
		}
		digit := hexDigit(id[i])
		if digit < 0 {
			return at, false
		}
		if i < 13 {
			ms = ms<<4 | int64(digit)
		}
	}
	return time.UnixMilli(ms), true
}

func (w *headerWriter) set(name, value string) {
	if value == "" {
		delete(w.header, name)
		return
	}
	if has := w.header[name]; len(has) == 1 {
		has[0] = value
		return
	}
	w.header[name] = []string{value}
}

// headerReader reads the headers of messages, and remembers the last time, which many messages share.
type headerReader struct {
	text   string
	sentAt time.Time
}

// read sets what a message's headers say, and makes up what a foreign publisher has left out.
func (r *headerReader) read(h nats.Header, m *multicastregistry.Message) {
	m.ID, m.ContentType = unescape(first(h, headerID)), unescape(first(h, headerContentType))
	m.Once = first(h, headerDelivery) == deliveryOnce
	m.TraceParent = multicastregistry.TraceParent(cmp.Or(first(h, headerTrace), first(h, headerTraceHTTP)))
	switch {
	case m.ContentType == noType:
		m.ContentType = ""
	case m.ContentType == "" && m.ID != "":
		m.ContentType = unmarked
	}
	if m.ID == "" {
		m.ID = unescape(first(h, nats.MsgIdHdr))
	}
	if m.ID == "" {
		m.ID = rand.Text()
	}
	text := first(h, headerSentAt)
	if text != r.text || text == "" {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			var ok bool
			if m.SentAt, ok = timeOf(m.ID); ok && text == "" {
				return
			}
			m.SentAt = time.Now().Truncate(time.Millisecond)
			return
		}
		r.text, r.sentAt = text, at
	}
	m.SentAt = r.sentAt
}

func first(h nats.Header, name string) string {
	if values := h[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// escape makes a text fit for a header: what is not printable ASCII, '%', and spaces at the ends become '%' and two
// hexadecimal digits.
func escape(text string) string {
	const hex = "0123456789ABCDEF"
	n := 0
	for i := range len(text) {
		if escaped(text, i) {
			n++
		}
	}
	if n == 0 {
		return text
	}
	var b strings.Builder
	b.Grow(len(text) + 2*n)
	for i := range len(text) {
		if c := text[i]; escaped(text, i) {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func escaped(text string, i int) bool {
	c := text[i]
	return c < ' ' || c > '~' || c == '%' || c == ' ' && (i == 0 || i == len(text)-1)
}

// unescape is the inverse of escape. A '%' without two hexadecimal digits stands for itself: foreign publishers may mean it so.
func unescape(text string) string {
	if strings.IndexByte(text, '%') < 0 {
		return text
	}
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			if high, low := hexDigit(text[i+1]), hexDigit(text[i+2]); high >= 0 && low >= 0 {
				out = append(out, byte(high<<4|low))
				i += 2
				continue
			}
		}
		out = append(out, text[i])
	}
	return string(out)
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}
