package limits

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prism-data-layer/prism/internal/auth"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func wantExceeded(t *testing.T, err error, limit string, retryAfter time.Duration) {
	t.Helper()
	e, ok := errors.AsType[*ExceededError](err)
	if !ok || !errors.Is(err, mr.ErrQuota) || e.Limit != limit || e.RetryAfter != retryAfter {
		t.Fatalf("got %v; want that %s is exceeded, for %s", err, limit, retryAfter)
	}
}

func TestRates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := New(Config{
			PerCaller: Share{Rates: map[auth.Role]Rate{auth.RoleRegister: {PerSecond: 10, Burst: 2}, auth.RoleMulticast: {PerSecond: 0.5}}},
			Total:     Share{Rates: map[auth.Role]Rate{auth.RoleRegister: {PerSecond: 1, Burst: 3}}},
		})
		call := func(caller string, op auth.Operation) error { return l.Call(caller, op) }
		for range 2 {
			if err := call("a", auth.OpHeartbeat); err != nil { // of the same role as register
				t.Fatal(err)
			}
		}
		wantExceeded(t, call("a", auth.OpRegister), "per_caller.rates.register", 100*time.Millisecond)
		if err := call("b", auth.OpRegister); err != nil {
			t.Fatal(err)
		}
		for range 5 { // what all together may not is not b's loss
			wantExceeded(t, call("b", auth.OpRegister), "total.rates.register", time.Second)
		}
		<-time.After(time.Second)
		if err := call("b", auth.OpRegister); err != nil {
			t.Fatal(err)
		}
		if err := call("b", auth.OpMulticast); err != nil {
			t.Fatal(err)
		}
		wantExceeded(t, call("b", auth.OpMulticast), "per_caller.rates.multicast", 2*time.Second)
		if err := call("b", auth.OpWatch); err != nil {
			t.Errorf("what has no limit: %v", err)
		}
	})
}

func TestStreams(t *testing.T) {
	t.Parallel()
	l := New(Config{PerCaller: Share{Streams: 2, Attached: 10}, Total: Share{Streams: 3, Attached: 15}})
	open := func(caller string) *Stream {
		t.Helper()
		s, err := l.Stream(caller)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a1, a2 := open("a"), open("a")
	_, err := l.Stream("a")
	wantExceeded(t, err, "per_caller.streams", 0)
	b := open("b")
	_, err = l.Stream("c")
	wantExceeded(t, err, "total.streams", 0)

	for _, s := range []*Stream{a1, a2, b} {
		if err := s.Attach(5); err != nil {
			t.Fatal(err)
		}
	}
	wantExceeded(t, a2.Attach(1), "per_caller.attached", 0)
	wantExceeded(t, b.Attach(1), "total.attached", 0)
	a1.Detach(2)
	if err := b.Attach(2); err != nil {
		t.Fatal(err)
	}
	a1.Detach(100) // more than it has
	a1.End()
	a1.End()
	a1.Detach(1)
	if err := a1.Attach(1); err != nil { // it is over: nothing is counted
		t.Fatal(err)
	}
	if err := open("a").Attach(3); err != nil {
		t.Fatal(err)
	}
	wantExceeded(t, a2.Attach(3), "per_caller.attached", 0)
}

// TestForgotten forgets callers who hold nothing, and nobody else.
func TestForgotten(t *testing.T) {
	t.Parallel()
	l := New(Config{PerCaller: Share{Streams: 1, Rates: map[auth.Role]Rate{auth.RoleWatch: {PerSecond: 1}}}})
	s, err := l.Stream("keeps one")
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxCallers + 10 {
		if err := l.Call(fmt.Sprint("caller ", i), auth.OpWatch); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(l.callers); n != maxCallers+1 {
		t.Errorf("%d callers are remembered", n)
	}
	_, err = l.Stream("keeps one")
	wantExceeded(t, err, "per_caller.streams", 0)
	s.End()
	if _, err = l.Stream("keeps one"); err != nil {
		t.Error(err)
	}
}

func TestTogether(t *testing.T) {
	t.Parallel()
	l := New(Config{Total: Share{Streams: 5, Attached: 100}, PerCaller: Share{Rates: map[auth.Role]Rate{auth.RoleWatch: {PerSecond: 1e9}}}})
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			for range 200 {
				caller := fmt.Sprint(i % 3)
				if err := l.Call(caller, auth.OpWatch); err != nil {
					t.Error(err)
				}
				if s, err := l.Stream(caller); err == nil {
					_ = s.Attach(30)
					s.Detach(10)
					s.End()
				}
			}
		})
	}
	all.Wait()
	if l.total.streams+l.total.attached != 0 || l.idle.Len() != len(l.callers) {
		t.Errorf("%d streams, %d attached, %d of %d idle", l.total.streams, l.total.attached, l.idle.Len(), len(l.callers))
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	l := New(Config{MinTTL: time.Second, MaxTTL: time.Minute, MaxTargets: 10})
	for ttl, field := range map[time.Duration]string{
		0: "", time.Second: "", time.Minute: "", time.Second - 1: "ttl", time.Minute + 1: "ttl", mr.NoExpiry: "never_expires",
	} {
		bad, ok := errors.AsType[*mr.InvalidError](l.CheckTTL(ttl))
		if ok != (field != "") || ok && bad.Field != field {
			t.Errorf("%s: %v", ttl, bad)
		}
	}
	for asked, want := range map[int]int{0: 10, 5: 5, 10: 10, 11: 10} {
		if got := l.MaxTargets(asked); got != want {
			t.Errorf("of %d: %d", asked, got)
		}
	}
	if err := New(Config{MinTTL: time.Second}).CheckTTL(mr.NoExpiry); err != nil {
		t.Errorf("without a maximum: %v", err)
	}
}

