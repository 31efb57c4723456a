package multicastregistry

import (
	"cmp"
	"context"
	"iter"
	"slices"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// Scanning returns a Querier over a registry that cannot answer queries itself. Every query reads every match.
func Scanning(registry Registry) Querier { return scanner{registry} }

// scanner answers queries of a registry that cannot do so itself. Every query reads every match.
type scanner struct{ registry Registry }

// matching yields what matches exactly.
func matching(ctx context.Context, registry Registry, match *filter.Expr) iter.Seq2[Identity, error] {
	return func(yield func(Identity, error) bool) {
		for identity, err := range registry.Scan(ctx, match) {
			if err != nil {
				yield(Identity{}, err)
				return
			}
			if filter.Match(match, identity.Metadata) && !yield(identity, nil) {
				return
			}
		}
	}
}

// Query implements Querier.
func (s scanner) Query(ctx context.Context, q Selection) (Selected, error) {
	var out Selected
	var found []placed
	groups := make([]grouping, len(q.CountBy))
	for i, path := range q.CountBy {
		groups[i] = grouping{path: path, counts: make(map[any]int)}
	}
	for identity, err := range matching(ctx, s.registry, q.Match) {
		if err != nil {
			return out, err
		}
		out.Total++
		for i := range groups {
			groups[i].add(identity.Metadata)
		}
		if q.Limit > 0 {
			p := placed{identity: identity, place: placeOf(&identity, q.Order)}
			if q.After == nil || p.place.Compare(q.After, q.Order) > 0 {
				found = append(found, p)
			}
		}
	}
	slices.SortFunc(found, func(a, b placed) int { return a.place.Compare(&b.place, q.Order) })
	bytes := 0
	for i := range found {
		identity := found[i].identity
		identity.Encoded = string(AppendMetadata(nil, identity.Metadata))
		identity.Metadata = nil
		bytes += identityBytes + len(identity.ID) + len(identity.Encoded)
		if i == q.Limit || i > 0 && q.MaxBytes > 0 && bytes > q.MaxBytes {
			out.More = true
			break
		}
		out.Identities, out.Last = append(out.Identities, identity), &found[i].place
	}
	for i := range groups {
		out.Groups = append(out.Groups, groups[i].largest(q.MaxGroups))
	}
	return out, nil
}

type placed struct {
	identity Identity
	place    Place
}

func placeOf(identity *Identity, order []Order) Place {
	place := Place{ID: identity.ID}
	for _, o := range order {
		value, _ := at(identity.Metadata, o.Path)
		place.Values = append(place.Values, value)
	}
	return place
}

// at returns the scalar at a path of metadata in the form of filter.Scalar, and Absent where there is none; found is what
// stands there.
func at(metadata map[string]any, path []string) (scalar, found any) {
	var here any = metadata
	for _, key := range path {
		object, _ := here.(map[string]any)
		var ok bool
		if here, ok = object[key]; !ok {
			return Absent{}, nil
		}
	}
	if value, ok := filter.Scalar(here); ok {
		return value, here
	}
	return Absent{}, here
}

// Compare tells whether a place comes before another one in an order (negative), after it (positive), or is the same (0).
func (p *Place) Compare(other *Place, order []Order) int {
	for i := range order {
		c := filter.Compare(p.Values[i], other.Values[i])
		if order[i].Descending {
			c = -c
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Compare(p.ID, other.ID)
}

// grouping counts matches by a field.
type grouping struct {
	path    []string
	counts  map[any]int
	missing int
}

func (g *grouping) add(metadata map[string]any) {
	value, found := at(metadata, g.path)
	if value != (Absent{}) {
		g.counts[value]++
		return
	}
	elements, _ := found.([]any)
	seen := make(map[any]bool, len(elements))
	for _, element := range elements {
		if scalar, ok := filter.Scalar(element); ok && !seen[scalar] {
			seen[scalar] = true
			g.counts[scalar]++
		}
	}
	if len(seen) == 0 {
		g.missing++
	}
}

// largest returns the largest groups.
func (g *grouping) largest(most int) Groups {
	all := make([]Group, 0, len(g.counts))
	for value, count := range g.counts {
		all = append(all, Group{Value: value, Count: count})
	}
	return LargestGroups(g.path, all, most, g.missing)
}

// LargestGroups sorts groups, the largest first and of equal ones in the order of filter.Compare, and keeps the first ones.
func LargestGroups(path []string, all []Group, most, missing int) Groups {
	slices.SortFunc(all, func(a, b Group) int { return cmp.Or(cmp.Compare(b.Count, a.Count), filter.Compare(a.Value, b.Value)) })
	kept := all[:min(most, len(all))]
	return Groups{Path: path, Groups: kept, Omitted: len(all) - len(kept), Missing: missing}
}
