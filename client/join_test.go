package client_test

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
	"time"

	"github.com/prism-data-layer/prism/client"
)

// member is a Join under way, with what its hooks and its handler saw.
type member struct {
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error
	joined chan struct{}
	left   chan error
	lost   chan []string

	mu       sync.Mutex
	messages []client.Message
	answer   func(client.Message) error
}

func newMember(t *testing.T) (m *member, ctx context.Context, options []client.JoinOption) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	m = &member{
		t: t, cancel: cancel, ended: make(chan error, 1),
		joined: make(chan struct{}, 100), left: make(chan error, 100), lost: make(chan []string, 100),
	}
	t.Cleanup(func() { m.end() })
	return m, ctx, []client.JoinOption{
		client.OnJoined(func() { m.joined <- struct{}{} }),
		client.OnLeft(func(err error) { m.left <- err }),
		client.OnLeasesLost(func(ids []string) { m.lost <- ids }),
	}
}

func join(t *testing.T, c *client.Client, r client.Registration, opts ...client.JoinOption) *member {
	t.Helper()
	m, ctx, hooks := newMember(t)
	go func() { m.ended <- c.Join(ctx, r, m.handle, append(hooks, opts...)...) }()
	return m
}

func (m *member) handle(_ context.Context, message client.Message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.messages = append(m.messages, message)
	if m.answer != nil {
		return m.answer(message)
	}
	return nil
}

func (m *member) payloads() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]string, len(m.messages))
	for i, message := range m.messages {
		all[i] = string(message.Payload)
	}
	return all
}

// end ends the context and returns what Join returned.
func (m *member) end() error {
	m.cancel()
	return m.wait()
}

func (m *member) wait() error {
	m.t.Helper()
	select {
	case err := <-m.ended:
		m.ended <- err // for the next call
		return err
	case <-time.After(patience):
		m.t.Fatal("Join did not return")
		return nil
	}
}

func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain: %s", what)
		panic("unreachable")
	}
}

// reach multicasts to everyone and tells how many acked.
func reach(t *testing.T, c *client.Client, payload string) int {
	t.Helper()
	r, err := c.Multicast(withPatience(t), client.MulticastRequest{Payload: []byte(payload), Delivery: client.AtLeastOnce})
	if err != nil {
		t.Fatal(err)
	}
	return r.Delivered
}

func count(t *testing.T, c *client.Client) int {
	t.Helper()
	page, err := c.Enumerate(withPatience(t), client.Query{})
	if err != nil {
		t.Fatal(err)
	}
	return page.Total
}

func TestJoin(t *testing.T) {
	c := newClient(t)
	registerAll(t, c, "dev-1") // somebody else's registration is replaced
	m := join(t, c, client.Registration{ID: "dev-1", Metadata: map[string]any{"room": "lab"}, TTL: time.Minute})
	await(t, "joined", m.joined)
	for i := range 50 {
		if n := reach(t, c, strconv.Itoa(i)); n != 1 {
			t.Fatalf("message %d was acked by %d", i, n)
		}
	}
	for i, payload := range m.payloads() {
		if payload != strconv.Itoa(i) {
			t.Fatalf("message %d is %s: out of order", i, payload)
		}
	}
	page, err := c.Enumerate(withPatience(t), client.Query{Filter: map[string]any{"room": "lab"}})
	if err != nil || page.Total != 1 || page.Identities[0].TTL != time.Minute {
		t.Errorf("%+v, %v", page, err)
	}
	if err := m.end(); !errors.Is(err, context.Canceled) {
		t.Errorf("Join returned %v, want context.Canceled", err)
	}
	if n := count(t, c); n != 0 {
		t.Errorf("%d identities are left", n)
	}
	if len(m.left) != 0 {
		t.Errorf("OnLeft was called with %v", <-m.left)
	}
}

