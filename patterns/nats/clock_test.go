package nats

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// fakeServer answers with its own time; going there and coming back take a while each.
type fakeServer struct {
	local       time.Time
	ahead       time.Duration
	there, back time.Duration
	epoch       uint64
	asked       int
	fault       error
}

func (s *fakeServer) clock() *clock {
	c := newClock(nil, func() uint64 { return s.epoch }, func() time.Time { return s.local })
	c.ask = func(context.Context) error {
		s.asked++
		if s.fault != nil {
			return s.fault
		}
		sent := s.local
		server := sent.Add(s.there + s.ahead)
		s.local = sent.Add(s.there + s.back)
		c.sample(server, sent, s.local, s.epoch)
		return nil
	}
	return c
}

// off returns by how much a clock is wrong.
func (s *fakeServer) off(t *testing.T, c *clock) time.Duration {
	t.Helper()
	now, err := c.now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return now.Sub(s.local.Add(s.ahead)).Abs()
}

func TestClock(t *testing.T) {
	s := &fakeServer{local: time.Unix(1e9, 0), ahead: -time.Hour, there: 4 * time.Millisecond, back: 2 * time.Millisecond}
	c := s.clock()
	if off := s.off(t, c); off > 3*time.Millisecond || s.asked != clockSamples {
		t.Errorf("off by %v after %d readings", off, s.asked)
	}
	s.local = s.local.Add(clockRefresh - 10*time.Millisecond)
	if off := s.off(t, c); off > 3*time.Millisecond || s.asked != clockSamples {
		t.Errorf("off by %v after %d readings", off, s.asked)
	}

	s.local = s.local.Add(time.Second) // old: one better reading is taken
	s.there, s.back = time.Millisecond, time.Millisecond
	if off := s.off(t, c); off != 0 || s.asked != clockSamples+1 {
		t.Errorf("off by %v after %d readings", off, s.asked)
	}
	s.local = s.local.Add(clockRefresh) // a worse one does not count
	s.there, s.back = 100*time.Millisecond, 0
	if off := s.off(t, c); off != 0 || s.asked != clockSamples+2 {
		t.Errorf("off by %v after %d readings", off, s.asked)
	}
	s.local = s.local.Add(time.Hour) // unless the better one is too old to be worth more
	if off := s.off(t, c); off != 50*time.Millisecond {
		t.Errorf("off by %v", off)
	}

	s.epoch++ // another server
	s.ahead, s.there = time.Minute, 0
	if off := s.off(t, c); off != 0 {
		t.Errorf("off by %v from another server", off)
	}
	s.epoch++
	s.fault = mr.ErrUnavailable
	if _, err := c.now(t.Context()); !errors.Is(err, mr.ErrUnavailable) {
		t.Errorf("without any reading: %v", err)
	}
}

// TestClockRefreshing finds a reading under way: others go on with what there is.
func TestClockRefreshing(t *testing.T) {
	s := &fakeServer{local: time.Unix(1e9, 0)}
	c := s.clock()
	s.off(t, c)
	s.local = s.local.Add(2 * clockRefresh)
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	if off := s.off(t, c); off != 0 || s.asked != clockSamples {
		t.Errorf("off by %v after %d readings", off, s.asked)
	}
}

// TestClockIsShared has many callers that need a first reading from a server that does not answer: one asks, all learn what
// comes of it, and those whose own time is up leave at once.
func TestClockIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const silence = 5 * time.Second
		var asked atomic.Int64
		c := newClock(func(context.Context) error {
			asked.Add(1)
			<-time.After(silence)
			return mr.ErrUnavailable
		}, func() uint64 { return 1 }, time.Now)
		start := time.Now()
		var callers sync.WaitGroup
		call := func(limit time.Duration) {
			callers.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				_, err := c.now(ctx)
				took := time.Since(start)
				switch {
				case took == silence && errors.Is(err, mr.ErrUnavailable):
				case took == time.Second && errors.Is(err, context.DeadlineExceeded):
				default:
					t.Errorf("after %v: %v", took, err)
				}
			})
		}
		call(time.Minute)
		synctest.Wait() // it asks
		for i := range 64 {
			call(time.Duration(1+i%2*99) * time.Second)
		}
		callers.Wait()
		if n := asked.Load(); n != 1 {
			t.Errorf("the server was asked %d times", n)
		}
	})
}
