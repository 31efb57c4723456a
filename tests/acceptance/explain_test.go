package acceptance

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/testenv"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

// plainExplanation is all that servers agree about.
func plainExplanation(e *client.Explanation) string {
	out := *e
	out.Source, out.Elapsed, out.NearMisses = 0, 0, nil
	text := fmt.Sprintf("%+v", out)
	for _, miss := range e.NearMisses {
		i := miss.Identity
		text += fmt.Sprintf("\n%q %v %s %s %s %d %v", i.ID, i.Metadata(), i.TTL, i.RegisteredAt, i.ExpiresAt, i.Revision, miss.Failed)
	}
	return text
}

// TestExplainAgrees explains random filters over the same identities in Redis by servers that answer in different ways: all say
// the same, and each says how it answers.
func TestExplainAgrees(t *testing.T) {
	t.Parallel()
	c := combination{name: "redis+redis"}
	namespace := testenv.Prefix(t)
	ways := []struct {
		name   string
		more   []string
		source client.Source
		proxy  *proxy
	}{
		{name: "replica", source: client.SourceIndex},
		{name: "native", more: []string{"enumerate: native"}, source: client.SourceNative},
		{name: "scan", more: []string{"enumerate: scan"}, source: client.SourceScan},
		{name: "too large a replica", more: []string{"replica_max_bytes: 1KiB"}, source: client.SourceNative},
	}
	for i := range ways {
		ways[i].proxy = c.serveAs(t, namespace, c.altered(t, with("registry", ways[i].more...)))
	}
	rng := rand.New(rand.NewPCG(11, 12))
	for registered := 0; registered < 60; {
		r := client.Registration{ID: fmt.Sprintf("dev-%02d", registered), Metadata: slottest.RandomMetadata(rng)}
		_, err := ways[0].proxy.Register(t.Context(), r)
		if errors.Is(err, client.ErrInvalid) {
			continue // an integer that cannot travel
		}
		must(t, err)
		registered++
	}
	for range 1024 { // changes are how often the size is looked at
		_, err := ways[0].proxy.Heartbeat(t.Context(), "dev-00", 0)
		must(t, err)
	}
	eventually(t, "the replica that is too large is given up", func() bool {
		e, err := ways[3].proxy.Explain(t.Context(), client.ExplainRequest{})
		return err == nil && e.Source == client.SourceNative
	})
	suspicious, nearly := 0, 0
	for explained := 0; explained < 150; {
		match, err := client.ParseFilter(slottest.RandomFilter(rng))
		must(t, err)
		request := client.ExplainRequest{Filter: match, NearMisses: 1 + rng.IntN(20), Consistency: client.Strong}
		want, err := ways[0].proxy.Explain(t.Context(), request)
		if errors.Is(err, client.ErrInvalid) {
			continue
		}
		must(t, err)
		explained++
		suspicious, nearly = suspicious+len(want.Warnings), nearly+len(want.NearMisses)
		for _, way := range ways {
			got, err := way.proxy.Explain(t.Context(), request)
			must(t, err)
			if got.Source != way.source {
				t.Errorf("%s says that %d answers", way.name, got.Source)
			}
			if g, w := plainExplanation(got), plainExplanation(want); g != w {
				t.Fatalf("%s: %s explains\n%s, and %s\n%s", want.Filter, way.name, g, ways[0].name, w)
			}
		}
		page, err := ways[0].proxy.Enumerate(t.Context(), client.Query{Filter: match, CountOnly: true})
		must(t, err)
		if page.Total != want.Matches || !reflect.DeepEqual(page.Warnings, want.Warnings) {
			t.Errorf("%s: Enumerate counts %d and warns of %v", want.Filter, page.Total, page.Warnings)
		}
	}
	if suspicious < 50 || nearly < 50 {
		t.Errorf("%d warnings and %d near misses: too few to tell anything", suspicious, nearly)
	}
}
