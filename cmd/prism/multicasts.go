package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/prism-data-layer/prism/client"
)

const (
	// multicastsByDefault is how many multicasts a table has unless more are asked for.
	multicastsByDefault = 20
	// multicastsPage is how many multicasts one call asks for: the most that the server gives.
	multicastsPage = 1000
)

// multicastsFlags is what multicasts is told.
type multicastsFlags struct {
	limit int
	all   bool
}

const keptHelp = `Multicasts are kept in namespaces whose durability backend keeps them, for as long as its retention says.`

func newMulticastsCmd(p *program) *cobra.Command {
	var f multicastsFlags
	cmd := &cobra.Command{
		Use:   "multicasts",
		Short: "List, inspect and cancel multicasts that were sent",
		Long: `List the multicasts that are kept, latest first, each with what has become of its targets by now. A table ends after 20
unless --all or --limit asks for more; the other formats print everything.

` + keptHelp,
		Example: `  prism multicasts
  prism multicasts --limit 100 -o json
  prism multicasts get 01890a5d-ac96-774b-bcce-b302099a8057
  prism multicasts cancel 01890a5d-ac96-774b-bcce-b302099a8057`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) > 0:
				return group(cmd, args)
			case f.limit < 0:
				return usagef(cmd, "--limit must not be negative")
			case f.limit > 0 && f.all:
				return usagef(cmd, "--all and --limit exclude each other")
			}
			return p.multicasts(cmd.Context(), f)
		},
	}
	cmd.Flags().IntVar(&f.limit, "limit", 0, "print at most `N`")
	cmd.Flags().BoolVar(&f.all, "all", false, "print all of them in a table too")
	must(cmd.RegisterFlagCompletionFunc("limit", cobra.NoFileCompletions))
	cmd.AddCommand(newMulticastsGetCmd(p), newMulticastsCancelCmd(p))
	return cmd
}

func newMulticastsGetCmd(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "get ID",
		Short: "Show what has become of a multicast by now",
		Long: `Show what has become of a multicast by now: a summary, and the targets that do not have it, with the reason. What was
pending is delivered once its identity came and acknowledged it. The other formats list every target.

` + keptHelp,
		Example: `  prism multicasts get 01890a5d-ac96-774b-bcce-b302099a8057
  prism multicasts get 01890a5d-ac96-774b-bcce-b302099a8057 -o json`,
		Args:              args(cobra.ExactArgs(1), "one ID"),
		ValidArgsFunction: p.completeMulticasts,
		RunE:              func(cmd *cobra.Command, args []string) error { return p.multicastsGet(cmd.Context(), args[0]) },
	}
}

func newMulticastsCancelCmd(p *program) *cobra.Command {
	return &cobra.Command{
		Use:   "cancel ID",
		Short: "Withdraw what was not delivered of a multicast",
		Long: `Withdraw the messages of a multicast that are stored and not delivered, and end the multicast if it is under way. What
was delivered stays delivered. Cancelling again does nothing.

` + keptHelp,
		Example:           `  prism multicasts cancel 01890a5d-ac96-774b-bcce-b302099a8057`,
		Args:              args(cobra.ExactArgs(1), "one ID"),
		ValidArgsFunction: p.completeMulticasts,
		RunE:              func(cmd *cobra.Command, args []string) error { return p.multicastsCancel(cmd.Context(), args[0]) },
	}
}

// recordOut is a multicast for machines, with the names that the HTTP API uses.
type recordOut struct {
	State          string         `json:"state"`
	CreatedAt      *time.Time     `json:"created_at,omitempty"`
	Filter         map[string]any `json:"filter,omitempty"`
	PayloadBytes   int            `json:"payload_bytes"`
	ContentType    string         `json:"content_type,omitempty"`
	IdempotencyKey string         `json:"idempotency_key,omitempty"`
	Result         resultOut      `json:"result"`
}

func recordFor(r *client.MulticastRecord, result resultOut) recordOut {
	return recordOut{
		State: stateName(r.State), CreatedAt: moment(r.CreatedAt), Filter: r.Filter, PayloadBytes: r.PayloadBytes,
		ContentType: r.ContentType, IdempotencyKey: r.IdempotencyKey, Result: result,
	}
}

func stateName(s client.State) string {
	return name(s, map[client.State]string{
		client.Running: "RUNNING", client.Returned: "RETURNED", client.WithdrawnByID: "WITHDRAWN",
	})
}

func (p *program) multicasts(ctx context.Context, f multicastsFlags) error {
	limit := f.limit
	if limit == 0 && !f.all && p.format == formatTable {
		limit = multicastsByDefault
	}
	c, err := p.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	var rows [][]string
	l := list{p: p}
	more, err := p.walkMulticasts(ctx, c, limit, func(r *client.MulticastRecord) error {
		if p.format != formatTable {
			return l.add(recordFor(r, countsFor(&r.Result)))
		}
		rows = append(rows, multicastRow(r))
		return nil
	})
	switch {
	case err != nil:
		return err
	case p.format != formatTable:
		return l.end()
	case len(rows) == 0:
		fmt.Fprintln(p.err, "No multicast is kept.")
		return nil
	}
	head := []string{"ID", "CREATED", "STATE", "TARGETS", "DELIVERED", "PENDING", "FAILED", "TIMEOUT", "FILTER"}
	if err := p.table(head, rows); err != nil {
		return err
	}
	if more {
		fmt.Fprintf(p.err, "%d shown; --all prints them all, --limit N so many.\n", len(rows))
	}
	return nil
}

