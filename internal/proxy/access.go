package proxy

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/auth"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// How access is decided. An interceptor finds out who is calling, and which operation the method is, before anything else is
// looked at; each method then enters its namespace with both, and gets a grant, which says what it may touch. A method that is
// not in the table is refused.
//
// The HTTP side finds out by itself who sent a request, from its headers and its TLS connection, and hands the gRPC side a
// ticket, which nobody can guess, is good as long as the request lasts, and only through the connection in memory.

// operations tells what each method of the service is, for access.
var operations = map[string]auth.Operation{
	patternpb.MulticastRegistryPattern_Register_FullMethodName:        auth.OpRegister,
	patternpb.MulticastRegistryPattern_Heartbeat_FullMethodName:       auth.OpHeartbeat,
	patternpb.MulticastRegistryPattern_Unregister_FullMethodName:      auth.OpUnregister,
	patternpb.MulticastRegistryPattern_Enumerate_FullMethodName:       auth.OpEnumerate,
	patternpb.MulticastRegistryPattern_EnumerateStream_FullMethodName: auth.OpEnumerate,
	patternpb.MulticastRegistryPattern_Explain_FullMethodName:         auth.OpExplain,
	patternpb.MulticastRegistryPattern_Watch_FullMethodName:           auth.OpWatch,
	patternpb.MulticastRegistryPattern_Multicast_FullMethodName:       auth.OpMulticast,
	patternpb.MulticastRegistryPattern_MulticastStream_FullMethodName: auth.OpMulticast,
	patternpb.MulticastRegistryPattern_GetMulticast_FullMethodName:    auth.OpGetMulticast,
	patternpb.MulticastRegistryPattern_ListMulticasts_FullMethodName:  auth.OpListMulticasts,
	patternpb.MulticastRegistryPattern_CancelMulticast_FullMethodName: auth.OpCancelMulticast,
	patternpb.MulticastRegistryPattern_Subscribe_FullMethodName:       auth.OpSubscribe,
	patternpb.MulticastRegistryPattern_ListNamespaces_FullMethodName:  auth.OpListNamespaces,
}

// public tells whether a method needs no credentials: health, for probes, and reflection, which tells what is in the .proto. It
// is answered even while draining.
func public(method string) bool {
	return strings.HasPrefix(method, "/grpc.health.v1.Health/") || strings.HasPrefix(method, "/grpc.reflection.")
}

// admit finds out who is calling. The context that it returns carries the caller and the call, which it completes.
func (s *Server) admit(ctx context.Context, method string, c *inflight) (context.Context, error) {
	op, known := operations[method]
	if !known {
		return ctx, &auth.DeniedError{Operation: auth.Operation(method), Detail: "the method is in no table of operations"}
	}
	var err error
	authenticator := s.serving.Load().authenticator
	if c.admitted, err = s.caller(ctx, authenticator); err != nil {
		return ctx, err
	}
	if c.op = op; !c.accepted(ctx, authenticator) { // a ticket, which may be older
		return ctx, errRevoked
	}
	return context.WithValue(auth.NewContext(ctx, c.caller), inflightKey{}, c), nil
}

// admitted is a caller, who found out, and from what.
type admitted struct {
	by     *auth.Authenticator
	caller auth.Caller
	shown  auth.Credentials
}

// caller finds out who makes a call: one that came through the memory pipe by its ticket, another by its credentials.
func (s *Server) caller(ctx context.Context, authenticator *auth.Authenticator) (admitted, error) {
	if authenticator == nil {
		return admitted{}, nil
	}
	from, ok := peer.FromContext(ctx)
	if ok && fromMemory(from.Addr) {
		return s.tickets.caller(metadata.ValueFromIncomingContext(ctx, ticketHeader))
	}
	var shown auth.Credentials
	if ok {
		if info, secured := from.AuthInfo.(credentials.TLSInfo); secured {
			shown.PeerCertificates = auth.PeerCertificates(&info.State)
		}
	}
	return authenticate(ctx, authenticator, metadata.ValueFromIncomingContext(ctx, "authorization"), shown)
}

