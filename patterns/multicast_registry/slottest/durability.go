package slottest

import (
	"errors"
	"fmt"
	"testing"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// durabilitySuite is what the subtests of Durability share.
type durabilitySuite struct {
	DurabilityOptions
	open func(t *testing.T) mr.Durability
}

// Durability runs the conformance suite of the durability slot. Open is called for each subtest. Every subtest uses topics
// of a namespace of its own, so on a shared server the opener need not separate them.
func Durability(t *testing.T, open func(t *testing.T) mr.Durability, options DurabilityOptions) {
	t.Helper()
	s := &durabilitySuite{DurabilityOptions: options.withDefaults(), open: open}
	long := []string{
		"HostileIdentities", "ManyTopics", "WithdrawMany", "WithdrawRace", "CaughtUpWithBacklog", "NextCancelled", "AgeMakesRoom",
	}
	run(t, options.Brief, long, []subtest{
		{"StoredThenConsumed", s.storedThenConsumed},
		{"Live", s.live},
		{"Payloads", s.payloads},
		{"BatchReuse", s.batchReuse},
		{"HostileIdentities", s.hostileIdentities},
		{"ManyTopics", s.manyTopics},
		{"Duplicates", s.duplicates},
		{"DuplicateContention", s.duplicateContention},
		{"QueueBound", s.queueBound},
		{"ErrTooLarge", s.tooLarge},
		{"Pair", s.pair},
		{"Ping", func(t *testing.T) { pingSlot(t, s.open(t)) }},

		{"AckIsForGood", s.ackIsForGood},
		{"HeldByOne", s.heldByOne},
		{"RedeliveredAfterClose", s.redeliveredAfterClose},
		{"RedeliveredAfterRemove", s.redeliveredAfterRemove},
		{"RedeliveredToStandby", s.redeliveredToStandby},
		{"LateAck", s.lateAck},
		{"StaleAck", s.staleAck},
		{"OneLeftBehind", s.oneLeftBehind},
		{"Competing", s.competing},
		{"Crashing", s.crashing},
		{"Purge", s.purge},
		{"ForgedAcks", s.forgedAcks},

		{"AddRemove", s.addRemove},
		{"NextCancelled", s.nextCancelled},
		{"ContextCoversCall", s.contextCoversCall},
		{"Cancelled", s.cancelled},
		{"Close", s.close},
		{"CloseRace", s.closeRace},

		{"CaughtUp", s.caughtUp},
		{"CaughtUpWithBacklog", s.caughtUpWithBacklog},
		{"CaughtUpAgain", s.caughtUpAgain},
		{"CaughtUpHeldByAnother", s.caughtUpHeldByAnother},
		{"CaughtUpManyTopics", s.caughtUpManyTopics},
		{"CaughtUpWhileStoring", s.caughtUpWhileStoring},
		{"CaughtUpRemoved", s.caughtUpRemoved},

		{"MaxBytes", s.maxBytes},
		{"Age", s.age},
		{"AgeMakesRoom", s.ageMakesRoom},

		{"Stored", s.stored},
		{"Withdraw", s.withdraw},
		{"WithdrawHeld", s.withdrawHeld},
		{"WithdrawMany", s.withdrawMany},
		{"WithdrawRace", s.withdrawRace},
		{"WithdrawMakesRoom", s.withdrawMakesRoom},
		{"RecallCancelled", s.recallCancelled},

		{"Backlog", s.backlog},
		{"BacklogRefused", s.backlogRefused},
		{"BacklogPair", s.backlogPair},
		{"BacklogAge", s.backlogAge},
	})
}

func (s *durabilitySuite) consume(t *testing.T, d mr.Durability, topics ...string) mr.Subscription {
	t.Helper()
	sub, err := d.Consume(within(t, s.Patience), topics...)
	noError(t, err, "consume")
	closing(t, sub)
	return sub
}

func enqueue(t *testing.T, d mr.Durability, messages ...mr.Message) {
	t.Helper()
	for i, err := range results(t, len(messages), d.Enqueue(t.Context(), messages)) {
		if err != nil {
			t.Fatalf("enqueue message %d of %d, for %q: %v", i, len(messages), messages[i].Identity, err)
		}
	}
}

// numbered returns n messages for an identity, their numbers as payload.
func (s *sender) numbered(identity string, n int) []mr.Message {
	messages := make([]mr.Message, n)
	for i := range messages {
		messages[i] = s.message(identity, fmt.Sprint(i))
	}
	return messages
}

// wantStored fails the test unless stored messages were yielded as they were sent, each with an ack address.
func wantStored(t *testing.T, got, want []mr.Message) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d messages, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i].AckTo == "" {
			t.Fatalf("message %d, %s, has no ack address", i, got[i].ID)
		}
		w := want[i]
		w.AckTo = got[i].AckTo
		wantMessage(t, got[i], w)
	}
}

