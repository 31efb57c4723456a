package client_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
)

// leave multicasts to identities of which none is there, and returns the result, in which all are pending.
func leave(t *testing.T, c *client.Client, payload string) *client.Result {
	t.Helper()
	r, err := c.Multicast(withPatience(t), client.MulticastRequest{
		Filter: map[string]any{"kind": "away"}, Payload: []byte(payload), ContentType: "text/plain", Delivery: client.ExactlyOnce,
	})
	if err != nil || r.Pending != r.TargetCount || r.TargetCount == 0 {
		t.Fatalf("%+v, %v; want all of them pending", r, err)
	}
	return r
}

func away(t *testing.T, c *client.Client, ids ...string) {
	t.Helper()
	for _, id := range ids {
		r := client.Registration{ID: id, Metadata: map[string]any{"kind": "away"}}
		if _, err := c.Register(withPatience(t), r); err != nil {
			t.Fatal(err)
		}
	}
}

// What is pending becomes delivered when its identity comes, with its reply.
func TestGetMulticast(t *testing.T) {
	c, ctx := newDurableClient(t), withPatience(t)
	away(t, c, "dev-1", "dev-2")
	before := time.Now().Add(-time.Second)
	sent := leave(t, c, "later")
	record, err := c.GetMulticast(ctx, sent.ID)
	if err != nil {
		t.Fatal(err)
	}
	if record.State != client.Returned || record.CreatedAt.Before(before) || record.PayloadBytes != 5 || record.ContentType != "text/plain" ||
		record.IdempotencyKey != "" || !maps.Equal(record.Filter, map[string]any{"kind": "away"}) || record.Result.ID != sent.ID ||
		record.Result.Pending != 2 || record.Result.Delivery != client.ExactlyOnce || record.Result.Ended != client.Complete {
		t.Errorf("%+v", record)
	}
	for _, target := range record.Result.Targets {
		if target.Status != client.Pending || target.Evidence != client.Stored || target.Reason != client.NoSubscriber ||
			!errors.Is(target.Err, client.ErrNoSubscriber) {
			t.Errorf("%+v", target)
		}
	}
	received := make(chan client.Message, 2)
	receiving(t, c, []string{"dev-1"}, func(_ context.Context, m client.Message) error {
		received <- m
		return m.Reply(4, []byte("at last"))
	})
	if m := await(t, "the stored message", received); !m.Redelivered || !m.Once || string(m.Payload) != "later" || m.ID != sent.ID {
		t.Errorf("%+v", m)
	}
	eventually(t, "dev-1 is delivered", func() bool {
		record, err = c.GetMulticast(ctx, sent.ID)
		return err == nil && record.Result.Delivered == 1
	})
	r := record.Result
	if r.Pending != 1 || r.Replies[4] != 1 || r.Targets[0].Identity != "dev-1" || r.Targets[0].Status != client.Delivered ||
		string(r.Targets[0].Reply.Body) != "at last" || r.Targets[1].Status != client.Pending {
		t.Errorf("%+v", r)
	}
	for report, want := range map[client.Report]int{client.ReportAll: 2, client.ReportUndelivered: 1, client.ReportCounts: 0} {
		record, err := c.GetMulticastReport(ctx, sent.ID, report)
		if err != nil || len(record.Result.Targets) != want || record.Result.Delivered != 1 || record.Result.TargetCount != 2 {
			t.Errorf("report %d: %+v, %v", report, record, err)
		}
	}
}

// receiving hands the messages of identities to a handler until the test ends.
func receiving(t *testing.T, c *client.Client, ids []string, handle client.Handler) {
	t.Helper()
	m, ctx, hooks := newMember(t)
	go func() { m.ended <- c.Receive(ctx, ids, handle, hooks...) }()
	await(t, "joined", m.joined)
}

