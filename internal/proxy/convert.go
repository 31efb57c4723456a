package proxy

import (
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// object turns a Struct into what the layers below take. Unlike Struct.AsMap it keeps numbers that are not finite, so that
// they are refused below with their place instead of becoming strings.
func object(s *structpb.Struct) map[string]any {
	out := make(map[string]any, len(s.GetFields()))
	for key, v := range s.GetFields() {
		out[key] = value(v)
	}
	return out
}

func value(v *structpb.Value) any {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_BoolValue:
		return kind.BoolValue
	case *structpb.Value_NumberValue:
		return kind.NumberValue
	case *structpb.Value_StringValue:
		return kind.StringValue
	case *structpb.Value_StructValue:
		return object(kind.StructValue)
	case *structpb.Value_ListValue:
		list := make([]any, len(kind.ListValue.GetValues()))
		for i, inner := range kind.ListValue.GetValues() {
			list[i] = value(inner)
		}
		return list
	}
	return nil
}

// expr reads a request's filter within the namespace's limits. Nil matches every identity.
func expr(limits filter.Limits, s *structpb.Struct) (*filter.Expr, error) {
	if s == nil {
		return nil, nil
	}
	return limits.ParseValue(object(s))
}

// span reads a duration of a request that must not be negative: -1 ns would be NoExpiry to the layers below.
func span(field string, d *durationpb.Duration) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if d.CheckValid() != nil {
		return 0, invalid(field, "is not a duration")
	}
	out := d.AsDuration()
	switch {
	case out < 0:
		return 0, invalid(field, "must not be negative")
	case out == math.MaxInt64: // AsDuration cuts off what does not fit
		return 0, invalid(field, fmt.Sprintf("is %d s, at most %d are possible", d.GetSeconds(), int64(math.MaxInt64/time.Second)))
	}
	return out, nil
}

// lease shows a TTL: unset means never.
func lease(ttl time.Duration) *durationpb.Duration {
	if ttl == multicastregistry.NoExpiry {
		return nil
	}
	return durationpb.New(ttl)
}

// moment shows a time: unset means never.
func moment(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// identity shows what was registered; its metadata is what the request said.
func identity(i multicastregistry.Identity, metadata *structpb.Struct) *patternpb.Identity {
	return &patternpb.Identity{
		Identity: i.ID, RegisteredAt: moment(i.RegisteredAt), ExpiresAt: moment(i.ExpiresAt), Ttl: lease(i.TTL),
		Revision: uint64(i.Revision), Metadata: metadata,
	}
}

func putMode(m patternpb.RegisterRequest_Mode) (multicastregistry.PutMode, error) {
	switch m {
	case patternpb.RegisterRequest_MODE_UNSPECIFIED, patternpb.RegisterRequest_CREATE:
		return multicastregistry.Create, nil
	case patternpb.RegisterRequest_REPLACE:
		return multicastregistry.Replace, nil
	}
	return 0, invalid("mode", "must be CREATE or REPLACE")
}

func deliveryMode(m patternpb.Delivery_Mode) (multicastregistry.DeliveryMode, error) {
	switch m {
	case patternpb.Delivery_MODE_UNSPECIFIED:
		return "", nil
	case patternpb.Delivery_AT_MOST_ONCE:
		return multicastregistry.AtMostOnce, nil
	case patternpb.Delivery_AT_LEAST_ONCE:
		return multicastregistry.AtLeastOnce, nil
	case patternpb.Delivery_EXACTLY_ONCE:
		return multicastregistry.ExactlyOnce, nil
	}
	return "", invalid("delivery", "must be AT_MOST_ONCE, AT_LEAST_ONCE or EXACTLY_ONCE")
}

func deliveryOf(m multicastregistry.DeliveryMode) patternpb.Delivery_Mode {
	switch m {
	case multicastregistry.AtMostOnce:
		return patternpb.Delivery_AT_MOST_ONCE
	case multicastregistry.AtLeastOnce:
		return patternpb.Delivery_AT_LEAST_ONCE
	case multicastregistry.ExactlyOnce:
		return patternpb.Delivery_EXACTLY_ONCE
	}
	return patternpb.Delivery_MODE_UNSPECIFIED
}

// checkReport refuses a report that a newer client may know.
func checkReport(which patternpb.MulticastRequest_Report) error {
	if _, known := patternpb.MulticastRequest_Report_name[int32(which)]; !known {
		return invalid("report", "must be ALL, UNDELIVERED or COUNTS")
	}
	return nil
}

// reported tells whether a report lists a target.
func reported(t *multicastregistry.Target, which patternpb.MulticastRequest_Report) bool {
	switch which {
	case patternpb.MulticastRequest_COUNTS:
		return false
	case patternpb.MulticastRequest_UNDELIVERED:
		return t.Status != multicastregistry.Delivered
	}
	return true
}

// report lists the targets that a request's report asks for.
func report(targets []multicastregistry.Target, which patternpb.MulticastRequest_Report) []*patternpb.DeliveryStatus {
	var out []*patternpb.DeliveryStatus
	for i := range targets {
		if t := &targets[i]; reported(t, which) {
			out = append(out, deliveryStatus(t))
		}
	}
	return out
}

// deliveryStatus shows one target. The enums of the wire have the numbers of those below; a test holds them together.
func deliveryStatus(t *multicastregistry.Target) *patternpb.DeliveryStatus {
	out := &patternpb.DeliveryStatus{
		Identity: t.Identity,
		Status:   patternpb.DeliveryStatus_Status(t.Status),
		Evidence: patternpb.DeliveryStatus_Evidence(t.Evidence),
		Reason:   patternpb.DeliveryStatus_Reason(t.Reason),
		Attempts: uint32(t.Attempts),

		ReplyCode: t.Reply.Code, ReplyBody: t.Reply.Body,
	}
	if t.Err != nil {
		out.Error = clean(t.Err.Error())
	}
	if t.Attempts > 0 {
		out.Latency = durationpb.New(t.Latency)
	}
	return out
}

func message(m *multicastregistry.Message) *patternpb.Message {
	return &patternpb.Message{
		Identity: m.Identity, MessageId: m.ID, Payload: m.Payload, ContentType: m.ContentType, SentAt: moment(m.SentAt),
		AckWanted: m.AckTo != "", Redelivered: m.Redelivered, Once: m.Once, Traceparent: m.TraceParent,
	}
}
