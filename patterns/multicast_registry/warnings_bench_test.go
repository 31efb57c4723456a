package multicastregistry_test

import (
	"fmt"
	"testing"

	"github.com/prism-data-layer/prism/patterns/memory"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// unwarned is a registry that does not tell what it knows of fields, so that nobody is warned.
type unwarned struct {
	mr.Registry
	mr.Querier
	mr.Header
}

// BenchmarkWarnings asks for all of 10 and of 1,000 that match, of 1,000,000: without warnings, by a filter that is above
// suspicion, and by one that also names a field which nobody has. Explain has the last one too.
func BenchmarkWarnings(b *testing.B) {
	slots := memorySlots()
	registry := slots.Registry.(*memory.Registry)
	warned := open(b, mr.Config{TTLDefault: mr.NoExpiry}, slots)
	slots.Registry = unwarned{registry, registry, registry}
	plain := open(b, mr.Config{}, slots)
	const n = 1_000_000
	register(b, warned, n, func(i int) map[string]any {
		return map[string]any{"ten": i % (n / 10), "thousand": i % (n / 1000), "battery": float64(i%101) / 100, "room": "lab", "on": i%3 == 0}
	})
	for _, matches := range []int{10, 1000} {
		field := map[int]string{10: "ten", 1000: "thousand"}[matches]
		fits, unknown := fmt.Sprintf(`{%q: 7, "room": "lab"}`, field), fmt.Sprintf(`{%q: 7, "rom": {"$ne": "lab"}}`, field)
		for _, row := range []struct {
			name, filter string
			c            *mr.Coordinator
			warnings     int
		}{{"plain", fits, plain, 0}, {"fits", fits, warned, 0}, {"plain-unknown", unknown, plain, 0}, {"unknown", unknown, warned, 1}} {
			b.Run(fmt.Sprintf("enumerate/%d/%s", matches, row.name), func(b *testing.B) {
				match := parsed(b, row.filter)
				b.ReportAllocs()
				for b.Loop() {
					page, err := row.c.Enumerate(b.Context(), mr.Query{Filter: match, PageSize: 1000})
					if err != nil || page.Total != matches || len(page.Warnings) != row.warnings {
						b.Fatal(page.Total, page.Warnings, err)
					}
				}
			})
		}
		b.Run(fmt.Sprintf("explain/%d", matches), func(b *testing.B) {
			match := parsed(b, unknown)
			for b.Loop() {
				if out, err := warned.Explain(b.Context(), mr.Inquiry{Filter: match, NearMisses: 5}); err != nil || out.Matches != matches {
					b.Fatal(err)
				}
			}
		})
	}
}

func parsed(b *testing.B, source string) *filter.Expr {
	b.Helper()
	e, err := filter.Parse(source)
	if err != nil {
		b.Fatal(err)
	}
	return e
}
