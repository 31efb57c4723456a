package main

import (
	"context"
	"os"

	"github.com/prism-data-layer/prism/client"
)

// traceParent names the place in a trace that a verb's calls go on from, for programs that run prism as a part of something
// that is traced.
const traceParent = "TRACEPARENT"

// traced returns a context that is at that place.
func traced(ctx context.Context) context.Context {
	return client.Message{TraceParent: os.Getenv(traceParent)}.Context(ctx)
}

// tracing are the options of a client whose calls say where they are. Nothing is recorded here.
func tracing() []client.Option {
	if os.Getenv(traceParent) == "" {
		return nil
	}
	return []client.Option{client.WithTracing(nil)}
}
