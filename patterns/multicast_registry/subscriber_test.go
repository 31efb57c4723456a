package multicastregistry_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prism-data-layer/prism/patterns/memory"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func TestSubscriberAttachAndDetach(t *testing.T) {
	t.Parallel()
	slots := memorySlots()
	slots.Durability = memory.NewDurability(memory.DurabilityConfig{})
	c := open(t, mr.Config{}, slots)
	register(t, c, 3, nil)
	s := attach(t, c, always, "id-00000", "id-00001")
	if err := s.Attach(t.Context(), false, "id-00000", "id-00002"); err != nil {
		t.Fatal(err)
	}
	if err := s.Detach(t.Context(), "id-00001", "unknown"); err != nil {
		t.Fatal(err)
	}
	result, err := c.Multicast(t.Context(), mr.Request{})
	if err != nil || result.Delivered != 2 || result.Targets[1].Status != mr.Pending {
		t.Errorf("%+v, %v", result, err)
	}
	for name, err := range map[string]error{
		"attach": s.Attach(t.Context(), false, ""), "detach": s.Detach(t.Context(), "\xff"),
	} {
		if !errors.Is(err, mr.ErrInvalid) {
			t.Errorf("%s of a name that is none: %v", name, err)
		}
	}
}

func TestSubscriberNextEnds(t *testing.T) {
	t.Parallel()
	c := open(t, mr.Config{}, memorySlots())
	s, err := c.Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("after the context's end: %v", err)
	}
	ended := make(chan error)
	go func() {
		_, err := s.Next(context.Background())
		ended <- err
	}()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Errorf("after Close: %v", err)
	}
	if err := s.Ack(t.Context(), mr.Answer{MessageName: mr.MessageName{Identity: "a", ID: "b"}}); err != nil {
		t.Errorf("an ack for nothing: %v", err)
	}
}

func TestSubscribeFails(t *testing.T) {
	t.Parallel()
	slots := memorySlots()
	slots.Messaging = noSubscribe{slots.Messaging}
	if _, err := open(t, mr.Config{}, slots).Subscribe(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("messaging: %v", err)
	}
	slots = memorySlots()
	slots.Durability = noConsume{memory.NewDurability(memory.DurabilityConfig{})}
	if _, err := open(t, mr.Config{}, slots).Subscribe(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("durability: %v", err)
	}
	slots = memorySlots()
	slots.Messaging = brokenSubscribe{slots.Messaging}
	s, err := open(t, mr.Config{}, slots).Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Next(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("a subscription that broke: %v", err)
	}
	if err := s.Attach(t.Context(), false, "a"); !errors.Is(err, errBroken) {
		t.Errorf("attach: %v", err)
	}
	if err := s.Detach(t.Context(), "a"); !errors.Is(err, errBroken) {
		t.Errorf("detach: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

type (
	noSubscribe        struct{ mr.Messaging }
	noConsume          struct{ mr.Durability }
	brokenSubscribe    struct{ mr.Messaging }
	brokenSubscription struct{ mr.Subscription }
)

func (noSubscribe) Subscribe(context.Context, ...string) (mr.Subscription, error) {
	return nil, errBroken
}

func (noConsume) Consume(context.Context, ...string) (mr.Subscription, error) { return nil, errBroken }

func (b brokenSubscribe) Subscribe(ctx context.Context, topics ...string) (mr.Subscription, error) {
	s, err := b.Messaging.Subscribe(ctx, topics...)
	return brokenSubscription{s}, err
}

func (brokenSubscription) Next(context.Context) (mr.Batch, error)  { return mr.Batch{}, errBroken }
func (brokenSubscription) Add(context.Context, ...string) error    { return errBroken }
func (brokenSubscription) Remove(context.Context, ...string) error { return errBroken }

// TestKeepAlive holds leases through a subscriber for many TTLs, and lets them go with it.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := open(t, mr.Config{TTLDefault: 3 * time.Second}, memorySlots())
		register(t, c, 20, nil)
		if _, err := c.Register(t.Context(), mr.Registration{ID: "z-forever", TTL: mr.NoExpiry}); err != nil {
			t.Fatal(err)
		}
		s, err := c.Subscribe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Attach(t.Context(), true, append(ids(20), "z-forever")...); err != nil {
			t.Fatal(err)
		}
		live := func() int {
			page, err := c.Enumerate(t.Context(), mr.Query{})
			if err != nil {
				t.Fatal(err)
			}
			return page.Total
		}
		time.Sleep(time.Minute) //nolint:forbidigo // synctest's clock
		if n := live(); n != 21 {
			t.Errorf("%d identities live after a minute", n)
		}
		if err := s.Detach(t.Context(), "id-00000"); err != nil {
			t.Error(err)
		}
		if err := s.Attach(t.Context(), false, "id-00001"); err != nil {
			t.Error(err)
		}
		time.Sleep(4 * time.Second) //nolint:forbidigo // synctest's clock
		if n := live(); n != 19 {
			t.Errorf("%d identities live after two were let go", n)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(4 * time.Second) //nolint:forbidigo // synctest's clock
		if n := live(); n != 1 {
			t.Errorf("%d identities live after the subscriber closed", n)
		}
	})
}

func TestKeepAliveLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slots := memorySlots()
		flaky := &flakyRenewals{Registry: slots.Registry}
		slots.Registry = flaky
		c := open(t, mr.Config{TTLDefault: 3 * time.Second}, slots)
		register(t, c, 2, nil)
		s, err := c.Subscribe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Attach(t.Context(), true, "id-00000", "id-00001", "unregistered"); err != nil {
			t.Fatal(err)
		}
		if event, err := s.Next(t.Context()); err != nil || !slices.Equal(event.LeasesLost, []string{"unregistered"}) {
			t.Fatalf("%+v, %v", event, err)
		}
		// A backend that is away for less than a TTL costs no lease.
		flaky.away.Store(true)
		time.Sleep(1500 * time.Millisecond) //nolint:forbidigo // synctest's clock
		flaky.away.Store(false)
		time.Sleep(10 * time.Second) //nolint:forbidigo // synctest's clock
		if _, err := c.Heartbeat(t.Context(), "id-00000", 0); err != nil {
			t.Errorf("after the backend came back: %v", err)
		}
		if _, err := c.Unregister(t.Context(), "id-00001", 0); err != nil {
			t.Fatal(err)
		}
		if event, err := s.Next(t.Context()); err != nil || !slices.Equal(event.LeasesLost, []string{"id-00001"}) {
			t.Errorf("%+v, %v", event, err)
		}
		// Registered again with a shorter TTL and attached again, it is kept.
		if _, err := c.Register(t.Context(), mr.Registration{ID: "id-00001", TTL: time.Second}); err != nil {
			t.Fatal(err)
		}
		if err := s.Attach(t.Context(), true, "id-00001", "id-00000"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second) //nolint:forbidigo // synctest's clock
		if _, err := c.Heartbeat(t.Context(), "id-00001", 0); err != nil {
			t.Errorf("after it was attached again: %v", err)
		}
	})
}

