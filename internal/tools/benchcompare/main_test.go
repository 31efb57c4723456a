package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// repository is one with three commits on main: the package `a` with a benchmark, then `b` as well, then one in which `a`
// does not compile. The working tree stands on the second.
func repository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "go.mod", "module example.org/m\n\ngo 1.26\n")
	write(t, dir, "a/a_test.go", benchmarkOf("a", "One", "n := 0\n\tfor b.Loop() {\n\t\tn++\n\t}"))
	do(t, dir, "init", "--quiet", "--initial-branch=main")
	commit(t, dir, "first")
	write(t, dir, "b/b_test.go", benchmarkOf("b", "Two", "for b.Loop() {\n\t}"))
	commit(t, dir, "second")
	write(t, dir, "a/a_test.go", "package a\n\nthis is no Go\n")
	commit(t, dir, "broken")
	do(t, dir, "tag", "broken")
	do(t, dir, "reset", "--quiet", "--hard", "HEAD~1")
	return dir
}

func benchmarkOf(pkg, name, body string) string {
	return "package " + pkg + "\n\nimport \"testing\"\n\nfunc Benchmark" + name + "(b *testing.B) {\n\t" + body + "\n}\n"
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func do(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func commit(t *testing.T, dir, subject string) {
	t.Helper()
	do(t, dir, "add", ".")
	do(t, dir, "commit", "--quiet", "--message", subject)
}

// nothingLeft fails if git still knows a worktree besides the first, or a folder is left.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	if list := do(t, dir, "worktree", "list"); strings.Contains(list, "\n") {
		t.Errorf("worktrees are left:\n%s", list)
	}
	if entries, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(entries) > 0 {
		t.Errorf("left in the temporary folder: %v, %v", entries, err)
	}
}

func TestRun(t *testing.T) {
	dir := repository(t)
	t.Chdir(dir)
	tests := map[string]struct {
		args     []string
		prints   []string
		problem  string // a part of the error; empty means none
		old, new int    // results of a round and side
	}{
		"parent and working tree": {
			args: []string{"-bench", "One"}, old: 1, new: 1,
			prints: []string{" first\n", "new: the working tree", "building old a", "building new a", "round 1 of 2, a", "round 2 of 2, a, about"},
		},
		"package of one side": {
			args: []string{"-bench", "One|Two", "-old", "HEAD~1", "-new", "HEAD"}, old: 1, new: 1,
			prints: []string{"left out: b has no tests in the old revision"},
		},
		"no package of both":    {args: []string{"-bench", "Two"}, problem: "no package with such benchmarks in common"},
		"main benchmarks":       {args: nil, problem: "no package with such benchmarks in common"},
		"no benchmark":          {args: []string{"-bench", "Three"}, problem: `no benchmark matches "Three"`},
		"no part of one":        {args: []string{"-bench", "One/deeper"}, problem: "first: no benchmark of it matches"},
		"no pattern":            {args: []string{"-bench", "One("}, problem: "missing closing )"},
		"old does not exist":    {args: []string{"-old", "v9"}, problem: `old revision "v9": there is no such commit`},
		"new does not exist":    {args: []string{"-new", "--all"}, problem: `new revision "--all": there is no such commit`},
		"one does not compile":  {args: []string{"-bench", "One", "-new", "broken"}, problem: "broken): a does not build"},
		"rounds":                {args: []string{"-rounds", "0"}, problem: "not a number of rounds"},
		"argument":              {args: []string{"HEAD"}, problem: `unexpected argument "HEAD"`},
		"benchtime is nonsense": {args: []string{"-bench", "One", "-benchtime", "soon"}, problem: "soon"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			results := t.TempDir()
			var out bytes.Buffer
			err := run(t.Context(), append([]string{"-rounds", "2", "-benchtime", "10x", "-out", results}, test.args...), &out)
			switch {
			case test.problem == "" && err != nil:
				t.Fatalf("error %v\n%s", err, out.String())
			case test.problem != "" && (err == nil || !strings.Contains(err.Error(), test.problem)):
				t.Fatalf("error %v, want one with %q\n%s", err, test.problem, out.String())
			}
			for _, text := range test.prints {
				if !strings.Contains(out.String(), text) {
					t.Errorf("want %q in:\n%s", text, out.String())
				}
			}
			if test.problem == "" {
				for side, want := range map[string]int{"old": test.old, "new": test.new} {
					text, err := os.ReadFile(filepath.Join(results, "bench-"+side+".txt"))
					if got := bytes.Count(text, []byte("ns/op")); err != nil || got != 2*want || !bytes.Contains(text, []byte("pkg: example.org/m/a")) {
						t.Errorf("%s: %d results, want %d, %v:\n%s", side, got, 2*want, err, text)
					}
				}
			}
			nothingLeft(t, dir)
		})
	}
}

