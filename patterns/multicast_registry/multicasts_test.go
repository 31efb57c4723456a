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

	"github.com/prism-data-layer/prism/patterns/memory"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// keeping is a durability slot that fails, and dawdles, as a test says.
type keeping struct {
	*memory.Durability
	begin, finish, settle error
	finishing             func(id string) // before it does
	enqueue               func(ctx context.Context, messages []mr.Message) []error
}

func (k *keeping) Enqueue(ctx context.Context, messages []mr.Message) []error {
	if k.enqueue != nil {
		return k.enqueue(ctx, messages)
	}
	return k.Durability.Enqueue(ctx, messages)
}

func (k *keeping) Settle(ctx context.Context, s []mr.Settlement) []error {
	if k.settle != nil {
		return slices.Repeat([]error{k.settle}, len(s))
	}
	return k.Durability.Settle(ctx, s)
}

func (k *keeping) Begin(ctx context.Context, r mr.Record) (mr.Record, bool, error) {
	if k.begin != nil {
		return mr.Record{}, false, k.begin
	}
	return k.Durability.Begin(ctx, r)
}

func (k *keeping) Finish(ctx context.Context, r mr.Record) error {
	if k.finishing != nil {
		k.finishing(r.ID)
	}
	if k.finish != nil {
		return k.finish
	}
	return k.Durability.Finish(ctx, r)
}

// kept opens a coordinator that keeps multicasts, with n targets.
func kept(t *testing.T, n int) (*mr.Coordinator, *keeping) {
	t.Helper()
	slots := memorySlots()
	k := &keeping{Durability: memory.NewDurability(memory.DurabilityConfig{})}
	slots.Durability = k
	c := open(t, mr.Config{Timeout: 5 * time.Second}, slots)
	register(t, c, n, nil)
	return c, k
}

func multicast(t *testing.T, c *mr.Coordinator, req mr.Request) *mr.Result {
	t.Helper()
	result, err := c.Multicast(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func get(t *testing.T, c *mr.Coordinator, id string) *mr.MulticastRecord {
	t.Helper()
	record, err := c.GetMulticast(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	r := record.Result
	if r.Delivered+r.Pending+r.Failed+r.TimedOut != r.TargetCount || r.TargetCount != len(r.Targets) {
		t.Errorf("the counts do not add up: %+v", r)
	}
	return record
}

// TestPendingBecomesDelivered attaches the one who was away: what is kept of the multicast says so, with the reply.
func TestPendingBecomesDelivered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, _ := kept(t, 3)
		attach(t, c, always, "id-00001")
		match := parse(t, `{"absent": {"$exists": false}}`)
		sent := multicast(t, c, mr.Request{Payload: []byte("hello"), ContentType: "text/plain", Filter: match})
		before := get(t, c, sent.ID)
		if before.State != mr.Returned || before.Filter != match.String() || before.PayloadBytes != 5 || before.ContentType != "text/plain" {
			t.Errorf("%+v", before)
		}
		if r := before.Result; r.Pending != 2 || r.Delivered != 1 || r.ID != sent.ID || r.Replies[0] != 1 {
			t.Errorf("%+v", r)
		}
		s, err := c.Subscribe(t.Context())
		noError(t, err)
		noError(t, s.Attach(t.Context(), false, "id-00002"))
		event, err := s.Next(t.Context())
		noError(t, err)
		m := event.Messages[0]
		<-time.After(time.Second)
		answer := mr.Answer{MessageName: mr.MessageName{Identity: m.Identity, ID: m.ID}, Reply: mr.Reply{Code: 7, Body: []byte("late")}}
		noError(t, s.Ack(t.Context(), answer))
		noError(t, s.Close())
		after := get(t, c, sent.ID)
		late := after.Result.Targets[2]
		if r := after.Result; r.Pending != 1 || r.Delivered != 2 || r.Replies[7] != 1 || r.Replies[0] != 1 {
			t.Errorf("%+v", r)
		}
		if late.Status != mr.Delivered || late.Evidence != mr.Acked || late.Reason != 0 || late.Err != nil ||
			string(late.Reply.Body) != "late" || late.Latency < time.Second {
			t.Errorf("%+v", late)
		}
		if again := get(t, c, sent.ID); fmt.Sprint(again.Result) != fmt.Sprint(after.Result) {
			t.Error("it reads differently the second time")
		}
	})
}

