package proxy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/patterns/memory"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// durable is a namespace whose multicasts are kept.
func durable() fill { return fill{durability: memory.NewDurability(memory.DurabilityConfig{})} }

// answer acks everything that a stream brings, with the reply that say returns, until the stream ends.
func (c *client) answer(say func(m *patternpb.Message) (code uint32, body []byte)) {
	go func() {
		for {
			r, err := c.Recv()
			if err != nil {
				return
			}
			acks := &patternpb.Acks{}
			for _, m := range r.GetMessages().GetMessages() {
				code, body := say(m)
				acks.Acks = append(acks.Acks, &patternpb.Ack{Identity: m.GetIdentity(), MessageId: m.GetMessageId(), ReplyCode: code, ReplyBody: body})
			}
			_ = c.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Acks{Acks: acks}}) // Recv says why it fails
		}
	}()
}

// many registers n identities with names in order, and attaches all of them to one stream.
func (b *bench) many(n int) (ids []string, c *client) {
	b.t.Helper()
	ids = make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("dev-%06d", i)
	}
	b.register(ids...)
	return ids, b.attach(ids...)
}

func TestReplies(t *testing.T) {
	b := serve(t, Config{})
	b.register("a", "b", "c")
	once := make(chan bool, 3)
	b.attach("a", "b", "c").answer(func(m *patternpb.Message) (uint32, []byte) {
		once <- m.GetOnce()
		switch m.GetIdentity() {
		case "a":
			return 7, []byte("no room")
		case "b":
			return 0, make([]byte, multicastregistry.MaxReplyBytes)
		}
		return 0, nil
	})
	got, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Delivery: patternpb.Delivery_EXACTLY_ONCE})
	if err != nil || got.GetDeliveredCount() != 3 || got.GetDelivery() != patternpb.Delivery_EXACTLY_ONCE || got.GetReplayed() || got.GetOmittedCount() != 0 {
		t.Fatalf("got %v, %v", got, err)
	}
	s := got.GetStatuses()
	if s[0].GetReplyCode() != 7 || string(s[0].GetReplyBody()) != "no room" || len(s[1].GetReplyBody()) != 4096 || s[2].GetReplyCode() != 0 || s[2].GetReplyBody() != nil {
		t.Errorf("statuses %v", s)
	}
	if n := got.GetReplyCounts(); len(n) != 2 || n[7] != 1 || n[0] != 2 {
		t.Errorf("counts by code %v", n)
	}
	for range 3 {
		if !<-once {
			t.Error("the recipient is not told that it is exactly-once")
		}
	}
}

func TestDryRunAndMaxTargets(t *testing.T) {
	b := serve(t, Config{})
	b.register("a", "b")
	c := b.attach("a")
	got, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{DryRun: true, MaxTargets: 2})
	if err != nil || got.GetTargetCount() != 2 || got.GetEnded() != patternpb.MulticastResponse_DRY_RUN || got.GetRevision() == 0 ||
		got.GetDeliveredCount()+got.GetPendingCount()+got.GetFailedCount()+got.GetTimeoutCount() != 0 {
		t.Fatalf("got %v, %v", got, err)
	}
	for i, want := range []string{"a", "b"} {
		if s := got.GetStatuses()[i]; !proto.Equal(s, &patternpb.DeliveryStatus{Identity: want}) {
			t.Errorf("target %d: %v, want %s without a status", i, s, want)
		}
	}
	for _, dry := range []bool{false, true} {
		_, err = b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{DryRun: dry, MaxTargets: 1})
		wantError(t, err, codes.ResourceExhausted, "", "2 identities match")
	}
	if _, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Payload: []byte("sent"), Delivery: patternpb.Delivery_AT_MOST_ONCE, MaxTargets: 2}); err != nil {
		t.Fatal(err)
	}
	if m := c.recv().GetMessages().GetMessages(); len(m) != 1 || string(m[0].GetPayload()) != "sent" {
		t.Errorf("the first message is %v, want the one that was sent", m)
	}
}

// A message that could not be handed over is handed over again as often as the request says, after the wait it says.
func TestRetriesOfARequest(t *testing.T) {
	full := &brokenMessaging{Messaging: memory.NewMessaging(memory.MessagingConfig{}), publish: multicastregistry.ErrQueueFull}
	b := serve(t, Config{}, fill{cfg: multicastregistry.Config{RetryDelay: time.Hour, Timeout: patience}, messaging: full})
	b.register("a")
	for attempts := range uint32(3) {
		got, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{RetryAttempts: attempts + 1, RetryDelay: durationpb.New(time.Millisecond)})
		if err != nil || got.GetFailedCount() != 1 || got.GetStatuses()[0].GetAttempts() != attempts+1 || got.GetStatuses()[0].GetReason() != patternpb.DeliveryStatus_QUEUE_FULL {
			t.Errorf("%d attempts: %v, %v", attempts+1, got, err)
		}
	}
}

