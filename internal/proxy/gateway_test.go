package proxy

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const base = "/v1/namespaces/default"

func TestHTTPCalls(t *testing.T) {
	b := serve(t, Config{})
	payload := base64.StdEncoding.EncodeToString([]byte("hello"))
	for _, row := range []struct {
		method, path, body string
		code               int
		has                []string // parts of the body, without spaces
	}{
		{"POST", base + "/identities", `{"identity":"dev-1","metadata":{"room":"lab","floor":3},"ttl":"90s"}`, 201, []string{`"identity":"dev-1"`, `"room":"lab"`, `"ttl":"90s"`, `"registered_at":"`, `"revision":"1"`}},
		{"POST", base + "/identities", `{"identity":"dev-1"}`, 409, []string{`"code":"ALREADY_EXISTS"`, `"http":409`, `dev-1`, `"request_id":"`}},
		{"POST", base + "/identities", `{"identity":"dev-1","mode":"REPLACE","metadata":{"room":"lab"},"never_expires":true}`, 201, []string{`"identity":"dev-1"`}},
		{"POST", base + "/identities", `{"identity":"dev-1","namespace":"default","mode":"REPLACE","metadata":{"room":"lab"}}`, 201, nil},
		{"POST", base + "/identities/dev-1:heartbeat", ``, 200, []string{`"expires_at":"`, `"ttl":"300s"`}},
		{"POST", base + "/identities/dev-1:heartbeat", `{"ttl":"60s"}`, 200, []string{`"ttl":"60s"`}},
		{"POST", base + "/identities:enumerate", `{"filter":{"room":"lab"}}`, 200, []string{`"total_count":"1"`, `"next_page_token":""`, `"identity":"dev-1"`}},
		{"POST", base + "/identities:enumerate", ``, 200, []string{`"total_count":"1"`}},
		{"POST", base + "/identities:enumerate", `{"filter":{"room":"office"}}`, 200, []string{`"total_count":"0"`, `"identities":[]`}},
		{"POST", base + "/identities:multicast", `{"payload":"` + payload + `"}`, 200, []string{`"delivered_count":0`, `"failed_count":1`, `"target_count":1`, `"reason":"NO_SUBSCRIBER"`, `"ended":"COMPLETE"`}},
		{"GET", base + "/identities?page_size=1&include_metadata=false", ``, 200, []string{`"total_count":"1"`, `"identity":"dev-1"`}},
		{"GET", base + "/identities?filter=x", ``, 400, []string{`legalparameters:page_size,page_token,include_metadata`}},
		{"DELETE", base + "/identities/dev-1", `{"revision":"999"}`, 400, []string{`"field":"body"`, `query`}},
		{"DELETE", base + "/identities/dev-1?revision=999", ``, 200, []string{`"existed":false`}},
		{"POST", base + "/identities", `{"identity":"a","ttl":"10m"}`, 400, []string{`durationsareseconds`}},
		{"POST", base + "/identities:multicast", `{"payload":"Fire!"}`, 400, []string{`base64inJSON`}},
		{"GET", "/v1/namespaces", ``, 200, []string{`"name":"default"`, `"name":"other"`, `"registry":"memory"`, `"durability":""`, `"identity_count":"1"`}},
		{"DELETE", base + "/identities/dev-1", ``, 200, []string{`"existed":true`}},
		{"DELETE", base + "/identities/dev-1", ``, 200, []string{`"existed":false`}},
		{"GET", "/", ``, 200, []string{`/v1/namespaces/{namespace}/messages`, `"method":"GET"`}},
		{"GET", "/healthz", ``, 200, []string{`"status":"ok"`}},
		{"GET", "/readyz", ``, 200, []string{`"status":"ready"`, `"default":{"status":"ok",`, `"other":{"status":"ok",`, `"registry":{"type":"memory","status":"ok"}`}},
		{"HEAD", "/healthz", ``, 200, nil},

		// What is refused, and with what.
		{"POST", base + "/identities/dev-1:heartbeat", ``, 404, []string{`"code":"NOT_FOUND"`, `dev-1`}},
		{"POST", "/v1/namespaces/nope/identities", `{"identity":"a"}`, 404, []string{`"code":"NOT_FOUND"`, `thisserverhas:default,other`}},
		{"POST", base + "/identities", `{}`, 400, []string{`"code":"INVALID_ARGUMENT"`, `"field":"identity"`}},
		{"POST", base + "/identities", `{"identty":"a"}`, 400, []string{`identty`, `legalfields:namespace,identity,metadata,ttl`}},
		{"POST", base + "/identities", `{"identity":5}`, 400, []string{`RegisterRequest`, `identity`}},
		{"POST", base + "/identities", `identity=a`, 400, []string{`"code":"INVALID_ARGUMENT"`, `expectedaJSONobject`}},
		{"POST", base + "/identities", `{"identity":"a"} {}`, 400, []string{`"code":"INVALID_ARGUMENT"`}},
		{"POST", base + "/identities", `{"identity":"a","identity":"b"}`, 400, []string{`"code":"INVALID_ARGUMENT"`}},
		{"POST", base + "/identities", `{"identity":"a","metadata":{"n":9007199254740993}}`, 400, []string{`wouldberounded`, `sendit`}},
		{"POST", base + "/identities:enumerate", `{"filter":{"x":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}}`, 400, []string{`nesteddeeperthan100`}},
		{"POST", base + "/identities", `[1]`, 400, []string{`"code":"INVALID_ARGUMENT"`}},
		{"POST", base + "/identities", `{"identity":"a","ttl":"soon"}`, 400, []string{`"code":"INVALID_ARGUMENT"`}},
		{"POST", base + "/identities", `{"identity":"a","ttl":"1s","never_expires":true}`, 400, []string{`"field":"never_expires"`}},
		{"POST", base + "/identities", `{"identity":"a","namespace":"other"}`, 400, []string{`thepathsays\"default\"`}},
		{"POST", base + "/identities/a:heartbeat", `{"identity":"b"}`, 400, []string{`thepathsays\"a\"`}},
		{"POST", base + "/identities", "{\"identity\":\"\xff\"}", 400, []string{`"code":"INVALID_ARGUMENT"`}},
		{"POST", base + "/identities", strings.Repeat("[", 20_000), 400, []string{`"code":"INVALID_ARGUMENT"`}},
		{"POST", base + "/identities", `{"identity":"a","metadata":` + strings.Repeat(`{"a":`, 50) + `1` + strings.Repeat(`}`, 51), 400, []string{`"field":"metadata/a/a/`}},
		{"POST", base + "/identities?ttl=5s", `{"identity":"a"}`, 400, []string{`"field":"query"`, `takesnoparameters`}},
		{"POST", base + "/identities:enumerate", `{"filter":{"room":{"$startwith":"x"}}}`, 400, []string{`"field":"filter/room/$startwith"`, `didyoumean`}},
		{"POST", base + "/identities:enumerate", `{"page_size":"x"}`, 400, []string{`EnumerateRequest`}},
		{"POST", base + "/identities:multicast", `{"payload":"%%"}`, 400, []string{`MulticastRequest`}},
		{"POST", base + "/identities:multicast", `{"delivery":"SOMEHOW"}`, 400, []string{`"code":"INVALID_ARGUMENT"`}},
		{"DELETE", base + "/identities/", ``, 400, []string{`"field":"identity"`}},
		{"GET", "/nope", ``, 404, []string{`"code":"NOT_FOUND"`, `GET/liststheroutes`}},
		{"GET", base, ``, 404, []string{`"code":"NOT_FOUND"`}},
		{"POST", base + "/identities/:heartbeat", ``, 405, nil},
		{"POST", base + "/identities/a:nope", ``, 405, []string{`thisroutetakesDELETE`}},
		{"GET", base + "/identities/a/b", ``, 404, nil},
		{"PUT", base + "/identities", ``, 405, []string{`"code":"UNIMPLEMENTED"`, `thisroutetakesGET,POST`}},
		{"GET", base + "/identities/a", ``, 405, []string{`thisroutetakesDELETE`}},
		{"POST", "/healthz", ``, 405, []string{`thisroutetakesGET,HEAD`}},
	} {
		name := row.method + " " + row.path + " " + row.body
		t.Run(name[:min(len(name), 90)], func(t *testing.T) {
			resp, body := b.do(row.method, row.path, row.body)
			if resp.StatusCode != row.code {
				t.Fatalf("got %d, want %d: %s", resp.StatusCode, row.code, body)
			}
			flat := strings.NewReplacer(" ", "", "\n", "").Replace(body)
			for _, part := range row.has {
				if !strings.Contains(flat, part) {
					t.Errorf("lacks %s: %s", part, flat)
				}
			}
			if resp.Header.Get(requestIDHTTP) == "" || resp.Header.Get("Content-Type") != "application/json" && row.method != "HEAD" {
				t.Errorf("headers %v", resp.Header)
			}
			if row.code >= 400 {
				var f failure
				if err := json.Unmarshal([]byte(body), &f); err != nil || f.Error.HTTP != row.code || f.Error.Message == "" || f.Error.RequestID != resp.Header.Get(requestIDHTTP) {
					t.Errorf("error %+v, %v", f, err)
				}
			}
		})
	}
	resp, _ := b.do("PUT", base+"/identities", "")
	if resp.Header.Get("Allow") != "GET, POST" {
		t.Errorf("Allow: %q, want GET, POST", resp.Header.Get("Allow"))
	}
	resp, _ = b.do("POST", base+"/identities", `{"identity":"x/y z"}`, requestIDHTTP, "mine-1")
	if got := resp.Header.Get("Location"); got != base+"/identities/x%2Fy%20z" {
		t.Errorf("Location: %q", got)
	}
	if got := resp.Header.Get(requestIDHTTP); got != "mine-1" {
		t.Errorf("X-Request-Id: %q, want mine-1", got)
	}
	if resp, body := b.do("POST", base+"/identities", `{"identity":"form"}`, "Content-Type", "application/x-www-form-urlencoded"); resp.StatusCode != http.StatusCreated {
		t.Errorf("what curl -d sends: %d %s", resp.StatusCode, body)
	}
	if resp, _ := b.do("POST", base+"/identities/form:heartbeat", ``, "X-HTTP-Method-Override", "DELETE"); resp.StatusCode != http.StatusOK {
		t.Errorf("a header changed the method: %d", resp.StatusCode)
	}
}

