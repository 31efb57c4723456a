package tracing

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
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

	waiting atomic.Int64 // spans in the queue, and those that are being sent
	dropped atomic.Int64 // spans that found the queue full since the last line

	mu         sync.Mutex
	lost       int   // spans that were not sent since the last line
	last       error // why
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
	err := e.SpanExporter.ExportSpans(ctx, spans)
	e.waiting.Add(-int64(len(spans)))
	switch {
	case err != nil:
		e.complain(ctx, len(spans), err)
	case e.dropped.Load() > 0:
		e.complain(ctx, 0, errFull)
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
	e.last = err
	if e.complained.IsZero() || time.Since(e.complained) >= complainEvery {
		e.tell(ctx)
	}
}

// finish tells what has been lost since the last line, when nothing is sent any more.
func (e *exporter) finish(ctx context.Context) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if left := e.waiting.Swap(0); left > 0 {
		e.lost += int(left)
		e.last = errOver
	}
	if e.lost > 0 || e.dropped.Load() > 0 {
		e.tell(ctx)
	}
}

// tell writes a line. The caller holds mu.
func (e *exporter) tell(ctx context.Context) {
	lost := e.lost + int(e.dropped.Swap(0))
	why := e.last
	if why == nil {
		why = errFull
	}
	e.log.LogAttrs(ctx, slog.LevelWarn, "traces could not be sent", slog.Int("lost_spans", lost), slog.Any("error", why))
	e.complained, e.lost, e.last = time.Now(), 0, nil
}
