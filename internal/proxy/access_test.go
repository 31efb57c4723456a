package proxy

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/auth"
	"github.com/prism-data-layer/prism/internal/schema"
	"github.com/prism-data-layer/prism/patterns/memory"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// guarded is a server that asks who is calling. Its static tokens are "token-" and the subject.
type guarded struct {
	*bench

	grpcAddr string
	trust    *x509.CertPool // nil without TLS
}

// rules are what may be done in each namespace.
type rules map[string][]auth.Rule

// guard starts a server, with TLS if there is an authority for its certificate and those of clients. Each namespace has
// all three slots in memory.
func guard(t *testing.T, who auth.Config, access rules, ca *authority, change ...func(*Namespace)) *guarded {
	t.Helper()
	log := &syncBuffer{}
	cfg := Config{Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	var err error
	if cfg.Authenticator, err = auth.Open(t.Context(), who, cfg.Logger); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cfg.Authenticator.Close)
	g := &guarded{bench: &bench{t: t, log: log, served: make(chan error, 1)}}
	if ca != nil {
		cfg.TLS = ca.reloader(t, cfg.Logger)
		t.Cleanup(cfg.TLS.Close)
		g.trust = ca.pool()
	}
	var coordinators []*multicastregistry.Coordinator
	for _, name := range slices.Sorted(maps.Keys(access)) {
		c, err := multicastregistry.Open(t.Context(), multicastregistry.Config{Namespace: name, Timeout: time.Second}, multicastregistry.Slots{
			Registry: memory.NewRegistry(memory.RegistryConfig{}), Messaging: memory.NewMessaging(memory.MessagingConfig{}),
			Durability: memory.NewDurability(memory.DurabilityConfig{}),
		})
		if err != nil {
			t.Fatal(err)
		}
		coordinators = append(coordinators, c)
		policy, err := auth.Compile(auth.PolicyConfig{Namespace: name, Rules: access[name], Filter: c.Config().Filter})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Namespaces = append(cfg.Namespaces, Namespace{Coordinator: c, Registry: "memory", Messaging: "memory", Durability: "memory", Policy: policy})
		for _, more := range change {
			more(&cfg.Namespaces[len(cfg.Namespaces)-1])
		}
	}
	if g.Server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	grpcListener, httpListener := listenTCP(t), listenTCP(t)
	go func() { g.served <- g.Serve(grpcListener, httpListener) }()
	g.grpcAddr, g.url = grpcListener.Addr().String(), "http://"+httpListener.Addr().String()
	if ca != nil {
		g.url = "https://" + httpListener.Addr().String()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	g.ctx = ctx
	t.Cleanup(func() {
		cancel()
		drain, done := context.WithTimeout(context.Background(), patience)
		defer done()
		if err := g.Drain(drain); err != nil {
			t.Errorf("drain: %v", err)
		}
		if err := <-g.served; err != nil {
			t.Errorf("serve: %v", err)
		}
		for _, c := range coordinators {
			_ = c.Close()
		}
	})
	g.conn, g.http = g.connect(nil)
	g.rpc = patternpb.NewMulticastRegistryPatternClient(g.conn)
	return g
}

// connect returns clients of both sides with the certificate, if there is one.
func (g *guarded) connect(cert *tls.Certificate) (*grpc.ClientConn, *http.Client) {
	g.t.Helper()
	secured, transport := insecure.NewCredentials(), &http.Transport{}
	if g.trust != nil {
		cfg := &tls.Config{RootCAs: g.trust, MinVersion: tls.VersionTLS12}
		if cert != nil {
			cfg.Certificates = []tls.Certificate{*cert}
		}
		secured, transport.TLSClientConfig = credentials.NewTLS(cfg), cfg.Clone()
	}
	conn, err := grpc.NewClient(g.grpcAddr, grpc.WithTransportCredentials(secured))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		_ = conn.Close()
		transport.CloseIdleConnections()
	})
	return conn, &http.Client{Transport: transport}
}

// as returns the context of calls with a token.
func (g *guarded) as(token string) context.Context {
	return metadata.AppendToOutgoingContext(g.ctx, "authorization", "Bearer "+token)
}

// staticTokens are the tokens of subjects.
func staticTokens(subjects ...string) (tokens []auth.Token) {
	for _, s := range subjects {
		tokens = append(tokens, auth.Token{Name: s, Hash: auth.HashToken(tokenOf(s))})
	}
	return tokens
}

// tokenOf returns a subject's token.
func tokenOf(subject string) string {
	return "token-" + base64.RawURLEncoding.EncodeToString([]byte(subject))
}

// put registers as somebody with a token.
func (g *guarded) put(token, id string, fields map[string]any) {
	g.t.Helper()
	if _, err := g.rpc.Register(g.as(token), &patternpb.RegisterRequest{
		Identity: id, Metadata: obj(g.t, fields), Mode: patternpb.RegisterRequest_REPLACE,
	}); err != nil {
		g.t.Fatalf("register %q: %v", id, err)
	}
}

// all returns what a caller sees, as a text.
func (g *guarded) all(token string) string {
	g.t.Helper()
	got, err := g.rpc.Enumerate(g.as(token), &patternpb.EnumerateRequest{})
	if err != nil {
		g.t.Fatal(err)
	}
	return idsOf(got.GetIdentities())
}

func idsOf(identities []*patternpb.Identity) string {
	var ids []string
	for _, i := range identities {
		ids = append(ids, i.GetIdentity())
	}
	return strings.Join(ids, " ")
}

// rpcs lists the service's methods, from its descriptor, and whether they stream.
func rpcs() map[string]*grpc.StreamDesc {
	desc := patternpb.MulticastRegistryPattern_ServiceDesc
	out := make(map[string]*grpc.StreamDesc)
	for _, m := range desc.Methods {
		out["/"+desc.ServiceName+"/"+m.MethodName] = nil
	}
	for _, s := range desc.Streams {
		out["/"+desc.ServiceName+"/"+s.StreamName] = &s
	}
	return out
}

// call makes a call of a method, with a request that names the namespace and an identity, and waits for the first answer.
func call(ctx context.Context, t *testing.T, conn *grpc.ClientConn, method, namespace, identity string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	name := strings.ReplaceAll(strings.TrimPrefix(method, "/"), "/", ".")
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		t.Fatal(err)
	}
	make1 := func(d protoreflect.MessageDescriptor) proto.Message {
		kind, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
		if err != nil {
			t.Fatal(err)
		}
		return kind.New().Interface()
	}
	desc := found.(protoreflect.MethodDescriptor)
	in, out := make1(desc.Input()), make1(desc.Output())
	fillIn(in.ProtoReflect(), namespace, identity)
	stream := rpcs()[method]
	if stream == nil {
		return conn.Invoke(ctx, method, in, out)
	}
	s, err := conn.NewStream(ctx, stream, method)
	if err != nil {
		return err
	}
	if err := s.SendMsg(in); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !stream.ClientStreams {
		s.CloseSend()
	}
	if err := s.RecvMsg(out); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// fillIn names the namespace and the identity wherever a message can, and is otherwise as small as possible.
func fillIn(m protoreflect.Message, namespace, identity string) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		switch f := fields.Get(i); f.Name() {
		case "namespace":
			m.Set(f, protoreflect.ValueOfString(namespace))
		case "identity":
			m.Set(f, protoreflect.ValueOfString(identity))
		case "identities":
			m.Mutable(f).List().Append(protoreflect.ValueOfString(identity))
		case "multicast_id":
			m.Set(f, protoreflect.ValueOfString("01890a5d-ac96-774b-bcce-b302099a8057"))
		case "request", "attach":
			fillIn(m.Mutable(f).Message(), namespace, identity)
		}
	}
}

