package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// held returns how many calls of Renew wait for a script, and how many scripts are under way.
func (s *sharing) held() (waiting, scripts int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting), s.scripts
}

// occupy has a Redis that does not answer hold all scripts that may be under way, with a call each.
func (s *sharing) occupy(t *testing.T, calls *sync.WaitGroup, call func()) {
	t.Helper()
	for i := range s.most {
		calls.Go(call)
		eventually(t, "a script is under way", func() bool {
			waiting, scripts := s.held()
			return waiting == 0 && scripts == i+1
		})
	}
}

// TestRenewalsTogether has many calls wait while Redis does not answer: they share scripts, and each gets its own answer.
func TestRenewalsTogether(t *testing.T) {
	t.Parallel()
	fault := testenv.NewFault(t, testenv.Redis(t).Addr)
	r := NewRegistry(connect(t, Config{Host: fault.Addr, Timeout: 30 * time.Second}), RegistryConfig{Namespace: testenv.Prefix(t)})
	const n = 3 * renewedAtOnce
	registered := make(map[string]mr.Revision)
	for i := range n {
		ttl := time.Hour
		if i%3 == 1 {
			ttl = mr.NoExpiry
		}
		if i%3 < 2 {
			stored, err := r.Put(t.Context(), mr.Identity{ID: fmt.Sprint("id ", i), TTL: ttl}, mr.Create)
			noError(t, err)
			registered[stored.ID] = stored.Revision
		}
	}
	before, err := r.Head(t.Context())
	noError(t, err)
	fault.Stall()
	var calls sync.WaitGroup
	r.renewals.occupy(t, &calls, func() { _, _ = r.Renew(t.Context(), "nobody", 0) })
	for i := range n {
		calls.Go(func() {
			id, ttl := fmt.Sprint("id ", i), time.Duration(0)
			if i%2 == 0 {
				ttl = time.Minute
			}
			lease, err := r.Renew(t.Context(), id, ttl)
			want := time.Hour
			switch {
			case i%3 == 2:
				if !errors.Is(err, mr.ErrNotFound) {
					t.Errorf("%s: %v, %v; want it not to be found", id, lease, err)
				}
				return
			case i%2 == 0:
				want = time.Minute
			case i%3 == 1:
				want = mr.NoExpiry
			}
			if err != nil || lease.TTL != want || lease.ExpiresAt.IsZero() != (want == mr.NoExpiry) || lease.Of != registered[id] {
				t.Errorf("%s: %v, %v; want a lease of %v, of %d", id, lease, err, want, registered[id])
			}
		})
	}
	eventually(t, "the calls wait", func() bool {
		waiting, _ := r.renewals.held()
		return waiting == n
	})
	gone, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := r.Renew(gone, "id 0", time.Second)
		left <- err
	}()
	eventually(t, "one more waits", func() bool {
		waiting, _ := r.renewals.held()
		return waiting == n+1
	})
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("the call that was left: %v", err)
	}
	fault.Heal()
	calls.Wait()
	eventually(t, "nothing is left", func() bool {
		waiting, scripts := r.renewals.held()
		return waiting+scripts == 0
	})
	head, err := r.Head(t.Context())
	noError(t, err)
	if got, want := head-before, mr.Revision(len(registered)); got != want {
		t.Errorf("%d changes, want one for each of %d renewals", got, want)
	}
}

// TestRenewalsTwice renews one identity several times with one script: the later see what the earlier have set.
func TestRenewalsTwice(t *testing.T) {
	t.Parallel()
	r := registry(t, shared(t), RegistryConfig{})
	_, err := r.Put(t.Context(), mr.Identity{ID: "a", TTL: time.Minute}, mr.Create)
	noError(t, err)
	reply, err := r.change(t.Context(), renewScript, []string{r.keys.leases, r.keys.head, r.keys.log},
		r.keys.identity, "a", "3600000", "b", "0", "a", "0", "a", "-1", "a", "0")
	noError(t, err)
	var got []int64
	for ; len(reply) >= renewFields; reply = reply[renewFields:] {
		got = append(got, reply[2])
	}
	if fmt.Sprint(got) != "[3600000 0 3600000 -1 -1]" {
		t.Errorf("TTLs %v", got)
	}
	if lease, err := r.Renew(t.Context(), "a", 0); err != nil || lease.TTL != mr.NoExpiry {
		t.Errorf("got %v, %v", lease, err)
	}
}

// TestRenewalsClosed closes the connection while calls wait: all are told, and so is who comes later.
func TestRenewalsClosed(t *testing.T) {
	t.Parallel()
	fault := testenv.NewFault(t, testenv.Redis(t).Addr)
	c := connect(t, Config{Host: fault.Addr, Timeout: 30 * time.Second})
	r := NewRegistry(c, RegistryConfig{Namespace: testenv.Prefix(t)})
	fault.Stall()
	const n = 2 * renewedAtOnce
	var calls sync.WaitGroup
	renew := func() {
		if _, err := r.Renew(t.Context(), "a", 0); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	}
	r.renewals.occupy(t, &calls, renew)
	for range n {
		calls.Go(renew)
	}
	eventually(t, "the calls wait", func() bool {
		waiting, _ := r.renewals.held()
		return waiting == n
	})
	c.Close()
	calls.Wait()
	renew()
	if waiting, scripts := r.renewals.held(); waiting+scripts != 0 {
		t.Errorf("%d calls wait, %d scripts are under way", waiting, scripts)
	}
}
