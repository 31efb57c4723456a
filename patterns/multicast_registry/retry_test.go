package multicastregistry_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// scripted is a messaging slot whose attempts fail as a test says: with the error that fail returns for the nth attempt for
// an identity, from 1; with nil the message goes its way.
type scripted struct {
	mr.Messaging
	fail func(identity string, n int) error

	mu    sync.Mutex
	at    map[string][]time.Time
	of    map[string]map[string]bool // ids by identity
	began time.Time
}

func script(slots *mr.Slots, fail func(identity string, n int) error) *scripted {
	s := &scripted{
		Messaging: slots.Messaging, fail: fail, at: make(map[string][]time.Time), of: make(map[string]map[string]bool),
		began: time.Now(),
	}
	slots.Messaging = s
	return s
}

func (s *scripted) Publish(ctx context.Context, messages []mr.Message) []error {
	errs := make([]error, len(messages))
	var pass []mr.Message
	var places []int
	s.mu.Lock()
	for i, m := range messages {
		s.at[m.Identity] = append(s.at[m.Identity], time.Now())
		if s.of[m.Identity] == nil {
			s.of[m.Identity] = make(map[string]bool)
		}
		s.of[m.Identity][m.ID] = true
		if errs[i] = s.fail(m.Identity, len(s.at[m.Identity])); errs[i] == nil {
			pass, places = append(pass, m), append(places, i)
		}
	}
	s.mu.Unlock()
	for i, err := range s.Messaging.Publish(ctx, pass) {
		errs[places[i]] = err
	}
	return errs
}

// waits returns the time between the attempts for an identity.
func (s *scripted) waits(identity string) (out []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.began
	for _, at := range s.at[identity] {
		out = append(out, at.Sub(last))
		last = at
	}
	return out
}

func down(string, int) error    { return fmt.Errorf("test: %w", mr.ErrUnavailable) }
func unknown(string, int) error { return errors.New("test: the answer was lost") }
func full(string, int) error    { return fmt.Errorf("test: %w", mr.ErrQueueFull) }

// until lets the first n attempts fail.
func until(n int, fail func(string, int) error) func(string, int) error {
	return func(identity string, attempt int) error {
		if attempt <= n {
			return fail(identity, attempt)
		}
		return nil
	}
}

func TestRetry(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		fail     func(string, int) error
		delivery mr.DeliveryMode
		attempts int // allowed
		made     int
		status   mr.Status
		reason   mr.Reason
		within   time.Duration // of the backoffs, together
	}{
		"it goes well":                        {until(0, down), mr.AtLeastOnce, 3, 1, mr.Delivered, 0, 0},
		"unavailable once":                    {until(1, down), mr.AtLeastOnce, 3, 2, mr.Delivered, 0, 125 * time.Millisecond},
		"unavailable twice":                   {until(2, down), mr.AtLeastOnce, 3, 3, mr.Delivered, 0, 375 * time.Millisecond},
		"unavailable always":                  {down, mr.AtLeastOnce, 3, 3, mr.Failed, mr.BackendError, 375 * time.Millisecond},
		"no retry":                            {down, mr.AtLeastOnce, 1, 1, mr.Failed, mr.BackendError, 0},
		"unknown once":                        {until(1, unknown), mr.AtLeastOnce, 3, 2, mr.Delivered, 0, 125 * time.Millisecond},
		"unknown always":                      {unknown, mr.AtLeastOnce, 2, 2, mr.Timeout, mr.BackendError, 125 * time.Millisecond},
		"full once":                           {until(1, full), mr.ExactlyOnce, 3, 2, mr.Delivered, 0, 125 * time.Millisecond},
		"full always":                         {full, mr.AtLeastOnce, 4, 4, mr.Failed, mr.QueueFull, 875 * time.Millisecond},
		"at most once, unavailable once":      {until(1, down), mr.AtMostOnce, 3, 2, mr.Delivered, 0, 125 * time.Millisecond},
		"at most once repeats nothing unsure": {unknown, mr.AtMostOnce, 3, 1, mr.Failed, mr.BackendError, 0},
		"too large":                           {func(string, int) error { return mr.ErrTooLarge }, mr.AtLeastOnce, 3, 1, mr.Failed, mr.PayloadTooLarge, 0},
		"nobody there, as the backend says at once": {
			func(string, int) error { return mr.ErrNoSubscriber }, mr.AtLeastOnce, 3, 1, mr.Failed, mr.NoSubscriber, 0,
		},
		"nobody there any more, though somebody may have it": {
			func(_ string, n int) error { return []error{unknown("", 0), mr.ErrNoSubscriber}[min(n-1, 1)] },
			mr.AtLeastOnce, 3, 2, mr.Timeout, mr.Gone, 125 * time.Millisecond,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				slots := memorySlots()
				s := script(&slots, row.fail)
				c := open(t, mr.Config{Timeout: time.Minute, RetryDelay: 125 * time.Millisecond}, slots)
				register(t, c, 1, nil)
				attach(t, c, always, "id-00000")
				result, err := c.Multicast(t.Context(), mr.Request{Delivery: row.delivery, RetryAttempts: row.attempts})
				if err != nil {
					t.Fatal(err)
				}
				checkResult(t, result, ids(1))
				target := result.Targets[0]
				if target.Status != row.status || target.Reason != row.reason || target.Attempts != row.made {
					t.Errorf("%+v", target)
				}
				if len(s.waits("id-00000")) != row.made || len(s.of["id-00000"]) != 1 {
					t.Errorf("%d attempts of %d ids", len(s.waits("id-00000")), len(s.of["id-00000"]))
				}
				if result.Elapsed < row.within*3/4 || result.Elapsed > row.within*5/4+20*time.Millisecond || result.Ended != mr.Complete {
					t.Errorf("it took %v, ended %d", result.Elapsed, result.Ended)
				}
			})
		})
	}
}

