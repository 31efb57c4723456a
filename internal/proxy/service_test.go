package proxy

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func obj(t *testing.T, m map[string]any) *structpb.Struct {
	t.Helper()
	s, err := structpb.NewStruct(m)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRegisterEnumerateUnregister(t *testing.T) {
	b := serve(t, Config{})
	meta := map[string]any{"room": "lab", "floor": 3, "ok": true, "none": nil, "tags": []any{"a", 1.5}, "at": map[string]any{"lat": 1}}
	got, err := b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Identity: "dev-1", Metadata: obj(t, meta), Ttl: durationpb.New(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	i := got.GetIdentity()
	if i.GetIdentity() != "dev-1" || i.GetTtl().AsDuration() != time.Minute || i.GetRevision() == 0 || i.GetExpiresAt().AsTime().Sub(i.GetRegisteredAt().AsTime()) != time.Minute {
		t.Errorf("stored %v", i)
	}
	if fmt.Sprint(i.GetMetadata().AsMap()) != fmt.Sprint(obj(t, meta).AsMap()) {
		t.Errorf("metadata %v, want %v", i.GetMetadata(), meta)
	}
	forever, err := b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Identity: "dev-2", NeverExpires: true})
	if err != nil || forever.GetIdentity().GetTtl() != nil || forever.GetIdentity().GetExpiresAt() != nil {
		t.Errorf("never_expires: %v, %v", forever, err)
	}
	if _, err := b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Identity: "dev-2", Mode: patternpb.RegisterRequest_REPLACE}); err != nil {
		t.Error(err)
	}
	beat, err := b.rpc.Heartbeat(b.ctx, &patternpb.HeartbeatRequest{Identity: "dev-1", Ttl: durationpb.New(2 * time.Minute)})
	if err != nil || beat.GetTtl().AsDuration() != 2*time.Minute || beat.GetExpiresAt() == nil {
		t.Errorf("heartbeat: %v, %v", beat, err)
	}
	page, err := b.rpc.Enumerate(b.ctx, &patternpb.EnumerateRequest{Filter: obj(t, map[string]any{"floor": map[string]any{"$gt": 2}})})
	if err != nil || page.GetTotalCount() != 1 || page.GetIdentities()[0].GetIdentity() != "dev-1" || page.GetIdentities()[0].GetMetadata() == nil {
		t.Errorf("enumerate: %v, %v", page, err)
	}
	no := false
	page, err = b.rpc.Enumerate(b.ctx, &patternpb.EnumerateRequest{IncludeMetadata: &no, PageSize: 1})
	if err != nil || page.GetTotalCount() != 2 || len(page.GetIdentities()) != 1 || page.GetIdentities()[0].GetMetadata() != nil || page.GetNextPageToken() == "" {
		t.Errorf("enumerate a page: %v, %v", page, err)
	}
	page, err = b.rpc.Enumerate(b.ctx, &patternpb.EnumerateRequest{PageToken: page.GetNextPageToken()})
	if err != nil || len(page.GetIdentities()) != 1 || page.GetIdentities()[0].GetIdentity() != "dev-2" {
		t.Errorf("the page after: %v, %v", page, err)
	}
	for _, want := range []bool{true, false} {
		gone, err := b.rpc.Unregister(b.ctx, &patternpb.UnregisterRequest{Namespace: "default", Identity: "dev-1"})
		if err != nil || gone.GetExisted() != want {
			t.Errorf("unregister: %v, %v, want %v", gone, err, want)
		}
	}
}

func TestListNamespaces(t *testing.T) {
	b := serve(t, Config{})
	b.register("dev-1")
	got, err := b.rpc.ListNamespaces(b.ctx, &patternpb.ListNamespacesRequest{})
	if err != nil || len(got.GetNamespaces()) != 2 {
		t.Fatalf("got %v, %v", got, err)
	}
	first, second := got.GetNamespaces()[0], got.GetNamespaces()[1]
	if first.GetName() != "default" || first.GetPattern() != "multicast-registry" || first.GetIdentityCount() != 1 ||
		first.GetDelivery() != patternpb.Delivery_AT_LEAST_ONCE || first.GetTtlDefault().AsDuration() != 5*time.Minute || first.GetTimeout().AsDuration() != 5*time.Second {
		t.Errorf("default: %v", first)
	}
	if second.GetName() != "other" || second.GetTtlDefault() != nil || second.GetDelivery() != patternpb.Delivery_AT_MOST_ONCE || second.IdentityCount == nil {
		t.Errorf("other: %v", second)
	}
}