// TestStoredMessagesGo has stored messages go without an ack: by unregistering, by cancelling, by age.
func TestStoredMessagesGo(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		ends   func(t *testing.T, c *mr.Coordinator, id string)
		reason mr.Reason
		state  mr.State
	}{
		"unregistered": {func(t *testing.T, c *mr.Coordinator, _ string) { unregister(t, c) }, mr.Expired, mr.Returned},
		"cancelled": {func(t *testing.T, c *mr.Coordinator, id string) {
			for _, want := range []int{1, 0} {
				n, record, err := c.CancelMulticast(t.Context(), id)
				noError(t, err)
				if n != want || record.State != mr.WithdrawnByID || record.Result.Failed != 1 {
					t.Errorf("withdrew %d, want %d: %+v", n, want, record)
				}
			}
		}, mr.Withdrawn, mr.WithdrawnByID},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := kept(t, 2)
			attach(t, c, always, "id-00001")
			sent := multicast(t, c, mr.Request{})
			row.ends(t, c, sent.ID)
			record := get(t, c, sent.ID)
			target := record.Result.Targets[0]
			if target.Status != mr.Failed || target.Reason != row.reason || target.Err == nil || record.State != row.state {
				t.Errorf("%+v in %+v", target, record)
			}
			s, err := c.Subscribe(t.Context())
			noError(t, err)
			_, err = c.Register(t.Context(), mr.Registration{ID: "id-00000", Mode: mr.Replace})
			noError(t, err)
			noError(t, s.Attach(t.Context(), false, "id-00000"))
			next := multicast(t, c, mr.Request{RetryAttempts: 1, Timeout: 100 * time.Millisecond})
			event, err := s.Next(t.Context())
			if err != nil || event.Messages[0].ID != next.ID {
				t.Errorf("received %+v, %v", event, err)
			}
			noError(t, s.Close())
		})
	}
}

// TestCancelTooLate cancels what has been delivered already.
func TestCancelTooLate(t *testing.T) {
	t.Parallel()
	c, _ := kept(t, 1)
	attach(t, c, always, "id-00000")
	sent := multicast(t, c, mr.Request{})
	n, record, err := c.CancelMulticast(t.Context(), sent.ID)
	if err != nil || n != 0 || record.State != mr.Returned || record.Result.Delivered != 1 {
		t.Errorf("withdrew %d: %+v, %v", n, record, err)
	}
}

// TestCancelElsewhereWhileDelivered cancels through another process while the last ack is on its way: nothing is withdrawn.
func TestCancelElsewhereWhileDelivered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, k := kept(t, 1)
		attach(t, c, func(mr.Message) bool { <-time.After(100 * time.Millisecond); return true }, "id-00000")
		var cancelling sync.WaitGroup
		sent := multicast(t, c, mr.Request{Began: func(id string, _ mr.Revision, _ int) {
			cancelling.Go(func() { cancelElsewhere(t, k, 50*time.Millisecond, id, mr.Returned) })
		}})
		cancelling.Wait()
		if r := get(t, c, sent.ID); r.State != mr.Returned || r.Result.Delivered != 1 {
			t.Errorf("%+v", r)
		}
	})
}

// TestCancelElsewhereWhileFinishing cancels through another process when all is stored and only the record is not: nothing is
// delivered afterwards.
func TestCancelElsewhereWhileFinishing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, k := kept(t, 1)
		var cancelling sync.WaitGroup
		k.finishing = func(id string) {
			k.finishing = nil
			cancelling.Go(func() { cancelElsewhere(t, k, 0, id, mr.WithdrawnByID) })
			<-time.After(time.Second)
		}
		sent := multicast(t, c, mr.Request{IdempotencyKey: "k"})
		cancelling.Wait()
		again := multicast(t, c, mr.Request{IdempotencyKey: "k"})
		for _, r := range []*mr.Result{sent, &get(t, c, sent.ID).Result, again} {
			if target := r.Targets[0]; target.Status != mr.Failed || target.Reason != mr.Withdrawn || r.Failed != 1 {
				t.Errorf("%+v", r)
			}
		}
		attach(t, c, func(m mr.Message) bool { t.Errorf("received %+v", m); return true }, "id-00000")
		synctest.Wait()
	})
}

