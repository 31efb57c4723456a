package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// patience is how long a program may take to end after it was interrupted, and git to remove a worktree.
const patience = 20 * time.Second

// side is one of the two that are compared: a revision, or the working tree.
type side struct {
	name     string // "old" or "new"
	commit   string // empty: the working tree
	title    string
	dir      string // where its source is
	binaries string // where its test binaries are
	results  string // the file for what its benchmarks print
	printed  []byte // what is in it
}

func (s *side) String() string { return s.title }

// sides finds the two revisions, before anything is built.
func sides(ctx context.Context, root string, o options) (older, newer *side, err error) {
	if newer, err = find(ctx, root, "new", o.new); err != nil {
		return nil, nil, err
	}
	if o.old == "" {
		o.old = base(ctx, root, o.new)
	}
	older, err = find(ctx, root, "old", o.old)
	return older, newer, err
}

// find resolves a revision; an empty one is the working tree.
func find(ctx context.Context, root, name, revision string) (*side, error) {
	if revision == "" {
		return &side{name: name, title: "the working tree", dir: root}, nil
	}
	commit, err := git(ctx, root, "rev-parse", "--verify", "--quiet", "--end-of-options", revision+"^{commit}")
	if err != nil {
		return nil, fmt.Errorf("%s revision %q: there is no such commit in this repository", name, revision)
	}
	title, err := git(ctx, root, "log", "-1", "--format=%h %s", commit)
	return &side{name: name, commit: commit, title: title}, err
}

// base is what to compare with when nobody says so: where the new side left main; on main itself the last commit, which is
// the new side's parent, or HEAD if the working tree has changes.
func base(ctx context.Context, root, newer string) string {
	tip := newer
	if tip == "" {
		tip = "HEAD"
	}
	commit, err := git(ctx, root, "rev-parse", "--verify", "--quiet", "--end-of-options", tip+"^{commit}")
	if err != nil {
		return tip
	}
	for _, trunk := range []string{"origin/main", "main"} {
		if fork, err := git(ctx, root, "merge-base", commit, trunk); err == nil && fork != commit {
			return fork
		}
	}
	if newer == "" {
		if changes, err := git(ctx, root, "status", "--porcelain"); err == nil && changes != "" {
			return tip
		}
	}
	return tip + "~1"
}

// checkOut gives the side a folder for its binaries and one for its source, unless it is the working tree.
func (s *side) checkOut(ctx context.Context, root, scratch string) error {
	s.binaries = filepath.Join(scratch, "tests-"+s.name)
	if s.commit == "" {
		return nil
	}
	s.dir = filepath.Join(scratch, s.name)
	_, err := git(ctx, root, "worktree", "add", "--quiet", "--detach", s.dir, s.commit)
	return err
}

// cleanUp removes the worktrees, and what git knows of them, even of one that was not finished.
func cleanUp(ctx context.Context, root, scratch string, sides ...*side) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var errs []error
	for _, s := range sides {
		if s.commit == "" || s.dir == "" {
			continue
		}
		if _, err := git(ctx, root, "worktree", "remove", "--force", s.dir); err != nil {
			errs = append(errs, err)
		}
	}
	errRemove := os.RemoveAll(scratch)
	if len(errs) == 0 {
		return errRemove
	}
	if _, err := git(ctx, root, "worktree", "prune"); err != nil {
		return errors.Join(append(errs, err, errRemove)...)
	}
	return errRemove
}

// git runs git in a folder and returns what it prints, without the last line's end.
func git(ctx context.Context, dir string, args ...string) (string, error) {
	out, err := output(ctx, dir, "git", args...)
	return strings.TrimSpace(string(out)), err
}

// output runs a program and returns what it prints. It is interrupted, not killed, when ctx ends, so that it can stop what it
// has started.
func output(ctx context.Context, dir, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // git, go and the test binaries made here
	cmd.Dir = dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = patience
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		said := strings.TrimSpace(stdout.String() + stderr.String())
		return nil, fmt.Errorf("%s %s: %w\n%s", filepath.Base(program), args[0], err, said)
	}
	return stdout.Bytes(), nil
}
