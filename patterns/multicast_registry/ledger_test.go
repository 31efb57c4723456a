package multicastregistry_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// TestTakeOver has several repeat a request whose process has vanished: one of them sends, and the others get its result.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, k := kept(t, 1)
		k.finish = fmt.Errorf("test: %w", mr.ErrUnavailable)
		first := multicast(t, c, mr.Request{IdempotencyKey: "k", Delivery: mr.AtMostOnce})
		k.finish = nil
		<-time.After(time.Minute)
		var copies, replayed atomic.Int64
		attach(t, c, func(mr.Message) bool { copies.Add(1); return true }, "id-00000")
		began := func(string, mr.Revision, int) { <-time.After(500 * time.Millisecond) }
		var repeating sync.WaitGroup
		for range 3 {
			repeating.Go(func() {
				r, err := c.Multicast(t.Context(), mr.Request{IdempotencyKey: "k", Delivery: mr.AtMostOnce, Began: began})
				switch {
				case err != nil || r.ID != first.ID || r.Delivered != 1:
					t.Errorf("%+v, %v", r, err)
				case r.Replayed:
					replayed.Add(1)
				}
			})
		}
		repeating.Wait()
		synctest.Wait()
		if copies.Load() != 1 || replayed.Load() != 2 {
			t.Errorf("%d copies, %d replayed", copies.Load(), replayed.Load())
		}
	})
}

// TestTakeOverCancelled repeats a request whose process has vanished and which was cancelled then: nothing is sent.
func TestTakeOverCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, k := kept(t, 1)
		k.finish = fmt.Errorf("test: %w", mr.ErrUnavailable)
		first := multicast(t, c, mr.Request{IdempotencyKey: "k", Delivery: mr.AtMostOnce})
		k.finish = nil
		<-time.After(time.Minute)
		cancelElsewhere(t, k, 0, first.ID, mr.WithdrawnByID)
		attach(t, c, func(m mr.Message) bool { t.Errorf("received %+v", m); return true }, "id-00000")
		var bad *mr.InvalidError
		_, err := c.Multicast(t.Context(), mr.Request{IdempotencyKey: "k", Delivery: mr.AtMostOnce})
		if !errors.As(err, &bad) || bad.Field != "idempotency_key" {
			t.Error(err)
		}
	})
}

// TestIdempotencyWithEndlessTimeout repeats a request that may take three hundred years.
func TestIdempotencyWithEndlessTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, _ := kept(t, 1)
		var copies atomic.Int64
		attach(t, c, func(mr.Message) bool { copies.Add(1); <-time.After(time.Second); return true }, "id-00000")
		var repeating sync.WaitGroup
		for range 2 {
			repeating.Go(func() {
				_, err := c.Multicast(t.Context(), mr.Request{IdempotencyKey: "k", Timeout: math.MaxInt64})
				noError(t, err)
			})
			<-time.After(10 * time.Millisecond)
		}
		repeating.Wait()
		if copies.Load() != 1 {
			t.Errorf("%d copies went out", copies.Load())
		}
	})
}

// TestIdempotencyWithMaxTargets has more targets when a request is repeated than it allows: it gets the first one's result. One
// that is refused takes no key.
func TestIdempotencyWithMaxTargets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, k := kept(t, 1)
		attach(t, c, func(mr.Message) bool { <-time.After(time.Second); return true }, "id-00000")
		request := mr.Request{IdempotencyKey: "k", MaxTargets: 1}
		var repeating sync.WaitGroup
		request.Began = func(string, mr.Revision, int) {
			_, err := c.Register(t.Context(), mr.Registration{ID: "id-00001"})
			noError(t, err)
			repeating.Go(func() {
				again, err := c.Multicast(t.Context(), mr.Request{IdempotencyKey: "k", MaxTargets: 1})
				if err != nil || !again.Replayed || again.Delivered != 1 {
					t.Errorf("while it was under way: %+v, %v", again, err)
				}
			})
		}
		first := multicast(t, c, request)
		repeating.Wait()
		if again := multicast(t, c, request); !again.Replayed || again.ID != first.ID {
			t.Errorf("%+v", again)
		}
		dry, other := request, request
		dry.DryRun, other.IdempotencyKey = true, "other"
		for _, r := range []mr.Request{dry, other} {
			if _, err := c.Multicast(t.Context(), r); !errors.Is(err, mr.ErrQuota) {
				t.Error(err)
			}
		}
		other.MaxTargets, other.Delivery, other.Began = 2, mr.AtMostOnce, nil
		k.finish = fmt.Errorf("test: %w", mr.ErrUnavailable)
		if r := multicast(t, c, other); r.Replayed {
			t.Error("a refused request has taken its key")
		}
		<-time.After(time.Minute)
		other.MaxTargets = 1
		if _, err := c.Multicast(t.Context(), other); !errors.Is(err, mr.ErrQuota) {
			t.Errorf("in the place of one that vanished: %v", err)
		}
	})
}

// TestLedgerHangs has the ledger not answer: the result comes in time, and the record is stored when it does answer.
func TestLedgerHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, k := kept(t, 1)
		attach(t, c, always, "id-00000")
		k.finishing = func(string) { <-time.After(2 * time.Second) }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r, err := c.Multicast(ctx, mr.Request{})
		if err != nil || ctx.Err() != nil || r.Delivered != 1 || !errors.Is(r.Unrecorded, mr.ErrUnavailable) {
			t.Errorf("%+v, %v, %v", r, err, ctx.Err())
		}
		<-time.After(2 * time.Second)
		if record := get(t, c, r.ID); record.State != mr.Returned || record.Result.Delivered != 1 {
			t.Errorf("%+v", record)
		}
	})
}

// TestAckThatCannotBeNoted acks a stored message while the ledger is away: it stays stored, and is delivered again.
func TestAckThatCannotBeNoted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, k := kept(t, 1)
		sent := multicast(t, c, mr.Request{})
		k.settle = fmt.Errorf("test: %w", mr.ErrUnavailable)
		s, err := c.Subscribe(t.Context())
		noError(t, err)
		noError(t, s.Attach(t.Context(), false, "id-00000"))
		event, err := s.Next(t.Context())
		noError(t, err)
		name := mr.MessageName{Identity: "id-00000", ID: event.Messages[0].ID}
		if err := s.Ack(t.Context(), mr.Answer{MessageName: name}); !errors.Is(err, mr.ErrUnavailable) {
			t.Error(err)
		}
		noError(t, s.Close())
		k.settle = nil
		if r := get(t, c, sent.ID).Result; r.Pending != 1 {
			t.Errorf("%+v", r)
		}
		attach(t, c, always, "id-00000")
		synctest.Wait()
		if r := get(t, c, sent.ID).Result; r.Delivered != 1 {
			t.Errorf("%+v", r)
		}
	})
}