// Every route of the .gateway.yaml must be in the table, or it would answer 404.
func TestEveryRouteIsServed(t *testing.T) {
	b := serve(t, Config{})
	g := b.Server.http.Handler.(*gateway)
	for _, r := range g.table {
		path := strings.NewReplacer("{namespace}", "default", "{identity}", "a", "{multicast_id}", "m").Replace(r.path)
		ctx, cancel := context.WithTimeout(b.ctx, patience)
		req, _ := http.NewRequestWithContext(ctx, r.method, b.url+path, nil)
		resp, err := b.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode == http.StatusMethodNotAllowed {
			t.Errorf("%s %s: %d", r.method, r.path, resp.StatusCode)
		}
		if resp.StatusCode == http.StatusNotFound && r.path != "/v1/namespaces/{namespace}/identities/{identity}:heartbeat" {
			t.Errorf("%s %s: %d", r.method, r.path, resp.StatusCode)
		}
		cancel()
		resp.Body.Close()
	}
	methods := patternpb.MulticastRegistryPattern_ServiceDesc.Methods
	served := 0
	for _, r := range g.table {
		if r.serve == nil {
			served++
		}
	}
	if served != len(methods)+1 { // Enumerate has two
		t.Errorf("%d routes for %d unary methods", served, len(methods))
	}
}