// The one that leaves takes nothing from the one that has come in its place.
func TestJoinLeavesTheSuccessorAlone(t *testing.T) {
	c := newClient(t)
	first := join(t, c, client.Registration{ID: "dev-1", Metadata: map[string]any{"instance": 1}})
	await(t, "joined", first.joined)
	second := join(t, c, client.Registration{ID: "dev-1", Metadata: map[string]any{"instance": 2}})
	await(t, "joined", second.joined)
	first.end()
	if n := reach(t, c, "still there?"); n != 1 {
		t.Errorf("the successor was reached %d times", n)
	}
	page, err := c.Enumerate(withPatience(t), client.Query{Filter: map[string]any{"instance": 2}})
	if err != nil || page.Total != 1 {
		t.Errorf("%+v, %v", page, err)
	}
	second.end()
	if n := count(t, c); n != 0 {
		t.Errorf("%d identities are left", n)
	}
}

// One that never got to register has nothing to unregister.
func TestJoinRefusedLeavesOthersAlone(t *testing.T) {
	c := newClient(t)
	registerAll(t, c, "dev-1")
	m := join(t, c, client.Registration{ID: "dev-1", Metadata: map[string]any{"large": strings.Repeat("x", 100<<10)}})
	if err := m.wait(); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("Join returned %v, want ErrInvalid", err)
	}
	if n := count(t, c); n != 1 {
		t.Errorf("%d identities are left, want 1", n)
	}
}

func TestJoinWithoutUnregister(t *testing.T) {
	c := newClient(t)
	m := join(t, c, client.Registration{ID: "dev-1"}, client.WithoutUnregister())
	await(t, "joined", m.joined)
	m.end()
	if n := count(t, c); n != 1 {
		t.Errorf("%d identities are left, want 1", n)
	}
}

// A server that dies without a word and comes back empty, at the same address.
func TestJoinSurvivesTheServersDeath(t *testing.T) {
	w := newWire(t, serve(t, "127.0.0.1:0").addr)
	c := dial(t, w.addr)
	m := join(t, c, client.Registration{ID: "dev-1"})
	await(t, "joined", m.joined)
	for range 3 {
		w.cut()
		if err := await(t, "the outage is noticed", m.left); !errors.Is(err, client.ErrUnavailable) {
			t.Errorf("OnLeft(%v), want ErrUnavailable", err)
		}
		w.join(serve(t, "127.0.0.1:0").addr)
		began := time.Now()
		await(t, "joined again", m.joined)
		t.Logf("joined again %s after the server was back", time.Since(began).Round(time.Millisecond))
		if n := reach(t, c, "hello again"); n != 1 {
			t.Errorf("reached %d, want 1", n)
		}
	}
	if len(m.left) != 0 {
		t.Errorf("OnLeft was called more than once for an outage: %v", <-m.left)
	}
}

func TestJoinSurvivesADrain(t *testing.T) {
	first := serve(t, "127.0.0.1:0")
	c := dial(t, first.addr)
	m := join(t, c, client.Registration{ID: "dev-1"})
	await(t, "joined", m.joined)
	first.stop()
	if err := await(t, "the drain is noticed", m.left); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("OnLeft(%v), want ErrUnavailable", err)
	}
	serve(t, first.addr)
	await(t, "joined again", m.joined)
	if n := reach(t, c, "x"); n != 1 {
		t.Errorf("reached %d, want 1", n)
	}
}

// The connection is away for longer than the lease: the identity expires, and is there again afterwards.
func TestJoinSurvivesTheLeasesEnd(t *testing.T) {
	s := serve(t, "127.0.0.1:0")
	w, direct := newWire(t, s.addr), dial(t, s.addr)
	m := join(t, dial(t, w.addr), client.Registration{ID: "dev-1", TTL: 200 * time.Millisecond})
	await(t, "joined", m.joined)
	w.cut()
	eventually(t, "the lease ends", func() bool { return count(t, direct) == 0 })
	w.join(s.addr)
	await(t, "joined again", m.joined)
	if n := reach(t, direct, "x"); n != 1 {
		t.Errorf("reached %d, want 1", n)
	}
}

