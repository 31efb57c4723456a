package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// explainFlags is what explain is told.
type explainFlags struct {
	filter   string
	near     int
	strong   bool
	revision uint64
}

func newExplainCmd(p *program) *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain --filter JSON",
		Short: "Tell how a filter is understood, and what nearly matches it",
		Long: `Tell how a filter is understood: how many identities each of its conditions matches by itself, how many have the field
that it looks at, of which types and with how many different values; what is suspicious, such as a field that nobody has; and,
when few identities match, those that only one or two conditions keep from matching, with what they have instead.

` + filterHelp,
		Example: `  prism explain --filter '{"room": "engineering", "battery": {"$lt": 0.2}}'
  prism explain --filter '{"batery": {"$lt": 0.2}}'
  prism explain --filter '{"room": "lab", "floor": "3"}' --near-misses 20 -o json`,
		Args:              args(cobra.NoArgs, "no arguments"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.near < 0 || f.near > 100 {
				return usagef(cmd, "--near-misses must be 0 to 100")
			}
			return p.explain(cmd.Context(), f)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.filter, "filter", "", "filter, a `JSON` object (default: every identity)")
	flags.IntVar(&f.near, "near-misses", 5, "print at most `N` identities that nearly match")
	flags.BoolVar(&f.strong, "strong", false, "reflect all that anybody has registered by now, whatever it costs")
	flags.Uint64Var(&f.revision, "min-revision", 0, "wait until the answer reflects `REVISION`, of a registration for example")
	for _, name := range []string{"filter", "near-misses", "min-revision"} {
		must(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	return cmd
}

func (p *program) explain(ctx context.Context, f explainFlags) error {
	r := client.ExplainRequest{NearMisses: cmp.Or(f.near, -1), MinRevision: client.Revision(f.revision)}
	if f.strong {
		r.Consistency = client.Strong
	}
	if f.filter != "" {
		var err error
		if r.Filter, err = client.ParseFilter(f.filter); err != nil {
			return err
		}
	}
	return p.call(ctx, func(ctx context.Context, c *client.Client) error {
		explained, err := c.Explain(ctx, r)
		switch {
		case err != nil:
			return err
		case p.format != formatTable:
			return p.show(explanationFor(explained))
		}
		return p.explainTable(explained)
	})
}

func (p *program) explainTable(e *client.Explanation) error {
	fmt.Fprintf(p.out, "%s\n%d of %s; %s %s.\n", printable(e.Filter, false), e.Matches,
		counted(e.Identities, "identity matches", "identities match"), sourceWords(e.Source), e.Elapsed.Round(time.Microsecond))
	if len(e.Clauses) > 0 {
		fmt.Fprintln(p.out)
		rows := make([][]string, len(e.Clauses))
		for i, c := range e.Clauses {
			rows[i] = []string{strconv.Itoa(c.Matches), "", "", "", strings.Repeat("  ", c.Depth) + condition(&c)}
			if c.Field != "" {
				rows[i][1], rows[i][2], rows[i][3] = strconv.Itoa(c.Present), strconv.Itoa(c.Distinct), typeCounts(c.Types)
			}
		}
		if err := p.table([]string{"MATCHES", "HAVE IT", "VALUES", "TYPE", "CONDITION"}, rows); err != nil {
			return err
		}
	}
	if len(e.Warnings) > 0 {
		fmt.Fprintln(p.out)
		for _, w := range e.Warnings {
			fmt.Fprintln(p.out, warningText(w))
		}
	}
	if len(e.NearMisses) == 0 {
		return nil
	}
	fmt.Fprintln(p.out)
	rows := make([][]string, len(e.NearMisses))
	for i, miss := range e.NearMisses {
		rows[i] = []string{cell(miss.Identity.ID), missing(e, &miss)}
	}
	return p.table([]string{"NEARLY MATCHES", "BUT NOT"}, rows)
}

// condition is a clause on one line.
func condition(c *client.Clause) string {
	if c.Filter == "" {
		return cell(c.Pointer) // the filter is too long to have every part repeated
	}
	return printable(c.Filter, false)
}

// typeCounts is "number", or "number 3, string 1" where there are several.
func typeCounts(types map[string]int) string {
	names := slices.SortedFunc(maps.Keys(types), func(a, b string) int {
		return cmp.Or(types[b]-types[a], strings.Compare(a, b))
	})
	if len(names) == 1 {
		return names[0]
	}
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %d", name, types[name])
	}
	return strings.Join(names, ", ")
}

