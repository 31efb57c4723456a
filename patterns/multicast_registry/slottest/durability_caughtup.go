package slottest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// progress reads a subscription and notes which topics have caught up, and what had come for them by then.
type progress struct {
	t        *testing.T
	patience time.Duration
	sub      mr.Subscription
	got      map[string][]mr.Message // by topic
	mentions map[string]int          // by topic
	by       map[string]int          // how many messages of the topic had come by its latest mention
	dropped  uint64
}

func (s *durabilitySuite) follow(t *testing.T, sub mr.Subscription) *progress {
	return &progress{
		t: t, patience: s.Patience, sub: sub, got: map[string][]mr.Message{}, mentions: map[string]int{}, by: map[string]int{},
	}
}

// until reads until done returns true.
func (f *progress) until(what string, done func() bool) {
	f.t.Helper()
	ctx := within(f.t, f.patience)
	for !done() {
		batch, err := f.sub.Next(ctx)
		if err != nil {
			f.t.Fatalf("waiting until %s: %v", what, err)
		}
		if len(batch.Messages) == 0 && len(batch.CaughtUp) == 0 && batch.Dropped == 0 {
			f.t.Fatal("an empty batch")
		}
		f.dropped += batch.Dropped
		for _, message := range batch.Messages {
			f.got[message.Topic] = append(f.got[message.Topic], message)
		}
		for _, topic := range batch.CaughtUp {
			f.mentions[topic]++
			f.by[topic] = len(f.got[topic])
		}
	}
}

// caughtUp reads until topics were mentioned so many times.
func (f *progress) caughtUp(times int, topics ...string) {
	f.t.Helper()
	f.until(fmt.Sprintf("%d topics have caught up", len(topics)), func() bool {
		for _, topic := range topics {
			if f.mentions[topic] < times {
				return false
			}
		}
		return true
	})
}

// wantMentions stores a fence for an identity, reads up to it, and fails the test unless by then exactly these topics were
// mentioned, so many times each.
func (f *progress) wantMentions(d mr.Durability, from *sender, identity string, want map[string]int) {
	f.t.Helper()
	fence, topic := from.message(identity, "fence"), from.topic(identity)
	enqueue(f.t, d, fence)
	f.until("the fence comes", func() bool {
		got := f.got[topic]
		return len(got) > 0 && got[len(got)-1].ID == fence.ID
	})
	sendAcks(f.t, d, ack(f.got[topic][len(f.got[topic])-1]))
	for topic, times := range f.mentions {
		if want[topic] != times {
			f.t.Errorf("%s was mentioned %d times, want %d", topic, times, want[topic])
		}
	}
}

// caughtUp has topics for which nothing is stored: added with Consume, by Add, and added again.
func (s *durabilitySuite) caughtUp(t *testing.T) {
	d, from := s.open(t), newSender()
	sub := s.consume(t, d, from.topic("a"))
	f := s.follow(t, sub)
	f.caughtUp(1, from.topic("a"))
	ctx := within(t, s.Patience)
	noError(t, sub.Add(ctx, from.topics("b", "c", "a", "b")...), "add")
	f.caughtUp(1, from.topics("b", "c")...)
	noError(t, sub.Add(ctx, from.topics("a", "c")...), "add again")
	want := map[string]int{from.topic("a"): 1, from.topic("b"): 1, from.topic("c"): 1}
	f.wantMentions(d, from, "b", want)
	f.wantMentions(d, from, "a", want)
}