// TestEveryMethodHasARule walks the service: a method without an entry is refused to everybody, and fails here.
func TestEveryMethodHasARule(t *testing.T) {
	t.Parallel()
	for method := range rpcs() {
		// The list of namespaces is for everybody who is authenticated: it has those in which they have a role.
		if op := operations[method]; op.Role() == "" && op != auth.OpListNamespaces {
			t.Errorf("%s has no operation, or one that no role gives", method)
		}
		if public(method) {
			t.Errorf("%s is public", method)
		}
	}
	for method := range operations {
		if _, known := rpcs()[method]; !known {
			t.Errorf("%s is in the table, and in no service", method)
		}
	}
	g := guard(t, auth.Config{Tokens: staticTokens("op")}, rules{"default": {{Subjects: []string{"*"}, Roles: []auth.Role{auth.RoleAdmin}}}}, nil)
	in := metadata.NewIncomingContext(g.ctx, metadata.Pairs("authorization", "Bearer "+tokenOf("op")))
	if _, err := g.admit(in, "/prism.pattern.MulticastRegistryPattern/New", new(inflight)); !errors.Is(err, auth.ErrPermissionDenied) {
		t.Errorf("a method that is in no table: %v", err)
	}
}

// leaks are what no refusal may hold.
var leaks = []string{"default", "hidden-space", "access", "rule", "role", "goroutine", "token-", "internal/", ".go:"}

func checkRefusal(t *testing.T, what, text string, except ...string) {
	t.Helper()
	for _, leak := range leaks {
		if strings.Contains(text, leak) && !slices.Contains(except, leak) {
			t.Errorf("%s says %q in %q", what, leak, text)
		}
	}
}

// TestWithoutRights calls every method without credentials, and with those of somebody who has no role.
func TestWithoutRights(t *testing.T) {
	t.Parallel()
	g := guard(t, auth.Config{Tokens: staticTokens("nobody", "op")}, rules{
		"default":      {{Subjects: []string{"op"}, Roles: []auth.Role{auth.RoleAdmin}}},
		"hidden-space": {{Subjects: []string{"op"}, Roles: []auth.Role{auth.RoleAdmin}}},
	}, nil)
	for method := range rpcs() {
		for _, namespace := range []string{"", "default", "hidden-space", "no-such-space"} {
			err := call(g.ctx, t, g.conn, method, namespace, "a/x")
			if status.Code(err) != codes.Unauthenticated || status.Convert(err).Message() != "unauthenticated: credentials are missing" {
				t.Errorf("%s in %q without credentials: %v", method, namespace, err)
			}
			err = call(g.as("token-wrong"), t, g.conn, method, namespace, "a/x")
			if status.Code(err) != codes.Unauthenticated || status.Convert(err).Message() != "unauthenticated: credentials are invalid" {
				t.Errorf("%s in %q with a wrong token: %v", method, namespace, err)
			}
			if method == patternpb.MulticastRegistryPattern_ListNamespaces_FullMethodName {
				continue
			}
			err = call(g.as(tokenOf("nobody")), t, g.conn, method, namespace, "a/x")
			shown := namespace
			if shown == "" {
				shown = "default"
			}
			want := `permission denied: ` + string(operations[method]) + ` in namespace "` + shown + `"`
			if status.Code(err) != codes.PermissionDenied || status.Convert(err).Message() != want || len(status.Convert(err).Details()) > 0 {
				t.Errorf("%s in %q by nobody: %v, want %s", method, namespace, err, want)
			}
		}
	}
	got, err := g.rpc.ListNamespaces(g.as(tokenOf("nobody")), &patternpb.ListNamespacesRequest{})
	if err != nil || len(got.GetNamespaces()) != 0 {
		t.Errorf("nobody lists %v, %v", got, err)
	}
	if got, err = g.rpc.ListNamespaces(g.as(tokenOf("op")), &patternpb.ListNamespacesRequest{}); err != nil || len(got.GetNamespaces()) != 2 {
		t.Errorf("the operator lists %v, %v", got, err)
	}
}

// TestNamespaceOfNobody compares one that does not exist with one without a policy, and with "default" that does not exist.
func TestNamespaceOfNobody(t *testing.T) {
	t.Parallel()
	g := guard(t, auth.Config{Tokens: staticTokens("nobody")}, rules{"some": nil}, nil)
	for namespace, want := range map[string]string{"": "default", "default": "default", "some": "some", "none": "none"} {
		_, err := g.rpc.Enumerate(g.as(tokenOf("nobody")), &patternpb.EnumerateRequest{Namespace: namespace})
		if got := status.Convert(err).Message(); got != `permission denied: enumerate in namespace "`+want+`"` {
			t.Errorf("%q: %s", namespace, got)
		}
	}
	long := strings.Repeat("x", 5000)
	_, err := g.rpc.Enumerate(g.as(tokenOf("nobody")), &patternpb.EnumerateRequest{Namespace: long})
	if status.Code(err) != codes.PermissionDenied || len(err.Error()) > 300 {
		t.Errorf("a long name: %v", err)
	}
}

// TestPublicMethods checks that health and reflection need no credentials, and that reflection reaches nothing else.
func TestPublicMethods(t *testing.T) {
	t.Parallel()
	g := guard(t, auth.Config{Tokens: staticTokens("op")}, rules{"default": {{Subjects: []string{"op"}, Roles: []auth.Role{auth.RoleAdmin}}}}, nil)
	health := grpc_health_v1.NewHealthClient(g.conn)
	for _, ctx := range []context.Context{g.ctx, g.as("token-wrong")} {
		got, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err != nil || got.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("health: %v, %v", got, err)
		}
		stream, err := reflectionpb.NewServerReflectionClient(g.conn).ServerReflectionInfo(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
		}); err != nil {
			t.Fatal(err)
		}
		listed, err := stream.Recv()
		if err != nil || len(listed.GetListServicesResponse().GetService()) < 3 {
			t.Errorf("reflection: %v, %v", listed, err)
		}
		stream.CloseSend()
	}
}

// allowed is what each role may do, besides listing the namespace.
var allowed = map[auth.Role][]string{
	auth.RoleRegister:  {"Register", "Heartbeat", "Unregister"},
	auth.RoleEnumerate: {"Enumerate", "EnumerateStream", "Explain"},
	auth.RoleMulticast: {"Multicast", "MulticastStream", "GetMulticast", "ListMulticasts", "CancelMulticast"},
	auth.RoleSubscribe: {"Subscribe"},
	auth.RoleWatch:     {"Watch"},
	auth.RoleAdmin: {
		"Register", "Heartbeat", "Unregister", "Enumerate", "EnumerateStream", "Explain", "Multicast", "MulticastStream",
		"GetMulticast", "ListMulticasts", "CancelMulticast", "Subscribe", "Watch",
	},
}

// roleRules give each role to who has its name, however they proved it.
func roleRules() (out []auth.Rule) {
	for _, role := range auth.Roles() {
		out = append(out, auth.Rule{Subjects: []string{"is-" + string(role)}, Roles: []auth.Role{role}, Identities: []string{"*"}})
	}
	return out
}

