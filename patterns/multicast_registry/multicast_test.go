package multicastregistry_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prism-data-layer/prism/patterns/memory"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// attach opens a subscriber that hands every message to handle, and acks it when handle says so.
func attach(t testing.TB, c *mr.Coordinator, handle func(mr.Message) (ack bool), ids ...string) *mr.Subscriber {
	t.Helper()
	s, err := c.Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Attach(t.Context(), false, ids...); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			event, err := s.Next(context.Background())
			if err != nil {
				return
			}
			var acks []mr.Answer
			for _, m := range event.Messages {
				if handle(m) {
					acks = append(acks, mr.Answer{MessageName: mr.MessageName{Identity: m.Identity, ID: m.ID}})
				}
			}
			if err := s.Ack(context.Background(), acks...); err != nil {
				t.Errorf("ack: %v", err)
			}
		}
	})
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Errorf("close: %v", err)
		}
		reading.Wait()
	})
	return s
}

func always(mr.Message) bool { return true }

func ids(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("id-%05d", i)
	}
	return out
}

// checkResult checks what holds for every result: each identity once, in order, and counts that add up.
func checkResult(t *testing.T, r *mr.Result, want []string) {
	t.Helper()
	var got []string
	var n [mr.Timeout + 1]int
	for _, target := range r.Targets {
		got = append(got, target.Identity)
		n[target.Status]++
		if (target.Status == mr.Delivered) != (target.Reason == 0) || (target.Status == mr.Delivered) != (target.Err == nil) &&
			target.Status != mr.Pending {
			t.Errorf("%s: status, reason and error disagree: %+v", target.Identity, target)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("targets %v, want %v", got, want)
	}
	if n != [...]int{0, r.Delivered, r.Pending, r.Failed, r.TimedOut} {
		t.Errorf("counts %d/%d/%d/%d, statuses %v", r.Delivered, r.Pending, r.Failed, r.TimedOut, n)
	}
	if r.ID == "" || r.Ended == 0 {
		t.Errorf("incomplete result %+v", r)
	}
}

func TestMulticastFanOut(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 10, 100, 255, 256, 257, 1000, 3000} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			c := open(t, mr.Config{}, memorySlots())
			register(t, c, n, nil)
			var received sync.Map
			attach(t, c, func(m mr.Message) bool {
				if string(m.Payload) != "hello" || m.ContentType != "text/plain" || m.SentAt.IsZero() {
					t.Errorf("received %+v", m)
				}
				if _, twice := received.LoadOrStore(m.Identity, m.ID); twice {
					t.Errorf("%s received it twice", m.Identity)
				}
				return true
			}, ids(n)...)
			result, err := c.Multicast(t.Context(), mr.Request{Payload: []byte("hello"), ContentType: "text/plain", Timeout: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			checkResult(t, result, ids(n)[:n:n])
			if result.Delivered != n || result.Ended != mr.Complete || result.Elapsed > 50*time.Second {
				t.Errorf("delivered %d, ended %d after %v", result.Delivered, result.Ended, result.Elapsed)
			}
			for _, target := range result.Targets {
				if id, ok := received.Load(target.Identity); !ok || id != result.ID {
					t.Errorf("%s received %v", target.Identity, id)
				}
				if target.Evidence != mr.Acked || target.Attempts != 1 || target.Latency <= 0 {
					t.Errorf("%+v", target)
				}
			}
		})
	}
}

func TestMulticastFiltered(t *testing.T) {
	t.Parallel()
	c := open(t, mr.Config{}, memorySlots())
	register(t, c, 10, func(i int) map[string]any { return map[string]any{"floor": i} })
	attach(t, c, always, ids(10)...)
	result, err := c.Multicast(t.Context(), mr.Request{Filter: parse(t, `{"floor":{"$gte":7}}`)})
	if err != nil {
		t.Fatal(err)
	}
	checkResult(t, result, ids(10)[7:])
	if result.Revision != 10 || result.Delivered != 3 {
		t.Errorf("delivered %d at revision %d", result.Delivered, result.Revision)
	}
}

