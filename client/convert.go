package client

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// toStruct turns JSON as Go holds it into its form on the wire. A nil map is a nil Struct. Its errors are InvalidErrors
// whose field begins with the given name and goes on as a JSON pointer.
func toStruct(field string, object map[string]any) (*structpb.Struct, error) {
	if object == nil {
		return nil, nil
	}
	canonical, err := multicastregistry.CopyMetadata(object)
	if err != nil {
		if bad, ok := errors.AsType[*InvalidError](err); ok {
			return nil, &InvalidError{Field: field + strings.TrimPrefix(bad.Field, "metadata"), Problem: bad.Problem}
		}
		return nil, err
	}
	s, bad := wireObject(canonical)
	if bad != nil {
		return nil, bad.under(field)
	}
	return s, nil
}

// inexact is an integer that a double cannot hold, and the way to it from the inside out.
type inexact struct {
	path  []string
	value any
}

func (e *inexact) under(field string) error {
	var pointer strings.Builder
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	for _, part := range slices.Backward(e.path) {
		pointer.WriteString("/" + escape.Replace(part))
	}
	return &InvalidError{Field: field + pointer.String(), Problem: fmt.Sprintf(
		"the integer %d cannot travel exactly, because numbers travel as doubles; send it as a string", e.value)}
}

func wireObject(object map[string]any) (*structpb.Struct, *inexact) {
	fields := make(map[string]*structpb.Value, len(object))
	for key, value := range object {
		wire, bad := wireValue(value)
		if bad != nil {
			bad.path = append(bad.path, key)
			return nil, bad
		}
		fields[key] = wire
	}
	return &structpb.Struct{Fields: fields}, nil
}

// wireValue takes what CopyMetadata gives.
func wireValue(value any) (*structpb.Value, *inexact) {
	switch v := value.(type) {
	case bool:
		return structpb.NewBoolValue(v), nil
	case string:
		return structpb.NewStringValue(v), nil
	case float64:
		return structpb.NewNumberValue(v), nil
	case int64:
		f := float64(v)
		if f >= 1<<63 || int64(f) != v {
			return nil, &inexact{value: v}
		}
		return structpb.NewNumberValue(f), nil
	case uint64:
		f := float64(v)
		if f >= 1<<64 || uint64(f) != v {
			return nil, &inexact{value: v}
		}
		return structpb.NewNumberValue(f), nil
	case []any:
		values := make([]*structpb.Value, len(v))
		for i, inner := range v {
			wire, bad := wireValue(inner)
			if bad != nil {
				bad.path = append(bad.path, strconv.Itoa(i))
				return nil, bad
			}
			values[i] = wire
		}
		return structpb.NewListValue(&structpb.ListValue{Values: values}), nil
	case map[string]any:
		object, bad := wireObject(v)
		return structpb.NewStructValue(object), bad
	default:
		return structpb.NewNullValue(), nil
	}
}

// fromStruct returns nil for an unset Struct, and otherwise one Go type for each value: see the package's documentation.
func fromStruct(s *structpb.Struct) map[string]any {
	if s == nil {
		return nil
	}
	object := make(map[string]any, len(s.GetFields()))
	for key, value := range s.GetFields() {
		object[key] = fromValue(value)
	}
	return object
}

func fromValue(value *structpb.Value) any {
	switch v := value.GetKind().(type) {
	case *structpb.Value_BoolValue:
		return v.BoolValue
	case *structpb.Value_StringValue:
		return v.StringValue
	case *structpb.Value_NumberValue:
		number, _ := filter.Scalar(v.NumberValue)
		return number
	case *structpb.Value_ListValue:
		list := make([]any, len(v.ListValue.GetValues()))
		for i, inner := range v.ListValue.GetValues() {
			list[i] = fromValue(inner)
		}
		return list
	case *structpb.Value_StructValue:
		return fromStruct(v.StructValue)
	default:
		return nil
	}
}

// fromIdentity takes an identity out of a message that was not received lazily. What is unset is a lease without an end.
// Metadata that no server would have taken is left out.
func fromIdentity(p *patternpb.Identity) Identity {
	identity := Identity{ID: p.GetIdentity(), TTL: fromTTL(p.GetTtl()), Revision: Revision(p.GetRevision())}
	if p.GetRegisteredAt() != nil {
		identity.RegisteredAt = p.GetRegisteredAt().AsTime()
	}
	if p.GetExpiresAt() != nil {
		identity.ExpiresAt = p.GetExpiresAt().AsTime()
	}
	if p.GetMetadata() != nil {
		encoded, err := proto.Marshal(p.GetMetadata())
		if err == nil && checkObject(string(encoded), 0) == nil {
			identity.metadata, identity.has = string(encoded), true
		}
	}
	return identity
}

func fromTTL(ttl *durationpb.Duration) time.Duration {
	if ttl == nil {
		return NoExpiry
	}
	return ttl.AsDuration()
}

// duration leaves 0, which means the default, unset.
func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

func fromMessage(p *patternpb.Message) Message {
	m := Message{
		Identity: p.GetIdentity(), ID: p.GetMessageId(), ContentType: p.GetContentType(), Payload: p.GetPayload(),
		AckWanted: p.GetAckWanted(), Redelivered: p.GetRedelivered(),
		Once: p.GetOnce(), TraceParent: p.GetTraceparent(),
	}
	if p.GetSentAt() != nil {
		m.SentAt = p.GetSentAt().AsTime()
	}
	return m
}

// checkText keeps text that protobuf would refuse to carry from looking like a fault of the server.
func checkText(field, text string) error {
	if !utf8.ValidString(text) {
		return &InvalidError{Field: field, Problem: "is not valid UTF-8"}
	}
	return nil
}
