package multicastregistry

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// Bounds of Enumerate.
const (
	DefaultPageSize = 100
	MaxPageSize     = 10_000
	// MaxFields bounds Query.SortBy, Query.CountBy and Query.Fields.
	MaxFields = 16
	// MaxGroups is the most groups that are told of one field of Query.CountBy, and the default.
	MaxGroups = 1000
	// maxPageBytes ends a page early, so that it fits into a message of gRPC's default size, 4 MiB.
	maxPageBytes = 2 << 20
	// identityBytes is what an identity takes besides its name and metadata, about.
	identityBytes = 64
)

// Consistency says how recent an answer has to be.
type Consistency uint8

const (
	// Eventual answers from the nearest copy: what was written through this coordinator is in it, and it is never older than
	// the namespace's max_staleness. The default.
	Eventual Consistency = iota
	// Strong reflects all that had been written, by anybody, when the call began.
	Strong
)

// Recency is how recent an answer has to be.
type Recency struct {
	// Consistency is Eventual or Strong.
	Consistency Consistency
	// AtLeast is a revision, of a registration for example, that the answer has to reflect. 0: none.
	AtLeast Revision
}

// Query is what Enumerate takes.
type Query struct {
	// Filter selects by metadata; nil matches every identity.
	Filter *filter.Expr
	// SortBy orders by fields, up to MaxFields, and then by name.
	SortBy []Order
	// PageSize is the most identities to return: up to MaxPageSize; 0 means DefaultPageSize. A page of more than about 2 MiB
	// ends early.
	PageSize int
	// PageToken is the NextPageToken of the page before, which had the same SortBy. Empty: the first page.
	PageToken string
	// CountOnly returns counts and no identities.
	CountOnly bool
	// CountBy counts all matches by the values of each of these fields, up to MaxFields.
	CountBy [][]string
	// MaxGroups is the most groups for each of CountBy, up to MaxGroups; 0 means that.
	MaxGroups int
	// Fields are the only fields of the metadata to return, up to MaxFields. Nil: all.
	Fields [][]string
	// Into is memory that the page's identities may be written to, whatever it holds: a page of a thousand takes 100 kB. Optional.
	Into []Identity
	// Recency is how recent the answer has to be.
	Recency
}

// Page is one page of matching identities.
type Page struct {
	// Identities in the order that was asked for. They have Encoded set in place of Metadata.
	Identities []Identity
	// NextPageToken leads to the next page. Empty: this was the last one.
	NextPageToken string
	// Total counts the matches on all pages, at the time of this one.
	Total int
	// Groups are the counts by each of CountBy, over all pages.
	Groups []Groups
	// Revision is what the page reflects at the least. 0 when the backend keeps no revisions.
	Revision Revision
	// Warnings are what is suspicious about the filter: on the first page only, and where an index answers.
	Warnings []Warning
}

// Enumerate returns a page of the live identities that match. Walking the pages neither skips nor repeats an identity
// that stays registered, with the same values of SortBy, meanwhile.
func (c *Coordinator) Enumerate(ctx context.Context, q Query) (Page, error) {
	selection, err := q.selection()
	if err != nil {
		return Page{}, err
	}
	revision, err := c.recent(ctx, q.Recency)
	if err != nil {
		return Page{}, err
	}
	found, err := c.querier.Query(ctx, selection)
	if err != nil {
		return Page{}, err
	}
	page := Page{Identities: found.Identities, Total: found.Total, Groups: found.Groups, Revision: max(revision, found.Revision)}
	if q.PageToken == "" {
		page.Warnings = c.warnings(q.Filter)
	}
	if found.More {
		page.NextPageToken = pageToken(q.SortBy, found.Last)
	}
	if q.Fields != nil {
		for i := range page.Identities {
			page.Identities[i].Encoded = project(page.Identities[i].Encoded, q.Fields)
		}
	}
	return page, nil
}

// selection checks a query and turns it into what a Querier takes.
func (q *Query) selection() (Selection, error) {
	s := Selection{
		Match: q.Filter, Order: q.SortBy, Limit: q.PageSize, MaxBytes: maxPageBytes, Total: true, CountBy: q.CountBy,
		MaxGroups: q.MaxGroups, Into: q.Into,
	}
	if s.Limit < 0 || s.Limit > MaxPageSize {
		return s, invalid("page_size", "must be between 1 and %d", MaxPageSize)
	}
	if s.Limit == 0 {
		s.Limit = DefaultPageSize
	}
	if q.CountOnly {
		s.Limit = 0
	}
	if s.MaxGroups < 0 || s.MaxGroups > MaxGroups {
		return s, invalid("max_groups", "must be between 1 and %d", MaxGroups)
	}
	if s.MaxGroups == 0 {
		s.MaxGroups = MaxGroups
	}
	if q.Consistency > Strong {
		return s, invalid("consistency", "must be Eventual or Strong")
	}
	order := make([][]string, len(q.SortBy))
	for i := range q.SortBy {
		order[i] = q.SortBy[i].Path
	}
	for field, paths := range map[string][][]string{"sort_by": order, "count_by": q.CountBy, "fields": q.Fields} {
		if len(paths) > MaxFields {
			return s, invalid(field, "has %d fields, at most %d are allowed", len(paths), MaxFields)
		}
		for _, path := range paths {
			if len(path) == 0 || len(path) > maxMetadataDepth {
				return s, invalid(field, "a field needs between one key and %d", maxMetadataDepth)
			}
		}
	}
	var err error
	s.After, err = parsePageToken(q.SortBy, q.PageToken)
	return s, err
}

