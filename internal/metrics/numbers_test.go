package metrics_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
)

// TestNumbers does a known number of things and finds them all.
func TestNumbers(t *testing.T) {
	s := serve(t)
	s.register("default", "a", "b", "c")
	if _, err := s.rpc.Register(s.ctx, &patternpb.RegisterRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Fatal(err)
	}
	on := s.attach("default", false, "a", "elsewhere")
	s.eventually(2, "prism_attached_identities", "namespace=default")
	s.eventually(1, "prism_subscriber_streams", "namespace=default")
	s.eventually(1, "prism_rpcs_in_flight", "method=Subscribe")
	go ack(t, on)
	sent := s.multicast("default", func(r *patternpb.MulticastRequest) { r.Timeout = durationpb.New(patience) })
	if sent.GetDeliveredCount() != 1 || sent.GetPendingCount() != 2 {
		t.Fatal(sent)
	}
	s.multicast("default", func(r *patternpb.MulticastRequest) { r.DryRun = true }) // counts as a call, and as nothing else
	streamed, err := s.rpc.MulticastStream(s.ctx, &patternpb.MulticastStreamRequest{Request: &patternpb.MulticastRequest{
		Namespace: "tight", Payload: []byte("x"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err = streamed.Recv(); err != nil {
			break
		}
	}
	s.register("tight", "x")
	failed := s.multicast("tight", func(r *patternpb.MulticastRequest) { r.Delivery = patternpb.Delivery_AT_LEAST_ONCE })
	if failed.GetFailedCount() != 1 {
		t.Fatal(failed)
	}
	f := s.eventually(1, "prism_acks_received_total", "namespace=default")
	for _, row := range []struct {
		want   float64
		name   string
		labels string
	}{
		{4, "prism_rpc_duration_seconds", "method=Register code=OK"},
		{1, "prism_rpc_duration_seconds", "method=Register code=INVALID_ARGUMENT"},
		{3, "prism_rpc_duration_seconds", "method=Multicast code=OK"},
		{1, "prism_rpc_duration_seconds", "method=MulticastStream code=OK"},
		{0, "prism_rpcs_in_flight", "method=Register"},
		{1, "prism_deliveries_total", "namespace=default status=DELIVERED reason=NONE"},
		{2, "prism_deliveries_total", "namespace=default status=PENDING"},
		{1, "prism_deliveries_total", "namespace=tight status=FAILED reason=NO_SUBSCRIBER"},
		{1, "prism_multicast_targets", "namespace=default"},
		{2, "prism_multicast_targets", "namespace=tight"}, // the streamed one reached nobody
		{1, "prism_messages_sent_total", "namespace=default"},
		{0, "prism_messages_dropped_total", "namespace=default"},
		{1, "prism_backend_up", "namespace=default"},
		{0, "prism_backend_errors_total", "namespace=default code=UNAVAILABLE"},
		{1, "prism_build_info", "version=v1.2.3"},
	} {
		if got, ok := f.value(row.name, strings.Fields(row.labels)...); !ok || got != row.want {
			t.Errorf("%s{%s} is %v (%t), want %v", row.name, row.labels, got, ok, row.want)
		}
	}
	if sum := f["prism_multicast_targets"].GetMetric()[1].GetHistogram().GetSampleSum(); sum != 3 {
		t.Errorf("the multicast was for %v", sum)
	}
	if err := on.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Detach{
		Detach: &patternpb.Detach{Identities: []string{"elsewhere", "never attached"}},
	}}); err != nil {
		t.Fatal(err)
	}
	s.eventually(1, "prism_attached_identities", "namespace=default")
	if err := on.CloseSend(); err != nil { // and goes on listening
		t.Fatal(err)
	}
	s.multicast("default", func(r *patternpb.MulticastRequest) { r.Delivery = patternpb.Delivery_AT_MOST_ONCE })
	s.eventually(2, "prism_messages_sent_total", "namespace=default")
	s.eventually(1, "prism_attached_identities", "namespace=default")
}

// TestStreamsEnd checks that what is open is counted out again.
func TestStreamsEnd(t *testing.T) {
	s := serve(t)
	life, end := context.WithCancel(s.ctx)
	defer end()
	on := (&server{t: t, ctx: life, rpc: s.rpc}).attach("tight", false, "a", "b", "c")
	watch, err := s.rpc.Watch(life, &patternpb.WatchRequest{Namespace: "tight"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	s.eventually(3, "prism_attached_identities", "namespace=tight")
	s.eventually(1, "prism_watchers", "namespace=tight")
	end()
	if _, err := on.Recv(); err == nil {
		t.Error("the stream goes on")
	}
	s.eventually(0, "prism_attached_identities", "namespace=tight")
	s.eventually(0, "prism_subscriber_streams", "namespace=tight")
	s.eventually(0, "prism_watchers", "namespace=tight")
	s.eventually(0, "prism_rpcs_in_flight", "method=Subscribe")
	s.eventually(1, "prism_rpc_duration_seconds", "method=Watch", "code=CANCELLED")
}

// TestStored has messages stored for who is away.
func TestStored(t *testing.T) {
	s := serve(t)
	s.register("default", "a", "b", "c")
	s.register("tight", "x")
	s.multicast("default", nil)
	s.multicast("tight", nil)
	f := s.scrape()
	if n, ok := f.value("prism_stored_messages", "namespace=default"); !ok || n != 3 {
		t.Errorf("%v are stored (%t), want 3", n, ok)
	}
	if n, ok := f.value("prism_stored_messages", "namespace=tight"); ok {
		t.Errorf("a namespace without a durability slot stores %v", n)
	}
}

// TestDropped has a subscriber that does not read, and compares what it is told in the end.
func TestDropped(t *testing.T) {
	s := serve(t)
	s.register("tight", "slow")
	on := s.attach("tight", false, "slow")
	payload := make([]byte, 256<<10)
	for range 20 { // far more than lies in buffers on the way
		s.multicast("tight", func(r *patternpb.MulticastRequest) { r.Payload = payload })
	}
	var received, dropped uint64
	for received+dropped < 20 {
		resp, err := on.Recv()
		if err != nil {
			t.Fatal(err)
		}
		received += uint64(len(resp.GetMessages().GetMessages()))
		dropped += resp.GetMessages().GetDropped()
	}
	if dropped == 0 {
		t.Fatal("nothing was dropped")
	}
	s.eventually(float64(dropped), "prism_messages_dropped_total", "namespace=tight")
	s.eventually(float64(received), "prism_messages_sent_total", "namespace=tight")
}

func TestLeasesLost(t *testing.T) {
	s := serve(t)
	if _, err := s.rpc.Register(s.ctx, &patternpb.RegisterRequest{Identity: "a", Ttl: durationpb.New(time.Second)}); err != nil {
		t.Fatal(err)
	}
	on := s.attach("default", true, "a")
	if _, err := s.rpc.Unregister(s.ctx, &patternpb.UnregisterRequest{Identity: "a"}); err != nil {
		t.Fatal(err)
	}
	if resp, err := on.Recv(); err != nil || resp.GetLeaseLost() == nil {
		t.Fatal(resp, err)
	}
	s.eventually(1, "prism_leases_lost_total", "namespace=default")
}

// TestCopy reads how far the copy is that answers.
func TestCopy(t *testing.T) {
	s := serve(t)
	if _, err := s.rpc.Register(s.ctx, &patternpb.RegisterRequest{
		Namespace: "copied", Identity: "a", Ttl: durationpb.New(time.Second),
	}); err != nil {
		t.Fatal(err)
	}
	f := s.eventually(1, "prism_expiries_total", "namespace=copied")
	if lag, ok := f.value("prism_replica_lag_seconds", "namespace=copied"); !ok || lag < 0 || lag > patience.Seconds() {
		t.Errorf("the lag is %v (%t)", lag, ok)
	}
	if revision, ok := f.value("prism_replica_revision", "namespace=copied"); !ok || revision < 1 {
		t.Errorf("the revision is %v (%t)", revision, ok)
	}
	if _, ok := f.value("prism_replica_lag_seconds", "namespace=default"); ok {
		t.Error("a namespace without a copy has a lag")
	}
}

func TestExemplars(t *testing.T) {
	s := serve(t)
	id := s.multicast("default", nil).GetMulticastId()
	_, kind, body := s.get("/metrics", "application/openmetrics-text; version=1.0.0")
	if !strings.HasPrefix(kind, "application/openmetrics-text") {
		t.Fatal(kind)
	}
	if want := fmt.Sprintf(`# {multicast_id=%q} 0`, id); !strings.Contains(body, want) {
		t.Errorf("there is no %s", want)
	}
}

// TestCardinality calls everything with names that nobody configured.
func TestCardinality(t *testing.T) {
	s := serve(t)
	hostile := func(name string) {
		_, _ = s.rpc.Register(s.ctx, &patternpb.RegisterRequest{Namespace: name, Identity: name})
		_, _ = s.rpc.Heartbeat(s.ctx, &patternpb.HeartbeatRequest{Namespace: name, Identity: name})
		_, _ = s.rpc.Unregister(s.ctx, &patternpb.UnregisterRequest{Namespace: name, Identity: name})
		_, _ = s.rpc.Enumerate(s.ctx, &patternpb.EnumerateRequest{Namespace: name})
		_, _ = s.rpc.Multicast(s.ctx, &patternpb.MulticastRequest{Namespace: name})
		_, _ = s.rpc.GetMulticast(s.ctx, &patternpb.GetMulticastRequest{Namespace: name, MulticastId: name})
		if w, err := s.rpc.Watch(s.ctx, &patternpb.WatchRequest{Namespace: name}); err == nil {
			_, _ = w.Recv()
		}
		if w, err := s.rpc.EnumerateStream(s.ctx, &patternpb.EnumerateStreamRequest{
			Request: &patternpb.EnumerateRequest{Namespace: name},
		}); err == nil {
			_, _ = w.Recv()
		}
		if w, err := s.rpc.MulticastStream(s.ctx, &patternpb.MulticastStreamRequest{
			Request: &patternpb.MulticastRequest{Namespace: name},
		}); err == nil {
			_, _ = w.Recv()
		}
		if w, err := s.rpc.Subscribe(s.ctx); err == nil {
			_ = w.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Attach{
				Attach: &patternpb.Attach{Namespace: name, Identities: []string{name}},
			}})
			_, _ = w.Recv()
		}
	}
	hostile("nobody-0")
	s.eventually(0, "prism_rpcs_in_flight", "method=Subscribe")
	before := s.scrape()
	for i := range 30 {
		hostile(fmt.Sprintf("nobody-%d", i+1))
		hostile(fmt.Sprintf("evil%d\"}\n{x=\"\xe2\x80\xae", i))
	}
	s.eventually(0, "prism_rpcs_in_flight", "method=Subscribe")
	after := s.scrape()
	// Names that can be none may be refused with another code than those that could: one series each.
	if most := before.series() + 10; after.series() > most {
		t.Errorf("%d series became %d", before.series(), after.series())
	}
	if _, _, body := s.get("/metrics", ""); strings.Contains(body, "nobody") || strings.Contains(body, "evil") {
		t.Error("a caller's name became a label")
	}
}

// TestTwoServers checks that servers in one process share no number.
func TestTwoServers(t *testing.T) {
	one, other := serve(t), serve(t)
	one.register("default", "a", "b")
	other.register("default", "c")
	one.eventually(2, "prism_rpc_duration_seconds", "method=Register", "code=OK")
	other.eventually(1, "prism_rpc_duration_seconds", "method=Register", "code=OK")
	one.eventually(2, "prism_namespace_identities", "namespace=default")
}

func TestAdmin(t *testing.T) {
	s := serve(t)
	for status := 0; status != http.StatusOK && s.ctx.Err() == nil; status, _, _ = s.get("/readyz", "") {
		<-time.After(20 * time.Millisecond) // until the registry is copied
	}
	for path, want := range map[string]string{
		"/": "/metrics", "/healthz": `"ok"`, "/readyz": `"ready"`, "/buildinfo": `"version": "v1.2.3"`,
		"/debug/pprof/": "goroutine", "/debug/pprof/goroutine?debug=1": "goroutine profile", "/debug/pprof/cmdline": "metrics.test",
		"/metrics": "go_goroutines",
	} {
		if status, _, body := s.get(path, ""); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d, without %q", path, status, want)
		}
	}
	for path, want := range map[string]int{"/nothing": http.StatusNotFound, "/v1/namespaces": http.StatusNotFound} {
		if status, _, _ := s.get(path, ""); status != want {
			t.Errorf("%s: %d", path, status)
		}
	}
	if _, _, body := s.get("/metrics", ""); !strings.Contains(body, "process_open_fds") || !strings.Contains(body, "# HELP prism_backend_up") {
		t.Error("metrics are missing")
	}
}
