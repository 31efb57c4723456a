package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"github.com/prism-data-layer/prism/patterns/memory"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// target is a server for fuzzing, every slot of it filled.
func target(tb testing.TB) *Server {
	tb.Helper()
	coordinator, err := multicastregistry.Open(tb.Context(), multicastregistry.Config{Timeout: time.Second}, multicastregistry.Slots{
		Registry: memory.NewRegistry(memory.RegistryConfig{MaxIdentities: 100}), Messaging: memory.NewMessaging(memory.MessagingConfig{}),
		Durability: memory.NewDurability(memory.DurabilityConfig{MaxMulticasts: 100}),
	})
	if err != nil {
		tb.Fatal(err)
	}
	s, err := New(Config{
		Namespaces: []Namespace{{Coordinator: coordinator, Registry: "memory"}}, AttachTimeout: 100 * time.Millisecond,
		BodyTimeout: time.Second,
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Drain(ctx); err != nil {
			tb.Error(err)
		}
		_ = coordinator.Close()
	})
	return s
}

// limitOf is how long one request of a fuzz test may take.
const limitOf = 10 * time.Second

// FuzzHTTP sends what net/http would let through to the gateway: any method, path, query, headers and body.
func FuzzHTTP(f *testing.F) {
	const space = "/v1/namespaces/default"
	for _, seed := range [][4]string{
		{"GET", "/", "", ""},
		{"HEAD", "/readyz", "", ""},
		{"OPTIONS", "*", "", ""},
		{"CONNECT", "x:1", "", ""},
		{"GET", "/v1/namespaces", "X-Request-ID: \x80\r\nUser-Agent: \xff\r\nAuthorization: Bearer \xff\r\n", ""},
		{"GET", "/v1/namespaces", "Grpc-Timeout: 99999999H\r\nGrpc-Metadata-X-Bin: /\r\nGrpc-Metadata-Grpc-Status: 5\r\n", ""},
		{"GET", "/v1/namespaces", "Cookie: " + strings.Repeat("c", 100<<10) + "\r\n", ""},
		{"GET", "/v1/namespaces", "X-Forwarded-For: " + strings.Repeat("1", 100<<10) + "\r\nConnection: x-request-id\r\n", ""},
		{"POST", space + "/identities", "", `{"identity": "a", "metadata": {"room": "x", "n": [1, null, {"a": "\u0000"}]}, "ttl": "60s"}`},
		{"POST", space + "/identities", "Expect: 100-continue\r\n", `{"identity": "a\nb", "metadata": {"a": 1, "a": 2}, "mode": "REPLACE"}`},
		{"POST", space + "/identities", "", `{"identity": "` + "\xff" + `", "metadata": {"` + "\xed\xa0\x80" + `": 1e400}, "ttl": "-1e9999s"}`},
		{"POST", space + "/identities", "Content-Encoding: gzip\r\n", "\x1f\x8b\x08\x00"},
		{"POST", space + "/identities", "", strings.Repeat(`{"metadata":`, 200)},
		{"POST", space + "/identities", "", `{"metadata": {"n": ` + strings.Repeat("9", 5000) + `}}`},
		{"POST", "/v1/namespaces/%ff/identities", "", "{}"},
		{"POST", space + "/identities/a:heartbeat", "", `{"ttl": "315576000001s"}`},
		{"DELETE", space + "/identities/%2E%2E?revision=18446744073709551616", "", ""},
		{"DELETE", space + "/identities/a%00?revision=-1", "", ""},
		{"GET", space + "/identities?page_size=99999999999&page_token=%ff&sort_by=%00&fields=a.b", "", ""},
		{"GET", space + "/identities?count_by=room&max_groups=4294967295&consistency=2&min_revision=1e3", "", ""},
		{"POST", space + "/identities:enumerate", "", `{"filter": {"$or": [{"a.regex": "(a+)+$"}, {"b": {"$lt": 1e308}}]}, "page_size": 3, "sort_by": ["-a"]}`},
		{"POST", space + "/identities:enumerateStream", "", `{"filter": {"a": NaN}}`},
		{"POST", space + "/identities:enumerateStream", "", `{"include_metadata": true}`},
		{"POST", space + "/identities:explain", "", `{"filter": {"rom": {"$in": [1, "2", null]}}, "near_misses": 4294967295}`},
		{"GET", space + "/identities:watch?filter=%7B%22a%22%3A1%7D&include_metadata=true&omit_snapshot=x", "", ""},
		{"GET", space + "/identities:watch?filter={}&resume_token=%00%ff", "Last-Event-ID: \xfe\r\n", ""},
		{"GET", space + "/identities:watch", "Last-Event-ID: -\r\nAccept: text/event-stream\r\n", ""},
		{"POST", space + "/identities:multicast", "", `{"filter": {}, "payload": "////", "timeout": "0.1s", "max_targets": 5, "retry_attempts": 4294967295}`},
		{"POST", space + "/identities:multicast", "", `{"payload": "=", "delivery": 99, "content_type": "a\r\nb", "idempotency_key": "k"}`},
		{"POST", space + "/identities:multicastStream", "", `{"payload": "aGk=", "timeout": "0.05s", "report": "COUNTS", "dry_run": true}`},
		{"GET", space + "/multicasts?page_size=-1&page_token=x", "", ""},
		{"GET", space + "/multicasts/01a21467-69f7-7000-8520-08f23b558582?report=9", "", ""},
		{"POST", space + "/multicasts/%00:cancel", "", ""},
		{"GET", space + "/identities/a:subscribe?keep_alive=true&ack=manual", "", ""},
		{"GET", space + "/identities/%F0%9F%A6%84:subscribe?ack=x", "", ""},
		{"GET", space + "/messages?identity=a&identity=%ff&identity=", "", ""},
		{"POST", space + "/messages:ack", "", `{"stream": "x", "acks": [{"identity": "a", "message_id": "b", "reply_body": "AA=="}]}`},
	} {
		f.Add(seed[0], seed[1], seed[2], []byte(seed[3]))
	}
	s := target(f)
	served := make(chan error, 1)
	go func() { served <- s.Serve(nil, nil) }()
	f.Fuzz(func(t *testing.T, method, path, header string, body []byte) {
		raw := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%s\r\n", method, path, len(body), header)
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw + string(body))))
		if err != nil || !passes(r) {
			return // net/http's server answers by itself
		}
		ctx, cancel := context.WithTimeout(t.Context(), limitOf)
		defer cancel()
		r.RemoteAddr = "192.0.2.1:1234"
		w := &kept{header: make(http.Header), begun: cancel}
		began := time.Now()
		s.http.Handler.ServeHTTP(w, r.WithContext(ctx))
		if took := time.Since(began); took >= limitOf {
			t.Errorf("took %s", took)
		}
		w.check(t, r)
	})
}

