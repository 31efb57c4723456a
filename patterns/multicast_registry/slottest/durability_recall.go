package slottest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// recaller returns the optional ability, and skips the test without it.
func recaller(t *testing.T, d mr.Durability) mr.Recaller {
	t.Helper()
	r, ok := d.(mr.Recaller)
	if !ok {
		t.Skip("the durability slot is no Recaller")
	}
	return r
}

// bare returns what names messages, and nothing else of them.
func bare(messages ...mr.Message) []mr.Message {
	out := make([]mr.Message, len(messages))
	for i, m := range messages {
		out[i] = mr.Message{Topic: m.Topic, Identity: m.Identity, ID: m.ID}
	}
	return out
}

func (s *durabilitySuite) wantIsStored(t *testing.T, r mr.Recaller, want bool, messages ...mr.Message) {
	t.Helper()
	got, err := r.Stored(t.Context(), bare(messages...))
	wantAnswers(t, "stored", messages, got, err, want)
}

func withdraw(t *testing.T, r mr.Recaller, want bool, messages ...mr.Message) {
	t.Helper()
	got, err := r.Withdraw(t.Context(), bare(messages...))
	wantAnswers(t, "withdraw", messages, got, err, want)
}

func wantAnswers(t *testing.T, what string, messages []mr.Message, got []bool, err error, want bool) {
	t.Helper()
	if err != nil || len(got) != len(messages) {
		t.Fatalf("%s: %d answers for %d messages, %v", what, len(got), len(messages), err)
	}
	wrong := 0
	for i, yes := range got {
		if yes != want {
			if wrong++; wrong <= 3 {
				t.Errorf("%s %q for %q: %v", what, messages[i].ID, messages[i].Identity, yes)
			}
		}
	}
	if wrong > 0 {
		t.Errorf("%s: %d of %d answers are wrong", what, wrong, len(got))
	}
}

// stored follows messages through what can become of them.
func (s *durabilitySuite) stored(t *testing.T) {
	d, from := s.open(t), newSender()
	r := recaller(t, d)
	sent := from.numbered("a", 6)
	s.wantIsStored(t, r, false)
	s.wantIsStored(t, r, false, sent...)
	enqueue(t, d, sent...)
	s.wantIsStored(t, r, true, append(sent[:6:6], sent[0], sent[0])...)
	otherTopic, otherID := sent[0], sent[0]
	otherTopic.Identity, otherTopic.Topic = "b", from.topic("b")
	otherID.ID += "0"
	s.wantIsStored(t, r, false, otherTopic, otherID, mr.Message{Topic: from.topic("a"), Identity: "a"})
	sub := s.consume(t, d, from.topic("a"))
	got := receive(t, s.Patience, sub, len(sent))
	s.wantIsStored(t, r, true, sent...)
	sendAcks(t, d, ack(got[1]), ack(got[2]))
	s.wantIsStored(t, r, false, sent[1:3]...)
	s.wantIsStored(t, r, true, sent[0], sent[3], sent[4], sent[5])
	noError(t, sub.Close(), "close")
	s.wantIsStored(t, r, true, sent[0], sent[3])
	enqueue(t, d, sent[1])
	s.wantIsStored(t, r, true, sent[1])
	withdraw(t, r, true, sent[3])
	s.wantIsStored(t, r, false, sent[3])
	if n, err := d.Purge(t.Context(), from.topic("a")); n != 4 || err != nil {
		t.Errorf("purge: %d, %v; want 4", n, err)
	}
	s.wantIsStored(t, r, false, sent...)
	if s.OpenPair == nil {
		return
	}
	a, b := s.OpenPair(t)
	sent = from.numbered("pair", 2)
	enqueue(t, a, sent...)
	s.wantIsStored(t, recaller(t, b), true, sent...)
	withdraw(t, recaller(t, b), true, sent[0])
	s.wantIsStored(t, recaller(t, a), false, sent[0])
	wantStored(t, receive(t, s.Patience, s.consume(t, a, from.topic("pair")), 1), sent[1:])
}