// cancelElsewhere cancels a multicast as another process does, which knows of it by the ledger.
func cancelElsewhere(t *testing.T, k *keeping, after time.Duration, id string, want mr.State) {
	t.Helper()
	<-time.After(after)
	slots := memorySlots()
	slots.Durability = k.Durability
	there := open(t, mr.Config{}, slots)
	_, record, err := there.CancelMulticast(t.Context(), id)
	if err != nil || record.State != want {
		t.Errorf("%+v, %v", record, err)
	}
	list, err := there.ListMulticasts(t.Context(), "", 10)
	if err != nil || len(list) != 1 || list[0].State != want {
		t.Errorf("listed %+v, %v", list, err)
	}
}

// TestCancelWhileUnderWay cancels a multicast whose target does not ack, here and through another process.
func TestCancelWhileUnderWay(t *testing.T) {
	t.Parallel()
	for name, elsewhere := range map[string]bool{"here": false, "elsewhere": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				slots := memorySlots()
				slots.Durability = memory.NewDurability(memory.DurabilityConfig{})
				here := open(t, mr.Config{Timeout: 5 * time.Second}, slots)
				there := open(t, mr.Config{}, slots)
				register(t, here, 2, nil)
				attach(t, here, func(m mr.Message) bool { return m.Identity == "id-00001" }, ids(2)...)
				canceller := here
				if elsewhere {
					canceller = there
				}
				began := make(chan string, 1)
				var cancelling sync.WaitGroup
				cancelling.Go(func() {
					id := <-began
					<-time.After(2 * time.Second)
					if r := get(t, canceller, id); r.State != mr.Running || r.Result.ID != id || r.Result.TargetCount != 0 {
						t.Errorf("under way: %+v", r)
					}
					_, record, err := canceller.CancelMulticast(t.Context(), id)
					if err != nil || record.State != mr.WithdrawnByID {
						t.Errorf("%+v, %v", record, err)
					}
				})
				result := multicast(t, here, mr.Request{Began: func(id string, _ mr.Revision, _ int) { began <- id }})
				checkResult(t, result, ids(2))
				target := result.Targets[0]
				switch {
				case !elsewhere && (result.Ended != mr.Cancelled || target.Status != mr.Timeout || result.Elapsed > 2100*time.Millisecond):
					t.Errorf("%+v", result)
				case elsewhere && (target.Status != mr.Failed || target.Reason != mr.Withdrawn):
					t.Errorf("%+v", result)
				}
				cancelling.Wait()
				if r := get(t, there, result.ID); r.State != mr.WithdrawnByID || r.Result.Pending != 0 || r.Result.Delivered != 1 {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

func TestListMulticasts(t *testing.T) {
	t.Parallel()
	c, _ := kept(t, 2)
	var sent []string
	for range 5 {
		sent = append(sent, multicast(t, c, mr.Request{}).ID)
		<-time.After(2 * time.Millisecond) // ids are ordered by the millisecond
	}
	slices.Reverse(sent)
	attach(t, c, always, "id-00000")
	for deadline := time.Now().Add(10 * time.Second); get(t, c, sent[0]).Result.Delivered == 0 && time.Now().Before(deadline); {
	}
	var got []string
	before := ""
	for {
		page, err := c.ListMulticasts(t.Context(), before, 2)
		noError(t, err)
		if len(page) == 0 {
			break
		}
		for _, r := range page {
			got = append(got, r.Result.ID)
			if r.Result.TargetCount != 2 || r.Result.Delivered != 1 || r.Result.Pending != 1 || r.Result.Targets != nil {
				t.Errorf("%+v", r)
			}
		}
		before = got[len(got)-1]
	}
	if !slices.Equal(got, sent) {
		t.Errorf("listed %v, want %v", got, sent)
	}
	for _, limit := range []int{0, -1, mr.MaxMulticastsPage + 1} {
		if _, err := c.ListMulticasts(t.Context(), "", limit); !errors.Is(err, mr.ErrInvalid) {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
}

func TestMulticastsAreKeptNowhere(t *testing.T) {
	t.Parallel()
	c := open(t, mr.Config{}, memorySlots())
	_, errGet := c.GetMulticast(t.Context(), "x")
	_, errList := c.ListMulticasts(t.Context(), "", 10)
	_, _, errCancel := c.CancelMulticast(t.Context(), "x")
	_, errKey := c.Multicast(t.Context(), mr.Request{IdempotencyKey: "k"})
	for _, err := range []error{errGet, errList, errCancel, errKey} {
		if !errors.Is(err, mr.ErrUnsupported) {
			t.Error(err)
		}
	}
	c, _ = kept(t, 0)
	if _, err := c.GetMulticast(t.Context(), "x"); !errors.Is(err, mr.ErrNotFound) {
		t.Error(err)
	}
	if _, err := c.GetMulticast(t.Context(), ""); !errors.Is(err, mr.ErrInvalid) {
		t.Error(err)
	}
	if _, _, err := c.CancelMulticast(t.Context(), "x"); !errors.Is(err, mr.ErrNotFound) {
		t.Error(err)
	}
}

func TestIdempotency(t *testing.T) {
	t.Parallel()
	c, _ := kept(t, 3)
	copies := make(chan string, 100)
	attach(t, c, func(m mr.Message) bool { copies <- m.ID; return true }, "id-00000", "id-00001")
	request := mr.Request{Payload: []byte("once"), IdempotencyKey: "key \x00\r\n é"}
	first := multicast(t, c, request)
	_, err := c.Register(t.Context(), mr.Registration{ID: "somebody new"})
	noError(t, err)
	for range 3 {
		again := multicast(t, c, request)
		if !again.Replayed || first.Replayed {
			t.Error("what is a replay and what is not is confused")
		}
		again.Replayed = false
		for i := range again.Targets {
			again.Targets[i].Err, first.Targets[i].Err = nil, nil
			again.Targets[i].Latency = first.Targets[i].Latency
		}
		if fmt.Sprint(*again) != fmt.Sprint(*first) {
			t.Errorf("replayed %+v\nwant %+v", again, first)
		}
	}
	for name, other := range map[string]mr.Request{
		"payload":      {Payload: []byte("twice"), IdempotencyKey: request.IdempotencyKey},
		"content type": {Payload: request.Payload, ContentType: "text/plain", IdempotencyKey: request.IdempotencyKey},
		"delivery":     {Payload: request.Payload, Delivery: mr.ExactlyOnce, IdempotencyKey: request.IdempotencyKey},
		"filter":       {Payload: request.Payload, Filter: parse(t, `{"a": 1}`), IdempotencyKey: request.IdempotencyKey},
	} {
		var bad *mr.InvalidError
		if _, err := c.Multicast(t.Context(), other); !errors.As(err, &bad) || bad.Field != "idempotency_key" {
			t.Errorf("another %s: %v", name, err)
		}
	}
	if other := multicast(t, c, mr.Request{Payload: []byte("twice"), IdempotencyKey: "another"}); other.Replayed || other.ID == first.ID {
		t.Errorf("%+v", other)
	}
	if len(copies) != 4 {
		t.Errorf("%d copies went out, want 4", len(copies))
	}
}

// TestIdempotencyContention has many callers of one key at once: one multicast goes out, all get its result.
func TestIdempotencyContention(t *testing.T) {
	t.Parallel()
	c, _ := kept(t, 1)
	copies := make(chan string, 100)
	attach(t, c, func(m mr.Message) bool {
		<-time.After(50 * time.Millisecond)
		copies <- m.ID
		return true
	}, "id-00000")
	var mu sync.Mutex
	seen := map[string]int{}
	replayed := 0
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			result, err := c.Multicast(t.Context(), mr.Request{IdempotencyKey: "k"})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			seen[result.ID]++
			if result.Replayed {
				replayed++
			}
			if result.Delivered != 1 {
				t.Errorf("%+v", result)
			}
		})
	}
	callers.Wait()
	if len(seen) != 1 || replayed != 7 || len(copies) != 1 {
		t.Errorf("%d multicasts, %d replayed, %d copies", len(seen), replayed, len(copies))
	}
}

// TestIdempotencyAfterCrash has the first request's process vanish before the result was kept.
func TestIdempotencyAfterCrash(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, k := kept(t, 1)
		attach(t, c, always, "id-00000")
		k.finish = fmt.Errorf("test: %w", mr.ErrUnavailable)
		first := multicast(t, c, mr.Request{IdempotencyKey: "k"})
		if !errors.Is(first.Unrecorded, mr.ErrUnavailable) || first.Delivered != 1 {
			t.Errorf("%+v", first)
		}
		k.finish = nil
		if _, err := c.Multicast(t.Context(), mr.Request{IdempotencyKey: "k", Timeout: time.Second}); !errors.Is(err, mr.ErrUnavailable) {
			t.Errorf("while it may still run: %v", err)
		}
		<-time.After(time.Minute)
		second := multicast(t, c, mr.Request{IdempotencyKey: "k"})
		if second.ID != first.ID || second.Replayed || second.Delivered != 1 {
			t.Errorf("%+v", second)
		}
		if third := multicast(t, c, mr.Request{IdempotencyKey: "k"}); third.ID != first.ID || !third.Replayed {
			t.Errorf("%+v", third)
		}
	})
}

