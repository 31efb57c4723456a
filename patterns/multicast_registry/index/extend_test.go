package index

import (
	"fmt"
	"sync"
	"testing"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func TestExtend(t *testing.T) {
	t.Parallel()
	since := time.Unix(1000, 0)
	until := since.Add(time.Minute)
	const ttl = 10 * time.Second
	saved := until.Add(ttl)
	for _, most := range []int{1, slots} {
		ix := newIndex(most)
		rows := map[string]struct {
			ttl        time.Duration
			ends, want time.Time
		}{
			"long before":   {ttl, since.Add(-time.Hour), since.Add(-time.Hour)},
			"at its begin":  {ttl, since, since},
			"after that":    {ttl, since.Add(1), saved},
			"during it":     {ttl, since.Add(30 * time.Second), saved},
			"at its end":    {ttl, until, saved},
			"soon after it": {ttl, saved.Add(-1), saved},
			"exactly":       {ttl, saved, saved},
			"later":         {ttl, saved.Add(1), saved.Add(1)},
			"a long one":    {time.Hour, since.Add(1), until.Add(time.Hour)},
			"never":         {multicastregistry.NoExpiry, time.Time{}, time.Time{}},
			"for ages":      {1<<63 - 1, since.Add(1), since.Add(1)}, // there is no such end
		}
		for id, row := range rows {
			ix.Put(multicastregistry.Identity{ID: id, TTL: row.ttl, ExpiresAt: row.ends})
		}
		ix.Remove("exactly")
		delete(rows, "exactly")
		ix.Extend(since, until)
		for id, row := range rows {
			if got, ok := ix.Get(id); !ok || !got.ExpiresAt.Equal(row.want) || got.TTL != row.ttl {
				t.Errorf("%s ends at %v with a TTL of %v, want %v", id, got.ExpiresAt, got.TTL, row.want)
			}
		}
		for _, row := range []struct {
			now  time.Time
			want int
		}{{until, 8 - 1}, {saved.Add(-1), 7}, {saved, 3}, {until.Add(time.Hour), 1}} {
			live := 0
			for id := range rows {
				if ix.Live(row.now, []string{id})[0] {
					live++
				}
			}
			if n := ix.Len(row.now); n != row.want || live != row.want {
				t.Errorf("%v after the end: %d, %d of them live; want %d", row.now.Sub(until), n, live, row.want)
			}
		}
		if e := ix.Earliest(); !e.IsZero() && e.After(since.Add(-time.Hour)) {
			t.Errorf("the earliest end is said to be %v", e)
		}
		ix.Extend(since, until.Add(-time.Second)) // an outage that is told again, with less
		if got, _ := ix.Get("during it"); !got.ExpiresAt.Equal(saved) {
			t.Errorf("it ends at %v", got.ExpiresAt)
		}
	}
}

// TestExtendBesideRenewals has leases renewed and identities put and removed while they are extended: each ends when the later
// of the two says.
func TestExtendBesideRenewals(t *testing.T) {
	t.Parallel()
	ix := newIndex(1000)
	const many = 3000
	since := time.Unix(1000, 0)
	end := func(n int) time.Time { return since.Add(time.Hour + time.Duration(n)*time.Second) }
	for n := range many {
		ix.Put(multicastregistry.Identity{ID: fmt.Sprint(n), TTL: time.Second, ExpiresAt: since.Add(time.Second)})
	}
	var all sync.WaitGroup
	all.Go(func() {
		for n := range 200 {
			ix.Extend(since, since.Add(time.Minute+time.Duration(n)))
		}
	})
	all.Go(func() {
		for n := range many / 2 {
			if !ix.Renew(fmt.Sprint(n), time.Hour, end(n)) {
				t.Errorf("%d is not there", n)
			}
		}
	})
	all.Go(func() {
		for n := range 200 {
			id := fmt.Sprint("more", n%10)
			ix.Put(multicastregistry.Identity{ID: id, TTL: time.Second, ExpiresAt: since})
			ix.Len(since)
			ix.Remove(id)
		}
	})
	all.Wait()
	for n := range many {
		got, _ := ix.Get(fmt.Sprint(n))
		want := since.Add(time.Minute + 199 + time.Second)
		if n < many/2 {
			want = end(n)
			if saved := since.Add(time.Minute + 199 + time.Hour); saved.After(want) {
				want = saved
			}
		}
		// A renewal after the last Extend says what counts.
		if !got.ExpiresAt.Equal(want) && (n >= many/2 || !got.ExpiresAt.Equal(end(n))) {
			t.Fatalf("%d ends at %v, want %v", n, got.ExpiresAt, want)
		}
	}
}

// BenchmarkExtend extends 100,000 leases beside as many renewals.
func BenchmarkExtend(b *testing.B) {
	ix := New()
	const many = 100_000
	since := time.Unix(1000, 0)
	names := make([]string, many)
	for n := range many {
		names[n] = fmt.Sprint("device-", n)
		ix.Put(multicastregistry.Identity{ID: names[n], TTL: time.Second, ExpiresAt: since.Add(time.Second)})
	}
	until := since
	b.Run("extend", func(b *testing.B) {
		for b.Loop() {
			until = until.Add(time.Second)
			ix.Extend(since, until)
		}
	})
	b.Run("renew", func(b *testing.B) {
		for b.Loop() {
			for _, id := range names {
				ix.Renew(id, time.Second, until)
			}
		}
	})
}