func TestErrorsOfCalls(t *testing.T) {
	b := serve(t, Config{}, fill{cfg: multicastregistry.Config{MaxPayload: 10}})
	b.register("taken", "another")
	deep := &structpb.Struct{}
	for range 40 {
		deep = &structpb.Struct{Fields: map[string]*structpb.Value{"a": structpb.NewStructValue(deep)}}
	}
	nots := &structpb.Struct{}
	for range 7 {
		nots = &structpb.Struct{Fields: map[string]*structpb.Value{"$not": structpb.NewStructValue(nots)}}
	}
	register := func(r *patternpb.RegisterRequest) func() error {
		return func() error { _, err := b.rpc.Register(b.ctx, r); return err }
	}
	enumerate := func(r *patternpb.EnumerateRequest) func() error {
		return func() error { _, err := b.rpc.Enumerate(b.ctx, r); return err }
	}
	multicast := func(r *patternpb.MulticastRequest) func() error {
		return func() error { _, err := b.rpc.Multicast(b.ctx, r); return err }
	}
	heartbeat := func(r *patternpb.HeartbeatRequest) func() error {
		return func() error { _, err := b.rpc.Heartbeat(b.ctx, r); return err }
	}
	unregister := func(r *patternpb.UnregisterRequest) func() error {
		return func() error { _, err := b.rpc.Unregister(b.ctx, r); return err }
	}
	bad := codes.InvalidArgument
	for name, row := range map[string]struct {
		call        func() error
		code        codes.Code
		field, text string
	}{
		"register without identity":  {register(&patternpb.RegisterRequest{}), bad, "identity", "must not be empty"},
		"register a long identity":   {register(&patternpb.RegisterRequest{Identity: strings.Repeat("x", 257)}), bad, "identity", "257 bytes"},
		"register what is taken":     {register(&patternpb.RegisterRequest{Identity: "taken"}), codes.AlreadyExists, "", "taken"},
		"register elsewhere":         {register(&patternpb.RegisterRequest{Namespace: "nope", Identity: "a"}), codes.NotFound, "", `namespace "nope"`},
		"register, names known":      {register(&patternpb.RegisterRequest{Namespace: "nope", Identity: "a"}), codes.NotFound, "", "this server has: default"},
		"register ttl and never":     {register(&patternpb.RegisterRequest{Identity: "a", Ttl: durationpb.New(1), NeverExpires: true}), bad, "never_expires", "ttl"},
		"register negative ttl":      {register(&patternpb.RegisterRequest{Identity: "a", Ttl: durationpb.New(-1)}), bad, "ttl", "negative"},
		"register endless ttl":       {register(&patternpb.RegisterRequest{Identity: "a", Ttl: &durationpb.Duration{Seconds: math.MaxInt64}}), bad, "ttl", "duration"},
		"register long ttl":          {register(&patternpb.RegisterRequest{Identity: "a", Ttl: &durationpb.Duration{Seconds: 300_000_000_000}}), bad, "ttl", "at most"},
		"register unknown mode":      {register(&patternpb.RegisterRequest{Identity: "a", Mode: 7}), bad, "mode", "REPLACE"},
		"register NaN":               {register(&patternpb.RegisterRequest{Identity: "a", Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{"x/y": structpb.NewNumberValue(math.NaN())}}}), bad, "metadata/x~1y", "finite"},
		"register deep metadata":     {register(&patternpb.RegisterRequest{Identity: "a", Metadata: deep}), bad, "metadata" + strings.Repeat("/a", 33), "deeper"},
		"heartbeat of nobody":        {heartbeat(&patternpb.HeartbeatRequest{Identity: "nobody"}), codes.NotFound, "", "nobody"},
		"heartbeat negative":         {heartbeat(&patternpb.HeartbeatRequest{Identity: "taken", Ttl: durationpb.New(-time.Second)}), bad, "ttl", "negative"},
		"heartbeat elsewhere":        {heartbeat(&patternpb.HeartbeatRequest{Namespace: "nope"}), codes.NotFound, "", "nope"},
		"unregister without":         {unregister(&patternpb.UnregisterRequest{}), bad, "identity", "empty"},
		"unregister elsewhere":       {unregister(&patternpb.UnregisterRequest{Namespace: "nope"}), codes.NotFound, "", "nope"},
		"enumerate, bad filter":      {enumerate(&patternpb.EnumerateRequest{Filter: obj(t, map[string]any{"room": map[string]any{"$startwith": "a"}})}), bad, "filter/room/$startwith", "did you mean"},
		"enumerate, deep filter":     {enumerate(&patternpb.EnumerateRequest{Filter: nots}), bad, "filter" + strings.Repeat("/$not", 5), "5"},
		"enumerate, page size":       {enumerate(&patternpb.EnumerateRequest{PageSize: 10_001}), bad, "page_size", "10000"},
		"enumerate, negative size":   {enumerate(&patternpb.EnumerateRequest{PageSize: -1}), bad, "page_size", ""},
		"enumerate, page token":      {enumerate(&patternpb.EnumerateRequest{PageToken: "***"}), bad, "page_token", ""},
		"enumerate elsewhere":        {enumerate(&patternpb.EnumerateRequest{Namespace: "nope"}), codes.NotFound, "", "nope"},
		"multicast too large":        {multicast(&patternpb.MulticastRequest{Payload: make([]byte, 11)}), bad, "payload", "allows 10"},
		"multicast content type":     {multicast(&patternpb.MulticastRequest{ContentType: "a\nb"}), bad, "content_type", "ASCII"},
		"multicast delivery":         {multicast(&patternpb.MulticastRequest{Delivery: 4}), bad, "delivery", "EXACTLY_ONCE"},
		"multicast report":           {multicast(&patternpb.MulticastRequest{Report: 9}), bad, "report", "COUNTS"},
		"multicast negative timeout": {multicast(&patternpb.MulticastRequest{Timeout: durationpb.New(-1)}), bad, "timeout", "negative"},
		"multicast retry delay":      {multicast(&patternpb.MulticastRequest{RetryDelay: durationpb.New(-1)}), bad, "retry_delay", "negative"},
		"multicast retry attempts":   {multicast(&patternpb.MulticastRequest{RetryAttempts: 21}), bad, "retry_attempts", "20"},
		"multicast endless retries":  {multicast(&patternpb.MulticastRequest{RetryAttempts: math.MaxUint32}), bad, "retry_attempts", "20"},
		"multicast a long key":       {multicast(&patternpb.MulticastRequest{IdempotencyKey: strings.Repeat("k", 257)}), bad, "idempotency_key", "257"},
		"multicast a key, no ledger": {multicast(&patternpb.MulticastRequest{IdempotencyKey: "k"}), codes.FailedPrecondition, "", "durability slot"},
		"multicast to too many":      {multicast(&patternpb.MulticastRequest{Filter: obj(t, map[string]any{}), MaxTargets: 1}), codes.ResourceExhausted, "", "nothing was sent"},
		"multicast bad filter":       {multicast(&patternpb.MulticastRequest{Filter: obj(t, map[string]any{"$or": 1})}), bad, "filter/$or", ""},
		"multicast elsewhere":        {multicast(&patternpb.MulticastRequest{Namespace: "nope"}), codes.NotFound, "", "nope"},
	} {
		t.Run(name, func(t *testing.T) { wantError(t, row.call(), row.code, row.field, row.text) })
	}
}

