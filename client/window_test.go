package client

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func named(identity, id string) MessageName { return MessageName{Identity: identity, ID: id} }

// newStream is a stream without a server, with what it would send in its outbox.
func newStream() *Stream {
	return &Stream{out: newOutbox(), ended: make(chan struct{})}
}

// sent takes the acks that a stream was given: "id", and behind it a reply's code and body.
func sent(s *Stream) []string {
	var acks []string
	for r, _ := s.out.next(); r != nil; r, _ = s.out.next() {
		for _, a := range r.GetAcks().GetAcks() {
			text := a.GetMessageId()
			if a.GetReplyCode() != 0 || len(a.GetReplyBody()) > 0 {
				text += fmt.Sprintf("=%d:%s", a.GetReplyCode(), a.GetReplyBody())
			}
			acks = append(acks, text)
		}
	}
	return acks
}

// Each step is done to a window of three messages and one hour: "x?" a copy of x arrives, "x!" the handler takes x, "x-" it
// refuses x, "x/" x is not handed over after all, and a duration passes. The verdicts are those of the copies; of a
// refusal it is whether x is to be handled once more.
func TestWindow(t *testing.T) {
	for _, row := range []struct{ name, steps, want string }{
		{"two messages", "a?,b?,a!,b!", "fresh,fresh"},
		{"a repeat of one that is handled", "a?,a!,a?,a?", "fresh,handled,handled"},
		{"a repeat of one that is being handled", "a?,a?,a?,a!,a?", "fresh,dropped,dropped,handled"},
		{"a repeat of one that failed", "a?,a-,a?,a!,a?", "fresh,no,again,handled"},
		{"one that fails again and again", "a?,a-,a?,a-,a?", "fresh,no,again,no,again"},
		{"repeats while one fails", "a?,a?,a?,a-,a?,a!,a?", "fresh,dropped,dropped,yes,dropped,handled"},
		{"repeats while one fails twice", "a?,a?,a-,a-,a?", "fresh,dropped,yes,no,again"},
		{"one that was not handed over", "a?,a/,a?,a!", "fresh,fresh"},
		{"a failed one that was not handed over", "a?,a-,a?,a/,a?,a!", "fresh,no,again,again"},
		{"within the count", "a?,a!,b?,b!,c?,c!,a?", "fresh,fresh,fresh,handled"},
		{"beyond the count", "a?,a!,b?,b!,c?,c!,d?,d!,a?", "fresh,fresh,fresh,fresh,fresh"},
		{"what is being handled does not count", "a?,b?,c?,d?,e?,a?,b?,a!,a?", "fresh,fresh,fresh,fresh,fresh,dropped,dropped,handled"},
		{"a repeat does not prolong", "a?,a!,b?,b!,c?,c!,a?,d?,d!,a?", "fresh,fresh,fresh,handled,fresh,fresh"},
		{"within the age", "a?,a!,59m,a?", "fresh,handled"},
		{"beyond the age", "a?,a!,60m,a?", "fresh,fresh"},
		{"one after the other", "a?,a!,30m,b?,b!,30m,a?,b?", "fresh,fresh,fresh,handled"},
		{"a long handler", "a?,2h,a?,a!,a?", "fresh,dropped,handled"},
		{"failures are forgotten too", "a?,a-,b?,b!,c?,c!,d?,d!,a?", "fresh,no,fresh,fresh,fresh,fresh"},
		{
			"one that fails again and again counts once", "a?,a!" + strings.Repeat(",b?,b-", 6) + ",a?",
			"fresh,fresh,no" + strings.Repeat(",again,no", 5) + ",handled",
		},
		{"a failed one that is handled counts once", "a?,a!,b?,b-,b?,b!,c?,c-,c?,c!,a?", "fresh,fresh,no,again,fresh,no,again,handled"},
		{"a second outcome takes the first one's place", "a?,a-,b?,b!,a?,a!,c?,c!,d?,d!,a?,b?", "fresh,no,fresh,again,fresh,fresh,handled,fresh"},
	} {
		synctest.Test(t, func(t *testing.T) {
			w, s := newWindow(3, time.Hour), newStream()
			var got []string
			for step := range strings.SplitSeq(row.steps, ",") {
				if d, err := time.ParseDuration(step); err == nil {
					<-time.After(d)
					continue
				}
				name := MessageName{Identity: "dev", ID: step[:1]}
				switch step[1] {
				case '?':
					v, _ := w.arrive(name, s)
					got = append(got, [...]string{fresh: "fresh", again: "again", dropped: "dropped", handled: "handled"}[v])
				case '!':
					w.done(name, nil)
				case '-':
					got = append(got, map[bool]string{true: "yes", false: "no"}[w.failed(name)])
				case '/':
					w.drop(name)
				}
			}
			if text := strings.Join(got, ","); text != row.want {
				t.Errorf("%s: %s: %s, want %s", row.name, row.steps, text, row.want)
			}
			if len(w.past) > 3 || len(w.order) > 2*3 {
				t.Errorf("%s: it keeps %d, in %d places", row.name, len(w.past), len(w.order))
			}
		})
	}
}

