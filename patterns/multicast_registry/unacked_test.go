package multicastregistry

import (
	"strconv"
	"testing"
)

// TestUnackedKeepsTheSlowOne acks hundreds of thousands of messages behind one that takes its time.
func TestUnackedKeepsTheSlowOne(t *testing.T) {
	t.Parallel()
	u := newUnacked()
	slow := MessageName{"a", "slow"}
	u.add(slow, "there", false)
	for i := range 4 * maxUnacked {
		name := MessageName{"a", strconv.Itoa(i)}
		u.add(name, "x", false)
		if u.take(name).live != "x" || u.take(name) != (ackAddress{}) {
			t.Fatalf("message %d is not acked exactly once", i)
		}
	}
	if len(u.order) > 4096 {
		t.Errorf("the order holds %d acked messages", len(u.order))
	}
	if got := u.take(slow); got.live != "there" {
		t.Errorf("the slow message's ack goes to %+v", got)
	}
}

func TestUnackedIsBounded(t *testing.T) {
	t.Parallel()
	u := newUnacked()
	again := MessageName{"a", "0"}
	u.add(again, "first", false)
	u.take(again)
	for i := range maxUnacked + 10 {
		u.add(MessageName{"a", strconv.Itoa(i)}, "live", false)
	}
	u.add(MessageName{"a", "20"}, "queue", true)
	for i := range maxUnacked + 10 {
		want := ackAddress{}
		if i >= 10 {
			want.live = "live"
		}
		if i == 20 {
			want.stored = "queue"
		}
		if got := u.take(MessageName{"a", strconv.Itoa(i)}); got.live != want.live || got.stored != want.stored {
			t.Fatalf("message %d: the ack goes to %+v, want %+v", i, got, want)
		}
	}
	if len(u.addresses) != 0 {
		t.Errorf("%d messages are left", len(u.addresses))
	}
}
