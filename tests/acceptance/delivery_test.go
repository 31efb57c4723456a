package acceptance

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/testenv"
)

// outcomes are the ways in which a target can end, each with a scenario that brings it about. A scenario runs on every
// combination, except where cannot says why it cannot happen there.
var outcomes = []struct {
	name   string
	cannot func(c combination) string
	run    func(t *testing.T, c combination)
}{
	{"DELIVERED ACKED", nil, endsAcked},
	{"DELIVERED ACCEPTED", nil, endsAccepted},
	{"PENDING STORED", withoutDurability, endsStored},
	{"FAILED NO_SUBSCRIBER", stores, endsNoSubscriber},
	{"FAILED QUEUE_FULL of the durable queue", withoutDurability, endsQueueFull},
	{"FAILED QUEUE_FULL of the subscriber", acceptsAlways, endsSubscriberFull},
	{"FAILED PAYLOAD_TOO_LARGE", takesAll, endsTooLarge},
	{"FAILED BACKEND_ERROR", neverAway, endsBackendError},
	{"TIMEOUT BACKEND_ERROR and FAILED NOT_SENT", neverAway, endsNotSent},
	{"TIMEOUT NO_ACK", nil, endsNoAck},
	{"TIMEOUT NO_ACK with a full queue", withoutDurability, endsNoAckQueueFull},
	{"TIMEOUT GONE when the subscriber leaves", nil, endsGone},
	{"TIMEOUT GONE when the target unregisters", nil, endsUnregistered},
	{"TIMEOUT GONE when the target expires", nil, endsLeaseOver},
	{"FAILED GONE", nil, endsGoneUnreached},
	{"FAILED EXPIRED by unregistering", withoutDurability, endsPurged},
	{"FAILED EXPIRED by age", withoutDurability, endsTooOld},
	{"FAILED WITHDRAWN", withoutDurability, endsWithdrawn},
	{"cancelled under way", withoutDurability, endsCancelled},
}

func withoutDurability(c combination) string {
	if c.durable {
		return ""
	}
	return "nothing is stored, and no multicast is kept"
}

func stores(c combination) string {
	if c.durable {
		return "what nobody receives is stored: PENDING, with this reason"
	}
	return ""
}

func acceptsAlways(c combination) string {
	if c.messaging() != "memory" {
		return "the backend accepts what a subscriber has no room for; without an ack that is NO_ACK"
	}
	return ""
}

func takesAll(c combination) string {
	if c.messaging() == "memory" && !c.durable {
		return "memory takes whatever the namespace allows"
	}
	return ""
}

func neverAway(c combination) string {
	if c.messaging() == "memory" {
		return "memory is never away"
	}
	return ""
}

// TestOutcomes brings about every status and reason.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	for _, o := range outcomes {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			for _, c := range combinations() {
				if o.cannot != nil && o.cannot(c) != "" {
					t.Logf("cannot happen on %s: %s", c.name, o.cannot(c))
					continue
				}
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					o.run(t, c)
				})
			}
		})
	}
}

// told writes a target's outcome as users know it.
func told(target client.Target) string {
	reasons := map[client.Reason]string{
		client.NoSubscriber: " NO_SUBSCRIBER", client.QueueFull: " QUEUE_FULL", client.PayloadTooLarge: " PAYLOAD_TOO_LARGE",
		client.BackendError: " BACKEND_ERROR", client.NoAck: " NO_ACK", client.NotSent: " NOT_SENT", client.Gone: " GONE",
		client.Expired: " EXPIRED", client.Withdrawn: " WITHDRAWN",
	}
	evidence := map[client.Evidence]string{client.Accepted: " ACCEPTED", client.Stored: " STORED", client.Acked: " ACKED"}
	return target.Status.String() + evidence[target.Evidence] + reasons[target.Reason]
}

// checkOutcome checks how the only target of a multicast has ended.
func checkOutcome(t testing.TB, result client.Result, want string) {
	t.Helper()
	if len(result.Targets) != 1 {
		t.Fatalf("%d targets, want one: %+v", len(result.Targets), result)
	}
	target := result.Targets[0]
	if got := told(target); got != want {
		t.Errorf("%s, want %s: %v", got, want, target.Err)
	}
	if (target.Status == client.Delivered) != (target.Err == nil) {
		t.Errorf("%s with the error %v", told(target), target.Err)
	}
}

