// Command configdoc writes docs-cms/reference/configuration.md from the code:
//
//	go run ./internal/tools/configdoc
//
// Which keys there are, what values they take and which are required it learns from the decoder itself, by giving it wrong
// ones (probe.go); what they mean and their defaults stand in the comments of the configuration structs (structs.go). A key
// that has no comment is an error, and a test fails when the page is stale.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// page is the file that is written, from the root of the repository.
const page = "docs-cms/reference/configuration.md"

func main() {
	out := flag.String("out", page, "file to write, from the root of the repository")
	flag.Parse()
	if err := run(context.Background(), *out); err != nil {
		fmt.Fprintln(os.Stderr, "configdoc:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string) error {
	if _, err := os.Stat("go.mod"); err != nil {
		return fmt.Errorf("run it at the root of the repository: %w", err)
	}
	tmp, err := os.MkdirTemp("", "configdoc")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // a temporary folder
	prism := filepath.Join(tmp, "prism")
	build := exec.CommandContext(ctx, "go", "build", "-o", prism, "./cmd/prism") //nolint:gosec // a path of our own
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the decoder: %w\n%s", err, text)
	}
	text, err := render(".", func(src string) []problem { return validate(ctx, prism, src) })
	if err != nil {
		return err
	}
	return os.WriteFile(out, []byte(text), 0o644) //nolint:gosec // a page for everybody to read
}

// A problem is what the decoder says about one line.
type problem struct {
	line int
	text string
}

var problemForm = regexp.MustCompile(`(?m)^[^:\n]+:(\d+):\d+: (.*)$`)

// problems reads what `prism config validate` prints.
func problems(text string) []problem {
	var out []problem
	for _, m := range problemForm.FindAllStringSubmatch(text, -1) {
		line, _ := strconv.Atoi(m[1]) // digits, by the expression
		out = append(out, problem{line: line, text: m[2]})
	}
	return out
}

func validate(ctx context.Context, prism, src string) []problem {
	cmd := exec.CommandContext(ctx, prism, "config", "validate", "-")
	cmd.Stdin = strings.NewReader(src)
	text, _ := cmd.CombinedOutput() // an exit code other than 0 is what is hoped for
	return problems(string(text))
}