// TestRoles is the table of roles and methods, for each kind of credentials.
func TestRoles(t *testing.T) {
	t.Parallel()
	ca, issuer := newAuthority(t), newIssuer(t)
	var names []string
	for _, role := range auth.Roles() {
		names = append(names, "is-"+string(role))
	}
	j := issuer.config()
	g := guard(t, auth.Config{Tokens: staticTokens(names...), JWT: &j, MTLS: &auth.MTLS{}}, rules{"default": roleRules()}, ca)
	for _, role := range auth.Roles() {
		subject := "is-" + string(role)
		cert := ca.client(t, subject)
		secure, secureHTTP := g.connect(&cert)
		for kind, c := range map[string]struct {
			ctx   context.Context
			conn  *grpc.ClientConn
			http  *http.Client
			token string
		}{
			"token": {g.as(tokenOf(subject)), g.conn, g.http, tokenOf(subject)},
			"jwt":   {g.as(issuer.token(t, subject)), g.conn, g.http, issuer.token(t, subject)},
			"mtls":  {g.ctx, secure, secureHTTP, ""},
		} {
			for method := range rpcs() {
				name := method[strings.LastIndexByte(method, '/')+1:]
				want := slices.Contains(allowed[role], name) || name == "ListNamespaces"
				code := status.Code(call(c.ctx, t, c.conn, method, "", "x"))
				if got := code != codes.PermissionDenied; got != want || code == codes.Unauthenticated || code == codes.Unavailable || code == codes.Internal {
					t.Errorf("gRPC, %s: %s by %s: %s", kind, name, role, code)
				}
			}
			for i, r := range new(gateway).routes() {
				name, known := routeMethods[r.method+" "+r.path]
				if r.public || !known {
					continue
				}
				want := slices.Contains(allowed[role], name) || name == "ListNamespaces"
				code, body := g.answerOf(c.http, r.method, at(&r, "default", "x"), bodyOfRoute(&r), c.token)
				if got := code != http.StatusForbidden; got != want || code == http.StatusUnauthorized || code >= 500 {
					t.Errorf("HTTP, %s: route %d, %s %s by %s: %d %s", kind, i, r.method, r.path, role, code, body)
				}
			}
		}
		listed, err := g.rpc.ListNamespaces(g.as(tokenOf(subject)), &patternpb.ListNamespacesRequest{})
		if err != nil || len(listed.GetNamespaces()) != 1 {
			t.Fatalf("%s lists %v, %v", role, listed, err)
		}
		counts := role == auth.RoleEnumerate || role == auth.RoleAdmin
		if got := listed.GetNamespaces()[0].IdentityCount != nil; got != counts {
			t.Errorf("%s is told the count: %v", role, got)
		}
	}
}

// TestForeignCertificate checks that a certificate of another authority, or none, is nobody.
func TestForeignCertificate(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	g := guard(t, auth.Config{MTLS: &auth.MTLS{}}, rules{"default": roleRules()}, ca)
	cert := newAuthority(t).client(t, "is-admin")
	conn, client := g.connect(&cert)
	if err := call(g.ctx, t, conn, patternpb.MulticastRegistryPattern_Enumerate_FullMethodName, "", "x"); err == nil {
		t.Error("a certificate of another authority is good")
	}
	req, _ := http.NewRequestWithContext(g.ctx, http.MethodGet, g.url+"/v1/namespaces", nil)
	if resp, err := client.Do(req); err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("a certificate of another authority is good: %d", resp.StatusCode)
		}
	}
	if code := status.Code(call(g.ctx, t, g.conn, patternpb.MulticastRegistryPattern_Enumerate_FullMethodName, "", "x")); code != codes.Unauthenticated {
		t.Errorf("no certificate: %s", code)
	}
}

// tenants are a and b, who see and own what is theirs, and an operator.
func tenants() rules {
	return rules{"default": {
		{
			Subjects: []string{"a", "b"}, Identities: []string{"${sub}/*"}, Filter: map[string]any{"tenant": "${sub}"},
			Roles: []auth.Role{auth.RoleRegister, auth.RoleEnumerate, auth.RoleMulticast, auth.RoleSubscribe, auth.RoleWatch},
		},
		{Subjects: []string{"star", "*"}, Methods: []auth.Method{auth.MethodMTLS}, Roles: []auth.Role{auth.RoleWatch}},
		{Subjects: []string{"op"}, Roles: []auth.Role{auth.RoleAdmin}},
		{Subjects: []string{"listener"}, Roles: []auth.Role{auth.RoleSubscribe}, Identities: []string{"${sub}/*"}},
		{Subjects: []string{`\*`, "a/b"}, Roles: []auth.Role{auth.RoleRegister, auth.RoleSubscribe}, Identities: []string{"${sub}/*"}},
		{Subjects: []string{"claimless"}, Roles: []auth.Role{auth.RoleEnumerate, auth.RoleWatch}, Filter: map[string]any{"tenant": "${claim.tenant}"}},
	}}
}

func guardTenants(t *testing.T) *guarded {
	t.Helper()
	return guard(t, auth.Config{Tokens: staticTokens("a", "b", "op", "listener", "*", "a/b", "claimless", "nobody")}, tenants(), nil)
}

// stolen are names with which a might reach what is b's.
var stolen = []string{
	"b/x", "B/x", "b", "b/", "/b/x", "*", "b/*", "a", "A/x", "", "../b/x", "./a/x", " a/x", "а/x" /* Cyrillic */, "a\u2215x", "ａ/x",
	"a\x00/x", "\x00a/x", "a%2Fx", "a\\x", "a\u0301/x", "b/x\x00a/", strings.Repeat("b", 300), "a\n/x", "${sub}/x", "${claim.sub}/x",
}

