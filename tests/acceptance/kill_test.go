package acceptance

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/testenv"
)

// ledger is what a number of programs received, by identity and message.
type ledger struct {
	mu    sync.Mutex
	times map[client.MessageName]int
}

func (l *ledger) handle(_ context.Context, m client.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times[m.Name()]++
	return nil
}

// checkOnce checks that nothing came twice.
func (l *ledger) checkOnce(t testing.TB) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, times := range l.times {
		if times != 1 {
			t.Errorf("%s received message %s %d times", name.Identity, name.ID, times)
		}
	}
}

// join makes programs out of identities, as an application does, until the returned function is called.
func (p *proxy) join(t testing.TB, l *ledger, ttl time.Duration, ids ...string) (leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var all []client.Registration
	for _, id := range ids {
		all = append(all, client.Registration{ID: id, TTL: ttl})
	}
	joined, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		ended <- p.JoinAll(ctx, all, l.handle, client.WithoutUnregister(), client.OnJoined(func() {
			select {
			case joined <- struct{}{}:
			default:
			}
		}))
	}()
	left := false
	leave = func() {
		if !left {
			left = true
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("join: %v", err)
			}
		}
	}
	t.Cleanup(leave)
	select {
	case <-joined:
	case err := <-ended:
		ended <- err
		t.Fatalf("join: %v", err)
	}
	return leave
}

// TestKilledInMidMulticast kills the proxy that programs are attached to, then the one that multicasts, in the middle of it.
// When both run again every program is registered and reached, none has received anything twice, and when the programs have
// gone their leases end and leave nothing behind.
func TestKilledInMidMulticast(t *testing.T) { onShared(t, killedInMidMulticast) }

func killedInMidMulticast(t *testing.T, slots string, redis ...string) {
	t.Helper()
	namespace := testenv.Prefix(t)
	var p [3]process
	for i := range p {
		p[i] = start(t, namespace, config(namespace, slots))
	}
	const n, ttl = 200, 4 * time.Second
	l := &ledger{times: make(map[client.MessageName]int)}
	leaveB := p[1].join(t, l, ttl, names(n)[:n/2]...)
	leaveC := p[2].join(t, l, ttl, names(n)[n/2:]...)

	ctx, stop := context.WithCancel(t.Context())
	var sending sync.WaitGroup
	defer sending.Wait()
	defer stop()
	underWay := make(chan struct{}, 1)
	sending.Go(func() {
		for ctx.Err() == nil {
			select {
			case underWay <- struct{}{}: // a multicast is about to be
			default:
			}
			result, err := p[0].Multicast(ctx, client.MulticastRequest{Timeout: 500 * time.Millisecond})
			if err != nil {
				if ctx.Err() == nil && !errors.Is(err, client.ErrUnavailable) {
					t.Errorf("multicast: %v", err)
				}
				continue
			}
			<-time.After(10 * time.Millisecond)
			if sum := result.Delivered + result.Pending + result.Failed + result.TimedOut; sum != result.TargetCount {
				t.Errorf("the counts add up to %d of %d", sum, result.TargetCount)
			}
		}
	})
	for _, victim := range []process{p[2], p[0]} {
		<-underWay
		<-underWay
		victim.kill()
		victim.launch()
	}
	eventually(t, "every program is registered and reached again", func() bool {
		result, err := p[1].Multicast(t.Context(), client.MulticastRequest{Timeout: 2 * time.Second})
		return err == nil && result.Delivered == n && result.TargetCount == n
	})
	stop()
	sending.Wait()
	l.checkOnce(t)
	if len(redis) > 0 {
		checkExpiries(t, redis, namespace, n)
	}
	leaveB()
	leaveC()
	eventually(t, "the leases of the programs that have gone end", func() bool { return len(p[1].find(t, `{}`)) == 0 })
	if len(redis) > 0 {
		checkNothingLeft(t, redis, namespace)
	}
}

// TestRollingRestart restarts one proxy after the other under load: no registration that was acknowledged is lost.
func TestRollingRestart(t *testing.T) { onShared(t, rollingRestart) }

func rollingRestart(t *testing.T, slots string, _ ...string) {
	t.Helper()
	namespace := testenv.Prefix(t)
	var p [3]process
	for i := range p {
		p[i] = start(t, namespace, config(namespace, slots))
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var working sync.WaitGroup
	acknowledged := make([][]string, 24)
	for w := range acknowledged {
		working.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				id := fmt.Sprintf("w%d-%d", w, i)
				call, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
				_, err := p[(w+i)%3].Register(call, client.Registration{ID: id, TTL: time.Hour})
				cancel()
				switch {
				case err == nil:
					acknowledged[w] = append(acknowledged[w], id)
				case !errors.Is(err, client.ErrUnavailable):
					t.Errorf("register %s: %v", id, err)
				}
				<-time.After(5 * time.Millisecond)
			}
		})
	}
	for _, one := range p {
		one.restart()
		eventually(t, "the proxy works again", func() bool {
			_, err := one.Enumerate(t.Context(), client.Query{PageSize: 1})
			if err != nil && !errors.Is(err, client.ErrUnavailable) {
				t.Errorf("enumerate: %v", err)
			}
			return err == nil
		})
	}
	stop()
	working.Wait()
	found := make(map[string]bool)
	for _, identity := range p[0].find(t, `{}`) {
		found[identity.ID] = true
	}
	total := 0
	for _, ids := range acknowledged {
		total += len(ids)
		for _, id := range ids {
			if !found[id] {
				t.Errorf("%s was acknowledged and is lost", id)
			}
		}
	}
	if total < 50 {
		t.Errorf("only %d registrations were made: that is no load", total)
	}
}
