// Package prism_test holds the tests about the project as a whole.
package prism_test

import (
	"cmp"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/prism-data-layer/prism/"

// floors orders the packages: each may import what stands on a lower floor, and its own subfolders' floors as listed. The
// longest prefix decides. A package without a floor fails the test.
var floors = map[string]struct {
	floor int
	// only, if set, lists all that may be imported besides the standard library.
	only []string
	// tests says that only tests may import the package.
	tests bool
}{
	"gen":                                 {floor: 0},
	"patterns/multicast_registry/filter":  {floor: 0, only: []string{}},
	"patterns/multicast_registry":         {floor: 1, only: []string{module + "patterns/multicast_registry/filter"}},
	"patterns/multicast_registry/index":   {floor: 2},
	"patterns/multicast_registry/watch":   {floor: 2},
	"patterns/multicast_registry/replica": {floor: 3},
	"patterns/multicast_registry/mailbox": {floor: 2},
	// The conformance suites are for tests alone.
	"patterns/multicast_registry/slottest": {floor: 2, tests: true},
	"patterns":                             {floor: 4},
	"internal/limits":                      {floor: 3},
	"internal/schema":                      {floor: 3},
	"internal/auth":                        {floor: 2},
	"internal/metrics":                     {floor: 2},
	"internal/tracing":                     {floor: 2},
	"internal/proxy":                       {floor: 5},
	"internal/app":                         {floor: 6},
	"internal/doctor":                      {floor: 7},
	"internal/demo":                        {floor: 7},
	"internal/bench":                       {floor: 7},
	"internal/testenv":                     {floor: 7, tests: true},
	"internal/tools":                       {floor: 0, only: []string{}},
	"internal/tools/plots":                 {floor: 8},
	// Applications import the client: it knows the coordinator's types and the wire, and nothing of servers.
	"client":   {floor: 2},
	"examples": {floor: 0, only: []string{}},
	"cmd":      {floor: 8},
	"tests":    {floor: 9},
}

// foreign names what stops at a floor although it is not ours: generated types and gRPC stay with the proxy and the client,
// drivers with their backends.
var foreign = []struct {
	prefix  string
	allowed []string
}{
	{module + "gen/", []string{"gen", "internal/proxy", "client"}},
	{"google.golang.org/grpc", []string{"gen", "internal/proxy", "client"}},
	{"google.golang.org/protobuf", []string{"gen", "internal/proxy", "client", "internal/tracing"}},
	{"github.com/prometheus/client_golang", []string{"internal/metrics"}},
	{"go.opentelemetry.io/otel/sdk", []string{"internal/tracing"}},
	{"go.opentelemetry.io/otel/exporters", []string{"internal/tracing"}},
	{"go.opentelemetry.io/proto", []string{"internal/tracing"}},
	{"go.opentelemetry.io/", []string{"internal/tracing", "internal/proxy", "client"}},
	{"github.com/redis/rueidis", []string{"patterns"}},
	{"github.com/nats-io/", []string{"patterns", "internal/testenv"}},
	{"github.com/spf13/", []string{"cmd"}},
	{"github.com/goccy/go-yaml", []string{"internal/app", "cmd"}},
}

// TestFloors checks that imports point down only, as the table of floors says.
func TestFloors(t *testing.T) {
	t.Parallel()
	for own, imports := range packages(t) {
		from := floorOf(own)
		if from == "" {
			t.Errorf("%s stands on no floor: give it one in deps_test.go", own)
			continue
		}
		for _, imported := range imports {
			checkImport(t, own, from, imported)
		}
	}
}

func checkImport(t *testing.T, own, from, imported string) {
	t.Helper()
	ours, isOurs := strings.CutPrefix(imported, module)
	if allowed := floors[from].only; allowed != nil && strings.Contains(imported, ".") {
		if slices.Contains(allowed, imported) {
			return
		}
		t.Errorf("%s imports %s: %s may import the standard library and %v only", own, imported, from, allowed)
		return
	}
	for _, f := range foreign {
		if strings.HasPrefix(imported, f.prefix) && !under(from, f.allowed) {
			t.Errorf("%s imports %s, which stops at %v", own, imported, f.allowed)
		}
	}
	if !isOurs {
		return
	}
	to := floorOf(ours)
	switch {
	case to == "":
		t.Errorf("%s imports %s, which stands on no floor", own, ours)
	case floors[to].tests:
		t.Errorf("%s imports %s, which is for tests only", own, ours)
	case to != from && floors[to].floor >= floors[from].floor:
		t.Errorf("%s (floor %d) imports %s (floor %d): imports point down", own, floors[from].floor, ours, floors[to].floor)
	case from == "patterns" && to == "patterns" && own != ours:
		t.Errorf("%s imports %s: a backend knows no other backend", own, ours)
	}
}

func under(from string, allowed []string) bool {
	for _, a := range allowed {
		if from == a || strings.HasPrefix(from, a+"/") {
			return true
		}
	}
	return false
}

// floorOf returns the longest listed prefix of a package's path.
func floorOf(own string) string {
	for path := own; path != ""; {
		if _, ok := floors[path]; ok {
			return path
		}
		cut := strings.LastIndexByte(path, '/')
		if cut < 0 {
			return ""
		}
		path = path[:cut]
	}
	return ""
}

// packages reads the imports of every package of the module, tests left out. It parses the files itself, because what
// `go list` reads is unknown to the cache of test results.
func packages(t *testing.T) map[string][]string {
	t.Helper()
	all := make(map[string][]string)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != "." {
			return cmp.Or(err, filepath.SkipDir)
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		own := filepath.ToSlash(filepath.Dir(path))
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			all[own] = append(all[own], imported)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("found %d packages only", len(all))
	}
	return all
}