// A multicast whose targets take several pages comes as a whole.
func TestGetMulticastInPages(t *testing.T) {
	c, ctx := newDurableClient(t), withPatience(t)
	all := make([]client.Registration, 700) // with replies of 4 KiB: more than the 2 MiB of a page
	for i := range all {
		all[i].ID = fmt.Sprintf("dev-%03d", i)
	}
	m, joining, hooks := newMember(t)
	m.answer = func(message client.Message) error { return message.Reply(1, make([]byte, client.MaxReplyBytes)) }
	go func() { m.ended <- c.JoinAll(joining, all, m.handle, hooks...) }()
	await(t, "joined", m.joined)
	r, err := c.Multicast(ctx, client.MulticastRequest{Timeout: patience, Report: client.ReportCounts})
	if err != nil || r.Delivered != len(all) {
		t.Fatalf("%+v, %v", r, err)
	}
	record, err := c.GetMulticast(ctx, r.ID)
	if err != nil {
		t.Fatal(err)
	}
	got := record.Result
	if got.TargetCount != len(all) || got.Delivered != len(all) || got.Replies[1] != len(all) || len(got.Targets) != len(all) ||
		!slices.IsSortedFunc(got.Targets, func(a, b client.Target) int { return len(a.Identity) - len(b.Identity) }) {
		t.Errorf("%d targets, %d delivered, replies %v, %d listed", got.TargetCount, got.Delivered, got.Replies, len(got.Targets))
	}
	for i, target := range got.Targets {
		if target.Identity != all[i].ID || len(target.Reply.Body) != client.MaxReplyBytes {
			t.Fatalf("target %d is %s with %d bytes", i, target.Identity, len(target.Reply.Body))
		}
	}
}

func TestListMulticasts(t *testing.T) {
	c, ctx := newDurableClient(t), withPatience(t)
	for _, err := range c.Multicasts(ctx) {
		t.Errorf("one before the first: %v", err)
	}
	away(t, c, "dev-1")
	var want []string
	for i := range 120 { // more than a page
		want = append(want, leave(t, c, fmt.Sprint(i)).ID)
	}
	slices.Reverse(want)
	var got []string
	for record, err := range c.Multicasts(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if record.Result.Targets != nil || record.Result.Pending != 1 {
			t.Errorf("%+v", record)
		}
		got = append(got, record.Result.ID)
	}
	// Ids of the same millisecond have no order among each other.
	slices.Sort(want)
	slices.Reverse(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d multicasts, want %d, latest first", len(got), len(want))
	}
	page, err := c.ListMulticasts(ctx, client.MulticastQuery{PageSize: 3})
	if err != nil || len(page.Multicasts) != 3 || page.NextPageToken == "" {
		t.Fatalf("%+v, %v", page, err)
	}
	page, err = c.ListMulticasts(ctx, client.MulticastQuery{PageSize: 2, PageToken: page.NextPageToken})
	if err != nil || len(page.Multicasts) != 2 || page.Multicasts[0].Result.ID != want[3] {
		t.Errorf("%+v, %v", page, err)
	}
	for range c.Multicasts(ctx) {
		break
	}
}

func TestCancelMulticast(t *testing.T) {
	c, ctx := newDurableClient(t), withPatience(t)
	away(t, c, "dev-1", "dev-2", "dev-3")
	sent := leave(t, c, "not any more")
	withdrawn, record, err := c.CancelMulticast(ctx, sent.ID)
	if err != nil || withdrawn != 3 || record.State != client.WithdrawnByID || record.Result.Failed != 3 || record.Result.Pending != 0 {
		t.Fatalf("%d, %+v, %v", withdrawn, record, err)
	}
	record, err = c.GetMulticast(ctx, sent.ID)
	if err != nil || len(record.Result.Targets) != 3 || record.Result.Targets[0].Status != client.Failed ||
		record.Result.Targets[0].Reason != client.Withdrawn {
		t.Errorf("%+v, %v", record, err)
	}
	if withdrawn, _, err := c.CancelMulticast(ctx, sent.ID); withdrawn != 0 || err != nil {
		t.Errorf("cancelled again: %d, %v", withdrawn, err)
	}
}

// Cancelling a multicast by its id ends the call that runs it.
func TestCancelMulticastUnderWay(t *testing.T) {
	c := newDurableClient(t)
	registerAll(t, c, "a")
	s := subscribe(t, c, "a")
	ended := make(chan *client.Result, 1)
	go func() {
		r, err := c.Multicast(withPatience(t), client.MulticastRequest{Timeout: patience, RetryAttempts: 1})
		if err != nil {
			t.Error(err)
		}
		ended <- r
	}()
	if _, _, err := c.CancelMulticast(withPatience(t), next(t, s).ID); err != nil {
		t.Fatal(err)
	}
	if r := await(t, "Multicast returns", ended); r == nil || r.Ended != client.Cancelled || r.Delivered != 0 {
		t.Errorf("%+v", r)
	}
}

