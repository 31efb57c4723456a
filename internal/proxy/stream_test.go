package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/patterns/memory"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func attachOf(namespace string, keepAlive bool, ids ...string) *patternpb.SubscribeRequest {
	return &patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Attach{
		Attach: &patternpb.Attach{Namespace: namespace, KeepAlive: keepAlive, Identities: ids},
	}}
}

func detachOf(ids ...string) *patternpb.SubscribeRequest {
	return &patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Detach{Detach: &patternpb.Detach{Identities: ids}}}
}

func acksOf(identity, id string) *patternpb.SubscribeRequest {
	return &patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Acks{Acks: &patternpb.Acks{
		Acks: []*patternpb.Ack{{Identity: identity, MessageId: id}},
	}}}
}

// repliesOf acks what nobody received, with replies of these sizes.
func repliesOf(sizes ...int) *patternpb.SubscribeRequest {
	acks := &patternpb.Acks{}
	for _, n := range sizes {
		acks.Acks = append(acks.Acks, &patternpb.Ack{Identity: "a", MessageId: "1", ReplyBody: make([]byte, n)})
	}
	return &patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Acks{Acks: acks}}
}

func TestSubscribeMessage(t *testing.T) {
	b := serve(t, Config{})
	b.register("a")
	c := b.attach("a")
	before := time.Now().Add(-time.Minute)
	result := make(chan *patternpb.MulticastResponse, 1)
	go func() {
		got, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Payload: []byte{0, 255}, ContentType: "image/png"})
		if err != nil {
			t.Error(err)
		}
		result <- got
	}()
	batch := c.recv().GetMessages()
	if len(batch.GetMessages()) != 1 || batch.GetDropped() != 0 {
		t.Fatalf("got %v", batch)
	}
	m := batch.GetMessages()[0]
	if m.GetIdentity() != "a" || m.GetMessageId() == "" || string(m.GetPayload()) != "\x00\xff" || m.GetContentType() != "image/png" || !m.GetAckWanted() || m.GetRedelivered() || m.GetSentAt().AsTime().Before(before) {
		t.Errorf("got %v", m)
	}
	c.send(acksOf("a", "another"))        // passed over
	c.send(acksOf("b", m.GetMessageId())) // passed over
	c.ack(batch)
	c.ack(batch) // passed over
	if got := <-result; got.GetDeliveredCount() != 1 || got.GetMulticastId() != m.GetMessageId() {
		t.Errorf("got %v", got)
	}
	c.send(detachOf("a", "never attached"))
	if got := c.recv().GetDetached().GetIdentities(); len(got) != 2 {
		t.Errorf("detached %v", got)
	}
	got, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Payload: []byte("x")})
	if err != nil || got.GetFailedCount() != 1 {
		t.Errorf("after the detach: %v, %v", got, err)
	}
	if got, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Namespace: "other"}); err != nil || got.GetTargetCount() != 0 || got.GetEnded() != patternpb.MulticastResponse_COMPLETE {
		t.Errorf("nobody is a target: %v, %v", got, err)
	}
}

func TestErrorsOfStreams(t *testing.T) {
	b := serve(t, Config{MaxAttached: 20_000})
	many := make([]string, 10_001)
	for i := range many {
		many[i] = strconv.Itoa(i)
	}
	other := make([]string, 10_000)
	for i := range other {
		other[i] = fmt.Sprint("x", i)
	}
	bad := codes.InvalidArgument
	for name, row := range map[string]struct {
		requests    []*patternpb.SubscribeRequest
		code        codes.Code
		field, text string
	}{
		"nothing":              {[]*patternpb.SubscribeRequest{{}}, bad, "request", "attach, detach and acks"},
		"no identity":          {[]*patternpb.SubscribeRequest{attachOf("", false)}, bad, "attach/identities", "at least one"},
		"an empty identity":    {[]*patternpb.SubscribeRequest{attachOf("", false, "a", "")}, bad, "attach/identities/1", "empty"},
		"too many at once":     {[]*patternpb.SubscribeRequest{attachOf("", false, many...)}, bad, "attach/identities", "10000"},
		"too many in all":      {[]*patternpb.SubscribeRequest{attachOf("", false, many[:10_000]...), attachOf("", false, other...), attachOf("", false, "one more")}, codes.ResourceExhausted, "", "20000 identities attached"},
		"no such namespace":    {[]*patternpb.SubscribeRequest{attachOf("nope", false, "a")}, codes.NotFound, "", "nope"},
		"another namespace":    {[]*patternpb.SubscribeRequest{attachOf("", false, "a"), attachOf("other", false, "a")}, bad, "attach/namespace", `"default"`},
		"an empty detach":      {[]*patternpb.SubscribeRequest{attachOf("", false, "a"), detachOf("")}, bad, "detach/identities/0", "empty"},
		"a detach of nothing":  {[]*patternpb.SubscribeRequest{detachOf()}, bad, "detach/identities", "at least one"},
		"a large reply":        {[]*patternpb.SubscribeRequest{attachOf("", false, "a"), acksOf("a", "1"), repliesOf(0, 4097)}, bad, "acks/1/reply_body", "4097"},
		"a long name attached": {[]*patternpb.SubscribeRequest{attachOf("", false, strings.Repeat("x", 257))}, bad, "attach/identities/0", "257"},
	} {
		t.Run(name, func(t *testing.T) {
			c := b.open()
			for _, r := range row.requests {
				_ = c.Send(r) // the stream may have ended
			}
			wantError(t, c.end(), row.code, row.field, row.text)
		})
	}
}

