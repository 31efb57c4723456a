package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prism-data-layer/prism/internal/bench"
)

// benchProgress tells how a run is going: on a terminal in a line that is written over, elsewhere in lines five seconds apart.
func (p *program) benchProgress(quiet bool) func(bench.Progress) {
	if quiet {
		return func(bench.Progress) {}
	}
	terminal := watched(p.err)
	last, stage := time.Time{}, ""
	return func(now bench.Progress) {
		if !terminal && now.Stage == stage && time.Since(last) < 5*time.Second && (now.Total == 0 || now.Done < now.Total) {
			return
		}
		if terminal && now.Stage != stage && stage != "" {
			fmt.Fprintln(p.err)
		}
		last, stage = time.Now(), now.Stage
		text := progressLine(now)
		if terminal {
			p.overwriting = true
			fmt.Fprintf(p.err, "\r\x1b[K%s", text)
			return
		}
		fmt.Fprintln(p.err, text)
	}
}

// endProgress goes on to a new line.
func (p *program) endProgress() {
	if p.overwriting {
		p.overwriting = false
		fmt.Fprintln(p.err)
	}
}

func progressLine(now bench.Progress) string {
	elapsed := now.Elapsed.Round(time.Second)
	if now.Total > 0 {
		return fmt.Sprintf("%s: %d of %d, %s", now.Stage, now.Done, now.Total, elapsed)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", now.Stage, elapsed)
	for _, s := range now.Samples {
		fmt.Fprintf(&b, "  %s %.0f/s", s.Operation, s.Done)
		if s.Done > 0 {
			fmt.Fprintf(&b, " p99 %.1f ms", s.P99)
		}
		if s.Failed > 0 {
			fmt.Fprintf(&b, " FAILED %.0f/s", s.Failed)
		}
	}
	if now.InFlight > 0 {
		fmt.Fprintf(&b, "  in flight %d", now.InFlight)
	}
	return b.String()
}

// benchResult prints the result of plan number i of so many, and writes its page.
func (p *program) benchResult(f *benchFlags, i, plans int, result *bench.Result) error {
	if f.report != "" {
		name := f.report
		if i > 0 {
			ext := filepath.Ext(name)
			name = fmt.Sprintf("%s-%d%s", strings.TrimSuffix(name, ext), i+1, ext)
		}
		if err := writeReport(name, result); err != nil {
			return err
		}
		if !f.quiet {
			fmt.Fprintf(p.err, "The report is in %s.\n", name)
		}
	}
	switch {
	case p.format == formatTable:
		if i > 0 {
			fmt.Fprintln(p.out)
		}
		return result.WriteText(p.out)
	case plans == 1 || p.format == formatJSONL:
		return p.show(result)
	}
	return nil
}

// writeReport writes a page all at once or not at all.
func writeReport(name string, result *bench.Result) (err error) {
	file, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name()) // the error says more
		}
	}()
	if err = result.WriteHTML(file); err == nil {
		err = file.Chmod(0o644)
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(file.Name(), name)
}
