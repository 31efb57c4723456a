package memory_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prism-data-layer/prism/patterns/memory"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

// pass lets time pass on synctest's clock.
func pass(d time.Duration) { <-time.After(d) }

func names(t *testing.T, r *memory.Registry) []string {
	t.Helper()
	var names []string
	for i, err := range r.Scan(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, i.ID)
	}
	return names
}

// TestExpiryInstant checks the edge of a lease to the nanosecond, for every method in a registry of its own.
func TestExpiryInstant(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const ttl = 1234567 * time.Microsecond
		live := map[string]func(r *memory.Registry) bool{
			"scan":  func(r *memory.Registry) bool { return len(names(t, r)) == 1 },
			"count": func(r *memory.Registry) bool { n, err := r.Count(t.Context()); return n == 1 && err == nil },
			"delete": func(r *memory.Registry) bool {
				existed, err := r.Delete(t.Context(), "a", 0)
				return existed && err == nil
			},
			"renew": func(r *memory.Registry) bool {
				_, err := r.Renew(t.Context(), "a", 0)
				return !errors.Is(err, mr.ErrNotFound)
			},
			"create": func(r *memory.Registry) bool {
				_, err := r.Put(t.Context(), mr.Identity{ID: "a", TTL: ttl}, mr.Create)
				return errors.Is(err, mr.ErrAlreadyExists)
			},
		}
		for name, isLive := range live {
			for _, instant := range []struct {
				after time.Duration
				live  bool
			}{{0, true}, {ttl - 1, true}, {ttl, false}, {ttl + 1, false}} {
				r := memory.NewRegistry(memory.RegistryConfig{})
				begun, err := r.Put(t.Context(), mr.Identity{ID: "a", TTL: ttl}, mr.Create)
				if err != nil || !begun.ExpiresAt.Equal(time.Now().Add(ttl)) {
					t.Fatalf("%+v, %v", begun, err)
				}
				pass(instant.after)
				if got := isLive(r); got != instant.live {
					t.Errorf("%s, %v after the start of a lease of %v: live %v", name, instant.after, ttl, got)
				}
			}
		}
	})
}

// TestRenewals walks leases through renewals that make them longer, shorter, endless and finite again, with writes by
// others in between that sweep.
func TestRenewals(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		first   time.Duration
		renewal []time.Duration // each half a second after the one before
		left    time.Duration   // of the lease, after the last
	}{
		"longer":             {time.Second, []time.Duration{time.Minute}, time.Minute},
		"shorter":            {time.Minute, []time.Duration{time.Second}, time.Second},
		"the same":           {time.Second, []time.Duration{0, 0, 0, 0, 0}, time.Second},
		"endless":            {time.Second, []time.Duration{mr.NoExpiry}, 0},
		"finite":             {mr.NoExpiry, []time.Duration{time.Second}, time.Second},
		"endless and back":   {time.Second, []time.Duration{mr.NoExpiry, 0, 0, 0, time.Second, 0}, time.Second},
		"back at once":       {time.Second, []time.Duration{mr.NoExpiry, 700 * time.Millisecond}, 700 * time.Millisecond},
		"to and fro":         {time.Second, []time.Duration{time.Hour, 2 * time.Second, time.Hour, time.Second}, time.Second},
		"longer than before": {time.Second, []time.Duration{2 * time.Second, 0, 3 * time.Second, 0}, 3 * time.Second},
	} {
		for _, busy := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, busy %v", name, busy), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					r := memory.NewRegistry(memory.RegistryConfig{})
					put(t, r, "a", row.first)
					work := func() {
						if busy {
							put(t, r, "other", 10*time.Millisecond)
						}
					}
					for _, ttl := range row.renewal {
						pass(500 * time.Millisecond)
						work()
						if _, err := r.Renew(t.Context(), "a", ttl); err != nil {
							t.Fatal(err)
						}
						work()
					}
					if row.left == 0 {
						pass(24 * 365 * time.Hour)
						work()
						pass(time.Second)
						wantNames(t, r, "a")
						return
					}
					pass(row.left - 1)
					wantNames(t, r, "a")
					pass(1)
					wantNames(t, r)
					work()
					pass(time.Second)
					if n, err := r.Count(t.Context()); n != 0 || err != nil {
						t.Errorf("count: %d, %v", n, err)
					}
				})
			})
		}
	}
}

