package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/prism-data-layer/prism/client"
)

// Target is where the load goes.
type Target struct {
	// Servers are addresses. Operations go to them in turn.
	Servers []string
	// Backends are addresses of what the servers stand on: what those use of the machine is told as well.
	Backends []string
	// Dial connects to a server.
	Dial func(server string) (*client.Client, error)
	// Embedded tells that the server runs in this process.
	Embedded bool
	// Version is that of this program, for the result.
	Version string
}

// Progress is what a run is doing. Done of Total is 0 of 0 during the load.
type Progress struct {
	Stage       string
	Done, Total int
	Elapsed     time.Duration
	// Samples are those of the second that has passed; InFlight operations are under way or wait for a worker.
	Samples  []Sample
	InFlight int
}

// Run carries out a plan. When the context ends, the load does, and the result holds what was measured up to then. An error
// means that there is no result. progress is called about once a second, from one goroutine at a time.
func Run(ctx context.Context, plan Plan, target Target, progress func(Progress)) (result *Result, err error) {
	if err := plan.Validate(); err != nil {
		return nil, err
	}
	if len(target.Servers) == 0 {
		return nil, errors.New("no server is named")
	}
	plan = plan.withDefaults()
	r := &runner{plan: &plan, progress: progress, result: &Result{
		Plan: plan, Servers: target.Servers, Embedded: target.Embedded, Version: target.Version,
	}}
	defer r.hangUp()
	if err := r.dial(target); err != nil {
		return nil, err
	}
	run := rand.Uint64()
	name := strconv.FormatUint(run, 36)
	r.recorder = newRecorder()
	r.audience = &audience{recorder: r.recorder}
	tally := newTally(run, plan.Payload, plan.Delivery, indexOf("bench-"+name+"-"))
	r.audience.tally = tally
	r.work = newWork(&plan, r.clients, tally, r.audience, name)

	defer r.cleanUp(ctx)
	defer r.audience.close()
	if err := r.prepare(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", r.stage, err)
	}
	used := observe(slices.Concat(target.Servers, target.Backends))
	r.load(ctx)
	r.result.Processes = used.since()
	r.await(ctx)
	r.reckon()
	return r.result, nil
}

// dial makes the connections.
func (r *runner) dial(target Target) error {
	for range r.plan.Connections {
		for _, server := range target.Servers {
			c, err := target.Dial(server)
			if err != nil {
				return err
			}
			r.clients = append(r.clients, c)
		}
	}
	return nil
}

func (r *runner) hangUp() {
	for _, c := range r.clients {
		_ = c.Close() // it has no error to tell
	}
}

// runner is a run under way.
type runner struct {
	plan     *Plan
	clients  []*client.Client
	work     *work
	audience *audience
	recorder *recorder
	progress func(Progress)
	result   *Result

	stage      string
	registered atomic.Int64
	inFlight   atomic.Int64
	late       struct {
		sync.Mutex
		*hdrhistogram.Histogram
	}
}

// setupCallers is how many callers register and unregister.
const setupCallers = 64

// prepare registers identities and attaches their subscribers.
func (r *runner) prepare(ctx context.Context) error {
	n := r.work.prepared()
	err := r.staged("register", n, func(done *atomic.Int64) error {
		return shareOut(ctx, n, func(i int) error {
			call, cancel := context.WithTimeout(ctx, r.plan.Timeout)
			defer cancel()
			_, err := r.work.client().Register(call, r.work.registration(r.work.name(i), i))
			if err == nil {
				r.registered.Add(1)
				done.Add(1)
			}
			return err
		})
	})
	if err == nil {
		err = r.staged("find", len(r.clients), func(done *atomic.Int64) error {
			return shareOut(ctx, len(r.clients), func(i int) error {
				defer done.Add(1)
				return r.work.find(ctx, r.clients[i], n)
			})
		})
	}
	if err != nil || !r.plan.sends() && r.work.free == nil {
		return err
	}
	var ids []string
	if r.plan.sends() {
		for i := range r.work.groups() * r.plan.Targets {
			ids = append(ids, r.work.name(i))
		}
	}
	return r.staged("subscribe", len(ids), func(done *atomic.Int64) error {
		return r.audience.listen(ctx, r.clients, r.plan.Streams, ids, func(n int) { done.Add(int64(n)) })
	})
}

