package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// TestIdentityOnTheWire compares what is written by hand with what the generated code writes and reads.
func TestIdentityOnTheWire(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 70_000)
	metadata := obj(t, map[string]any{"room": "lab", "list": []any{1, nil, "é"}, "long": long})
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(metadata)
	if err != nil {
		t.Fatal(err)
	}
	for name, i := range map[string]multicastregistry.Identity{
		"least": {ID: "a", TTL: multicastregistry.NoExpiry},
		"all": {
			ID: "é" + long[:200], Encoded: string(raw), TTL: 90*time.Second + time.Millisecond, RegisteredAt: time.Unix(1, 5),
			ExpiresAt: time.Unix(1_800_000_000, 0), Revision: 1 << 40,
		},
		"before the epoch": {ID: "a", TTL: time.Millisecond, RegisteredAt: time.Unix(-5, 999), ExpiresAt: time.Unix(0, 1)},
	} {
		want := identity(i, nil)
		if i.Encoded != "" {
			want.Metadata = metadata
		}
		var got patternpb.Identity
		if err := proto.Unmarshal(appendIdentity(nil, &i, i.Encoded != ""), &got); err != nil || !proto.Equal(&got, want) {
			t.Errorf("%s: %v, want %v: %v", name, &got, want, err)
		}
		page, err := shownPage(&patternpb.EnumerateRequest{}, &multicastregistry.Page{Identities: []multicastregistry.Identity{i, i}})
		if err != nil {
			t.Fatal(err)
		}
		sent, err := proto.Marshal(page)
		if err != nil {
			t.Fatal(err)
		}
		var received patternpb.EnumerateResponse
		if err := proto.Unmarshal(sent, &received); err != nil || len(received.GetIdentities()) != 2 || received.GetIdentities()[1].GetIdentity() != i.ID {
			t.Errorf("%s: a page becomes %d identities: %v", name, len(received.GetIdentities()), err)
		}
	}
}

func registerRooms(t *testing.T, b *bench, n int) {
	t.Helper()
	for i := range n {
		req := &patternpb.RegisterRequest{Identity: fmt.Sprintf("id-%02d", i), Metadata: obj(t, map[string]any{
			"room": []string{"lab", "hall", "attic"}[i%3], "n": i, "at": map[string]any{"floor": i / 10}, "tags": []any{"all", fmt.Sprint("t", i%2)},
		})}
		if i%5 == 0 {
			delete(req.GetMetadata().GetFields(), "room")
		}
		if _, err := b.rpc.Register(b.ctx, req); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEnumerateSortedAndCounted(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	registerRooms(t, b, 20)
	var all []string
	req := &patternpb.EnumerateRequest{SortBy: []string{"at.floor", "room", "-n"}, PageSize: 3, CountBy: []string{"room", "tags"}, Fields: []string{"at.floor", "absent"}}
	for {
		page, err := b.rpc.Enumerate(b.ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range page.GetIdentities() {
			all = append(all, i.GetIdentity())
			if fields := i.GetMetadata().AsMap(); len(fields) != 1 || fmt.Sprint(fields["at"]) == "" {
				t.Errorf("fields of %s: %v", i.GetIdentity(), fields)
			}
		}
		rooms := page.GetCounts()[0]
		if first := rooms.GetGroups()[0]; first.GetValue().GetStringValue() != "hall" || first.GetCount() != 6 || rooms.GetMissingCount() != 4 {
			t.Errorf("counts by room: %v", page.GetCounts()[0])
		}
		if got := page.GetCounts()[1]; got.GetField() != "tags" || got.GetGroups()[0].GetCount() != 20 || got.GetGroups()[1].GetCount() != 10 {
			t.Errorf("counts by tags: %v", got)
		}
		if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
			break
		}
	}
	want := strings.Fields("id-08 id-02 id-07 id-04 id-01 id-09 id-06 id-03 id-05 id-00 id-17 id-14 id-11 id-19 id-16 id-13 id-18 id-12 id-15 id-10")
	if !slices.Equal(all, want) {
		t.Errorf("sorted %v, want %v", all, want)
	}
	counted, err := b.rpc.Enumerate(b.ctx, &patternpb.EnumerateRequest{CountOnly: true, CountBy: []string{"n"}, MaxGroups: 2})
	if err != nil || len(counted.GetIdentities()) > 0 || counted.GetTotalCount() != 20 || counted.GetNextPageToken() != "" ||
		len(counted.GetCounts()[0].GetGroups()) != 2 || counted.GetCounts()[0].GetOmittedGroups() != 18 {
		t.Errorf("counts only: %v, %v", counted, err)
	}
	strong, err := b.rpc.Enumerate(b.ctx, &patternpb.EnumerateRequest{Consistency: patternpb.Recency_STRONG, MinRevision: counted.GetRevision()})
	if err != nil || strong.GetRevision() < counted.GetRevision() {
		t.Errorf("strong: %v, %v", strong, err)
	}
}

func TestEnumerateStream(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	registerRooms(t, b, 20)
	for size, wantPages := range map[int32]int{0: 1, 3: 7, 20: 1} {
		stream, err := b.rpc.EnumerateStream(b.ctx, &patternpb.EnumerateStreamRequest{Request: &patternpb.EnumerateRequest{PageSize: size, CountBy: []string{"room"}}})
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		pages := 0
		for {
			part, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if counts := len(part.GetPage().GetCounts()); counts != 1 && pages == 0 || counts != 0 && pages > 0 {
				t.Errorf("page %d has %d counts", pages, counts)
			}
			pages++
			for _, i := range part.GetPage().GetIdentities() {
				all = append(all, i.GetIdentity())
			}
		}
		if len(all) != 20 || pages != wantPages || !slices.IsSorted(all) {
			t.Errorf("by %d: %d identities in %d pages", size, len(all), pages)
		}
	}
	got, body := b.do("POST", "/v1/namespaces/default/identities:enumerateStream", `{"filter":{"n":{"$gte":18}},"page_size":1}`)
	if got.StatusCode != http.StatusOK || strings.Count(body, "\n") != 2 || !strings.Contains(body, `"id-19"`) {
		t.Errorf("%+v %s", got, body)
	}
}

func TestEnumerateRefused(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	for field, req := range map[string]*patternpb.EnumerateRequest{
		"sort_by":      {SortBy: []string{"a..b"}},
		"count_by":     {CountBy: []string{""}},
		"fields":       {Fields: make([]string, 1)},
		"max_groups":   {MaxGroups: 1001},
		"consistency":  {Consistency: 9},
		"min_revision": {MinRevision: 1 << 40},
	} {
		_, err := b.rpc.Enumerate(b.ctx, req)
		if want := map[bool]codes.Code{true: codes.Unavailable, false: codes.InvalidArgument}[field == "min_revision"]; status.Code(err) != want || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	many := &patternpb.EnumerateRequest{SortBy: strings.Split(strings.Repeat("a,", 16)+"a", ",")}
	if _, err := b.rpc.Enumerate(b.ctx, many); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
	stream, err := b.rpc.EnumerateStream(b.ctx, &patternpb.EnumerateStreamRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
}
