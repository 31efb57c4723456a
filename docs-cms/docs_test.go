// Package docs_test checks the documentation against the product: that links lead somewhere, that configurations are read, that
// commands exist and that what the quick start says is what happens.
package docs_test

import (
	"errors"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prism-data-layer/prism/internal/app"
	"github.com/prism-data-layer/prism/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// binary is the command under test, built once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "prism-docs")
	if err != nil {
		return "", err
	}
	testenv.AtExit(func() { _ = os.RemoveAll(dir) }) // a temporary folder
	file := filepath.Join(dir, "prism")
	cmd := exec.Command("go", "build", "-o", file, "./cmd/prism")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return file, nil
})

func prism(t *testing.T) string {
	t.Helper()
	file, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// TestLinks follows every link that stays in the repository.
func TestLinks(t *testing.T) {
	t.Parallel()
	all := pages(t)
	for _, p := range all {
		for _, l := range p.links {
			target, anchor, _ := strings.Cut(l.text, "#")
			switch {
			case strings.Contains(target, ":"): // elsewhere: https, mailto
				continue
			case strings.HasPrefix(target, "/"):
				t.Errorf("%s:%d: %s: links within the repository are relative", p.path, l.line, l.text)
				continue
			}
			to := p.path
			if target != "" {
				to = path.Join(path.Dir(p.path), target)
			}
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				t.Errorf("%s:%d: %s: %v", p.path, l.line, l.text, err)
				continue
			}
			if other := all[to]; anchor != "" && other != nil && !other.anchors[anchor] {
				t.Errorf("%s:%d: %s: %s has no heading %q", p.path, l.line, l.text, to, anchor)
			}
		}
	}
}

// TestIndex holds the index against the folders: every page can be found from there.
func TestIndex(t *testing.T) {
	t.Parallel()
	all := pages(t)
	linked := make(map[string]bool)
	for _, l := range all["docs-cms/README.md"].links {
		target, _, _ := strings.Cut(l.text, "#")
		linked[path.Join("docs-cms", target)] = true
	}
	for name := range all {
		if strings.HasPrefix(name, "docs-cms/") && name != "docs-cms/README.md" && !linked[name] {
			t.Errorf("docs-cms/README.md does not link to %s", name)
		}
	}
}

// TestConfigurations reads every block of YAML that is a configuration, or a part of one.
func TestConfigurations(t *testing.T) {
	t.Parallel()
	found := 0
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			src, ok := configuration(b)
			if !ok {
				continue
			}
			found++
			if _, err := app.Parse(p.path, []byte(src)); err != nil {
				t.Errorf("the block at line %d, completed to:\n%s%v", b.line, src, err)
			}
		}
	}
	if found == 0 {
		t.Error("found no configuration")
	}
}

const (
	someSlots     = "    backend_slots: {registry: {type: memory}, messaging: {type: memory}}\n"
	someNamespace = "namespaces:\n  - name: default\n    pattern: multicast-registry\n"
)

// configuration completes a part of a configuration to a whole one. It is not ok for other YAML.
func configuration(b block) (src string, ok bool) {
	first, _, _ := strings.Cut(b.text, ":")
	top := []string{"listen", "tls", "auth", "insecure", "tracing", "startup_timeout", "drain_timeout", "namespaces"}
	switch {
	case b.language != "yaml":
		return "", false
	case regexp.MustCompile(`(?m)^namespaces:`).MatchString(b.text):
		return b.text, true
	case slices.Contains(top, first):
		return b.text + someNamespace + someSlots, true
	case first == "backend_slots":
		return someNamespace + indent(b.text, "    "), true
	case first == "access" || first == "filter":
		return someNamespace + indent(b.text, "    ") + someSlots, true
	}
	return "", false
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+by) + "\n"
}

// TestCommands looks up each command and flag that a page mentions, and each target of make.
func TestCommands(t *testing.T) {
	t.Parallel()
	known := &helps{ctx: t.Context(), prism: prism(t), of: make(map[string]help)}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, p := range pages(t) {
		for _, c := range p.commands() {
			for _, words := range split(c.text) {
				words, program := invocation(words)
				switch program {
				case "prism":
					found++
					if problem := known.check(words); problem != "" {
						t.Errorf("%s:%d: %s: %s", p.path, c.line, c.text, problem)
					}
				case "make":
					for _, target := range targets(words) {
						if !regexp.MustCompile(`(?m)^(\.PHONY:.* )?` + regexp.QuoteMeta(target) + `(:| .*:)`).Match(makefile) {
							t.Errorf("%s:%d: %s: there is no target %s", p.path, c.line, c.text, target)
						}
					}
				}
			}
		}
	}
	if found < 50 {
		t.Errorf("found %d commands only", found)
	}
}