func TestMulticastsThatAreNotKept(t *testing.T) {
	ctx := withPatience(t)
	for _, row := range []struct {
		c        *client.Client
		id       string
		one, all error
	}{
		{newClient(t), "01890a5d-ac96-774b-bcce-b302099a8057", client.ErrUnsupported, client.ErrUnsupported},
		{newDurableClient(t), "01890a5d-ac96-774b-bcce-b302099a8057", client.ErrNotFound, nil},
		{newDurableClient(t).In("nowhere"), "01890a5d-ac96-774b-bcce-b302099a8057", client.ErrNotFound, client.ErrNotFound},
		{newDurableClient(t), "\xff", client.ErrInvalid, nil},
		{newDurableClient(t), "", client.ErrInvalid, nil},
	} {
		if _, err := row.c.GetMulticast(ctx, row.id); !errors.Is(err, row.one) {
			t.Errorf("GetMulticast(%q): %v, want %v", row.id, err, row.one)
		}
		if _, _, err := row.c.CancelMulticast(ctx, row.id); !errors.Is(err, row.one) {
			t.Errorf("CancelMulticast(%q): %v, want %v", row.id, err, row.one)
		}
		if _, err := row.c.ListMulticasts(ctx, client.MulticastQuery{}); !errors.Is(err, row.all) {
			t.Errorf("ListMulticasts: %v, want %v", err, row.all)
		}
		for _, err := range row.c.Multicasts(ctx) {
			if !errors.Is(err, row.all) {
				t.Errorf("Multicasts: %v, want %v", err, row.all)
			}
		}
	}
	c := newDurableClient(t)
	if _, err := c.ListMulticasts(ctx, client.MulticastQuery{PageToken: "\xff"}); !isInvalid(err, "page_token") {
		t.Errorf("a token that is no text: %v", err)
	}
	if _, err := c.ListMulticasts(ctx, client.MulticastQuery{PageSize: -1}); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("a negative page size: %v", err)
	}
	if _, err := c.GetMulticastReport(ctx, "x", 9); !isInvalid(err, "report") {
		t.Errorf("an unknown report: %v", err)
	}
}

// A request with a key that was used returns the first one's result, and sends nothing.
func TestIdempotencyKey(t *testing.T) {
	c, ctx := newDurableClient(t), withPatience(t)
	m := join(t, c, client.Registration{ID: "dev-1"})
	await(t, "joined", m.joined)
	began := 0
	request := client.MulticastRequest{
		Payload: []byte("once"), IdempotencyKey: "key ü/1", Began: func(string, client.Revision, int) { began++ },
	}
	first, err := c.Multicast(ctx, request)
	if err != nil || first.Delivered != 1 || first.Replayed {
		t.Fatalf("%+v, %v", first, err)
	}
	var settled []string
	request.Settled = func(targets []client.Target) {
		for _, target := range targets {
			settled = append(settled, target.Identity)
		}
	}
	again, err := c.Multicast(ctx, request)
	if err != nil || !again.Replayed || again.ID != first.ID || again.Delivered != 1 || len(again.Targets) != 1 {
		t.Errorf("%+v, %v", again, err)
	}
	if began != 1 || !slices.Equal(settled, []string{"dev-1"}) || len(m.payloads()) != 1 {
		t.Errorf("began %d times, settled %q, received %q", began, settled, m.payloads())
	}
	request.Payload = []byte("another")
	if _, err := c.Multicast(ctx, request); !isInvalid(err, "idempotency_key") {
		t.Errorf("another request with the same key: %v", err)
	}
	record, err := c.GetMulticast(ctx, first.ID)
	if err != nil || record.IdempotencyKey != request.IdempotencyKey {
		t.Errorf("%+v, %v", record, err)
	}
}

