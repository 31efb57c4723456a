package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/prism-data-layer/prism/client"
)

// The exit codes.
const (
	exitOK       = 0
	exitError    = 1
	exitSomeNot  = 2   // multicast: some targets were not delivered
	exitNotASoul = 3   // multicast: no target was delivered, or there was none
	exitSignal   = 128 // and the number of the signal, as shells count
)

// exit ends the program with a code when everything has been said.
type exit struct{ code int }

func (e exit) Error() string { return fmt.Sprintf("exit %d", e.code) }

// usageError is a command line that cannot be understood.
type usageError struct {
	cmd     *cobra.Command
	problem string
}

func (e *usageError) Error() string { return e.problem }

func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{cmd, fmt.Sprintf(format, args...)}
}

// args makes a usageError of what a cobra validator says.
func args(check cobra.PositionalArgs, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if check(cmd, given) != nil {
			return usagef(cmd, "expected %s, got %d arguments", want, len(given))
		}
		return nil
	}
}

// report prints an error, with advice, and returns the exit code.
func (p *program) report(err error) int {
	if err == nil {
		return exitOK
	}
	if code, ok := errors.AsType[exit](err); ok {
		return code.code
	}
	if usage, ok := errors.AsType[*usageError](err); ok {
		p.complainf("%v", err)
		fmt.Fprintf(p.err, "See `%s --help`.\n", usage.cmd.CommandPath())
		return exitError
	}
	p.complainf("%v", err)
	if advice := p.advice(err); advice != "" {
		fmt.Fprintln(p.err, advice)
	}
	return exitError
}

// complainf prints one line about what is wrong.
func (p *program) complainf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	fmt.Fprintln(p.err, "prism: "+strings.TrimRight(printable(text, true), "\n"))
}

// advice says what to do about an error, if there is something to say.
func (p *program) advice(err error) string {
	switch {
	case client.Unreachable(err):
		return "Is `prism serve` running there? --server and PRISM_SERVER say where to look."
	case errors.Is(err, client.ErrAlreadyExists):
		return "Use --replace to take its place, or `prism heartbeat` to renew its lease."
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("There was no answer within %s; --timeout allows more.", p.timeout)
	}
	return ""
}
