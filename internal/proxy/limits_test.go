package proxy

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/auth"
	"github.com/prism-data-layer/prism/internal/limits"
)

// limited is a server whose only namespace has limits.
func limited(t *testing.T, cfg limits.Config) *bench {
	t.Helper()
	return serve(t, Config{}, fill{limits: limits.New(cfg)})
}

// wantExhausted checks that a limit is reached, and whether the error says when to come back.
func wantExhausted(t *testing.T, err error, limit string, comesBack bool) {
	t.Helper()
	wantError(t, err, codes.ResourceExhausted, "", limit)
	subject, retry := "", false
	for _, detail := range status.Convert(err).Details() {
		switch d := detail.(type) {
		case *errdetails.QuotaFailure:
			subject = d.GetViolations()[0].GetSubject()
		case *errdetails.RetryInfo:
			retry = d.GetRetryDelay().AsDuration() > 0
		}
	}
	if subject != limit || retry != comesBack {
		t.Errorf("%v: limit %q, says when to come back %t", err, subject, retry)
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	b := limited(t, limits.Config{PerCaller: limits.Share{Rates: map[auth.Role]limits.Rate{auth.RoleRegister: {PerSecond: 0.01, Burst: 2}}}})
	b.register("a", "b")
	_, err := b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Identity: "c"})
	wantExhausted(t, err, "per_caller.rates.register", true)
	_, err = b.rpc.Heartbeat(b.ctx, &patternpb.HeartbeatRequest{Identity: "a"})
	wantExhausted(t, err, "per_caller.rates.register", true)
	if _, err := b.rpc.Enumerate(b.ctx, &patternpb.EnumerateRequest{}); err != nil {
		t.Errorf("what has no limit: %v", err)
	}
	resp, err := b.http.Post(b.url+"/v1/namespaces/default/identities", "application/json", strings.NewReader(`{"identity":"d"}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if after, err := strconv.Atoi(resp.Header.Get("Retry-After")); resp.StatusCode != http.StatusTooManyRequests || err != nil || after < 1 || after > 100 {
		t.Errorf("%s, Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
	}
}

func TestStreamLimits(t *testing.T) {
	t.Parallel()
	b := limited(t, limits.Config{PerCaller: limits.Share{Streams: 2, Attached: 3}})
	first := b.attach("a", "b")
	second := b.attach("c")
	third := b.open()
	third.send(attachOf("", false, "d"))
	wantExhausted(t, third.end(), "per_caller.streams", false)
	watch, err := b.rpc.Watch(b.ctx, &patternpb.WatchRequest{})
	if err == nil {
		_, err = watch.Recv()
	}
	wantExhausted(t, err, "per_caller.streams", false)

	second.send(attachOf("", false, "d"))
	wantExhausted(t, second.end(), "per_caller.attached", false)
	first.send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Detach{Detach: &patternpb.Detach{Identities: []string{"a"}}}})
	if got := first.recv().GetDetached().GetIdentities(); len(got) != 1 {
		t.Fatalf("detached %v", got)
	}
	first.send(attachOf("", false, "a", "x", "b")) // b is attached already
	if got := first.recv().GetAttached().GetIdentities(); len(got) != 3 {
		t.Fatalf("attached %v", got)
	}
	eventually(t, "the stream that has ended is given back", func() bool {
		watch, err := b.rpc.Watch(b.ctx, &patternpb.WatchRequest{})
		if err == nil {
			_, err = watch.Recv()
		}
		return err == nil
	})
}

func TestTTLAndTargetLimits(t *testing.T) {
	t.Parallel()
	b := limited(t, limits.Config{MinTTL: time.Second, MaxTTL: time.Hour, MaxTargets: 2})
	register := func(r *patternpb.RegisterRequest) error {
		r.Identity = "a"
		_, err := b.rpc.Register(b.ctx, r)
		return err
	}
	wantError(t, register(&patternpb.RegisterRequest{Ttl: durationpb.New(2 * time.Hour)}), codes.InvalidArgument, "ttl", "at most")
	wantError(t, register(&patternpb.RegisterRequest{Ttl: durationpb.New(time.Millisecond)}), codes.InvalidArgument, "ttl", "at least")
	wantError(t, register(&patternpb.RegisterRequest{NeverExpires: true}), codes.InvalidArgument, "never_expires", "at most")
	b.register("a", "b")
	_, err := b.rpc.Heartbeat(b.ctx, &patternpb.HeartbeatRequest{Identity: "a", Ttl: durationpb.New(2 * time.Hour)})
	wantError(t, err, codes.InvalidArgument, "ttl", "at most")
	if _, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{DryRun: true}); err != nil {
		t.Fatal(err)
	}
	b.register("c")
	for _, most := range []uint32{0, 5} {
		_, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{MaxTargets: most})
		wantError(t, err, codes.ResourceExhausted, "", "at most 2 are allowed")
	}
}

func TestByteLimits(t *testing.T) {
	t.Parallel()
	b := limited(t, limits.Config{
		PerCaller: limits.Share{PayloadBytes: limits.Rate{PerSecond: 0.1, Burst: 100}}, Total: limits.Share{MetadataBytes: limits.Rate{PerSecond: 0.1, Burst: 200}},
	})
	send := func(n int) error {
		_, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Payload: make([]byte, n), DryRun: true})
		return err
	}
	if err := send(80); err != nil {
		t.Fatal(err)
	}
	wantExhausted(t, send(30), "per_caller.payload_bytes", true)
	wantExhausted(t, send(101), "per_caller.payload_bytes", false)
	if err := send(0); err != nil {
		t.Error(err)
	}
	register := func(id string) error {
		_, err := b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Identity: id, Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			"room": structpb.NewStringValue(strings.Repeat("x", 100)),
		}}})
		return err
	}
	if err := register("a"); err != nil {
		t.Fatal(err)
	}
	wantExhausted(t, register("b"), "total.metadata_bytes", true)
	stream, err := b.rpc.MulticastStream(b.ctx, &patternpb.MulticastStreamRequest{Request: &patternpb.MulticastRequest{Payload: make([]byte, 50)}})
	if err == nil {
		_, err = stream.Recv()
	}
	wantExhausted(t, err, "per_caller.payload_bytes", true)
}
