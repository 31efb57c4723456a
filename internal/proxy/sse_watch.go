package proxy

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/types/known/structpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
)

// lastEventID is the header with which a browser that lost its connection says what it received last.
const lastEventID = "Last-Event-ID"

// unfinished is the id of events behind which nobody can go on: those of a snapshot.
const unfinished = "-"

// watch serves a Watch as server-sent events, each named for its type. Their ids are resume tokens, so that a browser's
// EventSource goes on by itself where it was.
func (g *gateway) watch(w http.ResponseWriter, r *http.Request, vars map[string]string) {
	req, err := readWatch(r, vars)
	if err != nil {
		g.fail(w, r, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	ctx, err = runtime.AnnotateContext(ctx, g.mux, r, patternpb.MulticastRegistryPattern_Watch_FullMethodName)
	if err != nil {
		g.fail(w, r, err)
		return
	}
	stream, err := g.client.Watch(ctx, req)
	if err != nil {
		g.fail(w, r, err)
		return
	}
	first, err := stream.Recv() // what is wrong with the request is an error of HTTP
	if err != nil {
		g.fail(w, r, err)
		return
	}
	out, codec := newSSEWriter(w), newCodec()
	write := func(news *patternpb.WatchResponse) error { //nolint:contextcheck // the error goes to the log of the request
		for n, e := range news.GetEvents() {
			data, err := codec.Marshal(e)
			if err != nil {
				return g.server.failed(r.Context(), r.Method+" "+r.URL.EscapedPath(), err)
			}
			id := ""
			if n == len(news.GetEvents())-1 { // the token is the place behind all of them
				id = cmp.Or(news.GetResumeToken(), unfinished)
			}
			out.event(strings.ToLower(e.GetType().String()), id, json.RawMessage(data))
		}
		return out.flush()
	}
	out.begin()
	if r.Header.Get(lastEventID) == unfinished { // what was told of a snapshot is void
		again := &patternpb.WatchResponse{Events: []*patternpb.WatchEvent{{Type: patternpb.WatchEvent_RESET}}}
		err = write(again)
	}
	if err == nil && write(first) == nil {
		relay(g, r, out, stream, write, cancel)
	}
}

// readWatch reads the request from the query.
func readWatch(r *http.Request, vars map[string]string) (*patternpb.WatchRequest, error) {
	query := r.URL.Query()
	req := &patternpb.WatchRequest{Namespace: vars["namespace"], ResumeToken: query.Get("resume_token")}
	if last := r.Header.Get(lastEventID); last != "" && last != unfinished {
		if !utf8.ValidString(last) {
			return nil, invalid("resume_token", "is not valid UTF-8, in the header "+lastEventID)
		}
		req.ResumeToken = last
	}
	if text := query.Get("filter"); text != "" {
		if err := checkValues([]byte(text), minValues); err != nil {
			return nil, invalid("filter", err.Error())
		}
		req.Filter = &structpb.Struct{}
		if err := newCodec().NewDecoder(strings.NewReader(text)).Decode(req.GetFilter()); err != nil {
			return nil, invalid("filter", strings.TrimPrefix(err.Error(), "body: "))
		}
	}
	for name, set := range map[string]func(bool){
		"include_metadata": func(v bool) { req.IncludeMetadata = &v },
		"omit_snapshot":    func(v bool) { req.OmitSnapshot = v },
	} {
		switch v := query.Get(name); v {
		case "":
		case "true", "false":
			set(v == "true")
		default:
			return nil, invalid(name, fmt.Sprintf("%q is neither true nor false", shorten(v)))
		}
	}
	return req, nil
}
