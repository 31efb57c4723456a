// Command coverfloor prints the coverage of each package and fails when one lies below its floor.
//
//	coverfloor -profile tests.out [-exclude DIR]... PATTERN=PERCENT... total=PERCENT
//
// It reads a profile of go test. A PATTERN is a package's folder, or a path.Match pattern over it; the first one that matches
// counts. A floor that concerns no package is an error, so that a renamed folder does not lose its floor in silence.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// totalName is the floor of all packages together.
const totalName = "total"

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "coverfloor:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("coverfloor", flag.ContinueOnError)
	name := flags.String("profile", "", "what go test -coverprofile wrote")
	var excluded []string
	flags.Func("exclude", "folder that is not counted, with all below it (repeatable)", func(dir string) error {
		excluded = append(excluded, dir)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	floors, err := parseFloors(flags.Args())
	if err != nil {
		return err
	}
	p, err := load(*name)
	if err != nil {
		return err
	}
	return report(out, p.without(excluded), floors, excluded)
}

// floor is the least percentage of covered statements that a package, or several, must reach.
type floor struct {
	pattern string
	percent float64
	used    bool
}

func parseFloors(args []string) ([]*floor, error) {
	var floors []*floor
	for _, arg := range args {
		pattern, number, found := strings.Cut(arg, "=")
		percent, err := strconv.ParseFloat(number, 64)
		if !found || err != nil || percent < 0 || percent > 100 {
			return nil, fmt.Errorf("floor %q: want PATTERN=PERCENT", arg)
		}
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, fmt.Errorf("floor %q: %w", arg, err)
		}
		floors = append(floors, &floor{pattern: pattern, percent: percent})
	}
	return floors, nil
}

// floorOf returns the first floor whose pattern matches the folder, or nil.
func floorOf(dir string, floors []*floor) *floor {
	for _, f := range floors {
		if matched, err := path.Match(f.pattern, dir); err == nil && matched {
			f.used = true
			return f
		}
	}
	return nil
}

// report prints one line a package and a total, and returns an error that names what lies below its floor.
func report(out io.Writer, p profile, floors []*floor, excluded []string) error {
	if len(p) == 0 {
		return errors.New("the profile holds no statements")
	}
	packages, sum := p.packages()

	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PACKAGE\tSTATEMENTS\tCOVERED\tFLOOR\t")
	var below []string
	judge := func(name string, f *floor, got count) string {
		switch {
		case f == nil:
			return "-\t"
		case got.percent() < f.percent:
			below = append(below, fmt.Sprintf("%s has %s, its floor is %g%%", name, got, f.percent))
			return fmt.Sprintf("%g%%\tBELOW", f.percent)
		default:
			return fmt.Sprintf("%g%%\tok", f.percent)
		}
	}
	for _, dir := range sortedKeys(packages) {
		verdict := judge(dir, floorOf(dir, floors), packages[dir])
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\n", dir, packages[dir].statements, packages[dir], verdict)
	}
	fmt.Fprintf(table, "%s\t%d\t%s\t%s\n", totalName, sum.statements, sum, judge(totalName, floorOf(totalName, floors), sum))
	if err := table.Flush(); err != nil {
		return err
	}
	if len(excluded) > 0 {
		fmt.Fprintln(out, "not counted:", strings.Join(excluded, " "))
	}

	for _, f := range floors {
		if !f.used {
			below = append(below, fmt.Sprintf("floor %q concerns no package", f.pattern))
		}
	}
	if len(below) > 0 {
		return errors.New(strings.Join(below, "; "))
	}
	return nil
}

func sortedKeys(m map[string]count) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