func TestHostileIdentitiesOverHTTP(t *testing.T) {
	b := serve(t, Config{})
	for _, id := range hostile {
		body := mustJSON(map[string]string{"identity": id})
		resp, text := b.do("POST", base+"/identities", string(body))
		if resp.StatusCode != http.StatusCreated {
			t.Errorf("register %q: %d %s", id, resp.StatusCode, text)
			continue
		}
		location := resp.Header.Get("Location")
		for _, path := range []string{location, base + "/identities/" + everyByte(id)} {
			if resp, text := b.do("POST", path+":heartbeat", ""); resp.StatusCode != http.StatusOK {
				t.Errorf("heartbeat of %q at %s: %d %s", id, path, resp.StatusCode, text)
			}
			events := b.events(path + ":subscribe")
			if got := events.next(); got.name != "attached" || !strings.Contains(got.data, string(mustJSON(id))) {
				t.Errorf("subscribe to %q at %s: %v", id, path, got)
			}
			events.close()
		}
		if resp, text := b.do("DELETE", location, ""); resp.StatusCode != http.StatusOK || !strings.Contains(text, "true") {
			t.Errorf("unregister %q at %s: %d %s", id, location, resp.StatusCode, text)
		}
	}
	page, err := b.rpc.Enumerate(b.ctx, &patternpb.EnumerateRequest{})
	if err != nil || page.GetTotalCount() != 0 {
		t.Errorf("left behind: %v, %v", page, err)
	}
}

