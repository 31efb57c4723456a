package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/prism-data-layer/prism/client"
)

// multicastFlags is what multicast is told.
type multicastFlags struct {
	filter      string
	all         bool
	payload     string
	contentType string
	delivery    string
	timeout     time.Duration // --wait-timeout
	key         string
	maxTargets  int
	dryRun      bool
	attempts    int
	delay       time.Duration
	replies     bool
	wait        bool
	waitFor     time.Duration
}

const (
	textType = "text/plain; charset=utf-8"
	// answerMargin is the time that the answer to a long wait gets to travel.
	answerMargin = 5 * time.Second
	// longestWait bounds a call that says nothing about time.
	longestWait = 24 * time.Hour
)

func newMulticastCmd(p *program) *cobra.Command {
	var f multicastFlags
	cmd := &cobra.Command{
		Use:   "multicast (--filter JSON | --all) --payload TEXT|@FILE|-",
		Short: "Deliver a payload to every identity that matches",
		Long: `Deliver a payload to every identity that matches a filter, and print what became of it: a summary, and the targets
that did not get it with the reason. To reach everybody takes --all.

With --delivery at-most-once nobody acknowledges: a target counts as delivered once the backend has accepted its message,
whether anybody listens or not. With at-least-once and exactly-once it is delivered once a subscriber has acknowledged it;
with exactly-once the client library of the subscriber drops repeats. Where a durability backend stores what was not
acknowledged, those targets are pending until they come and acknowledge it. --wait waits for that; what is pending stays
so when the waiting ends.

Subscribers may reply with a code and a text. With --replies each is printed as it comes, as IDENTITY CODE TEXT, and at the
end they are counted by code. In JSON each reply is then one line ({"identity", "reply_code", "reply", ...}), and the last
line is the summary with the targets that did not get it. In YAML each is a document of its own.

The exit code is 0 if every target was delivered, 2 if some were not, 3 if none was or there was no target, and 1 for
an error. A dry run ends with 0 if there are targets and with 3 if there are none.

` + filterHelp,
		Example: `  prism multicast --filter '{"room": "engineering"}' --payload 'fire drill at noon'
  prism multicast --all --payload @notice.json --content-type application/json
  date | prism multicast --filter '{"kind": "clock"}' --payload - --delivery at-most-once
  prism multicast --all --payload ping --wait-timeout 2s -o json
  prism multicast --filter '{"kind": "lock"}' --payload status --replies
  prism multicast --all --payload 'update to 2.1' --idempotency-key update-2.1 --wait --wait-for 1h
  prism multicast --filter '{"floor": 3}' --dry-run`,
		Args:              args(cobra.NoArgs, "no arguments"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return p.multicast(cmd, f) },
	}
	addMulticastFlags(cmd, &f)
	return cmd
}

