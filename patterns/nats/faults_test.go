package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// flood publishes one message after the other until stopped, and keeps what the results said.
type flood struct {
	stop    context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	sent     int
	accepted map[string]bool
	refused  map[string]bool // certainly not sent
	longest  time.Duration
}

func newFlood(t *testing.T, m *Messaging, ns, identity string) *flood {
	f := &flood{accepted: map[string]bool{}, refused: map[string]bool{}}
	ctx, stop := context.WithCancel(t.Context())
	f.stop = stop
	tick := time.NewTicker(time.Millisecond)
	f.running.Go(func() {
		defer tick.Stop()
		for n := 0; ctx.Err() == nil; n++ {
			<-tick.C
			sent := message(ns, identity, fmt.Sprint(n))
			start := time.Now()
			err := m.Publish(context.WithoutCancel(ctx), []mr.Message{sent})[0]
			f.mu.Lock()
			f.sent, f.longest = n+1, max(f.longest, time.Since(start))
			switch {
			case err == nil:
				f.accepted[sent.ID] = true
			case errors.Is(err, mr.ErrUnavailable):
				f.refused[sent.ID] = true
			}
			f.mu.Unlock()
		}
	})
	return f
}

func (f *flood) counts() (accepted, refused int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.accepted), len(f.refused)
}

func (f *flood) end() {
	f.stop()
	f.running.Wait()
}

// read reads up to a message with the given payload and returns the ids before it.
func read(t *testing.T, sub mr.Subscription, last string) map[string]bool {
	t.Helper()
	got := map[string]bool{}
	for {
		for _, message := range receive(t, sub, 1) {
			if string(message.Payload) == last {
				return got
			}
			got[message.ID] = true
		}
	}
}

// TestServerRestart stops the server for two seconds under publishing. What was accepted had arrived, what was refused never
// does; the subscription and the inbox come back by themselves.
func TestServerRestart(t *testing.T) {
	n, ns := testenv.NewNATS(t, nil), testenv.Prefix(t)
	publisher, subscriber := messaging(opening(t, n.URL)), NewMessaging(opening(t, n.URL), MessagingConfig{Buffer: 1 << 20})
	sub, in := subscribe(t, subscriber, mr.Topic(ns, "a")), inboxOf(t, publisher)
	f := newFlood(t, publisher, ns, "a")
	defer f.end()
	eventually(t, "messages are accepted", func() bool { a, _ := f.counts(); return a > 50 })
	n.Stop()
	eventually(t, "the outage is noticed", func() bool { _, r := f.counts(); return r > 10 })
	during, _ := f.counts()
	start := time.Now()
	if _, err := publisher.Inbox(within(t)); !errors.Is(err, mr.ErrUnavailable) || time.Since(start) > time.Second {
		t.Errorf("inbox: %v after %s", err, time.Since(start))
	}
	if err := sub.Add(within(t), mr.Topic(ns, "b")); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("add: %v", err)
	}
	<-time.After(2 * time.Second)
	if a, _ := f.counts(); a != during {
		t.Errorf("%d messages were accepted without a server", a-during)
	}
	n.Start()
	eventually(t, "messages are accepted again", func() bool { a, _ := f.counts(); return a > during+50 })
	eventually(t, "the subscriber is back", func() bool { return subscriber.Ping(within(t)) == nil })
	f.end()
	last := message(ns, "a", "last")
	last.AckTo = in.Address("last")
	if err := errors.Join(publisher.Publish(within(t), []mr.Message{last})...); err != nil {
		t.Fatal(err)
	}
	got := read(t, sub, "last")
	wasRefused(t, f, got)
	if err := errors.Join(subscriber.Ack(within(t), []mr.Ack{{To: last.AckTo}})...); err != nil {
		t.Fatal(err)
	}
	if r := receipt(t, in); r.Token != "last" || r.Err != nil {
		t.Errorf("%+v", r)
	}
	if f.longest > 2*time.Second {
		t.Errorf("one call took %s", f.longest)
	}
}

// wasRefused fails the test if a message arrived that ErrUnavailable had been said about.
func wasRefused(t *testing.T, f *flood, got map[string]bool) {
	t.Helper()
	late := 0
	for id := range f.refused {
		if got[id] {
			late++
		}
	}
	if late > 0 {
		t.Errorf("%d of %d messages that were refused arrived", late, len(f.refused))
	}
	missing := 0
	for id := range f.accepted {
		if !got[id] {
			missing++
		}
	}
	t.Logf("%d sent, %d accepted, %d refused, %d unknown; %d arrived; %d accepted ones while the subscriber was away",
		f.sent, len(f.accepted), len(f.refused), f.sent-len(f.accepted)-len(f.refused), len(got), missing)
}

