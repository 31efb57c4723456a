package demo

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
)

// Printer tells the demo's steps: with colour and progress bars on a terminal, as plain text elsewhere.
type Printer struct {
	out      io.Writer
	terminal bool
}

// NewPrinter returns a printer to out; terminal says whether a person is watching.
func NewPrinter(out io.Writer, terminal bool) *Printer { return &Printer{out: out, terminal: terminal} }

// The colours of a terminal.
const (
	bold  = "\x1b[1m"
	dim   = "\x1b[2m"
	cyan  = "\x1b[36m"
	green = "\x1b[32m"
	reset = "\x1b[0m"
)

func (p *Printer) colour(code, text string) string {
	if !p.terminal {
		return text
	}
	return code + text + reset
}

// Sayf prints a line outside the steps.
func (p *Printer) Sayf(format string, args ...any) { fmt.Fprintf(p.out, format+"\n", args...) }

func (p *Printer) detailf(format string, args ...any) {
	fmt.Fprintln(p.out, p.colour(dim, "    "+fmt.Sprintf(format, args...)))
}

// step is one step under way.
type step struct {
	p     *Printer
	start time.Time
	took  time.Duration
	bar   *progressbar.ProgressBar
}

// begin announces a step; a total above 0 gets a progress bar on a terminal.
func (p *Printer) begin(verb, words string, total int) *step {
	fmt.Fprintf(p.out, "\n%s  %s\n", p.colour(bold+cyan, fmt.Sprintf("%-10s", verb)), words)
	s := &step{p: p, start: time.Now()}
	if p.terminal && total > 0 {
		s.bar = progressbar.NewOptions(total,
			progressbar.OptionSetWriter(p.out), progressbar.OptionSetWidth(40), progressbar.OptionShowCount(),
			progressbar.OptionThrottle(50*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(false),
			progressbar.OptionSetDescription("   "))
	}
	return s
}

func (s *step) advance(n int) {
	if s.bar != nil {
		_ = s.bar.Add(n) // a bar that cannot be drawn is no reason to stop
	}
}

// endf closes a step with its result and the time it took.
func (s *step) endf(format string, args ...any) {
	s.stopClock()
	if s.bar != nil {
		_ = s.bar.Finish() // see advance
	}
	fmt.Fprintf(s.p.out, "    %s %s\n", s.p.colour(green, fmt.Sprintf(format, args...)), s.p.colour(dim, "("+round(s.took)+")"))
}

func (s *step) stopClock() {
	if s.took == 0 {
		s.took = time.Since(s.start)
	}
}

// perSecond returns a rate over the step's time until now.
func (s *step) perSecond(n int) int {
	s.stopClock()
	return int(float64(n) / s.took.Seconds())
}

// round returns a duration with three significant digits or so.
func round(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

// thousands writes a number with commas.
func thousands(n int) string {
	digits := strconv.Itoa(n)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 && digits[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}
