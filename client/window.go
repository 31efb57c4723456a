package client

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"
)

// How repeats are found. A message that wants an ack can come more than once: the server hands it over again until it has
// the ack, and what it has stored it delivers to the next stream, whether the ack was lost or never sent. A membership knows
// each message from its arrival on, across its streams:
//
//	being handled   a repeat is noted, and acknowledged together with the message; should the handler fail, the handler
//	                gets the message once more for all of the repeats that came meanwhile
//	handled         a repeat is acknowledged again, with the same reply, and the handler does not see it
//	failed          a repeat is handed over again, marked Redelivered
//
// What is being handled is bounded by the buffer of the membership and its workers. What was handled or failed is the
// window. It is kept small: a hash of 128 bits stands for the name of a message, with seeds of the membership's own, so that
// two names as good as never have the same and nobody can look for such a pair.

// The window of a membership that was told no other: see WithWindow.
const (
	DefaultWindowMessages = 100_000
	DefaultWindowAge      = time.Hour
)

// windowBodies bounds the bodies of the replies that a window keeps. The oldest are forgotten first.
const windowBodies = 16 << 20

// WithWindow says for how long a membership knows a message that it has handled, so that a repeat of it is not handed over
// again: the window of exactly-once. The handler gets a message twice only if
//
//   - a repeat comes after more than this many other messages, or this much later, or after the process restarted;
//   - or the handler returned an error the first time.
//
// Default: 100,000 messages and one hour, for all identities of one Join, JoinAll or Receive together. A window is made as it
// fills, and takes 17 MB at 100,000 messages. The replies that it keeps to be sent again take up to 16 MiB more; beyond that
// the oldest are sent again without their bodies. Without messages, or without age, every repeat of a message that was handled is
// handed over.
func WithWindow(messages int, age time.Duration) JoinOption {
	return func(m *membership) { m.window = newWindow(messages, age) }
}

// window knows the messages of one membership. All methods may be called concurrently.
type window struct {
	most  int
	age   time.Duration
	start time.Time
	seeds [2]maphash.Seed

	mu      sync.Mutex
	running map[MessageName]*handling
	past    map[windowKey]outcome
	order   []windowKey // of the past, oldest first; those whose number is not their outcome's are passed over
	first   int         // number of the first in order
	bodies  int         // bytes of the bodies in past
	bodyAt  int         // number before which no outcome has a body
}

// windowKey stands for a MessageName.
type windowKey [2]uint64

// handling is a message that is queued or with the handler.
type handling struct {
	streams  []*Stream // that it came on, once for each copy
	repeated bool      // a copy came since the handler was given the last
}

// outcome is what became of a message.
type outcome struct {
	number int // in the order
	at     time.Duration
	failed bool
	reply  *Reply // nil: a plain ack
}

// verdict says what is to be done with a message that arrived.
type verdict uint8

const (
	fresh   verdict = iota // hand it over
	again                  // hand it over, as redelivered
	dropped                // nothing: it will be acknowledged with the one that is being handled
	handled                // acknowledge it again
)

func newWindow(messages int, age time.Duration) *window {
	return &window{
		most: max(messages, 0), age: max(age, 0), start: time.Now(), seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		running: make(map[MessageName]*handling), past: make(map[windowKey]outcome),
	}
}

func (w *window) key(name MessageName) windowKey {
	return windowKey{maphash.Comparable(w.seeds[0], name), maphash.Comparable(w.seeds[1], name)}
}

// arrive decides about a message. One that is fresh, or to be handed over again, is being handled from now on; one that was
// handled comes with the reply to send again.
func (w *window) arrive(name MessageName, on *Stream) (verdict, *Reply) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.running[name]; h != nil {
		h.streams = append(slices.DeleteFunc(h.streams, (*Stream).over), on)
		h.repeated = true
		return dropped, nil
	}
	w.forget()
	before, known := w.past[w.key(name)]
	if known && !before.failed {
		return handled, before.reply
	}
	w.running[name] = &handling{streams: []*Stream{on}}
	if known {
		return again, nil
	}
	return fresh, nil
}

// drop forgets a message that was not handed over after all.
func (w *window) drop(name MessageName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.running, name)
}

// done notes that the handler has taken a message, and returns the streams to acknowledge it on.
func (w *window) done(name MessageName, reply *Reply) []*Stream {
	w.mu.Lock()
	defer w.mu.Unlock()
	streams := w.running[name].streams
	delete(w.running, name)
	w.note(name, outcome{reply: reply})
	return streams
}

// failed notes that the handler has refused a message, and tells whether it is to get it once more, since a repeat has come
// meanwhile.
func (w *window) failed(name MessageName) (repeated bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.running[name]; h.repeated {
		h.repeated = false
		return true
	}
	delete(w.running, name)
	w.note(name, outcome{failed: true})
	return false
}

// note adds an outcome to the past. The caller holds w.mu.
func (w *window) note(name MessageName, o outcome) {
	key := w.key(name)
	if before, known := w.past[key]; known && before.failed && o.failed {
		return // it keeps its place: at the most a message has two
	}
	w.remove(key)
	o.number, o.at = w.first+len(w.order), time.Since(w.start)
	w.past[key] = o
	w.order = append(w.order, key)
	if o.reply != nil {
		w.bodies += len(o.reply.Body)
	}
	for w.bodyAt = max(w.bodyAt, w.first); w.bodies > windowBodies; w.bodyAt++ {
		w.strip(w.bodyAt)
	}
	w.forget()
}

// strip forgets the body of the reply with this number, and not its code. The caller holds w.mu.
func (w *window) strip(number int) {
	key := w.order[number-w.first]
	if o := w.past[key]; o.number == number && o.reply != nil {
		w.bodies -= len(o.reply.Body)
		o.reply = &Reply{Code: o.reply.Code}
		w.past[key] = o
	}
}

// forget removes what is beyond the bounds. The caller holds w.mu.
func (w *window) forget() {
	now := time.Since(w.start)
	for len(w.order) > 0 {
		key := w.order[0]
		o, known := w.past[key]
		known = known && o.number == w.first
		if known && len(w.past) <= w.most && now-o.at < w.age {
			return
		}
		if known {
			w.remove(key)
		}
		w.order = w.order[1:] // append moves what is left to an array of its own now and then
		w.first++
	}
}

func (w *window) remove(key windowKey) {
	if o, known := w.past[key]; known {
		if o.reply != nil {
			w.bodies -= len(o.reply.Body)
		}
		delete(w.past, key)
	}
}
