package multicastregistry

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// How a filter is explained. Where an index knows the fields (see Fielder), each condition is a query of its own, and so is each
// way to leave one or two of them out; everywhere else one scan of all identities tells all of it (explain_scan.go). Both give
// the same answer.

// Bounds of Explain.
const (
	DefaultNearMisses = 5
	MaxNearMisses     = 100
	// fewMatches is up to how many matches near misses are of interest.
	fewMatches = 100
	// mostPairs is up to how many conditions a near miss may miss two of them.
	mostPairs = 10
	// maxNearMissBytes bounds the names and metadata of near misses, but for the first.
	maxNearMissBytes = 1 << 20
)

// Inquiry is what Explain takes.
type Inquiry struct {
	// Filter is what is explained; nil matches every identity.
	Filter *filter.Expr
	// NearMisses is the most near misses, up to MaxNearMisses; 0 means none.
	NearMisses int
	// Recency is how recent the answer has to be.
	Recency
}

// Explanation tells how a filter is understood.
type Explanation struct {
	// Identities counts the live ones.
	Identities int
	// Matches counts those that match.
	Matches int
	// Clauses are the conditions, as filter.Expr.All yields them.
	Clauses []Clause
	// Warnings are what is suspicious about the filter.
	Warnings []Warning
	// NearMisses are identities that nearly match, those that miss the fewest conditions first, then by name: one condition, or
	// two where there are three to ten. They are looked for when the filter is an And of two conditions or more, and at most a
	// hundred identities match. More than about 1 MiB of them are cut off.
	NearMisses []NearMiss
	// Source is where answers come from.
	Source Source
	// Elapsed is how long it took to find how many match; where everything was scanned, how long the scan took.
	Elapsed time.Duration
	// Revision is what all this reflects at the least. 0 when the backend keeps no revisions.
	Revision Revision
}

// Clause is one condition of a filter.
type Clause struct {
	// Expr is the condition. Its Pointer is where it stands in the filter.
	Expr *filter.Expr
	// Depth is how many of And, Or and Not it stands in.
	Depth int
	// Matches counts the identities that match it alone.
	Matches int
	// Field is what there is to know of the field that it looks at. Of And, Or and Not, and of an empty filter, it is zero.
	Field Field
}

// NearMiss is an identity that one or two conditions keep from matching.
type NearMiss struct {
	// Identity has Encoded set in place of Metadata.
	Identity Identity
	// Failed are the positions in Clauses of the conditions that it does not meet.
	Failed []int
}

// Explain tells how a filter is understood: what each of its conditions matches, what is known of its fields, and which
// identities nearly match. It costs as much as an Enumerate for each condition, or one scan of all identities.
func (c *Coordinator) Explain(ctx context.Context, q Inquiry) (*Explanation, error) {
	switch {
	case q.NearMisses < 0 || q.NearMisses > MaxNearMisses:
		return nil, invalid("near_misses", "must be at most %d", MaxNearMisses)
	case q.Consistency > Strong:
		return nil, invalid("consistency", "must be Eventual or Strong")
	}
	revision, err := c.recent(ctx, q.Recency)
	if err != nil {
		return nil, err
	}
	out := &Explanation{Revision: revision, Source: SourceScan}
	for expr, depth := range q.Filter.All() {
		out.Clauses = append(out.Clauses, Clause{Expr: expr, Depth: depth})
	}
	if c.fielder != nil {
		if fields, now := c.fielder.Fields(); fields != nil {
			out.Source = SourceIndex
			return out, c.explainIndexed(ctx, q, out, fields, now)
		}
	}
	if sourcer, ok := c.bare.Registry.(Sourcer); ok {
		out.Source = sourcer.Source()
	}
	return out, c.explainScanned(ctx, q, out)
}

