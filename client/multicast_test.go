package client_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
)

// receiver acks everything that arrives for identities, until the test ends.
func receiver(t *testing.T, c *client.Client, ids ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	joined, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		ended <- c.Receive(ctx, ids, func(context.Context, client.Message) error { return nil },
			client.OnJoined(func() { joined <- struct{}{} }))
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	select {
	case <-joined:
	case <-time.After(patience):
		t.Fatal("not attached in time")
	}
}

func TestMulticast(t *testing.T) {
	c, ctx := newClient(t), withPatience(t)
	for _, id := range []string{"a", "b", "c"} {
		if _, err := c.Register(ctx, client.Registration{ID: id, Metadata: map[string]any{"room": "lab"}}); err != nil {
			t.Fatal(err)
		}
	}
	receiver(t, c, "a", "c")
	for _, row := range []struct {
		report client.Report
		want   []string
	}{
		{client.ReportAll, []string{"a", "b", "c"}},
		{client.ReportUndelivered, []string{"b"}},
		{client.ReportCounts, nil},
	} {
		r, err := c.Multicast(ctx, client.MulticastRequest{
			Filter: map[string]any{"room": "lab"}, Payload: []byte("hi"), ContentType: "text/plain",
			Delivery: client.AtLeastOnce, Timeout: 10 * time.Second, Report: row.report,
		})
		if err != nil {
			t.Fatal(err)
		}
		if r.TargetCount != 3 || r.Delivered != 2 || r.Failed != 1 || r.Pending != 0 || r.TimedOut != 0 ||
			r.Ended != client.Complete || r.ID == "" || r.Elapsed <= 0 || r.Revision == 0 || len(r.Targets) != len(row.want) {
			t.Errorf("report %d: %+v", row.report, r)
			continue
		}
		for i, target := range r.Targets {
			if target.Identity != row.want[i] || target.Attempts != 1 {
				t.Errorf("report %d: target %+v, want %s", row.report, target, row.want[i])
			}
			if target.Identity == "b" {
				if target.Status != client.Failed || target.Reason != client.NoSubscriber || !errors.Is(target.Err, client.ErrNoSubscriber) {
					t.Errorf("b is %+v", target)
				}
			} else if target.Status != client.Delivered || target.Evidence != client.Acked || target.Err != nil || target.Latency <= 0 {
				t.Errorf("%s is %+v", target.Identity, target)
			}
		}
	}
	r, err := c.Multicast(ctx, client.MulticastRequest{Delivery: client.AtMostOnce})
	if err != nil || r.TargetCount != 3 || r.Targets[0].Evidence != client.Accepted {
		t.Errorf("at most once: %+v, %v", r, err)
	}
}

// answering is a member that answers with the last digit of its name, and with its name.
func answering(t *testing.T, c *client.Client, ids ...string) *member {
	t.Helper()
	m, ctx, hooks := newMember(t)
	m.answer = func(message client.Message) error {
		return message.Reply(uint32(message.Identity[len(message.Identity)-1]-'0'), []byte("I am "+message.Identity))
	}
	all := make([]client.Registration, len(ids))
	for i, id := range ids {
		all[i] = client.Registration{ID: id}
	}
	go func() { m.ended <- c.JoinAll(ctx, all, m.handle, hooks...) }()
	await(t, "joined", m.joined)
	return m
}

