package tracing

import (
	"context"
	"errors"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// Attributes of spans that are Prism's own.
const (
	// NamespaceKey is the namespace that the call is about.
	NamespaceKey = attribute.Key("prism.namespace")
	// BackendKey is the type of the backend in the slot.
	BackendKey = attribute.Key("prism.backend")
	// CountKey is how many messages, targets or identities an operation is about, and FailedKey how many of them failed.
	CountKey  = attribute.Key("prism.count")
	FailedKey = attribute.Key("prism.failed")
)

// maxDescription bounds what a span tells of an error, in bytes.
const maxDescription = 256

// Slots returns what makes the spans of the operations on a namespace's slots, which have these types of backends; nil when
// tracing is off.
func (t *Tracing) Slots(namespace, registry, messaging, durability string) multicastregistry.Tracer {
	if t == nil {
		return nil
	}
	s := &slots{tracer: t.tracer, named: make(map[string][]trace.SpanStartOption)}
	for slot, backend := range map[string]string{
		"registry": registry, "messaging": messaging, "durability": durability, "ledger": durability, "multicast": "",
	} {
		about := []attribute.KeyValue{NamespaceKey.String(namespace)}
		if backend != "" {
			about = append(about, BackendKey.String(backend))
		}
		s.named[slot] = []trace.SpanStartOption{trace.WithAttributes(about...)}
	}
	return s
}

// slots implements multicastregistry.Tracer.
type slots struct {
	tracer trace.Tracer
	named  map[string][]trace.SpanStartOption // by slot
}

// Begin implements multicastregistry.Tracer. Spans are made within those that are recorded, and nowhere else: what a server does
// by itself, and on a stream whose span has ended, is in no trace.
func (s *slots) Begin(ctx context.Context, operation string) (context.Context, multicastregistry.TraceEnd) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, nil
	}
	slot, _, _ := strings.Cut(operation, ".")
	ctx, span := s.tracer.Start(ctx, operation, s.named[slot]...) //nolint:spancheck // what is returned ends it
	return ctx, func(count, failed int, err error) {              //nolint:spancheck // see above
		span.SetAttributes(CountKey.Int(count))
		if failed > 0 {
			span.SetAttributes(FailedKey.Int(failed))
		}
		if err != nil {
			told, fault := errorType(err)
			span.SetAttributes(semconv.ErrorTypeKey.String(told))
			if fault {
				span.SetStatus(codes.Error, Describe(err.Error()))
			}
		}
		span.End()
	}
}

// Describe makes a text fit for a span: short, and UTF-8.
func Describe(text string) string {
	if len(text) > maxDescription {
		text = text[:maxDescription] + "…"
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// errorType names an error, and tells whether the operation has failed by it: that an identity is not there, or there already,
// is an answer, and who has left waits for none.
func errorType(err error) (told string, fault bool) {
	for _, known := range []struct {
		err   error
		told  string
		fault bool
	}{
		{multicastregistry.ErrNotFound, "not_found", false},
		{multicastregistry.ErrAlreadyExists, "already_exists", false},
		{context.Canceled, "canceled", false},
		{context.DeadlineExceeded, "deadline_exceeded", true},
		{multicastregistry.ErrUnavailable, "unavailable", true},
		{multicastregistry.ErrQuota, "quota", true},
		{multicastregistry.ErrUnsupported, "unsupported", true},
		{multicastregistry.ErrInvalid, "invalid", true},
	} {
		if errors.Is(err, known.err) {
			return known.told, known.fault
		}
	}
	return "_OTHER", true
}
