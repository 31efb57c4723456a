package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/auth"
)

var loopbackIPs = []net.IP{net.IPv4(127, 0, 0, 1)}

// send sends a request with a token, if there is one, and further headers, which are added.
func (g *guarded) send(c *http.Client, method, path, body, token string, header ...string) *http.Response {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.ctx, method, g.url+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header[header[i]] = append(req.Header[header[i]], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		g.t.Errorf("%s %s: %v", method, path, err)
		return &http.Response{Body: http.NoBody, Header: http.Header{}}
	}
	return resp
}

// request returns what a request was answered, up to the end.
func (g *guarded) request(c *http.Client, method, path, body, token string, header ...string) (code int, text string) {
	g.t.Helper()
	resp := g.send(c, method, path, body, token, header...)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Errorf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, string(raw)
}

// answerOf is request for streams of events too, of which it only waits for the status.
func (g *guarded) answerOf(c *http.Client, method, path, body, token string) (code int, text string) {
	g.t.Helper()
	resp := g.send(c, method, path, body, token)
	defer resp.Body.Close()
	if resp.Header.Get("Content-Type") == "text/event-stream" {
		return resp.StatusCode, ""
	}
	raw, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw)
}

// at is the path of a route in a namespace, for an identity.
func at(r *route, namespace, identity string) string {
	path := strings.NewReplacer("{namespace}", url.PathEscape(namespace), "{identity}", url.PathEscape(identity),
		"{multicast_id}", "01890a5d-ac96-774b-bcce-b302099a8057").Replace(r.path)
	if strings.HasSuffix(path, "/messages") {
		path += "?identity=" + url.QueryEscape(identity)
	}
	return path
}

func bodyOfRoute(r *route) string {
	switch {
	case r.method != http.MethodPost:
		return ""
	case strings.HasSuffix(r.path, "/identities"):
		return `{"identity": "x"}`
	case strings.HasSuffix(r.path, "/messages:ack"):
		return `{"stream": "0123", "acks": [{"identity": "x", "message_id": "y"}]}`
	}
	return `{}`
}

const inNamespace = "/v1/namespaces/{namespace}"

// routeMethods tells which method of the service each route is, for access.
var routeMethods = map[string]string{
	"GET /v1/namespaces":                                        "ListNamespaces",
	"POST " + inNamespace + "/identities":                       "Register",
	"POST " + inNamespace + "/identities/{identity}:heartbeat":  "Heartbeat",
	"DELETE " + inNamespace + "/identities/{identity}":          "Unregister",
	"GET " + inNamespace + "/identities":                        "Enumerate",
	"POST " + inNamespace + "/identities:enumerate":             "Enumerate",
	"POST " + inNamespace + "/identities:enumerateStream":       "EnumerateStream",
	"POST " + inNamespace + "/identities:explain":               "Explain",
	"GET " + inNamespace + "/identities:watch":                  "Watch",
	"POST " + inNamespace + "/identities:multicast":             "Multicast",
	"POST " + inNamespace + "/identities:multicastStream":       "MulticastStream",
	"GET " + inNamespace + "/multicasts":                        "ListMulticasts",
	"GET " + inNamespace + "/multicasts/{multicast_id}":         "GetMulticast",
	"POST " + inNamespace + "/multicasts/{multicast_id}:cancel": "CancelMulticast",
	"GET " + inNamespace + "/identities/{identity}:subscribe":   "Subscribe",
	"GET " + inNamespace + "/messages":                          "Subscribe",
	"POST " + inNamespace + "/messages:ack":                     "Subscribe",
}