// Attaching what is attached counts once, and the same namespace may be named again.
func TestAttachAgain(t *testing.T) {
	b := serve(t, Config{MaxAttached: 2})
	c := b.attach("a", "b")
	c.send(attachOf("default", false, "a", "b", "a"))
	if got := c.recv().GetAttached().GetIdentities(); len(got) != 3 {
		t.Errorf("attached %v", got)
	}
	c.send(detachOf("a"))
	c.recv()
	c.send(attachOf("", false, "c"))
	if c.recv().GetAttached() == nil {
		t.Error("no room after a detach")
	}
}

func TestHalfClosedStreams(t *testing.T) {
	b := serve(t, Config{})
	b.register("a")
	c := b.attach("a")
	_ = c.CloseSend()
	if _, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Delivery: patternpb.Delivery_AT_MOST_ONCE}); err != nil {
		t.Fatal(err)
	}
	if got := c.recv().GetMessages().GetMessages(); len(got) != 1 || got[0].GetAckWanted() {
		t.Errorf("got %v, want one that wants no ack", got)
	}
	idle := b.open()
	idle.send(acksOf("a", "nothing is attached: passed over"))
	_ = idle.CloseSend()
	if err := idle.end(); !errors.Is(err, io.EOF) {
		t.Errorf("a stream that asks for nothing ended with %v, want EOF", err)
	}
	done := b.attach("a")
	done.send(detachOf("a"))
	_ = done.CloseSend()
	if err := done.end(); !errors.Is(err, io.EOF) {
		t.Errorf("a stream that detached all ended with %v, want EOF", err)
	}
}

// A frame holds at most 256 messages or 1 MiB, whichever is reached first; a larger message travels alone.
func TestFrames(t *testing.T) {
	sized := func(bytes ...int) []multicastregistry.Message {
		out := make([]multicastregistry.Message, len(bytes))
		for i, n := range bytes {
			out[i].Payload = make([]byte, n)
		}
		return out
	}
	many := make([]int, 600)
	for name, row := range map[string]struct {
		messages []multicastregistry.Message
		want     string
	}{
		"none":             {nil, "[]"},
		"small ones":       {sized(many...), "[256 256 88]"},
		"to the byte":      {sized(1<<19, 1<<19, 1), "[2 1]"},
		"one too large":    {sized(2<<20, 1), "[1 1]"},
		"large in between": {sized(1, 2<<20, 1, 1), "[1 1 2]"},
	} {
		var got []int
		for rest := row.messages; len(rest) > 0; {
			n := frame(rest)
			got = append(got, n)
			rest = rest[n:]
		}
		if fmt.Sprint(got) != row.want {
			t.Errorf("%s: frames of %v, want %s", name, got, row.want)
		}
	}
}

func TestLargePayloads(t *testing.T) {
	b := serve(t, Config{}, fill{cfg: multicastregistry.Config{MaxPayload: 20 << 20}})
	b.register("a")
	c := b.attach("a")
	go func() {
		r, err := c.Recv()
		if err != nil || len(r.GetMessages().GetMessages()[0].GetPayload()) != 20<<20 {
			t.Errorf("got %v", err)
			return
		}
		c.ack(r.GetMessages())
	}()
	got, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Payload: make([]byte, 20<<20), Timeout: durationpb.New(patience)})
	if err != nil || got.GetDeliveredCount() != 1 {
		t.Errorf("got %v, %v", got, err)
	}
	_, err = b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Payload: make([]byte, 22<<20)})
	wantError(t, err, codes.ResourceExhausted, "", "")
}

