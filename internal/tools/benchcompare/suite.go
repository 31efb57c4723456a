package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// suite is a package and the benchmarks of it that run, as go test's -bench has them.
type suite struct{ dir, bench string }

// mainBenchmarks are what most requests go through, each at one or two sizes. They start no servers, and a few hundred
// milliseconds of each, on both sides and six times, end within minutes.
var mainBenchmarks = []suite{
	{"patterns/multicast_registry/filter", `^BenchmarkMatch$/^(equality|three)/filter|^BenchmarkMatch$/(semver|startswith)`},
	{"patterns/multicast_registry/index", `^BenchmarkQuery$/1%/^(1k|100k)$|^BenchmarkPut$/^new$`},
	{"patterns/multicast_registry", `^BenchmarkMulticast$/^targets=1000$/^at-`},
	{"patterns/memory", `^(BenchmarkPut|BenchmarkPublish)$`},
	{"internal/proxy", `^BenchmarkShownPage$`},
	{"client", `^BenchmarkReply$`},
	{"tests/acceptance", `^(BenchmarkCall|BenchmarkRegister)$/^memory.memory$|^BenchmarkEnumerate$/./^memory.memory$`},
}

// choose returns what both sides have of the main benchmarks or, if bench is not empty, of what it matches in any package.
// It says what one side lacks.
func choose(out io.Writer, bench string, older, newer *side) ([]suite, error) {
	wanted := mainBenchmarks
	if bench != "" {
		var err error
		if wanted, err = matching(bench, older.dir, newer.dir); err != nil {
			return nil, err
		}
		if len(wanted) == 0 {
			return nil, fmt.Errorf("no benchmark matches %q", bench)
		}
	}
	var both []suite
	for _, suite := range wanted {
		shared := true
		for _, s := range []*side{older, newer} {
			if !hasTests(filepath.Join(s.dir, suite.dir)) {
				fmt.Fprintf(out, "left out: %s has no tests in the %s revision (%s)\n", suite.dir, s.name, s)
				shared = false
			}
		}
		if shared {
			both = append(both, suite)
		}
	}
	if len(both) == 0 {
		return nil, errors.New("the two have no package with such benchmarks in common")
	}
	return both, nil
}

func hasTests(dir string) bool {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	return err == nil && len(files) > 0
}

var benchmarkFunc = regexp.MustCompile(`(?m)^func (Benchmark\w*)\(`)

// matching returns the packages of any root that have a benchmark which the pattern may match, in order.
func matching(bench string, roots ...string) ([]suite, error) {
	firsts, err := firstElements(bench)
	if err != nil {
		return nil, err
	}
	matches := func(text []byte) bool {
		for _, name := range benchmarkFunc.FindAllSubmatch(text, -1) {
			if slices.ContainsFunc(firsts, func(r *regexp.Regexp) bool { return r.Match(name[1]) }) {
				return true
			}
		}
		return false
	}
	var found []suite
	for _, root := range roots {
		module := os.DirFS(root)
		err := fs.WalkDir(module, ".", func(name string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if entry.IsDir() {
				return skip(module, name)
			}
			candidate := suite{path.Dir(name), bench}
			if !strings.HasSuffix(name, "_test.go") || slices.Contains(found, candidate) {
				return nil
			}
			text, err := fs.ReadFile(module, name)
			if matches(text) {
				found = append(found, candidate)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(found, func(a, b suite) int { return strings.Compare(a.dir, b.dir) })
	return found, nil
}

// skip skips folders that are not part of the module: hidden ones, test data and modules of their own.
func skip(module fs.FS, dir string) error {
	if dir == "." {
		return nil
	}
	name := path.Base(dir)
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" {
		return fs.SkipDir
	}
	if _, err := fs.Stat(module, dir+"/go.mod"); err == nil {
		return fs.SkipDir
	}
	return nil
}

// firstElements returns what a pattern of go test says about the names of functions: the part before the first slash of each
// of its alternatives. Slashes and bars inside of brackets and parentheses do not count, as in package testing.
func firstElements(bench string) ([]*regexp.Regexp, error) {
	var firsts []*regexp.Regexp
	begin, end, depth, class := 0, -1, 0, false
	for i := 0; i <= len(bench); i++ {
		outside := depth == 0 && !class
		switch {
		case i == len(bench), bench[i] == '|' && outside:
			if end < 0 {
				end = i
			}
			first, err := regexp.Compile(bench[begin:end])
			if err != nil {
				return nil, fmt.Errorf("pattern %q: %w", bench, err)
			}
			firsts = append(firsts, first)
			begin, end = i+1, -1
		case bench[i] == '/' && outside && end < 0:
			end = i
		case bench[i] == '\\':
			i = min(i+1, len(bench)-1) // whatever follows stands for itself
		case bench[i] == '[', bench[i] == ']':
			class = bench[i] == '['
		case bench[i] == '(' && !class:
			depth++
		case bench[i] == ')' && !class:
			depth--
		}
	}
	return firsts, nil
}

// build makes the test binary of a package.
func (s *side) build(ctx context.Context, of suite) error {
	// -trimpath: so that what both sides share is compiled once, wherever it lies.
	if _, err := output(ctx, s.dir, "go", "test", "-c", "-trimpath", "-o", s.binary(of), "./"+of.dir); err != nil {
		return fmt.Errorf("%s (%s): %s does not build: %w", s.name, s, of.dir, err)
	}
	return nil
}

func (s *side) binary(of suite) string {
	return filepath.Join(s.binaries, strings.ReplaceAll(of.dir, "/", "-")+".test")
}

// bench runs a package's benchmarks once and keeps what they print if they succeed.
func (s *side) bench(ctx context.Context, of suite, benchtime string) error {
	printed, err := output(ctx, filepath.Join(s.dir, of.dir), s.binary(of),
		"-test.run=^$", "-test.bench="+of.bench, "-test.benchmem", "-test.benchtime="+benchtime, "-test.timeout=60m")
	if err != nil {
		return fmt.Errorf("%s (%s): %s: %w", s.name, s, of.dir, err)
	}
	s.printed = append(s.printed, printed...)
	return os.WriteFile(s.results, s.printed, 0o600)
}
