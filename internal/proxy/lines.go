package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
)

// multicastStream serves identities:multicastStream.
func (g *gateway) multicastStream(w http.ResponseWriter, r *http.Request, vars map[string]string) {
	req := &patternpb.MulticastRequest{}
	lines(g, w, r, vars, req, patternpb.MulticastRegistryPattern_MulticastStream_FullMethodName,
		func(ctx context.Context) (grpc.ServerStreamingClient[patternpb.MulticastStreamResponse], error) {
			req.Namespace = vars["namespace"]
			return g.client.MulticastStream(ctx, &patternpb.MulticastStreamRequest{Request: req})
		})
}

// enumerateStream serves identities:enumerateStream.
func (g *gateway) enumerateStream(w http.ResponseWriter, r *http.Request, vars map[string]string) {
	req := &patternpb.EnumerateRequest{}
	lines(g, w, r, vars, req, patternpb.MulticastRegistryPattern_EnumerateStream_FullMethodName,
		func(ctx context.Context) (grpc.ServerStreamingClient[patternpb.EnumerateStreamResponse], error) {
			req.Namespace = vars["namespace"]
			return g.client.EnumerateStream(ctx, &patternpb.EnumerateStreamRequest{Request: req})
		})
}

// lines serves a stream as lines of JSON, each {"result": …} with one message of the stream, or, as the last one,
// {"error": …}. What goes wrong before the first message is an HTTP error like any other. The mux would do the same, with
// errors of another shape. The body is read into req before the stream is opened.
func lines[M any](
	g *gateway, w http.ResponseWriter, r *http.Request, vars map[string]string, req proto.Message, method string,
	open func(ctx context.Context) (grpc.ServerStreamingClient[M], error),
) {
	codec := newCodec()
	body := &bodyOf{ReadCloser: r.Body, path: vars}
	if err := codec.NewDecoder(body).Decode(req); err != nil && !errors.Is(err, io.EOF) {
		g.fail(w, r, status.Error(codes.InvalidArgument, err.Error()))
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	ctx, err := runtime.AnnotateContext(ctx, g.mux, r, method)
	if err != nil {
		g.fail(w, r, err)
		return
	}
	stream, err := open(ctx)
	if err != nil {
		g.fail(w, r, err)
		return
	}
	message, err := stream.Recv()
	if err != nil {
		g.fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/x-ndjson")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold lines back
	control := http.NewResponseController(w)
	for ; err == nil; message, err = stream.Recv() {
		line, bad := codec.Marshal(message)
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
