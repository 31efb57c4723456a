package proxy

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/auth"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// maxClauseBytes bounds the texts of all clauses in a response together, which repeat each other: what is in a clause stands in
// its text and in the text of each that it is in.
const maxClauseBytes = 1 << 20

// Explain implements the RPC.
func (s *service) Explain(ctx context.Context, req *patternpb.ExplainRequest) (*patternpb.ExplainResponse, error) {
	n, err := s.enter(ctx, req.GetNamespace())
	if err != nil {
		return nil, err
	}
	if n.grant.Restricted() { // what it tells of clauses, fields and near misses is about all identities
		return nil, &auth.DeniedError{
			Operation: auth.OpExplain, Namespace: n.Coordinator.Config().Namespace, Detail: "the caller does not see everything",
		}
	}
	q := multicastregistry.Inquiry{NearMisses: multicastregistry.DefaultNearMisses}
	if req.NearMisses != nil {
		if req.GetNearMisses() > multicastregistry.MaxNearMisses {
			return nil, invalid("near_misses", fmt.Sprintf("must be at most %d", multicastregistry.MaxNearMisses))
		}
		q.NearMisses = int(req.GetNearMisses())
	}
	if q.Filter, err = n.asked(req.GetFilter()); err != nil {
		return nil, err
	}
	if q.Recency, err = recency(req.GetConsistency(), req.GetMinRevision()); err != nil {
		return nil, err
	}
	explained, err := n.Coordinator.Explain(ctx, q)
	if err != nil {
		return nil, err
	}
	return shownExplanation(q.Filter, explained)
}

// shownExplanation shows an explanation. The enum of the wire has the numbers of that below; a test holds them together.
func shownExplanation(match *filter.Expr, e *multicastregistry.Explanation) (*patternpb.ExplainResponse, error) {
	out := &patternpb.ExplainResponse{
		Filter: "{}", IdentityCount: uint64(e.Identities), MatchCount: uint64(e.Matches), Warnings: shownWarnings(e.Warnings),
		Source: patternpb.ExplainResponse_Source(e.Source), Elapsed: durationpb.New(e.Elapsed), Revision: uint64(e.Revision),
	}
	if match != nil {
		out.Filter = match.String()
	}
	left := maxClauseBytes
	for i := range e.Clauses {
		shown := shownClause(&e.Clauses[i])
		if left -= len(shown.GetFilter()); left < 0 {
			shown.Filter = ""
		}
		out.Clauses = append(out.Clauses, shown)
	}
	for _, miss := range e.NearMisses {
		shown := &patternpb.ExplainResponse_NearMiss{Identity: &patternpb.Identity{}}
		if err := proto.Unmarshal(appendIdentity(nil, &miss.Identity, true), shown.GetIdentity()); err != nil {
			return nil, err
		}
		for _, at := range miss.Failed {
			shown.FailedClauses = append(shown.FailedClauses, uint32(at))
		}
		out.NearMisses = append(out.NearMisses, shown)
	}
	return out, nil
}

func shownClause(c *multicastregistry.Clause) *patternpb.ExplainResponse_Clause {
	out := &patternpb.ExplainResponse_Clause{
		Pointer: c.Expr.Pointer(), Filter: c.Expr.String(), Depth: uint32(c.Depth), MatchCount: uint64(c.Matches),
	}
	if len(c.Field.Path) == 0 {
		return out
	}
	out.Field = filter.FormatPath(c.Field.Path)
	out.PresentCount, out.DistinctCount = uint64(c.Field.Present), uint64(c.Field.Distinct)
	out.Types = make(map[string]uint64, len(c.Field.Types))
	for name, n := range c.Field.Types {
		out.Types[name] = uint64(n)
	}
	return out
}

// shownWarnings shows warnings. Their kinds have the same numbers on the wire.
func shownWarnings(warnings []multicastregistry.Warning) (out []*patternpb.FilterWarning) {
	for _, w := range warnings {
		out = append(out, &patternpb.FilterWarning{
			Kind: patternpb.FilterWarning_Kind(w.Kind), Field: w.Field, Pointer: w.Pointer, Message: w.Message, Suggestions: w.Suggestions,
		})
	}
	return out
}