func TestMulticastReports(t *testing.T) {
	b := serve(t, Config{})
	b.register("a", "b", "c")
	c := b.attach("b")
	go func() {
		for {
			r, err := c.Recv()
			if err != nil {
				return
			}
			c.ack(r.GetMessages())
		}
	}()
	for which, want := range map[patternpb.MulticastRequest_Report]string{
		patternpb.MulticastRequest_REPORT_UNSPECIFIED: "a b c", patternpb.MulticastRequest_ALL: "a b c",
		patternpb.MulticastRequest_UNDELIVERED: "a c", patternpb.MulticastRequest_COUNTS: "",
	} {
		got, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Payload: []byte("x"), Report: which})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, s := range got.GetStatuses() {
			names = append(names, s.GetIdentity())
			if s.GetIdentity() == "b" {
				if s.GetStatus() != patternpb.DeliveryStatus_DELIVERED || s.GetEvidence() != patternpb.DeliveryStatus_ACKED || s.GetError() != "" || s.GetAttempts() != 1 || s.GetLatency() == nil {
					t.Errorf("b: %v", s)
				}
			} else if s.GetStatus() != patternpb.DeliveryStatus_FAILED || s.GetReason() != patternpb.DeliveryStatus_NO_SUBSCRIBER || s.GetError() == "" {
				t.Errorf("%s: %v", s.GetIdentity(), s)
			}
		}
		if strings.Join(names, " ") != want {
			t.Errorf("%s lists %v, want %s", which, names, want)
		}
		if got.GetTargetCount() != 3 || got.GetDeliveredCount() != 1 || got.GetFailedCount() != 2 || got.GetEnded() != patternpb.MulticastResponse_COMPLETE || got.GetMulticastId() == "" || got.GetElapsed() == nil {
			t.Errorf("%s: %v", which, got)
		}
	}
}