// TestNoLimits has a nil Limits allow everything.
func TestNoLimits(t *testing.T) {
	t.Parallel()
	var l *Limits
	s, err := l.Stream("a")
	if err = errors.Join(err, s.Attach(1), l.Call("a", auth.OpRegister), l.CheckTTL(mr.NoExpiry)); err != nil || l.MaxTargets(3) != 3 {
		t.Error(err)
	}
	s.Detach(1)
	s.End()
}

func TestValidate(t *testing.T) {
	t.Parallel()
	rates := func(role auth.Role, r Rate) Share { return Share{Rates: map[auth.Role]Rate{role: r}} }
	for field, cfg := range map[string]Config{
		"per_caller.rates.register": {PerCaller: rates("register", Rate{})},
		"total.rates.watch":         {Total: rates("watch", Rate{PerSecond: 1, Burst: -1})},
		"total.rates.admin":         {Total: rates("admin", Rate{PerSecond: 1})},
		"total.rates.chief":         {Total: rates("chief", Rate{PerSecond: 1})},
		"total.streams":             {Total: Share{Streams: -1}},
		"per_caller.attached":       {PerCaller: Share{Attached: -1}},
		"min_ttl":                   {MinTTL: 2, MaxTTL: 1},
		"max_ttl":                   {MaxTTL: -1},
		"max_targets":               {MaxTargets: -1},
		"":                          {PerCaller: rates("register", Rate{PerSecond: 0.1}), MinTTL: 1, MaxTTL: 1},
	} {
		bad, _ := errors.AsType[*mr.InvalidError](cfg.Validate())
		if bad == nil && field != "" || bad != nil && bad.Field != field {
			t.Errorf("%s: %v", field, bad)
		}
	}
	if err := (Config{MinTTL: -1}).Validate(); err == nil {
		t.Error("a negative min_ttl passes")
	}
}

// BenchmarkCall measures what a call costs that has a bucket of its own and one in common.
func BenchmarkCall(b *testing.B) {
	most := map[auth.Role]Rate{auth.RoleRegister: {PerSecond: 1e9}}
	for name, l := range map[string]*Limits{"none": nil, "both": New(Config{PerCaller: Share{Rates: most}, Total: Share{Rates: most}})} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := l.Call("token:a", auth.OpRegister); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Other limits begin with what is taken already.
func TestWith(t *testing.T) {
	one := New(Config{PerCaller: Share{Streams: 1, Attached: 5, Rates: map[auth.Role]Rate{auth.RoleRegister: {PerSecond: 0.001}}}})
	held, err := one.Stream("a")
	if err != nil || held.Attach(5) != nil || one.Call("a", auth.OpRegister) != nil {
		t.Fatal("the first of each is refused")
	}
	two := one.With(Config{PerCaller: Share{Streams: 2, Attached: 7}, Total: Share{Streams: 2}})
	if err := held.Attach(1); err == nil {
		t.Error("6 attached of 5, under limits that do not hold yet")
	}
	two.Hold()
	if err := held.Attach(1); err != nil {
		t.Errorf("6 attached of 7: %v", err)
	}
	held.Detach(1)
	_ = one.Call("a", auth.OpRegister) // of before, and it brings the old limits not back
	if err := two.Call("a", auth.OpRegister); err != nil {
		t.Errorf("a rate that is no more: %v", err)
	}
	more, err := two.Stream("a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := two.Stream("a"); err == nil {
		t.Error("a third stream of two")
	}
	if _, err := two.Stream("b"); err == nil {
		t.Error("a third stream of two for all")
	}
	if err := more.Attach(3); err == nil {
		t.Error("8 attached of 7")
	}
	if err := held.Attach(2); err != nil {
		t.Errorf("7 attached of 7: %v", err)
	}
	held.End()
	if err := more.Attach(7); err != nil {
		t.Errorf("what an old stream held is not given back: %v", err)
	}
	more.End()
	if last, err := two.Stream("b"); err != nil {
		t.Error(err)
	} else {
		last.End()
	}
	if New(Config{}).With(Config{MaxTargets: 3}).MaxTargets(0) != 3 || (*Limits)(nil).With(Config{MaxTargets: 3}).MaxTargets(0) != 3 {
		t.Error("the limits are not the new ones")
	}
}

// A bucket whose rate is the same is as empty as before.
func TestWithTheSameRate(t *testing.T) {
	rates := Share{Rates: map[auth.Role]Rate{auth.RoleRegister: {PerSecond: 0.001}}, PayloadBytes: Rate{PerSecond: 0.001, Burst: 5}}
	l := New(Config{PerCaller: rates, Total: rates})
	if l.Call("a", auth.OpRegister) != nil || l.Payload("a", 5) != nil {
		t.Fatal("the first of each is refused")
	}
	l = l.With(Config{PerCaller: rates, Total: rates, MaxTargets: 1})
	l.Hold()
	if l.Call("a", auth.OpRegister) == nil || l.Payload("a", 5) == nil {
		t.Error("the buckets are full again")
	}
}