func TestKeepAlive(t *testing.T) {
	b := serve(t, Config{})
	ttl := durationpb.New(300 * time.Millisecond)
	for _, id := range []string{"kept", "left"} {
		if _, err := b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Identity: id, Ttl: ttl}); err != nil {
			t.Fatal(err)
		}
	}
	c := b.open()
	c.send(attachOf("", true, "kept"))
	c.recv()
	live := func(id string) bool {
		page, err := b.rpc.Enumerate(b.ctx, &patternpb.EnumerateRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range page.GetIdentities() {
			if i.GetIdentity() == id {
				return true
			}
		}
		return false
	}
	eventually(t, "the lease that nobody renews ends", func() bool { return !live("left") })
	until := time.Now().Add(3 * ttl.AsDuration())
	eventually(t, "three TTLs pass", func() bool { return time.Now().After(until) })
	if !live("kept") {
		t.Error("the lease that the stream keeps has ended")
	}
	if _, err := b.rpc.Unregister(b.ctx, &patternpb.UnregisterRequest{Identity: "kept"}); err != nil {
		t.Fatal(err)
	}
	if got := c.recv().GetLeaseLost().GetIdentities(); len(got) != 1 || got[0] != "kept" {
		t.Errorf("lost %v, want kept", got)
	}
	if _, err := b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Identity: "kept", Ttl: ttl}); err != nil {
		t.Fatal(err)
	}
	c.send(attachOf("", true, "kept"))
	c.recv()
	c.cancel()
	eventually(t, "the lease ends after its stream", func() bool { return !live("kept") })
}

// A client that does not read loses its own messages, which are counted; others wait for nothing, and its acks are taken.
func TestSlowReader(t *testing.T) {
	b := serve(t, Config{}, fill{messaging: memory.NewMessaging(memory.MessagingConfig{Buffer: 16})})
	b.register("slow", "fast")
	slow, fast := b.attach("slow"), b.attach("fast")
	first := make(chan *patternpb.Messages, 1)
	var received atomic.Int64
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			r, err := fast.Recv()
			if err != nil {
				return
			}
			received.Add(int64(len(r.GetMessages().GetMessages())))
			fast.ack(r.GetMessages())
		}
	})
	go func() {
		r, err := slow.Recv()
		if err == nil {
			first <- r.GetMessages()
		}
	}()
	firstResult := make(chan *patternpb.MulticastResponse, 1)
	go func() {
		got, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Payload: []byte("first"), Timeout: durationpb.New(patience)})
		if err != nil {
			t.Error(err)
		}
		firstResult <- got
	}()
	unread := <-first
	payload := make([]byte, 64<<10)
	var full int
	for i := range 200 {
		got, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Payload: payload, Delivery: patternpb.Delivery_AT_MOST_ONCE, RetryAttempts: 1})
		if err != nil {
			t.Fatal(err)
		}
		full += int(got.GetFailedCount())
		// The fast client is one that keeps up, whatever else this machine is doing.
		eventually(t, "the fast client gets everything", func() bool { return received.Load() == int64(i)+2 })
	}
	if full == 0 {
		t.Error("200 messages of 64 KiB fit a client that does not read")
	}
	slow.ack(unread)
	if got := <-firstResult; got.GetDeliveredCount() != 2 {
		t.Errorf("the ack of a client that does not read was not taken: %v", got)
	}
	var dropped, got int
	for got+dropped < 200 {
		r := slow.recv().GetMessages()
		got += len(r.GetMessages())
		dropped += int(r.GetDropped())
	}
	if dropped != full || got+dropped != 200 {
		t.Errorf("got %d, dropped %d, of which senders saw %d", got, dropped, full)
	}
	fast.cancel()
	reading.Wait()
}