func mustJSON(v any) []byte {
	var b strings.Builder
	e := json.NewEncoder(&b)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return []byte(strings.TrimSpace(b.String()))
}

// everyByte escapes what needs no escaping too.
func everyByte(id string) string {
	var b strings.Builder
	for i := range len(id) {
		fmt.Fprintf(&b, "%%%02x", id[i])
	}
	return b.String()
}

func TestBodyTooLarge(t *testing.T) {
	b := serve(t, Config{})
	limit := b.Server.http.Handler.(*gateway).maxBody
	resp, text := b.do("POST", base+"/identities", strings.Repeat(" ", int(limit)+1))
	if resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(text, strconv.FormatInt(limit, 10)) {
		t.Errorf("got %d %s", resp.StatusCode, text)
	}
	if resp, text := b.do("POST", base+"/identities", strings.Repeat(" ", int(limit))); resp.StatusCode != http.StatusBadRequest || !strings.Contains(text, `"field": "identity"`) {
		t.Errorf("at the limit: %d %s", resp.StatusCode, text)
	}
}

func TestBodyCutShort(t *testing.T) {
	b := serve(t, Config{})
	conn, err := new(net.Dialer).DialContext(b.ctx, "tcp", strings.TrimPrefix(b.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s/identities HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{", base)
	_ = conn.(*net.TCPConn).CloseWrite()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("got %d, want 400", resp.StatusCode)
	}
}

func TestNotReady(t *testing.T) {
	b := serve(t, Config{}, fill{}, fill{
		cfg:      multicastregistry.Config{Namespace: "broken"},
		registry: &brokenRegistry{fail: func(context.Context) error { return fmt.Errorf("redis away: %w", multicastregistry.ErrUnavailable) }},
	}, fill{
		cfg:      multicastregistry.Config{Namespace: "panics"},
		registry: &brokenRegistry{fail: func(context.Context) error { panic("hunter2") }},
	})
	resp, body := b.do("GET", "/readyz", "")
	var got readiness
	if err := json.Unmarshal([]byte(body), &got); err != nil || resp.StatusCode != http.StatusServiceUnavailable || strings.Contains(body, "hunter2") {
		t.Fatalf("got %d %s, %v", resp.StatusCode, body, err)
	}
	well := slotState{Type: "memory", Status: stateOK}
	broken := func(why string) namespaceState {
		return namespaceState{Status: stateUnavailable, Slots: map[string]slotState{
			"registry": {Type: "memory", Status: stateUnavailable, Error: why}, "messaging": well,
		}}
	}
	if want := (readiness{Status: stateUnavailable, Namespaces: map[string]namespaceState{
		"default": {Status: stateOK, Slots: map[string]slotState{"registry": well, "messaging": well}},
		"broken":  broken("redis away: unavailable"), "panics": broken("a fault of ours; the log tells"),
	}}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if log := b.log.String(); !strings.Contains(log, "hunter2") || !strings.Contains(log, "slot=registry type=memory") {
		t.Errorf("the log has %s", log)
	}
	if resp, _ := b.do("GET", "/healthz", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("healthz: %d", resp.StatusCode)
	}
	resp, body = b.do("POST", "/v1/namespaces/broken/identities", `{"identity":"a"}`)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "UNAVAILABLE") {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
	resp, body = b.do("POST", "/v1/namespaces/panics/identities", `{"identity":"a"}`)
	if resp.StatusCode != http.StatusInternalServerError || strings.Contains(body, "hunter2") || !strings.Contains(body, resp.Header.Get(requestIDHTTP)) {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}

// A fault of the HTTP side itself answers with an id that the log explains.
func TestGatewayPanics(t *testing.T) {
	b := serve(t, Config{})
	g := b.Server.http.Handler.(*gateway)
	g.table = append(g.table, route{method: "GET", path: "/boom", serve: func(http.ResponseWriter, *http.Request, map[string]string) { panic("hunter2") }})
	resp, body := b.do("GET", "/boom", "")
	if resp.StatusCode != http.StatusInternalServerError || strings.Contains(body, "hunter2") || !strings.Contains(b.log.String(), "hunter2") {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}

// sse reads server-sent events.
type sse struct {
	t     *testing.T
	body  io.Closer
	lines *bufio.Reader
	stop  context.CancelFunc
}

type event struct{ name, id, data string }

// events opens an event stream and expects it to be one.
func (b *bench) events(path string) *sse { return b.get(path) }

// get is events with a header.
func (b *bench) get(path string, header ...string) *sse {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.url+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if len(header) == 2 {
		req.Header.Set(header[0], header[1])
	}
	resp, err := b.http.Do(req) //nolint:bodyclose // close does
	if err != nil {
		b.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		b.t.Fatalf("GET %s: %d %v", path, resp.StatusCode, resp.Header)
	}
	s := &sse{t: b.t, body: resp.Body, lines: bufio.NewReader(resp.Body), stop: cancel}
	b.t.Cleanup(s.close)
	return s
}

func (s *sse) close() {
	s.stop()
	s.body.Close()
}

// read returns the next event; a comment is an event named ":".
func (s *sse) read() (e event, err error) {
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return e, err
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "event":
			e.name = value
		case "id":
			e.id = value
		case "data":
			e.data = value
		case "":
			if value != "" {
				e.name = ":"
				continue
			}
			if e == (event{}) {
				return e, errors.New("an empty event")
			}
			return e, nil
		default:
			return e, fmt.Errorf("unexpected line %q", line)
		}
	}
}

func (s *sse) next() event {
	s.t.Helper()
	e, err := s.read()
	if err != nil {
		s.t.Fatalf("read an event: %v", err)
	}
	return e
}

func (b *bench) multicastTo(filter string) <-chan *patternpb.MulticastResponse {
	out := make(chan *patternpb.MulticastResponse, 1)
	go func() {
		got, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Payload: []byte(filter), ContentType: "text/plain"})
		if err != nil {
			b.t.Error(err)
		}
		out <- got
	}()
	return out
}

func TestEventsAckedHere(t *testing.T) {
	b := serve(t, Config{})
	b.register("a", "b/c")
	s := b.events(base + "/messages?" + url.Values{"identity": {"a", "b/c"}}.Encode())
	if got := s.next(); got.name != "attached" || got.data != `{"identities":["a","b/c"]}` {
		t.Errorf("got %v", got)
	}
	result := b.multicastTo("tschüss\n\nevent: fake")
	seen := make(map[string]eventMessage)
	for range 2 {
		e := s.next()
		var m eventMessage
		if err := json.Unmarshal([]byte(e.data), &m); err != nil || e.name != "message" || e.id != m.MessageID {
			t.Fatalf("got %v, %v", e, err)
		}
		seen[m.Identity] = m
	}
	got := <-result
	if got.GetDeliveredCount() != 2 {
		t.Errorf("got %v", got)
	}
	m := seen["b/c"]
	if len(seen) != 2 || m.MessageID != got.GetMulticastId() || string(m.Payload) != "tschüss\n\nevent: fake" || *m.Text != string(m.Payload) || m.ContentType != "text/plain" || m.SentAt.IsZero() || !m.AckWanted {
		t.Errorf("got %+v", seen)
	}
	if _, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Payload: []byte{0xff}}); err != nil {
		t.Fatal(err)
	}
	if e := s.next(); !strings.Contains(e.data, `"payload":"/w=="`) || strings.Contains(e.data, "text") && strings.Contains(e.data, `"text":`) {
		t.Errorf("bytes that are no text: %v", e)
	}
	s.next()
	if _, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{}); err != nil {
		t.Fatal(err)
	}
	if e := s.next(); !strings.Contains(e.data, `"payload":""`) || !strings.Contains(e.data, `"text":""`) {
		t.Errorf("no payload: %v", e)
	}
}