// The wire's enums are cast from those below; this holds their numbers together.
func TestEnumsAgree(t *testing.T) {
	for n := multicastregistry.Delivered; n <= multicastregistry.Timeout; n++ {
		if got := patternpb.DeliveryStatus_Status_name[int32(n)]; got != n.String() {
			t.Errorf("status %d is %s on the wire, %s below", n, got, n)
		}
	}
	for name, pair := range map[string][2]int32{
		"ACCEPTED":          {int32(patternpb.DeliveryStatus_ACCEPTED), int32(multicastregistry.Accepted)},
		"STORED":            {int32(patternpb.DeliveryStatus_STORED), int32(multicastregistry.Stored)},
		"ACKED":             {int32(patternpb.DeliveryStatus_ACKED), int32(multicastregistry.Acked)},
		"NO_SUBSCRIBER":     {int32(patternpb.DeliveryStatus_NO_SUBSCRIBER), int32(multicastregistry.NoSubscriber)},
		"QUEUE_FULL":        {int32(patternpb.DeliveryStatus_QUEUE_FULL), int32(multicastregistry.QueueFull)},
		"PAYLOAD_TOO_LARGE": {int32(patternpb.DeliveryStatus_PAYLOAD_TOO_LARGE), int32(multicastregistry.PayloadTooLarge)},
		"BACKEND_ERROR":     {int32(patternpb.DeliveryStatus_BACKEND_ERROR), int32(multicastregistry.BackendError)},
		"NO_ACK":            {int32(patternpb.DeliveryStatus_NO_ACK), int32(multicastregistry.NoAck)},
		"NOT_SENT":          {int32(patternpb.DeliveryStatus_NOT_SENT), int32(multicastregistry.NotSent)},
		"GONE":              {int32(patternpb.DeliveryStatus_GONE), int32(multicastregistry.Gone)},
		"EXPIRED":           {int32(patternpb.DeliveryStatus_EXPIRED), int32(multicastregistry.Expired)},
		"WITHDRAWN":         {int32(patternpb.DeliveryStatus_WITHDRAWN), int32(multicastregistry.Withdrawn)},
		"DRY_RUN":           {int32(patternpb.MulticastResponse_DRY_RUN), int32(multicastregistry.DryRun)},
		"RUNNING":           {int32(patternpb.MulticastRecord_RUNNING), int32(multicastregistry.Running)},
		"RETURNED":          {int32(patternpb.MulticastRecord_RETURNED), int32(multicastregistry.Returned)},
		"WITHDRAWN by id":   {int32(patternpb.MulticastRecord_WITHDRAWN), int32(multicastregistry.WithdrawnByID)},
		"COMPLETE":          {int32(patternpb.MulticastResponse_COMPLETE), int32(multicastregistry.Complete)},
		"DEADLINE":          {int32(patternpb.MulticastResponse_DEADLINE), int32(multicastregistry.DeadlinePassed)},
		"CANCELLED":         {int32(patternpb.MulticastResponse_CANCELLED), int32(multicastregistry.Cancelled)},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %d on the wire, %d below", name, pair[0], pair[1])
		}
	}
	// What the wire has and this table lacks would be shown wrongly.
	for of, n := range map[string][2]int{
		"Evidence": {len(patternpb.DeliveryStatus_Evidence_name), int(multicastregistry.Acked) + 1},
		"Reason":   {len(patternpb.DeliveryStatus_Reason_name), int(multicastregistry.Withdrawn) + 1},
		"Ended":    {len(patternpb.MulticastResponse_Ended_name), int(multicastregistry.DryRun) + 1},
		"State":    {len(patternpb.MulticastRecord_State_name), int(multicastregistry.WithdrawnByID) + 1},
	} {
		if n[0] != n[1] {
			t.Errorf("%s: %d values on the wire, %d below", of, n[0], n[1])
		}
	}
	for _, mode := range multicastregistry.DeliveryModes() {
		if back, err := deliveryMode(deliveryOf(mode)); err != nil || back != mode || deliveryOf(mode) == patternpb.Delivery_MODE_UNSPECIFIED {
			t.Errorf("%s goes over the wire as %s and comes back as %s, %v", mode, deliveryOf(mode), back, err)
		}
	}
}