// passes tells whether net/http's server lets a request through to a handler.
func passes(r *http.Request) bool {
	if !httpguts.ValidHostHeader(r.Host) {
		return false
	}
	for name, values := range r.Header {
		for _, v := range values {
			if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(v) {
				return false
			}
		}
	}
	return true
}

// kept keeps an answer. An endless one it ends once it has begun.
type kept struct {
	header http.Header
	code   int
	body   bytes.Buffer
	begun  func()
}

func (w *kept) Header() http.Header { return w.header }

func (w *kept) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
	}
}

func (w *kept) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

func (w *kept) Flush() {
	if w.header.Get("Content-Type") == "text/event-stream" {
		w.begun()
	}
}

func (w *kept) SetReadDeadline(time.Time) error  { return nil }
func (w *kept) SetWriteDeadline(time.Time) error { return nil }

// check wants an answer of the documented shape, which blames nobody but the caller.
func (w *kept) check(t *testing.T, r *http.Request) {
	t.Helper()
	ownTime := w.code == http.StatusGatewayTimeout && r.Header.Get("Grpc-Timeout") != ""
	if w.code >= 500 && w.code != http.StatusServiceUnavailable && !ownTime {
		t.Errorf("%d: %s", w.code, w.body.String())
	}
	for name, values := range w.header {
		for _, v := range values {
			if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(v) {
				t.Errorf("header %q: %q", name, v)
			}
		}
	}
	if !utf8.Valid(w.body.Bytes()) {
		t.Errorf("an answer that is no UTF-8: %q", w.body.String())
	}
	if w.code < 400 {
		return
	}
	var answer failure
	strict := json.NewDecoder(&w.body)
	strict.DisallowUnknownFields()
	if err := strict.Decode(&answer); err != nil {
		t.Errorf("%d: %v", w.code, err)
	}
	e := answer.Error
	if e.HTTP != w.code || e.Code == "" || e.Message == "" || !validRequestID(e.RequestID) || e.RequestID != w.header.Get(requestIDHTTP) {
		t.Errorf("%d: %+v", w.code, e)
	}
}
