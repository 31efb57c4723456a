package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func TestMetadataRoundTrip(t *testing.T) {
	for _, row := range []struct{ give, want any }{
		{nil, nil},
		{true, true},
		{"", ""},
		{"ü\x00\n", "ü\x00\n"},
		{0, int64(0)},
		{-7, int64(-7)},
		{uint8(7), int64(7)},
		{7.0, int64(7)},
		{json.Number("7.0"), int64(7)},
		{0.1, 0.1},
		{float32(0.5), 0.5},
		{-1e300, -1e300},
		{5e-324, 5e-324},
		{1 << 53, int64(1 << 53)},
		{int64(math.MinInt64), int64(math.MinInt64)},
		{int64(1 << 62), int64(1 << 62)},
		{uint64(1 << 63), uint64(1 << 63)},
		{json.Number("1e3"), int64(1000)},
		{[]any{}, []any{}},
		{[]string{"a"}, []any{"a"}},
		{[]any{1, []any{nil}}, []any{int64(1), []any{nil}}},
		{map[string]any{}, map[string]any{}},
		{map[string]any{"a.b": map[string]any{"": 1}}, map[string]any{"a.b": map[string]any{"": int64(1)}}},
	} {
		wire, err := toStruct("metadata", map[string]any{"x": row.give})
		if err != nil {
			t.Errorf("%#v: %v", row.give, err)
			continue
		}
		got := fromStruct(wire)
		if !reflect.DeepEqual(got, map[string]any{"x": row.want}) {
			t.Errorf("%#v came back as %#v, want %#v", row.give, got["x"], row.want)
		}
		again, err := multicastregistry.CopyMetadata(got)
		if err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%#v is not canonical: a copy is %#v, %v", got, again, err)
		}
	}
	if s, err := toStruct("filter", nil); s != nil || err != nil || fromStruct(nil) != nil {
		t.Error("nil does not stay nil")
	}
}

func TestInexactIntegersAreRefused(t *testing.T) {
	for _, n := range []any{
		1<<53 + 1, -(1<<53 + 1), int64(math.MaxInt64), uint64(math.MaxUint64), uint64(1<<63 + 1), json.Number("9007199254740993"),
	} {
		_, err := toStruct("metadata", map[string]any{"a/b": []any{0, map[string]any{"~": n}}})
		var invalid *InvalidError
		if !errors.As(err, &invalid) || invalid.Field != "metadata/a~1b/1/~0" {
			t.Errorf("%v: got %v, want an InvalidError that points to it", n, err)
		}
	}
}