// walkMulticasts shows the multicasts that are kept, latest first, up to a limit unless that is 0, and tells whether there are
// more. Every page has the --timeout.
func (p *program) walkMulticasts(
	ctx context.Context, c *client.Client, limit int, show func(*client.MulticastRecord) error,
) (more bool, err error) {
	q := client.MulticastQuery{PageSize: multicastsPage}
	for shown := 0; ; {
		if limit > 0 {
			q.PageSize = min(multicastsPage, limit-shown)
		}
		page, err := p.multicastsPage(ctx, c, q)
		if err != nil {
			return false, err
		}
		for _, record := range page.Multicasts {
			if err := show(record); err != nil {
				return false, err
			}
			shown++
		}
		q.PageToken = page.NextPageToken
		if q.PageToken == "" || limit > 0 && shown >= limit {
			return q.PageToken != "", nil
		}
	}
}

func (p *program) multicastsPage(ctx context.Context, c *client.Client, q client.MulticastQuery) (client.MulticastPage, error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	return c.ListMulticasts(ctx, q)
}

func multicastRow(r *client.MulticastRecord) []string {
	row := []string{cell(r.Result.ID), created(r.CreatedAt), stateName(r.State)}
	for _, n := range []int{r.Result.TargetCount, r.Result.Delivered, r.Result.Pending, r.Result.Failed, r.Result.TimedOut} {
		if r.State == client.Running { // nothing is known
			row = append(row, "-")
			continue
		}
		row = append(row, strconv.Itoa(n))
	}
	return append(row, filterText(r.Filter))
}

func created(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return at.UTC().Format(time.RFC3339)
}

func filterText(match map[string]any) string {
	if len(match) == 0 {
		return "-"
	}
	return compact(match)
}

func (p *program) multicastsGet(ctx context.Context, id string) error {
	report := client.ReportAll
	if p.format == formatTable {
		report = client.ReportUndelivered
	}
	var record *client.MulticastRecord
	err := p.call(ctx, func(ctx context.Context, c *client.Client) (err error) {
		record, err = c.GetMulticastReport(ctx, id, report)
		return err
	})
	if err != nil {
		return err
	}
	if p.format != formatTable {
		return p.show(recordFor(record, resultFor(&record.Result)))
	}
	fmt.Fprintf(p.out, "multicast %s, %s, created %s\n", cell(record.Result.ID), stateName(record.State), created(record.CreatedAt))
	fmt.Fprintf(p.out, "filter %s, payload of %s, %s, %s\n", filterText(record.Filter),
		counted(record.PayloadBytes, "byte", "bytes"), cell(record.ContentType), cell(string(record.Result.Delivery)))
	if record.IdempotencyKey != "" {
		fmt.Fprintf(p.out, "idempotency key %s\n", cell(record.IdempotencyKey))
	}
	if record.State == client.Running {
		fmt.Fprintln(p.out, "its call is under way, or the server that ran it is gone")
		return nil
	}
	fmt.Fprintln(p.out, summary(&record.Result))
	if len(record.Result.Replies) > 0 {
		fmt.Fprintln(p.out, replyCounts(record.Result.Replies))
	}
	return p.undeliveredTable(&record.Result)
}

// cancelOut is what was withdrawn, for machines.
type cancelOut struct {
	WithdrawnCount int       `json:"withdrawn_count"`
	Multicast      recordOut `json:"multicast"`
}

func (p *program) multicastsCancel(ctx context.Context, id string) error {
	var withdrawn int
	var record *client.MulticastRecord
	err := p.call(ctx, func(ctx context.Context, c *client.Client) (err error) {
		withdrawn, record, err = c.CancelMulticast(ctx, id)
		return err
	})
	if err != nil {
		return interrupted(ctx, err, "it may have been withdrawn")
	}
	if p.format != formatTable {
		return p.show(cancelOut{WithdrawnCount: withdrawn, Multicast: recordFor(record, countsFor(&record.Result))})
	}
	words := fmt.Sprintf("withdrew %s", counted(withdrawn, "message", "messages"))
	if r := &record.Result; r.TargetCount > 0 {
		words += fmt.Sprintf("; %s: %s", counted(r.TargetCount, "target", "targets"), counts(r))
	}
	_, err = fmt.Fprintln(p.out, words)
	return err
}

// completeMulticasts asks the server, which may be away, for the latest ids.
func (p *program) completeMulticasts(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	p.timeout = 500 * time.Millisecond
	var ids []string
	if len(given) == 0 {
		err := p.call(cmd.Context(), func(ctx context.Context, c *client.Client) error {
			page, err := c.ListMulticasts(ctx, client.MulticastQuery{})
			for _, r := range page.Multicasts {
				ids = append(ids, r.Result.ID+"\t"+created(r.CreatedAt)+" "+filterText(r.Filter))
			}
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