// A response leaves out delivered targets first, then all, and never a count.
func TestResponsesFit(t *testing.T) {
	statuses := func(delivered, failed, bytes int) *patternpb.MulticastResponse {
		out := &patternpb.MulticastResponse{TargetCount: uint32(delivered + failed)}
		for i := range delivered + failed {
			s := &patternpb.DeliveryStatus{Identity: strings.Repeat("x", bytes), Status: patternpb.DeliveryStatus_DELIVERED}
			if i >= delivered {
				s.Status = patternpb.DeliveryStatus_FAILED
			}
			out.Statuses = append(out.Statuses, s)
		}
		return out
	}
	for name, row := range map[string]struct {
		response      *patternpb.MulticastResponse
		left, omitted int
	}{
		"nothing":         {statuses(0, 0, 0), 0, 0},
		"small":           {statuses(5, 5, 10), 10, 0},
		"just fits":       {statuses(10, 5, 200<<10), 15, 0},
		"delivered ones":  {statuses(16, 5, 200<<10), 5, 16},
		"all of them":     {statuses(1, 16, 200<<10), 0, 17},
		"delivered alone": {statuses(17, 0, 200<<10), 0, 17},
	} {
		fit(row.response)
		if len(row.response.GetStatuses()) != row.left || int(row.response.GetOmittedCount()) != row.omitted || proto.Size(row.response) > maxResponseBytes {
			t.Errorf("%s: %d left, %d omitted, %d bytes; want %d and %d", name, len(row.response.GetStatuses()), row.response.GetOmittedCount(), proto.Size(row.response), row.left, row.omitted)
		}
	}
	codes := make(map[uint32]int)
	for i := range uint32(maxReplyCodes) {
		codes[i] = 1
	}
	if got := summary(&multicastregistry.Result{Replies: codes}); len(got.GetReplyCounts()) != maxReplyCodes || proto.Size(got) > 1<<18 {
		t.Errorf("%d codes in %d bytes", len(got.GetReplyCounts()), proto.Size(got))
	}
	codes[maxReplyCodes] = 1
	if got := summary(&multicastregistry.Result{Replies: codes}); got.GetReplyCounts() != nil {
		t.Errorf("%d codes", len(got.GetReplyCounts()))
	}
}

func TestLargeResponse(t *testing.T) {
	b := serve(t, Config{})
	_, c := b.many(1000)
	b.register("nobody")
	body := make([]byte, multicastregistry.MaxReplyBytes)
	c.answer(func(*patternpb.Message) (uint32, []byte) { return 3, body })
	got, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Timeout: durationpb.New(patience)})
	if err != nil || got.GetDeliveredCount() != 1000 || got.GetFailedCount() != 1 || got.GetReplyCounts()[3] != 1000 {
		t.Fatal(err)
	}
	if got.GetOmittedCount() != 1000 || len(got.GetStatuses()) != 1 || got.GetStatuses()[0].GetIdentity() != "nobody" {
		t.Errorf("omitted %d, left %d", got.GetOmittedCount(), len(got.GetStatuses()))
	}
}

func TestIdempotencyKey(t *testing.T) {
	b := serve(t, Config{}, durable())
	b.register("a")
	b.attach("a").answer(func(*patternpb.Message) (uint32, []byte) { return 4, []byte("done") })
	req := &patternpb.MulticastRequest{Payload: []byte("x"), IdempotencyKey: "order-1"}
	first, err := b.rpc.Multicast(b.ctx, req)
	if err != nil || first.GetReplayed() || first.GetDeliveredCount() != 1 {
		t.Fatal(first, err)
	}
	second, err := b.rpc.Multicast(b.ctx, req)
	if err != nil || !second.GetReplayed() || second.GetMulticastId() != first.GetMulticastId() || second.GetReplyCounts()[4] != 1 ||
		len(second.GetStatuses()) != 1 || string(second.GetStatuses()[0].GetReplyBody()) != "done" {
		t.Errorf("again: %v, %v", second, err)
	}
	req.Payload = []byte("y")
	_, err = b.rpc.Multicast(b.ctx, req)
	wantError(t, err, codes.InvalidArgument, "idempotency_key", first.GetMulticastId())
}
