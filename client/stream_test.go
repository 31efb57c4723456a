package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
)

func subscribe(t *testing.T, c *client.Client, ids ...string) *client.Stream {
	t.Helper()
	s, err := c.Subscribe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Attach(withPatience(t), false, ids...); err != nil {
		t.Fatal(err)
	}
	return s
}

func registerAll(t *testing.T, c *client.Client, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if _, err := c.Register(withPatience(t), client.Registration{ID: id, Mode: client.Replace}); err != nil {
			t.Fatal(err)
		}
	}
}

func send(t *testing.T, c *client.Client, payload string) {
	t.Helper()
	r := client.MulticastRequest{Payload: []byte(payload), ContentType: "text/plain", Delivery: client.AtMostOnce}
	if _, err := c.Multicast(withPatience(t), r); err != nil {
		t.Fatal(err)
	}
}

func next(t *testing.T, s *client.Stream) client.Message {
	t.Helper()
	e, err := s.Next(withPatience(t))
	if err != nil || len(e.Messages) != 1 {
		t.Fatalf("Next: %+v, %v; want one message", e, err)
	}
	return e.Messages[0]
}

func TestStreamReceives(t *testing.T) {
	c := newClient(t)
	registerAll(t, c, "a", "b")
	s := subscribe(t, c, "a")
	before := time.Now().Add(-time.Second)
	send(t, c, "one")
	m := next(t, s)
	if m.Identity != "a" || string(m.Payload) != "one" || m.ContentType != "text/plain" || m.ID == "" || m.AckWanted ||
		m.Redelivered || m.SentAt.Before(before) || m.Name() != (client.MessageName{Identity: "a", ID: m.ID}) {
		t.Errorf("received %+v", m)
	}
	ctx := withPatience(t)
	if err := errors.Join(s.Attach(ctx, false, "b"), s.Detach(ctx, "a", "never-attached"), s.Attach(ctx, false)); err != nil {
		t.Fatal(err)
	}
	send(t, c, "two")
	if m := next(t, s); m.Identity != "b" || string(m.Payload) != "two" {
		t.Errorf("after detaching a received %+v", m)
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if _, err := s.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Next with nothing there: %v", err)
	}
	send(t, c, "three")
	if m := next(t, s); string(m.Payload) != "three" {
		t.Errorf("a Next that was given up took a message with it: got %+v", m)
	}
}

// An ack that was given before Close arrives, and the sender learns of it.
func TestCloseSendsAcks(t *testing.T) {
	c := newClient(t)
	registerAll(t, c, "a")
	s := subscribe(t, c, "a")
	var r *client.Result
	var err error
	var sender sync.WaitGroup
	sender.Go(func() { r, err = c.Multicast(withPatience(t), client.MulticastRequest{Timeout: patience}) })
	m := next(t, s)
	if !m.AckWanted {
		t.Error("no ack is wanted")
	}
	began := time.Now()
	if err := errors.Join(s.Ack(m.Name(), m.Name()), s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("Close took %s: the server did not end the stream", took)
	}
	sender.Wait()
	if err != nil || r.Delivered != 1 {
		t.Errorf("%+v, %v; want one delivered", r, err)
	}
	if _, err := s.Next(context.Background()); !errors.Is(err, io.EOF) {
		t.Errorf("Next after Close: %v, want io.EOF", err)
	}
	if err := s.Ack(m.Name()); !errors.Is(err, io.EOF) {
		t.Errorf("Ack after Close: %v, want io.EOF", err)
	}
	if err := s.Attach(context.Background(), false, "b"); !errors.Is(err, io.EOF) {
		t.Errorf("Attach after Close: %v, want io.EOF", err)
	}
}

func TestCloseWhileReceiving(t *testing.T) {
	s := subscribe(t, newClient(t), "a")
	ended := make(chan error)
	go func() {
		_, err := s.Next(context.Background())
		ended <- err
	}()
	s.Close()
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Errorf("Next: %v, want io.EOF", err)
	}
}

func TestStreamEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	s, err := newClient(t).Subscribe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cancel()
	if _, err := s.Next(withPatience(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("Next: %v, want context.Canceled", err)
	}
}

func TestStreamOfADrainedServer(t *testing.T) {
	srv := serve(t, "127.0.0.1:0")
	c := dial(t, srv.addr)
	registerAll(t, c, "a")
	s := subscribe(t, c, "a")
	send(t, c, "last words")
	if m := next(t, s); string(m.Payload) != "last words" {
		t.Errorf("received %+v", m)
	}
	srv.stop()
	_, err := s.Next(withPatience(t))
	if !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), "shutting down") {
		t.Errorf("got %v, want ErrUnavailable and why", err)
	}
	if err := s.Detach(withPatience(t), "a"); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("Detach: %v", err)
	}
}