var errSecret = errors.New("dial redis://admin:hunter2@10.0.0.7")

func TestErrorMapping(t *testing.T) {
	type row struct {
		fail func(ctx context.Context) error
		code codes.Code
		text string
	}
	wrap := func(err error) func(context.Context) error {
		return func(context.Context) error { return fmt.Errorf("redis: put: %w", err) }
	}
	for name, r := range map[string]row{
		"not found":      {wrap(multicastregistry.ErrNotFound), codes.NotFound, "redis: put"},
		"already exists": {wrap(multicastregistry.ErrAlreadyExists), codes.AlreadyExists, ""},
		"quota":          {wrap(multicastregistry.ErrQuota), codes.ResourceExhausted, ""},
		"unsupported":    {wrap(multicastregistry.ErrUnsupported), codes.FailedPrecondition, ""},
		"unavailable":    {wrap(multicastregistry.ErrUnavailable), codes.Unavailable, ""},
		"invalid":        {wrap(multicastregistry.ErrInvalid), codes.InvalidArgument, ""},
		"own timeout":    {wrap(context.DeadlineExceeded), codes.DeadlineExceeded, ""},
		"both":           {wrap(errors.Join(multicastregistry.ErrUnavailable, context.DeadlineExceeded)), codes.Unavailable, ""},
		"anything else":  {wrap(errSecret), codes.Internal, "request id test-7"},
		"not UTF-8":      {wrap(fmt.Errorf("%w: \xff", multicastregistry.ErrNotFound)), codes.NotFound, "\uFFFD"},
		"panic":          {func(context.Context) error { panic("hunter2") }, codes.Internal, "request id test-7"},
	} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, Config{}, fill{registry: &brokenRegistry{fail: r.fail}})
			ctx := metadata.AppendToOutgoingContext(b.ctx, requestIDHeader, "test-7")
			var header metadata.MD
			_, err := b.rpc.Register(ctx, &patternpb.RegisterRequest{Identity: "a"}, grpc.Header(&header))
			wantError(t, err, r.code, "", r.text)
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the caller sees %v", err)
			}
			if got := header.Get(requestIDHeader); len(got) != 1 || got[0] != "test-7" {
				t.Errorf("request id %v, want test-7", got)
			}
			if r.code == codes.Internal && (!strings.Contains(b.log.String(), "hunter2") || !strings.Contains(b.log.String(), "test-7")) {
				t.Errorf("the log lacks the cause: %s", b.log)
			}
			if _, err := b.rpc.Unregister(ctx, &patternpb.UnregisterRequest{Identity: "a"}); err == nil {
				t.Error("unregister succeeded")
			}
			if list, err := b.rpc.ListNamespaces(ctx, &patternpb.ListNamespacesRequest{}); name != "panic" && (err != nil || list.GetNamespaces()[0].IdentityCount != nil) {
				t.Errorf("list namespaces: %v, %v, want one without a count", list, err)
			}
		})
	}
}

func TestCallersTimeIsUp(t *testing.T) {
	b := serve(t, Config{}, fill{registry: &brokenRegistry{fail: func(ctx context.Context) error {
		<-ctx.Done()
		return errors.Join(multicastregistry.ErrUnavailable, ctx.Err())
	}}})
	ctx, cancel := context.WithTimeout(b.ctx, 50*time.Millisecond)
	defer cancel()
	_, err := b.rpc.Register(ctx, &patternpb.RegisterRequest{Identity: "a"})
	wantError(t, err, codes.DeadlineExceeded, "", "")
	<-ctx.Done() // the server's clock may have been first
	if st := convert(ctx, errors.Join(multicastregistry.ErrUnavailable, ctx.Err())); st.Code() != codes.DeadlineExceeded {
		t.Errorf("got %s, want DeadlineExceeded", st.Code())
	}
	gone, leave := context.WithCancel(b.ctx)
	leave()
	if st := convert(gone, gone.Err()); st.Code() != codes.Canceled {
		t.Errorf("got %s, want Canceled", st.Code())
	}
}