// The same id for another identity is another message.
func TestWindowNames(t *testing.T) {
	w := newWindow(DefaultWindowMessages, DefaultWindowAge)
	seen := 0
	for _, name := range []MessageName{
		named("a", "1"), named("b", "1"), named("a", "2"), named("a1", ""), named("", "a1"), named("a", "1"),
	} {
		if v, _ := w.arrive(name, newStream()); v == fresh {
			seen++
			w.done(name, nil)
		}
	}
	if seen != 5 {
		t.Errorf("%d of 5 names are different", seen)
	}
}

func TestWindowWithoutMessagesOrAge(t *testing.T) {
	for _, w := range []*window{newWindow(0, time.Hour), newWindow(-1, time.Hour), newWindow(10, 0), newWindow(10, -1)} {
		for range 3 {
			if v, _ := w.arrive(named("a", "1"), newStream()); v != fresh {
				t.Errorf("verdict %d, want fresh", v)
			}
			w.done(named("a", "1"), &Reply{Code: 1, Body: []byte("x")})
		}
		if len(w.past) != 0 || len(w.order) != 0 || w.bodies != 0 {
			t.Errorf("it keeps %d, %d and %d bytes", len(w.past), len(w.order), w.bodies)
		}
	}
}

// Acks go to each stream that a copy came on and that has not ended, once for each copy.
func TestWindowStreams(t *testing.T) {
	w, old, young := newWindow(10, time.Hour), newStream(), newStream()
	name := named("a", "1")
	w.arrive(name, old)
	w.arrive(name, old)
	close(old.ended)
	w.arrive(name, young)
	w.arrive(name, young)
	if got := w.done(name, nil); !slices.Equal(got, []*Stream{young, young}) {
		t.Errorf("acks on %d streams", len(got))
	}
}

// The bodies of replies are bounded; a reply that lost its body keeps its code.
func TestWindowBodies(t *testing.T) {
	const kept = windowBodies / MaxReplyBytes
	w := newWindow(2*kept, time.Hour)
	name := func(i int) MessageName { return named("a", strconv.Itoa(i)) }
	for i := range kept + 3 {
		w.arrive(name(i), newStream())
		w.done(name(i), &Reply{Code: uint32(i + 1), Body: make([]byte, MaxReplyBytes)})
	}
	for i := range kept + 3 {
		v, reply := w.arrive(name(i), newStream())
		if size := len(reply.Body); v != handled || reply.Code != uint32(i+1) || (size == 0) != (i < 3) {
			t.Fatalf("message %d: verdict %d, code %d, %d bytes", i, v, reply.Code, size)
		}
	}
	if w.bodies != windowBodies {
		t.Errorf("%d bytes are kept, by its own account", w.bodies)
	}
	for i := range 2 * kept { // all of them out of the window again
		w.arrive(name(-i-1), newStream())
		w.done(name(-i-1), nil)
	}
	if w.bodies != 0 || len(w.past) != 2*kept || len(w.order) != 2*kept {
		t.Errorf("%d bytes of %d messages", w.bodies, len(w.past))
	}
}

