package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Two packages under patterns/, one generated, and one with a block that is reported twice.
const profileText = `mode: atomic
github.com/prism-data-layer/prism/patterns/memory/a.go:1.1,2.2 8 3
github.com/prism-data-layer/prism/patterns/memory/a.go:3.1,4.2 2 0
github.com/prism-data-layer/prism/patterns/core/b.go:1.1,2.2 9 1
github.com/prism-data-layer/prism/patterns/core/b.go:3.1,4.2 1 0
github.com/prism-data-layer/prism/gen/c.go:1.1,2.2 100 0
github.com/prism-data-layer/prism/internal/proxy/d.go:1.1,2.2 10 0
github.com/prism-data-layer/prism/internal/proxy/d.go:1.1,2.2 10 7
`

func TestRun(t *testing.T) {
	dir := t.TempDir()
	whole := filepath.Join(dir, "tests.out")
	if err := os.WriteFile(whole, []byte(profileText), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(dir, "broken.out")
	if err := os.WriteFile(broken, []byte("mode: set\nnonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	common := []string{"-profile", whole, "-exclude", "gen"}
	tests := map[string]struct {
		args    []string
		prints  string
		hides   string
		problem string // a part of the error; empty means none
	}{
		"all floors hold":           {args: []string{"patterns/memory=80", "patterns/*=90", "total=90"}, prints: "not counted: gen"},
		"below":                     {args: []string{"patterns/memory=81"}, problem: "patterns/memory has 80.0%, its floor is 81%"},
		"total":                     {args: []string{"total=90"}, prints: "90.0%"},
		"total below":               {args: []string{"total=91"}, problem: "total has 90.0%, its floor is 91%"},
		"first pattern decides":     {args: []string{"patterns/memory=50", "patterns/*=85"}, hides: "BELOW"},
		"wildcard below":            {args: []string{"patterns/*=85"}, problem: "patterns/memory has 80.0%"},
		"floor without a package":   {args: []string{"patterns/gone=80"}, problem: `"patterns/gone" concerns no package`},
		"not a floor":               {args: []string{"patterns/memory"}, problem: "want PATTERN=PERCENT"},
		"not a percentage":          {args: []string{"patterns/memory=180"}, problem: "want PATTERN=PERCENT"},
		"not a pattern":             {args: []string{"patterns/[=80"}, problem: "syntax error in pattern"},
		"no profile":                {args: []string{"-profile", filepath.Join(dir, "none")}, problem: "run `make test` first"},
		"broken profile":            {args: []string{"-profile", broken}, problem: "line 2: want BLOCK"},
		"everything is excluded":    {args: []string{"-exclude", "patterns", "-exclude", "internal"}, problem: "no statements"},
		"without a floor":           {args: nil, prints: "internal/proxy"},
		"excluded does not show up": {args: nil, hides: "\ngen "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			err := run(append(append([]string{}, common...), test.args...), &out)
			switch {
			case test.problem == "" && err != nil:
				t.Fatalf("error %v\n%s", err, out.String())
			case test.problem != "" && (err == nil || !strings.Contains(err.Error(), test.problem)):
				t.Fatalf("error %v, want one with %q\n%s", err, test.problem, out.String())
			}
			if !strings.Contains(out.String(), test.prints) {
				t.Errorf("want %q in:\n%s", test.prints, out.String())
			}
			if test.hides != "" && strings.Contains(out.String(), test.hides) {
				t.Errorf("want no %q in:\n%s", test.hides, out.String())
			}
		})
	}
}

func TestCountRoundsDown(t *testing.T) {
	if got := (count{statements: 10000, covered: 8499}).String(); got != "84.9%" {
		t.Errorf("84.99%% is printed as %s", got)
	}
	if got := (count{}).String(); got != "-" {
		t.Errorf("nothing to cover is printed as %s", got)
	}
}