// staged does a stage and tells about it.
func (r *runner) staged(name string, total int, do func(done *atomic.Int64) error) error {
	var done atomic.Int64
	r.stage = name
	start := time.Now()
	stop := r.everySecond(func() {
		r.progress(Progress{Stage: name, Done: int(done.Load()), Total: total, Elapsed: time.Since(start)})
	})
	err := do(&done)
	stop()
	took := time.Since(start)
	r.result.Setup = append(r.result.Setup, Stage{Name: name, Count: int(done.Load()), Seconds: took.Seconds()})
	r.progress(Progress{Stage: name, Done: int(done.Load()), Total: total, Elapsed: took})
	return err
}

// everySecond calls a function each second until stop is called.
func (r *runner) everySecond(do func()) (stop func()) {
	ended := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				do()
			case <-ended:
				return
			}
		}
	})
	return func() {
		close(ended)
		ticking.Wait()
	}
}

// shareOut makes n calls from many callers. The first error ends all of it.
func shareOut(ctx context.Context, n int, call func(i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var calling sync.WaitGroup
	for range min(setupCallers, n) {
		calling.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := call(i); err != nil {
					cancel(err)
				}
			}
		})
	}
	calling.Wait()
	return context.Cause(ctx)
}

// job is an operation that is due.
type job struct {
	op  string
	due time.Time
}

// load has operations done as they become due.
func (r *runner) load(ctx context.Context) {
	r.stage = "load"
	r.late.Histogram = newHistogram()
	start := time.Now()
	r.result.Started = start
	r.recorder.begin(start)
	tell := func() {
		r.progress(Progress{
			Stage: r.stage, Elapsed: time.Since(start), Samples: r.recorder.tick(time.Now()), InFlight: int(r.inFlight.Load()),
		})
	}
	stop := r.everySecond(tell)
	var loads sync.WaitGroup
	if r.plan.Rate > 0 {
		to := r.plan.RampTo
		setDefault(&to, r.plan.Rate)
		loads.Go(func() { r.open(ctx, start, &pace{from: r.plan.Rate, to: to, span: r.plan.Duration}, r.plan.Shares) })
	} else {
		loads.Go(func() { r.closed(ctx, start) })
	}
	if r.plan.Heartbeats > 0 {
		steady := &pace{from: r.plan.Heartbeats, to: r.plan.Heartbeats, span: r.plan.Duration}
		loads.Go(func() { r.open(ctx, start, steady, map[string]float64{Heartbeat: 1}) })
	}
	loads.Wait()
	stop()
	tell()
	r.result.Seconds = time.Since(start).Seconds()
}

// closed has each worker do one operation after the other.
func (r *runner) closed(ctx context.Context, start time.Time) {
	picks := newPicker(r.plan.Shares)
	var working sync.WaitGroup
	for i := range r.plan.Concurrency {
		working.Go(func() {
			own := picks.at((float64(i) + 0.5) / float64(r.plan.Concurrency))
			for ctx.Err() == nil && time.Since(start) < r.plan.Duration {
				op := own
				if !r.plan.Dedicated {
					op = picks.pick()
				}
				r.recorder.due(op)
				r.do(ctx, job{op, time.Now()})
			}
		})
	}
	working.Wait()
}

// waiting is how many operations may wait for a worker before later ones are only counted when one is free.
const waiting = 1 << 16

