package bench

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// section is a part of what a result tells, the same in text and on a page.
type section struct {
	ID, Title string
	Table     *grid
	Lines     []line
}

// grid is a table. Its first columns are words, the others figures.
type grid struct {
	Words int
	Head  []string
	Rows  [][]string
}

// line is a sentence below a table.
type line struct {
	Mood mood
	Text string
}

// mood says whether something is as it should be.
type mood string

const (
	neutral mood = "neutral"
	good    mood = "good"
	warning mood = "warning"
	bad     mood = "bad"
)

// sections are all parts that there is something to tell about.
func (r *Result) sections() []section {
	var all []section
	for _, s := range []section{
		r.operationsSection(), r.errorsSection(), r.deliverySection(), r.rampSection(), r.lateSection(), r.processesSection(),
		r.setupSection(), r.checksSection(),
	} {
		if s.Table != nil || len(s.Lines) > 0 {
			all = append(all, s)
		}
	}
	return all
}

func (r *Result) operationsSection() section {
	s := section{ID: "operations", Title: "Operations", Table: &grid{Words: 1, Head: []string{
		"operation", "offered", "done", "rate/s", "p50", "p90", "p99", "p99.9", "max", "failed",
	}}}
	if len(r.Operations) == 0 {
		return section{ID: s.ID, Title: s.Title, Lines: []line{{Text: "No operation was due.", Mood: warning}}}
	}
	for _, m := range r.Operations {
		offered, failed, rate := thousands(m.Offered), thousands(m.Failed), notMeasured
		if m.Operation == Arrival { // nobody offers it; what did not arrive stands under delivery
			offered, failed = notMeasured, notMeasured
		}
		row := slices.Repeat([]string{notMeasured}, 5)
		if m.Done > 0 {
			rate = figure(m.Rate)
			for i, v := range []float64{m.Latency.P50, m.Latency.P90, m.Latency.P99, m.Latency.P999, m.Latency.Max} {
				row[i] = duration(v)
			}
		}
		row = append([]string{plain(m.Operation), offered, thousands(m.Done), rate}, row...)
		s.Table.Rows = append(s.Table.Rows, append(row, failed))
	}
	from := "Latencies count from when an operation was due"
	switch {
	case r.Plan.Rate == 0 && r.Plan.Heartbeats > 0:
		from = "Latencies count from when an operation began, those of the heartbeats at a rate from when they were due"
	case r.Plan.Rate == 0:
		from = "Latencies count from when an operation began: there was no rate, so none was due earlier"
	}
	if slices.ContainsFunc(r.Operations, func(m Measured) bool { return m.Operation == Arrival }) {
		from += "; that of a message ends when its subscriber has it"
	}
	s.Lines = append(s.Lines, line{Text: from + "."})
	return s
}

func (r *Result) errorsSection() section {
	s := section{ID: "errors", Title: "Errors"}
	table := &grid{Words: 2, Head: []string{"failed", "error", "count", "of offered"}}
	for _, m := range r.Operations {
		for _, code := range mostFirst(m.Errors) {
			table.Rows = append(table.Rows, []string{
				plain(m.Operation), plain(code), thousands(m.Errors[code]), share(float64(m.Errors[code]), float64(m.Offered)),
			})
		}
	}
	if len(table.Rows) > 0 {
		s.Table = table
	}
	if slices.ContainsFunc(r.Operations, func(m Measured) bool { return m.Errors[notStarted] > 0 }) {
		s.Lines = append(s.Lines, line{Text: notStarted + ": no worker was free for it as long as the run lasted."})
	}
	return s
}

// lateSection judges this program: where it was late itself, latencies are its own.
func (r *Result) lateSection() section {
	s := section{ID: "lateness", Title: "Load tool"}
	if r.Late == (Latency{}) {
		if r.Plan.Rate == 0 && r.Plan.Heartbeats == 0 {
			return s // nothing was due at a time
		}
		s.Lines = append(s.Lines, line{Text: "How late operations began: " + notMeasured + "."})
		return s
	}
	s.Lines = append(s.Lines, line{Text: "Operations were handed to a worker " + duration(r.Late.P50) + " (p50), " +
		duration(r.Late.P99) + " (p99), at most " + duration(r.Late.Max) + " after they were due."})
	fastest := r.fastest()
	if fastest == nil || r.Late.P99 < fastest.Latency.P50/2 {
		return s
	}
	s.Lines = append(s.Lines, line{Mood: warning, Text: "That is much beside the " + duration(fastest.Latency.P50) + " (p50) of " +
		plain(fastest.Operation) + ": latencies of this size are the load tool's, not the server's. " +
		"Offer less, or give the tool a machine of its own."})
	return s
}

