package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/app"
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
		p.complainf("%s", brief(err.Error()))
		fmt.Fprintf(p.err, "See `%s --help`.\n", usage.cmd.CommandPath())
		return exitError
	}
	text := err.Error()
	if _, ok := errors.AsType[*app.ConfigError](err); !ok { // which is a list, of lines that can be read
		text = brief(text)
	}
	p.complainf("%s", text)
	if advice := advice(err); advice != "" {
		fmt.Fprintln(p.err, advice)
	}
	return exitError
}

// interrupted says that whoever started the program ended it, and what that leaves behind, in place of an error that says
// no more than that the context ended.
func interrupted(ctx context.Context, err error, leaves string) error {
	switch {
	case ctx.Err() == nil || !errors.Is(err, context.Canceled):
		return err
	case leaves == "":
		return errors.New("interrupted")
	}
	return errors.New("interrupted; " + leaves)
}

// longestError is how many characters of one error are printed: it may quote what it was given.
const longestError = 400

// brief cuts the middle out of an error that is too long to be read; the end says what is wrong.
func brief(text string) string {
	runes := []rune(printable(text, true))
	if len(runes) <= longestError {
		return string(runes)
	}
	const half = longestError / 2
	return string(runes[:half-1]) + "…" + string(runes[len(runes)-half:])
}

// complainf prints one line about what is wrong.
func (p *program) complainf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	fmt.Fprintln(p.err, "prism: "+strings.TrimRight(printable(text, true), "\n"))
}

// advice says what to do about an error, if there is something to say.
func advice(err error) string {
	switch {
	case client.Unreachable(err):
		return "Is `prism serve` running there? --server and PRISM_SERVER say where to look."
	case errors.Is(err, client.ErrUnauthenticated):
		return "--token-file, PRISM_TOKEN or --cert-file say who you are; `prism token` makes a token for a server's configuration."
	case errors.Is(err, client.ErrAlreadyExists):
		return "Use --replace to take its place, or `prism heartbeat` to renew its lease."
	case errors.Is(err, context.DeadlineExceeded):
		return "There was no answer in time; --timeout and, for multicast, --wait-timeout say how long to wait."
	}
	return ""
}