// TestMulticastStatuses has one identity for each way in which a message can end.
func TestMulticastStatuses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slots := memorySlots()
		slots.Messaging = failing{Messaging: slots.Messaging, errs: map[string]error{
			"full": mr.ErrQueueFull, "large": mr.ErrTooLarge, "away": mr.ErrUnavailable, "unclear": errBroken,
		}}
		c := open(t, mr.Config{Timeout: time.Second}, slots)
		names := []string{"acks", "away", "full", "large", "nobody", "silent", "unclear"}
		for _, id := range names {
			if _, err := c.Register(t.Context(), mr.Registration{ID: id}); err != nil {
				t.Fatal(err)
			}
		}
		attach(t, c, func(m mr.Message) bool { return m.Identity == "acks" }, "acks", "silent")
		result, err := c.Multicast(t.Context(), mr.Request{})
		if err != nil {
			t.Fatal(err)
		}
		checkResult(t, result, names)
		if result.Ended != mr.DeadlinePassed || result.Elapsed != time.Second {
			t.Errorf("ended %d after %v", result.Ended, result.Elapsed)
		}
		want := map[string]mr.Target{
			"acks":    {Status: mr.Delivered, Evidence: mr.Acked},
			"away":    {Status: mr.Failed, Reason: mr.BackendError},
			"full":    {Status: mr.Failed, Reason: mr.QueueFull},
			"large":   {Status: mr.Failed, Reason: mr.PayloadTooLarge},
			"nobody":  {Status: mr.Failed, Reason: mr.NoSubscriber},
			"silent":  {Status: mr.Timeout, Reason: mr.NoAck},
			"unclear": {Status: mr.Timeout, Reason: mr.BackendError},
		}
		for _, got := range result.Targets {
			w := want[got.Identity]
			if got.Status != w.Status || got.Evidence != w.Evidence || got.Reason != w.Reason {
				t.Errorf("%s: %v, evidence %d, reason %d (%v)", got.Identity, got.Status, got.Evidence, got.Reason, got.Err)
			}
		}
	})
}

// failing is a messaging slot that fails for some identities.
type failing struct {
	mr.Messaging
	errs map[string]error
}

func (f failing) Publish(ctx context.Context, messages []mr.Message) []error {
	var good []mr.Message
	for _, m := range messages {
		if f.errs[m.Identity] == nil {
			good = append(good, m)
		}
	}
	results := f.Messaging.Publish(ctx, good)
	out := make([]error, len(messages))
	for i, m := range messages {
		if err := f.errs[m.Identity]; err != nil {
			out[i] = err
			continue
		}
		out[i], results = results[0], results[1:]
	}
	return out
}

// TestMulticastFinishesEarly has dead targets only: the call costs a round trip, not the timeout.
func TestMulticastFinishesEarly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := open(t, mr.Config{}, memorySlots())
		register(t, c, 300, nil)
		result, err := c.Multicast(t.Context(), mr.Request{Timeout: time.Hour})
		if err != nil || result.Ended != mr.Complete || result.Elapsed != 0 || result.Failed != 300 {
			t.Errorf("%d failed, ended %d after %v, %v", result.Failed, result.Ended, result.Elapsed, err)
		}
	})
}

// TestMulticastAtMostOnce pins that acceptance is what counts, and that DELIVERED says so.
func TestMulticastAtMostOnce(t *testing.T) {
	t.Parallel()
	slots := memorySlots()
	slots.Messaging = failing{Messaging: slots.Messaging, errs: map[string]error{"id-00003": errBroken}}
	c := open(t, mr.Config{Delivery: mr.AtMostOnce}, slots)
	register(t, c, 10, nil)
	result, err := c.Multicast(t.Context(), mr.Request{})
	if err != nil {
		t.Fatal(err)
	}
	checkResult(t, result, ids(10))
	if result.Delivered != 9 || result.Failed != 1 || result.Targets[0].Evidence != mr.Accepted {
		t.Errorf("%+v", result)
	}
}

func TestMulticastStopsWaiting(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		limit func(context.Context) (context.Context, context.CancelFunc)
		ended mr.Ended
		after time.Duration
	}{
		"at its own timeout": {
			func(ctx context.Context) (context.Context, context.CancelFunc) { return ctx, func() {} }, mr.DeadlinePassed, 20 * time.Second,
		},
		"before the caller's deadline": {
			func(ctx context.Context) (context.Context, context.CancelFunc) {
				return context.WithTimeout(ctx, 10*time.Second)
			},
			mr.DeadlinePassed, 9800 * time.Millisecond,
		},
		"when the caller leaves": {
			func(ctx context.Context) (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(3*time.Second, cancel)
				return ctx, cancel
			}, mr.Cancelled, 3 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := open(t, mr.Config{Timeout: 20 * time.Second}, memorySlots())
				register(t, c, 3, nil)
				attach(t, c, func(mr.Message) bool { return false }, ids(3)...)
				ctx, cancel := row.limit(t.Context())
				defer cancel()
				result, err := c.Multicast(ctx, mr.Request{})
				if err != nil {
					t.Fatal(err)
				}
				checkResult(t, result, ids(3))
				if result.Ended != row.ended || result.Elapsed != row.after || result.TimedOut != 3 {
					t.Errorf("%d timed out, ended %d after %v", result.TimedOut, result.Ended, result.Elapsed)
				}
			})
		})
	}
}