// authenticate completes credentials by the token of an Authorization header, and asks who has them.
func authenticate(
	ctx context.Context, authenticator *auth.Authenticator, authorization []string, shown auth.Credentials,
) (a admitted, err error) {
	a.by, a.shown = authenticator, shown
	if a.shown.Bearer, err = auth.ParseBearer(authorization...); err != nil {
		return admitted{}, err
	}
	a.caller, err = authenticator.Authenticate(ctx, a.shown)
	return a, err
}

// entered is a namespace with what the caller may do there in the call's operation.
type entered struct {
	*served

	grant auth.Grant
	// owner is the caller, as records of multicasts have it. Empty without authentication.
	owner string
}

// enter finds a namespace and what the caller may do there, and counts the call, of which it holds the namespace until its end.
// To a caller who may do nothing there it makes no difference whether it exists.
func (s *Server) enter(ctx context.Context, name string) (entered, error) {
	c := callOf(ctx)
	e, err := s.hold(ctx, name, c)
	if err == nil {
		err = e.Limits.Call(e.owner, c.op)
	}
	return e, err
}

// hold is enter without counting the call.
func (s *Server) hold(ctx context.Context, name string, c *inflight) (entered, error) {
	for {
		e, err := s.enterFor(ctx, name, c.op)
		if err != nil {
			return e, err
		}
		if err = c.enter(e.drain); err == nil {
			return e, nil
		}
		if again, gone := s.namespace(name); gone == nil && again.drain == e.drain {
			return e, err // and not replaced in this moment
		}
	}
}

// enterFor is enter for an operation that is not the call's own, or not all of it: it counts and holds nothing.
func (s *Server) enterFor(ctx context.Context, name string, op auth.Operation) (entered, error) {
	n, err := s.namespace(name)
	if err != nil {
		if s.serving.Load().authenticator != nil {
			name = cmp.Or(name, multicastregistry.DefaultNamespace)
			err = &auth.DeniedError{Operation: op, Namespace: shorten(name), Detail: "there is no such namespace"}
		}
		return entered{}, err
	}
	caller, _ := auth.FromContext(ctx)
	e := entered{served: n, owner: ownerOf(caller)}
	e.grant, err = n.Policy.Grant(caller, op)
	return e, err
}

// ownerOf names a caller: a subject is one only together with how it was proved.
func ownerOf(c auth.Caller) string {
	if c.Method == auth.MethodNone {
		return ""
	}
	return c.Method.String() + ":" + c.Subject
}

// ownerIn names the caller that a context carries.
func ownerIn(ctx context.Context) string {
	caller, _ := auth.FromContext(ctx)
	return ownerOf(caller)
}

// asked returns the filter of a request: the caller's own, which names no hidden field.
func (e *entered) asked(f *structpb.Struct) (*filter.Expr, error) {
	asked, err := expr(e.Coordinator.Config().Filter, f)
	if err != nil {
		return nil, err
	}
	if err := e.grant.CheckFilter(asked); err != nil {
		return nil, err
	}
	return asked, e.Schema.CheckFilter(asked)
}

// mayName checks fields that a request sorts by, counts by or asks for.
func (e *entered) mayName(where string, fields ...[]string) error {
	if err := e.grant.CheckPaths(fields...); err != nil {
		return err
	}
	for _, path := range fields {
		if err := e.Schema.CheckPath(where, path); err != nil {
			return err
		}
	}
	return nil
}

// redact takes hidden fields out of identities, which may be shared.
func (e *entered) redact(identities []multicastregistry.Identity) ([]multicastregistry.Identity, error) {
	if !e.grant.Restricted() {
		return identities, nil
	}
	identities = slices.Clone(identities)
	for i := range identities {
		var err error
		if identities[i].Encoded, err = e.grant.RedactEncoded(identities[i].Encoded); err != nil {
			return nil, err
		}
	}
	return identities, nil
}