// TestFaultyPublisher breaks the publisher's way to the server in every manner, under publishing, with a subscriber whose own
// way is sound: whatever was accepted arrives, and nothing that was refused.
func TestFaultyPublisher(t *testing.T) {
	url := testenv.NATS(t).URL
	fault := testenv.NewFault(t, strings.TrimPrefix(url, "nats://"))
	ns := testenv.Prefix(t)
	publisher := messaging(opened(t, Config{Servers: []string{fault.Addr}, Timeout: 500 * time.Millisecond}))
	subscriber := NewMessaging(opening(t, url), MessagingConfig{Buffer: 1 << 20})
	sub := subscribe(t, subscriber, mr.Topic(ns, "a"))
	f := newFlood(t, publisher, ns, "a")
	defer f.end()
	accepted := func(more int) {
		t.Helper()
		before, _ := f.counts()
		eventually(t, "messages are accepted", func() bool { a, _ := f.counts(); return a > before+more })
	}
	for range 3 {
		accepted(30)
		fault.Reset()
		accepted(30)
		fault.Cut()
		eventually(t, "the cut is noticed", func() bool { return errors.Is(publisher.Ping(within(t)), mr.ErrUnavailable) })
		fault.Heal()
		accepted(30)
		fault.Delay(20 * time.Millisecond)
		accepted(3)
		fault.Delay(0)
		accepted(30)
	}
	f.end()
	if err := errors.Join(publisher.Publish(within(t), []mr.Message{message(ns, "a", "last")})...); err != nil {
		t.Fatal(err)
	}
	got := read(t, sub, "last")
	wasRefused(t, f, got)
	for id := range f.accepted {
		if !got[id] {
			t.Errorf("%s was accepted and did not arrive", id)
		}
	}
	if f.longest > 3*time.Second {
		t.Errorf("one call took %s", f.longest)
	}
}

// TestStall has a network that loses every packet: calls end within the timeout, or with their context, and what was written
// has an unknown outcome.
func TestStall(t *testing.T) {
	url := testenv.NATS(t).URL
	fault := testenv.NewFault(t, strings.TrimPrefix(url, "nats://"))
	m := messaging(opened(t, Config{Servers: []string{fault.Addr}, Timeout: 300 * time.Millisecond}))
	if err := m.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	fault.Stall()
	start := time.Now()
	short, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	err := m.Publish(short, []mr.Message{message("x", "a", "1")})[0]
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, mr.ErrUnavailable) || time.Since(start) > 250*time.Millisecond {
		t.Errorf("publish with a deadline: %v after %s", err, time.Since(start))
	}
	err = m.Publish(t.Context(), []mr.Message{message("x", "a", "2")})[0]
	if err == nil || errors.Is(err, mr.ErrUnavailable) || !strings.Contains(err.Error(), "no answer within 300ms") {
		t.Errorf("publish: %v", err)
	}
	// The silent server was given up: there is no connection until another attempt succeeds.
	eventually(t, "nothing is accepted", func() bool {
		return errors.Is(m.Publish(t.Context(), []mr.Message{message("x", "a", "3")})[0], mr.ErrUnavailable)
	})
	if err := m.Ping(t.Context()); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("ping: %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("all that took %s", took)
	}
	fault.Heal()
	eventually(t, "the connection is back", func() bool { return m.Ping(t.Context()) == nil })
}

// TestSilentPing is TestStall for calls that change nothing.
func TestSilentPing(t *testing.T) {
	fault := testenv.NewFault(t, strings.TrimPrefix(testenv.NATS(t).URL, "nats://"))
	m := messaging(opened(t, Config{Servers: []string{fault.Addr}, Timeout: 200 * time.Millisecond}))
	fault.Stall()
	if err := m.Ping(t.Context()); !errors.Is(err, mr.ErrUnavailable) || !strings.Contains(err.Error(), "no answer within 200ms") {
		t.Errorf("ping: %v", err)
	}
	fault.Heal()
}

// TestCluster has publisher and subscriber on different nodes of three, and stops the nodes one after the other.
func TestCluster(t *testing.T) {
	t.Parallel()
	cluster := testenv.NATSCluster(t)
	ns := testenv.Prefix(t)
	rotated := func(n int) []string { return append(append([]string{}, cluster.URLs[n:]...), cluster.URLs[:n]...) }
	publisher := messaging(opening(t, cluster.URLs[1]))
	subscriber := NewMessaging(opening(t, cluster.URLs[0]), MessagingConfig{Buffer: 1 << 20})
	in := inboxOf(t, publisher)
	nobody := message(ns, "nobody", "x")
	nobody.AckTo = in.Address("nobody")
	if err := errors.Join(publisher.Publish(within(t), []mr.Message{nobody})...); err != nil {
		t.Fatal(err)
	}
	if r := receipt(t, in); r.Token != "nobody" || !errors.Is(r.Err, mr.ErrNoSubscriber) {
		t.Errorf("%+v", r)
	}
	sub := subscribe(t, subscriber, mr.Topic(ns, "a"))
	token := 0
	// delivered publishes until an ack comes back.
	delivered := func() {
		t.Helper()
		eventually(t, "a message is delivered and acked", func() bool {
			token++
			sent := message(ns, "a", fmt.Sprint(token))
			sent.AckTo = in.Address(fmt.Sprint(token))
			if m := publisher.Publish(within(t), []mr.Message{sent}); m[0] != nil {
				return false
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			batch, err := sub.Next(ctx)
			if err != nil {
				return false
			}
			for _, got := range batch.Messages {
				if err := errors.Join(subscriber.Ack(within(t), []mr.Ack{{To: got.AckTo}})...); err != nil {
					return false
				}
			}
			got, _ := in.Next(ctx)
			for _, r := range got {
				if r.Token == fmt.Sprint(token) && r.Err == nil {
					return true
				}
			}
			return false
		})
	}
	delivered()
	cluster.Nodes[0].Stop() // the subscriber's
	delivered()
	cluster.Nodes[0].Start()
	cluster.Nodes[1].Stop() // the publisher's
	delivered()
	cluster.Nodes[1].Start()
	if c := opening(t, rotated(2)...); c.Ping(within(t)) != nil {
		t.Error("a list of servers does not do")
	}
}