// withdraw takes messages out of a queue that nobody consumes: first, last and in the middle, some of them twice, and one
// that is stored again afterwards.
func (s *durabilitySuite) withdraw(t *testing.T) {
	d, from := s.open(t), newSender()
	r := recaller(t, d)
	sent := from.numbered("a", 8)
	withdraw(t, r, false)
	withdraw(t, r, false, sent...)
	enqueue(t, d, sent...)
	withdraw(t, r, true, sent[0], sent[7], sent[3])
	withdraw(t, r, false, sent[0], sent[7], sent[3])
	enqueue(t, d, sent[3])
	s.wantIsStored(t, r, true, sent[3])
	left := []mr.Message{sent[1], sent[2], sent[4], sent[5], sent[6], sent[3]}
	sub := s.consume(t, d, from.topic("a"))
	got := receive(t, s.Patience, sub, len(left))
	wantStored(t, got, left)
	sendAcks(t, d, acksOf(got)...)
	withdraw(t, r, false, left...)
	s.settle(t, d, from, sub, "a")
	noError(t, sub.Close(), "close")
	s.wantEmpty(t, d, from, "a")
}

// withdrawHeld withdraws what a consumer holds: acks of it come too late, and are no errors; nobody gets it again; what is
// stored in its place does not fall to such an ack.
func (s *durabilitySuite) withdrawHeld(t *testing.T) {
	d, from := s.open(t), newSender()
	r := recaller(t, d)
	sent := from.numbered("a", 6)
	enqueue(t, d, sent...)
	sub := s.consume(t, d, from.topic("a"))
	got := receive(t, s.Patience, sub, len(sent))
	withdraw(t, r, true, sent[0], sent[2], sent[5])
	withdraw(t, r, false, sent[2])
	enqueue(t, d, sent[2])
	wantStored(t, receive(t, s.Patience, sub, 1), sent[2:3])
	sendAcks(t, d, ack(got[0]), ack(got[2]), ack(got[5]))
	s.wantIsStored(t, r, true, sent[2])
	s.settle(t, d, from, sub, "a")
	noError(t, sub.Close(), "close")
	left := []mr.Message{sent[1], sent[3], sent[4], sent[2]}
	sub = s.consume(t, d, from.topic("a"))
	got = s.wantRedelivered(t, sub, left)
	withdraw(t, r, true, left...)
	sendAcks(t, d, acksOf(got)...)
	noError(t, sub.Close(), "close")
	s.wantEmpty(t, d, from, "a")
}

// withdrawMany withdraws one multicast from 1,000 identities in one call, hostile ones among them, and many multicasts from
// one identity.
func (s *durabilitySuite) withdrawMany(t *testing.T) {
	d, from := s.open(t), newSender()
	r := recaller(t, d)
	ids := HostileIdentities()
	for n := len(ids); n < 1000; n++ {
		ids = append(ids, fmt.Sprintf("topic-%d", n))
	}
	var shared, others []mr.Message
	for _, id := range ids {
		message := from.message(id, "shared")
		message.ID = "the same for all"
		shared, others = append(shared, message), append(others, from.message(id, "other"))
	}
	enqueue(t, d, shared...)
	enqueue(t, d, others...)
	s.wantIsStored(t, r, true, append(shared[:1000:1000], others...)...)
	withdraw(t, r, true, shared[10:]...)
	withdraw(t, r, true, shared[:10]...)
	withdraw(t, r, false, shared...)
	s.wantIsStored(t, r, false, shared...)
	s.wantIsStored(t, r, true, others...)
	sub := s.consume(t, d, from.topics(ids...)...)
	seen := map[string]bool{}
	for _, got := range receive(t, s.Patience, sub, len(others)) {
		if string(got.Payload) != "other" || seen[got.Topic] {
			t.Errorf("%q for %q", got.Payload, got.Identity)
		}
		seen[got.Topic] = true
	}
	one := from.numbered("one", 90)
	enqueue(t, d, one...)
	withdraw(t, r, true, one[:89]...)
	wantStored(t, receive(t, s.Patience, s.consume(t, d, from.topic("one")), 1), one[89:])
}