// TestEveryRouteHasARule walks the routes without credentials, with those of nobody, and looks at what the answers say. A route
// that is neither public nor in the table fails.
func TestEveryRouteHasARule(t *testing.T) {
	t.Parallel()
	g := guard(t, auth.Config{Tokens: staticTokens("nobody", "op")}, rules{
		"default":      {{Subjects: []string{"op"}, Roles: []auth.Role{auth.RoleAdmin}}},
		"hidden-space": {{Subjects: []string{"op"}, Roles: []auth.Role{auth.RoleAdmin}}},
	}, nil)
	open := map[string]bool{"/": true, "/healthz": true, "/readyz": true}
	for _, r := range new(gateway).routes() {
		name, known := routeMethods[r.method+" "+r.path]
		if r.public != open[r.path] || known == r.public {
			t.Errorf("%s %s: public %t, in the table %t: give it a rule, and a row in routeMethods", r.method, r.path, r.public, known)
		}
		if r.public {
			for _, token := range []string{"", "token-wrong"} {
				code, body := g.request(g.http, r.method, at(&r, "", ""), "", token)
				if code != http.StatusOK {
					t.Errorf("%s: %d", r.path, code)
				}
				checkRefusal(t, r.path, body)
			}
			continue
		}
		messages := map[string]string{}
		for _, namespace := range []string{"default", "hidden-space", "no-such-space"} {
			path := at(&r, namespace, "x")
			for token, fault := range map[string]string{"": "missing", "token-wrong": "invalid"} {
				resp := g.send(g.http, r.method, path, bodyOfRoute(&r), token)
				raw, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				var got failure
				if err := json.Unmarshal(raw, &got); err != nil || resp.StatusCode != http.StatusUnauthorized || got.Error.Code != "UNAUTHENTICATED" ||
					got.Error.Message != "unauthenticated: credentials are "+fault || got.Error.Field != "" || resp.Header.Get("WWW-Authenticate") != "Bearer" {
					t.Errorf("%s %s with %q: %d %s %v", r.method, path, token, resp.StatusCode, raw, resp.Header)
				}
				checkRefusal(t, path, string(raw))
			}
			code, body := g.request(g.http, r.method, path, bodyOfRoute(&r), tokenOf("nobody"))
			if name == "ListNamespaces" {
				if code != http.StatusOK || strings.Contains(body, "default") {
					t.Errorf("%s by nobody: %d %s", path, code, body)
				}
				continue
			}
			var got failure
			if err := json.Unmarshal([]byte(body), &got); err != nil || code != http.StatusForbidden || got.Error.Code != "PERMISSION_DENIED" {
				t.Errorf("%s %s by nobody: %d %s", r.method, path, code, body)
			}
			checkRefusal(t, path, strings.ReplaceAll(body, namespace, ""))
			messages[strings.ReplaceAll(got.Error.Message, namespace, "…")] = namespace
		}
		if len(messages) > 1 {
			t.Errorf("%s %s: namespaces are told apart by %v", r.method, r.path, messages)
		}
	}
	code, body := g.request(g.http, http.MethodPost, "/v1/namespaces/default/identities:purge", `{}`, "")
	if code != http.StatusNotFound {
		t.Errorf("what is no route: %d %s", code, body)
	}
}

// TestReadyTellsNoStranger checks that the public probe says whether, and only the operators' one says what.
func TestReadyTellsNoStranger(t *testing.T) {
	t.Parallel()
	j := auth.JWT{Issuer: "https://127.0.0.1:1", JWKSURL: "https://127.0.0.1:1/keys", Audiences: []string{"prism"}, StartTimeout: time.Millisecond}
	g := guard(t, auth.Config{JWT: &j, Tokens: staticTokens("op")}, rules{"default": {{Subjects: []string{"op"}, Roles: []auth.Role{auth.RoleAdmin}}}}, nil)
	if code, body := g.request(g.http, http.MethodGet, "/readyz", "", ""); code != http.StatusServiceUnavailable || strings.Contains(body, "default") || strings.Contains(body, "127.0.0.1") || strings.Contains(body, "memory") {
		t.Errorf("without the issuer's keys: %d %s", code, body)
	}
	rec := newRecorder()
	req, _ := http.NewRequestWithContext(g.ctx, http.MethodGet, "/readyz", nil)
	g.Admin().ServeHTTP(rec, req)
	if rec.code != http.StatusServiceUnavailable || !strings.Contains(rec.String(), `"default"`) || !strings.Contains(rec.String(), `"memory"`) || !strings.Contains(rec.String(), "keys") {
		t.Errorf("to operators: %d %s", rec.code, rec.String())
	}
	if code, body := g.request(g.http, http.MethodGet, "/v1/namespaces/default/identities", "", tokenOf("op")); code != http.StatusOK {
		t.Errorf("a static token meanwhile: %d %s", code, body)
	}
}