// A window that is used for long does not grow, and takes what its documentation says.
func TestWindowMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	w, s := newWindow(DefaultWindowMessages, DefaultWindowAge), newStream()
	for i := range 3 * DefaultWindowMessages {
		name := named(strings.Repeat("i", 100), "018f4e2a-0000-7000-8000-"+strconv.Itoa(i))
		w.arrive(name, s)
		w.done(name, nil)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d messages take %.1f MB", len(w.past), float64(used)/1e6)
	if len(w.past) != DefaultWindowMessages || used > 25e6 {
		t.Errorf("%d messages in %d bytes", len(w.past), used)
	}
	runtime.KeepAlive(w)
}

func BenchmarkWindow(b *testing.B) {
	w, s := newWindow(DefaultWindowMessages, DefaultWindowAge), newStream()
	b.ReportAllocs()
	for i := range b.N {
		name := named("robot-1", "018f4e2a-0000-7000-8000-"+strconv.Itoa(i))
		w.arrive(name, s)
		w.done(name, nil)
	}
}

// arriving is a membership with one worker, to which messages are given as a stream would.
type arriving struct {
	t *testing.T
	m *membership
}

func newArriving(t *testing.T, handle Handler, opts ...JoinOption) arriving {
	t.Helper()
	m := newMembership(new(Client), handle, opts)
	m.serving.Go(func() { m.serve(t.Context()) })
	t.Cleanup(m.serving.Wait)
	return arriving{t, m}
}

// copyOf gives the membership a copy of a message and waits until all is quiet.
func (a arriving) copyOf(id string, on *Stream) {
	a.t.Helper()
	message := Message{Identity: "a", ID: id, AckWanted: true}
	if err := a.m.take(a.t.Context(), on, Event{Messages: []Message{message}}); err != nil {
		a.t.Error(err)
	}
	synctest.Wait()
}

func (a arriving) acks(of *Stream, want ...string) {
	a.t.Helper()
	if got := sent(of); !reflect.DeepEqual(got, want) {
		a.t.Errorf("acks %q, want %q", got, want)
	}
}

// The handler is still busy when the stream ends; the message comes again on the next one, where it is acknowledged.
func TestRepeatOnTheNextStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, calls := make(chan struct{}), 0
		a := newArriving(t, func(_ context.Context, m Message) error {
			calls++
			<-release
			return m.Reply(7, []byte("done"))
		})
		first, second := newStream(), newStream()
		a.copyOf("1", first)
		close(first.ended)
		a.copyOf("1", second)
		a.copyOf("1", second)
		a.acks(second)
		close(release)
		synctest.Wait()
		a.acks(first)
		a.acks(second, "1=7:done", "1=7:done")
		third := newStream()
		a.copyOf("1", third)
		a.acks(third, "1=7:done")
		if calls != 1 {
			t.Errorf("the handler was called %d times", calls)
		}
	})
}

// A message that waits for its turn is not handed over twice either.
func TestRepeatOfAQueuedMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var got []string
		a := newArriving(t, func(_ context.Context, m Message) error {
			got = append(got, m.ID)
			<-release
			return nil
		})
		s := newStream()
		for _, id := range []string{"1", "2", "2", "1", "3"} {
			a.copyOf(id, s)
		}
		close(release)
		synctest.Wait()
		a.acks(s, "1", "1", "2", "2", "3")
		if want := []string{"1", "2", "3"}; !reflect.DeepEqual(got, want) {
			t.Errorf("handled %v, want %v", got, want)
		}
	})
}