// Replies come with the outcomes, as they come, and are counted by code.
func TestReplies(t *testing.T) {
	c := newClient(t)
	answering(t, c, "dev-0", "dev-1", "dev-2", "pal-2")
	registerAll(t, c, "off-9")
	var began []any
	settled := make(map[string]client.Target)
	r, err := c.Multicast(withPatience(t), client.MulticastRequest{
		Payload: []byte("who?"), Report: client.ReportUndelivered,
		Began: func(id string, revision client.Revision, targets int) { began = append(began, id, revision, targets) },
		Settled: func(targets []client.Target) {
			if len(targets) != 1 || targets[0].Identity != "off-9" {
				t.Errorf("settled what is not reported: %+v", targets)
			}
		},
	})
	if err != nil || !maps.Equal(r.Replies, map[uint32]int{0: 1, 1: 1, 2: 2}) || len(r.Targets) != 1 || r.Delivered != 4 {
		t.Fatalf("%+v, %v", r, err)
	}
	if want := []any{r.ID, r.Revision, 5}; !reflect.DeepEqual(began, want) {
		t.Errorf("Began(%v), want %v", began, want)
	}
	r, err = c.Multicast(withPatience(t), client.MulticastRequest{Settled: func(targets []client.Target) {
		for _, target := range targets {
			if _, again := settled[target.Identity]; again {
				t.Errorf("%s is settled twice", target.Identity)
			}
			settled[target.Identity] = target
		}
	}})
	if err != nil || len(r.Targets) != 5 || len(settled) != 5 {
		t.Fatalf("%+v, %v; %d settled", r, err, len(settled))
	}
	for i, target := range r.Targets {
		if i > 0 && r.Targets[i-1].Identity >= target.Identity {
			t.Errorf("%s comes before %s", r.Targets[i-1].Identity, target.Identity)
		}
		if as := settled[target.Identity]; fmt.Sprintf("%+v", as) != fmt.Sprintf("%+v", target) {
			t.Errorf("settled as %+v, and the result has %+v", as, target)
		}
		want := client.Reply{}
		if target.Identity != "off-9" {
			want = client.Reply{Code: uint32(target.Identity[4] - '0'), Body: []byte("I am " + target.Identity)}
		}
		if !reflect.DeepEqual(target.Reply, want) {
			t.Errorf("%s replied %+v", target.Identity, target.Reply)
		}
	}
}

// A handler that replies and then fails has sent neither ack nor reply; one that replies too much is told.
func TestRepliesOfHandlersThatFail(t *testing.T) {
	c := newClient(t)
	m := join(t, c, client.Registration{ID: "dev-1"})
	await(t, "joined", m.joined)
	var refused error
	m.mu.Lock()
	m.answer = func(message client.Message) error {
		if string(message.Payload) == "long" {
			refused = message.Reply(1, make([]byte, client.MaxReplyBytes+1))
			return nil
		}
		return errors.Join(message.Reply(5, []byte("almost")), errors.New("no"))
	}
	m.mu.Unlock()
	r, err := c.Multicast(withPatience(t), client.MulticastRequest{Timeout: 100 * time.Millisecond, RetryAttempts: 1})
	if err != nil || r.Delivered != 0 || r.Replies != nil || r.Targets[0].Reply.Code != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	r, err = c.Multicast(withPatience(t), client.MulticastRequest{Payload: []byte("long")})
	if err != nil || r.Delivered != 1 || r.Replies[0] != 1 || !isInvalid(refused, "reply_body") {
		t.Errorf("%+v, %v; Reply returned %v", r, err, refused)
	}
}

func TestDryRun(t *testing.T) {
	c := newClient(t)
	m := answering(t, c, "dev-2", "dev-1")
	r, err := c.Multicast(withPatience(t), client.MulticastRequest{
		DryRun: true, Settled: func([]client.Target) { t.Error("a dry run settles targets") },
	})
	if err != nil || r.Ended != client.DryRun || r.TargetCount != 2 || r.Delivered+r.Pending+r.Failed+r.TimedOut != 0 || r.Revision == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	for i, target := range r.Targets {
		if target.Identity != fmt.Sprintf("dev-%d", i+1) || target.Status != 0 || target.Err != nil || target.Attempts != 0 {
			t.Errorf("target %d is %+v", i, target)
		}
	}
	if n := reach(t, c, "real"); n != 2 || !slices.Equal(m.payloads(), []string{"real", "real"}) {
		t.Errorf("%d reached, received %q", n, m.payloads())
	}
}