// TestOwnership has a act as others in every way there is.
func TestOwnership(t *testing.T) {
	t.Parallel()
	g := guardTenants(t)
	b, a := tokenOf("b"), tokenOf("a")
	g.put(b, "b/x", map[string]any{"tenant": "b"})
	before, err := g.rpc.Enumerate(g.as(tokenOf("op")), &patternpb.EnumerateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what, id string, err error) {
		t.Helper()
		if code := status.Code(err); code != codes.PermissionDenied && (code != codes.InvalidArgument || id != "" && len(id) < 300) {
			t.Errorf("%s %.40q: %v", what, id, err)
		}
	}
	attach := func(token, id string, keep bool) error {
		ctx, cancel := context.WithCancel(g.as(token))
		defer cancel()
		s, err := g.rpc.Subscribe(ctx)
		if err != nil {
			return err
		}
		s.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Attach{Attach: &patternpb.Attach{Identities: []string{id}, KeepAlive: keep}}})
		_, err = s.Recv()
		return err
	}
	mine := obj(t, map[string]any{"tenant": "a"})
	for _, id := range stolen {
		_, err := g.rpc.Register(g.as(a), &patternpb.RegisterRequest{Identity: id, Metadata: mine})
		refused("register", id, err)
		_, err = g.rpc.Register(g.as(a), &patternpb.RegisterRequest{Identity: id, Metadata: mine, Mode: patternpb.RegisterRequest_REPLACE})
		refused("replace", id, err)
		_, err = g.rpc.Heartbeat(g.as(a), &patternpb.HeartbeatRequest{Identity: id, Ttl: durationpb.New(time.Second)})
		refused("heartbeat", id, err)
		_, err = g.rpc.Unregister(g.as(a), &patternpb.UnregisterRequest{Identity: id})
		refused("unregister", id, err)
		refused("attach", id, attach(a, id, false))
		refused("attach and keep", id, attach(a, id, true))
	}
	// One of them beside one's own, and in a second attach.
	s, err := g.rpc.Subscribe(g.as(a))
	if err != nil {
		t.Fatal(err)
	}
	s.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Attach{Attach: &patternpb.Attach{Identities: []string{"a/x"}}}})
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	s.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Attach{Attach: &patternpb.Attach{Identities: []string{"a/x", "b/x"}}}})
	if _, err := s.Recv(); status.Code(err) != codes.PermissionDenied || strings.Contains(err.Error(), "a/x") {
		t.Errorf("one of two: %v", err)
	}
	after, err := g.rpc.Enumerate(g.as(tokenOf("op")), &patternpb.EnumerateRequest{})
	if err != nil || !slices.EqualFunc(before.GetIdentities(), after.GetIdentities(), func(a, b *patternpb.Identity) bool { return proto.Equal(a, b) }) {
		t.Errorf("before %v, after %v, %v", before, after, err)
	}
	// What looks like a way to b is a name in a's own.
	for _, id := range []string{"a/../b/x", "a/%2e%2e/b/x", "a//b/x", "a/*", "a/b/x", "a/\x00"} {
		g.put(a, id, map[string]any{"tenant": "a"})
		if _, err := g.rpc.Unregister(g.as(a), &patternpb.UnregisterRequest{Identity: id}); err != nil {
			t.Errorf("%q is a's own: %v", id, err)
		}
	}
	if got := g.all(tokenOf("op")); got != "b/x" {
		t.Errorf("in the end there is %q", got)
	}
	// A star in a subject is a star.
	_, err = g.rpc.Heartbeat(g.as(tokenOf("*")), &patternpb.HeartbeatRequest{Identity: "b/x"})
	refused("heartbeat by *", "b/x", err)
	g.put(tokenOf("*"), "*/x", nil)
	refused("attach by a/b", "a/x", attach(tokenOf("a/b"), "a/x", false))
	// Without the role register nobody keeps a lease, not even their own.
	if err := attach(tokenOf("listener"), "listener/x", false); err != nil {
		t.Errorf("the listener's own: %v", err)
	}
	refused("keep alive without register", "listener/x", attach(tokenOf("listener"), "listener/x", true))
	// Metadata that another's filter admits, or one's own does not.
	for _, fields := range []map[string]any{nil, {"tenant": "b"}, {"tenant": []any{"b"}}, {"tenant": []any{"a", "b"}}, {"tenant": []any{"a", 1}}, {"tenant": []any{"a", nil, []any{"b"}}}, {"Tenant": "a"}, {"tenant.": "a"}, {"tenant": map[string]any{"a": "a"}}, {"tenant": nil}} {
		_, err := g.rpc.Register(g.as(a), &patternpb.RegisterRequest{Identity: "a/x", Metadata: obj(t, fields)})
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("metadata %v: %v", fields, err)
		}
	}
	g.put(a, "a/x", map[string]any{"tenant": []any{"a", "a"}, "other": []any{"a", "b"}})
	if got := g.all(b); got != "b/x" {
		t.Errorf("b sees %q", got)
	}
}

// TestForeignAcks has a acknowledge what b received, with everything about it known.
func TestForeignAcks(t *testing.T) {
	t.Parallel()
	g := guardTenants(t)
	g.put(tokenOf("a"), "a/x", map[string]any{"tenant": "a"})
	g.put(tokenOf("b"), "b/x", map[string]any{"tenant": "b"})
	open := func(subject string) *client {
		s, err := g.rpc.Subscribe(g.as(tokenOf(subject)))
		if err != nil {
			t.Fatal(err)
		}
		c := &client{BidiStreamingClient: s, t: t}
		c.send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Attach{Attach: &patternpb.Attach{Identities: []string{subject + "/x"}}}})
		c.recv()
		return c
	}
	as, bs := open("a"), open("b")
	done := make(chan *patternpb.MulticastResponse, 1)
	go func() {
		got, err := g.rpc.Multicast(g.as(tokenOf("op")), &patternpb.MulticastRequest{
			Filter: obj(t, map[string]any{"tenant": "b"}), Timeout: durationpb.New(time.Second), RetryAttempts: 1,
		})
		if err != nil {
			t.Error(err)
		}
		done <- got
	}()
	m := bs.recv().GetMessages().GetMessages()[0]
	for _, id := range []string{"b/x", "a/x"} {
		as.send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Acks{Acks: &patternpb.Acks{Acks: []*patternpb.Ack{
			{Identity: id, MessageId: m.GetMessageId(), ReplyCode: 7},
		}}}})
	}
	if got := <-done; got.GetDeliveredCount() != 0 || got.GetPendingCount() != 1 || len(got.GetReplyCounts()) != 0 {
		t.Errorf("a's ack counts for b: %v", got)
	}
	bs.send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Acks{Acks: &patternpb.Acks{Acks: []*patternpb.Ack{{Identity: "b/x", MessageId: m.GetMessageId(), ReplyCode: 3}}}}})
	eventually(t, "b's own ack counts", func() bool {
		got, err := g.rpc.GetMulticast(g.as(tokenOf("op")), &patternpb.GetMulticastRequest{MulticastId: m.GetMessageId()})
		return err == nil && got.GetMulticast().GetResult().GetReplyCounts()[3] == 1
	})
}

