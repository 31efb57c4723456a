package proxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// PENDING turns into DELIVERED when the identity comes.
func TestGetMulticast(t *testing.T) {
	b := serve(t, Config{}, durable())
	b.register("away", "here")
	b.attach("here").answer(func(*patternpb.Message) (uint32, []byte) { return 0, nil })
	sent, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{
		Payload: []byte("hello"), ContentType: "text/plain", IdempotencyKey: "k", Filter: obj(t, map[string]any{"$not": map[string]any{"room": "x"}}),
	})
	if err != nil || sent.GetDeliveredCount() != 1 || sent.GetPendingCount() != 1 {
		t.Fatal(sent, err)
	}
	get := func(which patternpb.MulticastRequest_Report) *patternpb.GetMulticastResponse {
		got, err := b.rpc.GetMulticast(b.ctx, &patternpb.GetMulticastRequest{MulticastId: sent.GetMulticastId(), Report: which})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	m := get(0).GetMulticast()
	if m.GetState() != patternpb.MulticastRecord_RETURNED || m.GetCreatedAt() == nil || m.GetPayloadBytes() != 5 || m.GetContentType() != "text/plain" ||
		m.GetIdempotencyKey() != "k" || m.GetFilter().GetFields()["room"] == nil {
		t.Errorf("record %v", m)
	}
	if r := m.GetResult(); r.GetMulticastId() != sent.GetMulticastId() || r.GetPendingCount() != 1 || r.GetDeliveredCount() != 1 || r.GetTargetCount() != 2 ||
		r.GetRevision() != sent.GetRevision() || r.GetDelivery() != patternpb.Delivery_AT_LEAST_ONCE || r.GetElapsed() == nil || r.GetStatuses() != nil {
		t.Errorf("result %v", r)
	}
	for which, want := range map[patternpb.MulticastRequest_Report]string{0: "away here", 1: "away here", 2: "away", 3: ""} {
		if got := get(which); names(got.GetStatuses()) != want || got.GetNextPageToken() != "" {
			t.Errorf("%s: %v", which, got)
		}
	}
	b.attach("away").answer(func(*patternpb.Message) (uint32, []byte) { return 9, []byte("late") })
	eventually(t, "what was stored is delivered", func() bool { return get(0).GetMulticast().GetResult().GetDeliveredCount() == 2 })
	got := get(0)
	if s := got.GetStatuses()[0]; s.GetStatus() != patternpb.DeliveryStatus_DELIVERED || s.GetEvidence() != patternpb.DeliveryStatus_ACKED || s.GetReplyCode() != 9 || string(s.GetReplyBody()) != "late" {
		t.Errorf("status %v", s)
	}
	if n := got.GetMulticast().GetResult().GetReplyCounts(); n[0] != 1 || n[9] != 1 {
		t.Errorf("counts by code %v", n)
	}
}

