package proxy

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
)

// gateway is the HTTP side: it finds the route, reads the body within bounds, and leaves JSON to grpc-gateway.
type gateway struct {
	server  *Server
	client  patternpb.MulticastRegistryPatternClient
	mux     *runtime.ServeMux
	table   []route
	maxBody int64
	foreign *http.CrossOriginProtection
}

func (s *Server) newGateway(client patternpb.MulticastRegistryPatternClient) (http.Handler, error) {
	g := &gateway{server: s, client: client, maxBody: int64(s.maxMessage)/3*4 + 1<<16} // payloads are base64 in JSON
	g.foreign = http.NewCrossOriginProtection()
	g.table = g.routes()
	g.mux = runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, newCodec()),
		runtime.WithUnescapingMode(runtime.UnescapingModeAllExceptSlash), // "All" would split a segment at %2F
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithIncomingHeaderMatcher(func(key string) (string, bool) {
			if name, ok := traceHeader(key); ok {
				return name, true
			}
			return requestIDHeader, strings.EqualFold(key, requestIDHTTP) // and nothing that callers could fill at will
		}),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingTrailerMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithErrorHandler(func(
			_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error,
		) {
			g.fail(w, r, err)
		}),
		runtime.WithRoutingErrorHandler(func(
			_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, _ int,
		) {
			g.fail(w, r, status.Error(codes.NotFound, "there is no such route; GET / lists the routes"))
		}),
		runtime.WithMiddlewares(withPathParams),
		runtime.WithMetadata(ticketOf),
		runtime.WithForwardResponseOption(created),
	)
	return g, patternpb.RegisterMulticastRegistryPatternHandlerClient(context.Background(), g.mux, client)
}

// ServeHTTP serves one request. Nothing in front of it cleans paths: an identity may be "..".
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.server.requests.Add(1)
	defer g.server.requests.Done()
	id := r.Header.Get(requestIDHTTP)
	if !validRequestID(id) {
		id = newToken()
		r.Header.Set(requestIDHTTP, id)
	}
	w.Header().Set(requestIDHTTP, id)
	r = r.WithContext(context.WithValue(r.Context(), requestIDKey{}, id))
	defer func() { //nolint:contextcheck // r carries the context
		if err := recovered(recover(), nil); err != nil {
			g.fail(w, r, g.server.failed(r.Context(), r.Method+" "+r.URL.EscapedPath(), err))
		}
	}()
	g.hurry(w, r)
	t, vars, err := g.find(r)
	if err == nil {
		err = g.checkOrigin(r)
	}
	if err == nil {
		err = g.checkHost(r)
	}
	if err == nil && !t.public {
		var end func()
		r, end, err = g.admitHTTP(r)
		defer end()
		if err != nil {
			g.server.auditHTTP(r, err)
		}
	}
	if err == nil {
		dropHeaders(r)
		err = g.readBody(w, r)
	}
	w = &promptWriter{ResponseWriter: w, control: http.NewResponseController(w), timeout: g.server.cfg.WriteTimeout}
	if err != nil {
		g.fail(w, r, err)
		return
	}
	if t.serve != nil {
		t.serve(w, r, vars)
		return
	}
	g.mux.ServeHTTP(w, r)
}

// checkOrigin refuses what a browser sends on behalf of another site's page: without it, any page that is open somewhere
// could reach a server on its visitor's own machine. Receiving counts as much as sending, because it acknowledges. Where
// a name of the page's own site is made to lead here, checkHost does.
func (g *gateway) checkOrigin(r *http.Request) error {
	unsafe := *r
	unsafe.Method = http.MethodPost
	if err := g.foreign.Check(&unsafe); err != nil {
		return status.Error(codes.PermissionDenied, "the page that sent this is of another origin: "+err.Error())
	}
	return nil
}

// promptWriter gives every write its own deadline, so that a client that does not read holds nothing for ever. The calls
// themselves may take as long as they take.
type promptWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
}

// WriteHeader implements http.ResponseWriter.
func (w *promptWriter) WriteHeader(code int) {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.timeout)) // every server of net/http can
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *promptWriter) Write(p []byte) (int, error) {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.timeout)) // every server of net/http can
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController through.
func (w *promptWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// failure is the JSON of every error.
type failure struct {
	Error struct {
		Code      string `json:"code"`            // as gRPC spells it: NOT_FOUND
		HTTP      int    `json:"http"`            // the response's status
		Message   string `json:"message"`         // what is wrong and what to do
		Field     string `json:"field,omitempty"` // field at fault, with a JSON pointer behind it
		RequestID string `json:"request_id"`      // as in the header X-Request-ID
		retry     time.Duration
	} `json:"error"`
}

// fail answers with an error of any kind.
func (g *gateway) fail(w http.ResponseWriter, r *http.Request, err error) {
	body := g.failure(r, err)
	if method, ok := errors.AsType[*methodError](err); ok {
		w.Header().Set("Allow", method.allowed)
	}
	if after := body.Error.retry; after > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(after.Seconds()))))
	}
	if body.Error.HTTP == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if body.Error.HTTP == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, body.Error.HTTP, body)
}

func (g *gateway) failure(r *http.Request, err error) *failure {
	var st *status.Status
	httpStatus := 0
	var method *methodError
	var special *runtime.HTTPStatusError
	switch {
	case errors.As(err, &method):
		st, httpStatus = status.New(codes.Unimplemented, method.Error()), http.StatusMethodNotAllowed
	case errors.As(err, &special):
		st, httpStatus = convert(r.Context(), special.Err), special.HTTPStatus
	default:
		st = convert(r.Context(), err)
	}
	if httpStatus == 0 {
		httpStatus = runtime.HTTPStatusFromCode(st.Code())
	}
	out := &failure{}
	out.Error.Code, out.Error.HTTP = code.Code(st.Code()).String(), httpStatus
	out.Error.Message, out.Error.RequestID = clean(st.Message()), requestID(r.Context())
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.BadRequest:
			if len(d.GetFieldViolations()) > 0 {
				out.Error.Field = d.GetFieldViolations()[0].GetField()
			}
		case *errdetails.RetryInfo:
			out.Error.retry = d.GetRetryDelay().AsDuration()
		}
	}
	return out
}

type pathKey struct{}

// withPathParams hands the path's variables to the codec, which compares the body with them, and the path to created.
func withPathParams(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, params map[string]string) {
		r = r.WithContext(context.WithValue(r.Context(), pathKey{}, r.URL.EscapedPath()))
		if r.Body != nil {
			r.Body = &bodyOf{ReadCloser: r.Body, path: params}
		}
		next(w, r, params)
	}
}

// created makes a 201 with a Location of the answer to Register.
func created(ctx context.Context, w http.ResponseWriter, resp proto.Message) error {
	registered, ok := resp.(*patternpb.RegisterResponse)
	if !ok {
		return nil
	}
	path, _ := ctx.Value(pathKey{}).(string)
	w.Header().Set("Location", path+"/"+escapeSegment(registered.GetIdentity().GetIdentity()))
	w.WriteHeader(http.StatusCreated)
	return nil
}

// escapeSegment escapes an identity for a path, the two names that clients treat specially included.
func escapeSegment(id string) string {
	switch id {
	case ".":
		return "%2E"
	case "..":
		return "%2E%2E"
	}
	return url.PathEscape(id)
}
