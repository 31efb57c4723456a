package tracing

import (
	"context"
	"log/slog"
	"sync"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// complainEvery is the least time between two lines of the log about spans that could not be sent.
const complainEvery = time.Minute

// exporter sends spans, and logs what it cannot send: the SDK would tell a handler of the whole process of each failure.
type exporter struct {
	sdktrace.SpanExporter

	log    *slog.Logger
	life   context.Context // ends when nobody waits any more
	giveUp context.CancelFunc

	mu         sync.Mutex
	lost       int // spans that were not sent since the last line
	complained time.Time
}

func newExporter(inner sdktrace.SpanExporter, log *slog.Logger) *exporter {
	e := &exporter{SpanExporter: inner, log: log}
	e.life, e.giveUp = context.WithCancel(context.Background())
	return e
}

// ExportSpans implements sdktrace.SpanExporter. It never fails.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	forget := context.AfterFunc(e.life, cancel) //nolint:contextcheck // whichever ends first
	defer forget()
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.complain(ctx, len(spans), err)
	}
	return nil
}

// Shutdown implements sdktrace.SpanExporter. It never fails.
func (e *exporter) Shutdown(ctx context.Context) error {
	if err := e.SpanExporter.Shutdown(ctx); err != nil {
		e.complain(ctx, 0, err)
	}
	e.giveUp()
	return nil
}

func (e *exporter) complain(ctx context.Context, lost int, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lost += lost
	if now := time.Now(); e.complained.IsZero() || now.Sub(e.complained) >= complainEvery {
		e.log.LogAttrs(ctx, slog.LevelWarn, "traces could not be sent", slog.Int("lost_spans", e.lost), slog.Any("error", err))
		e.complained, e.lost = now, 0
	}
}