// TestMandatoryFilter checks that a tenant neither sees, counts nor reaches what is outside of their filter.
func TestMandatoryFilter(t *testing.T) {
	t.Parallel()
	g := guardTenants(t)
	a, b, op := tokenOf("a"), tokenOf("b"), tokenOf("op")
	for _, id := range []string{"a/1", "a/2"} {
		g.put(a, id, map[string]any{"tenant": "a", "room": "lab"})
	}
	for _, id := range []string{"b/1", "b/2", "b/3"} {
		g.put(b, id, map[string]any{"tenant": "b", "room": "lab", "bonly": "secret-of-b"})
	}
	const own = "a/1 a/2"
	for _, f := range []map[string]any{
		nil,
		{"room": "lab"},
		{"$or": []any{map[string]any{"tenant": "b"}, map[string]any{"room": "lab"}}},
		{"tenant": map[string]any{"$exists": true}},
		{"$not": map[string]any{"tenant": "b"}},
		{"tenant": map[string]any{"$in": []any{"a", "b"}}},
		{"$and": []any{map[string]any{}, map[string]any{"room": "lab"}}},
	} {
		req := &patternpb.EnumerateRequest{CountBy: []string{"tenant", "bonly"}, SortBy: []string{"-bonly", "tenant"}}
		if f != nil {
			req.Filter = obj(t, f)
		}
		got, err := g.rpc.Enumerate(g.as(a), req)
		if err != nil || idsOf(got.GetIdentities()) != own || got.GetTotalCount() != 2 || strings.Contains(got.String(), "secret-of-b") {
			t.Errorf("enumerate %v: %v, %v", f, got, err)
		}
		if c := got.GetCounts(); len(c[0].GetGroups()) != 1 || c[0].GetGroups()[0].GetCount() != 2 || len(c[1].GetGroups()) != 0 || c[1].GetMissingCount() != 2 {
			t.Errorf("counts %v", c)
		}
		stream, err := g.rpc.EnumerateStream(g.as(a), &patternpb.EnumerateStreamRequest{Request: req})
		if err != nil {
			t.Fatal(err)
		}
		if page, err := stream.Recv(); err != nil || idsOf(page.GetPage().GetIdentities()) != own || page.GetPage().GetTotalCount() != 2 {
			t.Errorf("stream %v: %v, %v", f, page, err)
		}
		req.CountOnly = true
		if got, err = g.rpc.Enumerate(g.as(a), req); err != nil || got.GetTotalCount() != 2 {
			t.Errorf("count %v: %v, %v", f, got, err)
		}
		dry, err := g.rpc.Multicast(g.as(a), &patternpb.MulticastRequest{Filter: req.GetFilter(), DryRun: true})
		if err != nil || dry.GetTargetCount() != 2 || names(dry.GetStatuses()) != own {
			t.Errorf("dry run %v: %v, %v", f, dry, err)
		}
		_, err = g.rpc.Multicast(g.as(a), &patternpb.MulticastRequest{Filter: req.GetFilter(), MaxTargets: 1})
		if err == nil || !strings.Contains(err.Error(), "2") || strings.Contains(err.Error(), "5") || strings.Contains(err.Error(), "3") {
			t.Errorf("more targets than allowed: %v", err)
		}
	}
	for _, f := range []map[string]any{{"tenant": "b"}, {"bonly": "secret-of-b"}, {"bonly": map[string]any{"$exists": true}}, {"bonl": 1}} {
		got, err := g.rpc.Enumerate(g.as(a), &patternpb.EnumerateRequest{Filter: obj(t, f)})
		if err != nil || got.GetTotalCount() != 0 || len(got.GetIdentities()) != 0 || len(got.GetWarnings()) != 0 {
			t.Errorf("%v: %v, %v", f, got, err)
		}
		dry, err := g.rpc.Multicast(g.as(a), &patternpb.MulticastRequest{Filter: obj(t, f), DryRun: true})
		if err != nil || dry.GetTargetCount() != 0 || len(dry.GetWarnings()) != 0 {
			t.Errorf("%v: %v, %v", f, dry, err)
		}
	}
	// The place of another's page, and of a name that was never there.
	page, err := g.rpc.Enumerate(g.as(op), &patternpb.EnumerateRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := g.rpc.Enumerate(g.as(a), &patternpb.EnumerateRequest{PageToken: page.GetNextPageToken()}); err != nil || idsOf(got.GetIdentities()) != "a/2" {
		t.Errorf("behind another's page: %v, %v", got, err)
	}
	mine, err := g.rpc.Enumerate(g.as(a), &patternpb.EnumerateRequest{PageSize: 1, SortBy: []string{"room"}})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(mine.GetNextPageToken())
	if err != nil || strings.Contains(string(raw), "tenant") || strings.Contains(string(raw), "b/") || !strings.Contains(string(raw), "a/1") {
		t.Errorf("a page token holds %q, %v", raw, err)
	}
	// What tells of everything is denied.
	if _, err := g.rpc.Explain(g.as(a), &patternpb.ExplainRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("explain: %v", err)
	}
	listed, err := g.rpc.ListNamespaces(g.as(a), &patternpb.ListNamespacesRequest{})
	if err != nil || len(listed.GetNamespaces()) != 1 || listed.GetNamespaces()[0].IdentityCount != nil {
		t.Errorf("namespaces: %v, %v", listed, err)
	}
	// A rule whose filter cannot be filled in grants nothing, and shows nothing.
	if listed, err = g.rpc.ListNamespaces(g.as(tokenOf("claimless")), &patternpb.ListNamespacesRequest{}); err != nil || len(listed.GetNamespaces()) != 0 {
		t.Errorf("namespaces without the claim: %v, %v", listed, err)
	}
	if _, err := g.rpc.Enumerate(g.as(tokenOf("claimless")), &patternpb.EnumerateRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("enumerate without the claim: %v", err)
	}
}

// TestMulticastsOfOthers checks that others' multicasts are not to be seen, counted, cancelled, or told from such as never were.
func TestMulticastsOfOthers(t *testing.T) {
	t.Parallel()
	g := guardTenants(t)
	a, b, op := tokenOf("a"), tokenOf("b"), tokenOf("op")
	g.put(a, "a/1", map[string]any{"tenant": "a"})
	g.put(b, "b/1", map[string]any{"tenant": "b"})
	send := func(token, payload string) (*patternpb.MulticastResponse, error) {
		return g.rpc.Multicast(g.as(token), &patternpb.MulticastRequest{Payload: []byte(payload), IdempotencyKey: "same-key", RetryAttempts: 1})
	}
	first, err := send(b, "for b")
	if err != nil || names(first.GetStatuses()) != "b/1" {
		t.Fatal(first, err)
	}
	// The same key, of another and with another payload.
	second, err := send(a, "for a")
	if err != nil || names(second.GetStatuses()) != "a/1" || second.GetReplayed() || second.GetMulticastId() == first.GetMulticastId() {
		t.Fatal(second, err)
	}
	third, err := send(op, "for all")
	if err != nil || third.GetTargetCount() != 2 || third.GetReplayed() {
		t.Fatal(third, err)
	}
	if again, err := send(a, "for a"); err != nil || !again.GetReplayed() || again.GetMulticastId() != second.GetMulticastId() {
		t.Errorf("replay: %v, %v", again, err)
	}
	for range 4 { // more of others behind and before
		if _, err := g.rpc.Multicast(g.as(b), &patternpb.MulticastRequest{RetryAttempts: 1}); err != nil {
			t.Fatal(err)
		}
	}
	const unknown = "01890a5d-ac96-774b-bcce-b302099a8057"
	for _, id := range []string{first.GetMulticastId(), third.GetMulticastId()} {
		texts := map[string]bool{}
		for _, id := range []string{id, unknown} {
			_, got := g.rpc.GetMulticast(g.as(a), &patternpb.GetMulticastRequest{MulticastId: id})
			_, cancelled := g.rpc.CancelMulticast(g.as(a), &patternpb.CancelMulticastRequest{MulticastId: id})
			if status.Code(got) != codes.NotFound || status.Code(cancelled) != codes.NotFound {
				t.Errorf("%s: get %v, cancel %v", id, got, cancelled)
			}
			texts[strings.ReplaceAll(got.Error()+cancelled.Error(), id, "…")] = true
		}
		if len(texts) != 1 {
			t.Errorf("another's and none are told apart: %v", slices.Collect(maps.Keys(texts)))
		}
	}
	for _, size := range []int32{0, 1, 2, 3, 1000} {
		got, err := g.rpc.ListMulticasts(g.as(a), &patternpb.ListMulticastsRequest{PageSize: size})
		if err != nil || len(got.GetMulticasts()) != 1 || got.GetMulticasts()[0].GetResult().GetMulticastId() != second.GetMulticastId() || got.GetNextPageToken() != "" {
			t.Errorf("page of %d: %v, %v", size, got, err)
		}
	}
	// In b's pages, a's are no gap.
	seen, token := 0, ""
	for range 10 {
		got, err := g.rpc.ListMulticasts(g.as(b), &patternpb.ListMulticastsRequest{PageSize: 2, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		seen += len(got.GetMulticasts())
		if token = got.GetNextPageToken(); token == "" {
			break
		}
		if raw, _ := base64.RawURLEncoding.DecodeString(token); len(got.GetMulticasts()) != 2 || string(raw) != got.GetMulticasts()[1].GetResult().GetMulticastId() {
			t.Errorf("a token of %q behind %v", raw, got)
		}
	}
	if seen != 5 {
		t.Errorf("b sees %d of 5", seen)
	}
	if all, err := g.rpc.ListMulticasts(g.as(op), &patternpb.ListMulticastsRequest{}); err != nil || len(all.GetMulticasts()) != 7 {
		t.Errorf("the operator sees %v, %v", all, err)
	}
}

// TestMandatoryFilterOfWatch checks snapshot, changes, and going on with another's token.
func TestMandatoryFilterOfWatch(t *testing.T) {
	t.Parallel()
	g := guardTenants(t)
	a, b, op := tokenOf("a"), tokenOf("b"), tokenOf("op")
	g.put(b, "b/1", map[string]any{"tenant": "b"})
	g.put(op, "wanders", map[string]any{"tenant": "a", "word": "of-a"})
	ctx, cancel := context.WithCancel(g.as(a))
	defer cancel()
	w, err := g.rpc.Watch(ctx, &patternpb.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	wantNews(t, w, "PRESENT wanders", "SYNCED ")
	g.put(b, "b/2", map[string]any{"tenant": "b"})
	g.put(op, "wanders", map[string]any{"tenant": "b", "word": "secret-of-b"})
	news, err := w.Recv()
	if err != nil || strings.Contains(news.String(), "secret-of-b") {
		t.Fatal(news, err)
	}
	if e := news.GetEvents(); len(e) != 1 || e[0].GetType() != patternpb.WatchEvent_LEFT || e[0].GetIdentity().GetMetadata().AsMap()["word"] != "of-a" {
		t.Errorf("who wanders off: %v", news)
	}
	g.put(op, "wanders", map[string]any{"tenant": "b", "word": "more"})
	g.put(a, "a/1", map[string]any{"tenant": "a"})
	token := wantNews(t, w, "JOINED a/1")
	for _, other := range []string{op, b} {
		w, err := g.rpc.Watch(g.as(other), &patternpb.WatchRequest{OmitSnapshot: true})
		if err != nil {
			t.Fatal(err)
		}
		theirs := wantNews(t, w, "SYNCED ")
		for who, token := range map[string]string{a: theirs, other: token} {
			w, err := g.rpc.Watch(g.as(who), &patternpb.WatchRequest{ResumeToken: token})
			if err == nil {
				_, err = w.Recv()
			}
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("another's token: %v", err)
			}
		}
	}
	if again, err := g.rpc.Watch(g.as(a), &patternpb.WatchRequest{ResumeToken: token}); err != nil {
		t.Error(err)
	} else {
		wantNews(t, again, "SYNCED ")
	}
}

// guardHidden has "view", who sees all identities and not all of their fields.
func guardHidden(t *testing.T) *guarded {
	t.Helper()
	g := guard(t, auth.Config{Tokens: staticTokens("view", "op")}, rules{"default": {
		{Subjects: []string{"op"}, Roles: []auth.Role{auth.RoleAdmin}},
		{
			Subjects: []string{"view"}, Roles: []auth.Role{auth.RoleEnumerate, auth.RoleWatch, auth.RoleMulticast, auth.RoleRegister},
			Identities: []string{"view/*"}, Hidden: []string{"secret", "a.b", `dot\.ted`, "list.key", "n.lt", `\$dollar`},
		},
	}}, nil)
	g.put(tokenOf("op"), "x", hiddenFields("s3cret"))
	g.put(tokenOf("op"), "y", map[string]any{"room": "lab", "a": "plain"})
	return g
}

// hiddenFields are fields with a value in each that is hidden.
func hiddenFields(value string) map[string]any {
	return map[string]any{
		"room": "lab", "secret": value, "a": map[string]any{"b": map[string]any{"deep": value}, "c": "open"}, "dot.ted": value,
		"list": []any{map[string]any{"key": value, "open": "o"}, []any{map[string]any{"key": value}}}, "n": map[string]any{"lt": value}, "$dollar": value,
	}
}

// probes are names of hidden fields.
var probes = []string{"secret", "secret.x", "a.b", "a.b.deep", `\a.\b`, `dot\.ted`, "list.key", `n.\lt`, `\$dollar`, `\secret`}

// TestHiddenFieldsAreNotShown looks at every answer with metadata.
func TestHiddenFieldsAreNotShown(t *testing.T) {
	t.Parallel()
	g := guardHidden(t)
	view := g.as(tokenOf("view"))
	clean := func(what string, m proto.Message, err error) {
		t.Helper()
		raw, _ := proto.Marshal(m)
		if err != nil || strings.Contains(string(raw), "s3cret") || strings.Contains(string(raw), "deep") || strings.Contains(string(raw), "dot.ted") {
			t.Errorf("%s: %q, %v", what, raw, err)
		}
	}
	for _, req := range []*patternpb.EnumerateRequest{
		{},
		{PageSize: 1},
		{Fields: []string{"a"}},
		{Fields: []string{"a.c", "list", "n"}},
		{SortBy: []string{"a"}, PageSize: 1},
		{CountBy: []string{"a", "list", "n"}},
		{SortBy: []string{"list", "-n"}, PageSize: 1},
		{Filter: obj(t, map[string]any{"room": "lab"}), CountBy: []string{"room"}},
	} {
		got, err := g.rpc.Enumerate(view, req)
		clean("enumerate", got, err)
		raw, _ := base64.RawURLEncoding.DecodeString(got.GetNextPageToken())
		if strings.Contains(string(raw), "s3cret") {
			t.Errorf("page token %q", raw)
		}
		stream, err := g.rpc.EnumerateStream(view, &patternpb.EnumerateStreamRequest{Request: req})
		if err != nil {
			t.Fatal(err)
		}
		for {
			page, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if clean("stream", page, err); err != nil {
				break
			}
		}
	}
	got, err := g.rpc.Enumerate(view, &patternpb.EnumerateRequest{PageSize: 1})
	if err != nil || got.GetIdentities()[0].GetMetadata().GetFields()["a"].GetStructValue().GetFields()["c"].GetStringValue() != "open" {
		t.Errorf("what is open beside it: %v, %v", got, err)
	}
	w, err := g.rpc.Watch(view, &patternpb.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{2, 1, 1, 1} { // present twice, synced, updated, left
		news, err := w.Recv()
		clean("watch", news, err)
		if len(news.GetEvents()) != want {
			t.Fatalf("news %d: %v", i, news)
		}
		switch i {
		case 1:
			g.put(tokenOf("op"), "x", hiddenFields("s3cret-too"))
		case 2:
			if _, err := g.rpc.Unregister(g.as(tokenOf("op")), &patternpb.UnregisterRequest{Identity: "x"}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestHiddenFieldsAreNotProbed names hidden fields in every place that takes a name: whether any identity has them makes no difference.
func TestHiddenFieldsAreNotProbed(t *testing.T) {
	t.Parallel()
	g := guardHidden(t)
	view := g.as(tokenOf("view"))
	texts := map[string]bool{}
	denied := func(what, name string, err error) {
		t.Helper()
		if status.Code(err) != codes.PermissionDenied || !strings.HasSuffix(err.Error(), "a field may not be used") {
			t.Errorf("%s %s: %v", what, name, err)
		}
		texts[err.Error()] = true
	}
	for _, name := range probes {
		for _, f := range []map[string]any{
			{name: "s3cret"},
			{name: map[string]any{"$exists": true}},
			{name: map[string]any{"$exists": false}},
			{name: map[string]any{"$type": "string"}},
			{name: map[string]any{"$not": map[string]any{"$lt": "t"}}},
			{"$not": map[string]any{name: 1}},
			{"$or": []any{map[string]any{"room": "lab"}, map[string]any{name: nil}}},
			{"$and": []any{map[string]any{"$or": []any{map[string]any{"$not": map[string]any{name: map[string]any{"$regex": "^s"}}}}}}},
			{"room": "lab", name: map[string]any{"$in": []any{1, "s3cret"}}},
		} {
			match := obj(t, f)
			_, err := g.rpc.Enumerate(view, &patternpb.EnumerateRequest{Filter: match})
			denied("enumerate", name, err)
			_, err = g.rpc.Multicast(view, &patternpb.MulticastRequest{Filter: match, DryRun: true})
			denied("multicast", name, err)
			for what, open := range map[string]func() (interface{ RecvMsg(m any) error }, error){
				"watch": func() (interface{ RecvMsg(m any) error }, error) {
					return g.rpc.Watch(view, &patternpb.WatchRequest{Filter: match})
				},
				"multicast stream": func() (interface{ RecvMsg(m any) error }, error) {
					return g.rpc.MulticastStream(view, &patternpb.MulticastStreamRequest{Request: &patternpb.MulticastRequest{Filter: match}})
				},
				"enumerate stream": func() (interface{ RecvMsg(m any) error }, error) {
					return g.rpc.EnumerateStream(view, &patternpb.EnumerateStreamRequest{Request: &patternpb.EnumerateRequest{Filter: match}})
				},
			} {
				s, err := open()
				if err == nil {
					err = s.RecvMsg(new(patternpb.WatchResponse))
				}
				denied(what, name, err)
			}
		}
		for _, req := range []*patternpb.EnumerateRequest{{SortBy: []string{name}}, {SortBy: []string{"room", "-" + name}}, {CountBy: []string{name}}, {Fields: []string{"room", name}}} {
			_, err := g.rpc.Enumerate(view, req)
			denied("enumerate", name, err)
		}
		if _, err := g.rpc.Explain(view, &patternpb.ExplainRequest{Filter: obj(t, map[string]any{name: 1})}); status.Code(err) != codes.PermissionDenied {
			t.Errorf("explain: %v", err)
		}
	}
	if len(texts) != 3 { // enumerate, multicast, watch
		t.Errorf("refusals differ: %v", slices.Collect(maps.Keys(texts)))
	}
	if _, err := g.rpc.Enumerate(view, &patternpb.EnumerateRequest{Filter: obj(t, map[string]any{"n.lt.eq": "s3cret"})}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("with the operator in the name: %v", err)
	}
	// Parents can be compared with scalars only, and near misses suggest nothing.
	for _, f := range []map[string]any{{"a": map[string]any{"b": map[string]any{"deep": "s3cret"}}}, {"a": map[string]any{"$eq": map[string]any{"b": 1}}}, {"list": map[string]any{"$contains": map[string]any{"key": "s3cret"}}}} {
		if _, err := g.rpc.Enumerate(view, &patternpb.EnumerateRequest{Filter: obj(t, f)}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", f, err)
		}
	}
	for _, f := range []map[string]any{{"secre": 1}, {"secret2": "x"}, {"a.d": 1}, {"lst.key": 1}} {
		got, err := g.rpc.Enumerate(view, &patternpb.EnumerateRequest{Filter: obj(t, f)})
		if err != nil || len(got.GetWarnings()) != 0 {
			t.Errorf("%v: %v, %v", f, got, err)
		}
		dry, err := g.rpc.Multicast(view, &patternpb.MulticastRequest{Filter: obj(t, f), DryRun: true})
		if err != nil || len(dry.GetWarnings()) != 0 {
			t.Errorf("%v: %v, %v", f, dry, err)
		}
		s, err := g.rpc.MulticastStream(view, &patternpb.MulticastStreamRequest{Request: &patternpb.MulticastRequest{Filter: obj(t, f)}})
		for err == nil {
			var step *patternpb.MulticastStreamResponse
			if step, err = s.Recv(); len(step.GetEnded().GetWarnings()) != 0 {
				t.Errorf("%v: %v", f, step)
			}
		}
	}
	// The filter of another's multicast is kept back if it names one.
	for filter, shown := range map[string]bool{"secret": false, "room": true} {
		sent, err := g.rpc.Multicast(g.as(tokenOf("op")), &patternpb.MulticastRequest{Filter: obj(t, map[string]any{filter: "s3cret"})})
		if err != nil {
			t.Fatal(err)
		}
		got, err := g.rpc.GetMulticast(view, &patternpb.GetMulticastRequest{MulticastId: sent.GetMulticastId()})
		if err != nil || (got.GetMulticast().GetFilter() != nil) != shown {
			t.Errorf("%s: %v, %v", filter, got, err)
		}
		list, err := g.rpc.ListMulticasts(view, &patternpb.ListMulticastsRequest{PageSize: 1})
		if err != nil || (list.GetMulticasts()[0].GetFilter() != nil) != shown {
			t.Errorf("%s: %v, %v", filter, list, err)
		}
	}
}

// TestSchemaAndAccess checks that what a schema fills in is checked like what was sent, and hidden like it.
func TestSchemaAndAccess(t *testing.T) {
	t.Parallel()
	described, err := schema.New(schema.Config{Strict: true, Fields: map[string]schema.Field{
		"tenant": {Type: schema.String, Default: "b"}, "secret": {Type: schema.String, Default: "s3cret"}, "room": {Type: schema.String},
	}})
	if err != nil {
		t.Fatal(err)
	}
	g := guard(t, auth.Config{Tokens: staticTokens("a", "view", "op")}, rules{"default": {
		{Subjects: []string{"a"}, Roles: []auth.Role{auth.RoleRegister}, Identities: []string{"*"}, Filter: map[string]any{"tenant": "a"}},
		{Subjects: []string{"view"}, Roles: []auth.Role{auth.RoleRegister, auth.RoleEnumerate}, Identities: []string{"*"}, Hidden: []string{"secret"}},
		{Subjects: []string{"op"}, Roles: []auth.Role{auth.RoleAdmin}},
	}}, nil, func(n *Namespace) { n.Schema = described })
	if _, err := g.rpc.Register(g.as(tokenOf("a")), &patternpb.RegisterRequest{Identity: "x"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("with the tenant that is the default: %v", err)
	}
	got, err := g.rpc.Register(g.as(tokenOf("view")), &patternpb.RegisterRequest{Identity: "y", Metadata: obj(t, map[string]any{"room": "lab"})})
	if fields := got.GetIdentity().GetMetadata().AsMap(); err != nil || fields["secret"] != nil || fields["tenant"] != "b" || fields["room"] != "lab" {
		t.Errorf("the answer has %v, %v", fields, err)
	}
	if all, err := g.rpc.Enumerate(g.as(tokenOf("op")), &patternpb.EnumerateRequest{Filter: obj(t, map[string]any{"secret": "s3cret"})}); err != nil || all.GetTotalCount() != 1 {
		t.Errorf("the operator sees %v, %v", all, err)
	}
	for name, want := range map[string]codes.Code{"secret": codes.PermissionDenied, "secret.x": codes.PermissionDenied, "secre": codes.InvalidArgument, "room": codes.OK} {
		for _, req := range []*patternpb.EnumerateRequest{{Filter: obj(t, map[string]any{name: "x"})}, {SortBy: []string{name}}, {CountBy: []string{name}}, {Fields: []string{name}}} {
			_, err := g.rpc.Enumerate(g.as(tokenOf("view")), req)
			if status.Code(err) != want || want == codes.InvalidArgument && strings.Contains(err.Error(), "secret") {
				t.Errorf("%v: %v", req, err)
			}
		}
	}
}

// TestStreamsEndWithTheirCredentials opens every stream with a token that expires, and sees that nothing comes afterwards.
func TestStreamsEndWithTheirCredentials(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t)
	j := issuer.config()
	g := guard(t, auth.Config{Tokens: staticTokens("op"), JWT: &j}, rules{"default": {{Subjects: []string{"*"}, Roles: []auth.Role{auth.RoleAdmin}}}}, nil)
	op := tokenOf("op")
	big := strings.Repeat("x", 60<<10)
	for i := range 40 {
		g.put(op, string(rune('A'+i)), map[string]any{"big": big})
	}
	expires := time.Now().Add(4 * time.Second).Truncate(time.Second)
	short := issuer.token(t, "short", "exp", expires.Unix())
	ctx := g.as(short)
	watch, err := g.rpc.Watch(ctx, &patternpb.WatchRequest{OmitSnapshot: true})
	if err != nil {
		t.Fatal(err)
	}
	wantNews(t, watch, "SYNCED ")
	sub, err := g.rpc.Subscribe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Attach{Attach: &patternpb.Attach{Identities: []string{"A"}}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := sub.Recv(); err != nil {
		t.Fatal(err)
	}
	idle, err := g.rpc.Subscribe(ctx) // attached to nothing
	if err != nil {
		t.Fatal(err)
	}
	slow, err := g.rpc.EnumerateStream(ctx, &patternpb.EnumerateStreamRequest{Request: &patternpb.EnumerateRequest{PageSize: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Recv(); err != nil {
		t.Fatal(err)
	}
	silent, err := g.rpc.Subscribe(g.as(op)) // for whom the multicast waits
	if err != nil {
		t.Fatal(err)
	}
	if err := silent.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Attach{Attach: &patternpb.Attach{Identities: []string{"C"}}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := silent.Recv(); err != nil {
		t.Fatal(err)
	}
	multicast, err := g.rpc.MulticastStream(ctx, &patternpb.MulticastStreamRequest{Request: &patternpb.MulticastRequest{
		Filter: obj(t, map[string]any{"big": map[string]any{"$exists": true}}), Timeout: durationpb.New(patience), Delivery: patternpb.Delivery_AT_LEAST_ONCE,
	}})
	if err != nil {
		t.Fatal(err)
	}
	events := make(chan string, 2)
	for _, path := range []string{"/v1/namespaces/default/identities:watch?omit_snapshot=true", "/v1/namespaces/default/messages?identity=B"} {
		go func() {
			code, body := g.request(g.http, http.MethodGet, path, "", short)
			events <- strings.TrimSpace(http.StatusText(code) + " " + body)
		}()
	}
	<-time.After(time.Until(expires.Add(100 * time.Millisecond)))
	g.put(op, "late", map[string]any{"word": "too-late"})
	if _, err := g.rpc.Multicast(g.as(op), &patternpb.MulticastRequest{Payload: []byte("too-late"), Timeout: durationpb.New(100 * time.Millisecond), RetryAttempts: 1}); err != nil {
		t.Fatal(err)
	}
	for what, recv := range map[string]func() (proto.Message, error){
		"watch": func() (proto.Message, error) { return watch.Recv() }, "subscribe": func() (proto.Message, error) { return sub.Recv() },
		"idle": func() (proto.Message, error) { return idle.Recv() }, "enumerate": func() (proto.Message, error) { return slow.Recv() },
		"multicast": func() (proto.Message, error) { return multicast.Recv() },
	} {
		var err error
		n := 0
		for ; err == nil; n++ {
			var m proto.Message
			if m, err = recv(); err == nil {
				if raw, _ := proto.Marshal(m); strings.Contains(string(raw), "too-late") {
					t.Errorf("%s: it came too late: %.80q", what, raw)
				}
			}
		}
		if what == "multicast" && errors.Is(err, io.EOF) {
			continue // it sees the end coming as that of a deadline, and ends a moment before, with what it has
		}
		if status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "expired") || n >= 40 {
			t.Errorf("%s ended after %d messages with %v", what, n, err)
		}
	}
	for range 2 {
		if text := <-events; !strings.HasPrefix(text, "OK ") || !strings.Contains(text, "event: error") || !strings.Contains(text, "UNAUTHENTICATED") || strings.Contains(text, "too-late") {
			t.Errorf("events: %s", text)
		}
	}
	if _, err := g.rpc.Enumerate(ctx, &patternpb.EnumerateRequest{}); status.Code(err) != codes.Unauthenticated || !strings.HasSuffix(err.Error(), "credentials are expired") {
		t.Errorf("afterwards: %v", err)
	}
}

// issuer is an OIDC provider.
type issuer struct {
	*httptest.Server

	key *ecdsa.PrivateKey
	ca  string
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	set := jwkset.NewMemoryStorage()
	jwk, err := jwkset.NewJWKFromKey(key.Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: "k1"}})
	if err == nil {
		err = set.KeyWrite(t.Context(), jwk)
	}
	if err != nil {
		t.Fatal(err)
	}
	keys, err := set.JSONPublic(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key}
	i.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(keys) }))
	t.Cleanup(i.Close)
	i.ca = filepath.Join(t.TempDir(), "issuer.pem")
	writePEM(t, i.ca, "CERTIFICATE", i.Certificate().Raw)
	return i
}

func (i *issuer) config() auth.JWT {
	return auth.JWT{Issuer: i.URL, JWKSURL: i.URL + "/keys", Audiences: []string{"prism"}, CAFile: i.ca, Leeway: time.Nanosecond}
}

// claims are those of a good token, with changes.
func (i *issuer) claims(subject string, changes ...any) jwt.MapClaims {
	now := time.Now()
	c := jwt.MapClaims{"iss": i.URL, "aud": "prism", "sub": subject, "iat": now.Add(-time.Minute).Unix(), "exp": now.Add(time.Hour).Unix()}
	for n := 0; n < len(changes); n += 2 {
		c[changes[n].(string)] = changes[n+1]
	}
	return c
}

func (i *issuer) token(t *testing.T, subject string, changes ...any) string {
	t.Helper()
	return i.sign(t, jwt.SigningMethodES256, i.key, i.claims(subject, changes...))
}

func (i *issuer) sign(t *testing.T, method jwt.SigningMethod, key any, c jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(method, c)
	token.Header["kid"] = "k1"
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// authority signs certificates of the server and of clients.
type authority struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert: cert, key: key}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *authority) sign(t *testing.T, name pkix.Name, dns ...string) (der []byte, key ed25519.PrivateKey) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: name, DNSNames: dns, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if dns != nil {
		template.IPAddresses = loopbackIPs
	}
	if der, err = x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key); err != nil {
		t.Fatal(err)
	}
	return der, key
}

// client is the certificate of a subject.
func (a *authority) client(t *testing.T, subject string) tls.Certificate {
	t.Helper()
	der, key := a.sign(t, pkix.Name{CommonName: subject})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// reloader is what secures a server that takes certificates of clients.
func (a *authority) reloader(t *testing.T, log *slog.Logger) *auth.Reloader {
	t.Helper()
	der, key := a.sign(t, pkix.Name{}, "localhost")
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cfg := auth.TLS{
		CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), ClientCAFile: filepath.Join(dir, "ca.pem"), ClientAuth: auth.ClientAuthOptional,
	}
	writePEM(t, cfg.CertFile, "CERTIFICATE", der)
	writePEM(t, cfg.KeyFile, "PRIVATE KEY", pkcs8)
	writePEM(t, cfg.ClientCAFile, "CERTIFICATE", a.cert.Raw)
	r, err := auth.ServerTLS(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