// missing says which conditions an identity does not meet, and what it has in their fields.
func missing(e *client.Explanation, miss *client.NearMiss) string {
	var all []string
	for _, at := range miss.Failed {
		var has []string
		for _, field := range fieldsOf(e.Clauses[at:]) {
			has = append(has, cell(field)+" is "+valueOf(&miss.Identity, field))
		}
		all = append(all, condition(&e.Clauses[at])+": "+strings.Join(has, ", "))
	}
	return strings.Join(all, "; ")
}

// fieldsOf are the fields that the first clause and those in it look at.
func fieldsOf(clauses []client.Clause) (fields []string) {
	for i, c := range clauses {
		if i > 0 && c.Depth <= clauses[0].Depth {
			break
		}
		if c.Field != "" && !slices.Contains(fields, c.Field) {
			fields = append(fields, c.Field)
		}
	}
	return fields
}

func valueOf(i *client.Identity, field string) string {
	path, err := filter.ParsePath(field)
	if err != nil {
		return "?"
	}
	value, present := i.Lookup(path...)
	if !present {
		return "missing"
	}
	return shorten(compact(value), 60)
}

func sourceWords(s client.Source) string {
	switch s {
	case client.SourceIndex:
		return "found with an index in"
	case client.SourceNative:
		return "the backend filters here, to scan everything for this took"
	default:
		return "found by scanning everything in"
	}
}

func sourceName(s client.Source) string {
	return name(s, map[client.Source]string{client.SourceIndex: "INDEX", client.SourceNative: "NATIVE", client.SourceScan: "SCAN"})
}

// warn prints what is suspicious about a filter.
func (p *program) warn(warnings []client.Warning) {
	for _, w := range warnings {
		fmt.Fprintln(p.err, warningText(w))
	}
}

func warningText(w client.Warning) string { return "warning: " + brief(w.Message) }

// explanationOut is an explanation for machines, with the names that the HTTP API uses.
type explanationOut struct {
	Filter     string        `json:"filter"`
	Identities int           `json:"identity_count"`
	Matches    int           `json:"match_count"`
	Clauses    []clauseOut   `json:"clauses"`
	Warnings   []warningOut  `json:"warnings"`
	NearMisses []nearMissOut `json:"near_misses"`
	Source     string        `json:"source"`
	ElapsedMS  float64       `json:"elapsed_ms"`
	Revision   uint64        `json:"revision,omitempty"`
}

type clauseOut struct {
	Pointer  string         `json:"pointer"`
	Filter   string         `json:"filter"`
	Depth    int            `json:"depth"`
	Matches  int            `json:"match_count"`
	Field    string         `json:"field,omitempty"`
	Present  *int           `json:"present_count,omitempty"` // nil: there is no field
	Types    map[string]int `json:"types,omitempty"`
	Distinct *int           `json:"distinct_count,omitempty"`
}

type warningOut struct {
	Kind        string   `json:"kind"`
	Field       string   `json:"field"`
	Pointer     string   `json:"pointer"`
	Message     string   `json:"message"`
	Suggestions []string `json:"suggestions,omitempty"`
}

type nearMissOut struct {
	Identity identityOut `json:"identity"`
	Failed   []int       `json:"failed_clauses"`
}

func explanationFor(e *client.Explanation) explanationOut {
	out := explanationOut{
		Filter: e.Filter, Identities: e.Identities, Matches: e.Matches, Clauses: []clauseOut{}, Warnings: []warningOut{},
		NearMisses: []nearMissOut{}, Source: sourceName(e.Source), ElapsedMS: milliseconds(e.Elapsed), Revision: uint64(e.Revision),
	}
	for _, c := range e.Clauses {
		shown := clauseOut{Pointer: c.Pointer, Filter: c.Filter, Depth: c.Depth, Matches: c.Matches, Field: c.Field, Types: c.Types}
		if c.Field != "" {
			shown.Present, shown.Distinct = &c.Present, &c.Distinct
		}
		out.Clauses = append(out.Clauses, shown)
	}
	kinds := map[client.WarningKind]string{client.UnknownField: "UNKNOWN_FIELD", client.TypeMismatch: "TYPE_MISMATCH"}
	for _, w := range e.Warnings {
		out.Warnings = append(out.Warnings, warningOut{
			Kind: name(w.Kind, kinds), Field: w.Field, Pointer: w.Pointer, Message: w.Message, Suggestions: w.Suggestions,
		})
	}
	for _, miss := range e.NearMisses {
		out.NearMisses = append(out.NearMisses, nearMissOut{Identity: identityFor(miss.Identity), Failed: miss.Failed})
	}
	return out
}
