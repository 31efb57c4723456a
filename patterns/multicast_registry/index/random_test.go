package index

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// The vocabulary is small, so that filters match.
var (
	words = []string{
		"a", "b", "c", "d", "e.f", "", "ab", "abc", "é", "日本", "1.2.3", "1.2.4-rc.1", "2.0.0", "v3.1.0", "$x", "\xf4\x8f\xbf\xbf", "\x00",
		"https://example.org/some/long/text/that/goes/on/and/on",
	}
	numbers = []any{
		int64(0), int64(1), int64(-1), 0.5, -0.5, 1e300, -1e300, 5e-324, int64(math.MaxInt64), int64(math.MaxInt64 - 1), int64(math.MinInt64),
		int64(math.MinInt64 + 1), uint64(math.MaxUint64), uint64(math.MaxUint64 - 1), uint64(1 << 63), uint64(1<<63 + 1), int64(1 << 53),
		int64(1<<53 + 1), float64(1 << 53), float64(1 << 63), float64(1 << 62), 1.8446744073709552e19, 3.6893488147419103e19, 5.0, int64(5),
		math.Copysign(0, -1),
	}
	keys  = []string{"a", "b", "c", "d.e", "lt"}
	types = []string{"string", "number", "bool", "null", "array", "object"}
)

type random struct{ *rand.Rand }

func newRandom(seed uint64) random { return random{rand.New(rand.NewPCG(seed, 5))} }

func pick[T any](r random, list []T) T { return list[r.IntN(len(list))] }

func (r random) scalar() any {
	switch r.IntN(8) {
	case 0:
		return nil
	case 1:
		return r.IntN(2) == 0
	case 2, 3:
		return pick(r, numbers)
	case 4:
		return int64(r.IntN(100))
	default:
		return pick(r, words)
	}
}

func (r random) value(depth int) any {
	switch n := r.IntN(10); {
	case n == 0:
		list := make([]any, r.IntN(4))
		for i := range list {
			list[i] = r.scalar()
			if depth > 0 && r.IntN(8) == 0 {
				list[i] = r.value(depth - 1)
			}
		}
		return list
	case n == 1 && depth > 0:
		return r.object(depth - 1)
	default:
		return r.scalar()
	}
}

func (r random) object(depth int) map[string]any {
	object := make(map[string]any)
	for range r.IntN(5) {
		object[pick(r, keys)] = r.value(depth)
	}
	return object
}

func (r random) path() []string {
	path := []string{pick(r, keys)}
	for r.IntN(4) == 0 {
		path = append(path, pick(r, keys))
	}
	return path
}

// expr is a filter built by hand; now and then with an operand that no parser lets through.
func (r random) expr(depth int) *filter.Expr {
	if depth > 0 && r.IntN(3) > 0 {
		e := &filter.Expr{Op: filter.Op(r.IntN(3))}
		n := 1 + r.IntN(3)
		if e.Op == filter.Not {
			n = 1
		}
		for range n {
			e.Args = append(e.Args, r.expr(depth-1))
		}
		return e
	}
	e := &filter.Expr{Op: filter.Eq + filter.Op(r.IntN(int(filter.Semver-filter.Eq)+1)), Path: r.path(), Value: r.scalar()}
	if r.IntN(30) == 0 {
		e.Value = pick(r, []any{math.NaN(), math.Inf(1), []any{}, "\xff", struct{}{}})
		e.Values = []any{e.Value}
		return e
	}
	switch e.Op {
	case filter.In, filter.Nin:
		for range r.IntN(5) {
			e.Values = append(e.Values, r.scalar())
		}
	case filter.Lt, filter.Lte, filter.Gt, filter.Gte:
		if r.IntN(2) == 0 {
			e.Value = pick(r, numbers)
		} else {
			e.Value = pick(r, words[:8])
		}
	case filter.StartsWith, filter.EndsWith, filter.Contains:
		if r.IntN(3) > 0 {
			e.Value = pick(r, []string{"a", "b", "", "é", "1", "\U0010ffff", "x", "rc.1"})
		}
	case filter.Regex:
		e.Value = pick(r, []string{"^a", "b$", ".", "^$", "[0-9]+", "(", "日"})
	case filter.Exists:
		e.Value = r.IntN(2) == 0
	case filter.Type:
		e.Value = pick(r, append(types, "strange"))
	case filter.Semver:
		e.Value = pick(r, []string{">=1.2", "^1.2.4-rc.0", "3.x", "*", "~", ""})
	}
	return e
}

// match is what expr is, parsed when that is possible.
func (r random) match() *filter.Expr {
	e := r.expr(r.IntN(4))
	if parsed, err := filter.Parse(e.String()); err == nil && r.IntN(4) > 0 {
		return parsed
	}
	return e
}

// model is what an index should be.
type model struct {
	now        time.Time
	identities map[string]multicastregistry.Identity // with Metadata
}

func (m *model) live(match *filter.Expr) map[string]multicastregistry.Identity {
	live := make(map[string]multicastregistry.Identity)
	for id, i := range m.identities {
		if (i.ExpiresAt.IsZero() || i.ExpiresAt.After(m.now)) && filter.Match(match, i.Metadata) {
			live[id] = i
		}
	}
	return live
}

func (r random) id(n int) string {
	return fmt.Sprintf("%s-%d", pick(r, []string{"dev", "device", "日本", "a\x00b"}), r.IntN(n))
}

func (r random) identity(now time.Time, n int) multicastregistry.Identity {
	i := multicastregistry.Identity{
		ID: r.id(n), Metadata: r.object(2), TTL: multicastregistry.NoExpiry, RegisteredAt: now, Revision: multicastregistry.Revision(r.Uint64()),
	}
	if r.IntN(3) > 0 {
		i.TTL = time.Duration(1+r.IntN(100)) * time.Second
		i.ExpiresAt = now.Add(i.TTL)
	}
	return i
}
