package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
)

// multicastStream serves identities:multicastStream: lines of JSON, each {"result": …} with one step of the stream, or, as the
// last one, {"error": …}. What goes wrong before the first step is an HTTP error like any other. The mux would do the same,
// with errors of another shape.
func (g *gateway) multicastStream(w http.ResponseWriter, r *http.Request, vars map[string]string) {
	req := &patternpb.MulticastRequest{}
	codec := newCodec()
	body := &bodyOf{ReadCloser: r.Body, path: vars}
	if err := codec.NewDecoder(body).Decode(req); err != nil && !errors.Is(err, io.EOF) {
		g.fail(w, r, status.Error(codes.InvalidArgument, err.Error()))
		return
	}
	req.Namespace = vars["namespace"]
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	ctx, err := runtime.AnnotateContext(ctx, g.mux, r, patternpb.MulticastRegistryPattern_MulticastStream_FullMethodName)
	if err != nil {
		g.fail(w, r, err)
		return
	}
	stream, err := g.client.MulticastStream(ctx, &patternpb.MulticastStreamRequest{Request: req})
	if err != nil {
		g.fail(w, r, err)
		return
	}
	step, err := stream.Recv()
	if err != nil {
		g.fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/x-ndjson")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold lines back
	control := http.NewResponseController(w)
	for ; err == nil; step, err = stream.Recv() {
		line, bad := codec.Marshal(step)
		if bad != nil {
			err = g.server.failed(r.Context(), r.Method+" "+r.URL.EscapedPath(), bad)
			break
		}
		if writeLine(w, "result", json.RawMessage(line)) != nil || control.Flush() != nil {
			return
		}
	}
	if !errors.Is(err, io.EOF) && r.Context().Err() == nil {
		_ = writeLine(w, "error", g.failure(r, err).Error) // a client that is gone does not miss it
	}
}

// writeLine writes an object with one field as a line.
func writeLine(w io.Writer, field string, value any) error {
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	return out.Encode(map[string]any{field: value})
}