// recent sees to it that what is read from now on is as recent as it has to be, and returns the revision that it reflects at
// the least; 0 when the registry has none.
func (c *Coordinator) recent(ctx context.Context, r Recency) (at Revision, err error) {
	if c.head == nil {
		if r.AtLeast > 0 {
			return 0, fmt.Errorf("min_revision: %w: its registry keeps no revisions", ErrUnsupported)
		}
		return 0, nil
	}
	if c.copied == nil || r.Consistency == Strong {
		if at, err = c.head.Head(ctx); err != nil {
			return 0, err
		}
	}
	if c.copied != nil {
		return c.copied.Reach(ctx, max(at, r.AtLeast))
	}
	if at < r.AtLeast {
		return 0, fmt.Errorf("min_revision: %w: the registry is at revision %d", ErrUnavailable, at)
	}
	return at, nil
}

// names returns the names of the live identities that match, in order, and the revision they reflect at the least.
func (c *Coordinator) names(ctx context.Context, match *filter.Expr, r Recency) (found []string, revision Revision, err error) {
	if revision, err = c.recent(ctx, r); err != nil {
		return nil, 0, err
	}
	if c.finder == nil {
		for identity, err := range matching(ctx, c.slots.Registry, match) {
			if err != nil {
				return nil, 0, err
			}
			found = append(found, identity.ID)
		}
	} else {
		for name, err := range c.finder.Find(ctx, match) {
			if err != nil {
				return nil, 0, err
			}
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found, revision, nil
}

// project returns encoded metadata with the given fields only.
func project(encoded string, fields [][]string) string {
	out := make(map[string]any)
	for _, path := range fields {
		if value, ok := LookUp(encoded, path...); ok {
			within(out, path[:len(path)-1])[path[len(path)-1]] = value
		}
	}
	return string(AppendMetadata(nil, out))
}

// within returns the object at a path, which is made as far as it is not there.
func within(object map[string]any, path []string) map[string]any {
	for _, key := range path {
		inner, ok := object[key].(map[string]any)
		if !ok {
			inner = make(map[string]any)
			object[key] = inner
		}
		object = inner
	}
	return object
}

// A page token is the place of the last identity of the page before, so that it stays good whatever is registered meanwhile,
// and the order it is a place in.
const (
	tokenName   = "i"
	tokenOrder  = "o"
	tokenValues = "v"
)

func pageToken(order []Order, last *Place) string {
	token := map[string]any{tokenName: last.ID}
	if len(order) > 0 {
		values := make([]any, len(last.Values))
		for i, v := range last.Values {
			if values[i] = v; v == (Absent{}) {
				values[i] = []any{}
			}
		}
		token[tokenOrder], token[tokenValues] = spell(order), values
	}
	return base64.RawURLEncoding.EncodeToString(AppendMetadata(nil, token))
}

func parsePageToken(order []Order, text string) (*Place, error) {
	if text == "" {
		return nil, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	token, errToken := DecodeMetadata(string(raw))
	if err != nil || errToken != nil {
		return nil, invalid("page_token", "is not a token that this server handed out")
	}
	place := &Place{}
	var ok bool
	if place.ID, ok = token[tokenName].(string); !ok || len(place.ID) > MaxIdentityBytes {
		return nil, invalid("page_token", "is not a token that this server handed out")
	}
	of, _ := token[tokenOrder].(string)
	place.Values, _ = token[tokenValues].([]any)
	if of != spell(order) || len(place.Values) != len(order) {
		return nil, invalid("page_token", "is of a query with another sort_by")
	}
	for i, v := range place.Values {
		if _, scalar := filter.Scalar(v); !scalar {
			place.Values[i] = Absent{}
		}
	}
	return place, nil
}

// spell writes an order unambiguously.
func spell(order []Order) string {
	var b strings.Builder
	for _, o := range order {
		fmt.Fprintf(&b, "%q%t", o.Path, o.Descending)
	}
	return b.String()
}
