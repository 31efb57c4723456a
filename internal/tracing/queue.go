package tracing

import (
	"errors"
	"os"
	"strconv"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

var (
	errFull = errors.New("the queue is full")
	errOver = errors.New("the server ended before they could be sent")
)

// queue is the SDK's queue, counted: that one tells nobody what it drops. It gets no more than it takes, and so
// drops nothing.
type queue struct {
	sdktrace.SpanProcessor

	exporter *exporter
	most     int64
}

func newQueue(e *exporter) *queue {
	q := &queue{exporter: e, most: sdktrace.DefaultMaxQueueSize}
	var options []sdktrace.BatchSpanProcessorOption
	if text := os.Getenv("OTEL_BSP_MAX_QUEUE_SIZE"); text != "" {
		if size, err := strconv.ParseInt(text, 10, 32); err == nil && size > 0 {
			q.most = size
		} else { // the SDK would panic for some of these
			options = append(options, sdktrace.WithMaxQueueSize(sdktrace.DefaultMaxQueueSize),
				sdktrace.WithMaxExportBatchSize(sdktrace.DefaultMaxExportBatchSize))
		}
	}
	q.SpanProcessor = sdktrace.NewBatchSpanProcessor(e, options...)
	return q
}

// OnEnd implements sdktrace.SpanProcessor.
func (q *queue) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	if q.exporter.waiting.Add(1) > q.most {
		q.exporter.waiting.Add(-1)
		q.exporter.dropped.Add(1)
		return
	}
	q.SpanProcessor.OnEnd(s)
}