// caughtUpWithBacklog has more stored than fits into one batch. All that was stored for a topic comes before its mention or
// together with it, and nothing of what another topic waits for is needed for that.
func (s *durabilitySuite) caughtUpWithBacklog(t *testing.T) {
	d, from := s.open(t), newSender()
	const many, each = 30, 90
	want := map[string]int{}
	var topics []string
	for n := range many {
		id := fmt.Sprint(n)
		enqueue(t, d, from.numbered(id, each)...)
		topics = append(topics, from.topic(id))
		want[topics[n]] = 1
	}
	sub := s.consume(t, d, topics...)
	f := s.follow(t, sub)
	f.caughtUp(1, topics...)
	for _, topic := range topics {
		if f.by[topic] != each || len(f.got[topic]) != each {
			t.Errorf("%s was mentioned after %d of %d messages", topic, f.by[topic], each)
		}
	}
	f.wantMentions(d, from, "0", want)
	if s.OpenPair == nil {
		return
	}
	a, b := s.OpenPair(t)
	enqueue(t, a, from.numbered("pair", each)...)
	f = s.follow(t, s.consume(t, b, from.topic("pair")))
	f.caughtUp(1, from.topic("pair"))
	if f.by[from.topic("pair")] != each {
		t.Errorf("mentioned after %d messages", f.by[from.topic("pair")])
	}
}

// caughtUpAgain removes and adds a topic: what was not acked comes again, and then the mention does.
func (s *durabilitySuite) caughtUpAgain(t *testing.T) {
	d, from := s.open(t), newSender()
	topic := from.topic("a")
	sent := from.numbered("a", 9)
	enqueue(t, d, sent...)
	sub := s.consume(t, d, from.topics("a", "b")...)
	f := s.follow(t, sub)
	f.caughtUp(1, from.topics("a", "b")...)
	ctx := within(t, s.Patience)
	for round := range 3 {
		if f.by[topic] != len(sent) {
			t.Fatalf("round %d: mentioned after %d messages, %d are stored", round, f.by[topic], len(sent))
		}
		sendAcks(t, d, ack(f.got[topic][0]))
		sent = sent[1:]
		noError(t, sub.Remove(ctx, topic), "remove")
		f.got[topic] = nil
		noError(t, sub.Add(ctx, topic), "add")
		f.caughtUp(round+2, topic)
		wantStored(t, f.got[topic], sent)
	}
	f.wantMentions(d, from, "b", map[string]int{topic: 4, from.topic("b"): 1})
	noError(t, sub.Close(), "close")
	f = s.follow(t, s.consume(t, d, topic))
	f.caughtUp(1, topic)
	wantStored(t, f.got[topic], sent)
}

// caughtUpHeldByAnother comes second: what another subscription holds is not waited for.
func (s *durabilitySuite) caughtUpHeldByAnother(t *testing.T) {
	d, from := s.open(t), newSender()
	topic := from.topic("a")
	sent := from.numbered("a", 5)
	enqueue(t, d, sent...)
	holder := s.consume(t, d, topic)
	receive(t, s.Patience, holder, len(sent))
	second := s.consume(t, d, from.topics("a", "b")...)
	f := s.follow(t, second)
	f.caughtUp(1, from.topics("a", "b")...)
	if n := len(f.got[topic]); n > 0 {
		t.Errorf("%d messages that another one holds", n)
	}
	noError(t, holder.Close(), "close")
	f.until("the messages come", func() bool { return len(f.got[topic]) >= len(sent) })
	wantStored(t, f.got[topic], sent)
	f.wantMentions(d, from, "b", map[string]int{topic: 1, from.topic("b"): 1})
	s.caughtUpWhileWaiting(t, d, from)

	// Now the holder, if it is one, has not read anything; and it goes before the second one has read its mention.
	topic = from.topic("c")
	sent = from.numbered("c", 5)
	enqueue(t, d, sent...)
	holder = s.consume(t, d, topic)
	third := s.consume(t, d, topic)
	noError(t, holder.Close(), "close")
	f = s.follow(t, third)
	f.caughtUp(1, topic)
	f.until("the messages come", func() bool { return len(f.got[topic]) >= len(sent) })
	wantStored(t, f.got[topic], sent)
}

