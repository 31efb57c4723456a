package acceptance

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/testenv"
)

// BenchmarkStorm has 100,000 identities registered as fast as it goes, by a process of its own, and then has the leases of all
// of them end at once, while a client enumerates, 10 of all of them, as fast as it can. The server is a process too. Of each
// storm, and of a while between them when nothing happens, it reports the longest call and the 99.9th percentile; the limit is
// 20 ms.
//
// Beside them is how busy the machine was: by how much a goroutine of the reader's process that waits for a millisecond, again
// and again, woke up too late at the most (late-ms), and for what share of the time in which a thread of the server had
// something to do it had to wait for a processor (waited-%). Whatever holds a lock then is waited for, too.
func BenchmarkStorm(b *testing.B) {
	const many = 100_000
	for _, backend := range []string{"memory", "redis"} {
		b.Run(backend, func(b *testing.B) {
			for b.Loop() {
				registry := "type: memory"
				if backend == "redis" {
					registry = fmt.Sprintf("type: redis, host: %q", testenv.NewRedis(b).Addr)
				}
				namespace := testenv.Prefix(b)
				slots := "{registry: {" + registry + "}, messaging: {type: memory}}"
				storm(b, start(b, namespace, config(namespace, slots)), many)
			}
		})
	}
}

// stormy is the metadata of number i in a storm.
func stormy(i int) map[string]any {
	return map[string]any{
		"percent": i % 100, "room": fmt.Sprint("room-", i%1000), "battery": 0.5, "firmware": "1.4.2", "steady": false,
	}
}

func storm(b *testing.B, p process, many int) {
	b.Helper()
	for i := range 10 {
		_, err := p.Register(b.Context(), client.Registration{
			ID: fmt.Sprint("steady-", i), TTL: client.NoExpiry, Metadata: map[string]any{"steady": true, "percent": -1},
		})
		must(b, err)
	}
	left, unwatch := watchLeft(b, p.proxy, int64(many/100))
	defer unwatch()
	reader := process{proxy: dial(b, p.at, p.namespace), child: p.child}

	load := bulkFile(b, many)
	registering := reader.readDuring(b, func() { p.registerFile(b, load) })
	registering.report(b, "registering")
	b.ReportMetric(float64(many)/registering.took.Seconds(), "registrations/s")

	began := time.Now()
	ends := began.Add(3*registering.took/2 + 4*time.Second)
	shareOut(b, 64, many, func(i int) error {
		_, err := p.Heartbeat(b.Context(), name(i), time.Until(ends))
		return err
	})
	const still = 2 * time.Second
	if time.Until(ends) < still {
		b.Fatalf("the leases were to end %v after the first heartbeat; the heartbeats took %v", ends.Sub(began), time.Since(began))
	}
	<-time.After(time.Until(ends) - still)
	quiet := reader.readDuring(b, func() { <-time.After(still - 100*time.Millisecond) })
	quiet.report(b, "quiet")

	expiring := reader.readDuring(b, func() {
		patiently(b, "one of a hundred has left", func() bool { return left.Load() >= int64(many/100) })
	})
	expiring.report(b, "expiring")
	b.ReportMetric(ms(time.Since(ends)), "until-told-ms")
}

// reading is what a reader met with.
type reading struct {
	calls times
	late  time.Duration // by how much a goroutine woke up too late, at the most
	took  time.Duration
	share float64 // see waits
}

func (r *reading) report(b *testing.B, phase string) {
	b.Helper()
	longest := r.calls.at(1)
	b.ReportMetric(ms(r.calls.at(0.5)), phase+"-p50-ms")
	b.ReportMetric(ms(r.calls.at(0.999)), phase+"-p99.9-ms")
	b.ReportMetric(ms(longest), phase+"-max-ms")
	b.ReportMetric(100*float64(longest)/float64(benchLimit), phase+"-max-%-of-limit")
	b.ReportMetric(ms(r.late), phase+"-late-ms")
	b.ReportMetric(100*r.share, phase+"-waited-%")
}

// readDuring enumerates again and again while something is done.
func (p process) readDuring(b *testing.B, do func()) reading {
	b.Helper()
	var r reading
	ctx, stop := context.WithCancel(b.Context())
	var reading sync.WaitGroup
	query := client.Query{Filter: map[string]any{"steady": true}, PageSize: 10}
	reading.Go(func() {
		for ctx.Err() == nil {
			r.calls.timed(func() {
				if page, err := p.Enumerate(context.WithoutCancel(ctx), query); err != nil || len(page.Identities) != 10 {
					b.Errorf("%d identities: %v", len(page.Identities), err)
					stop()
				}
			})
		}
	})
	reading.Go(func() {
		for ctx.Err() == nil {
			start := time.Now()
			<-time.After(time.Millisecond)
			r.late = max(r.late, time.Since(start)-time.Millisecond)
		}
	})
	ran, waited := p.waits(b)
	start := time.Now()
	do()
	r.took = time.Since(start)
	ranThen, waitedThen := p.waits(b)
	r.share = (waitedThen - waited) / (ranThen - ran + waitedThen - waited)
	stop()
	reading.Wait()
	return r
}

// waits returns for how long the threads of the process have run, and waited for a processor, in nanoseconds.
func (p process) waits(b *testing.B) (ran, waited float64) {
	b.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.command.Process.Pid))
	must(b, err)
	for _, thread := range threads {
		if text, err := os.ReadFile(thread); err == nil { // else it has ended
			var r, w float64
			_, err := fmt.Sscan(string(text), &r, &w)
			must(b, err)
			ran, waited = ran+r, waited+w
		}
	}
	return ran, waited
}

// watchLeft counts who of one in a hundred leaves; all have, when the watch begins again because more was to be told than the
// server remembers. Where nobody watches, expired leases are not swept all at once.
func watchLeft(b *testing.B, p *proxy, all int64) (left *atomic.Int64, end func()) {
	b.Helper()
	left = new(atomic.Int64)
	ctx, stop := context.WithCancel(b.Context())
	var watching sync.WaitGroup
	synced := make(chan struct{})
	begun := sync.OnceFunc(func() { close(synced) })
	watching.Go(func() {
		for event, err := range p.Watch(ctx, client.WatchQuery{Filter: map[string]any{"percent": 7}, OmitMetadata: true}) {
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				b.Errorf("watch: %v", err)
			case event.Type == client.Synced:
				begun()
			case event.Type == client.Reset:
				left.Add(all)
			case event.Type == client.Left:
				left.Add(1)
			}
		}
	})
	<-synced
	return left, func() {
		stop()
		watching.Wait()
	}
}

// bulkFile writes what "prism register --file" reads.
func bulkFile(b *testing.B, n int) (path string) {
	b.Helper()
	path = filepath.Join(b.TempDir(), "identities.jsonl")
	file, err := os.Create(path)
	must(b, err)
	out := bufio.NewWriter(file)
	lines := json.NewEncoder(out)
	for i := range n {
		must(b, lines.Encode(map[string]any{"identity": name(i), "metadata": stormy(i), "ttl": "1h"}))
	}
	must(b, out.Flush())
	must(b, file.Close())
	return path
}

// registerFile registers all of a file, from a process of its own.
func (p *proxy) registerFile(b *testing.B, path string) {
	b.Helper()
	program, err := binary()
	must(b, err)
	command := exec.CommandContext(b.Context(), program, "register", "--file", path, "--server", p.at, "--namespace", p.namespace)
	if out, err := command.CombinedOutput(); err != nil {
		b.Fatalf("register: %v: %s", err, out)
	}
}
