package deploy_test

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

const prometheus = root + "/deployments/prometheus"

var quiet = slog.New(slog.DiscardHandler)

// TestPrometheus reads Prometheus's configuration, and whichever of its rule files are there, as Prometheus does.
func TestPrometheus(t *testing.T) {
	cfg, err := config.LoadFile(prometheus+"/prometheus.yml", false, quiet)
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range cfg.RuleFiles {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Error(err)
		}
		for _, file := range files {
			_, faults := rulefmt.ParseFile(file, false, model.UTF8Validation, parser.NewParser(parser.Options{}), quiet)
			for _, fault := range faults {
				t.Errorf("%s: %v", file, fault)
			}
		}
	}
}

// TestPrometheusFaults keeps the check above honest.
func TestPrometheusFaults(t *testing.T) {
	src := string(read(t, prometheus+"/prometheus.yml"))
	for _, fault := range [][2]string{{"scrape_interval", "scrape_intervall"}, {"targets", "target"}, {"15s", "soon"}} {
		bad := strings.Replace(src, fault[0], fault[1], 1)
		if bad == src {
			t.Errorf("the file has no %q", fault[0])
		}
		if _, err := config.Load(bad, quiet); err == nil {
			t.Errorf("%q instead of %q is not found", fault[1], fault[0])
		}
	}
}
