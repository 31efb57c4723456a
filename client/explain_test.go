package client_test

import (
	"reflect"
	"testing"

	"github.com/prism-data-layer/prism/client"
)

func TestExplain(t *testing.T) {
	c, ctx := newClient(t), withPatience(t)
	for id, battery := range map[string]any{"dev-1": 0.1, "dev-2": 0.5, "dev-3": "full"} {
		if _, err := c.Register(ctx, client.Registration{ID: id, Metadata: map[string]any{"battery": battery, "room": "lab"}}); err != nil {
			t.Fatal(err)
		}
	}
	match := map[string]any{"battery.lt": 0.05, "room": "lab", "rom": map[string]any{"$exists": false}}
	got, err := c.Explain(ctx, client.ExplainRequest{Filter: match, NearMisses: 2, Consistency: client.Strong})
	if err != nil {
		t.Fatal(err)
	}
	clauses := []client.Clause{
		{Filter: `{"battery":{"$lt":0.05},"rom":{"$exists":false},"room":"lab"}`, Types: map[string]int{}},
		{
			Pointer: "/battery.lt", Filter: `{"battery":{"$lt":0.05}}`, Depth: 1, Field: "battery", Present: 3, Distinct: 3,
			Types: map[string]int{"number": 2, "string": 1},
		},
		{Pointer: "/rom/$exists", Filter: `{"rom":{"$exists":false}}`, Depth: 1, Matches: 3, Field: "rom", Types: map[string]int{}},
		{Pointer: "/room", Filter: `{"room":"lab"}`, Depth: 1, Matches: 3, Field: "room", Present: 3, Distinct: 1, Types: map[string]int{"string": 3}},
	}
	if !reflect.DeepEqual(got.Clauses, clauses) || got.Filter != clauses[0].Filter {
		t.Errorf("%s: clauses %+v", got.Filter, got.Clauses)
	}
	if got.Identities != 3 || got.Matches != 0 || got.Source != client.SourceIndex || got.Elapsed <= 0 || got.Revision != 3 {
		t.Errorf("%+v", got)
	}
	warnings := []client.Warning{{
		Kind: client.UnknownField, Field: "rom", Pointer: "/rom/$exists", Suggestions: []string{"room"},
		Message: `no identity has the field "rom"; did you mean "room"?`,
	}}
	if !reflect.DeepEqual(got.Warnings, warnings) {
		t.Errorf("warnings %+v", got.Warnings)
	}
	if len(got.NearMisses) != 2 || !reflect.DeepEqual(got.NearMisses[0].Failed, []int{1}) || got.NearMisses[1].Identity.ID != "dev-2" {
		t.Errorf("near misses %+v", got.NearMisses)
	} else if battery, ok := got.NearMisses[1].Identity.Lookup("battery"); !ok || battery != 0.5 {
		t.Errorf("its battery is %v", battery)
	}
	for most, want := range map[int]int{-1: 0, 0: 3, 1: 1, 100: 3} {
		if got, err := c.Explain(ctx, client.ExplainRequest{Filter: match, NearMisses: most}); err != nil || len(got.NearMisses) != want {
			t.Errorf("at most %d: %+v, %v", most, got, err)
		}
	}
	page, err := c.Enumerate(ctx, client.Query{Filter: match})
	if err != nil || !reflect.DeepEqual(page.Warnings, warnings) {
		t.Errorf("enumerate: %+v, %v", page.Warnings, err)
	}
	for page, err := range c.Pages(ctx, client.Query{Filter: match}) {
		if err != nil || !reflect.DeepEqual(page.Warnings, warnings) {
			t.Errorf("pages: %+v, %v", page.Warnings, err)
		}
	}
	result, err := c.Multicast(ctx, client.MulticastRequest{Filter: match, DryRun: true})
	if err != nil || !reflect.DeepEqual(result.Warnings, warnings) {
		t.Errorf("multicast: %+v, %v", result, err)
	}
	for field, r := range map[string]client.ExplainRequest{
		"near_misses": {NearMisses: 101}, "consistency": {Consistency: 7}, "filter/a/b": {Filter: map[string]any{"a": map[string]any{"b": 1}}},
		"filter/a": {Filter: map[string]any{"a": make(chan int)}},
	} {
		if _, err := c.Explain(ctx, r); !isInvalid(err, field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}
