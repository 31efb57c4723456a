package metrics_test

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	dto "github.com/prometheus/client_model/go"
)

const (
	dashboard = "../../deployments/grafana/dashboards/prism.json"
	alerts    = "../../deployments/prometheus/alerts.yml"
	scrapes   = "../../deployments/prometheus/prometheus.yml"
	reference = "../../docs-cms/reference/metrics.md"
)

// complete scrapes a server that has done enough to have a series of everything.
func complete(t *testing.T) families {
	s := serve(t)
	s.register("copied", "a")
	return s.scrape()
}

// exposed are the names that Prometheus has of a server, with their labels.
type exposed map[string][]string

func namesOf(f families) exposed {
	out := exposed{"up": {"job", "instance"}}
	for name, family := range f {
		labels := []string{"job", "instance"}
		for _, l := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		switch family.GetType() {
		case dto.MetricType_HISTOGRAM:
			out[name+"_bucket"] = append(slices.Clone(labels), "le")
			out[name+"_sum"], out[name+"_count"] = labels, labels
		case dto.MetricType_SUMMARY:
			out[name] = append(slices.Clone(labels), "quantile")
			out[name+"_sum"], out[name+"_count"] = labels, labels
		default:
			out[name] = labels
		}
	}
	return out
}

var (
	quoted    = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	variables = regexp.MustCompile(`\$\w+`)
	ranges    = regexp.MustCompile(`\[[^\]]*\]`)
	matchers  = regexp.MustCompile(`([a-zA-Z_:][\w:]*)\s*\{([^}]*)\}`)
	grouping  = regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	words     = regexp.MustCompile(`[a-zA-Z_:][\w:]*`)
	labelled  = regexp.MustCompile(`\{\{[^}]*?(?:\$labels\.)?(\w+)\b[^}]*\}\}`)
	templated = regexp.MustCompile(`\$labels\.(\w+)`)
	functions = strings.Fields("sum max min count rate increase histogram_quantile absent or label_values")
)

// check finds the faults of one expression: names that no server exposes, labels that they do not have, and functions that are not
// in the list above. It returns the labels of all metrics in it.
func (e exposed) check(expr string) (faults, labels []string) {
	rest := ranges.ReplaceAllString(variables.ReplaceAllString(quoted.ReplaceAllString(expr, ""), ""), "")
	for _, m := range matchers.FindAllStringSubmatch(rest, -1) {
		for _, label := range words.FindAllString(m[2], -1) {
			if have, known := e[m[1]]; known && !slices.Contains(have, label) {
				faults = append(faults, m[1]+" has no label "+label)
			}
		}
	}
	rest = matchers.ReplaceAllString(rest, "$1")
	var grouped []string
	for _, g := range grouping.FindAllStringSubmatch(rest, -1) {
		grouped = append(grouped, words.FindAllString(g[2], -1)...)
	}
	rest = grouping.ReplaceAllString(rest, "")
	if values, ok := strings.CutPrefix(rest, "label_values("); ok {
		name, label, _ := strings.Cut(strings.TrimSuffix(values, ")"), ",")
		rest, grouped = name, append(grouped, strings.TrimSpace(label))
	}
	metrics := 0
	for _, word := range words.FindAllString(rest, -1) {
		have, known := e[word]
		switch {
		case known:
			metrics++
			labels = append(labels, have...)
		case !slices.Contains(functions, word):
			faults = append(faults, word+" is neither a metric nor a function that is used here")
		}
	}
	if metrics == 0 {
		faults = append(faults, "there is no metric")
	}
	for _, label := range grouped {
		if !slices.Contains(labels, label) {
			faults = append(faults, "no metric here has the label "+label)
		}
	}
	return faults, labels
}

func TestDashboard(t *testing.T) {
	names := namesOf(complete(t))
	src, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string `json:"title"`
			Type    string `json:"type"`
			Targets []struct {
				Expr   string `json:"expr"`
				Legend string `json:"legendFormat"`
			} `json:"targets"`
		} `json:"panels"`
		Templating struct {
			List []struct {
				Name       string `json:"name"`
				Definition string `json:"definition"`
			} `json:"list"`
		} `json:"templating"`
	}
	if err := json.Unmarshal(src, &board); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, v := range board.Templating.List {
		if faults, _ := names.check(v.Definition); len(faults) > 0 {
			t.Errorf("variable %s: %v", v.Name, faults)
		}
	}
	for _, p := range board.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			seen++
			faults, labels := names.check(target.Expr)
			for _, l := range labelled.FindAllStringSubmatch(target.Legend, -1) {
				if !slices.Contains(labels, l[1]) {
					faults = append(faults, "the legend's "+l[1]+" is no label")
				}
			}
			if len(faults) > 0 {
				t.Errorf("%s: %s: %v", p.Title, target.Expr, faults)
			}
		}
	}
	if seen < 20 {
		t.Errorf("found %d expressions", seen)
	}
}

