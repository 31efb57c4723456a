package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/prism-data-layer/prism/client"
)

// countsOut is what --count and --count-by print.
type countsOut struct {
	Total  int          `json:"total"`
	Counts []fieldCount `json:"counts,omitempty"`
}

// fieldCount is the identities by the value of one field.
type fieldCount struct {
	Field   string       `json:"field"`
	Groups  []groupCount `json:"groups"`
	Omitted int          `json:"omitted_groups,omitempty"`
	Missing int          `json:"missing"`
}

type groupCount struct {
	Value any `json:"value"`
	Count int `json:"count"`
}

// enumerateCounts prints how many identities match, all together and by the values of fields.
func (p *program) enumerateCounts(ctx context.Context, c *client.Client, q client.Query) error {
	q.CountOnly = true
	page, err := p.pages(ctx, c)(q)
	if err != nil {
		return err
	}
	out := countsOut{Total: page.Total}
	for i, counted := range page.Groups {
		shown := fieldCount{Field: q.CountBy[i], Groups: []groupCount{}, Omitted: counted.Omitted, Missing: counted.Missing}
		for _, group := range counted.Groups {
			shown.Groups = append(shown.Groups, groupCount{group.Value, group.Count})
		}
		out.Counts = append(out.Counts, shown)
	}
	if p.format != formatTable {
		return p.show(out)
	}
	if len(out.Counts) == 0 {
		_, err := fmt.Fprintln(p.out, out.Total)
		return err
	}
	for _, field := range out.Counts {
		var rows [][]string
		for _, group := range field.Groups {
			rows = append(rows, []string{groupName(group.Value), strconv.Itoa(group.Count)})
		}
		if field.Missing > 0 {
			rows = append(rows, []string{"(none)", strconv.Itoa(field.Missing)})
		}
		if err := p.table([]string{strings.ToUpper(cell(field.Field)), "COUNT"}, rows); err != nil {
			return err
		}
		if field.Omitted > 0 {
			fmt.Fprintf(p.err, "%d smaller groups are not shown.\n", field.Omitted)
		}
	}
	fmt.Fprintf(p.err, "%s.\n", counted(out.Total, "identity matches", "identities match"))
	return nil
}

// groupName shows a string as it is and any other value as JSON.
func groupName(value any) string {
	if text, ok := value.(string); ok {
		return cell(text)
	}
	return compact(value)
}