type flakyRenewals struct {
	mr.Registry
	away atomic.Bool
}

func (f *flakyRenewals) Renew(ctx context.Context, id string, ttl time.Duration) (mr.Lease, error) {
	if f.away.Load() {
		return mr.Lease{}, mr.ErrUnavailable
	}
	return f.Registry.Renew(ctx, id, ttl)
}

// TestSlowSubscriberCostsItself has a subscriber that never reads: the others get everything, and it learns what it lost.
func TestSlowSubscriberCostsItself(t *testing.T) {
	t.Parallel()
	slots := memorySlots()
	slots.Messaging = memory.NewMessaging(memory.MessagingConfig{Buffer: 4})
	c := open(t, mr.Config{Timeout: 30 * time.Second}, slots)
	register(t, c, 2, nil)
	attach(t, c, always, "id-00000")
	slow, err := c.Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if err := slow.Attach(t.Context(), false, "id-00001"); err != nil {
		t.Fatal(err)
	}
	const rounds = 50
	var refused int
	for range rounds {
		result, err := c.Multicast(t.Context(), mr.Request{Timeout: 300 * time.Millisecond, RetryAttempts: 1})
		if err != nil {
			t.Fatal(err)
		}
		if result.Targets[0].Status != mr.Delivered {
			t.Errorf("the quick one: %+v", result.Targets[0])
		}
		if result.Targets[1].Reason == mr.QueueFull {
			refused++
		}
	}
	if refused == 0 {
		t.Error("the slow one's buffer was never full")
	}
	var got, dropped int
	for got+dropped < rounds {
		event, err := slow.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, dropped = got+len(event.Messages), dropped+int(event.Dropped)
	}
	if dropped != refused {
		t.Errorf("the slow one was told of %d lost messages, the sender of %d", dropped, refused)
	}
}

// TestRenewalOvertaken registers an identity while its renewal is under way: that one's "not found" is out of date.
func TestRenewalOvertaken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slots := memorySlots()
		held := &heldRenewal{Registry: slots.Registry, begun: make(chan struct{}), release: make(chan struct{})}
		slots.Registry = held
		c := open(t, mr.Config{TTLDefault: time.Second}, slots)
		s, err := c.Subscribe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Attach(t.Context(), true, "id-00000"); err != nil {
			t.Fatal(err)
		}
		<-held.begun
		register(t, c, 1, nil)
		if err := s.Attach(t.Context(), true, "id-00000"); err != nil {
			t.Fatal(err)
		}
		close(held.release)
		waiting, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if event, err := s.Next(waiting); err == nil {
			t.Errorf("%+v", event)
		}
		if page, err := c.Enumerate(t.Context(), mr.Query{}); err != nil || page.Total != 1 {
			t.Errorf("after a minute %d identities live, %v", page.Total, err)
		}
	})
}

// heldRenewal answers the first renewal late, with what was true when it began.
type heldRenewal struct {
	mr.Registry
	begun, release chan struct{}
	once           atomic.Bool
}

func (h *heldRenewal) Renew(ctx context.Context, id string, ttl time.Duration) (mr.Lease, error) {
	lease, err := h.Registry.Renew(ctx, id, ttl)
	if h.once.CompareAndSwap(false, true) {
		close(h.begun)
		<-h.release
	}
	return lease, err
}

// TestRenewalHangs has a renewal that is never answered: the other leases live on.
func TestRenewalHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slots := memorySlots()
		slots.Registry = hungRenewal{slots.Registry}
		c := open(t, mr.Config{TTLDefault: 9 * time.Second}, slots)
		register(t, c, 2, nil)
		s, err := c.Subscribe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Attach(t.Context(), true, ids(2)...); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) //nolint:forbidigo // synctest's clock
		page, err := c.Enumerate(t.Context(), mr.Query{})
		if err != nil || page.Total != 1 || page.Identities[0].ID != "id-00001" {
			t.Errorf("%+v, %v", page, err)
		}
	})
}

type hungRenewal struct{ mr.Registry }

func (h hungRenewal) Renew(ctx context.Context, id string, ttl time.Duration) (mr.Lease, error) {
	if id == "id-00000" {
		<-ctx.Done()
		return mr.Lease{}, ctx.Err()
	}
	return h.Registry.Renew(ctx, id, ttl)
}