// TestRetryUnacked has a subscriber that acknowledges the nth copy only.
func TestRetryUnacked(t *testing.T) {
	t.Parallel()
	for nth, want := range map[int]time.Duration{1: 0, 2: time.Second, 3: 2 * time.Second, 4: 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			slots := memorySlots()
			s := script(&slots, until(0, down))
			c := open(t, mr.Config{Timeout: 5 * time.Second, AttemptTimeout: time.Second}, slots)
			register(t, c, 3, nil)
			copies := map[string]int{}
			attach(t, c, func(m mr.Message) bool {
				copies[m.Identity]++
				return m.Identity != "id-00001" || copies[m.Identity] >= nth
			}, ids(3)...)
			result, err := c.Multicast(t.Context(), mr.Request{})
			if err != nil {
				t.Fatal(err)
			}
			checkResult(t, result, ids(3))
			synctest.Wait()
			slow := result.Targets[1]
			if nth <= 3 && (slow.Status != mr.Delivered || slow.Attempts != nth) ||
				nth > 3 && (slow.Status != mr.Timeout || slow.Reason != mr.NoAck || slow.Attempts != 3) {
				t.Errorf("acked at the %dth copy: %+v", nth, slow)
			}
			if result.Elapsed != want || copies["id-00000"] != 1 || copies["id-00002"] != 1 {
				t.Errorf("it took %v, copies %v", result.Elapsed, copies)
			}
			if waits := s.waits("id-00001"); slices.Max(waits) > time.Second {
				t.Errorf("waits %v", waits)
			}
		})
	}
}

// TestRetryDeadline ends a multicast while attempts wait for their turn.
func TestRetryDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slots := memorySlots()
		script(&slots, down)
		c := open(t, mr.Config{Timeout: time.Second, RetryDelay: 10 * time.Second}, slots)
		register(t, c, 2, nil)
		result, err := c.Multicast(t.Context(), mr.Request{})
		if err != nil {
			t.Fatal(err)
		}
		checkResult(t, result, ids(2))
		if result.Failed != 2 || result.Targets[0].Reason != mr.BackendError || result.Ended != mr.DeadlinePassed {
			t.Errorf("%+v", result)
		}
	})
}