func TestErrorsFromCodes(t *testing.T) {
	c := &Client{server: "host:1"}
	detailed, err := status.New(codes.InvalidArgument, "ttl: is too long").WithDetails(&errdetails.BadRequest{
		FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "ttl", Description: "is too long"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	bare, err := status.New(codes.InvalidArgument, "is too long").WithDetails(&errdetails.ErrorInfo{}, &errdetails.BadRequest{
		FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "ttl"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		give    error
		want    error
		text    string
		endless bool
	}{
		{detailed.Err(), ErrInvalid, "ttl: is too long", true},
		{bare.Err(), ErrInvalid, "ttl: is too long", true},
		{status.Error(codes.InvalidArgument, "bad"), ErrInvalid, "bad", true},
		{status.Error(codes.OutOfRange, "bad"), ErrInvalid, "bad", true},
		{status.Error(codes.NotFound, "gone"), ErrNotFound, "gone", true},
		{status.Error(codes.AlreadyExists, "there"), ErrAlreadyExists, "there", false},
		{status.Error(codes.ResourceExhausted, "full"), ErrQuota, "full", false},
		{status.Error(codes.FailedPrecondition, "no"), ErrUnsupported, "no", true},
		{status.Error(codes.Unimplemented, "no"), ErrUnsupported, "no", true},
		{status.Error(codes.Unavailable, "away"), ErrUnavailable, "server host:1: away", false},
		{status.Error(codes.Unavailable, `connection error: desc = "transport: Error while dialing: dial tcp 1.2.3.4:5: refused"`), ErrUnavailable, "server host:1: dial tcp 1.2.3.4:5: refused", false},
		{io.EOF, ErrUnavailable, "server host:1: the server ended the stream", false},
		{status.Error(codes.DeadlineExceeded, "late"), context.DeadlineExceeded, "server host:1: late", false},
		{status.Error(codes.Canceled, "stop"), context.Canceled, "stop", false},
		{status.Error(codes.Canceled, "grpc: the client connection is closing"), ErrClosed, "the client is closed", true},
		{status.Error(codes.PermissionDenied, "you"), nil, "you", true},
		{status.Error(codes.Unauthenticated, "who"), nil, "who", true},
		{status.Error(codes.Internal, ""), nil, "internal", false},
		{errors.New("odd"), nil, "odd", false},
	} {
		got := c.failed(row.give)
		if row.want != nil && !errors.Is(got, row.want) || got.Error() != row.text {
			t.Errorf("%v became %v, want %q which is %v", row.give, got, row.text, row.want)
		}
		if endless(got) != row.endless {
			t.Errorf("%v: endless is %v", got, !row.endless)
		}
		if from, ok := status.FromError(row.give); ok && status.Code(got) != from.Code() {
			t.Errorf("%v lost its code: %v", row.give, status.Code(got))
		}
		for _, other := range []error{ErrInvalid, ErrNotFound, ErrAlreadyExists, ErrQuota, ErrUnsupported, ErrUnavailable, ErrClosed} {
			if !errors.Is(other, row.want) && errors.Is(got, other) {
				t.Errorf("%v is also %v", got, other)
			}
		}
	}
	if c.failed(nil) != nil {
		t.Error("no error became one")
	}
}

func TestCode(t *testing.T) {
	c := &Client{}
	for want, err := range map[string]error{
		"OK": nil, "UNAVAILABLE": c.failed(status.Error(codes.Unavailable, "away")), "DEADLINE_EXCEEDED": context.DeadlineExceeded,
		"CANCELLED": context.Canceled, "UNKNOWN": errors.New("odd"), "NOT_FOUND": c.failed(status.Error(codes.NotFound, "gone")),
	} {
		if got := Code(err); got != want {
			t.Errorf("%v has the code %s, want %s", err, got, want)
		}
	}
}

func TestTargetErrors(t *testing.T) {
	for reason, want := range map[Reason]error{
		NoSubscriber: ErrNoSubscriber, QueueFull: ErrQueueFull, PayloadTooLarge: ErrTooLarge, Gone: ErrGone, BackendError: nil, NoAck: nil,
	} {
		err := targetErr(reason, "why")
		if err == nil || err.Error() != "why" || want != nil && !errors.Is(err, want) {
			t.Errorf("reason %d: %v", reason, err)
		}
	}
	if targetErr(0, "") != nil {
		t.Error("a delivered target has an error")
	}
}

// The enums of the wire are read as those of this package, so their numbers must agree.
func TestWireNumbers(t *testing.T) {
	for _, row := range []struct {
		name       string
		ours, wire int
	}{
		{"Delivered", int(Delivered), int(patternpb.DeliveryStatus_DELIVERED)},
		{"Pending", int(Pending), int(patternpb.DeliveryStatus_PENDING)},
		{"Failed", int(Failed), int(patternpb.DeliveryStatus_FAILED)},
		{"Timeout", int(Timeout), int(patternpb.DeliveryStatus_TIMEOUT)},
		{"Accepted", int(Accepted), int(patternpb.DeliveryStatus_ACCEPTED)},
		{"Stored", int(Stored), int(patternpb.DeliveryStatus_STORED)},
		{"Acked", int(Acked), int(patternpb.DeliveryStatus_ACKED)},
		{"NoSubscriber", int(NoSubscriber), int(patternpb.DeliveryStatus_NO_SUBSCRIBER)},
		{"QueueFull", int(QueueFull), int(patternpb.DeliveryStatus_QUEUE_FULL)},
		{"PayloadTooLarge", int(PayloadTooLarge), int(patternpb.DeliveryStatus_PAYLOAD_TOO_LARGE)},
		{"BackendError", int(BackendError), int(patternpb.DeliveryStatus_BACKEND_ERROR)},
		{"NoAck", int(NoAck), int(patternpb.DeliveryStatus_NO_ACK)},
		{"NotSent", int(NotSent), int(patternpb.DeliveryStatus_NOT_SENT)},
		{"Gone", int(Gone), int(patternpb.DeliveryStatus_GONE)},
		{"Expired", int(Expired), int(patternpb.DeliveryStatus_EXPIRED)},
		{"Withdrawn", int(Withdrawn), int(patternpb.DeliveryStatus_WITHDRAWN)},
		{"Running", int(Running), int(patternpb.MulticastRecord_RUNNING)},
		{"Returned", int(Returned), int(patternpb.MulticastRecord_RETURNED)},
		{"WithdrawnByID", int(WithdrawnByID), int(patternpb.MulticastRecord_WITHDRAWN)},
		{"DryRun", int(DryRun), int(patternpb.MulticastResponse_DRY_RUN)},
		{"Complete", int(Complete), int(patternpb.MulticastResponse_COMPLETE)},
		{"DeadlinePassed", int(DeadlinePassed), int(patternpb.MulticastResponse_DEADLINE)},
		{"Cancelled", int(Cancelled), int(patternpb.MulticastResponse_CANCELLED)},
	} {
		if row.ours != row.wire {
			t.Errorf("%s is %d here and %d on the wire", row.name, row.ours, row.wire)
		}
	}
	newer := fromStatus(&patternpb.DeliveryStatus{Status: 99, Reason: 99, Evidence: 99, Error: "new"})
	if newer.Status.String() != "UNKNOWN" || newer.Err == nil {
		t.Errorf("the status of a newer server is %+v", newer)
	}
	for _, mode := range []DeliveryMode{"", AtMostOnce, AtLeastOnce, ExactlyOnce} {
		if wire, err := toDelivery(mode); err != nil || fromDelivery(wire) != mode {
			t.Errorf("%q became %v, %v", mode, wire, err)
		}
	}
}

// What cannot be sent is refused here, with the name of the field.
func TestMulticastRequestIsChecked(t *testing.T) {
	c := &Client{namespace: "default"}
	for _, row := range []struct {
		field string
		r     MulticastRequest
	}{
		{"filter/x", MulticastRequest{Filter: map[string]any{"x": uint64(math.MaxUint64)}}},
		{"content_type", MulticastRequest{ContentType: "\xff"}},
		{"idempotency_key", MulticastRequest{IdempotencyKey: "\xff"}},
		{"idempotency_key", MulticastRequest{IdempotencyKey: strings.Repeat("k", 257)}},
		{"delivery", MulticastRequest{Delivery: "perhaps"}},
		{"report", MulticastRequest{Report: 9}},
		{"timeout", MulticastRequest{Timeout: -1}},
		{"retry_delay", MulticastRequest{RetryDelay: -time.Second}},
		{"max_targets", MulticastRequest{MaxTargets: -1}},
		{"max_targets", MulticastRequest{MaxTargets: math.MaxUint32 + 1}},
		{"retry_attempts", MulticastRequest{RetryAttempts: -1}},
		{"retry_attempts", MulticastRequest{RetryAttempts: math.MaxInt}},
	} {
		_, err := c.multicastRequest(row.r)
		var invalid *InvalidError
		if !errors.As(err, &invalid) || invalid.Field != row.field {
			t.Errorf("%+v: got %v, want an InvalidError about %s", row.r, err, row.field)
		}
	}
	got, err := c.multicastRequest(MulticastRequest{
		Filter: map[string]any{"a": 1}, Payload: []byte("p"), ContentType: "t", Delivery: ExactlyOnce, Timeout: time.Second,
		RetryAttempts: 2, RetryDelay: time.Minute, IdempotencyKey: strings.Repeat("k", 256), MaxTargets: math.MaxUint32, DryRun: true,
		Report: ReportCounts,
	})
	want := &patternpb.MulticastRequest{
		Namespace: "default", Filter: &structpb.Struct{Fields: map[string]*structpb.Value{"a": structpb.NewNumberValue(1)}},
		Payload: []byte("p"), ContentType: "t", Delivery: patternpb.Delivery_EXACTLY_ONCE, Timeout: durationpb.New(time.Second),
		RetryAttempts: 2, RetryDelay: durationpb.New(time.Minute), IdempotencyKey: strings.Repeat("k", 256),
		MaxTargets: math.MaxUint32, DryRun: true, Report: patternpb.MulticastRequest_COUNTS,
	}
	if err != nil || !proto.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

// Counts of a multicast whose targets came in several pages are those of its targets.
func TestRecount(t *testing.T) {
	r := Result{TargetCount: 9, Delivered: 9, Targets: []Target{
		{Status: Delivered, Evidence: Acked},
		{Status: Delivered, Evidence: Acked, Reply: Reply{Code: 7}},
		{Status: Delivered, Evidence: Accepted},
		{Status: Pending, Evidence: Stored},
		{Status: Failed},
		{Status: Timeout},
		{Status: 99},
	}}
	r.recount()
	if r.TargetCount != 7 || r.Delivered != 3 || r.Pending != 1 || r.Failed != 1 || r.TimedOut != 1 ||
		!reflect.DeepEqual(r.Replies, map[uint32]int{0: 1, 7: 1}) {
		t.Errorf("%+v", r)
	}
}

func TestRetryGrows(t *testing.T) {
	var r retry
	for i, ms := range []int{50, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000} {
		most := time.Duration(ms) * time.Millisecond
		if got := r.next(); got < most/2 || got > most {
			t.Errorf("failure %d: waits %s, want between %s and %s", i+1, got, most/2, most)
		}
	}
}

// slowSender is a sending half whose every Send waits for the test.
type slowSender struct {
	sent   chan *patternpb.SubscribeRequest
	closed bool
	broken error
}

func (s *slowSender) Send(r *patternpb.SubscribeRequest) error {
	s.sent <- r
	return s.broken
}

func (s *slowSender) CloseSend() error {
	s.closed = true
	return nil
}

// Acks that gather while something is being sent go out together, and keep their place among the other requests.
func TestOutboxBatchesAcks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, to := newOutbox(), &slowSender{sent: make(chan *patternpb.SubscribeRequest)}
		ended := make(chan struct{})
		go func() {
			o.run(to, make(chan struct{}))
			close(ended)
		}()
		name := func(i int) []MessageName { return []MessageName{{Identity: "a", ID: strconv.Itoa(i)}} }
		o.ack(name(-1), Reply{})
		synctest.Wait() // it is being sent
		for i := range acksAtOnce + 1 {
			o.ack(name(i), Reply{})
		}
		o.put(detach([]string{"a"}))
		o.ack(name(-2), Reply{})
		o.ack(name(-3), Reply{})
		o.close()
		var got []int
		for range 5 {
			r := <-to.sent
			got = append(got, len(r.GetAcks().GetAcks()))
		}
		<-ended
		if want := []int{1, acksAtOnce, 1, 0, 2}; !reflect.DeepEqual(got, want) || !to.closed {
			t.Errorf("requests of %v acks, closed: %v; want %v", got, to.closed, want)
		}
	})
}

// However large the replies are, a request of acks stays below gRPC's limit, and nothing is lost.
func TestOutboxBoundsReplies(t *testing.T) {
	o := newOutbox()
	const acks = 2000
	for i := range acks {
		o.ack([]MessageName{{Identity: "a", ID: strconv.Itoa(i)}}, Reply{Code: uint32(i), Body: make([]byte, MaxReplyBytes)})
	}
	o.put(detach([]string{"a"}))
	o.ack([]MessageName{{Identity: "a", ID: strconv.Itoa(acks)}}, Reply{Code: acks})
	requests, got := 0, uint32(0)
	for r, _ := o.next(); r != nil; r, _ = o.next() {
		if size := proto.Size(r); size > ackBytesAtOnce+MaxReplyBytes*2 {
			t.Errorf("a request of %d bytes", size)
		}
		requests++
		for _, ack := range r.GetAcks().GetAcks() {
			if ack.GetReplyCode() != got || ack.GetMessageId() != strconv.Itoa(int(got)) {
				t.Fatalf("ack %d is %v", got, ack)
			}
			got++
		}
	}
	if got != acks+1 || requests != 10 { // eight of acks, one that detaches, and one of acks behind it
		t.Errorf("%d acks in %d requests", got, requests)
	}
}

func TestOutboxEndsWithTheStream(t *testing.T) {
	synctest.Test(t, func(*testing.T) {
		o, to := newOutbox(), &slowSender{sent: make(chan *patternpb.SubscribeRequest, 1), broken: io.EOF}
		o.ack([]MessageName{{}}, Reply{})
		o.run(to, make(chan struct{}))
		ended := make(chan struct{})
		close(ended)
		newOutbox().run(to, ended)
	})
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	c := &Client{server: "here:1"}
	for message, want := range map[string]bool{
		`connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`: true,
		"name resolver error: produced zero addresses":                                                                 true,
		"redis: put \"dev-7\": unavailable: connection refused":                                                        false,
	} {
		if got := Unreachable(c.failed(status.Error(codes.Unavailable, message))); got != want {
			t.Errorf("%s: %v", message, got)
		}
	}
	if Unreachable(c.failed(status.Error(codes.NotFound, "connection error"))) || Unreachable(nil) {
		t.Error("what is not UNAVAILABLE is unreachable")
	}
}
