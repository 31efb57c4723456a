// Command plots measures how the cost of the registry grows, and writes what docs-cms/performance.md and docs-cms/capacity.md
// show: raw values as JSON, plots as SVG, and tables between the pages' markers.
//
//	plots [-only EXPERIMENT,...] [-draw] [-quick] [-docs FOLDER]
//
// It builds the prism command, starts servers of it, and redis-server where one is needed, on free ports of 127.0.0.1, and
// puts the load of internal/bench on them. The quantity that counts is CPU time of the servers for each operation: it changes
// little when others use the machine too, as times do. Each experiment leaves a file of its own, and plots and tables are
// drawn from the files: with -only, those of the others stay as they are; with -draw, nothing is measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "plots:", err)
		os.Exit(1)
	}
}

// options is what the command line says.
type options struct {
	only  []string
	draw  bool
	quick bool
	docs  string
}

// experiments in the order in which they run.
var experiments = []struct {
	name    string
	measure func(ctx context.Context, l *lab) error
}{
	{"identities", identities},
	{"targets", targets},
	{"proxies", proxies},
	{"subscribers", subscribers},
	{"units", units},
}

func names() (all []string) {
	for _, e := range experiments {
		all = append(all, e.name)
	}
	return all
}

func parse(args []string, out io.Writer) (o options, err error) {
	flags := flag.NewFlagSet("plots", flag.ContinueOnError)
	flags.SetOutput(out)
	only := flags.String("only", "", "measure these only: "+strings.Join(names(), ","))
	flags.BoolVar(&o.draw, "draw", false, "measure nothing, draw what was measured before")
	flags.BoolVar(&o.quick, "quick", false, "short loads and small sizes, to see that it works; the figures are worth nothing")
	flags.StringVar(&o.docs, "docs", "docs-cms", "folder of the pages")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	o.only = names()
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	for _, name := range o.only {
		if !slices.Contains(names(), name) {
			return o, fmt.Errorf("%q is not one of %s", name, strings.Join(names(), ", "))
		}
	}
	return o, nil
}

func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args, out)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	folder := filepath.Join(o.docs, "performance")
	if !o.draw {
		if err := measure(ctx, o, folder, out); err != nil {
			return err
		}
	}
	found, err := load(folder)
	if err != nil {
		return err
	}
	if err := drawAll(folder, found); err != nil {
		return err
	}
	return write(o.docs, found)
}

// measure runs experiments, and leaves a file of each.
func measure(ctx context.Context, o options, folder string, out io.Writer) (err error) {
	l, err := newLab(ctx, o.quick, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	for _, e := range experiments {
		if !slices.Contains(o.only, e.name) {
			continue
		}
		l.begin(e.name)
		if err := e.measure(ctx, l); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		if err := l.measured.save(folder); err != nil {
			return err
		}
	}
	return nil
}
