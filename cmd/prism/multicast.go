package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
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
	wait        time.Duration
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
whether anybody listens or not.

The exit code is 0 if every target was delivered, 2 if some were not, 3 if none was or there was no target, and 1 for
an error.

` + filterHelp,
		Example: `  prism multicast --filter '{"room": "engineering"}' --payload 'fire drill at noon'
  prism multicast --all --payload @notice.json --content-type application/json
  date | prism multicast --filter '{"kind": "clock"}' --payload - --delivery at-most-once
  prism multicast --all --payload ping --wait-timeout 2s -o json`,
		Args:              args(cobra.NoArgs, "no arguments"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return p.multicast(cmd, f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.filter, "filter", "", "filter, a `JSON` object")
	flags.BoolVar(&f.all, "all", false, "deliver to every identity of the namespace")
	flags.StringVar(&f.payload, "payload", "", "what to deliver: `TEXT`, @FILE, or - for standard input")
	flags.StringVar(&f.contentType, "content-type", "",
		"media `TYPE` of the payload (default: text/plain for TEXT, application/octet-stream otherwise)")
	flags.StringVar(&f.delivery, "delivery", "", "`MODE`: at-most-once or at-least-once (default: the namespace's)")
	flags.DurationVar(&f.wait, "wait-timeout", 0, "longest wait for acks (default: the namespace's)")
	modes := []string{string(client.AtMostOnce), string(client.AtLeastOnce)}
	must(cmd.RegisterFlagCompletionFunc("delivery", cobra.FixedCompletions(modes, cobra.ShellCompDirectiveNoFileComp)))
	for _, name := range []string{"filter", "content-type", "wait-timeout"} {
		must(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	return cmd
}

func (p *program) multicast(cmd *cobra.Command, f multicastFlags) error {
	request, err := p.multicastRequest(cmd, f)
	if err != nil {
		return err
	}
	switch given := cmd.Flags().Changed("timeout"); {
	case given && f.wait > p.timeout:
		return usagef(cmd, "--timeout %s ends the call before --wait-timeout %s can", p.timeout, f.wait)
	case !given && f.wait > 0:
		p.timeout = max(p.timeout, f.wait+answerMargin)
	case !given:
		p.timeout = longestWait // the namespace says how long to wait; a dead server is noticed earlier
	}
	var result *client.Result
	err = p.call(cmd.Context(), func(ctx context.Context, c *client.Client) error {
		result, err = c.Multicast(ctx, request)
		return err
	})
	if err != nil {
		return interrupted(cmd.Context(), err, "messages may have been delivered")
	}
	if p.format == formatTable {
		err = p.multicastTable(result)
	} else {
		err = p.show(resultFor(result))
	}
	switch {
	case err != nil:
		return err
	case result.Delivered == 0:
		return exit{exitNotASoul}
	case result.Delivered < result.TargetCount:
		return exit{exitSomeNot}
	}
	return nil
}

func (p *program) multicastRequest(cmd *cobra.Command, f multicastFlags) (client.MulticastRequest, error) {
	r := client.MulticastRequest{ContentType: f.contentType, Delivery: client.DeliveryMode(f.delivery), Timeout: f.wait}
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
	if !cmd.Flags().Changed("payload") {
		return r, usagef(cmd, "say what to deliver: --payload TEXT, --payload @FILE, or --payload - for standard input")
	}
	if f.wait < 0 {
		return r, usagef(cmd, "--wait-timeout must be longer than 0")
	}
	if p.format == formatTable {
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

func (p *program) multicastTable(r *client.Result) error {
	if r.TargetCount == 0 {
		fmt.Fprintln(p.out, "no identity matches; nothing was sent")
		return nil
	}
	delivered := "delivered"
	if r.Delivery == client.AtMostOnce {
		delivered = "accepted (not acknowledged)"
	}
	fmt.Fprintf(p.out, "%s: %d %s, %d pending, %d failed, %d timeout, in %s%s\n",
		counted(r.TargetCount, "target", "targets"), r.Delivered, delivered, r.Pending, r.Failed, r.TimedOut,
		r.Elapsed.Round(10*time.Microsecond), endedWords(r.Ended))
	if len(r.Targets) == 0 {
		return nil
	}
	rows := make([][]string, len(r.Targets))
	for i, t := range r.Targets {
		words := ""
		if t.Err != nil {
			words = cell(brief(t.Err.Error()))
		}
		rows[i] = []string{cell(t.Identity), t.Status.String(), reasonName(t.Reason), strconv.Itoa(t.Attempts), words}
	}
	fmt.Fprintln(p.out)
	return p.table([]string{"IDENTITY", "STATUS", "REASON", "ATTEMPTS", "ERROR"}, rows)
}

func endedWords(ended client.Ended) string {
	switch ended {
	case client.DeadlinePassed:
		return " (the time was up)"
	case client.Cancelled:
		return " (cancelled)"
	default:
		return ""
	}
}

func reasonName(r client.Reason) string {
	return name(r, map[client.Reason]string{
		client.NoSubscriber: "NO_SUBSCRIBER", client.QueueFull: "QUEUE_FULL", client.PayloadTooLarge: "PAYLOAD_TOO_LARGE",
		client.BackendError: "BACKEND_ERROR", client.NoAck: "NO_ACK", client.NotSent: "NOT_SENT",
	})
}

func evidenceName(e client.Evidence) string {
	return name(e, map[client.Evidence]string{client.Accepted: "ACCEPTED", client.Stored: "STORED", client.Acked: "ACKED"})
}

func endedName(e client.Ended) string {
	return name(e, map[client.Ended]string{
		client.Complete: "COMPLETE", client.DeadlinePassed: "DEADLINE", client.Cancelled: "CANCELLED",
	})
}

// name is the wire's name of a value; a value of a newer server is its number.
func name[T ~uint8](value T, names map[T]string) string {
	if value == 0 {
		return ""
	}
	if known, ok := names[value]; ok {
		return known
	}
	return strconv.Itoa(int(value))
}

// resultOut is a result for machines, with the names that the HTTP API uses.
type resultOut struct {
	MulticastID    string      `json:"multicast_id"`
	Revision       uint64      `json:"revision,omitempty"`
	TargetCount    int         `json:"target_count"`
	DeliveredCount int         `json:"delivered_count"`
	PendingCount   int         `json:"pending_count"`
	FailedCount    int         `json:"failed_count"`
	TimeoutCount   int         `json:"timeout_count"`
	Ended          string      `json:"ended"`
	Delivery       string      `json:"delivery"`
	ElapsedMS      float64     `json:"elapsed_ms"`
	Statuses       []statusOut `json:"statuses"`
}

type statusOut struct {
	Identity  string  `json:"identity"`
	Status    string  `json:"status"`
	Evidence  string  `json:"evidence,omitempty"`
	Reason    string  `json:"reason,omitempty"`
	Error     string  `json:"error,omitempty"`
	Attempts  int     `json:"attempts"`
	LatencyMS float64 `json:"latency_ms"`
}

func resultFor(r *client.Result) resultOut {
	out := resultOut{
		MulticastID: r.ID, Revision: uint64(r.Revision), TargetCount: r.TargetCount, DeliveredCount: r.Delivered,
		PendingCount: r.Pending, FailedCount: r.Failed, TimeoutCount: r.TimedOut, Ended: endedName(r.Ended),
		Delivery: string(r.Delivery), ElapsedMS: milliseconds(r.Elapsed), Statuses: make([]statusOut, len(r.Targets)),
	}
	for i, t := range r.Targets {
		out.Statuses[i] = statusOut{
			Identity: t.Identity, Status: t.Status.String(), Evidence: evidenceName(t.Evidence), Reason: reasonName(t.Reason),
			Attempts: t.Attempts, LatencyMS: milliseconds(t.Latency),
		}
		if t.Err != nil {
			out.Statuses[i].Error = t.Err.Error()
		}
	}
	return out
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
