package bench

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed" // the parts of the page
	"encoding/base64"
	"encoding/json"
	"html/template"
	"io"
	"slices"
	"strings"
)

var (
	//go:embed report/report.html.tmpl
	reportPage string
	//go:embed report/report.css
	reportStyle string
	//go:embed report/guard.js
	reportGuard string
	//go:embed report/report.js
	reportScript string
	//go:embed report/uPlot.min.css
	plotStyle string
	//go:embed report/uPlot.iife.min.js
	plotScript string
	//go:embed report/uPlot.LICENSE
	plotLicense string

	reportTemplate = template.Must(template.New("report").Parse(reportPage))
	// reportCode is all that the page runs: its hash is in the page's policy.
	reportCode = "\n" + reportGuard + "/*\nuPlot: " + plotLicense + "*/\n" + plotScript + "\n" + reportScript
	reportLook = "\n" + plotStyle + "\n" + reportStyle
)

// page is what the template shows.
type page struct {
	Title, Policy, Plan, File string
	Verdict                   line
	Settings                  []setting
	Cards                     []card
	First, Others             []section
	Result                    json.RawMessage
	Style                     template.CSS
	Script                    template.JS
}

// WriteHTML writes the result as a page that is complete in itself: it loads nothing, and its policy forbids it to. Tables can
// be read without scripts, plots need them. The page holds the whole Result as JSON, in the element "result".
func (r *Result) WriteHTML(w io.Writer) error {
	result, err := json.Marshal(r)
	if err != nil {
		return err
	}
	plan, err := json.MarshalIndent(r.Plan, "", "  ")
	if err != nil {
		return err
	}
	sections := r.sections()
	p := page{
		Title:  cmp.Or(plain(r.Plan.Name), "bench"),
		Policy: reportPolicy(), Plan: string(plan), File: r.fileName(), Verdict: r.verdict(), Settings: r.settings(), Cards: r.cards(),
		First: sections[:1], Others: sections[1:], Result: result,
		Style:  template.CSS(reportLook), //nolint:gosec // our own files
		Script: template.JS(reportCode),  //nolint:gosec // same
	}
	var b bytes.Buffer
	if err := reportTemplate.Execute(&b, p); err != nil {
		return err
	}
	_, err = w.Write(b.Bytes())
	return err
}

// reportPolicy allows the page's own style and script, and nothing else.
func reportPolicy() string {
	hash := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return "default-src 'none'; style-src " + hash(reportLook) + "; script-src " + hash(reportCode) +
		"; base-uri 'none'; form-action 'none'"
}

// fileName is under which name the result is saved.
func (r *Result) fileName() string {
	name := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			return c
		}
		return '-'
	}, cmp.Or(r.Plan.Name, "bench"))
	if !r.Started.IsZero() {
		name += "-" + r.Started.UTC().Format("20060102T150405Z")
	}
	return name + ".json"
}

// Word tells whether a column holds words.
func (g *grid) Word(column int) bool { return column < g.Words }

// Few tells whether a table is too narrow to fill the page.
func (g *grid) Few() bool { return len(g.Head) < 4 }

// card is a headline figure.
type card struct {
	Label, Value, Note string
	Mood               mood
}

// cards are the headline figures.
func (r *Result) cards() []card {
	offered, done := r.total()
	all := []card{{Label: "throughput", Value: notMeasured, Note: counted(offered, "operation was due", "operations were due")}}
	if r.Seconds > 0 && done > 0 {
		all[0].Value = perSecond(float64(done) / r.Seconds)
		all[0].Note = thousands(done) + " of " + counted(offered, "operation", "operations")
	}
	failed := uint64(0)
	for _, m := range r.Operations {
		failed += m.Failed
		if m.Done > 0 && (m.Operation == Arrival || m.Operation == r.slowest()) {
			all = append(all, card{
				Label: plain(m.Operation) + " p99", Value: duration(m.Latency.P99),
				Note: "p50 " + duration(m.Latency.P50) + ", max " + duration(m.Latency.Max),
			})
		}
	}
	failures := card{Label: "failed", Value: thousands(failed), Note: share(float64(failed), float64(offered)) + " of operations"}
	if failed > 0 {
		failures.Mood = bad
	}
	all = slices.Insert(all, 1, failures)
	if d := r.Delivery; d != nil && d.Targets > 0 {
		delivered := card{Label: "accounted for", Value: share(d.Accounted(), 100), Note: "no violations", Mood: good}
		if d.Violations() > 0 {
			delivered.Note, delivered.Mood = counted(d.Violations(), "violation", "violations"), bad
		}
		all = append(all, delivered)
	}
	if len(r.rampSection().Lines) > 0 && len(r.bySecond()) > 0 {
		rate, _ := r.keptPace()
		all = append(all, card{Label: "kept pace up to", Value: perSecond(rate), Note: "of " + perSecond(r.Plan.RampTo)})
	}
	return all
}

// slowest is the operation with the highest 99th percentile.
func (r *Result) slowest() string {
	name, most := "", -1.0
	for _, m := range r.Operations {
		if m.Operation != Arrival && m.Done > 0 && m.Latency.P99 > most {
			name, most = m.Operation, m.Latency.P99
		}
	}
	return name
}
