package multicastregistry

import (
	"context"
	"time"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// explainScanned looks at every identity once.
func (c *Coordinator) explainScanned(ctx context.Context, q Inquiry, out *Explanation) error {
	start := time.Now()
	fields := &surveyed{}
	for i := range out.Clauses {
		if e := out.Clauses[i].Expr; !e.Op.Logical() && len(e.Path) > 0 {
			fields.ask(e.Path)
		}
	}
	near := nearMisses{parts: conjuncts(q.Filter, out.Clauses), clauses: out.Clauses, most: q.NearMisses}
	met := make([]bool, len(out.Clauses))
	for identity, err := range c.slots.Registry.Scan(ctx, nil) {
		if err != nil {
			return err
		}
		fields.add(identity.Metadata)
		for i := range out.Clauses {
			if met[i] = filter.Match(out.Clauses[i].Expr, identity.Metadata); met[i] {
				out.Clauses[i].Matches++
			}
		}
		if len(met) == 0 || met[0] { // the first condition is the whole filter
			out.Matches++
		} else {
			near.offer(identity, met)
		}
	}
	out.Elapsed = time.Since(start)
	out.Identities = fields.Len(start)
	known := make(map[string]Field)
	for i := range out.Clauses {
		out.Clauses[i].Field = fieldOf(out.Clauses[i].Expr, fields, start, known)
	}
	out.Warnings = warningsOf(q.Filter, fields, start)
	if out.Matches > fewMatches {
		return nil
	}
	for i := range near.found {
		identity := &near.found[i].Identity
		identity.Encoded, identity.Metadata = string(AppendMetadata(nil, identity.Metadata)), nil
	}
	out.NearMisses = near.fit()
	return nil
}

// offer adds an identity if it is a near miss, given which clauses it meets.
func (n *nearMisses) offer(identity Identity, met []bool) {
	failed := 0
	for _, part := range n.parts {
		if !met[part] {
			failed++
		}
	}
	if failed > n.mostFailed() || n.full(failed, identity.ID) {
		return
	}
	miss := NearMiss{Identity: identity, Failed: make([]int, 0, failed)}
	for _, part := range n.parts {
		if !met[part] {
			miss.Failed = append(miss.Failed, part)
		}
	}
	n.add(miss)
}

// full tells whether there are enough that come before.
func (n *nearMisses) full(failed int, id string) bool {
	if len(n.found) < n.most {
		return false
	}
	if n.most == 0 {
		return true
	}
	last := &n.found[n.most-1]
	return len(last.Failed) < failed || len(last.Failed) == failed && last.Identity.ID < id
}