type recorder struct {
	bytes.Buffer
	code   int
	header http.Header
}

func newRecorder() *recorder { return &recorder{code: http.StatusOK, header: http.Header{}} }

func (r *recorder) Header() http.Header  { return r.header }
func (r *recorder) WriteHeader(code int) { r.code = code }

// TestStolenPaths has a act as b by paths that are spelled in many ways.
func TestStolenPaths(t *testing.T) {
	t.Parallel()
	g := guardTenants(t)
	g.put(tokenOf("b"), "b/x", map[string]any{"tenant": "b"})
	const base = "/v1/namespaces/default/identities/"
	for _, id := range []string{
		"b%2Fx", "b%2fx", "%62%2Fx", "b%252Fx", "B%2Fx", "a%2F..%2Fb%2Fx", "..%2Fb%2Fx", "a/../b%2Fx", "../identities/b%2Fx", "./b%2Fx", "/b%2Fx",
		"*", "b%2F*", "b%2Fx%00", "b%2Fx%20", "b%2Fx/", "b/x", "%00", "%ff", "b%2Fx%2F", "b%2Fx?identity=a%2Fx", "b%2Fx;a%2Fx", "b%2Fx#a/x",
	} {
		for _, r := range []struct{ method, verb string }{{"DELETE", ""}, {"POST", ":heartbeat"}, {"GET", ":subscribe"}, {"GET", ":subscribe?keep_alive=true"}} {
			code, body := g.answerOf(g.http, r.method, base+id+r.verb, "", tokenOf("a"))
			own := strings.HasPrefix(id, "a%2F") // a name in a's own space
			switch {
			case code == http.StatusForbidden, code == http.StatusNotFound, code == http.StatusBadRequest, code == http.StatusMethodNotAllowed:
			case own && code == http.StatusOK:
			default:
				t.Errorf("%s %s%s: %d %s", r.method, id, r.verb, code, body)
			}
		}
	}
	for _, query := range []string{"identity=b%2Fx", "identity=a%2Fx&identity=b%2Fx", "identity=*", "identity=a%2Fx&identity=b%2Fx&keep_alive=true"} {
		if code, body := g.answerOf(g.http, http.MethodGet, "/v1/namespaces/default/messages?"+query, "", tokenOf("a")); code != http.StatusForbidden {
			t.Errorf("%s: %d %s", query, code, body)
		}
	}
	for _, body := range []string{
		`{"identity":"b/x","metadata":{"tenant":"a"}}`, `{"identity":"b/x","metadata":{"tenant":"a"},"mode":"REPLACE"}`, `{"identity":"b\/x","metadata":{"tenant":"a"}}`,
		`{"identity":"\u0062/x","metadata":{"tenant":"a"}}`, `{"identity":"a/x","identity":"b/x","metadata":{"tenant":"a"}}`, `{"identity":"a/x","metadata":{"tenant":"a","tenant":"b"}}`,
		`{"identity":"a/x","metadata":{"tenant":"b"}}`, `{"namespace":"other","identity":"a/x","metadata":{"tenant":"a"}}`,
	} {
		if code, text := g.request(g.http, http.MethodPost, "/v1/namespaces/default/identities", body, tokenOf("a")); code != http.StatusForbidden && code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", body, code, text)
		}
	}
	if got := g.all(tokenOf("op")); got != "b/x" {
		t.Errorf("in the end there is %q", got)
	}
}