func TestLedgerIsAway(t *testing.T) {
	t.Parallel()
	c, k := kept(t, 1)
	attach(t, c, always, "id-00000")
	k.begin, k.finish = fmt.Errorf("test: %w", mr.ErrUnavailable), fmt.Errorf("test: %w", mr.ErrUnavailable)
	if _, err := c.Multicast(t.Context(), mr.Request{IdempotencyKey: "k"}); !errors.Is(err, mr.ErrUnavailable) {
		t.Error(err)
	}
	if result := multicast(t, c, mr.Request{}); result.Delivered != 1 || !errors.Is(result.Unrecorded, mr.ErrUnavailable) {
		t.Errorf("%+v", result)
	}
}

func TestGuards(t *testing.T) {
	t.Parallel()
	c, _ := kept(t, 3)
	attach(t, c, func(m mr.Message) bool { t.Errorf("received %+v", m); return true }, ids(3)...)
	if _, err := c.Multicast(t.Context(), mr.Request{MaxTargets: 2}); !errors.Is(err, mr.ErrQuota) {
		t.Error(err)
	}
	var told []mr.Target
	result := multicast(t, c, mr.Request{DryRun: true, MaxTargets: 3, Settled: func(targets []mr.Target) { told = append(told, targets...) }})
	if result.Ended != mr.DryRun || result.TargetCount != 3 || len(result.Targets) != 3 || result.Revision == 0 || len(told) != 3 ||
		result.Delivered+result.Pending+result.Failed+result.TimedOut != 0 || result.Targets[0].Status != 0 {
		t.Errorf("%+v", result)
	}
	if list, err := c.ListMulticasts(t.Context(), "", 10); err != nil || len(list) != 0 {
		t.Errorf("%d multicasts are kept, %v", len(list), err)
	}
	for field, req := range map[string]mr.Request{
		"retry_attempts": {RetryAttempts: mr.MaxRetryAttempts + 1}, "retry_delay": {RetryDelay: -1}, "max_targets": {MaxTargets: -1},
		"idempotency_key": {IdempotencyKey: string(make([]byte, mr.MaxKeyBytes+1))},
	} {
		var bad *mr.InvalidError
		if _, err := c.Multicast(t.Context(), req); !errors.As(err, &bad) || bad.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// TestSettled is told of each target once, of those that are delivered while others are still open.
func TestSettled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, _ := kept(t, 4)
		attach(t, c, func(m mr.Message) bool { return m.Identity != "id-00001" }, "id-00000", "id-00001", "id-00002")
		start := time.Now()
		told := map[string]time.Duration{}
		var began []int
		result := multicast(t, c, mr.Request{
			Began: func(_ string, _ mr.Revision, targets int) { began = append(began, targets) },
			Settled: func(targets []mr.Target) {
				for _, target := range targets {
					if _, again := told[target.Identity]; again || target.Status == 0 {
						t.Errorf("told again, or too early: %+v", target)
					}
					told[target.Identity] = time.Since(start)
				}
			},
		})
		checkResult(t, result, ids(4))
		if len(told) != 4 || told["id-00000"] != 0 || told["id-00002"] != 0 || told["id-00001"] != 5*time.Second ||
			!slices.Equal(began, []int{4}) {
			t.Errorf("told %v, began %v", told, began)
		}
	})
}
