package client

import (
	"context"
	"time"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// The types about filters that the client shares with the server. Their documentation stands at the originals.
type (
	// Warning says what is suspicious about a filter.
	Warning = multicastregistry.Warning
	// WarningKind is what is suspicious.
	WarningKind = multicastregistry.WarningKind
	// Source is where filters are answered.
	Source = multicastregistry.Source
)

// The kinds of warning.
const (
	// UnknownField means that no identity has the field.
	UnknownField = multicastregistry.UnknownField
	// TypeMismatch means that identities have the field, but none of a type that the condition could tell apart.
	TypeMismatch = multicastregistry.TypeMismatch
)

// The sources.
const (
	// SourceIndex is an index in the server: the cost of an answer follows what is returned.
	SourceIndex = multicastregistry.SourceIndex
	// SourceNative is the registry's backend.
	SourceNative = multicastregistry.SourceNative
	// SourceScan means that every identity is fetched and looked at in the server.
	SourceScan = multicastregistry.SourceScan
)

// ExplainRequest says what Explain explains.
type ExplainRequest struct {
	// Filter is what is explained; nil or empty matches every identity.
	Filter map[string]any
	// NearMisses is the most near misses, up to 100. Default: 5. Negative: none.
	NearMisses int
	// Consistency says how recent the answer has to be. Default: Eventual.
	Consistency Consistency
	// MinRevision is a revision, of a registration for example, that the answer has to reflect. 0: none.
	MinRevision Revision
}

// Explanation tells how a filter is understood.
type Explanation struct {
	// Filter is the filter in JSON, as it is understood.
	Filter string
	// Identities counts the live ones.
	Identities int
	// Matches counts those that match.
	Matches int
	// Clauses are the conditions of the filter, each before those in it.
	Clauses []Clause
	// Warnings are what is suspicious about the filter.
	Warnings []Warning
	// NearMisses are identities that nearly match, those that miss the fewest conditions first. They are looked for when all of
	// two conditions or more must hold, and few identities match.
	NearMisses []NearMiss
	// Source is where the namespace's answers come from.
	Source Source
	// Elapsed is how long it took to find how many match; where everything was scanned, how long the scan took.
	Elapsed time.Duration
	// Revision is what all this reflects at the least. 0 when the backend keeps no revisions.
	Revision Revision
}

// Clause is one condition of a filter.
type Clause struct {
	// Pointer is the JSON pointer to it in the filter as it was asked for.
	Pointer string
	// Filter is the condition alone, as a filter in JSON. Empty where that would be more than about 1 MiB, all clauses together.
	Filter string
	// Depth is how many of $and, $or and $not it stands in.
	Depth int
	// Matches counts the identities that match it alone.
	Matches int
	// Field is the field that it looks at, spelled as in Query.SortBy. Empty for $and, $or and $not.
	Field string
	// Present counts the identities that have the field.
	Present int
	// Types counts them by the type of the field: "number", "string", "bool", "null", "array", "object".
	Types map[string]int
	// Distinct is how many different scalars there are in the field, exact up to 100,000.
	Distinct int
}

// NearMiss is an identity that one condition, or two, keep from matching.
type NearMiss struct {
	// Identity is the identity with its metadata.
	Identity Identity
	// Failed are the positions in Explanation.Clauses of the conditions that it does not meet.
	Failed []int
}

// Explain tells how a filter is understood: what each of its conditions matches, which of its fields nobody has, and which
// identities nearly match.
func (c *Client) Explain(ctx context.Context, r ExplainRequest) (*Explanation, error) {
	match, err := toStruct("filter", r.Filter)
	if err != nil {
		return nil, err
	}
	consistency, err := toConsistency(r.Consistency)
	if err != nil {
		return nil, err
	}
	request := &patternpb.ExplainRequest{
		Namespace: c.namespace, Filter: match, Consistency: consistency, MinRevision: uint64(r.MinRevision),
	}
	if r.NearMisses != 0 {
		request.NearMisses = new(uint32(toInt32(max(r.NearMisses, 0))))
	}
	response, err := c.rpc.Explain(ctx, request)
	if err != nil {
		return nil, c.failed(err)
	}
	return fromExplanation(response), nil
}

func fromExplanation(r *patternpb.ExplainResponse) *Explanation {
	out := &Explanation{
		Filter:     r.GetFilter(),
		Identities: int(r.GetIdentityCount()),
		Matches:    int(r.GetMatchCount()),
		Warnings:   fromWarnings(r.GetWarnings()),
		Source:     Source(r.GetSource()), // the numbers are the same on the wire, here and of the warnings
		Elapsed:    r.GetElapsed().AsDuration(),
		Revision:   Revision(r.GetRevision()),
	}
	for _, clause := range r.GetClauses() {
		shown := Clause{
			Pointer: clause.GetPointer(), Filter: clause.GetFilter(), Depth: int(clause.GetDepth()), Matches: int(clause.GetMatchCount()),
			Field: clause.GetField(), Present: int(clause.GetPresentCount()), Distinct: int(clause.GetDistinctCount()),
			Types: make(map[string]int, len(clause.GetTypes())),
		}
		for name, n := range clause.GetTypes() {
			shown.Types[name] = int(n)
		}
		out.Clauses = append(out.Clauses, shown)
	}
	for _, miss := range r.GetNearMisses() {
		shown := NearMiss{Identity: fromIdentity(miss.GetIdentity())}
		for _, at := range miss.GetFailedClauses() {
			if int(at) < len(out.Clauses) {
				shown.Failed = append(shown.Failed, int(at))
			}
		}
		out.NearMisses = append(out.NearMisses, shown)
	}
	return out
}

func fromWarnings(warnings []*patternpb.FilterWarning) (out []Warning) {
	for _, w := range warnings {
		out = append(out, Warning{
			Kind: WarningKind(w.GetKind()), Field: w.GetField(), Pointer: w.GetPointer(), Message: w.GetMessage(),
			Suggestions: w.GetSuggestions(),
		})
	}
	return out
}