// TestForeignStream has a, and others, acknowledge by POST what b's stream received.
func TestForeignStream(t *testing.T) {
	t.Parallel()
	g := guardTenants(t)
	g.put(tokenOf("b"), "b/x", map[string]any{"tenant": "b"})
	resp := g.send(g.http, http.MethodGet, "/v1/namespaces/default/messages?identity=b%2Fx&ack=manual", "", tokenOf("b"))
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	data := func(into any) {
		for lines.Scan() {
			if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if err := json.Unmarshal([]byte(text), into); err != nil {
					t.Fatal(err)
				}
				return
			}
		}
		t.Fatal("the stream ended")
	}
	var attached struct{ Stream string }
	data(&attached)
	sent := make(chan *patternpb.MulticastResponse, 1)
	go func() {
		got, err := g.rpc.Multicast(g.as(tokenOf("op")), &patternpb.MulticastRequest{Timeout: durationpb.New(patience), RetryAttempts: 1})
		if err != nil {
			t.Error(err)
		}
		sent <- got
	}()
	var m struct {
		ID string `json:"message_id"`
	}
	data(&m)
	body := `{"stream":"` + attached.Stream + `","acks":[{"identity":"b/x","message_id":"` + m.ID + `","reply_code":7}]}`
	for subject, want := range map[string]int{"a": 404, "op": 404, "listener": 404, "nobody": 403, "claimless": 403} {
		if code, text := g.request(g.http, http.MethodPost, "/v1/namespaces/default/messages:ack", body, tokenOf(subject)); code != want {
			t.Errorf("ack by %s: %d %s", subject, code, text)
		}
	}
	select {
	case got := <-sent:
		t.Fatalf("somebody else's ack counts: %v", got)
	case <-time.After(100 * time.Millisecond):
	}
	if code, text := g.request(g.http, http.MethodPost, "/v1/namespaces/default/messages:ack", body, tokenOf("b")); code != http.StatusOK {
		t.Errorf("b's own ack: %d %s", code, text)
	}
	if got := <-sent; got.GetDeliveredCount() != 1 || got.GetReplyCounts()[7] != 1 {
		t.Errorf("b's own ack: %v", got)
	}
}

