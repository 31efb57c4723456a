package nats

import (
	"context"
	"sync"
	"time"
)

const (
	// depthAge is how long a queue's size is good for, unless it seems full.
	depthAge = 30 * time.Second
	// depthsKept is how many queues' sizes are kept, about.
	depthsKept = 1 << 17
	// askOneByOne is up to how many queues are asked for one by one, whatever is stored besides; more are too as long as
	// listing all that is stored would take more than subjectsEach subjects for each of them.
	askOneByOne  = 16
	subjectsEach = 16
)

// depths knows how full queues are: what the server said last, and what this process has stored since. What was acked since is
// not taken off, but found out by asking again.
type depths struct {
	d *Durability

	mu    sync.Mutex
	known map[string]*depth
}

type depth struct {
	messages, bytes int // with what is under way
	flying          int // how many of them are under way
	flyingBytes     int
	asked           time.Time
}

func (s *depths) init(d *Durability) { s.d, s.known = d, make(map[string]*depth) }

// admit divides the messages of a call, except for those that have failed already, into those that fit, which count from
// now on until settled says otherwise, and those that do not.
func (s *depths) admit(ctx context.Context, e *enqueue) (fits, full []int, err error) {
	var which []int
	for i := range e.messages {
		if e.results[i] == nil {
			which = append(which, i)
		}
	}
	asked := make(map[string]bool)
	if err := s.ask(ctx, s.stale(e, which, asked)); err != nil {
		return which, nil, err
	}
	var late []int
	again := make(map[string]bool)
	for _, i := range which {
		name := e.names[i]
		switch {
		case !again[name] && s.reserve(name, len(e.messages[i].Payload)):
			fits = append(fits, i)
		case asked[name] && !s.d.mayBeOld():
			full = append(full, i)
		default:
			again[name] = true // and keep the order
			late = append(late, i)
		}
	}
	if len(late) == 0 {
		return fits, full, nil
	}
	names := make([]string, 0, len(again))
	for name := range again {
		names = append(names, name)
	}
	if err = s.d.makeRoom(ctx, names); err == nil {
		err = s.ask(ctx, names)
	}
	if err != nil {
		for _, i := range fits {
			s.settled(e.names[i], len(e.messages[i].Payload), false)
		}
		return which, nil, err
	}
	for _, i := range late {
		if s.reserve(e.names[i], len(e.messages[i].Payload)) {
			fits = append(fits, i)
		} else {
			full = append(full, i)
		}
	}
	return fits, full, nil
}

// stale returns the names whose size is not known, or no longer.
func (s *depths) stale(e *enqueue, which []int, asked map[string]bool) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := time.Now().Add(-depthAge)
	for _, i := range which {
		name := e.names[i]
		if known := s.known[name]; !asked[name] && (known == nil || known.asked.Before(oldest)) {
			asked[name] = true
			names = append(names, name)
		}
	}
	return names
}

// reserve counts a message if it fits.
func (s *depths) reserve(name string, bytes int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[name]
	if known == nil { // forgotten by somebody else since it was asked for, because it was purged
		known = &depth{asked: time.Now()}
		s.known[name] = known
	}
	if known.messages+1 > s.d.cfg.MaxMessages || known.bytes+bytes > s.d.cfg.MaxBytes {
		return false
	}
	known.messages++
	known.bytes += bytes
	known.flying++
	known.flyingBytes += bytes
	return true
}

// settled ends the flight of a message, and counts it no more if it was not stored.
func (s *depths) settled(name string, bytes int, stored bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known[name]
	if known == nil || known.flying == 0 {
		return
	}
	known.flying--
	known.flyingBytes -= bytes
	if !stored {
		known.messages--
		known.bytes -= bytes
	}
}

// forget lets the size of a queue be asked for again.
func (s *depths) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.known[name]; known != nil {
		known.asked = time.Time{}
	}
}

// set takes in what the server says.
func (s *depths) set(name string, messages, bytes int, asked time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) > depthsKept {
		for other, known := range s.known {
			if known.flying == 0 {
				delete(s.known, other)
			}
		}
	}
	known := s.known[name]
	if known == nil {
		known = &depth{}
		s.known[name] = known
	}
	// What is under way may be among what the server counts: then the queue seems fuller than it is, until the next time.
	known.messages, known.bytes, known.asked = messages+known.flying, bytes+known.flyingBytes, asked
}

// ask asks the server how full queues are: for all that is stored at once where that is less to tell.
func (s *depths) ask(ctx context.Context, names []string) error {
	queue, now := s.d.queue, time.Now()
	if len(names) > askOneByOne {
		info, err := queue.info(ctx, "", 0)
		if err != nil {
			return err
		}
		if info.State.Messages <= uint64(len(names)*subjectsEach) {
			return s.askAll(ctx, names, now)
		}
	}
	return firstOf(queue.counts(ctx, len(names), func(i int) string { return s.d.prefix + names[i] + ".>" },
		func(i int, info streamInfo) error {
			bytes := 0
			for subject := range info.State.Subjects {
				if _, _, size, ok := parts(subject[len(s.d.prefix):]); ok {
					bytes += size
				}
			}
			if n := len(info.State.Subjects); info.Total > n && n > 0 { // the server lists 100,000
				bytes = bytes / n * info.Total
			}
			s.set(names[i], info.Total, bytes, now)
			return nil
		}))
}

func (s *depths) askAll(ctx context.Context, names []string, now time.Time) error {
	subjects, _, err := s.d.queue.subjects(ctx, s.d.prefix+">")
	if err != nil {
		return err
	}
	all := make(map[string]depth, len(names))
	for _, name := range names {
		all[name] = depth{}
	}
	for _, subject := range subjects {
		name, _, bytes, ok := parts(subject[len(s.d.prefix):])
		if known, wanted := all[name]; ok && wanted {
			known.messages++
			known.bytes += bytes
			all[name] = known
		}
	}
	for name, known := range all {
		s.set(name, known.messages, known.bytes, now)
	}
	return nil
}