func TestRequestIDs(t *testing.T) {
	b := serve(t, Config{})
	for given, kept := range map[string]bool{"abc-1": true, strings.Repeat("x", 128): true, strings.Repeat("x", 129): false, "a b": false, "": false} {
		var header metadata.MD
		ctx := metadata.AppendToOutgoingContext(b.ctx, requestIDHeader, given)
		if _, err := b.rpc.ListNamespaces(ctx, &patternpb.ListNamespacesRequest{}, grpc.Header(&header)); err != nil {
			t.Fatal(err)
		}
		got := header.Get(requestIDHeader)
		if len(got) != 1 || (got[0] == given) != kept || got[0] == "" {
			t.Errorf("%q came back as %q", given, got)
		}
	}
}

func TestHealthAndReflection(t *testing.T) {
	b := serve(t, Config{})
	for _, name := range []string{"", "prism.pattern.MulticastRegistryPattern"} {
		got, err := grpc_health_v1.NewHealthClient(b.conn).Check(b.ctx, &grpc_health_v1.HealthCheckRequest{Service: name})
		if err != nil || got.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v, %v", name, got, err)
		}
	}
	stream, err := grpc_reflection_v1.NewServerReflectionClient(b.conn).ServerReflectionInfo(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}})
	got, err := stream.Recv()
	if err != nil || !strings.Contains(got.String(), "prism.pattern.MulticastRegistryPattern") {
		t.Errorf("reflection: %v, %v", got, err)
	}
	_ = stream.CloseSend()
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "no namespace") {
		t.Errorf("no namespaces: %v", err)
	}
	b := serve(t, Config{})
	n := b.serving.Load().namespaces["default"].Namespace
	if _, err := New(Config{Namespaces: []Namespace{n, n}}); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("one namespace twice: %v", err)
	}
}

// hostile are names that have reached the wrong subscriber, or the wrong key, somewhere.
var hostile = []string{
	"*", ">", ".", "..", "a.b", "a b", " ", "a\r\nb", "a\x00b", "x/y", "/", "//", "a//b", "%", "%2F", "%25", "a%2Fb", "100%", "a:heartbeat", "a:subscribe",
	":", ":heartbeat", "a:b:c", "ünïcødé", "日本語", "🛰", "a?b=c", "a#b", "a&b", "a+b", "a;b", "{id}", "\"quoted\"", "<tag>", "\\", "=2F",
	strings.Repeat("x", 256), strings.Repeat("é", 128), "identities", "default", "a\tb", "\u202eevil", "~", "'", "a,b", "[a]", "-", "_",
}

func TestHostileIdentities(t *testing.T) {
	b := serve(t, Config{})
	b.register(hostile...)
	for _, id := range hostile {
		if _, err := b.rpc.Heartbeat(b.ctx, &patternpb.HeartbeatRequest{Identity: id}); err != nil {
			t.Errorf("heartbeat of %q: %v", id, err)
		}
	}
	c := b.attach(hostile...)
	done := make(chan error, 1)
	go func() {
		seen := make(map[string]int)
		for range hostile {
			r, err := c.Recv()
			if err != nil {
				done <- err
				return
			}
			for _, m := range r.GetMessages().GetMessages() {
				seen[m.GetIdentity()]++
			}
			c.ack(r.GetMessages())
			if len(seen) == len(hostile) {
				break
			}
		}
		done <- nil
	}()
	got, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Payload: []byte("x")})
	if err != nil || int(got.GetDeliveredCount()) != len(hostile) || int(got.GetTargetCount()) != len(hostile) {
		t.Errorf("multicast: %v, %v", got, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, id := range hostile {
		if gone, err := b.rpc.Unregister(b.ctx, &patternpb.UnregisterRequest{Identity: id}); err != nil || !gone.GetExisted() {
			t.Errorf("unregister %q: %v, %v", id, gone, err)
		}
	}
}