func TestEventsAckedByTheApplication(t *testing.T) {
	b := serve(t, Config{})
	b.register("a")
	s := b.events(base + "/identities/a:subscribe?ack=manual")
	var attached struct {
		Stream string `json:"stream"`
	}
	if err := json.Unmarshal([]byte(s.next().data), &attached); err != nil || len(attached.Stream) != 32 {
		t.Fatalf("attached: %+v, %v", attached, err)
	}
	result := b.multicastTo("x")
	id := s.next().id
	ack := func(path, stream, identity, id string) (int, string) {
		resp, body := b.do("POST", path, fmt.Sprintf(`{"stream":%q,"acks":[{"identity":%q,"message_id":%q}]}`, stream, identity, id))
		return resp.StatusCode, body
	}
	for name, row := range map[string]struct {
		path, stream, identity, id string
		code                       int
		text                       string
	}{
		"another stream":    {base + "/messages:ack", "0123456789abcdef0123456789abcdef", "a", id, 404, "another proxy"},
		"another namespace": {"/v1/namespaces/other/messages:ack", attached.Stream, "a", id, 404, "another namespace"},
		"no stream":         {base + "/messages:ack", "", "a", id, 400, `"field": "stream"`},
		"no identity":       {base + "/messages:ack", attached.Stream, "", id, 400, `"field": "acks/0"`},
		"another message":   {base + "/messages:ack", attached.Stream, "a", "nope", 200, ""},
	} {
		if code, body := ack(row.path, row.stream, row.identity, row.id); code != row.code || !strings.Contains(body, row.text) {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
	for body, text := range map[string]string{
		``:                                  "expected {",
		`{"stream":"x"}`:                    `"field": "acks"`,
		`{"stream":"x","acks":[],"more":1}`: "more",
		`{"stream":"x","acks":[]} x`:        "goes on",
		`5`:                                 "expected {",
		"{\"stream\":\"\xff\"}":             "UTF-8",
	} {
		if resp, got := b.do("POST", base+"/messages:ack", body); resp.StatusCode != http.StatusBadRequest || !strings.Contains(got, text) {
			t.Errorf("%q: %d %s", body, resp.StatusCode, got)
		}
	}
	select {
	case got := <-result:
		t.Fatalf("acked by nobody: %v", got)
	default:
	}
	if code, body := ack(base+"/messages:ack", attached.Stream, "a", id); code != 200 || strings.TrimSpace(body) != "{}" {
		t.Errorf("%d %s", code, body)
	}
	if got := <-result; got.GetDeliveredCount() != 1 {
		t.Errorf("got %v", got)
	}
	s.close()
	eventually(t, "the stream's id is forgotten", func() bool {
		code, _ := ack(base+"/messages:ack", attached.Stream, "a", id)
		return code == 404
	})
}

func TestEventsRefused(t *testing.T) {
	b := serve(t, Config{})
	many := strings.Repeat("&identity=a", 10_001)
	for path, want := range map[string]string{
		base + "/messages":                                              `400 "field": "identity"`,
		base + "/messages?identity=":                                    `400 "field": "attach/identities/0"`,
		base + "/messages?identity=%ff":                                 `400 "field": "identity"`,
		base + "/messages?identity=a&keep_alive=yes":                    `400 "field": "keep_alive"`,
		base + "/messages?identity=a&ack=never":                         `400 "field": "ack"`,
		base + "/messages?id=a":                                         `400 legal parameters: keep_alive, ack, identity`,
		base + "/identities/a:subscribe?identity=b":                     `400 legal parameters: keep_alive, ack`,
		"/v1/namespaces/nope/messages?identity=a":                       `404 "code": "NOT_FOUND"`,
		base + "/messages?keep_alive=true" + many:                       `400 "field": "query"`,
		base + "/messages?identity=a;identity=b":                        `400 "field": "query"`,
		base + "/identities/" + strings.Repeat("x", 300) + ":subscribe": `400 "field": "attach/identities/0"`,
	} {
		code, text, _ := strings.Cut(want, " ")
		if resp, body := b.do("GET", path, ""); strconv.Itoa(resp.StatusCode) != code || !strings.Contains(body, text) {
			t.Errorf("%.80s: %d %s", path, resp.StatusCode, body)
		}
	}
}

func TestEventsKeepLeases(t *testing.T) {
	b := serve(t, Config{SSEHeartbeat: 20 * time.Millisecond})
	s := b.events(base + "/messages?identity=nobody&keep_alive=true")
	var names []string
	for range 6 {
		names = append(names, s.next().name)
	}
	all := strings.Join(names, " ")
	if names[0] != "attached" || !strings.Contains(all, "lease_lost") || !strings.Contains(all, ":") {
		t.Errorf("got %v", names)
	}
}

// A reader that stops is given up after the write timeout, and everybody else waits for nothing.
func TestEventsUnread(t *testing.T) {
	b := serve(t, Config{WriteTimeout: 200 * time.Millisecond})
	b.register("a")
	conn, err := new(net.Dialer).DialContext(b.ctx, "tcp", strings.TrimPrefix(b.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	fmt.Fprintf(conn, "GET %s/identities/a:subscribe HTTP/1.1\r\nHost: localhost\r\n\r\n", base)
	if _, err := bufio.NewReaderSize(conn, 16).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	payload := make([]byte, 1<<19)
	gone := false
	for deadline := time.Now().Add(patience); !gone && time.Now().Before(deadline); {
		if _, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Payload: payload, Delivery: patternpb.Delivery_AT_MOST_ONCE}); err != nil {
			t.Fatal(err)
		}
		got, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Filter: obj(t, map[string]any{"no": "body"})})
		if err != nil || got.GetTargetCount() != 0 {
			t.Fatal(got, err)
		}
		b.drain.mu.Lock()
		gone = b.drain.streams == 0
		b.drain.mu.Unlock()
	}
	if !gone {
		t.Error("the stream of a client that does not read lives on")
	}
}

