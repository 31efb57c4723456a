package acceptance

import (
	"context"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/testenv"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

// pair are two proxies over the same backends; where those are in memory, two clients of one proxy.
func (c combination) pair(t testing.TB) [2]*proxy {
	t.Helper()
	p := c.serve(t)
	if c.messaging() == "memory" {
		return [2]*proxy{p, dial(t, p.at, p.namespace)}
	}
	return [2]*proxy{p, c.serveAs(t, p.namespace, c.slots(t))}
}

// wire is the way of one client to its server. It can be cut.
type wire struct {
	mu    sync.Mutex
	conns []net.Conn
}

func (w *wire) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.conns = append(w.conns, conn)
	}
	return conn, err
}

// cut ends what is connected with a TCP reset: what was on its way is lost. The client connects again.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, conn := range w.conns {
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
	w.conns = nil
}

// option has a client use the wire.
func (w *wire) option() client.Option { return client.WithGRPC(grpc.WithContextDialer(w.dial)) }

// wired returns another client of the same proxy, and the wire between them.
func (p *proxy) wired(t testing.TB) (*proxy, *wire) {
	t.Helper()
	w := new(wire)
	connection, err := client.Dial(p.at, client.WithNamespace(p.namespace), w.option())
	must(t, err)
	t.Cleanup(func() { check(t, connection.Close()) })
	return &proxy{Client: connection, namespace: p.namespace, at: p.at, durable: p.durable}, w
}

