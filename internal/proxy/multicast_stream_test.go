package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// stepsOf reads a whole MulticastStream and checks its order.
func (b *bench) stepsOf(req *patternpb.MulticastRequest) (began *patternpb.MulticastBegan, statuses []*patternpb.DeliveryStatus, ended *patternpb.MulticastResponse) {
	b.t.Helper()
	stream, err := b.rpc.MulticastStream(b.ctx, &patternpb.MulticastStreamRequest{Request: req})
	if err != nil {
		b.t.Fatal(err)
	}
	for first := true; ; first = false {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || ended != nil || r.GetBegan() != nil && !first {
			b.t.Fatalf("got %v, %v", r, err)
		}
		if r.GetBegan() != nil {
			began = r.GetBegan()
		}
		if s := r.GetStatuses(); s != nil && (len(s.GetStatuses()) == 0 || len(s.GetStatuses()) > frameStatuses) {
			b.t.Errorf("a frame of %d statuses", len(s.GetStatuses()))
		}
		statuses = append(statuses, r.GetStatuses().GetStatuses()...)
		ended = r.GetEnded()
	}
	if ended == nil || len(ended.GetStatuses()) > 0 {
		b.t.Fatalf("the summary is %v", ended)
	}
	return began, statuses, ended
}

func names(statuses []*patternpb.DeliveryStatus) string {
	var out []string
	for _, s := range statuses {
		out = append(out, s.GetIdentity())
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestMulticastStream(t *testing.T) {
	b := serve(t, Config{})
	b.register("a", "b", "c")
	b.attach("b").answer(func(*patternpb.Message) (uint32, []byte) { return 2, []byte("hi") })
	for which, want := range map[patternpb.MulticastRequest_Report]string{
		patternpb.MulticastRequest_REPORT_UNSPECIFIED: "a b c", patternpb.MulticastRequest_ALL: "a b c",
		patternpb.MulticastRequest_UNDELIVERED: "a c", patternpb.MulticastRequest_COUNTS: "",
	} {
		began, statuses, ended := b.stepsOf(&patternpb.MulticastRequest{Payload: []byte("x"), Report: which})
		if began.GetMulticastId() == "" || began.GetMulticastId() != ended.GetMulticastId() || began.GetTargetCount() != 3 || began.GetRevision() == 0 {
			t.Errorf("%s: began %v, ended %v", which, began, ended)
		}
		if names(statuses) != want || ended.GetDeliveredCount() != 1 || ended.GetFailedCount() != 2 || ended.GetEnded() != patternpb.MulticastResponse_COMPLETE || ended.GetReplyCounts()[2] != 1 {
			t.Errorf("%s: %v, ended %v", which, statuses, ended)
		}
		for _, s := range statuses {
			if s.GetIdentity() == "b" && (s.GetStatus() != patternpb.DeliveryStatus_DELIVERED || string(s.GetReplyBody()) != "hi") ||
				s.GetIdentity() != "b" && s.GetStatus() != patternpb.DeliveryStatus_FAILED {
				t.Errorf("%s: %v", which, s)
			}
		}
	}
	began, statuses, ended := b.stepsOf(&patternpb.MulticastRequest{DryRun: true})
	if began.GetTargetCount() != 3 || began.GetMulticastId() != "" || names(statuses) != "a b c" || statuses[0].GetStatus() != 0 || ended.GetEnded() != patternpb.MulticastResponse_DRY_RUN {
		t.Errorf("dry run: %v, %v, %v", began, statuses, ended)
	}
	began, statuses, ended = b.stepsOf(&patternpb.MulticastRequest{Namespace: "other"})
	if began.GetTargetCount() != 0 || began.GetMulticastId() == "" || len(statuses) != 0 || ended.GetEnded() != patternpb.MulticastResponse_COMPLETE {
		t.Errorf("to nobody: %v, %v, %v", began, statuses, ended)
	}
}

// What is wrong with the request is the error of the stream, before any step.
func TestErrorsOfMulticastStreams(t *testing.T) {
	b := serve(t, Config{})
	b.register("a", "b")
	for name, row := range map[string]struct {
		req         *patternpb.MulticastRequest
		code        codes.Code
		field, text string
	}{
		"nothing":      {nil, codes.InvalidArgument, "request", "multicast"},
		"elsewhere":    {&patternpb.MulticastRequest{Namespace: "nope"}, codes.NotFound, "", "nope"},
		"filter":       {&patternpb.MulticastRequest{Filter: obj(t, map[string]any{"$or": 1})}, codes.InvalidArgument, "filter/$or", ""},
		"report":       {&patternpb.MulticastRequest{Report: 9}, codes.InvalidArgument, "report", "COUNTS"},
		"too many":     {&patternpb.MulticastRequest{MaxTargets: 1}, codes.ResourceExhausted, "", "2 identities match"},
		"key":          {&patternpb.MulticastRequest{IdempotencyKey: "k"}, codes.FailedPrecondition, "", "durability slot"},
		"content type": {&patternpb.MulticastRequest{ContentType: "\n"}, codes.InvalidArgument, "content_type", "ASCII"},
	} {
		stream, err := b.rpc.MulticastStream(b.ctx, &patternpb.MulticastStreamRequest{Request: row.req})
		if err != nil {
			t.Fatal(err)
		}
		step, err := stream.Recv()
		if step != nil {
			t.Errorf("%s: a step before the error: %v", name, step)
		}
		t.Run(name, func(t *testing.T) { wantError(t, err, row.code, row.field, row.text) })
	}
}

// Frames stay far below gRPC's limit, whatever the replies; each target comes once.
func TestLargeMulticastStream(t *testing.T) {
	b := serve(t, Config{})
	ids, c := b.many(2500)
	body := make([]byte, multicastregistry.MaxReplyBytes)
	c.answer(func(*patternpb.Message) (uint32, []byte) { return 0, body })
	_, statuses, ended := b.stepsOf(&patternpb.MulticastRequest{Timeout: durationpb.New(patience)})
	if ended.GetDeliveredCount() != 2500 || names(statuses) != strings.Join(ids, " ") {
		t.Errorf("%d statuses, ended %v", len(statuses), ended)
	}
}

// A client that does not read holds up nothing but itself: the multicast ends in time and its outcomes wait for the client.
func TestMulticastStreamUnread(t *testing.T) {
	b := serve(t, Config{}, durable())
	ids, c := b.many(2500)
	body := make([]byte, multicastregistry.MaxReplyBytes) // 10 MB in all, more than the connection takes
	c.answer(func(*patternpb.Message) (uint32, []byte) { return 0, body })
	stream, err := b.rpc.MulticastStream(b.ctx, &patternpb.MulticastStreamRequest{Request: &patternpb.MulticastRequest{Timeout: durationpb.New(patience)}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the multicast returns", func() bool {
		list, err := b.rpc.ListMulticasts(b.ctx, &patternpb.ListMulticastsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		m := list.GetMulticasts()
		return len(m) == 1 && m[0].GetState() == patternpb.MulticastRecord_RETURNED && m[0].GetResult().GetDeliveredCount() == 2500
	})
	var statuses []*patternpb.DeliveryStatus
	for {
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		statuses = append(statuses, r.GetStatuses().GetStatuses()...)
		if r.GetEnded() != nil {
			break
		}
	}
	if names(statuses) != strings.Join(ids, " ") {
		t.Errorf("%d statuses", len(statuses))
	}
}

// A client that leaves ends its multicast.
func TestMulticastStreamLeft(t *testing.T) {
	b := serve(t, Config{}, durable())
	b.register("a")
	b.attach("a") // acks nothing
	ctx, leave := context.WithCancel(b.ctx)
	stream, err := b.rpc.MulticastStream(ctx, &patternpb.MulticastStreamRequest{Request: &patternpb.MulticastRequest{Timeout: durationpb.New(patience)}})
	if err != nil {
		t.Fatal(err)
	}
	began, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	leave()
	eventually(t, "the call ends", func() bool {
		b.drain.mu.Lock()
		defer b.drain.mu.Unlock()
		return b.drain.calls == 0
	})
	got, err := b.rpc.GetMulticast(b.ctx, &patternpb.GetMulticastRequest{MulticastId: began.GetBegan().GetMulticastId()})
	if err != nil || got.GetMulticast().GetResult().GetEnded() != patternpb.MulticastResponse_CANCELLED {
		t.Errorf("got %v, %v", got, err)
	}
}

// A result that is replayed has no beginning, and all of its targets.
func TestMulticastStreamReplayed(t *testing.T) {
	b := serve(t, Config{}, durable())
	b.register("a", "b")
	b.attach("a").answer(func(*patternpb.Message) (uint32, []byte) { return 0, nil })
	req := &patternpb.MulticastRequest{IdempotencyKey: "k"}
	began, first, _ := b.stepsOf(req)
	again, second, ended := b.stepsOf(req)
	if began == nil || again != nil || !ended.GetReplayed() || ended.GetMulticastId() != began.GetMulticastId() {
		t.Errorf("began %v, then %v, ended %v", began, again, ended)
	}
	if names(first) != "a b" || names(second) != "a b" {
		t.Errorf("first %v, then %v", first, second)
	}
}

// A multicast stream is a call in flight: a server that leaves waits for it, and delivers acks to it.
func TestDrainWaitsForMulticastStreams(t *testing.T) {
	b := serve(t, Config{})
	b.register("a")
	c := b.attach("a")
	stream, err := b.rpc.MulticastStream(b.ctx, &patternpb.MulticastStreamRequest{Request: &patternpb.MulticastRequest{Timeout: durationpb.New(patience)}})
	if err != nil {
		t.Fatal(err)
	}
	batch := c.recv().GetMessages()
	drained := b.drainSoon(patience)
	if c.recv().GetClosing() == nil {
		t.Error("the subscriber is not told")
	}
	select {
	case err := <-drained:
		t.Fatalf("drained with a multicast in flight: %v", err)
	default:
	}
	c.ack(batch)
	var last *patternpb.MulticastStreamResponse
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		last = r
	}
	if last.GetEnded().GetDeliveredCount() != 1 {
		t.Errorf("the last step is %v", last)
	}
	if err := <-drained; err != nil {
		t.Errorf("drain: %v", err)
	}
	wantError(t, c.end(), codes.Unavailable, "", "")
}

// A client with a panic behind it gets an error, and everybody else goes on.
func TestMulticastStreamOverBrokenRegistry(t *testing.T) {
	for what, fail := range map[string]func(context.Context) error{
		"panic": func(context.Context) error { panic("hunter2") },
		"error": func(context.Context) error { return errSecret },
	} {
		b := serve(t, Config{}, fill{registry: &brokenRegistry{fail: fail}})
		stream, err := b.rpc.MulticastStream(b.ctx, &patternpb.MulticastStreamRequest{Request: &patternpb.MulticastRequest{}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		wantError(t, err, codes.Internal, "", "request id")
		if strings.Contains(fmt.Sprint(err), "hunter2") {
			t.Errorf("%s: the caller sees %v", what, err)
		}
	}
}