func (c *Coordinator) explainIndexed(ctx context.Context, q Inquiry, out *Explanation, fields Fields, now time.Time) error {
	start := time.Now()
	found, err := c.querier.Query(ctx, Selection{Match: q.Filter, Total: true})
	if err != nil {
		return err
	}
	out.Elapsed = time.Since(start)
	out.Matches, out.Revision = found.Total, max(out.Revision, found.Revision)
	out.Identities = fields.Len(now)
	known := make(map[string]Field)
	for i := range out.Clauses {
		clause := &out.Clauses[i]
		if clause.Matches = out.Matches; i > 0 { // the first is the whole filter
			found, err := c.querier.Query(ctx, Selection{Match: clause.Expr, Total: true})
			if err != nil {
				return err
			}
			clause.Matches = found.Total
		}
		clause.Field = fieldOf(clause.Expr, fields, now, known)
	}
	out.Warnings = warningsOf(q.Filter, fields, now)
	parts := conjuncts(q.Filter, out.Clauses)
	if len(parts) < 2 || q.NearMisses == 0 || out.Matches > fewMatches {
		return nil
	}
	near := nearMisses{parts: parts, clauses: out.Clauses, most: q.NearMisses}
	for failed := 1; failed <= near.mostFailed() && len(near.found) < near.most; failed++ {
		for _, without := range near.combinations(failed) {
			found, err := c.querier.Query(ctx, Selection{Match: near.all(without), Limit: near.most, MaxBytes: maxNearMissBytes})
			if err != nil {
				return err
			}
			for _, identity := range found.Identities {
				near.add(NearMiss{Identity: identity, Failed: without})
			}
		}
	}
	out.NearMisses = near.fit()
	return nil
}

// fieldOf looks a condition's field up, once for all conditions that it is the field of.
func fieldOf(e *filter.Expr, fields Fields, now time.Time, known map[string]Field) Field {
	if e.Op.Logical() || len(e.Path) == 0 {
		return Field{}
	}
	name := filter.FormatPath(e.Path)
	field, ok := known[name]
	if !ok {
		field = fields.Field(now, e.Path)
		known[name] = field
	}
	return field
}

// conjuncts are the positions of the conditions that all have to hold; those of an And within an And are among them in its place.
func conjuncts(match *filter.Expr, clauses []Clause) (positions []int) {
	if match == nil {
		return nil
	}
	at := make(map[*filter.Expr]int, len(clauses))
	for i := range clauses {
		at[clauses[i].Expr] = i
	}
	var collect func(e *filter.Expr)
	collect = func(e *filter.Expr) {
		if e.Op != filter.And {
			positions = append(positions, at[e])
			return
		}
		for _, arg := range e.Args {
			if arg != nil {
				collect(arg)
			}
		}
	}
	collect(match)
	return positions
}

// nearMisses are the identities that miss the fewest conditions, in order, up to a number.
type nearMisses struct {
	parts   []int // positions in clauses
	clauses []Clause
	most    int
	found   []NearMiss
}

// mostFailed is how many conditions a near miss may fail: never all of them.
func (n *nearMisses) mostFailed() int {
	switch {
	case len(n.parts) < 2:
		return 0
	case len(n.parts) == 2 || len(n.parts) > mostPairs:
		return 1
	}
	return 2
}

// combinations lists which one or two conditions a near miss may fail.
func (n *nearMisses) combinations(failed int) (all [][]int) {
	for i, part := range n.parts {
		if failed == 1 {
			all = append(all, []int{part})
			continue
		}
		for _, other := range n.parts[i+1:] {
			all = append(all, []int{part, other})
		}
	}
	return all
}

// all is a filter for what meets all conditions but some, and not those.
func (n *nearMisses) all(without []int) *filter.Expr {
	out := &filter.Expr{Op: filter.And}
	for _, part := range n.parts {
		e := n.clauses[part].Expr
		if slices.Contains(without, part) {
			e = &filter.Expr{Op: filter.Not, Args: []*filter.Expr{e}}
		}
		out.Args = append(out.Args, e)
	}
	return out
}

// add takes in one that belongs to the first ones.
func (n *nearMisses) add(miss NearMiss) {
	at, found := slices.BinarySearchFunc(n.found, miss, func(a, b NearMiss) int {
		return cmp.Or(len(a.Failed)-len(b.Failed), strings.Compare(a.Identity.ID, b.Identity.ID))
	})
	if found || at == n.most {
		return
	}
	n.found = slices.Insert(n.found, at, miss)
	n.found = n.found[:min(len(n.found), n.most)]
}

// fit returns the first ones that are not too large together.
func (n *nearMisses) fit() []NearMiss {
	bytes := 0
	for i := range n.found {
		bytes += identityBytes + len(n.found[i].Identity.ID) + len(n.found[i].Identity.Encoded)
		if i > 0 && bytes > maxNearMissBytes {
			return n.found[:i]
		}
	}
	return n.found
}