func TestStreamOfALostServer(t *testing.T) {
	w := newWire(t, serve(t, "127.0.0.1:0").addr)
	s := subscribe(t, dial(t, w.addr), "a")
	w.cut()
	if _, err := s.Next(withPatience(t)); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

func TestStreamInAnUnknownNamespace(t *testing.T) {
	s, err := newClient(t).In("nowhere").Subscribe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Attach(withPatience(t), false, "a"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("Attach: %v, want ErrNotFound", err)
	}
}

func TestLeaseIsKept(t *testing.T) {
	c, ctx := newClient(t), withPatience(t)
	if _, err := c.Register(ctx, client.Registration{ID: "a", TTL: 150 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	s := subscribe(t, c)
	if err := s.Attach(ctx, true, "a", "b"); err != nil {
		t.Fatal(err)
	}
	e, err := s.Next(ctx)
	if err != nil || len(e.LeasesLost) != 1 || e.LeasesLost[0] != "b" {
		t.Errorf("%+v, %v; want the lease of b lost, which is not registered", e, err)
	}
	after := time.NewTimer(400 * time.Millisecond)
	<-after.C // more than two TTLs
	if page, err := c.Enumerate(ctx, client.Query{}); err != nil || page.Total != 1 {
		t.Errorf("%+v, %v; want a still registered", page, err)
	}
	if err := s.Attach(ctx, false, "a"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a expires once its lease is not kept", func() bool {
		page, err := c.Enumerate(ctx, client.Query{})
		return err == nil && page.Total == 0
	})
}

// Whoever attaches may be the one who should have called Next.
func TestAttachWithAFullQueue(t *testing.T) {
	c, ctx := newClient(t), withPatience(t)
	registerAll(t, c, "a")
	s := subscribe(t, c, "a")
	payload := strings.Repeat("x", 200_000)
	const sent = 60 // 12 MB: more than the queue and gRPC's windows hold
	for range sent {
		send(t, c, payload)
	}
	if err := s.Attach(ctx, false, "b"); err != nil {
		t.Fatal(err)
	}
	received := uint64(0)
	for received < sent {
		e, err := s.Next(ctx)
		if err != nil {
			t.Fatalf("after %d messages: %v", received, err)
		}
		received += uint64(len(e.Messages)) + e.Dropped
	}
}

func TestManyIdentitiesOnOneStream(t *testing.T) {
	c, ctx := newClient(t), withPatience(t)
	ids := make([]string, 20_001)
	for i := range ids {
		ids[i] = fmt.Sprintf("dev-%05d", i)
	}
	s := subscribe(t, c, ids...)
	registerAll(t, c, ids[0], ids[10_000], ids[20_000])
	send(t, c, "x")
	for n := 0; n < 3; {
		e, err := s.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		n += len(e.Messages)
	}
	if err := s.Detach(ctx, ids...); err != nil {
		t.Fatal(err)
	}
	send(t, c, "y")
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if e, err := s.Next(short); err == nil {
		t.Errorf("received %+v for what is detached", e)
	}
}

func TestAttachGivenUp(t *testing.T) {
	c := newClient(t)
	s := subscribe(t, c)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Attach(gone, false, "a"); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := s.Attach(withPatience(t), false, "b"); err != nil {
		t.Errorf("the next Attach: %v", err)
	}
}

func TestStreamConcurrently(t *testing.T) {
	c, ctx := newClient(t), withPatience(t)
	registerAll(t, c, "a", "b", "c")
	s := subscribe(t, c, "a", "b", "c")
	var all, attaching sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for {
				e, err := s.Next(ctx)
				if err != nil {
					return
				}
				for _, m := range e.Messages {
					s.Ack(m.Name())
				}
			}
		})
		attaching.Go(func() {
			id := fmt.Sprintf("x-%d", i)
			for range 20 {
				if err := errors.Join(s.Attach(ctx, i%2 == 0, id), s.Detach(ctx, id)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		if r, err := c.Multicast(ctx, client.MulticastRequest{}); err != nil || r.Delivered != 3 {
			t.Errorf("%+v, %v; want 3 delivered", r, err)
		}
	}
	attaching.Wait()
	s.Close()
	all.Wait()
}