// mayKnow tells whether the caller may know of a kept multicast: of any, or, where they do not see all identities, of their own.
func (e *entered) mayKnow(record *multicastregistry.MulticastRecord) bool {
	return e.grant.Filter() == nil || record.Owner == e.owner
}

// ticketHeader carries a ticket from the HTTP side to the gRPC side.
const ticketHeader = "prism-ticket"

// tickets are the HTTP requests under way, and who sent them.
type tickets struct{ callers sync.Map } // ticket -> admitted

func (t *tickets) issue(to admitted) (ticket string, end func()) {
	ticket = newToken()
	t.callers.Store(ticket, to)
	return ticket, func() { t.callers.Delete(ticket) }
}

func (t *tickets) caller(shown []string) (admitted, error) {
	if len(shown) == 1 {
		if caller, ok := t.callers.Load(shown[0]); ok {
			return caller.(admitted), nil
		}
	}
	return admitted{}, &auth.UnauthenticatedError{Fault: auth.Missing, Detail: "the call has no ticket of an HTTP request"}
}

// admitHTTP finds out who sent a request, and returns one whose context says so. end must be called when it has been answered.
func (g *gateway) admitHTTP(r *http.Request) (_ *http.Request, end func(), err error) {
	authenticator := g.server.serving.Load().authenticator
	if authenticator == nil {
		return r, func() {}, nil
	}
	shown := auth.Credentials{PeerCertificates: auth.PeerCertificates(r.TLS)}
	sender, err := authenticate(r.Context(), authenticator, r.Header.Values("Authorization"), shown)
	if err != nil {
		return r, func() {}, err
	}
	ticket, end := g.server.tickets.issue(sender)
	ctx := context.WithValue(auth.NewContext(r.Context(), sender.caller), ticketKey{}, ticket)
	return r.WithContext(ctx), end, nil
}

type ticketKey struct{}

// ticketOf hands a request's ticket to the gRPC side.
func ticketOf(ctx context.Context, _ *http.Request) metadata.MD {
	if ticket, ok := ctx.Value(ticketKey{}).(string); ok {
		return metadata.Pairs(ticketHeader, ticket)
	}
	return nil
}

var (
	// errExpired ends a stream that outlives its caller's credentials.
	errExpired = status.Error(codes.Unauthenticated,
		"unauthenticated: credentials are expired; open the stream again with new ones")
	// errRevoked ends a stream whose caller's credentials are not accepted any more, or not as they were.
	errRevoked = status.Error(codes.Unauthenticated,
		"unauthenticated: who may call was changed; open the stream again, with credentials that are accepted now")
)

// ends tells whether a stream ends with the cause of its context, whatever it made of that.
func ends(cause error) bool {
	return cause == errExpired || cause == errRevoked || cause == errMoved //nolint:errorlint // our own, and never wrapped
}

// untilExpiry returns a context that ends when the caller's credentials do.
func untilExpiry(ctx context.Context) (context.Context, context.CancelFunc) {
	caller, _ := auth.FromContext(ctx)
	if caller.Expires.IsZero() {
		return ctx, func() {}
	}
	return context.WithDeadlineCause(ctx, caller.Expires, errExpired)
}

// edgeCredentials secure what comes from the network; the pipe in memory needs nothing.
type edgeCredentials struct {
	credentials.TransportCredentials
}

// ServerHandshake implements credentials.TransportCredentials.
func (c edgeCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if fromMemory(conn.RemoteAddr()) {
		return insecure.NewCredentials().ServerHandshake(conn)
	}
	return c.TransportCredentials.ServerHandshake(conn)
}

// Clone implements credentials.TransportCredentials.
func (c edgeCredentials) Clone() credentials.TransportCredentials {
	return edgeCredentials{c.TransportCredentials.Clone()}
}

func fromMemory(addr net.Addr) bool { return addr != nil && addr.Network() == "bufconn" }
