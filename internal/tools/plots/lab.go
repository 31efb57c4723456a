package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/procfs"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/bench"
)

// lab is where experiments are made.
type lab struct {
	quick   bool
	out     io.Writer
	dir     string
	program string // prism

	head     Measured // what all files say
	measured *Measured
}

// newLab builds the prism command.
func newLab(ctx context.Context, quick bool, out io.Writer) (l *lab, err error) {
	l = &lab{quick: quick, out: out}
	if l.dir, err = os.MkdirTemp("", "prism-plots-"); err != nil {
		return nil, err
	}
	l.program = filepath.Join(l.dir, "prism")
	fmt.Fprintln(out, "building prism")
	build := exec.CommandContext(ctx, "go", "build", "-o", l.program, "./cmd/prism") //nolint:gosec // our own path
	build.Stderr = out
	if err := build.Run(); err != nil {
		return nil, errors.Join(fmt.Errorf("go build: %w", err), l.close())
	}
	l.head = Measured{Date: time.Now().UTC().Format(time.DateOnly), Quick: quick, Cores: runtime.NumCPU(), Commit: commit(ctx)}
	if proc, err := procfs.NewDefaultFS(); err == nil {
		if cpus, err := proc.CPUInfo(); err == nil && len(cpus) > 0 {
			l.head.Machine = cpus[0].ModelName
		}
	}
	return l, nil
}

func (l *lab) close() error { return os.RemoveAll(l.dir) }