func addMulticastFlags(cmd *cobra.Command, f *multicastFlags) {
	flags := cmd.Flags()
	flags.StringVar(&f.filter, "filter", "", "filter, a `JSON` object")
	flags.BoolVar(&f.all, "all", false, "deliver to every identity of the namespace")
	flags.StringVar(&f.payload, "payload", "", "what to deliver: `TEXT`, @FILE, or - for standard input")
	flags.StringVar(&f.contentType, "content-type", "",
		"media `TYPE` of the payload (default: text/plain for TEXT, application/octet-stream otherwise)")
	flags.StringVar(&f.delivery, "delivery", "",
		"`MODE`: at-most-once, at-least-once or exactly-once (default: the namespace's)")
	flags.DurationVar(&f.timeout, "wait-timeout", 0, "longest wait for acks (default: the namespace's)")
	flags.StringVar(&f.key, "idempotency-key", "",
		"name of the request: a request whose `KEY` was used before gets the first one's result")
	flags.IntVar(&f.maxTargets, "max-targets", 0, "send nothing if more than `N` identities match (default: any number)")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print the identities that match, and send nothing")
	flags.IntVar(&f.attempts, "retry-attempts", 0,
		"hand a message over at most `N` times, 1 to 20 (default: the namespace's)")
	flags.DurationVar(&f.delay, "retry-delay", 0,
		"wait before a message is handed over again; it doubles each time (default: the namespace's)")
	flags.BoolVar(&f.replies, "replies", false, "print the replies as they come, and count them by code")
	flags.BoolVar(&f.wait, "wait", false, "wait until no target is pending any more; Ctrl-C ends the waiting only")
	flags.DurationVar(&f.waitFor, "wait-for", 0, "longest time to --wait (default: for ever)")
	must(cmd.RegisterFlagCompletionFunc("delivery", cobra.FixedCompletions(deliveryModes(), cobra.ShellCompDirectiveNoFileComp)))
	for _, name := range []string{
		"filter", "content-type", "wait-timeout", "idempotency-key", "max-targets", "retry-attempts", "retry-delay", "wait-for",
	} {
		must(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
}

func (p *program) multicast(cmd *cobra.Command, f multicastFlags) error {
	request, err := p.multicastRequest(cmd, f)
	if err != nil {
		return err
	}
	longest := p.timeout
	switch given := cmd.Flags().Changed("timeout"); {
	case given && f.timeout > p.timeout:
		return usagef(cmd, "--timeout %s ends the call before --wait-timeout %s can", p.timeout, f.timeout)
	case !given && f.timeout > 0:
		longest = max(p.timeout, f.timeout+answerMargin)
	case !given:
		longest = longestWait // the namespace says how long to wait; a dead server is noticed earlier
	}
	ctx := cmd.Context()
	c, err := p.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	r := &replies{p: p, on: f.replies, printed: make(map[string]bool)}
	result, err := send(ctx, c, request, longest, r)
	if err != nil {
		return err
	}
	p.warn(result.Warnings)
	var stopped error
	if f.wait && result.Pending > 0 {
		w := waiting{p: p, c: c, longest: f.waitFor, report: request.Report, replies: r}
		result, stopped = w.run(ctx, result)
	}
	if r.failed != nil {
		return r.failed
	}
	if err := p.outcome(result, r); err != nil {
		return err
	}
	if stopped != nil {
		return stopped
	}
	return exitFor(result)
}

// send sends a multicast. An error says what is known of it.
func send(
	ctx context.Context, c *client.Client, request client.MulticastRequest, longest time.Duration, r *replies,
) (*client.Result, error) {
	begun := ""
	request.Began = func(id string, _ client.Revision, _ int) { begun = id }
	if r.on {
		request.Settled = r.show
	}
	calling, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	result, err := c.Multicast(calling, request)
	switch {
	case err == nil:
		return result, nil
	case begun == "":
		return nil, interrupted(ctx, err, "messages may have been delivered")
	case ctx.Err() != nil:
		return nil, interrupted(ctx, err, "messages of multicast "+begun+" may have been delivered")
	}
	return nil, fmt.Errorf("messages of multicast %s may have been delivered: %w", begun, err)
}

// exitFor is the exit code of a result.
func exitFor(r *client.Result) error {
	switch {
	case r.Ended == client.DryRun && r.TargetCount > 0:
		return nil
	case r.Delivered == 0:
		return exit{exitNotASoul}
	case r.Delivered < r.TargetCount:
		return exit{exitSomeNot}
	}
	return nil
}

func (p *program) multicastRequest(cmd *cobra.Command, f multicastFlags) (client.MulticastRequest, error) {
	r := client.MulticastRequest{
		ContentType: f.contentType, Delivery: client.DeliveryMode(f.delivery), Timeout: f.timeout, IdempotencyKey: f.key,
		MaxTargets: f.maxTargets, DryRun: f.dryRun, RetryAttempts: f.attempts, RetryDelay: f.delay,
	}
	if f.all && f.filter != "" {
		return r, usagef(cmd, "--filter and --all exclude each other")
	}
	if !f.all {
		if f.filter == "" {
			return r, usagef(cmd, "say who is meant: --filter JSON, or --all for every identity of the namespace")
		}
		var err error
		if r.Filter, err = client.ParseFilter(f.filter); err != nil {
			return r, err
		}
		if len(r.Filter) == 0 {
			return r, usagef(cmd, "the filter {} means every identity; say --all if that is meant")
		}
	}
	if err := f.check(cmd); err != nil {
		return r, err
	}
	if p.format == formatTable && !f.dryRun && !f.replies {
		r.Report = client.ReportUndelivered
	}
	var err error
	if r.Payload, err = p.payload(cmd.Context(), f.payload); err != nil {
		return r, interrupted(cmd.Context(), fmt.Errorf("--payload: %w", err), "nothing was sent")
	}
	if r.ContentType == "" && f.payload != "-" && !strings.HasPrefix(f.payload, "@") {
		r.ContentType = textType
	}
	return r, nil
}

// check finds flags that do not go together, and values that no server takes.
func (f multicastFlags) check(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	switch {
	case f.dryRun && (f.replies || f.wait):
		return usagef(cmd, "--dry-run sends nothing: there are no replies and nothing to wait for")
	case !f.dryRun && !given("payload"):
		return usagef(cmd, "say what to deliver: --payload TEXT, --payload @FILE, or --payload - for standard input")
	case f.replies && f.delivery == string(client.AtMostOnce):
		return usagef(cmd, "nobody replies to --delivery at-most-once")
	case f.timeout < 0:
		return usagef(cmd, "--wait-timeout must be longer than 0")
	case given("wait-for") && !f.wait:
		return usagef(cmd, "--wait-for says how long to --wait: add --wait")
	case given("wait-for") && f.waitFor <= 0:
		return usagef(cmd, "--wait-for must be longer than 0")
	case f.maxTargets < 0:
		return usagef(cmd, "--max-targets must not be negative")
	case f.attempts < 0:
		return usagef(cmd, "--retry-attempts must not be negative")
	case f.delay < 0:
		return usagef(cmd, "--retry-delay must not be negative")
	}
	return nil
}

// payload reads what --payload names: TEXT, @FILE, or - for standard input.
func (p *program) payload(ctx context.Context, from string) ([]byte, error) {
	name, isFile := strings.CutPrefix(from, "@")
	switch {
	case from == "-":
		return io.ReadAll(newInterruptible(ctx, p.in))
	case !isFile:
		return []byte(from), nil
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()            // it was only read
	return io.ReadAll(newInterruptible(ctx, file)) // it may be a pipe
}

func deliveryModes() []string {
	return []string{string(client.AtMostOnce), string(client.AtLeastOnce), string(client.ExactlyOnce)}
}
