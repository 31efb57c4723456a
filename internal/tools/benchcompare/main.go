// Command benchcompare runs the main benchmarks of two revisions in turns, so that a busy machine slows both alike.
//
//	benchcompare [-old REVISION] [-new REVISION] [-rounds N] [-bench REGEXP] [-benchtime D] [-out FOLDER]
//
// It checks out what is not the working tree into a git worktree in a temporary folder, builds the tests of each package
// with main benchmarks once for either side, and runs every package old, new in one round and new, old in the next. What
// they print goes to bench-old.txt and bench-new.txt, a whole package at a time, for benchstat to compare. The worktrees
// are removed at the end, also when it is interrupted.
//
// Without -new it is the working tree, uncommitted changes included. Without -old it is where the new side left main, or,
// on main itself, what was committed last. With -bench, the benchmarks are those that match, in any package.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchcompare:", err)
		os.Exit(1)
	}
}

// options is what the command line says.
type options struct {
	old, new  string
	bench     string
	benchtime string
	out       string
	rounds    int
}

func parse(args []string, out io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("benchcompare", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&o.old, "old", "", "revision to compare with; where the new side left main if empty")
	flags.StringVar(&o.new, "new", "", "revision to judge; the working tree if empty")
	flags.StringVar(&o.bench, "bench", "", "benchmarks to run, as for go test; the main ones if empty")
	flags.StringVar(&o.benchtime, "benchtime", "0.3s", "how long each runs in a round, as for go test")
	flags.StringVar(&o.out, "out", "dist", "folder for bench-old.txt and bench-new.txt")
	flags.IntVar(&o.rounds, "rounds", 6, "how often each runs on either side; benchstat wants at least 6")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.rounds < 1 {
		return o, fmt.Errorf("rounds: %d is not a number of rounds", o.rounds)
	}
	return o, nil
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	o, err := parse(args, out)
	if err != nil {
		return err
	}
	root, err := git(ctx, ".", "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	older, newer, err := sides(ctx, root, o)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "old: %s\nnew: %s\n", older, newer)

	scratch, err := os.MkdirTemp("", "benchcompare-")
	if err != nil {
		return err
	}
	defer func() {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		err = errors.Join(err, cleanUp(context.WithoutCancel(ctx), root, scratch, older, newer))
	}()
	for _, s := range []*side{older, newer} {
		if err := s.checkOut(ctx, root, scratch); err != nil {
			return err
		}
	}
	suites, err := choose(out, o.bench, older, newer)
	if err != nil {
		return err
	}
	for _, s := range []*side{older, newer} {
		for _, suite := range suites {
			fmt.Fprintf(out, "building %s %s\n", s.name, suite.dir)
			if err := s.build(ctx, suite); err != nil {
				return err
			}
		}
	}
	return compare(ctx, out, o, suites, older, newer)
}

// compare runs every suite on both sides, round by round, and tells how far it is.
func compare(ctx context.Context, out io.Writer, o options, suites []suite, older, newer *side) error {
	if err := os.MkdirAll(o.out, 0o750); err != nil {
		return err
	}
	for _, s := range []*side{older, newer} {
		s.results = filepath.Join(o.out, "bench-"+s.name+".txt")
	}
	start, total := time.Now(), o.rounds*len(suites)
	for round := range o.rounds {
		turns := [2]*side{older, newer}
		if round%2 == 1 {
			turns = [2]*side{newer, older}
		}
		for i, suite := range suites {
			fmt.Fprintf(out, "round %d of %d, %s%s\n", round+1, o.rounds, suite.dir, left(time.Since(start), round*len(suites)+i, total))
			for _, s := range turns {
				if err := s.bench(ctx, suite, o.benchtime); err != nil {
					return err
				}
			}
		}
	}
	for _, s := range []*side{older, newer} {
		if !bytes.Contains(s.printed, []byte("ns/op")) {
			return fmt.Errorf("%s: no benchmark of it matches", s)
		}
	}
	return nil
}

// left tells how long the rest will take, going by what is done.
func left(took time.Duration, done, total int) string {
	if done == 0 {
		return ""
	}
	rest := took / time.Duration(done) * time.Duration(total-done)
	return ", about " + rest.Round(time.Second).String() + " left"
}