// commit names the revision, and tells whether the program differs from it.
func commit(ctx context.Context) string {
	revision, err := exec.CommandContext(ctx, "git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	name := strings.TrimSpace(string(revision))
	if changed, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--", "*.go", "go.mod").Output(); err != nil ||
		len(changed) > 0 {
		name += " with changes"
	}
	return name
}

// begin starts an experiment.
func (l *lab) begin(name string) {
	m := l.head
	m.Experiment = name
	l.measured = &m
}

// add takes a point down.
func (l *lab) add(p Point) {
	l.measured.Points = append(l.measured.Points, p)
	fmt.Fprintf(l.out, "%-12s %-11s %9d  %8d ops  %10.1f us CPU  p50 %9.3f ms", l.measured.Experiment, p.Series, p.X,
		p.Operations, p.total(), p.P50)
	for _, kind := range slices.Sorted(maps.Keys(p.CPU)) {
		fmt.Fprintf(l.out, "  %s %.1f us", kind, p.CPU[kind])
	}
	for _, kind := range slices.Sorted(maps.Keys(p.Memory)) {
		fmt.Fprintf(l.out, "  %s %.1f MB", kind, p.Memory[kind]/1e6)
	}
	for _, kind := range slices.Sorted(maps.Keys(p.Other)) {
		fmt.Fprintf(l.out, "  %s %.4g", kind, p.Other[kind])
	}
	fmt.Fprintln(l.out)
}

// sizes returns sizes, the first two only when it has to be quick.
func (l *lab) sizes(all ...int) []int {
	if l.quick {
		return all[:2]
	}
	return all
}

// long is how long a load lasts.
func (l *lab) long(d time.Duration) time.Duration {
	if l.quick {
		return d / 10
	}
	return d
}

// system prepares for processes. It has to be stopped.
func (l *lab) system() *system { return &system{lab: l, kinds: make(map[string]string)} }

// measure carries out a plan, several times, and takes down the medians. watch is told when a stage before the load has ended.
func (s *system) measure(
	ctx context.Context, series string, x, rounds int, plan bench.Plan, watch func(stage string),
) (Point, error) {
	plan.Name = series
	plan.Timeout = time.Minute
	target := bench.Target{Servers: s.servers, Backends: s.others(), Dial: dial}
	var all []Point
	for range rounds {
		ended := make(map[string]bool)
		result, err := bench.Run(ctx, plan, target, func(p bench.Progress) {
			if watch != nil && p.Total > 0 && p.Done == p.Total && !ended[p.Stage] {
				ended[p.Stage] = true
				watch(p.Stage)
			}
		})
		if err != nil {
			return Point{}, err
		}
		p, err := pointOf(result, s.kinds)
		if err != nil {
			return Point{}, fmt.Errorf("%s, %d: %w", series, x, err)
		}
		all = append(all, p)
		if err := ctx.Err(); err != nil {
			return Point{}, err
		}
	}
	p := medians(all)
	p.Series, p.X = series, x
	return p, nil
}

// pointOf reads what was measured. A load that was not answered, or wrongly, measures nothing.
func pointOf(r *bench.Result, kinds map[string]string) (p Point, err error) {
	p = Point{Seconds: r.Seconds, CPU: make(map[string]float64), Memory: make(map[string]float64)}
	for _, m := range r.Operations {
		if m.Operation == bench.Arrival {
			continue
		}
		p.Operations += m.Done
		p.Failed += m.Failed
		p.P50 = m.Service.P50 // of the only one, where it is asked for
	}
	if p.Operations == 0 || p.Failed*100 > p.Operations {
		return p, fmt.Errorf("%d operations failed, %d succeeded", p.Failed, p.Operations)
	}
	if r.Delivery != nil && r.Delivery.Violations() > 0 {
		return p, fmt.Errorf("%d violations of what a multicast promises", r.Delivery.Violations())
	}
	p.PerSecond = float64(p.Operations) / p.Seconds
	for _, used := range r.Processes {
		if kind := kinds[used.Name]; kind != "" {
			p.CPU[kind] += used.CPU / 100 * p.Seconds / float64(p.Operations) * 1e6
			p.Memory[kind] += float64(used.Memory)
		}
	}
	for _, kind := range kinds {
		if _, found := p.CPU[kind]; !found {
			return p, fmt.Errorf("no process of %s was found", kind)
		}
	}
	return p, nil
}

// medians makes one point of several rounds.
func medians(all []Point) Point {
	p := Point{CPU: make(map[string]float64), Memory: make(map[string]float64)}
	for _, round := range all {
		p.Operations += round.Operations
		p.Failed += round.Failed
		p.Seconds += round.Seconds
	}
	middle := func(of func(Point) float64) float64 {
		values := make([]float64, 0, len(all))
		for _, round := range all {
			values = append(values, of(round))
		}
		return median(values)
	}
	p.PerSecond = middle(func(p Point) float64 { return p.PerSecond })
	p.P50 = middle(func(p Point) float64 { return p.P50 })
	for kind := range all[0].CPU {
		p.CPU[kind] = middle(func(p Point) float64 { return p.CPU[kind] })
		p.Memory[kind] = middle(func(p Point) float64 { return p.Memory[kind] })
	}
	return p
}

func median(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	return (values[n/2] + values[(n-1)/2]) / 2
}

func dial(server string) (*client.Client, error) { return client.Dial(server) }

// callers is how many register at once.
const callers = 64

// fill registers identities like those of the load, from one number to another, through the first proxy. They are in groups of
// their own.
func (s *system) fill(ctx context.Context, from, to int) error {
	c, err := dial(s.servers[0])
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	next.Store(int64(from))
	var working sync.WaitGroup
	for range callers {
		working.Go(func() {
			for n := int(next.Add(1)) - 1; n < to && ctx.Err() == nil; n = int(next.Add(1)) - 1 {
				if _, err := c.Register(ctx, filler(n)); err != nil {
					cancel(err)
				}
			}
		})
	}
	working.Wait()
	return context.Cause(ctx)
}

// filler is an identity with five fields.
func filler(n int) client.Registration {
	return client.Registration{ID: fmt.Sprintf("filler-%d", n), TTL: 24 * time.Hour, Metadata: map[string]any{
		"bench": "filler", "group": fmt.Sprintf("filler-%d", n/100), "n": -1 - n, "status": []string{"online", "away", "busy"}[n%3],
		"battery": float64(n%100) / 100,
	}}
}

// memory is what the processes of each kind have resident, in bytes.
func (s *system) memory() (map[string]float64, error) {
	used := make(map[string]float64)
	for _, p := range s.running {
		proc, err := procfs.NewProc(p.command.Process.Pid)
		if err != nil {
			return nil, err
		}
		stat, err := proc.Stat()
		if err != nil {
			return nil, err
		}
		used[cmp.Or(s.kinds[p.address], "?")] += float64(stat.ResidentMemory())
	}
	return used, nil
}
