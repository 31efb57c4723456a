package main

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/prism-data-layer/prism/internal/app"
)

const root = "../../.."

// ask is the decoder itself, without a process around it.
func ask(src string) []problem {
	_, err := app.Parse("probe", []byte(src))
	var out []problem
	if found, ok := errors.AsType[*app.ConfigError](err); ok {
		for _, p := range found.Problems {
			out = append(out, problem{line: p.Line, text: p.Text})
		}
	}
	return out
}

// TestFresh compares the page with what the code says now: with each key that the decoder accepts.
func TestFresh(t *testing.T) {
	t.Parallel()
	want, err := render(root, ask)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(root + "/" + page)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) == want {
		return
	}
	have := strings.Split(string(got), "\n")
	for i, line := range strings.Split(want, "\n") {
		if i >= len(have) || have[i] != line {
			t.Errorf("line %d would be:\n%s", i+1, line)
			break
		}
	}
	t.Errorf("%s is stale: run go run ./internal/tools/configdoc", page)
}

// TestKnown holds the page against keys that are known to be there, so that the probing itself is seen to find them.
func TestKnown(t *testing.T) {
	t.Parallel()
	text, err := render(root, ask)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| `grpc` | host:port | `127.0.0.1:8980` |",
		"| `drain_timeout` | duration | 10s |",
		"| **`namespaces`** | list of mappings |",
		"| `retry_attempts` | number, 1 to 20 | 3 |",
		"| `max_payload` | size, up to 64 MiB | 1 MiB |",
		"| `ttl_default` | duration, or `never` | 5m |",
		"| `delivery` | `at-most-once`, `at-least-once`, `exactly-once` |",
		"| `change_log` | number, from 1 | 65,536 |",
		"| `max_age` | duration | 24h |",
		"| **`master`** | text |",
		"| `password` | secret |",
		"## Connection of type `redis`",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
}

// TestUndescribed is a key that nothing tells about.
func TestUndescribed(t *testing.T) {
	t.Parallel()
	_, err := render(root, func(string) []problem {
		return []problem{
			{line: 1, text: "unknown key zzzz; legal keys: nonsense"},
			{line: 1, text: "nonsense: expected a whole number, got nothing"},
		}
	})
	if err == nil || !strings.Contains(err.Error(), "nothing tells what nonsense is") {
		t.Errorf("got %v", err)
	}
}

// TestUnasked is a decoder that does not answer.
func TestUnasked(t *testing.T) {
	t.Parallel()
	for name, answers := range map[string][]problem{
		"no keys": {{line: 1, text: "no"}},
		"no kind": {{line: 1, text: "unknown key zzzz; legal keys: listen"}},
	} {
		if _, err := render(root, func(string) []problem { return answers }); err == nil || !strings.Contains(err.Error(), "does not tell") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	got := problems("standard input:1:2: first\nstandard input:33:1: second: third\nnothing\n")
	if len(got) != 2 || got[0] != (problem{1, "first"}) || got[1] != (problem{33, "second: third"}) {
		t.Errorf("got %v", got)
	}
}