func TestPagesOfMulticasts(t *testing.T) {
	b := serve(t, Config{}, durable())
	b.register("a", "b/ü", "c", "d", "e")
	b.attach("c").answer(func(*patternpb.Message) (uint32, []byte) { return 0, nil })
	var sent []string
	for range 5 {
		got, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{})
		if err != nil {
			t.Fatal(err)
		}
		sent = append(sent, got.GetMulticastId())
	}
	slices.Sort(sent) // of one millisecond any may be the first
	slices.Reverse(sent)
	for size, want := range map[int32]string{0: "a b/ü d e", 1: "a|b/ü|d|e", 2: "a b/ü|d e", 3: "a b/ü d|e", 4: "a b/ü d e"} {
		var pages []string
		for token := ""; ; {
			got, err := b.rpc.GetMulticast(b.ctx, &patternpb.GetMulticastRequest{
				MulticastId: sent[0], Report: patternpb.MulticastRequest_UNDELIVERED, PageSize: size, PageToken: token,
			})
			if err != nil {
				t.Fatal(err)
			}
			pages = append(pages, names(got.GetStatuses()))
			if token = got.GetNextPageToken(); token == "" {
				break
			}
		}
		if strings.Join(pages, "|") != want {
			t.Errorf("pages of %d: %v, want %s", size, pages, want)
		}
	}
	for size, want := range map[int32]string{0: "5", 1: "1 1 1 1 1", 2: "2 2 1", 5: "5", 6: "5", 1000: "5"} {
		var pages, ids []string
		for token := ""; ; {
			got, err := b.rpc.ListMulticasts(b.ctx, &patternpb.ListMulticastsRequest{PageSize: size, PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			pages = append(pages, fmt.Sprint(len(got.GetMulticasts())))
			for _, m := range got.GetMulticasts() {
				ids = append(ids, m.GetResult().GetMulticastId())
				if r := m.GetResult(); r.GetPendingCount() != 4 || r.GetStatuses() != nil || m.GetFilter() != nil {
					t.Errorf("listed %v", m)
				}
			}
			if token = got.GetNextPageToken(); token == "" {
				break
			}
		}
		if strings.Join(pages, " ") != want || strings.Join(ids, " ") != strings.Join(sent, " ") {
			t.Errorf("pages of %d: %v with %v, want %s", size, pages, ids, want)
		}
	}
}

// A page of targets is bounded in bytes too, holds one at least, and leads to the next.
func TestTargetPages(t *testing.T) {
	body := make([]byte, multicastregistry.MaxReplyBytes)
	targets := make([]multicastregistry.Target, 2000)
	for i := range targets {
		targets[i] = multicastregistry.Target{Identity: fmt.Sprintf("dev-%06d", i), Status: multicastregistry.Delivered, Reply: multicastregistry.Reply{Body: body}}
	}
	var seen, pages int
	for after := ""; ; pages++ {
		page, next := targetPage(targets, patternpb.MulticastRequest_ALL, after, maxTargets)
		if len(page) == 0 || len(page) > pageBytes/len(body) {
			t.Fatalf("a page of %d", len(page))
		}
		seen += len(page)
		if next == "" {
			break
		}
		after, _ = readPageToken(next)
	}
	if seen != len(targets) || pages < 3 {
		t.Errorf("%d targets on %d pages", seen, pages+1)
	}
	if page, next := targetPage(targets, patternpb.MulticastRequest_UNDELIVERED, "", 1); page != nil || next != "" {
		t.Errorf("nothing undelivered: %v, %q", page, next)
	}
	if page, next := targetPage(targets, patternpb.MulticastRequest_ALL, "zzz", 1); page != nil || next != "" {
		t.Errorf("behind the last: %v, %q", page, next)
	}
	targets[1].Identity = "dev-000000a" // a token's identity need not be among the targets
	if page, _ := targetPage(targets, patternpb.MulticastRequest_ALL, "dev-000000b", 1); page[0].GetIdentity() != "dev-000002" {
		t.Errorf("got %s", page[0].GetIdentity())
	}
}

func TestCancelMulticast(t *testing.T) {
	b := serve(t, Config{}, durable())
	b.register("away")
	sent, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{})
	if err != nil || sent.GetPendingCount() != 1 {
		t.Fatal(sent, err)
	}
	for _, withdrawn := range []uint32{1, 0} {
		got, err := b.rpc.CancelMulticast(b.ctx, &patternpb.CancelMulticastRequest{MulticastId: sent.GetMulticastId()})
		m := got.GetMulticast()
		if err != nil || got.GetWithdrawnCount() != withdrawn || m.GetState() != patternpb.MulticastRecord_WITHDRAWN || m.GetResult().GetFailedCount() != 1 || m.GetResult().GetPendingCount() != 0 {
			t.Errorf("got %v, %v", got, err)
		}
	}
	got, err := b.rpc.GetMulticast(b.ctx, &patternpb.GetMulticastRequest{MulticastId: sent.GetMulticastId()})
	if err != nil || got.GetStatuses()[0].GetStatus() != patternpb.DeliveryStatus_FAILED || got.GetStatuses()[0].GetReason() != patternpb.DeliveryStatus_WITHDRAWN {
		t.Errorf("got %v, %v", got, err)
	}

	// One that is under way ends.
	b.attach("away") // acks nothing
	stream, err := b.rpc.MulticastStream(b.ctx, &patternpb.MulticastStreamRequest{Request: &patternpb.MulticastRequest{Timeout: durationpb.New(patience)}})
	if err != nil {
		t.Fatal(err)
	}
	began, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	id := began.GetBegan().GetMulticastId()
	eventually(t, "it can be cancelled", func() bool {
		running, err := b.rpc.GetMulticast(b.ctx, &patternpb.GetMulticastRequest{MulticastId: id})
		return err == nil && running.GetMulticast().GetState() == patternpb.MulticastRecord_RUNNING && running.GetMulticast().GetResult().GetElapsed() == nil
	})
	cancelled, err := b.rpc.CancelMulticast(b.ctx, &patternpb.CancelMulticastRequest{MulticastId: id})
	if err != nil || cancelled.GetMulticast().GetState() != patternpb.MulticastRecord_WITHDRAWN {
		t.Errorf("got %v, %v", cancelled, err)
	}
	for ended := (*patternpb.MulticastResponse)(nil); ended == nil; {
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if ended = r.GetEnded(); ended != nil && ended.GetEnded() != patternpb.MulticastResponse_CANCELLED {
			t.Errorf("ended %v", ended)
		}
	}
}