// TestMulticastStalledBackend has a backend that answers nothing: what it holds is unknown, the rest was never sent.
func TestMulticastStalledBackend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slots := memorySlots()
		slots.Messaging = stalled{slots.Messaging}
		c := open(t, mr.Config{Timeout: time.Second}, slots)
		register(t, c, 3000, nil)
		result, err := c.Multicast(t.Context(), mr.Request{})
		if err != nil {
			t.Fatal(err)
		}
		checkResult(t, result, ids(3000))
		if result.TimedOut != 2048 || result.Failed != 952 || result.Ended != mr.DeadlinePassed {
			t.Errorf("%d timed out, %d failed, ended %d", result.TimedOut, result.Failed, result.Ended)
		}
		if last := result.Targets[2999]; last.Reason != mr.NotSent || last.Attempts != 0 || last.Latency != 0 {
			t.Errorf("the last target: %+v", last)
		}
	})
}

type stalled struct{ mr.Messaging }

func (stalled) Publish(ctx context.Context, messages []mr.Message) []error {
	<-ctx.Done()
	errs := make([]error, len(messages))
	for i := range errs {
		errs[i] = ctx.Err()
	}
	return errs
}

func TestMulticastRefuses(t *testing.T) {
	t.Parallel()
	c := open(t, mr.Config{MaxPayload: 10}, memorySlots())
	for field, req := range map[string]mr.Request{
		"payload":      {Payload: make([]byte, 11)},
		"content_type": {ContentType: "text/plain\r\nX: y"},
		"delivery":     {Delivery: "perhaps"},
		"timeout":      {Timeout: -1},
	} {
		_, err := c.Multicast(t.Context(), req)
		var bad *mr.InvalidError
		if !errors.As(err, &bad) || bad.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestMulticastStores has a durability slot: who was away gets the message later, and says so.
func TestMulticastStores(t *testing.T) {
	t.Parallel()
	slots := memorySlots()
	slots.Durability = memory.NewDurability(memory.DurabilityConfig{MaxMessages: 2})
	c := open(t, mr.Config{Timeout: time.Minute}, slots)
	register(t, c, 2, nil)
	attach(t, c, always, "id-00001")
	var sent []string
	for range 2 {
		result, err := c.Multicast(t.Context(), mr.Request{})
		if err != nil {
			t.Fatal(err)
		}
		checkResult(t, result, ids(2))
		away := result.Targets[0]
		if away.Status != mr.Pending || away.Evidence != mr.Stored || away.Reason != mr.NoSubscriber || result.Delivered != 1 {
			t.Fatalf("%+v", result)
		}
		sent = append(sent, result.ID)
	}
	if result, err := c.Multicast(t.Context(), mr.Request{}); err != nil || result.Targets[0].Reason != mr.QueueFull ||
		result.Targets[0].Status != mr.Failed {
		t.Errorf("beyond the bound: %+v, %v", result, err)
	}
	if result, err := c.Multicast(t.Context(), mr.Request{Delivery: mr.AtMostOnce}); err != nil || result.Delivered != 2 {
		t.Errorf("at most once stores nothing: %+v, %v", result, err)
	}
	received := make(chan mr.Message)
	attach(t, c, func(m mr.Message) bool { received <- m; return true }, "id-00000")
	for _, id := range sent {
		if m := <-received; m.ID != id || !m.Redelivered {
			t.Errorf("received %+v, want %s", m, id)
		}
	}
}

// TestReceiptsOfOthers sends receipts that belong to no target.
func TestReceiptsOfOthers(t *testing.T) {
	t.Parallel()
	slots := memorySlots()
	forged := &forging{Messaging: slots.Messaging}
	slots.Messaging = forged
	c := open(t, mr.Config{Timeout: 50 * time.Millisecond}, slots)
	register(t, c, 1, nil)
	attach(t, c, func(mr.Message) bool { return false }, "id-00000")
	for _, token := range []string{"1", "1.zz", "zz.0", "x.y", "1.18446744073709551616", "9.9.9"} {
		forged.token.Store(&token)
		result, err := c.Multicast(t.Context(), mr.Request{})
		if err != nil || result.TimedOut != 1 {
			t.Errorf("a receipt for %q settled something: %+v, %v", token, result, err)
		}
	}
}

// forging acks another token whenever a message is published.
type forging struct {
	mr.Messaging
	inbox mr.Inbox
	token atomic.Pointer[string]
}

func (f *forging) Inbox(ctx context.Context) (inbox mr.Inbox, err error) {
	f.inbox, err = f.Messaging.Inbox(ctx)
	return f.inbox, err
}

func (f *forging) Publish(ctx context.Context, messages []mr.Message) []error {
	f.Ack(ctx, []mr.Ack{{To: f.inbox.Address(*f.token.Load())}})
	return f.Messaging.Publish(ctx, messages)
}

func TestStatusString(t *testing.T) {
	t.Parallel()
	var all []string
	for s := mr.Status(0); s <= mr.Timeout; s++ {
		all = append(all, s.String())
	}
	if got := strings.Join(all, " "); got != "UNKNOWN DELIVERED PENDING FAILED TIMEOUT" {
		t.Error(got)
	}
}