// Somebody removes the registration while the stream lives.
func TestJoinRegistersAgain(t *testing.T) {
	c := newClient(t)
	m, ctx, hooks := newMember(t)
	all := []client.Registration{{ID: "dev-1", TTL: 150 * time.Millisecond}, {ID: "dev-2", TTL: time.Hour}}
	go func() { m.ended <- c.JoinAll(ctx, all, m.handle, hooks...) }()
	await(t, "joined", m.joined)
	for range 2 {
		if existed, err := c.Unregister(withPatience(t), "dev-1"); err != nil || !existed {
			t.Fatal(existed, err)
		}
		if lost := await(t, "the loss is noticed", m.lost); !slices.Equal(lost, []string{"dev-1"}) {
			t.Errorf("OnLeasesLost(%v)", lost)
		}
		eventually(t, "dev-1 is registered again", func() bool { return count(t, c) == 2 })
	}
	after := time.NewTimer(400 * time.Millisecond) // the new lease is kept too
	<-after.C
	if n := reach(t, c, "x"); n != 2 {
		t.Errorf("reached %d, want 2", n)
	}
	if len(m.left) != 0 {
		t.Errorf("OnLeft was called: %v", <-m.left)
	}
}

func TestJoinBeforeTheServer(t *testing.T) {
	s := serve(t, "127.0.0.1:0")
	s.stop()
	c := dial(t, s.addr)
	m := join(t, c, client.Registration{ID: "dev-1"})
	if err := await(t, "OnLeft", m.left); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("OnLeft(%v)", err)
	}
	serve(t, s.addr)
	await(t, "joined", m.joined)
	if len(m.left) != 0 {
		t.Errorf("OnLeft was called more than once for an outage: %v", <-m.left)
	}
}

func TestJoinEndsDuringAnOutage(t *testing.T) {
	s := serve(t, "127.0.0.1:0")
	m := join(t, dial(t, s.addr), client.Registration{ID: "dev-1"})
	await(t, "joined", m.joined)
	s.stop()
	await(t, "left", m.left)
	began := time.Now()
	if err := m.end(); !errors.Is(err, context.Canceled) {
		t.Errorf("Join returned %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s to give up", took)
	}
}

func TestJoinGivesUpWhereNothingHelps(t *testing.T) {
	c := newClient(t)
	for _, row := range []struct {
		namespace string
		r         client.Registration
		want      error
	}{
		{"nowhere", client.Registration{ID: "a"}, client.ErrNotFound},
		{"default", client.Registration{ID: "a", TTL: -5}, client.ErrInvalid}, // known to the server only
		{"default", client.Registration{ID: "a", Metadata: map[string]any{"x": uint64(1<<64 - 1)}}, client.ErrInvalid},
	} {
		m := join(t, c.In(row.namespace), row.r)
		if err := m.wait(); !errors.Is(err, row.want) {
			t.Errorf("Join(%+v) in %s returned %v, want %v", row.r, row.namespace, err, row.want)
		}
	}
}

func TestHandlerErrorMeansNoAck(t *testing.T) {
	c := newClient(t)
	m := join(t, c, client.Registration{ID: "dev-1"})
	m.mu.Lock()
	m.answer = func(message client.Message) error {
		if strings.HasPrefix(string(message.Payload), "bad") {
			return errors.New("no")
		}
		return nil
	}
	m.mu.Unlock()
	await(t, "joined", m.joined)
	r, err := c.Multicast(withPatience(t), client.MulticastRequest{Payload: []byte("bad"), Timeout: 50 * time.Millisecond})
	if err != nil || r.TimedOut != 1 || r.Targets[0].Reason != client.NoAck {
		t.Errorf("%+v, %v; want a timeout", r, err)
	}
	if n := reach(t, c, "good"); n != 1 {
		t.Errorf("the message after it reached %d", n)
	}
}

// The context ends while a handler runs: what it handled without an error is still acknowledged.
func TestJoinEndsWhileHandling(t *testing.T) {
	c := newClient(t)
	ctx, cancel := context.WithCancel(context.Background())
	handling, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- c.Join(ctx, client.Registration{ID: "dev-1"}, func(ctx context.Context, _ client.Message) error {
			close(handling)
			<-ctx.Done()
			return nil
		})
	}()
	eventually(t, "registered", func() bool { return count(t, c) == 1 })
	var sender sync.WaitGroup
	sender.Go(func() {
		r, err := c.Multicast(withPatience(t), client.MulticastRequest{Timeout: patience})
		if err != nil || r.Delivered != 1 {
			t.Errorf("%+v, %v; want one delivered", r, err)
		}
	})
	await(t, "the handler runs", handling)
	cancel()
	if err := await(t, "Join returns", ended); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	sender.Wait()
}