// checkKept checks how the only target of a multicast has ended by now.
func checkKept(t testing.TB, p *proxy, id, want string) {
	t.Helper()
	record, err := p.GetMulticast(t.Context(), id)
	must(t, err)
	checkOutcome(t, record.Result, want)
}

// silent attaches a stream that reads when it is told to, and acknowledges nothing.
func (p *proxy) silent(t testing.TB, ids ...string) *client.Stream {
	t.Helper()
	stream, err := p.Subscribe(context.WithoutCancel(t.Context()))
	must(t, err)
	t.Cleanup(func() { check(t, stream.Close()) })
	must(t, stream.Attach(t.Context(), false, ids...))
	return stream
}

// underWay starts a multicast and returns how to wait for its result, and its id once it is known.
func (p *proxy) underWay(t testing.TB, request client.MulticastRequest) (id string, wait func() *client.Result) {
	t.Helper()
	began, ended := make(chan string, 1), make(chan *client.Result, 1)
	request.Began = func(id string, _ client.Revision, _ int) { began <- id }
	var running sync.WaitGroup
	running.Go(func() {
		result, err := p.Multicast(t.Context(), request)
		check(t, err)
		ended <- result
	})
	t.Cleanup(running.Wait)
	select {
	case id = <-began:
	case <-ended:
		t.Fatal("the multicast ended without having begun")
	}
	return id, func() *client.Result {
		t.Helper()
		result := <-ended
		if result == nil {
			t.FailNow()
		}
		return result
	}
}

// ways lead to the backends of some slots and can be broken.
type ways []*testenv.Fault

// behind returns the slots of a combination with ways that can be broken to the backends of some kinds of slot.
func (c combination) behind(t testing.TB, kinds ...string) (slots string, all ways) {
	t.Helper()
	byType := make(map[string]*testenv.Fault)
	slots = c.altered(t, func(s *slot) {
		for _, kind := range kinds {
			if s.kind != kind || s.at == "" {
				continue
			}
			if byType[s.typ] == nil {
				byType[s.typ] = testenv.NewFault(t, s.at)
				all = append(all, byType[s.typ])
			}
			s.at = byType[s.typ].Addr
		}
	})
	return slots, all
}

func (w ways) each(do func(*testenv.Fault)) {
	for _, way := range w {
		do(way)
	}
}

func endsAcked(t *testing.T, c combination) {
	p := c.serve(t)
	p.register(t, 1, nil)
	p.attach(t, name(0))
	for _, mode := range []client.DeliveryMode{client.AtLeastOnce, client.ExactlyOnce} {
		checkOutcome(t, *p.multicast(t, client.MulticastRequest{Delivery: mode}), "DELIVERED ACKED")
	}
}

func endsAccepted(t *testing.T, c combination) {
	p := c.serve(t)
	p.register(t, 1, nil)
	result := p.multicast(t, client.MulticastRequest{Delivery: client.AtMostOnce})
	checkOutcome(t, *result, "DELIVERED ACCEPTED")
}

func endsStored(t *testing.T, c combination) {
	p := c.serve(t)
	p.register(t, 1, nil)
	result := p.multicast(t, client.MulticastRequest{Timeout: 20 * time.Second})
	checkOutcome(t, *result, "PENDING STORED NO_SUBSCRIBER")
	if result.Ended != client.Complete {
		t.Errorf("it ended %d", result.Ended)
	}
	checkKept(t, p, result.ID, "PENDING STORED NO_SUBSCRIBER")
}

func endsNoSubscriber(t *testing.T, c combination) {
	p := c.serve(t)
	p.register(t, 1, nil)
	result := p.multicast(t, client.MulticastRequest{Timeout: 20 * time.Second})
	checkOutcome(t, *result, "FAILED NO_SUBSCRIBER")
	wantError(t, result.Targets[0].Err, client.ErrNoSubscriber)
	if result.Ended != client.Complete {
		t.Errorf("it ended %d", result.Ended)
	}
}

func endsQueueFull(t *testing.T, c combination) {
	p := c.serveAs(t, testenv.Prefix(t), c.altered(t, with("durability", "max_messages: 2")))
	p.register(t, 1, nil)
	for range 2 {
		checkOutcome(t, *p.multicast(t, client.MulticastRequest{}), "PENDING STORED NO_SUBSCRIBER")
	}
	result := p.multicast(t, client.MulticastRequest{})
	checkOutcome(t, *result, "FAILED QUEUE_FULL")
	wantError(t, result.Targets[0].Err, client.ErrQueueFull)
	checkKept(t, p, result.ID, "FAILED QUEUE_FULL")
	a := p.attach(t, name(0))
	eventually(t, "what was stored arrives", func() bool { return a.total() == 2 })
	a.close(t)
	eventually(t, "there is room again", func() bool { return p.multicast(t, client.MulticastRequest{}).Pending == 1 })
}