// fastest is the operation with the least median.
func (r *Result) fastest() *Measured {
	var least *Measured
	for i := range r.Operations {
		m := &r.Operations[i]
		if m.Operation != Arrival && m.Done > 0 && (least == nil || m.Latency.P50 < least.Latency.P50) {
			least = m
		}
	}
	return least
}

func (r *Result) processesSection() section {
	s := section{ID: "processes", Title: "CPU and memory"}
	if len(r.Processes) == 0 {
		return s
	}
	s.Table = &grid{Words: 1, Head: []string{"process", "pid", "CPU", "memory"}}
	for _, p := range r.Processes {
		s.Table.Rows = append(s.Table.Rows, []string{
			plain(p.Name), strconv.Itoa(p.PID), figure(p.CPU) + " %", size(p.Memory),
		})
	}
	s.Lines = []line{{Text: "CPU is in percent of one core, during the load; memory is what is resident at its end."}}
	return s
}

func (r *Result) setupSection() section {
	s := section{ID: "setup", Title: "Set-up"}
	if len(r.Setup) == 0 {
		return s
	}
	s.Table = &grid{Words: 1, Head: []string{"before the load", "count", "took", "rate/s"}}
	for _, stage := range r.Setup {
		count, rate := notMeasured, notMeasured
		if stage.Count > 0 {
			count = thousands(uint64(stage.Count))
		}
		if stage.Count > 0 && stage.Seconds > 0 {
			rate = figure(float64(stage.Count) / stage.Seconds)
		}
		s.Table.Rows = append(s.Table.Rows, []string{plain(stage.Name), count, duration(1000 * stage.Seconds), rate})
	}
	return s
}

func (r *Result) checksSection() section {
	s := section{ID: "limits", Title: "Limits"}
	if len(r.Checks) == 0 {
		return s
	}
	s.Table = &grid{Words: 2, Head: []string{"limit", "of", "at most", "measured", "limit is"}}
	for _, c := range r.Checks {
		measured, is := duration(c.Measured), "missed"
		if !slices.ContainsFunc(r.Operations, func(m Measured) bool { return m.Operation == c.Operation && m.Done > 0 }) {
			measured = notMeasured
		}
		if c.OK {
			is = "met"
		}
		s.Table.Rows = append(s.Table.Rows, []string{nth(c.Percentile), plain(c.Operation), duration(c.Milliseconds), measured, is})
	}
	return s
}

// problems tells in a few words each why a result is not OK.
func (r *Result) problems() []string {
	var all []string
	var failed, missed uint64
	for _, m := range r.Operations {
		failed += m.Failed
	}
	if failed > 0 {
		all = append(all, counted(failed, "operation failed", "operations failed"))
	}
	if r.Delivery != nil {
		if n := r.Delivery.Violations(); n > 0 {
			all = append(all, counted(n, "violation of what was promised", "violations of what was promised"))
		}
	}
	for _, c := range r.Checks {
		if !c.OK {
			missed++
		}
	}
	if missed > 0 {
		all = append(all, counted(missed, "limit was missed", "limits were missed"))
	}
	return all
}

// verdict is the result in a sentence.
func (r *Result) verdict() line {
	if problems := r.problems(); len(problems) > 0 {
		return line{Mood: bad, Text: "Not OK: " + strings.Join(problems, ", ") + "."}
	}
	if offered, _ := r.total(); offered == 0 {
		return line{Mood: warning, Text: "Nothing was measured."}
	}
	held := []string{"every operation was answered"}
	if r.Delivery != nil && r.Delivery.Targets > 0 {
		held = append(held, "every message is accounted for")
	}
	if len(r.Checks) > 0 {
		held = append(held, "all limits are met")
	}
	return line{Mood: good, Text: "OK: " + strings.Join(held, ", ") + "."}
}

// total is how many operations became due, and how many were answered.
func (r *Result) total() (offered, done uint64) {
	for _, m := range r.Operations {
		if m.Operation != Arrival {
			offered += m.Offered
			done += m.Done
		}
	}
	return offered, done
}

// mostFirst orders names by their count.
func mostFirst(counts map[string]uint64) []string {
	return slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), strings.Compare(a, b))
	})
}

// took is how long the load took.
func (r *Result) took() string {
	return span(time.Duration(r.Seconds * float64(time.Second)).Round(100 * time.Millisecond))
}