// withdrawRace lets acks and two withdrawals race for many messages. No two withdrawals find the same message, none finds one
// that was acked before it began; in the end nothing is left.
func (s *durabilitySuite) withdrawRace(t *testing.T) {
	d, from := s.open(t), newSender()
	r := recaller(t, d)
	for _, acking := range []bool{false, true} {
		for round := range 5 {
			id := fmt.Sprintf("%v %d", acking, round)
			sent := from.numbered(id, 90)
			enqueue(t, d, sent...)
			sub := s.consume(t, d, from.topic(id))
			acks := acksOf(receive(t, s.Patience, sub, len(sent)))
			var racing sync.WaitGroup
			if acking {
				sendAcks(t, d, acks[:10]...)
				racing.Go(func() {
					for i := len(acks) - 1; i >= 0; i -= 10 {
						if err := errors.Join(d.Ack(t.Context(), acks[i-9:i+1])...); err != nil {
							t.Error(err)
						}
					}
				})
			}
			var found [2][]bool
			for w := range found {
				racing.Go(func() {
					var err error
					if found[w], err = r.Withdraw(t.Context(), bare(sent...)); err != nil || len(found[w]) != len(sent) {
						t.Errorf("withdraw: %d answers, %v", len(found[w]), err)
						found[w] = make([]bool, len(sent))
					}
				})
			}
			racing.Wait()
			for i := range sent {
				switch one, other := found[0][i], found[1][i]; {
				case one && other:
					t.Errorf("message %d was withdrawn twice", i)
				case acking && i < 10 && (one || other):
					t.Errorf("message %d was withdrawn after it was acked", i)
				case !acking && !one && !other:
					t.Errorf("message %d was withdrawn by nobody", i)
				}
			}
			s.wantIsStored(t, r, false, sent...)
			noError(t, sub.Close(), "close")
			s.wantPurged(t, d, from, id)
		}
	}
}

// withdrawMakesRoom withdraws from a full queue.
func (s *durabilitySuite) withdrawMakesRoom(t *testing.T) {
	if s.QueueBound == 0 {
		t.Skip("DurabilityOptions.QueueBound is not set")
	}
	d, from := s.open(t), newSender()
	r := recaller(t, d)
	sent := from.numbered("a", s.QueueBound)
	enqueue(t, d, sent...)
	withdraw(t, r, true, sent[5:15]...)
	more := from.numbered("a", 10)
	enqueue(t, d, more...)
	if err := d.Enqueue(t.Context(), []mr.Message{from.message("a", "")})[0]; !errors.Is(err, mr.ErrQueueFull) {
		t.Errorf("one more: %v", err)
	}
	sub := s.consume(t, d, from.topic("a"))
	left := append(append(sent[:5:5], sent[15:]...), more...)
	wantStored(t, receive(t, s.Patience, sub, len(left)), left)
	withdraw(t, r, true, left...)
	enqueue(t, d, from.numbered("a", s.QueueBound)...)
}

// recallCancelled makes the calls with a context that has ended: nothing is withdrawn.
func (s *durabilitySuite) recallCancelled(t *testing.T) {
	d, from := s.open(t), newSender()
	r := recaller(t, d)
	sent := from.numbered("a", 3)
	enqueue(t, d, sent...)
	for _, ctx := range []context.Context{cancelled(t), past(t)} {
		if got, err := r.Stored(ctx, bare(sent...)); !isContextError(err) {
			t.Errorf("stored: %v, %v", got, err)
		}
		if got, err := r.Withdraw(ctx, bare(sent...)); !isContextError(err) {
			t.Errorf("withdraw: %v, %v", got, err)
		}
	}
	s.wantIsStored(t, r, true, sent...)
	wantStored(t, receive(t, s.Patience, s.consume(t, d, from.topic("a")), 3), sent)
}