// A handler that fails gets a message again: at once if a repeat came meanwhile, or else with the next one.
func TestRepeatOfAFailedMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var redelivered []bool
		outcomes := make(chan error)
		a := newArriving(t, func(_ context.Context, m Message) error {
			redelivered = append(redelivered, m.Redelivered)
			if len(redelivered) == 1 {
				if err := m.Reply(9, []byte("of the first call")); err != nil {
					t.Error(err)
				}
			}
			return <-outcomes
		})
		s := newStream()
		a.copyOf("1", s)
		a.copyOf("1", s)
		outcomes <- errors.New("no")
		synctest.Wait()
		a.acks(s)
		if len(redelivered) != 2 {
			t.Fatalf("the handler was called %d times", len(redelivered))
		}
		outcomes <- errors.New("no")
		synctest.Wait()
		a.copyOf("1", s)
		outcomes <- nil
		synctest.Wait()
		a.acks(s, "1")
		if want := []bool{false, true, true}; !reflect.DeepEqual(redelivered, want) {
			t.Errorf("redelivered: %v, want %v", redelivered, want)
		}
	})
}

// What did not get to the handler before its stream ended is no repeat when it comes again.
func TestRepeatOfAnUndeliveredMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		calls := make(map[string]int)
		a := newArriving(t, func(_ context.Context, m Message) error {
			<-release
			calls[m.ID]++
			return nil
		})
		first, second := newStream(), newStream()
		all := make([]Message, buffered+2)
		for i := range all {
			all[i] = Message{Identity: "a", ID: strconv.Itoa(i), AckWanted: true}
		}
		stopped := make(chan error)
		first.err = ErrUnavailable
		go func() { stopped <- a.m.take(t.Context(), first, Event{Messages: all}) }()
		synctest.Wait()
		close(first.ended)
		if err := <-stopped; !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
		close(release)
		synctest.Wait()
		for _, m := range all {
			a.copyOf(m.ID, second)
		}
		for i, m := range all {
			if calls[m.ID] != 1 {
				t.Errorf("message %d was handled %d times", i, calls[m.ID])
			}
		}
		if n := len(sent(second)); n != len(all) {
			t.Errorf("%d acks on the second stream, want %d", n, len(all))
		}
	})
}

// Messages without an id cannot be told apart, and those that want no ack have no repeats: all are handed over.
func TestMessagesThatAreNotTracked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		a, s := newArriving(t, func(_ context.Context, m Message) error {
			calls++
			return m.Reply(1, nil)
		}), newStream()
		a.copyOf("", s)
		a.copyOf("", s)
		for range 2 {
			if err := a.m.take(t.Context(), s, Event{Messages: []Message{{Identity: "a", ID: "1"}}}); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		a.acks(s, "=1:", "=1:")
		if calls != 4 || len(a.m.window.past) != 0 {
			t.Errorf("the handler was called %d times, the window knows %d", calls, len(a.m.window.past))
		}
	})
}

func TestMessageReply(t *testing.T) {
	m := Message{answer: new(answer)}
	if m.answer.take() != nil {
		t.Error("a reply that nobody set")
	}
	body := []byte("x")
	if err := errors.Join(m.Reply(1, []byte("first")), m.Reply(2, body)); err != nil {
		t.Error(err)
	}
	body[0] = 'y'
	if got := m.answer.take(); got.Code != 2 || string(got.Body) != "x" {
		t.Errorf("%+v", got)
	}
	var invalid *InvalidError
	if err := m.Reply(3, make([]byte, MaxReplyBytes+1)); !errors.As(err, &invalid) || invalid.Field != "reply_body" {
		t.Errorf("a body that is too long: %v", err)
	}
	if got := m.answer.take(); got.Code != 2 {
		t.Errorf("what was refused took the place of what was set: %+v", got)
	}
	if err := m.Reply(0, nil); err != nil || m.answer.take() != nil {
		t.Errorf("a plain ack is not one: %v", err)
	}
	if err := (Message{}).Reply(1, nil); !errors.As(err, &invalid) || invalid.Field != "message" {
		t.Errorf("a message of a stream: %v", err)
	}
}