// TestInterrupted ends the comparison while a benchmark runs that would take an hour.
func TestInterrupted(t *testing.T) {
	dir := repository(t)
	t.Chdir(dir)
	began := filepath.Join(t.TempDir(), "began")
	write(t, dir, "a/a_test.go", "package a\n\nimport (\n\t\"os\"\n\t\"testing\"\n\t\"time\"\n)\n\nfunc BenchmarkOne(b *testing.B) {\n"+
		"\tos.WriteFile(\""+filepath.ToSlash(began)+"\", nil, 0o600)\n\t<-time.After(time.Hour)\n}\n")
	commit(t, dir, "slow")
	t.Setenv("TMPDIR", t.TempDir())

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	var out bytes.Buffer
	go func() {
		done <- run(ctx, []string{"-bench", "One", "-old", "HEAD", "-new", "HEAD", "-out", t.TempDir()}, &out)
	}()
	for deadline := time.Now().Add(5 * time.Minute); ; <-time.After(20 * time.Millisecond) {
		if _, err := os.Stat(began); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the benchmark did not begin")
		}
	}
	cancel()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("error %v, want one that says so\n%s", err, out.String())
	}
	nothingLeft(t, dir)
}

func TestBase(t *testing.T) {
	dir := repository(t)
	first, second := do(t, dir, "rev-parse", "HEAD~1"), do(t, dir, "rev-parse", "HEAD")
	check := func(name, newer, want string) {
		t.Helper()
		if got := base(t.Context(), dir, newer); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	check("on main, no changes", "", "HEAD~1")
	check("on main, a revision", "HEAD", "HEAD~1")
	check("no such revision", "v9", "v9")
	write(t, dir, "a/new.go", "package a\n")
	check("on main, changes", "", "HEAD")
	check("changes are not part of a revision", "HEAD", "HEAD~1")
	do(t, dir, "update-ref", "refs/remotes/origin/main", first)
	check("ahead of origin", "", first)
	do(t, dir, "switch", "--quiet", "--create", "branch")
	commit(t, dir, "third")
	do(t, dir, "update-ref", "refs/remotes/origin/main", second)
	check("on a branch", "", second)
	check("a branch from elsewhere", "branch", second)
}

func TestFirstElements(t *testing.T) {
	for pattern, want := range map[string]string{
		`.`: `.`, `^A$/x/y`: `^A$`, `A|B`: `A B`, `A/x|B/y/z|C`: `A B C`, `(A|B)/x`: `(A|B)`, `[A/|]/x`: `[A/|]`, `A\|/x`: `A\|`, `[(]A/x`: `[(]A`,
	} {
		firsts, err := firstElements(pattern)
		var got []string
		for _, first := range firsts {
			got = append(got, first.String())
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q, %v", pattern, got, want, err)
		}
	}
	if _, err := firstElements(`A\`); err == nil {
		t.Error("a backslash at the end is no pattern")
	}
}

// TestMainBenchmarks fails when a main benchmark was renamed or has moved.
func TestMainBenchmarks(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	for _, want := range mainBenchmarks {
		firsts, err := firstElements(want.bench)
		if err != nil {
			t.Fatal(err)
		}
		for _, first := range firsts {
			found, err := matching(first.String(), filepath.Join(root, want.dir))
			if err != nil || !slices.Contains(found, suite{".", first.String()}) {
				t.Errorf("%s has no benchmark %s (%v)", want.dir, first, err)
			}
		}
	}
}