func put(t *testing.T, r *memory.Registry, id string, ttl time.Duration) {
	t.Helper()
	if _, err := r.Put(t.Context(), mr.Identity{ID: id, TTL: ttl}, mr.Replace); err != nil {
		t.Fatal(err)
	}
}

func wantNames(t *testing.T, r *memory.Registry, want ...string) {
	t.Helper()
	if got := names(t, r); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v are live, want %v", got, want)
	}
}

// TestMassExpiry lets 50,000 leases end at one instant, half of them renewed to do so: from then on none is seen, counted
// or in the way of a limit, whatever is asked first.
func TestMassExpiry(t *testing.T) {
	t.Parallel()
	many := slottest.Rounds(50_000)
	for name, ask := range map[string]func(t *testing.T, r *memory.Registry){
		"count": func(t *testing.T, r *memory.Registry) {
			if n, err := r.Count(t.Context()); n != 0 || err != nil {
				t.Errorf("count: %d, %v", n, err)
			}
		},
		"scan":  func(t *testing.T, r *memory.Registry) { wantNames(t, r) },
		"limit": func(t *testing.T, r *memory.Registry) { put(t, r, "new", time.Hour); wantNames(t, r, "new") },
		"again": func(t *testing.T, r *memory.Registry) { put(t, r, "7", time.Hour); wantNames(t, r, "7") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := memory.NewRegistry(memory.RegistryConfig{MaxIdentities: many})
				for n := range many {
					put(t, r, fmt.Sprint(n), time.Minute)
				}
				if _, err := r.Put(t.Context(), mr.Identity{ID: "new", TTL: time.Hour}, mr.Create); !errors.Is(err, mr.ErrQuota) {
					t.Errorf("one more: %v", err)
				}
				pass(30 * time.Second)
				for n := range many / 2 {
					if _, err := r.Renew(t.Context(), fmt.Sprint(n), 30*time.Second); err != nil {
						t.Fatal(err)
					}
				}
				pass(30 * time.Second)
				ask(t, r)
			})
		})
	}
}

// TestMaxAge checks the age at which stored messages go: to the nanosecond, counted, and without anybody asking for them.
func TestMaxAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const age = time.Hour
		d := memory.NewDurability(memory.DurabilityConfig{MaxAge: age})
		store := func(topic, id string) {
			t.Helper()
			if err := d.Enqueue(t.Context(), []mr.Message{{Topic: topic, Identity: topic, ID: id}})[0]; err != nil {
				t.Fatal(err)
			}
		}
		next := func(sub mr.Subscription, ids ...string) (dropped uint64) {
			t.Helper()
			batch, err := sub.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range batch.Messages {
				got = append(got, m.ID)
			}
			if fmt.Sprint(got) != fmt.Sprint(ids) {
				t.Errorf("got %v, want %v", got, ids)
			}
			return batch.Dropped
		}
		store("a", "1")
		store("a", "2")
		pass(time.Minute)
		store("a", "3")
		pass(age - time.Minute)
		sub, err := d.Consume(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if dropped := next(sub, "1", "2", "3"); dropped != 0 { // exactly at the age they are still there
			t.Errorf("%d dropped", dropped)
		}
		if err := sub.Close(); err != nil {
			t.Fatal(err)
		}
		pass(1)
		if sub, err = d.Consume(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if dropped := next(sub, "3"); dropped != 2 {
			t.Errorf("%d dropped, want 2", dropped)
		}

		store("gone", "1")
		store("gone", "2")
		pass(age + 1)
		for n := range 10 { // whoever stores sweeps
			store("b", fmt.Sprint(n))
		}
		if n, err := d.Purge(t.Context(), "gone"); n != 0 || err != nil {
			t.Errorf("%d messages are left, %v", n, err)
		}
		if n, err := d.Purge(t.Context(), "b"); n != 10 || err != nil {
			t.Errorf("%d messages are left, %v", n, err)
		}
		if dropped := next(sub); dropped != 1 { // "3", which it held and never acked
			t.Errorf("%d dropped, want 1", dropped)
		}
	})
}