// The connection is lost while the handler runs: the message is stored, comes again, and is acknowledged and not handled
// again.
func TestHandledOnceAcrossAnOutage(t *testing.T) {
	srv := serve(t, "127.0.0.1:0", durable)
	w, direct := newWire(t, srv.addr), dial(t, srv.addr)
	var calls atomic.Int32
	handling, release := make(chan struct{}, 10), make(chan struct{})
	m, ctx, hooks := newMember(t)
	go func() {
		m.ended <- dial(t, w.addr).Join(ctx, client.Registration{ID: "dev-1"}, func(_ context.Context, m client.Message) error {
			calls.Add(1)
			handling <- struct{}{}
			<-release
			return m.Reply(6, []byte("done"))
		}, hooks...)
	}()
	await(t, "joined", m.joined)
	result := make(chan *client.Result, 1)
	go func() {
		r, err := direct.Multicast(withPatience(t), client.MulticastRequest{Delivery: client.ExactlyOnce})
		if err != nil {
			t.Error(err)
		}
		result <- r
	}()
	await(t, "the handler runs", handling)
	w.cut()
	r := await(t, "Multicast returns", result)
	if r.Pending != 1 {
		t.Fatalf("%+v, want it pending", r)
	}
	w.join(srv.addr)
	await(t, "joined again", m.joined)
	close(release)
	var record *client.MulticastRecord
	eventually(t, "it is delivered", func() (ok bool) {
		var err error
		record, err = direct.GetMulticast(withPatience(t), r.ID)
		return err == nil && record.Result.Delivered == 1
	})
	if got := record.Result.Targets[0].Reply; got.Code != 6 || string(got.Body) != "done" || calls.Load() != 1 {
		t.Errorf("replied %+v, handled %d times", got, calls.Load())
	}
	w.cut() // once more, without anything left to do
	w.join(srv.addr)
	await(t, "joined a third time", m.joined)
	if n := calls.Load(); n != 1 {
		t.Errorf("handled %d times", n)
	}
}

// A handler that is slower than the retries of the server gets the message once, and its ack counts.
func TestHandledOnceAcrossRetries(t *testing.T) {
	c := newClient(t)
	var calls atomic.Int32
	release := make(chan struct{})
	m, ctx, hooks := newMember(t)
	go func() {
		m.ended <- c.Join(ctx, client.Registration{ID: "dev-1"}, func(context.Context, client.Message) error {
			calls.Add(1)
			<-release
			return nil
		}, hooks...)
	}()
	await(t, "joined", m.joined)
	timer := time.AfterFunc(700*time.Millisecond, func() { close(release) }) // attempts start at 0, 1/3 and 2/3 of the timeout
	defer timer.Stop()
	r, err := c.Multicast(withPatience(t), client.MulticastRequest{
		Delivery: client.ExactlyOnce, Timeout: time.Second, RetryAttempts: 3, RetryDelay: time.Millisecond,
	})
	if err != nil || r.Delivered != 1 || r.Targets[0].Attempts < 2 || calls.Load() != 1 {
		t.Errorf("%+v, %v; handled %d times", r, err, calls.Load())
	}
}

// Without a window a repeat is handed over.
func TestWithoutWindow(t *testing.T) {
	c := newDurableClient(t)
	registerAll(t, c, "dev-1")
	var calls atomic.Int32
	m, ctx, hooks := newMember(t)
	go func() {
		m.ended <- c.Receive(ctx, []string{"dev-1"}, func(context.Context, client.Message) error {
			if calls.Add(1) == 1 {
				return errors.New("no")
			}
			return nil
		}, append(hooks, client.WithWindow(0, 0))...)
	}()
	await(t, "joined", m.joined)
	r, err := c.Multicast(withPatience(t), client.MulticastRequest{Timeout: time.Second, RetryAttempts: 2, RetryDelay: time.Millisecond})
	if err != nil || r.Delivered != 1 || calls.Load() != 2 {
		t.Errorf("%+v, %v; handled %d times", r, err, calls.Load())
	}
}

// A stream answers for itself.
func TestStreamAnswer(t *testing.T) {
	c := newClient(t)
	registerAll(t, c, "a")
	s := subscribe(t, c, "a")
	result := make(chan *client.Result, 1)
	go func() {
		r, err := c.Multicast(withPatience(t), client.MulticastRequest{Delivery: client.ExactlyOnce, Timeout: patience})
		if err != nil {
			t.Error(err)
		}
		result <- r
	}()
	m := next(t, s)
	if !m.Once || !isInvalid(m.Reply(1, nil), "message") {
		t.Errorf("%+v", m)
	}
	if err := s.Answer(m.Name(), client.Reply{Body: make([]byte, client.MaxReplyBytes+1)}); !isInvalid(err, "reply_body") {
		t.Errorf("a body that is too long: %v", err)
	}
	if err := s.Answer(m.Name(), client.Reply{Code: 8, Body: make([]byte, client.MaxReplyBytes)}); err != nil {
		t.Error(err)
	}
	r := await(t, "Multicast returns", result)
	if r.Delivered != 1 || r.Replies[8] != 1 || len(r.Targets[0].Reply.Body) != client.MaxReplyBytes {
		t.Errorf("%+v", r)
	}
}
