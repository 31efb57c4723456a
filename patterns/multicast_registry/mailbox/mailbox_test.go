package mailbox_test

import (
	"context"
	"errors"
	"io"
	"testing"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/mailbox"
)

// put puts n messages of a topic and returns how many were accepted.
func put(box *mailbox.Box, topic string, n int) (accepted int) {
	for range n {
		if box.Slot(topic).Put(&mr.Message{Topic: topic, ID: "x"}) {
			accepted++
		}
	}
	box.Wake()
	return accepted
}

func next(t *testing.T, box *mailbox.Box, messages int, dropped uint64) {
	t.Helper()
	batch, err := box.Next(t.Context())
	if err != nil || len(batch.Messages) != messages || batch.Dropped != dropped {
		t.Errorf("got %d messages, %d dropped, %v; want %d and %d", len(batch.Messages), batch.Dropped, err, messages, dropped)
	}
}

func TestBox(t *testing.T) {
	t.Parallel()
	box := mailbox.New(3)
	for _, topic := range []string{"a", "b"} {
		if slot, added := box.Open(topic); slot == nil || !added || slot.Box() != box {
			t.Fatal(topic, slot, added)
		}
	}
	if slot, added := box.Open("a"); added || slot != box.Slot("a") {
		t.Error("a topic is opened twice")
	}
	if n := put(box, "a", 5); n != 3 {
		t.Errorf("%d of 5 messages fit into 3 places", n)
	}
	if n := put(box, "b", 2); n != 2 {
		t.Errorf("a full topic leaves %d of 2 places to another one", n)
	}
	next(t, box, 5, 2)
	if n := put(box, "a", 3); n != 3 {
		t.Errorf("after reading, %d of 3 messages fit", n)
	}
	put(box, "b", 1)
	a := box.Slot("a")
	var gone []string
	box.Drop([]string{"a", "never opened"}, func(topic string, slot *mailbox.Slot) {
		gone = append(gone, topic)
		if slot != a {
			t.Error("another slot is dropped")
		}
	})
	if len(gone) != 1 || gone[0] != "a" || box.Slot("a") != nil {
		t.Errorf("dropped %v", gone)
	}
	if !a.Put(&mr.Message{Topic: "a"}) {
		t.Error("what nobody wants any more counts as dropped")
	}
	next(t, box, 1, 0)
	box.Lost(7)
	next(t, box, 0, 7)
	if !box.Claim() || box.Claim() {
		t.Error("a claim is given twice, or not at all")
	}
	box.Wake()
	if !box.Claim() {
		t.Error("waking does not give the claim back")
	}
}

// A box that holds more than one batch hands it out in order, and has room again for what was taken.
func TestBoxInBatches(t *testing.T) {
	t.Parallel()
	box := mailbox.New(1500)
	box.Open("a")
	if n := put(box, "a", 1600); n != 1500 {
		t.Fatalf("%d messages fit", n)
	}
	next(t, box, 1024, 100)
	if n := put(box, "a", 1600); n != 1024 {
		t.Errorf("%d places are free after 1024 were taken", n)
	}
}

func TestBoxBytes(t *testing.T) {
	t.Parallel()
	box := mailbox.New(0)
	slot, _ := box.Open("a")
	big := &mr.Message{Topic: "a", Payload: make([]byte, 65<<20)}
	if !slot.Put(big) || slot.Put(&mr.Message{Topic: "a"}) {
		t.Error("one message fits, whatever its size, and nothing beside it")
	}
	next(t, box, 1, 1)
}

func TestBoxClose(t *testing.T) {
	t.Parallel()
	box := mailbox.New(0)
	slot, _ := box.Open("a")
	ended := make(chan error, 1)
	go func() {
		_, err := box.Next(t.Context())
		ended <- err
	}()
	closed := 0
	for range 2 {
		box.Close(func(string, *mailbox.Slot) { closed++ })
	}
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Errorf("next: %v", err)
	}
	if slot, added := box.Open("b"); slot != nil || added {
		t.Error("a closed box takes a topic")
	}
	if closed != 1 || !box.Closed() || !slot.Put(&mr.Message{Topic: "a"}) {
		t.Error("closing is done once for each topic, and messages may come later")
	}
}

func TestReceipts(t *testing.T) {
	t.Parallel()
	r := mailbox.NewReceipts()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for range 1 << 20 {
		if !r.Put(mr.Receipt{Token: "x"}) {
			t.Fatal("refused below the bound")
		}
	}
	if r.Put(mr.Receipt{}) {
		t.Error("accepted beyond the bound")
	}
	if !r.Claim() || r.Claim() {
		t.Error("a claim is given twice, or not at all")
	}
	r.Wake()
	if got, err := r.Next(t.Context()); len(got) != 1<<20 || err != nil {
		t.Errorf("%d receipts, %v", len(got), err)
	}
	body := make([]byte, mr.MaxReplyBytes)
	accepted := 0
	for r.Put(mr.Receipt{Token: "x", Reply: mr.Reply{Body: body}}) {
		accepted++
	}
	if accepted != 1<<16 || !r.Put(mr.Receipt{Token: "plain"}) {
		t.Errorf("%d replies of %d bytes are accepted, and plain acks must be", accepted, len(body))
	}
	if got, err := r.Next(t.Context()); len(got) != accepted+1 || err != nil {
		t.Errorf("%d receipts, %v", len(got), err)
	}
	if !r.Put(mr.Receipt{Reply: mr.Reply{Body: body}}) {
		t.Error("reading makes no room for replies")
	}
	if !r.Close() || r.Close() {
		t.Error("closing is done once")
	}
	if _, err := r.Next(t.Context()); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}
