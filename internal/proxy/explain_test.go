package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	registerRooms(t, b, 20)
	got, err := b.rpc.Explain(b.ctx, &patternpb.ExplainRequest{Filter: obj(t, map[string]any{
		"room": "lab", "at.floor": map[string]any{"$gt": 1}, "nn": map[string]any{"$lt": 5},
	})})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, c := range got.GetClauses() {
		lines = append(lines, strings.Join(strings.Fields(fmt.Sprintln(c.GetPointer(), c.GetFilter(), c.GetDepth(), c.GetMatchCount(),
			c.GetField(), c.GetPresentCount(), c.GetTypes(), c.GetDistinctCount())), " "))
	}
	want := []string{
		`{"at.floor":{"$gt":1},"nn":{"$lt":5},"room":"lab"} 0 0 0 map[] 0`,
		`/at.floor/$gt {"at.floor":{"$gt":1}} 1 0 at.floor 20 map[number:20] 2`,
		`/nn/$lt {"nn":{"$lt":5}} 1 0 nn 0 map[] 0`, `/room {"room":"lab"} 1 5 room 16 map[string:16] 3`,
	}
	if !slices.Equal(lines, want) {
		t.Errorf("clauses\n%s, want\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if got.GetFilter() != `{"at.floor":{"$gt":1},"nn":{"$lt":5},"room":"lab"}` || got.GetIdentityCount() != 20 || got.GetMatchCount() != 0 ||
		got.GetSource() != patternpb.ExplainResponse_INDEX || got.GetElapsed().AsDuration() <= 0 || got.GetRevision() != 20 {
		t.Errorf("%v", got)
	}
	if w := got.GetWarnings(); len(w) != 1 || w[0].GetKind() != patternpb.FilterWarning_UNKNOWN_FIELD || w[0].GetField() != "nn" ||
		w[0].GetPointer() != "/nn/$lt" || len(w[0].GetSuggestions()) != 0 || w[0].GetMessage() == "" {
		t.Errorf("warnings: %v", w)
	}
	near := got.GetNearMisses()
	if len(near) != 5 || near[0].GetIdentity().GetIdentity() != "id-03" || !slices.Equal(near[0].GetFailedClauses(), []uint32{1, 2}) ||
		near[0].GetIdentity().GetMetadata().AsMap()["room"] != "lab" || near[0].GetIdentity().GetTtl() == nil {
		t.Errorf("near misses: %v", near)
	}
	none, err := b.rpc.Explain(b.ctx, &patternpb.ExplainRequest{NearMisses: proto.Uint32(0)})
	if err != nil || none.GetFilter() != "{}" || none.GetMatchCount() != 20 || len(none.GetClauses()) != 0 {
		t.Errorf("without a filter: %v, %v", none, err)
	}
	resp, body := b.do("POST", "/v1/namespaces/default/identities:explain", `{"filter":{"rom":"lab","n":3},"near_misses":1}`)
	body = strings.ReplaceAll(body, " ", "")
	for _, part := range []string{
		`"match_count":"0"`, `"kind":"UNKNOWN_FIELD"`, `"suggestions":["room"]`, `"pointer":"/rom"`, `"failed_clauses":[2]`, `"identity":"id-03"`,
		`"types":{"number":"20"}`, `"source":"INDEX"`,
	} {
		if resp.StatusCode != http.StatusOK || !strings.Contains(body, part) {
			t.Errorf("HTTP: %d, %s lacks %s", resp.StatusCode, body, part)
		}
	}
}

func TestExplainRefused(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	for field, req := range map[string]*patternpb.ExplainRequest{
		"near_misses":  {NearMisses: proto.Uint32(101)},
		"filter/a/$lk": {Filter: obj(t, map[string]any{"a": map[string]any{"$lk": 1}})},
		"consistency":  {Consistency: 9},
	} {
		_, err := b.rpc.Explain(b.ctx, req)
		wantError(t, err, codes.InvalidArgument, field, "")
	}
	_, err := b.rpc.Explain(b.ctx, &patternpb.ExplainRequest{Namespace: "nope"})
	wantError(t, err, codes.NotFound, "", "nope")
	_, err = b.rpc.Explain(b.ctx, &patternpb.ExplainRequest{MinRevision: 1 << 40})
	wantError(t, err, codes.Unavailable, "", "revision")
}

// TestExplainFits has a filter whose conditions repeat a megabyte several times: the answer leaves out what is too much.
func TestExplainFits(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	b.register("a")
	filter := map[string]any{}
	for i := range 200 {
		filter["$nin"] = append(anyList(filter["$nin"]), strings.Repeat("x", 4000)+fmt.Sprint(i))
	}
	nested := map[string]any{"v": filter}
	for range 4 {
		nested = map[string]any{"$not": nested}
	}
	got, err := b.rpc.Explain(b.ctx, &patternpb.ExplainRequest{Filter: obj(t, nested)})
	if err != nil {
		t.Fatal(err)
	}
	texts := 0
	for _, c := range got.GetClauses() {
		texts += len(c.GetFilter())
	}
	if len(got.GetClauses()) != 5 || texts > maxClauseBytes || texts < 800_000 || got.GetMatchCount() != 1 || proto.Size(got) > 4<<20 {
		t.Errorf("%d clauses of %d bytes", len(got.GetClauses()), texts)
	}
}

func anyList(v any) []any {
	list, _ := v.([]any)
	return list
}

// TestWarningsOnTheWire tells which responses have warnings.
func TestWarningsOnTheWire(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	registerRooms(t, b, 3)
	odd := obj(t, map[string]any{"n": map[string]any{"$gte": 0}, "rooms": map[string]any{"$ne": "x"}})
	check := func(what string, warnings []*patternpb.FilterWarning, want int) {
		t.Helper()
		if len(warnings) != want || want > 0 && (warnings[0].GetField() != "rooms" || !slices.Equal(warnings[0].GetSuggestions(), []string{"room"})) {
			t.Errorf("%s: %v", what, warnings)
		}
	}
	first, err := b.rpc.Enumerate(b.ctx, &patternpb.EnumerateRequest{Filter: odd, PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	check("first page", first.GetWarnings(), 1)
	second, err := b.rpc.Enumerate(b.ctx, &patternpb.EnumerateRequest{Filter: odd, PageSize: 1, PageToken: first.GetNextPageToken()})
	if err != nil || second.GetNextPageToken() == "" {
		t.Fatal(second, err)
	}
	check("second page", second.GetWarnings(), 0)
	pages, err := b.rpc.EnumerateStream(b.ctx, &patternpb.EnumerateStreamRequest{Request: &patternpb.EnumerateRequest{Filter: odd, PageSize: 1}})
	for want := 1; err == nil; want = 0 {
		var part *patternpb.EnumerateStreamResponse
		if part, err = pages.Recv(); err == nil {
			check("a page of a stream", part.GetPage().GetWarnings(), want)
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	for _, dry := range []bool{false, true} {
		req := &patternpb.MulticastRequest{Filter: odd, Delivery: patternpb.Delivery_AT_MOST_ONCE, DryRun: dry}
		result, err := b.rpc.Multicast(b.ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		check("multicast", result.GetWarnings(), 1)
		steps, err := b.rpc.MulticastStream(b.ctx, &patternpb.MulticastStreamRequest{Request: req})
		var last *patternpb.MulticastStreamResponse
		for err == nil {
			var step *patternpb.MulticastStreamResponse
			if step, err = steps.Recv(); err == nil {
				last = step
			}
		}
		check("the end of a multicast's stream", last.GetEnded().GetWarnings(), 1)
	}
}

// TestExplainNumbers holds the enums of the wire together with those below.
func TestExplainNumbers(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		patternpb.ExplainResponse_Source(multicastregistry.SourceIndex).String():                       "INDEX",
		patternpb.ExplainResponse_Source(multicastregistry.SourceNative).String():                      "NATIVE",
		patternpb.ExplainResponse_Source(multicastregistry.SourceScan).String():                        "SCAN",
		patternpb.FilterWarning_Kind(multicastregistry.UnknownField).String():                          "UNKNOWN_FIELD",
		patternpb.FilterWarning_Kind(multicastregistry.TypeMismatch).String():                          "TYPE_MISMATCH",
		fmt.Sprint(len(patternpb.ExplainResponse_Source_name), len(patternpb.FilterWarning_Kind_name)): "4 3",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