// fill sends to a stream that is not read until the subscriber has no room left.
func (p *proxy) fill(t testing.TB) {
	t.Helper()
	for range 200 {
		request := client.MulticastRequest{Payload: make([]byte, 512<<10), Delivery: client.AtMostOnce}
		if result := p.multicast(t, request); result.Failed == 1 {
			checkOutcome(t, *result, "FAILED QUEUE_FULL")
			wantError(t, result.Targets[0].Err, client.ErrQueueFull)
			return
		}
	}
	t.Fatal("200 messages of 512 KiB found room")
}

func endsSubscriberFull(t *testing.T, c combination) {
	p := c.serveAs(t, testenv.Prefix(t), c.altered(t, with("messaging", "buffer: 2")))
	p.register(t, 1, nil)
	p.silent(t, name(0))
	p.fill(t)
	want := "FAILED QUEUE_FULL"
	if c.durable {
		want = "PENDING STORED QUEUE_FULL"
	}
	result := p.multicast(t, client.MulticastRequest{RetryDelay: 10 * time.Millisecond})
	checkOutcome(t, *result, want)
	if result.Targets[0].Attempts != 3 {
		t.Errorf("%d attempts", result.Targets[0].Attempts)
	}
}

func endsTooLarge(t *testing.T, c combination) {
	limits := map[string]int{"nats": 1<<20 - 4<<10, "redis": 8 << 20, "memory": 1000}
	size := limits[c.messaging()]
	slots := c.slots(t)
	if c.messaging() == "memory" { // whose durable queue has a limit, if nobody listens
		slots = c.altered(t, with("durability", fmt.Sprintf("max_bytes: %d", size)))
	}
	p := c.serveAs(t, testenv.Prefix(t), slots, fmt.Sprintf("max_payload: %d", size+1<<20))
	p.register(t, 1, nil)
	var a *audience
	if c.messaging() != "memory" {
		a = p.attach(t, name(0))
	}
	result := p.multicast(t, client.MulticastRequest{Payload: make([]byte, size+1)})
	checkOutcome(t, *result, "FAILED PAYLOAD_TOO_LARGE")
	wantError(t, result.Targets[0].Err, client.ErrTooLarge)
	if a == nil {
		return
	}
	result = p.multicast(t, client.MulticastRequest{Payload: make([]byte, size)})
	checkOutcome(t, *result, "DELIVERED ACKED")
	a.checkReceived(t, result.ID, names(1))
}

func endsBackendError(t *testing.T, c combination) {
	request := client.MulticastRequest{Timeout: time.Second, RetryDelay: 50 * time.Millisecond}
	slots, cut := c.behind(t, "messaging", "durability")
	p := c.serveAs(t, testenv.Prefix(t), slots, "timeout: 2s")
	p.register(t, 1, nil)
	cut.each((*testenv.Fault).Cut)
	result := p.multicast(t, request)
	if got := told(result.Targets[0]); got != "FAILED BACKEND_ERROR" && got != "TIMEOUT BACKEND_ERROR" {
		t.Errorf("%s: %v", got, result.Targets[0].Err)
	}
	if c.durable {
		slots, cut = c.behind(t, "messaging")
		p = c.serveAs(t, testenv.Prefix(t), slots)
		p.register(t, 1, nil)
		cut.each((*testenv.Fault).Cut)
		checkOutcome(t, *p.multicast(t, request), "PENDING STORED BACKEND_ERROR")
	}
}

// endsNotSent stalls the messaging backend, so that the deadline passes while the first messages are being handed over. What
// has become of those is unknown; the others were not sent.
func endsNotSent(t *testing.T, c combination) {
	slots, stalled := c.behind(t, "messaging")
	p := c.serveAs(t, testenv.Prefix(t), slots)
	const n = 3000 // more than are handed over at once
	var all sync.WaitGroup
	for w := range 20 {
		all.Go(func() {
			for i := w; i < n; i += 20 {
				_, err := p.Register(t.Context(), client.Registration{ID: name(i)})
				check(t, err)
			}
		})
	}
	all.Wait()
	stalled.each((*testenv.Fault).Stall)
	result := p.multicast(t, client.MulticastRequest{Timeout: 2 * time.Second})
	stalled.each((*testenv.Fault).Heal)
	count := make(map[string]int)
	for _, target := range result.Targets {
		count[told(target)]++
	}
	unknown, not := "TIMEOUT BACKEND_ERROR", "FAILED NOT_SENT"
	if c.durable {
		unknown, not = "PENDING STORED BACKEND_ERROR", "PENDING STORED NOT_SENT"
	}
	if count[unknown] == 0 || count[not] == 0 || count[unknown]+count[not] != n || result.Ended != client.DeadlinePassed {
		t.Errorf("ended %d: %v", result.Ended, count)
	}
}