func TestErrorsOfMulticasts(t *testing.T) {
	b := serve(t, Config{}, durable(), fill{cfg: multicastregistry.Config{Namespace: "other"}})
	get := func(r *patternpb.GetMulticastRequest) func() error {
		return func() error { _, err := b.rpc.GetMulticast(b.ctx, r); return err }
	}
	list := func(r *patternpb.ListMulticastsRequest) func() error {
		return func() error { _, err := b.rpc.ListMulticasts(b.ctx, r); return err }
	}
	cancel := func(r *patternpb.CancelMulticastRequest) func() error {
		return func() error { _, err := b.rpc.CancelMulticast(b.ctx, r); return err }
	}
	bad := codes.InvalidArgument
	for name, row := range map[string]struct {
		call        func() error
		code        codes.Code
		field, text string
	}{
		"get elsewhere":        {get(&patternpb.GetMulticastRequest{Namespace: "nope"}), codes.NotFound, "", "nope"},
		"get where none is":    {get(&patternpb.GetMulticastRequest{Namespace: "other", MulticastId: "x"}), codes.FailedPrecondition, "", "durability slot"},
		"get an unknown one":   {get(&patternpb.GetMulticastRequest{MulticastId: "x"}), codes.NotFound, "", "x"},
		"get nothing":          {get(&patternpb.GetMulticastRequest{}), bad, "multicast_id", "id"},
		"get report":           {get(&patternpb.GetMulticastRequest{MulticastId: "x", Report: 8}), bad, "report", "COUNTS"},
		"get page size":        {get(&patternpb.GetMulticastRequest{MulticastId: "x", PageSize: 10_001}), bad, "page_size", "10000"},
		"get negative size":    {get(&patternpb.GetMulticastRequest{MulticastId: "x", PageSize: -1}), bad, "page_size", "1"},
		"get token":            {get(&patternpb.GetMulticastRequest{MulticastId: "x", PageToken: "*"}), bad, "page_token", "token"},
		"get long token":       {get(&patternpb.GetMulticastRequest{MulticastId: "x", PageToken: pageToken(strings.Repeat("x", 257))}), bad, "page_token", "token"},
		"get binary token":     {get(&patternpb.GetMulticastRequest{MulticastId: "x", PageToken: pageToken("\xff")}), bad, "page_token", "token"},
		"list elsewhere":       {list(&patternpb.ListMulticastsRequest{Namespace: "nope"}), codes.NotFound, "", "nope"},
		"list where none is":   {list(&patternpb.ListMulticastsRequest{Namespace: "other"}), codes.FailedPrecondition, "", "durability slot"},
		"list page size":       {list(&patternpb.ListMulticastsRequest{PageSize: 1001}), bad, "page_size", "1000"},
		"list token":           {list(&patternpb.ListMulticastsRequest{PageToken: pageToken("a")}), bad, "page_token", "token"},
		"cancel elsewhere":     {cancel(&patternpb.CancelMulticastRequest{Namespace: "nope"}), codes.NotFound, "", "nope"},
		"cancel where none is": {cancel(&patternpb.CancelMulticastRequest{Namespace: "other", MulticastId: "x"}), codes.FailedPrecondition, "", "durability slot"},
		"cancel an unknown":    {cancel(&patternpb.CancelMulticastRequest{MulticastId: "x"}), codes.NotFound, "", "x"},
		"cancel nothing":       {cancel(&patternpb.CancelMulticastRequest{}), bad, "multicast_id", "id"},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, row.call(), row.code, row.field, row.text) })
	}
}

func TestRecordOfABrokenFilter(t *testing.T) {
	if got, err := new(entered).record(&multicastregistry.MulticastRecord{Filter: `[1]`}); err == nil || !strings.Contains(err.Error(), "filter [1]") {
		t.Errorf("got %v, %v", got, err)
	}
}