// TestSubscriberLeaves has the subscriber go while it owes an ack: the sender knows at once, and whether somebody else is there.
func TestSubscriberLeaves(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		leave  func(t *testing.T, s *mr.Subscriber)
		second bool
	}{
		"it closes":                        {func(t *testing.T, s *mr.Subscriber) { noError(t, s.Close()) }, false},
		"it detaches":                      {func(t *testing.T, s *mr.Subscriber) { noError(t, s.Detach(t.Context(), "id-00000")) }, false},
		"it closes and another one acks":   {func(t *testing.T, s *mr.Subscriber) { noError(t, s.Close()) }, true},
		"it detaches and another one acks": {func(t *testing.T, s *mr.Subscriber) { noError(t, s.Detach(t.Context(), "id-00000")) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := open(t, mr.Config{Timeout: time.Minute}, memorySlots())
				register(t, c, 1, nil)
				received := make(chan struct{})
				s := attach(t, c, func(mr.Message) bool { close(received); return false }, "id-00000")
				go func() {
					<-received
					if row.second {
						attach(t, c, always, "id-00000")
					}
					<-time.After(2 * time.Second)
					row.leave(t, s)
				}()
				result, err := c.Multicast(t.Context(), mr.Request{})
				noError(t, err)
				checkResult(t, result, ids(1))
				target := result.Targets[0]
				if row.second && target.Status != mr.Delivered {
					t.Errorf("%+v", target)
				}
				if !row.second && (target.Status != mr.Timeout || target.Reason != mr.Gone || !errors.Is(target.Err, mr.ErrGone)) {
					t.Errorf("%+v", target)
				}
				if result.Elapsed != 2*time.Second || result.Ended != mr.Complete {
					t.Errorf("it took %v, ended %d", result.Elapsed, result.Ended)
				}
			})
		})
	}
}

// TestTargetUnregisters has a target go that owes an ack: by unregistering here, elsewhere, or by expiring.
func TestTargetUnregisters(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		leave func(t *testing.T, here, there *mr.Coordinator)
		after time.Duration // at the latest
	}{
		"here":      {func(t *testing.T, here, _ *mr.Coordinator) { unregister(t, here) }, 2 * time.Second},
		"elsewhere": {func(t *testing.T, _, there *mr.Coordinator) { unregister(t, there) }, 3 * time.Second},
		"it expires": {func(t *testing.T, here, _ *mr.Coordinator) {
			_, err := here.Heartbeat(t.Context(), "id-00000", time.Millisecond)
			noError(t, err)
		}, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				slots := memorySlots()
				here := open(t, mr.Config{Timeout: time.Minute}, slots)
				there := open(t, mr.Config{}, slots)
				register(t, here, 2, nil)
				attach(t, here, func(m mr.Message) bool { return m.Identity != "id-00000" }, ids(2)...)
				time.AfterFunc(2*time.Second, func() { row.leave(t, here, there) })
				result, err := here.Multicast(t.Context(), mr.Request{RetryAttempts: 1})
				noError(t, err)
				checkResult(t, result, ids(2))
				target := result.Targets[0]
				if target.Status != mr.Timeout || target.Reason != mr.Gone || !errors.Is(target.Err, mr.ErrGone) || result.Delivered != 1 {
					t.Errorf("%+v", result)
				}
				if result.Elapsed < 2*time.Second || result.Elapsed > row.after || result.Ended != mr.Complete {
					t.Errorf("it took %v, ended %d", result.Elapsed, result.Ended)
				}
			})
		})
	}
}

// TestTargetUnregistersBeforeItsTurn has a target go while chunks before its own are being published: it is sent nothing.
func TestTargetUnregistersBeforeItsTurn(t *testing.T) {
	t.Parallel()
	slots := memorySlots()
	var leaving sync.Once
	const last = "id-02048"
	var c *mr.Coordinator
	s := script(&slots, func(string, int) error {
		leaving.Do(func() {
			_, err := c.Unregister(t.Context(), last, 0)
			noError(t, err)
		})
		return nil
	})
	c = open(t, mr.Config{}, slots)
	register(t, c, 2049, nil)
	r, err := c.Multicast(t.Context(), mr.Request{RetryAttempts: 1})
	noError(t, err)
	checkResult(t, r, ids(2049))
	target := r.Targets[2048]
	if target.Status != mr.Failed || target.Reason != mr.Gone || target.Attempts != 0 || len(s.waits(last)) != 0 {
		t.Errorf("sent %d times: %+v", len(s.waits(last)), target)
	}
}

func unregister(t *testing.T, c *mr.Coordinator) {
	t.Helper()
	_, err := c.Unregister(t.Context(), "id-00000", 0)
	noError(t, err)
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}
