package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	joined = regexp.MustCompile(`" \+\s*"`)
	// literal is what a message has in common with the code that makes it: the rest is names, numbers and other messages.
	literal = regexp.MustCompile(`[A-Za-z][A-Za-z ,'_-]{8,}[A-Za-z]`)
	shown   = regexp.MustCompile("`([^`]+)`")
)

// TestMessages looks for the messages that two guides quote, in the first column of their tables, in the code: at least one
// piece of each of them that is long enough.
func TestMessages(t *testing.T) {
	t.Parallel()
	code := sources(t)
	found := 0
	for _, path := range []string{"guides/troubleshooting.md", "guides/operations.md"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			if !strings.HasPrefix(line, "| ") {
				continue
			}
			cell, _, _ := strings.Cut(line[2:], " | ")
			for _, m := range shown.FindAllStringSubmatch(cell, -1) {
				pieces := literal.FindAllString(m[1], -1)
				if len(pieces) == 0 || pieces[len(pieces)-1] == "connection refused" { // the system says that
					continue
				}
				found++
				if !anyIn(code, pieces) {
					t.Errorf("docs-cms/%s:%d: no code says any of %q", path, i+1, pieces)
				}
			}
		}
	}
	if found < 30 {
		t.Errorf("found %d messages only", found)
	}
}

func anyIn(code string, pieces []string) bool {
	for _, piece := range pieces {
		if strings.Contains(code, piece) {
			return true
		}
	}
	return false
}

// sources is the text of all code of the product, with strings that go over several lines in one.
func sources(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, dir := range []string{"client", "cmd", "internal", "patterns"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			b.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return joined.ReplaceAllString(b.String(), "")
}