func TestAlerts(t *testing.T) {
	names := namesOf(complete(t))
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert       string
				Expr        string
				For         string
				Labels      map[string]string
				Annotations map[string]string
			}
		}
	}
	decode(t, alerts, &rules)
	for _, r := range rules.Groups[0].Rules {
		faults, labels := names.check(r.Expr)
		for _, l := range templated.FindAllStringSubmatch(r.Annotations["summary"], -1) {
			if !slices.Contains(labels, l[1]) {
				faults = append(faults, "the summary's "+l[1]+" is no label")
			}
		}
		if len(faults) > 0 {
			t.Errorf("%s: %v", r.Alert, faults)
		}
		if r.For == "" || !slices.Contains([]string{"critical", "warning"}, r.Labels["severity"]) || len(r.Annotations["summary"]) < 60 {
			t.Errorf("%s lacks for, severity or a summary that helps", r.Alert)
		}
	}
	if n := len(rules.Groups[0].Rules); n < 7 {
		t.Errorf("found %d rules", n)
	}
	var prometheus struct {
		Jobs []struct {
			Name string `yaml:"job_name"`
		} `yaml:"scrape_configs"`
		Rules []string `yaml:"rule_files"`
	}
	decode(t, scrapes, &prometheus)
	if prometheus.Jobs[0].Name != "prism" || !slices.Contains(prometheus.Rules, "alerts.yml") {
		t.Errorf("Prometheus scrapes %v and reads %v", prometheus.Jobs, prometheus.Rules)
	}
}

func decode(t *testing.T, file string, into any) {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(src, into); err != nil {
		t.Fatal(err)
	}
}

// TestCheck keeps the checks above honest.
func TestCheck(t *testing.T) {
	names := exposed{"prism_x_total": {"namespace"}, "prism_y_bucket": {"le", "method"}, "up": {"job"}}
	for expr, faults := range map[string]int{
		`rate(prism_x_total{namespace=~"$namespace"}[5m])`:                 0,
		`sum by (le, method) (rate(prism_y_bucket[$__rate_interval]))`:     0,
		`up{job="prism"} == 0 or absent(up{job="prism"})`:                  0,
		`label_values(prism_x_total, namespace)`:                           0,
		`rate(prism_z_total[5m])`:                                          2, // and so there is no metric
		`rate(prism_x_total{identity="a"}[5m])`:                            1,
		`sum by (identity) (prism_x_total)`:                                1,
		`label_values(prism_x_total, identity)`:                            1,
		`raet(prism_x_total[5m])`:                                          1,
		`sum(prism_x_total{namespace="a"}) / sum(prism_x_totl{job="a"})`:   1,
		`sum without (le, code) (rate(prism_y_bucket{method!~"A|B"}[5m]))`: 1,
	} {
		if got, _ := names.check(expr); len(got) != faults {
			t.Errorf("%s: %v", expr, got)
		}
	}
}

// TestReference compares the table of metrics with the metrics.
func TestReference(t *testing.T) {
	f := complete(t)
	src, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	told := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `(prism_\\w+)` \\| (\\w+) \\| ([^|]+) \\| .+ \\|$").FindAllStringSubmatch(string(src), -1) {
		labels := strings.Split(strings.TrimPrefix(row[3], "none"), ", ")
		slices.Sort(labels)
		told[row[1]] = row[2] + " of " + strings.Join(labels, ", ")
	}
	exposes := make(map[string]string)
	for name, family := range f {
		if !strings.HasPrefix(name, "prism_") {
			continue
		}
		var labels []string
		for _, l := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		exposes[name] = strings.ToLower(family.GetType().String()) + " of " + strings.Join(labels, ", ")
	}
	for _, name := range slices.Sorted(maps.Keys(exposes)) {
		if told[name] != exposes[name] {
			t.Errorf("%s is a %s; the table says %q", name, exposes[name], told[name])
		}
		delete(told, name)
	}
	for name := range told {
		t.Errorf("%s is in the table, and no server has it", name)
	}
}
