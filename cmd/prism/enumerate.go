package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/prism-data-layer/prism/client"
)

const (
	// shownByDefault is how many identities a table has unless more are asked for.
	shownByDefault = 100
	// pageSize is how many identities one call asks for: the most that the server gives. Every page costs it a scan, and it
	// ends a page early that becomes large.
	pageSize = 10_000
)

// enumerateFlags is what enumerate is told.
type enumerateFlags struct {
	filter     string
	limit      int
	all        bool
	idsOnly    bool
	noMetadata bool
	sortBy     []string
	fields     []string
	countBy    []string
	count      bool
	groups     int
	strong     bool
	revision   uint64
}

const filterHelp = `A filter is a JSON object over the metadata. All of its conditions must hold:
  {"room": "engineering"}                      equal
  {"battery": {"$lt": 0.2}}  {"battery.lt": 0.2}   compare; the same in two spellings
  {"$or": [{"floor": 3}, {"tags": {"$contains": "lift"}}]}
Operators: eq ne lt lte gt gte in nin startswith endswith contains regex exists type semver, and $and $or $not.`

func newEnumerateCmd(p *program) *cobra.Command {
	var f enumerateFlags
	cmd := &cobra.Command{
		Use:     "enumerate",
		Aliases: []string{"ls", "list"},
		Short:   "List the identities that match a filter",
		Long: `List the live identities that match a filter, ordered by name or as --sort-by says; without a filter, all of them. A
table ends after 100 unless --all or --limit asks for more; the other formats print everything. With --count-by or --count
identities are counted and not listed.

A field is named as in a filter: "room", or "sensor.temp" for temp within sensor.

` + filterHelp,
		Example: `  prism enumerate
  prism enumerate --filter '{"room": "engineering", "battery": {"$lt": 0.2}}'
  prism enumerate --sort-by room --sort-by=-battery --fields room,battery
  prism enumerate --count-by room
  prism enumerate --filter '{"firmware": {"$semver": "<2.0"}}' -q
  prism enumerate --all -o jsonl > identities.jsonl`,
		Args:              args(cobra.NoArgs, "no arguments"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case f.limit < 0:
				return usagef(cmd, "--limit must not be negative")
			case f.limit > 0 && f.all:
				return usagef(cmd, "--all and --limit exclude each other")
			case f.groups < 0 || f.groups > 1000:
				return usagef(cmd, "--groups must be 1 to 1000")
			case f.count && len(f.countBy) > 0:
				return usagef(cmd, "--count and --count-by exclude each other: --count-by prints the total too")
			}
			return p.enumerate(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.filter, "filter", "", "filter, a `JSON` object (default: every identity)")
	flags.IntVar(&f.limit, "limit", 0, "print at most `N`")
	flags.BoolVar(&f.all, "all", false, "print all of them in a table too")
	flags.BoolVarP(&f.idsOnly, "ids-only", "q", false, "print the names only")
	flags.BoolVar(&f.noMetadata, "no-metadata", false, "leave the metadata out")
	flags.StringSliceVar(&f.sortBy, "sort-by", nil, "sort by `FIELDS`, \"-\" before one for the largest first, then by name")
	flags.StringSliceVar(&f.fields, "fields", nil, "print only these `FIELDS` of the metadata")
	flags.StringSliceVar(&f.countBy, "count-by", nil, "count by the values of `FIELDS`, in place of the list")
	flags.BoolVar(&f.count, "count", false, "print how many there are, in place of the list")
	flags.IntVar(&f.groups, "groups", 0, "print at most `N` groups for each field of --count-by (default 1000)")
	flags.BoolVar(&f.strong, "strong", false, "reflect all that anybody has registered by now, whatever it costs")
	flags.Uint64Var(&f.revision, "min-revision", 0, "wait until the answer reflects `REVISION`, of a registration for example")
	for _, name := range []string{"filter", "limit", "sort-by", "fields", "count-by", "groups", "min-revision"} {
		must(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	return cmd
}

// query is what the flags ask for.
func (f *enumerateFlags) query() (client.Query, error) {
	q := client.Query{
		OmitMetadata: f.noMetadata || f.idsOnly, SortBy: f.sortBy, Fields: f.fields, CountBy: f.countBy, MaxGroups: f.groups,
		MinRevision: client.Revision(f.revision),
	}
	if f.strong {
		q.Consistency = client.Strong
	}
	if f.filter != "" {
		var err error
		if q.Filter, err = client.ParseFilter(f.filter); err != nil {
			return q, err
		}
	}
	return q, nil
}

func (p *program) enumerate(ctx context.Context, f enumerateFlags) error {
	q, err := f.query()
	if err != nil {
		return err
	}
	// A list of names goes into a pipe; only a table that a person reads is cut short.
	limit := f.limit
	if limit == 0 && !f.all && p.format == formatTable && !f.idsOnly {
		limit = shownByDefault
	}
	c, err := p.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	if f.count || len(f.countBy) > 0 {
		return p.enumerateCounts(ctx, c, q)
	}
	if p.format == formatTable && !f.idsOnly {
		return p.enumerateTable(ctx, c, q, limit, f)
	}
	l := list{p: p}
	show := func(i client.Identity) error { return l.add(identityFor(i)) }
	switch {
	case f.idsOnly && p.format == formatTable:
		show = func(i client.Identity) error {
			name := i.ID
			if watched(p.out) {
				name = cell(name) // a pipe gets names as they are, a terminal only what it can show
			}
			_, err := fmt.Fprintln(p.out, name)
			return err
		}
	case f.idsOnly:
		show = func(i client.Identity) error { return l.add(i.ID) }
	}
	if _, err := walkPages(p.pages(ctx, c), q, limit, show); err != nil {
		return err
	}
	if f.idsOnly && p.format == formatTable {
		return nil
	}
	return l.end()
}

// walkPages shows the identities that match, up to a limit unless that is 0, and returns how many there are. A page may have
// fewer than were asked for: only the token tells whether it is the last.
func walkPages(
	fetch func(client.Query) (client.Page, error), q client.Query, limit int, show func(client.Identity) error,
) (total int, err error) {
	shown := 0
	for {
		q.PageSize = pageSize
		if limit > 0 {
			q.PageSize = min(pageSize, limit-shown)
		}
		page, err := fetch(q)
		if err != nil {
			return 0, err
		}
		for _, identity := range page.Identities {
			if err := show(identity); err != nil {
				return 0, err
			}
			shown++
		}
		if page.NextPageToken == "" || limit > 0 && shown >= limit {
			return page.Total, nil
		}
		q.PageToken = page.NextPageToken
	}
}

// pages fetches pages; every one has the --timeout.
func (p *program) pages(ctx context.Context, c *client.Client) func(client.Query) (client.Page, error) {
	return func(q client.Query) (client.Page, error) {
		ctx, cancel := context.WithTimeout(ctx, p.timeout)
		defer cancel()
		page, err := c.Enumerate(ctx, q)
		p.warn(page.Warnings)
		return page, err
	}
}

func (p *program) enumerateTable(ctx context.Context, c *client.Client, q client.Query, limit int, f enumerateFlags) error {
	head := []string{"IDENTITY", "LEFT", "METADATA"}
	if f.noMetadata {
		head = head[:2]
	}
	var rows [][]string
	total, err := walkPages(p.pages(ctx, c), q, limit, func(i client.Identity) error {
		row := []string{cell(i.ID), left(i.ExpiresAt), compact(i.Metadata())}
		rows = append(rows, row[:len(head)])
		return nil
	})
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		fmt.Fprintln(p.err, "No identity matches.")
		return nil
	}
	if err := p.table(head, rows); err != nil {
		return err
	}
	if len(rows) < total {
		fmt.Fprintf(p.err, "%d of %d shown; --all prints them all, --limit N so many.\n", len(rows), total)
	}
	return nil
}