// TestHeaders sends credentials in every wrong way.
func TestHeaders(t *testing.T) {
	t.Parallel()
	issuer := newIssuer(t)
	j := issuer.config()
	g := guard(t, auth.Config{Tokens: staticTokens("op", "nobody"), JWT: &j}, rules{"default": {{Subjects: []string{"op"}, Roles: []auth.Role{auth.RoleAdmin}}}}, nil)
	op, nobody, good := tokenOf("op"), tokenOf("nobody"), issuer.token(t, "op")
	const path = "/v1/namespaces/default/identities"
	public, err := x509.MarshalPKIXPublicKey(issuer.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	none := issuer.sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, issuer.claims("op"))
	parts := strings.Split(good, ".")
	for _, row := range []struct {
		what   string
		values []string
		want   int
	}{
		{"a token", []string{"Bearer " + op}, 200},
		{"a JWT", []string{"Bearer " + good}, 200},
		{"lower case", []string{"bearer " + op}, 200},
		{"upper case", []string{"BEARER " + good}, 200},
		{"more spaces", []string{"Bearer   " + op + " "}, 200},
		{"two headers", []string{"Bearer " + op, "Bearer " + op}, 401},
		{"two headers, one of them good", []string{"Bearer " + op, "Bearer wrong"}, 401},
		{"two in one", []string{"Bearer " + op + ", Bearer " + op}, 401},
		{"Basic", []string{"Basic b3A6cHc="}, 401},
		{"no scheme", []string{op}, 401},
		{"no token", []string{"Bearer"}, 401},
		{"nothing but spaces", []string{"Bearer   "}, 401},
		{"empty", []string{""}, 401},
		{"a tab", []string{"Bearer\t" + op}, 401},
		{"20 kB", []string{"Bearer " + strings.Repeat("x", 20<<10)}, 401},
		{"not ASCII", []string{"Bearer tökén"}, 401},
		{"the hash instead", []string{"Bearer " + auth.HashToken(op)}, 401},
		{"somebody else", []string{"Bearer " + nobody}, 403},
		{"alg none", []string{"Bearer " + none}, 401},
		{"HS256 with the public key", []string{"Bearer " + issuer.sign(t, jwt.SigningMethodHS256, public, issuer.claims("op"))}, 401},
		{"no signature", []string{"Bearer " + parts[0] + "." + parts[1] + "."}, 401},
		{"another's signature", []string{"Bearer " + parts[0] + "." + strings.Split(issuer.token(t, "other"), ".")[1] + "." + parts[2]}, 401},
		{"expired", []string{"Bearer " + issuer.token(t, "op", "exp", time.Now().Add(-time.Minute).Unix())}, 401},
		{"for ever", []string{"Bearer " + issuer.token(t, "op", "exp", nil)}, 401},
		{"not yet", []string{"Bearer " + issuer.token(t, "op", "nbf", time.Now().Add(time.Hour).Unix())}, 401},
		{"of another issuer", []string{"Bearer " + issuer.token(t, "op", "iss", "https://elsewhere.example")}, 401},
		{"for another audience", []string{"Bearer " + issuer.token(t, "op", "aud", "billing")}, 401},
		{"without a subject", []string{"Bearer " + issuer.token(t, "")}, 401},
		{"a subject with a line break", []string{"Bearer " + issuer.token(t, "op\n")}, 401},
	} {
		var header []string
		for _, v := range row.values {
			header = append(header, "Authorization", v)
		}
		code, body := g.request(g.http, http.MethodGet, path, "", "", header...)
		if code != row.want {
			t.Errorf("%s: %d %s", row.what, code, body)
		}
		if code == 401 {
			checkRefusal(t, row.what, body)
		}
		if strings.ContainsAny(strings.Join(row.values, ""), "\tö") {
			continue // gRPC's metadata has no such characters
		}
		_, err := g.rpc.Enumerate(metadata.NewOutgoingContext(g.ctx, metadata.MD{"authorization": row.values}), &patternpb.EnumerateRequest{})
		if want := map[int]codes.Code{200: codes.OK, 401: codes.Unauthenticated, 403: codes.PermissionDenied}[row.want]; status.Code(err) != want {
			t.Errorf("%s: %v, want %s", row.what, err, want)
		}
	}
	for name, value := range map[string]string{
		"Grpc-Metadata-Authorization": "Bearer " + op, "Grpcgateway-Authorization": "Bearer " + op, "Proxy-Authorization": "Bearer " + op, "X-Forwarded-User": "op",
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Client-Cert": `Subject="CN=op"`, "Forwarded": "for=127.0.0.1", "Cookie": "authorization=Bearer " + op,
		"X-Authorization": "Bearer " + op, "Grpc-Metadata-Prism-Ticket": "x", "Prism-Ticket": "x",
	} {
		if code, body := g.request(g.http, http.MethodGet, path, "", "", name, value); code != 401 {
			t.Errorf("%s: %d %s", name, code, body)
		}
		if code, body := g.request(g.http, http.MethodGet, path, "", nobody, name, value); code != 403 && code != 401 {
			t.Errorf("%s beside a token of nobody: %d %s", name, code, body)
		}
	}
	for _, query := range []string{"?access_token=" + op, "?authorization=Bearer%20" + op} {
		if code, body := g.request(g.http, http.MethodGet, path+query, "", ""); code != 400 && code != 401 {
			t.Errorf("%s: %d %s", query, code, body)
		}
	}
	if log := g.log.String(); strings.Contains(log, op) || strings.Contains(log, parts[2]) {
		t.Error("a token is in the log")
	}
}

// TestStolenTicket shows a ticket that is good, of a request of the operator's that is under way, from outside.
func TestStolenTicket(t *testing.T) {
	t.Parallel()
	g := guardTenants(t)
	resp := g.send(g.http, http.MethodGet, "/v1/namespaces/default/identities:watch", "", tokenOf("op"))
	defer resp.Body.Close()
	ticket := ""
	g.tickets.callers.Range(func(key, _ any) bool {
		ticket = key.(string)
		return false
	})
	if ticket == "" {
		t.Fatal("there is no ticket")
	}
	ctx := metadata.AppendToOutgoingContext(g.ctx, ticketHeader, ticket)
	if _, err := g.rpc.Enumerate(ctx, &patternpb.EnumerateRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("over gRPC: %v", err)
	}
	for _, header := range [][]string{
		{"Grpc-Metadata-Prism-Ticket", ticket},
		{"Prism-Ticket", ticket},
		{"Grpcgateway-Prism-Ticket", ticket},
		{"grpc-metadata-prism-ticket", ticket},
		{"Grpc-Metadata-Prism-Ticket", ticket, "Grpc-Metadata-Prism-Ticket", ticket},
		{"Grpc-Metadata-Prism-Ticket-Bin", ticket},
	} {
		const path = "/v1/namespaces/default/identities"
		if code, body := g.request(g.http, http.MethodGet, path, "", "", header...); code != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", header[0], code, body)
		}
		if code, body := g.request(g.http, http.MethodGet, path, "", tokenOf("nobody"), header...); code != http.StatusUnauthorized && code != http.StatusForbidden {
			t.Errorf("%s beside a token of nobody: %d %s", header[0], code, body)
		}
	}
	resp.Body.Close()
	eventually(t, "no ticket is left", func() bool {
		left := false
		g.tickets.callers.Range(func(any, any) bool { left = true; return false })
		return !left
	})
}