func endsNoAck(t *testing.T, c combination) {
	p := c.serve(t)
	p.register(t, 1, nil)
	p.silent(t, name(0))
	want := "TIMEOUT NO_ACK"
	if c.durable {
		want = "PENDING STORED NO_ACK"
	}
	result := p.multicast(t, client.MulticastRequest{Timeout: 600 * time.Millisecond})
	checkOutcome(t, *result, want)
	if result.Targets[0].Attempts != 3 || result.Ended != client.DeadlinePassed {
		t.Errorf("%d attempts, ended %d", result.Targets[0].Attempts, result.Ended)
	}
}

// endsNoAckQueueFull cannot store what nobody acknowledged: whether it arrived stays unknown.
func endsNoAckQueueFull(t *testing.T, c combination) {
	p := c.serveAs(t, testenv.Prefix(t), c.altered(t, with("durability", "max_messages: 1")))
	p.register(t, 1, nil)
	checkOutcome(t, *p.multicast(t, client.MulticastRequest{}), "PENDING STORED NO_SUBSCRIBER")
	p.silent(t, name(0))
	result := p.multicast(t, client.MulticastRequest{Timeout: 300 * time.Millisecond})
	checkOutcome(t, *result, "TIMEOUT NO_ACK")
}

func endsGone(t *testing.T, c combination) {
	want := "TIMEOUT GONE"
	if c.durable {
		want = "PENDING STORED GONE"
	}
	for how, leave := range map[string]func(*client.Stream, context.CancelFunc){
		"closes":   func(s *client.Stream, _ context.CancelFunc) { check(t, s.Close()) },
		"detaches": func(s *client.Stream, _ context.CancelFunc) { check(t, s.Detach(t.Context(), name(0))) },
		"crashes":  func(_ *client.Stream, cut context.CancelFunc) { cut() },
	} {
		t.Run(how, func(t *testing.T) {
			p := c.serve(t)
			p.register(t, 1, nil)
			life, cut := context.WithCancel(t.Context())
			defer cut()
			stream, err := p.Subscribe(life)
			must(t, err)
			defer stream.Close()
			must(t, stream.Attach(t.Context(), false, name(0)))
			_, wait := p.underWay(t, client.MulticastRequest{Timeout: 30 * time.Second, RetryAttempts: 1})
			_, err = stream.Next(t.Context())
			must(t, err)
			leave(stream, cut)
			result := wait()
			checkOutcome(t, *result, want)
			if result.Ended != client.Complete {
				t.Errorf("it ends %d after %v", result.Ended, result.Elapsed)
			}
		})
	}
}

func endsUnregistered(t *testing.T, c combination) {
	p := c.serve(t)
	p.register(t, 1, nil)
	stream := p.silent(t, name(0))
	id, wait := p.underWay(t, client.MulticastRequest{Timeout: 30 * time.Second})
	_, err := stream.Next(t.Context())
	must(t, err)
	_, err = p.Unregister(t.Context(), name(0))
	must(t, err)
	result := wait()
	checkOutcome(t, *result, "TIMEOUT GONE")
	wantError(t, result.Targets[0].Err, client.ErrGone)
	if result.Ended != client.Complete {
		t.Errorf("it ended %d after %v", result.Ended, result.Elapsed)
	}
	if c.durable {
		checkKept(t, p, id, "TIMEOUT GONE")
	}
}

func endsLeaseOver(t *testing.T, c combination) {
	p := c.serve(t)
	_, err := p.Register(t.Context(), client.Registration{ID: name(0), TTL: time.Second})
	must(t, err)
	p.silent(t, name(0))
	result := p.multicast(t, client.MulticastRequest{Timeout: 30 * time.Second})
	checkOutcome(t, *result, "TIMEOUT GONE")
	if result.Ended != client.Complete {
		t.Errorf("it ended %d after %v", result.Ended, result.Elapsed)
	}
}