// caughtUpWhileWaiting adds topics, of which another subscription holds one, while Next waits already.
func (s *durabilitySuite) caughtUpWhileWaiting(t *testing.T, d mr.Durability, from *sender) {
	t.Helper()
	held, free := from.topic("held"), from.topic("free")
	sent := from.numbered("held", 5)
	enqueue(t, d, sent...)
	receive(t, s.Patience, s.consume(t, d, held), len(sent))
	sub := s.consume(t, d)
	f := s.follow(t, sub)
	ctx := within(t, s.Patience)
	for _, topic := range []string{held, free} {
		var adding sync.WaitGroup
		adding.Go(func() {
			<-time.After(20 * time.Millisecond) // so that Next waits, as a rule
			if err := sub.Add(ctx, topic); err != nil {
				t.Errorf("add: %v", err)
			}
		})
		f.caughtUp(1, topic)
		adding.Wait()
	}
	if n := len(f.got[held]); n > 0 {
		t.Errorf("%d messages that another one holds", n)
	}
	noError(t, sub.Close(), "close")
}

// caughtUpManyTopics adds 1,000 topics at once, hostile ones among them, a third of which have a message.
func (s *durabilitySuite) caughtUpManyTopics(t *testing.T) {
	d, from := s.open(t), newSender()
	ids := HostileIdentities()
	for n := len(ids); n < 1000; n++ {
		ids = append(ids, fmt.Sprintf("topic-%d", n))
	}
	var sent []mr.Message
	want := map[string]int{}
	for n, id := range ids {
		want[from.topic(id)] = 1
		if n%3 == 0 {
			sent = append(sent, from.message(id, "stored"))
		}
	}
	enqueue(t, d, sent...)
	sub := s.consume(t, d)
	noError(t, sub.Add(within(t, s.Patience), from.topics(ids...)...), "add")
	f := s.follow(t, sub)
	f.caughtUp(1, from.topics(ids...)...)
	for _, message := range sent {
		if f.by[message.Topic] != 1 {
			t.Errorf("%q was mentioned before its message came", message.Identity)
		}
	}
	f.wantMentions(d, from, ids[0], want)
	f.wantMentions(d, from, ids[len(ids)-1], want)
}

// caughtUpWhileStoring adds a topic while messages are stored for it: what was stored before Add began comes by the mention,
// and all of it in order.
func (s *durabilitySuite) caughtUpWhileStoring(t *testing.T) {
	d, from := s.open(t), newSender()
	sub := s.consume(t, d)
	f := s.follow(t, sub)
	ctx := within(t, s.Patience)
	for round := range 20 {
		id := fmt.Sprint(round)
		sent := from.numbered(id, 20)
		enqueue(t, d, sent[:10]...)
		var storing sync.WaitGroup
		storing.Go(func() {
			for i := 10; i < len(sent); i++ {
				if err := errors.Join(d.Enqueue(ctx, sent[i:i+1])...); err != nil {
					t.Error(err)
				}
			}
		})
		noError(t, sub.Add(ctx, from.topic(id)), "add")
		f.caughtUp(1, from.topic(id))
		if f.by[from.topic(id)] < 10 {
			t.Errorf("round %d: mentioned after %d of 10 messages", round, f.by[from.topic(id)])
		}
		storing.Wait()
		f.until("all messages come", func() bool { return len(f.got[from.topic(id)]) >= len(sent) })
		wantStored(t, f.got[from.topic(id)], sent)
	}
}

// caughtUpRemoved removes topics before their mention was read, and empties queues: neither stops what else is to come.
func (s *durabilitySuite) caughtUpRemoved(t *testing.T) {
	d, from := s.open(t), newSender()
	enqueue(t, d, append(from.numbered("a", 5), from.numbered("purged", 5)...)...)
	sub := s.consume(t, d, from.topics("a", "b", "purged")...)
	ctx := within(t, s.Patience)
	noError(t, sub.Remove(ctx, from.topics("a", "b")...), "remove")
	_, err := d.Purge(ctx, from.topic("purged"))
	noError(t, err, "purge")
	f := s.follow(t, sub)
	f.caughtUp(1, from.topic("purged"))
	noError(t, sub.Add(ctx, from.topics("a", "b")...), "add")
	f.until("the messages and both mentions come", func() bool {
		return len(f.got[from.topic("a")]) >= 5 && f.mentions[from.topic("a")] > 0 && f.mentions[from.topic("b")] > 0
	})
	unread := s.consume(t, d, from.topics("a", "b", "c")...)
	noError(t, unread.Close(), "close with mentions waiting")
}
