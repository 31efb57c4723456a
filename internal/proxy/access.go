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

// public tells whether a method needs no credentials: health, for probes, and reflection, which tells what is in the .proto.
func public(method string) bool {
	return strings.HasPrefix(method, "/grpc.health.v1.Health/") || strings.HasPrefix(method, "/grpc.reflection.")
}

type operationKey struct{}

// admit finds out who is calling. The context that it returns carries the caller and the operation.
func (s *Server) admit(ctx context.Context, method string) (context.Context, error) {
	if public(method) {
		return ctx, nil
	}
	op, known := operations[method]
	if !known {
		return ctx, &auth.DeniedError{Operation: auth.Operation(method), Detail: "the method is in no table of operations"}
	}
	caller, err := s.caller(ctx)
	if err != nil {
		return ctx, err
	}
	return context.WithValue(auth.NewContext(ctx, caller), operationKey{}, op), nil
}

// caller finds out who makes a call: one that came through the memory pipe by its ticket, another by its credentials.
func (s *Server) caller(ctx context.Context) (auth.Caller, error) {
	if s.cfg.Authenticator == nil {
		return auth.Caller{}, nil
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
	return s.authenticate(ctx, metadata.ValueFromIncomingContext(ctx, "authorization"), shown)
}

// authenticate completes credentials by the token of an Authorization header, and asks who has them.
func (s *Server) authenticate(ctx context.Context, authorization []string, shown auth.Credentials) (_ auth.Caller, err error) {
	if shown.Bearer, err = auth.ParseBearer(authorization...); err != nil {
		return auth.Caller{}, err
	}
	return s.cfg.Authenticator.Authenticate(ctx, shown)
}

// entered is a namespace with what the caller may do there in the call's operation.
type entered struct {
	Namespace

	grant auth.Grant
	// owner is the caller, as records of multicasts have it. Empty without authentication.
	owner string
}

// enter finds a namespace and what the caller may do there, and counts the call. To a caller who may do nothing there it makes
// no difference whether it exists.
func (s *Server) enter(ctx context.Context, name string) (entered, error) {
	op, _ := ctx.Value(operationKey{}).(auth.Operation)
	e, err := s.enterFor(ctx, name, op)
	if err == nil {
		err = e.Limits.Call(e.owner, op)
	}
	return e, err
}

// enterFor is enter for an operation that is not the call's own, or not all of it, which counts as no call.

func (s *Server) enterFor(ctx context.Context, name string, op auth.Operation) (entered, error) {
	n, err := s.namespace(name)
	if err != nil {
		if s.cfg.Authenticator != nil {
			name = cmp.Or(name, multicastregistry.DefaultNamespace)
			err = &auth.DeniedError{Operation: op, Namespace: shorten(name), Detail: "there is no such namespace"}
		}
		return entered{}, err
	}
	caller, _ := auth.FromContext(ctx)
	e := entered{Namespace: n, owner: ownerOf(caller)}
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
type tickets struct{ callers sync.Map } // ticket -> auth.Caller

func (t *tickets) issue(caller auth.Caller) (ticket string, end func()) {
	ticket = newToken()
	t.callers.Store(ticket, caller)
	return ticket, func() { t.callers.Delete(ticket) }
}

func (t *tickets) caller(shown []string) (auth.Caller, error) {
	if len(shown) == 1 {
		if caller, ok := t.callers.Load(shown[0]); ok {
			return caller.(auth.Caller), nil
		}
	}
	return auth.Caller{}, &auth.UnauthenticatedError{Fault: auth.Missing, Detail: "the call has no ticket of an HTTP request"}
}

// admitHTTP finds out who sent a request, and returns one whose context says so. end must be called when it has been answered.
func (g *gateway) admitHTTP(r *http.Request) (_ *http.Request, end func(), err error) {
	if g.server.cfg.Authenticator == nil {
		return r, func() {}, nil
	}
	shown := auth.Credentials{PeerCertificates: auth.PeerCertificates(r.TLS)}
	caller, err := g.server.authenticate(r.Context(), r.Header.Values("Authorization"), shown)
	if err != nil {
		return r, func() {}, err
	}
	ticket, end := g.server.tickets.issue(caller)
	ctx := context.WithValue(auth.NewContext(r.Context(), caller), ticketKey{}, ticket)
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

// errExpired ends a stream that outlives its caller's credentials.
var errExpired = status.Error(codes.Unauthenticated,
	"unauthenticated: credentials are expired; open the stream again with new ones")

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