// endsGoneUnreached has a target whose lease ends between two attempts of which none can reach anybody.
func endsGoneUnreached(t *testing.T, c combination) {
	slots, cut := c.behind(t, "messaging")
	if c.messaging() == "memory" {
		slots = c.altered(t, with("messaging", "buffer: 2"))
	}
	p := c.serveAs(t, testenv.Prefix(t), slots)
	if c.messaging() == "memory" {
		p.register(t, 1, nil)
		p.silent(t, name(0))
		p.fill(t)
	}
	cut.each((*testenv.Fault).Cut)
	_, err := p.Register(t.Context(), client.Registration{ID: name(0), TTL: 2 * time.Second, Mode: client.Replace})
	must(t, err)
	result := p.multicast(t, client.MulticastRequest{Timeout: 30 * time.Second, RetryDelay: 25 * time.Second})
	checkOutcome(t, *result, "FAILED GONE")
	if result.Ended != client.Complete {
		t.Errorf("it ended %d after %v", result.Ended, result.Elapsed)
	}
}

func endsPurged(t *testing.T, c combination) {
	p := c.serve(t)
	p.register(t, 1, nil)
	result := p.multicast(t, client.MulticastRequest{})
	checkOutcome(t, *result, "PENDING STORED NO_SUBSCRIBER")
	_, err := p.Unregister(t.Context(), name(0))
	must(t, err)
	checkKept(t, p, result.ID, "FAILED EXPIRED")
	p.register(t, 1, nil)
	a := p.attach(t, name(0))
	checkOutcome(t, *p.multicast(t, client.MulticastRequest{}), "DELIVERED ACKED")
	if a.total() != 1 {
		t.Errorf("%d messages arrived: what was purged, too", a.total())
	}
}

func endsTooOld(t *testing.T, c combination) {
	p := c.serveAs(t, testenv.Prefix(t), c.altered(t, with("durability", "max_age: 1s")))
	p.register(t, 1, nil)
	result := p.multicast(t, client.MulticastRequest{})
	checkOutcome(t, *result, "PENDING STORED NO_SUBSCRIBER")
	eventually(t, "it is too old", func() bool {
		record, err := p.GetMulticast(t.Context(), result.ID)
		must(t, err)
		return record.Result.Pending == 0
	})
	checkKept(t, p, result.ID, "FAILED EXPIRED")
}

func endsWithdrawn(t *testing.T, c combination) {
	p := c.serve(t)
	p.register(t, 2, nil)
	p.attach(t, name(1))
	result := p.multicast(t, client.MulticastRequest{})
	withdrawn, record, err := p.CancelMulticast(t.Context(), result.ID)
	must(t, err)
	if withdrawn != 1 || record.State != client.WithdrawnByID || record.Result.Delivered != 1 || record.Result.Failed != 1 {
		t.Errorf("withdrawn %d, %+v", withdrawn, record)
	}
	record, err = p.GetMulticast(t.Context(), result.ID)
	must(t, err)
	if got := told(record.Result.Targets[0]) + ", " + told(record.Result.Targets[1]); got != "FAILED WITHDRAWN, DELIVERED ACKED" {
		t.Error(got)
	}
	a := p.attach(t, name(0))
	checkAllAcked(t, p.multicast(t, client.MulticastRequest{}), names(2))
	if a.total() != 1 {
		t.Errorf("%d messages arrived: what was withdrawn, too", a.total())
	}
	withdrawn, _, err = p.CancelMulticast(t.Context(), result.ID)
	if withdrawn != 0 || err != nil {
		t.Errorf("again: %d, %v", withdrawn, err)
	}
}

// endsCancelled cancels a multicast that waits for an ack: it returns at once and stores nothing.
func endsCancelled(t *testing.T, c combination) {
	p := c.serve(t)
	p.register(t, 1, nil)
	stream := p.silent(t, name(0))
	id, wait := p.underWay(t, client.MulticastRequest{Timeout: 30 * time.Second})
	_, err := stream.Next(t.Context())
	must(t, err)
	var record *client.MulticastRecord
	eventually(t, "it is known by its id", func() bool {
		_, record, err = p.CancelMulticast(t.Context(), id)
		return err == nil
	})
	result := wait()
	checkOutcome(t, *result, "TIMEOUT NO_ACK")
	if result.Ended != client.Cancelled || record.State != client.WithdrawnByID {
		t.Errorf("it ended %d, state %d", result.Ended, record.State)
	}
	checkKept(t, p, id, "TIMEOUT NO_ACK")
}
