package slottest

import (
	"fmt"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// backlogOf returns a function that fails the test unless the slots agree that so many more messages are stored than when it was made.
func (s *durabilitySuite) backlogOf(t *testing.T, slots ...mr.Durability) func(what string, want int) {
	t.Helper()
	counts := make([]func() int, len(slots))
	for i, d := range slots {
		b, ok := d.(mr.Backlog)
		if !ok {
			t.Skip("the slot is no Backlog")
		}
		counts[i] = func() int {
			t.Helper()
			n, err := b.Backlog(t.Context())
			noError(t, err, "backlog")
			return n
		}
	}
	before := counts[0]()
	return func(what string, want int) {
		t.Helper()
		for i, count := range counts {
			if got := count() - before; got != want {
				t.Errorf("%s: slot %d says %d, want %d", what, i, got, want)
			}
		}
	}
}

// backlog counts what is stored through all that changes it.
func (s *durabilitySuite) backlog(t *testing.T) {
	d, from := s.open(t), newSender()
	is := s.backlogOf(t, d)
	a, b := from.numbered("a", 5), from.numbered("b", 3)
	enqueue(t, d, append(a[:5:5], b...)...)
	is("stored", 8)
	enqueue(t, d, a...)
	is("stored again", 8)
	sub := s.consume(t, d, from.topics("a", "b", "c")...)
	got := receive(t, s.Patience, sub, 8)
	is("yielded", 8)
	acks := acksOf(got)
	sendAcks(t, d, acks[0], acks[7])
	is("two are acked", 6)
	sendAcks(t, d, acks[0], acks[7])
	is("they are acked again", 6)
	noError(t, sub.Close(), "close")
	is("given back", 6)
	sub = s.consume(t, d, from.topics("a", "b")...)
	got = receive(t, s.Patience, sub, 6)
	is("redelivered", 6)
	withdrawn := 0
	if r, ok := d.(mr.Recaller); ok {
		withdraw(t, r, true, a[3])
		withdraw(t, r, false, a[3])
		withdrawn = 1
	}
	is("withdrawn", 6-withdrawn)
	n, err := d.Purge(t.Context(), from.topic("a"))
	noError(t, err, "purge")
	is(fmt.Sprintf("%d are purged", n), 6-withdrawn-n)
	sendAcks(t, d, acksOf(got)...)
	is("everything is acked", 0)
	n, err = d.Purge(t.Context(), from.topic("b"))
	noError(t, err, "purge")
	is("nothing is purged", n)
	for _, id := range []string{"a", "c"} { // a second life of both
		enqueue(t, d, from.numbered(id, 2)...)
	}
	is("stored once more", 4)
	if _, err := d.(mr.Backlog).Backlog(cancelled(t)); !isContextError(err) { //nolint:forcetypeassert // backlogOf has looked
		t.Errorf("cancelled: %v", err)
	}
}

// backlogRefused fills a queue: what does not fit does not count.
func (s *durabilitySuite) backlogRefused(t *testing.T) {
	if s.QueueBound == 0 {
		t.Skip("DurabilityOptions.QueueBound is not set")
	}
	d, from := s.open(t), newSender()
	is := s.backlogOf(t, d)
	d.Enqueue(t.Context(), from.numbered("a", s.QueueBound+10))
	is("full", s.QueueBound)
	n, err := d.Purge(t.Context(), from.topic("a"))
	noError(t, err, "purge")
	is("purged", s.QueueBound-n)
}

// backlogPair counts one slot from two processes.
func (s *durabilitySuite) backlogPair(t *testing.T) {
	if s.OpenPair == nil {
		t.Skip("DurabilityOptions.OpenPair is not set")
	}
	one, other := s.OpenPair(t)
	from := newSender()
	is := s.backlogOf(t, one, other)
	enqueue(t, one, from.numbered("a", 3)...)
	enqueue(t, other, from.numbered("a", 2)...)
	enqueue(t, other, from.numbered("b", 4)...)
	is("stored through both", 9)
	sub := s.consume(t, other, from.topic("a"))
	got := receive(t, s.Patience, sub, 5)
	is("read through one", 9)
	sendAcks(t, one, acksOf(got[:2])...)
	sendAcks(t, other, acksOf(got[2:3])...)
	is("acked through both", 6)
	n, err := one.Purge(t.Context(), from.topic("b"))
	noError(t, err, "purge")
	is("purged through the one that stored nothing there", 6-n)
	sendAcks(t, other, acksOf(got[3:])...)
	is("nothing is left", 4-n)
}

// backlogAge counts while messages become too old, with some acked and some purged before, and looked at or not afterwards.
func (s *durabilitySuite) backlogAge(t *testing.T) {
	a := s.openAged(t)
	d, from := a.d, a.from
	b, ok := d.(mr.Backlog)
	if !ok {
		t.Skip("the slot is no Backlog")
	}
	count := func() int {
		t.Helper()
		n, err := b.Backlog(t.Context())
		noError(t, err, "backlog")
		return n
	}
	enqueue(t, d, from.numbered("untouched", 7)...)
	enqueue(t, d, from.numbered("purged", 5)...)
	enqueue(t, d, from.numbered("read", 3)...)
	sub := s.consume(t, d, from.topic("read"))
	sendAcks(t, d, acksOf(receive(t, s.Patience, sub, 3)[:1])...)
	_, err := d.Purge(t.Context(), from.topic("purged"))
	noError(t, err, "purge")
	if n := count(); n != 9 && a.fresh() {
		t.Errorf("%d are stored, want 9", n)
	}
	eventually(t, s.Patience, "everything is too old", func() bool { return count() == 0 })
	if a.fresh() {
		t.Error("nothing is stored before anything is too old")
	}
	enqueue(t, d, from.numbered("untouched", 2)...) // which finds what is too old
	stored := time.Now()
	if n := count(); n != 2 && time.Since(stored) < age-age/20 {
		t.Errorf("%d are stored, want 2", n)
	}
	n, err := d.Purge(t.Context(), from.topic("read"))
	noError(t, err, "purge")
	if left := count(); n != 0 || left != 2 && time.Since(stored) < age-age/20 {
		t.Errorf("%d are purged that were too old, and %d are left, want 2", n, left)
	}
	eventually(t, s.Patience, "everything is too old", func() bool { return count() == 0 })
	noError(t, sub.Close(), "close")
}
