package proxy

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/schema"
)

// TestSchema completes and checks metadata, and refuses fields that a strict schema does not describe.
func TestSchema(t *testing.T) {
	t.Parallel()
	s, err := schema.New(schema.Config{Strict: true, Fields: map[string]schema.Field{
		"room": {Type: schema.String, Required: true}, "floor": {Type: schema.Integer, Default: int64(2)},
		"joined": {Type: schema.Timestamp, Auto: schema.AutoNow},
	}})
	if err != nil {
		t.Fatal(err)
	}
	b := serve(t, Config{}, fill{schema: s})
	register := func(metadata map[string]any) (*patternpb.RegisterResponse, error) {
		m, err := structpb.NewStruct(metadata)
		if err != nil {
			t.Fatal(err)
		}
		return b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Identity: "a", Metadata: m})
	}
	got, err := register(map[string]any{"room": "lab"})
	if err != nil {
		t.Fatal(err)
	}
	shown := got.GetIdentity().GetMetadata().AsMap()
	page, err := b.rpc.Enumerate(b.ctx, &patternpb.EnumerateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	stored := page.GetIdentities()[0].GetMetadata().AsMap()
	joined, err := time.Parse(time.RFC3339Nano, stored["joined"].(string))
	if err != nil || time.Since(joined) > patience || stored["floor"] != 2.0 || shown["joined"] != stored["joined"] || len(shown) != 3 {
		t.Errorf("stored %v, shown %v, %v", stored, shown, err)
	}
	_, err = register(nil)
	wantError(t, err, codes.InvalidArgument, "metadata", "room")
	_, err = register(map[string]any{"room": 5})
	wantError(t, err, codes.InvalidArgument, "metadata/room", "string")
	_, err = register(map[string]any{"room": "lab", "rom": "lab"})
	wantError(t, err, codes.InvalidArgument, "metadata", "'rom' not allowed")

	filter, err := structpb.NewStruct(map[string]any{"rom": "lab"})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		field string
		req   *patternpb.EnumerateRequest
	}{
		{"filter/rom", &patternpb.EnumerateRequest{Filter: filter}},
		{"sort_by", &patternpb.EnumerateRequest{SortBy: []string{"-rom"}}},
		{"count_by", &patternpb.EnumerateRequest{CountBy: []string{"rom"}}},
		{"fields", &patternpb.EnumerateRequest{Fields: []string{"rom"}}},
	} {
		_, err := b.rpc.Enumerate(b.ctx, row.req)
		wantError(t, err, codes.InvalidArgument, row.field, "identity_schema")
	}
	_, err = b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Filter: filter})
	wantError(t, err, codes.InvalidArgument, "filter/rom", "identity_schema")
	if _, err := b.rpc.Explain(b.ctx, &patternpb.ExplainRequest{Filter: filter}); err == nil || !strings.Contains(err.Error(), "identity_schema") {
		t.Errorf("explain: %v", err)
	}
}