// settle stores a last message for one of a subscription's identities, reads up to it, acks it, and fails the test if
// anything else comes before it.
func (s *durabilitySuite) settle(t *testing.T, d mr.Durability, from *sender, sub mr.Subscription, identity string) {
	t.Helper()
	fence := from.message(identity, "fence")
	enqueue(t, d, fence)
	got := receive(t, s.Patience, sub, 1)
	if got[0].ID != fence.ID {
		t.Errorf("consumer of %q received %q for %q unasked", identity, got[0].Payload, got[0].Identity)
	}
	sendAcks(t, d, acksOf(got)...)
}

// wantEmpty fails the test unless nothing is stored for an identity.
func (s *durabilitySuite) wantEmpty(t *testing.T, d mr.Durability, from *sender, identity string) {
	t.Helper()
	sub := s.consume(t, d, from.topic(identity))
	s.settle(t, d, from, sub, identity)
	noError(t, sub.Close(), "close")
}

func (s *durabilitySuite) tooLarge(t *testing.T) {
	if s.MaxPayload == 0 {
		t.Skip("DurabilityOptions.MaxPayload is not set")
	}
	d, from := s.open(t), newSender()
	messages := from.numbered("a", 3)
	messages[1].Payload = make([]byte, s.MaxPayload+1)
	for i, err := range results(t, 3, d.Enqueue(t.Context(), messages)) {
		if (i == 1) != errors.Is(err, mr.ErrTooLarge) || i != 1 && err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
	sub := s.consume(t, d, from.topic("a"))
	wantStored(t, receive(t, s.Patience, sub, 2), []mr.Message{messages[0], messages[2]})
}

// pair has the two ends in two processes.
func (s *durabilitySuite) pair(t *testing.T) {
	if s.OpenPair == nil {
		t.Skip("DurabilityOptions.OpenPair is not set")
	}
	a, b := s.OpenPair(t)
	from := newSender()
	sent := from.numbered("a", 10)
	enqueue(t, a, sent[:5]...)
	sub := s.consume(t, b, from.topic("a"))
	wantStored(t, receive(t, s.Patience, sub, 5), sent[:5])
	enqueue(t, a, sent[5:]...)
	got := receive(t, s.Patience, sub, 5)
	wantStored(t, got, sent[5:])
	sendAcks(t, a, acksOf(got)...)
	noError(t, sub.Close(), "close")
	sub = s.consume(t, a, from.topic("a"))
	got = receive(t, s.Patience, sub, 5)
	wantStored(t, got, sent[:5])
	sendAcks(t, b, acksOf(got)...)
	noError(t, sub.Close(), "close")
	s.wantEmpty(t, b, from, "a")
	enqueue(t, a, from.numbered("a", 3)...)
	if n, err := b.Purge(t.Context(), from.topic("a")); n != 3 || err != nil {
		t.Errorf("purge: %d, %v", n, err)
	}
	s.wantEmpty(t, a, from, "a")
}