// TestWithoutAuthentication checks that headers of credentials change nothing where nobody is asked.
func TestWithoutAuthentication(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	for _, ctx := range []context.Context{b.ctx, metadata.AppendToOutgoingContext(b.ctx, "authorization", "Basic x", ticketHeader, "x")} {
		if _, err := b.rpc.Enumerate(ctx, &patternpb.EnumerateRequest{}); err != nil {
			t.Error(err)
		}
	}
	if resp, body := b.do("GET", "/v1/namespaces/default/identities", "", "Authorization", "Basic x", "Grpc-Metadata-Prism-Ticket", "x"); resp.StatusCode != http.StatusOK {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// TestTheSameOverHTTP looks at what tenants and those who do not see every field get as JSON, lines and events.
func TestTheSameOverHTTP(t *testing.T) {
	t.Parallel()
	g, hidden := guardTenants(t), guardHidden(t)
	g.put(tokenOf("a"), "a/1", map[string]any{"tenant": "a"})
	g.put(tokenOf("b"), "b/1", map[string]any{"tenant": "b"})
	for _, r := range []struct{ method, path, body string }{
		{"GET", "identities?count_by=tenant", ""},
		{"POST", "identities:enumerate", `{"filter":{"$or":[{"tenant":"b"},{"tenant":"a"}]},"count_by":["tenant"]}`},
		{"POST", "identities:enumerateStream", `{"count_by":["tenant"]}`},
		{"POST", "identities:multicast", `{"dry_run":true}`},
		{"POST", "identities:multicastStream", `{"dry_run":true}`},
	} {
		code, body := g.request(g.http, r.method, "/v1/namespaces/default/"+r.path, r.body, tokenOf("a"))
		if code != http.StatusOK || !strings.Contains(body, "a/1") || strings.Contains(body, "b/1") || strings.Contains(body, `"b"`) {
			t.Errorf("%s: %d %s", r.path, code, body)
		}
		code, body = hidden.request(hidden.http, r.method, "/v1/namespaces/default/"+strings.Replace(r.path, "tenant", "room", 1), strings.ReplaceAll(r.body, "tenant", "room"), tokenOf("view"))
		if code != http.StatusOK || strings.Contains(body, "s3cret") {
			t.Errorf("%s: %d %s", r.path, code, body)
		}
	}
	for _, path := range []string{"identities?sort_by=secret", "identities?count_by=a.b", "identities?fields=list.key", "identities:watch?filter=%7B%22secret%22%3A1%7D"} {
		if code, body := hidden.answerOf(hidden.http, http.MethodGet, "/v1/namespaces/default/"+path, "", tokenOf("view")); code != http.StatusForbidden {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	for _, row := range []struct {
		g            *guarded
		who, has, no string
	}{{g, "a", "a/1", "b/1"}, {hidden, "view", "open", "s3cret"}} {
		resp := row.g.send(row.g.http, http.MethodGet, "/v1/namespaces/default/identities:watch", "", tokenOf(row.who))
		lines := bufio.NewScanner(resp.Body)
		var text strings.Builder
		for lines.Scan() && lines.Text() != "event: synced" {
			text.WriteString(lines.Text())
		}
		resp.Body.Close()
		if got := text.String(); !strings.Contains(got, row.has) || strings.Contains(got, row.no) {
			t.Errorf("events for %s: %s", row.who, got)
		}
	}
}