func TestConcurrency(t *testing.T) {
	c := newClient(t)
	const workers = 3
	var running, most atomic.Int32
	release := make(chan struct{})
	m, ctx, hooks := newMember(t)
	handle := func(context.Context, client.Message) error {
		n := running.Add(1)
		defer running.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		<-release
		return nil
	}
	go func() {
		m.ended <- c.Join(ctx, client.Registration{ID: "dev-1"}, handle, append(hooks, client.WithConcurrency(workers))...)
	}()
	await(t, "joined", m.joined)
	for range 10 {
		send(t, c, "x")
	}
	eventually(t, "all workers are busy", func() bool { return running.Load() == workers })
	close(release)
	if n := reach(t, c, "last"); n != 1 || most.Load() != workers {
		t.Errorf("%d reached, up to %d at once; want 1 and %d", n, most.Load(), workers)
	}
}

// A handler that does not keep up costs its own messages only, and is told how many.
func TestDroppedIsReported(t *testing.T) {
	c := newClient(t)
	release, handled := make(chan struct{}), atomic.Int64{}
	var dropped atomic.Int64
	m, ctx, hooks := newMember(t)
	handle := func(context.Context, client.Message) error {
		<-release
		handled.Add(1)
		return nil
	}
	go func() {
		m.ended <- c.Join(ctx, client.Registration{ID: "dev-1"}, handle,
			append(hooks, client.OnDropped(func(n uint64) { dropped.Add(int64(n)) }))...)
	}()
	await(t, "joined", m.joined)
	payload, sent := strings.Repeat("x", 100_000), int64(0)
	for ctx := withPatience(t); sent < 5000; {
		r, err := c.Multicast(ctx, client.MulticastRequest{Payload: []byte(payload), Delivery: client.AtMostOnce, RetryAttempts: 1})
		if err != nil {
			t.Fatal(err)
		}
		sent++
		if r.Failed == 1 {
			break
		}
	}
	close(release)
	eventually(t, "every message is accounted for", func() bool { return handled.Load()+dropped.Load() == sent })
	t.Logf("%d sent, %d handled, %d dropped", sent, handled.Load(), dropped.Load())
}

func TestReceiveNeitherRegistersNorUnregisters(t *testing.T) {
	c := newClient(t)
	registerAll(t, c, "a")
	m, ctx, hooks := newMember(t)
	go func() {
		m.ended <- c.Receive(ctx, []string{"a", "b"}, m.handle, append(hooks, client.WithKeepAlive())...)
	}()
	await(t, "joined", m.joined)
	if lost := await(t, "the loss is noticed", m.lost); !slices.Equal(lost, []string{"b"}) {
		t.Errorf("OnLeasesLost(%v)", lost)
	}
	if n := reach(t, c, "x"); n != 1 {
		t.Errorf("reached %d, want 1", n)
	}
	m.end()
	if n := count(t, c); n != 1 {
		t.Errorf("%d identities are left, want 1", n)
	}
}

func TestJoinAll(t *testing.T) {
	c := newClient(t)
	m, ctx, hooks := newMember(t)
	all := make([]client.Registration, 300)
	for i := range all {
		all[i] = client.Registration{ID: fmt.Sprintf("dev-%03d", i), Metadata: map[string]any{"n": i}}
	}
	go func() { m.ended <- c.JoinAll(ctx, all, m.handle, append(hooks, client.WithConcurrency(4))...) }()
	await(t, "joined", m.joined)
	if n := reach(t, c, "x"); n != len(all) {
		t.Errorf("reached %d of %d", n, len(all))
	}
	m.end()
	if n := count(t, c); n != 0 {
		t.Errorf("%d identities are left", n)
	}
}
