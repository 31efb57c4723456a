package nats

import (
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// News are lines of text: the sender's process, and then "<name> <sequence>" for each topic for which something was stored, or
// "<name> -" for each one that its holder has given back.

const (
	// newsBytes is about how much one message of news has.
	newsBytes = 32 << 10
	givenBack = "-"
)

func (h *hub) newsSubject() string { return "prism-queue-news." + h.d.cfg.Namespace }

// spread tells other processes what was stored, without waiting.
func (h *hub) spread(stored map[string]uint64) {
	var b strings.Builder
	for name, seq := range stored {
		h.line(&b, name, strconv.FormatUint(seq, 36))
	}
	h.send(&b)
}

// spreadBack tells other processes which topics are free.
func (h *hub) spreadBack(names []string) {
	var b strings.Builder
	for _, name := range names {
		h.line(&b, name, givenBack)
	}
	h.send(&b)
}

// repeatFor is how long the names of queues that were given back are kept, to be told again when the connection was lost.
const repeatFor = 10 * time.Second

// repeat tells again what was given back lately, if the news of it may be lost, and forgets what is older.
func (h *hub) repeat(lost bool, now time.Time) {
	h.mu.Lock()
	var names []string
	for name, at := range h.freed {
		switch {
		case now.Sub(at) > repeatFor:
			delete(h.freed, name)
		case lost:
			names = append(names, name)
		}
	}
	h.mu.Unlock()
	h.spreadBack(names)
}

func (h *hub) line(b *strings.Builder, name, what string) {
	if b.Len() == 0 {
		b.WriteString(h.holders.process)
		b.WriteByte('\n')
	}
	b.WriteString(name)
	b.WriteByte(' ')
	b.WriteString(what)
	b.WriteByte('\n')
	if b.Len() >= newsBytes {
		h.send(b)
	}
}

func (h *hub) send(b *strings.Builder) {
	if b.Len() > 0 {
		_ = h.d.conn.nc.Publish(h.newsSubject(), []byte(b.String())) // what is lost is found; see lookForNews
		b.Reset()
	}
}

// hear takes in what other processes tell.
func (h *hub) hear(m *nats.Msg) {
	process, rest, _ := strings.Cut(string(m.Data), "\n")
	if process == h.holders.process {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for line := range strings.Lines(rest) {
		name, what, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if what == givenBack {
			if q := h.queues[name]; q != nil && len(q.consumers) > 0 && q.hold.seq == 0 {
				q.hold.by = ""
				h.mark(q)
			}
			continue
		}
		if seq, err := strconv.ParseUint(what, 36, 64); err == nil {
			h.heard(name, seq)
		}
	}
}