// Confirmations that nobody reads hold up that stream only, and end with it.
func TestUnreadConfirmations(t *testing.T) {
	b := serve(t, Config{})
	c := b.open()
	ids := make([]string, 5000)
	for i := range ids {
		ids[i] = fmt.Sprintf("%0200d", i)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for range 100 {
			if c.Send(attachOf("", false, ids...)) != nil {
				return
			}
		}
	}()
	b.register("a")
	d := b.attach("a")
	go func() {
		if r, err := d.Recv(); err == nil {
			d.ack(r.GetMessages())
		}
	}()
	if got, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{}); err != nil || got.GetDeliveredCount() != 1 {
		t.Errorf("beside a stream that does not read: %v, %v", got, err)
	}
	c.cancel()
	<-sent
}

func TestBrokenSubscriptions(t *testing.T) {
	broken := &brokenMessaging{Messaging: memory.NewMessaging(memory.MessagingConfig{})}
	b := serve(t, Config{}, fill{messaging: broken})
	broken.subscribe = fmt.Errorf("nats: %w", multicastregistry.ErrUnavailable)
	c := b.open()
	c.send(attachOf("", false, "a"))
	wantError(t, c.end(), codes.Unavailable, "", "nats")

	broken.subscribe = nil
	broken.next = errSecret
	c = b.open()
	c.send(attachOf("", false, "a"))
	if err := c.end(); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v, want INTERNAL without the cause", err)
	}

	broken.next = nil
	broken.add = fmt.Errorf("nats: %w", multicastregistry.ErrQuota)
	c = b.open()
	c.send(attachOf("", false, "a"))
	wantError(t, c.end(), codes.ResourceExhausted, "", "nats")

	broken.add = nil
	broken.panics = true
	c = b.open()
	c.send(attachOf("", false, "a"))
	wantError(t, c.end(), codes.Internal, "", "request id")
	broken.panics = false

	broken.ack = fmt.Errorf("nats: %w", multicastregistry.ErrUnavailable)
	b.register("a")
	c = b.attach("a")
	go func() {
		_, _ = b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Timeout: durationpb.New(time.Second)})
	}()
	batch := c.recv().GetMessages()
	c.ack(batch)
	eventually(t, "a lost ack is logged", func() bool { return strings.Contains(b.log.String(), "acks were lost") })
	c.send(detachOf("a"))
	if c.recv().GetDetached() == nil {
		t.Error("a lost ack has ended the stream")
	}
}

// brokenMessaging is a messaging slot that fails where it is told to. Fields are set while nothing runs.
type brokenMessaging struct {
	multicastregistry.Messaging
	subscribe, next, add, ack error
	publish                   error // of every message
	panics                    bool
}

func (m *brokenMessaging) Publish(ctx context.Context, messages []multicastregistry.Message) []error {
	if m.publish != nil {
		return slices.Repeat([]error{m.publish}, len(messages))
	}
	return m.Messaging.Publish(ctx, messages)
}

func (m *brokenMessaging) Subscribe(ctx context.Context, topics ...string) (multicastregistry.Subscription, error) {
	if m.subscribe != nil {
		return nil, m.subscribe
	}
	s, err := m.Messaging.Subscribe(ctx, topics...)
	return &brokenSubscription{Subscription: s, next: m.next, add: m.add, panics: m.panics}, err
}

func (m *brokenMessaging) Ack(ctx context.Context, acks []multicastregistry.Ack) []error {
	if m.ack != nil {
		return []error{m.ack}
	}
	return m.Messaging.Ack(ctx, acks)
}

type brokenSubscription struct {
	multicastregistry.Subscription
	next, add error
	panics    bool
}

func (s *brokenSubscription) Next(ctx context.Context) (multicastregistry.Batch, error) {
	if s.next != nil {
		return multicastregistry.Batch{}, s.next
	}
	return s.Subscription.Next(ctx)
}

func (s *brokenSubscription) Add(ctx context.Context, topics ...string) error {
	if s.panics {
		panic("hunter2")
	}
	if s.add != nil {
		return s.add
	}
	return s.Subscription.Add(ctx, topics...)
}

// TestNeverAttached ends a stream that is attached to nothing.
func TestNeverAttached(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{AttachTimeout: 50 * time.Millisecond})
	wantError(t, b.open().end(), codes.Unavailable, "", "within")
	b.register("a")
	c := b.attach("a")
	<-time.After(100 * time.Millisecond)
	c.send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Detach{Detach: &patternpb.Detach{Identities: []string{"a"}}}})
	if got := c.recv().GetDetached().GetIdentities(); len(got) != 1 {
		t.Errorf("one that was attached in time: %v", got)
	}
}