// open has operations done at the times that pace tells. Those for which no worker was free when the load and the time for
// one operation more were over have failed.
func (r *runner) open(ctx context.Context, start time.Time, pace *pace, shares map[string]float64) {
	if r.plan.Poisson {
		pace.random = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	picks := newPicker(shares)
	queue := make(chan job, waiting)
	var working sync.WaitGroup
	last := start.Add(r.plan.Duration + r.plan.Timeout)
	for range r.plan.Concurrency {
		working.Go(func() {
			for j := range queue {
				if now := time.Now(); now.After(last) || ctx.Err() != nil {
					r.recorder.ended(j.op, j.due, now, now, notStarted)
					r.inFlight.Add(-1)
					continue
				}
				r.do(ctx, j)
				r.inFlight.Add(-1)
			}
		})
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for after, more := pace.next(); more && ctx.Err() == nil; after, more = pace.next() {
		due := start.Add(after)
		if wait := time.Until(due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		}
		if len(queue) == 0 {
			r.behind(time.Since(due))
		}
		op := picks.pick()
		r.recorder.due(op)
		r.inFlight.Add(1)
		queue <- job{op, due}
	}
	close(queue)
	working.Wait()
}

// notStarted is why an operation failed that was due, but that nobody was free to begin.
const notStarted = "NOT_STARTED"

// behind takes down by how much this program was late itself.
func (r *runner) behind(by time.Duration) {
	r.late.Lock()
	defer r.late.Unlock()
	_ = r.late.RecordValue(min(max(by.Microseconds(), 1), longest)) // it is within the bounds
}

// do does an operation, which the end of the run does not break off.
func (r *runner) do(ctx context.Context, j job) {
	began := time.Now()
	err := r.work.do(context.WithoutCancel(ctx), j.op, j.due)
	r.recorder.ended(j.op, j.due, began, time.Now(), failure(err))
}

// await waits for messages that are still on their way, as long as one operation may take.
func (r *runner) await(ctx context.Context) {
	r.stage = "wait for messages"
	start := time.Now()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for r.work.tally.arriving() > 0 && time.Since(start) < r.plan.Timeout && ctx.Err() == nil {
		<-ticker.C
	}
}

// reckon completes the result.
func (r *runner) reckon() {
	r.result.Operations, r.result.Series = r.recorder.measured()
	r.result.Late = latencyOf(r.late.Histogram)
	if d := r.work.tally.close(); d.Multicasts+d.Unanswered > 0 {
		d.Dropped = r.audience.dropped.Load()
		d.Reconnects = r.audience.reconnects.Load()
		r.result.Delivery = &d
	}
	for _, limit := range r.plan.Limits {
		r.result.Checks = append(r.result.Checks, r.result.check(limit))
	}
}

// cleanUp unregisters what was registered.
func (r *runner) cleanUp(ctx context.Context) {
	if r.plan.Keep {
		return
	}
	prepared, created := r.work.prepared(), int(r.work.created.Load())
	if r.registered.Load() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	setup := r.result.Setup
	defer func() { r.result.Setup = setup }()
	err := r.staged("unregister", prepared+created, func(done *atomic.Int64) error {
		return shareOut(ctx, prepared+created, func(i int) error {
			id := r.work.name(i)
			if i >= prepared {
				id = r.work.prefix + "new-" + strconv.Itoa(i-prepared+1)
			}
			_, err := r.work.client().Unregister(ctx, id)
			done.Add(1)
			return err
		})
	})
	if err != nil {
		r.progress(Progress{Stage: "unregister: " + err.Error() + "; what is left expires", Elapsed: r.plan.TTL})
	}
}

// picker picks operations by their shares.
type picker struct {
	ops   []string
	until []float64
}

func newPicker(shares map[string]float64) picker {
	var p picker
	sum := 0.0
	for _, op := range Operations() {
		if shares[op] > 0 {
			sum += shares[op]
			p.ops, p.until = append(p.ops, op), append(p.until, sum)
		}
	}
	return p
}

func (p picker) pick() string { return p.at(rand.Float64()) }

// at picks what stands at a place from 0 to 1.
func (p picker) at(x float64) string {
	x *= p.until[len(p.until)-1]
	for i, until := range p.until {
		if x < until {
			return p.ops[i]
		}
	}
	return p.ops[len(p.ops)-1]
}

// check holds a limit against what was measured.
func (r *Result) check(limit Limit) Check {
	c := Check{Limit: limit}
	for _, m := range r.Operations {
		if m.Operation != limit.Operation || m.Done == 0 {
			continue
		}
		c.Measured = m.Latency.Max
		for _, known := range []struct{ percentile, ms float64 }{
			{50, m.Latency.P50}, {90, m.Latency.P90}, {99, m.Latency.P99}, {99.9, m.Latency.P999},
		} {
			if known.percentile == limit.Percentile {
				c.Measured = known.ms
			}
		}
		c.OK = c.Measured <= limit.Milliseconds
	}
	return c
}