func TestMaxTargets(t *testing.T) {
	c := newClient(t)
	m := answering(t, c, "dev-1", "dev-2")
	_, err := c.Multicast(withPatience(t), client.MulticastRequest{
		MaxTargets: 1, Began: func(string, client.Revision, int) { t.Error("it has begun") },
	})
	if !errors.Is(err, client.ErrQuota) || !strings.Contains(fmt.Sprint(err), "2 identities match") {
		t.Errorf("got %v, want ErrQuota", err)
	}
	r, err := c.Multicast(withPatience(t), client.MulticastRequest{MaxTargets: 2, Payload: []byte("x")})
	if err != nil || r.Delivered != 2 || !slices.Equal(m.payloads(), []string{"x", "x"}) {
		t.Errorf("%+v, %v, received %q", r, err, m.payloads())
	}
}

// The caller leaves in the midst of a multicast: what it knows is that it has begun.
func TestMulticastAbandoned(t *testing.T) {
	c := newClient(t)
	registerAll(t, c, "a")
	s := subscribe(t, c, "a")
	ctx, leave := context.WithCancel(withPatience(t))
	began := make(chan string, 1)
	ended := make(chan error, 1)
	go func() {
		_, err := c.Multicast(ctx, client.MulticastRequest{
			Timeout: patience, Began: func(id string, _ client.Revision, _ int) { began <- id },
		})
		ended <- err
	}()
	id := await(t, "it has begun", began)
	if m := next(t, s); m.ID != id {
		t.Errorf("message %s of multicast %s", m.ID, id)
	}
	leave()
	if err := await(t, "Multicast returns", ended); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// The server dies in the midst of a multicast.
func TestMulticastCutOff(t *testing.T) {
	srv := serve(t, "127.0.0.1:0")
	w, direct := newWire(t, srv.addr), dial(t, srv.addr)
	c := dial(t, w.addr)
	registerAll(t, c, "a")
	s := subscribe(t, direct, "a")
	ended := make(chan error, 1)
	go func() {
		_, err := c.Multicast(withPatience(t), client.MulticastRequest{Timeout: patience})
		ended <- err
	}()
	next(t, s)
	w.cut()
	if err := await(t, "Multicast returns", ended); !errors.Is(err, client.ErrUnavailable) || !client.Unreachable(err) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

// More targets than one message of gRPC's usual size could list.
func TestMulticastToMany(t *testing.T) {
	c := newClient(t)
	ids := make([]string, 2000)
	for i := range ids {
		ids[i] = fmt.Sprintf("dev-%04d", i)
	}
	m, ctx, hooks := newMember(t)
	m.answer = func(message client.Message) error { return message.Reply(3, make([]byte, client.MaxReplyBytes)) }
	all := make([]client.Registration, len(ids))
	for i, id := range ids {
		all[i] = client.Registration{ID: id}
	}
	go func() { m.ended <- c.JoinAll(ctx, all, m.handle, hooks...) }()
	await(t, "joined", m.joined)
	r, err := c.Multicast(withPatience(t), client.MulticastRequest{Timeout: patience})
	if err != nil || r.Delivered != len(ids) || r.Replies[3] != len(ids) || len(r.Targets) != len(ids) {
		t.Fatalf("%d delivered, %v replied, %v", r.Delivered, r.Replies, err)
	}
	for i, target := range r.Targets {
		if target.Identity != ids[i] || len(target.Reply.Body) != client.MaxReplyBytes {
			t.Fatalf("target %d is %s with %d bytes", i, target.Identity, len(target.Reply.Body))
		}
	}
}

func TestMulticastInvalid(t *testing.T) {
	c, ctx := newClient(t), withPatience(t)
	for field, r := range map[string]client.MulticastRequest{
		"timeout": {Timeout: -1}, "retry_delay": {RetryDelay: -1}, "max_targets": {MaxTargets: -1}, "retry_attempts": {RetryAttempts: 21},
	} {
		if _, err := c.Multicast(ctx, r); !isInvalid(err, field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := c.Multicast(ctx, client.MulticastRequest{IdempotencyKey: "k"}); !errors.Is(err, client.ErrUnsupported) {
		t.Errorf("a key without a durability slot: %v, want ErrUnsupported", err)
	}
}