// joined makes a program out of identities, with any handler, until the test ends.
func (p *proxy) joined(t testing.TB, handle client.Handler, ids ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var all []client.Registration
	for _, id := range ids {
		all = append(all, client.Registration{ID: id})
	}
	joined := make(chan struct{}, 100)
	var running sync.WaitGroup
	running.Go(func() {
		_ = p.JoinAll(ctx, all, handle, client.WithoutUnregister(), client.OnJoined(func() { joined <- struct{}{} }))
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	select {
	case <-joined:
	case <-time.After(20 * time.Second):
		t.Fatal("it does not join")
	}
}

// TestReplies gathers the answers of those who got a message, and counts them by code.
func TestReplies(t *testing.T) {
	onEach(t, func(t *testing.T, p *proxy) {
		p.joined(t, func(_ context.Context, m client.Message) error {
			if m.Identity == name(0) {
				return nil // a plain ack
			}
			return m.Reply(uint32(len(m.Identity)+int(m.Identity[len(m.Identity)-1]-'0')%2), []byte("from "+m.Identity))
		}, names(6)...)
		settled := make(map[string]client.Reply)
		result := p.multicast(t, client.MulticastRequest{Settled: func(targets []client.Target) {
			for _, target := range targets {
				settled[target.Identity] = target.Reply
			}
		}})
		checkAllAcked(t, result, names(6))
		if want := map[uint32]int{0: 1, 7: 2, 8: 3}; !maps.Equal(result.Replies, want) {
			t.Errorf("the replies: %v, want %v", result.Replies, want)
		}
		for i, target := range result.Targets {
			want := "from " + target.Identity
			if i == 0 {
				want = ""
			}
			if string(target.Reply.Body) != want || string(settled[target.Identity].Body) != want {
				t.Errorf("%s replies %q, as it comes %q", target.Identity, target.Reply.Body, settled[target.Identity].Body)
			}
		}
		if p.durable {
			record, err := p.GetMulticast(t.Context(), result.ID)
			must(t, err)
			if !maps.Equal(record.Result.Replies, result.Replies) || string(record.Result.Targets[1].Reply.Body) != "from "+name(1) {
				t.Errorf("kept are %+v", record.Result)
			}
		}
	})
}

// TestIdempotencyKey repeats a request through another proxy: it gets the first one's result, and nobody a second copy.
func TestIdempotencyKey(t *testing.T) {
	onSetUps(t, isDurable, func(t *testing.T, c combination) {
		p := c.pair(t)
		p[0].register(t, 3, nil)
		a := p[0].attach(t, names(2)...)
		request := client.MulticastRequest{Payload: []byte("once"), IdempotencyKey: "order 7 / \u00e9"}
		first := p[0].multicast(t, request)
		if first.Delivered != 2 || first.Pending != 1 || first.Replayed {
			t.Fatalf("%+v", first)
		}
		for _, again := range p {
			second := again.multicast(t, request)
			if second.ID != first.ID || !second.Replayed || second.Delivered != 2 || second.Pending != 1 || len(second.Targets) != 3 {
				t.Errorf("again: %+v", second)
			}
			other := request
			other.Payload = []byte("twice")
			_, err := again.Multicast(t.Context(), other)
			wantError(t, err, client.ErrInvalid)
		}
		var together sync.WaitGroup
		ids := make([]string, 8)
		request.IdempotencyKey = "all at once"
		for i := range ids {
			together.Go(func() {
				result, err := p[i%2].Multicast(t.Context(), request)
				check(t, err)
				if err == nil {
					ids[i] = result.ID
				}
			})
		}
		together.Wait()
		if len(slices.Compact(slices.Sorted(slices.Values(ids)))) != 1 {
			t.Errorf("one key, and the ids %v", ids)
		}
		a.checkReceived(t, first.ID, names(2))
		a.checkReceived(t, ids[0], names(2))
		b := p[1].attach(t, name(2))
		eventually(t, "what was stored arrives", func() bool { return b.total() >= 2 })
		checkAllAcked(t, p[0].multicast(t, client.MulticastRequest{}), names(3))
		if a.total() != 6 || b.total() != 3 {
			t.Errorf("%d and %d messages arrived, want 6 and 3", a.total(), b.total())
		}
	})
}

// TestNothingKept refuses what needs a durability slot.
func TestNothingKept(t *testing.T) {
	onThose(t, func(c combination) bool { return !c.durable }, func(t *testing.T, p *proxy) {
		p.register(t, 1, nil)
		a := p.attach(t, name(0))
		_, err := p.Multicast(t.Context(), client.MulticastRequest{IdempotencyKey: "k"})
		wantError(t, err, client.ErrUnsupported)
		_, err = p.GetMulticast(t.Context(), "any")
		wantError(t, err, client.ErrUnsupported)
		_, _, err = p.CancelMulticast(t.Context(), "any")
		wantError(t, err, client.ErrUnsupported)
		checkAllAcked(t, p.multicast(t, client.MulticastRequest{}), names(1))
		if a.total() != 1 {
			t.Errorf("%d messages arrived", a.total())
		}
	})
}

// TestExactlyOnceAcksLost loses acks: they come too late for the first attempts, or their connection is cut. The handler is
// called once all the same.
func TestExactlyOnceAcksLost(t *testing.T) {
	onEach(t, func(t *testing.T, p *proxy) {
		way := testenv.NewFault(t, p.at)
		slow, w := (&proxy{at: way.Addr, namespace: p.namespace}).wired(t)
		l := &ledger{times: make(map[client.MessageName]int)}
		slow.joined(t, func(ctx context.Context, m client.Message) error {
			_ = l.handle(ctx, m)
			switch string(m.Payload) {
			case "late":
				way.Stall()
				time.AfterFunc(1500*time.Millisecond, way.Heal)
			case "cut":
				w.cut()
			}
			return nil
		}, name(0))
		request := client.MulticastRequest{Delivery: client.ExactlyOnce, Timeout: 20 * time.Second, RetryAttempts: 20}
		request.Payload = []byte("late")
		late := p.multicast(t, request)
		checkOutcome(t, *late, "DELIVERED ACKED")
		if late.Targets[0].Attempts < 2 {
			t.Errorf("%d attempts", late.Targets[0].Attempts)
		}
		var sent []string
		request.Payload = []byte("cut")
		for range 5 {
			eventually(t, "it is attached again", func() bool {
				return p.multicast(t, client.MulticastRequest{Payload: []byte("there?")}).Delivered == 1
			})
			result := p.multicast(t, request)
			sent = append(sent, result.ID)
			if got := told(result.Targets[0]); !p.durable && got != "TIMEOUT GONE" && got != "DELIVERED ACKED" {
				t.Errorf("when the connection is cut: %s", got)
			}
		}
		if p.durable {
			for _, id := range sent {
				eventually(t, "what was cut off is acknowledged later", func() bool {
					record, err := p.GetMulticast(t.Context(), id)
					must(t, err)
					return record.Result.Delivered == 1
				})
			}
		}
		l.checkOnce(t)
		for _, id := range append(sent, late.ID) {
			if l.times[client.MessageName{Identity: name(0), ID: id}] != 1 {
				t.Errorf("message %s was not handled", id)
			}
		}
	})
}

// TestStoredBeforeLive attaches in the midst of a sender's messages: what was stored comes before what is sent afterwards,
// all of it, in order.
func TestStoredBeforeLive(t *testing.T) {
	onSetUps(t, isDurable, func(t *testing.T, c combination) {
		p := c.pair(t)
		p[0].register(t, 1, nil)
		const before, n = 30, 60
		send := func(i int) {
			_, err := p[0].Multicast(t.Context(), client.MulticastRequest{Payload: []byte(strconv.Itoa(i))})
			check(t, err)
		}
		for i := range before {
			send(i)
		}
		var sending sync.WaitGroup
		sending.Go(func() {
			for i := before; i < n; i++ {
				send(i)
			}
		})
		defer sending.Wait()
		stream := p[1].silent(t, name(0))
		var got []int
		for len(got) < n {
			limited, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			event, err := stream.Next(limited)
			cancel()
			if err != nil {
				t.Fatalf("after %v: %v", got, err)
			}
			for _, m := range event.Messages {
				i, err := strconv.Atoi(string(m.Payload))
				must(t, err)
				must(t, stream.Ack(m.Name()))
				if !slices.Contains(got, i) {
					got = append(got, i)
				}
			}
		}
		if !slices.IsSorted(got) {
			t.Errorf("they arrive as %v", got)
		}
	})
}

// TestExpiredAndBack stores for an identity whose lease ends: what waits is delivered when it returns.
func TestExpiredAndBack(t *testing.T) {
	onThose(t, isDurable, func(t *testing.T, p *proxy) {
		_, err := p.Register(t.Context(), client.Registration{ID: name(0), TTL: time.Second})
		must(t, err)
		result := p.multicast(t, client.MulticastRequest{})
		checkOutcome(t, *result, "PENDING STORED NO_SUBSCRIBER")
		eventually(t, "the lease ends", func() bool { return len(p.find(t, `{}`)) == 0 })
		checkKept(t, p, result.ID, "PENDING STORED NO_SUBSCRIBER")
		p.register(t, 1, nil)
		a := p.attach(t, name(0))
		a.checkReceived(t, result.ID, names(1))
		eventually(t, "it counts as delivered", func() bool {
			record, err := p.GetMulticast(t.Context(), result.ID)
			must(t, err)
			return record.Result.Delivered == 1
		})
	})
}

// TestRetryAfterOutage cuts a sender off from the messaging backend for a while: the message arrives with a later attempt.
func TestRetryAfterOutage(t *testing.T) {
	onSetUps(t, func(c combination) bool { return c.messaging() != "memory" }, func(t *testing.T, c combination) {
		receiver := c.serve(t)
		slots, cut := c.behind(t, "messaging")
		sender := c.serveAs(t, receiver.namespace, slots)
		receiver.register(t, 5, nil)
		a := receiver.attach(t, names(5)...)
		checkAllAcked(t, sender.multicast(t, client.MulticastRequest{}), names(5))
		cut.each((*testenv.Fault).Cut)
		heal := time.AfterFunc(time.Second, func() { cut.each((*testenv.Fault).Heal) })
		defer heal.Stop()
		result := sender.multicast(t, client.MulticastRequest{
			Timeout: 30 * time.Second, RetryAttempts: 20, RetryDelay: 100 * time.Millisecond,
		})
		if result.Delivered != 5 || result.Ended != client.Complete {
			t.Errorf("%+v", result)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		// An attempt may arrive before the way back for its ack is there again: then the next one is a second copy.
		if got := slices.Compact(slices.Sorted(slices.Values(a.received[result.ID]))); !slices.Equal(got, names(5)) {
			t.Errorf("received for %v", got)
		}
	})
}

// TestGuards refuses a multicast to more than the caller meant, before anything is sent, and asks only who is meant.
func TestGuards(t *testing.T) {
	onEach(t, func(t *testing.T, p *proxy) {
		p.register(t, 4, nil)
		a := p.attach(t, names(4)...)
		_, err := p.Multicast(t.Context(), client.MulticastRequest{MaxTargets: 3})
		wantError(t, err, client.ErrQuota)
		dry := p.multicastDry(t)
		if dry.Ended != client.DryRun || dry.TargetCount != 4 || len(dry.Targets) != 4 || dry.ID != "" || dry.Delivered != 0 {
			t.Errorf("the dry run: %+v", dry)
		}
		for i, target := range dry.Targets {
			if target.Identity != name(i) || target.Status != 0 {
				t.Errorf("the dry run names %+v", target)
			}
		}
		checkAllAcked(t, p.multicast(t, client.MulticastRequest{MaxTargets: 4}), names(4))
		if a.total() != 4 {
			t.Errorf("%d messages arrived", a.total())
		}
	})
}

func (p *proxy) multicastDry(t testing.TB) *client.Result {
	t.Helper()
	result, err := p.Multicast(t.Context(), client.MulticastRequest{DryRun: true, MaxTargets: 4})
	must(t, err)
	return result
}

// TestPendingElsewhere has a message acknowledged through another proxy than its sender's: every proxy knows.
func TestPendingElsewhere(t *testing.T) {
	onSetUps(t, isDurable, func(t *testing.T, c combination) {
		p := c.pair(t)
		p[0].register(t, 2, nil)
		result := p[0].multicast(t, client.MulticastRequest{Payload: []byte("later")})
		if result.Pending != 2 {
			t.Fatalf("%+v", result)
		}
		p[1].joined(t, func(_ context.Context, m client.Message) error { return m.Reply(3, []byte("late, but here")) }, name(1))
		for _, asked := range p {
			eventually(t, "it counts as delivered", func() bool {
				record, err := asked.GetMulticast(t.Context(), result.ID)
				must(t, err)
				return record.Result.Delivered == 1 && record.Result.Pending == 1 &&
					told(record.Result.Targets[1]) == "DELIVERED ACKED" && record.Result.Targets[1].Reply.Code == 3
			})
			page, err := asked.ListMulticasts(t.Context(), client.MulticastQuery{})
			must(t, err)
			if len(page.Multicasts) != 1 || page.Multicasts[0].Result.ID != result.ID || page.Multicasts[0].Result.Delivered != 1 {
				t.Errorf("listed are %+v", page.Multicasts)
			}
		}
	})
}

// TestEarlyFinish has a dead target in a hundred: that costs nothing like the timeout.
func TestEarlyFinish(t *testing.T) {
	onEach(t, func(t *testing.T, p *proxy) {
		const dead = 10
		n := slottest.Rounds(1000)
		p.register(t, n, nil)
		p.attach(t, names(n)[dead:]...)
		const timeout = 60 * time.Second
		result := p.multicast(t, client.MulticastRequest{Timeout: timeout})
		if result.Delivered != n-dead || result.Failed+result.Pending != dead || result.Ended != client.Complete {
			t.Errorf("delivered %d, failed %d, pending %d, ended %d", result.Delivered, result.Failed, result.Pending, result.Ended)
		}
		if result.Elapsed > timeout/4 {
			t.Errorf("it took %v", result.Elapsed)
		}
	})
}
