package watch

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// BenchmarkChange states what a change costs with no watchers, with 1,000 of a room each, of whom it concerns one, with 1,000
// of one room, of whom it concerns all, and with 1,000 whose filters are unequal ranges, of which the hub looks at each and
// none matches. An operation is 100 changes of the index and its hub: put-ns is the median of what the writer waits for one,
// x-unwatched how many times as long that is as when nobody watches, and mean-put-ns has what the writer waits for a processor,
// too; told-ns is how long one takes until it is in the queues of all whom it concerns, and cpu-ns for how long the processors
// work for it, for the watchers too.
func BenchmarkChange(b *testing.B) {
	const watchers, identities, changes = 1000, 10_000, 100
	unwatched := 0.0
	for _, c := range []struct {
		name   string
		filter func(i int) string
	}{
		{"unwatched", nil},
		{"rooms", func(i int) string { return fmt.Sprintf(`{"room":"room-%d"}`, i) }},
		{"one-room", func(int) string { return `{"building":"main"}` }},
		{"ranges", func(i int) string { return fmt.Sprintf(`{"level":{"$gt":%d}}`, 1_000_000+i) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			board := newBoard(Config{})
			change := func(i int) {
				room := fmt.Sprintf("room-%d", i%watchers)
				board.put(fmt.Sprintf("id-%d", i%identities), time.Hour, map[string]any{"room": room, "level": int64(i), "building": "main"})
			}
			for i := range identities {
				change(i)
			}
			if c.filter != nil {
				defer watchAll(b, board, watchers, c.filter)()
			}
			var put []time.Duration
			var writing, told time.Duration
			began := processorTime(b)
			i := 0
			for b.Loop() {
				start := time.Now()
				for range changes {
					began := time.Now()
					change(i)
					put = append(put, time.Since(began))
					i++
				}
				writing += time.Since(start)
				if c.filter != nil {
					board.awaitTold()
				}
				told += time.Since(start)
			}
			each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(i) }
			slices.Sort(put)
			median := float64(put[len(put)/2].Nanoseconds())
			b.ReportMetric(median, "put-ns")
			b.ReportMetric(each(writing), "mean-put-ns")
			b.ReportMetric(each(told), "told-ns")
			b.ReportMetric(each(processorTime(b)-began), "cpu-ns")
			if c.filter != nil && unwatched > 0 {
				b.ReportMetric(median/unwatched, "x-unwatched")
			}
			if c.filter == nil {
				unwatched = median
			}
		})
	}
}

// watchAll has so many watch until the function that it returns is called.
func watchAll(b *testing.B, board *board, watchers int, text func(i int) string) (end func()) {
	b.Helper()
	ctx, stop := context.WithCancel(b.Context())
	var watching, synced sync.WaitGroup
	for i := range watchers {
		match, err := filter.Parse(text(i))
		if err != nil {
			b.Fatal(err)
		}
		synced.Add(1)
		watching.Go(func() {
			once := sync.OnceFunc(synced.Done)
			for news, err := range board.hub.Watch(ctx, mr.Watch{Match: match, OmitSnapshot: true}) {
				if err != nil && ctx.Err() == nil {
					b.Error(err)
				}
				for i := range news.Events {
					if news.Events[i].Type == mr.WatchSynced {
						once()
					}
				}
			}
		})
	}
	synced.Wait()
	return func() {
		stop()
		watching.Wait()
	}
}

// awaitTold waits until all changes have been handed to the watchers that they concern.
func (b *board) awaitTold() {
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	for told := false; !told; {
		b.hub.turn.Lock()
		b.hub.mu.Lock()
		told = b.hub.dispatched == b.hub.log.next
		b.hub.mu.Unlock()
		b.hub.turn.Unlock()
		if !told {
			<-tick.C
		}
	}
}

// processorTime returns for how long this process has worked.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