// A slow client is told how much it lost.
func TestEventsDropped(t *testing.T) {
	e := &eventStream{sseWriter: &sseWriter{}}
	acks := e.messages(&patternpb.Messages{Dropped: 7, Messages: []*patternpb.Message{
		{Identity: "a", MessageId: "1", AckWanted: true}, {Identity: "a", MessageId: "bad\nid"},
	}})
	text := e.text.String()
	if len(acks) != 1 || !strings.HasPrefix(text, "event: dropped\ndata: {\"count\":7}\n\nevent: message\nid: 1\n") || strings.Contains(text, "id: bad") {
		t.Errorf("acks %v of %s", acks, text)
	}
}

// A deadline of one answer must not reach into the next one on the same connection.
func TestWriteDeadlineIsPerWrite(t *testing.T) {
	b := serve(t, Config{WriteTimeout: 20 * time.Millisecond})
	for range 3 {
		if resp, _ := b.do("HEAD", "/healthz", ""); resp.StatusCode != http.StatusOK {
			t.Fatal(resp.StatusCode)
		}
		until := time.Now().Add(60 * time.Millisecond)
		eventually(t, "the deadline passes", func() bool { return time.Now().After(until) })
	}
}

// A page of another site, in the browser of somebody who can reach the server, can do nothing here.
func TestForeignPages(t *testing.T) {
	b := serve(t, Config{})
	const foreign = "https://elsewhere.example"
	for _, row := range []struct {
		method, path string
		header       []string
		code         int
	}{
		{"POST", base + "/identities:multicast", []string{"Origin", foreign, "Content-Type", "text/plain"}, 403},
		{"POST", base + "/identities:multicast", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"GET", base + "/messages?identity=a", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"GET", "/v1/namespaces", []string{"Origin", foreign}, 403},
		{"GET", "/v1/namespaces", []string{"Sec-Fetch-Site", "none"}, 200},
		{"POST", base + "/identities:multicast", []string{"Origin", b.url}, 200},
		{"POST", base + "/identities:multicast", []string{"Sec-Fetch-Site", "same-origin"}, 200},
		{"POST", base + "/identities:multicast", nil, 200},
	} {
		got, text := b.do(row.method, row.path, "", row.header...)
		if got.StatusCode != row.code {
			t.Errorf("%s %s with %v: %d, want %d: %s", row.method, row.path, row.header, got.StatusCode, row.code, text)
		}
	}
}
