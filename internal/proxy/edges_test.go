package proxy

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
)

// What comes over the network before anybody is known, and what is shaped to cost the server more than its sender. Each of these is
// refused, and the server goes on.

// alive checks that the server answers normal calls.
func (b *bench) alive() {
	b.t.Helper()
	if _, err := b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Identity: "alive", Mode: patternpb.RegisterRequest_REPLACE}); err != nil {
		b.t.Errorf("a normal call: %v", err)
	}
	if resp, text := b.do("GET", base+"/identities?count_only=true", ""); resp.StatusCode != http.StatusOK {
		b.t.Errorf("a normal request: %d %s", resp.StatusCode, text)
	}
}

// dial opens a connection to one of the server's ports.
func (b *bench) dial(address string) *net.TCPConn {
	b.t.Helper()
	conn, err := new(net.Dialer).DialContext(b.ctx, "tcp", strings.TrimPrefix(address, "http://"))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.TCPConn)
}

// drip writes a text again and again, slowly, until the other side has had enough, and returns what it said.
func drip(t *testing.T, conn *net.TCPConn, text string) string {
	t.Helper()
	done := make(chan struct{})
	defer func() { <-done }()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-stop:
				return
			}
			if _, err := io.WriteString(conn, text); err != nil {
				return
			}
		}
	}()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	said, err := io.ReadAll(conn)
	if nerr, ok := errors.AsType[net.Error](err); ok && nerr.Timeout() {
		t.Fatalf("the server holds the connection; it said %q", said)
	}
	return string(said)
}

func TestSlowRequests(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{HandshakeTimeout: 100 * time.Millisecond, BodyTimeout: 100 * time.Millisecond})
	const head = " HTTP/1.1\r\nHost: localhost\r\n"
	for name, tt := range map[string]struct{ begin, drip, want string }{
		"nothing":               {want: ""},
		"request line":          {"", "G", "400 Bad Request"},
		"headers":               {"GET /healthz" + head, "A: b\r\n", ""},
		"body":                  {"POST " + base + "/identities" + head + "Connection: close\r\nContent-Length: 1000000\r\n\r\n", " ", "408 Request Timeout"},
		"chunked body":          {"POST " + base + "/identities" + head + "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n", "408 Request Timeout"},
		"body of a stream":      {"POST " + base + "/identities:enumerateStream" + head + "Content-Length: 1000\r\n\r\n", " ", "408 Request Timeout"},
		"body of no route":      {"POST /nowhere" + head + "Content-Length: 1000\r\n\r\n", " ", "404 Not Found"},
		"body of another verb":  {"DELETE " + base + "/identities" + head + "Content-Length: 1000\r\n\r\n", " ", "405 Method Not Allowed"},
		"body where none is":    {"GET /healthz" + head + "Content-Length: 1000\r\n\r\n", " ", "408 Request Timeout"},
		"body without progress": {"POST " + base + "/identities" + head + "Content-Length: 1000\r\n\r\n{", "", "408 Request Timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := b.dial(b.url)
			if _, err := io.WriteString(conn, tt.begin); err != nil {
				t.Fatal(err)
			}
			if said := drip(t, conn, tt.drip); !strings.Contains(said, tt.want) || tt.want == "" && said != "" {
				t.Errorf("the server said %q, want %q", said, tt.want)
			}
		})
	}
	t.Cleanup(b.alive)
}

func TestOversizedHeaders(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	for name, header := range map[string][]string{
		"one":  {"X-Large", strings.Repeat("x", maxRequestBytes+8<<10)},
		"many": manyHeaders(3000),
	} {
		if resp, _ := b.do("GET", "/healthz", "", header...); resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s: %d", name, resp.StatusCode)
		}
	}
	for _, name := range []string{"Cookie", "X-Forwarded-For", "X-Forwarded-Host", "Grpc-Metadata-X", "Authorization", "X-Request-Id"} {
		// More than a call of gRPC may have, less than a request: none of the service's business.
		if resp, text := b.do("GET", "/v1/namespaces", "", name, strings.Repeat("x", 2*maxHeaderBytes)); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", name, resp.StatusCode, text)
		}
	}
	b.alive()
}

func manyHeaders(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("X-%d", i), strings.Repeat("x", 100))
	}
	return out
}

// heap returns the bytes in use after a collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // pools keep what they have for one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// allocated runs a function and returns how many bytes were allocated meanwhile, by anybody.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// unending is a body that never ends and counts what was read of it.
type unending struct{ read atomic.Int64 }

func (e *unending) Read(p []byte) (int, error) {
	n := copy(p, spaces)
	e.read.Add(int64(n))
	return n, nil
}

var spaces = strings.Repeat(" ", 1<<16)

func TestGiantBodies(t *testing.T) { // alone: it measures
	b := serve(t, Config{})
	const limit = 4 << 20
	b.Server.http.Handler.(*gateway).maxBody = limit
	post := func(body io.Reader, length int64) int {
		t.Helper()
		req, err := http.NewRequestWithContext(b.ctx, http.MethodPost, b.url+base+"/identities", body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = length
		req.Header.Set("Expect", "100-continue")
		resp, err := b.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	b.http.Transport.(*http.Transport).ExpectContinueTimeout = patience
	announced := &unending{}
	if code := post(announced, 1<<40); code != http.StatusRequestEntityTooLarge || announced.read.Load() > 0 {
		t.Errorf("a body that says it is a terabyte: %d, after %d bytes", code, announced.read.Load())
	}
	chunked := &unending{}
	grown := allocated(func() {
		if code := post(chunked, -1); code != http.StatusRequestEntityTooLarge {
			t.Errorf("a body without an end: %d", code)
		}
	})
	if chunked.read.Load() > limit+16<<20 || grown > 10*limit {
		t.Errorf("%d bytes were sent, %d allocated; the limit is %d", chunked.read.Load(), grown, limit)
	}
	b.alive()

	// As small as values can be: each takes two bytes of the body.
	values := `{"identity": "a", "metadata": {"a": [` + strings.Repeat("1,", 1<<20) + `1]}}`
	grown = allocated(func() {
		if resp, text := b.do("POST", base+"/identities", values); resp.StatusCode != http.StatusBadRequest || !strings.Contains(text, "values") {
			t.Errorf("%d %s", resp.StatusCode, text)
		}
	})
	t.Logf("%d bytes of small values: %d bytes allocated", len(values), grown)
	if resp, text := b.do("POST", base+"/identities", `{"identity": "a", "metadata": {"a": "`+strings.Repeat(`,\",{[:`, 8000)+`"}}`); resp.StatusCode != http.StatusCreated {
		t.Errorf("a text that looks like values: %d %s", resp.StatusCode, text)
	}
	if grown > 50<<20 {
		t.Errorf("%d bytes of small values: %d bytes allocated", len(values), grown)
	}
	b.alive()
}

func TestHostileJSON(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	const levels = 10_000
	nested := func(open, inner, end string) string {
		return strings.Repeat(open, levels) + inner + strings.Repeat(end, levels)
	}
	register, find, send := base+"/identities", base+"/identities:enumerate", base+"/identities:multicast"
	for name, tt := range map[string]struct {
		path, body string
		code       int
		want       string
	}{
		"nested body":           {register, nested("[", "", "]"), 400, "nested deeper"},
		"nested body, cut":      {register, strings.Repeat(`{"a":`, levels), 400, "nested deeper"},
		"nested more deeply":    {register, strings.Repeat("[", 100_000), 400, "more than"},
		"nested metadata":       {register, `{"identity": "a", "metadata": ` + nested(`{"a":`, "1", "}") + "}", 400, "nested deeper"},
		"nested filter":         {find, `{"filter": ` + nested(`{"$not":`, "{}", "}") + "}", 400, "nested deeper"},
		"nested list of filter": {find, `{"filter": ` + nested(`{"$or":[`, "{}", "]}") + "}", 400, "nested deeper"},
		"nested in multicast":   {send, `{"filter": ` + nested(`{"$and":[`, "{}", "]}") + "}", 400, "nested deeper"},
		"1e400":                 {register, `{"identity": "a", "metadata": {"n": 1e400}}`, 400, "1e400"},
		"-1e400":                {find, `{"filter": {"n": -1e400}}`, 400, "1e400"},
		"10^5000 digits":        {register, `{"identity": "a", "metadata": {"n": 1` + strings.Repeat("0", 5000) + `}}`, 400, "rounded"},
		"a long fraction":       {register, `{"identity": "a", "mode": "REPLACE", "metadata": {"n": 0.` + strings.Repeat("3", 100_000) + `}}`, 201, ""},
		"a long exponent":       {register, `{"identity": "a", "metadata": {"n": 1e` + strings.Repeat("9", 100_000) + `}}`, 400, "1e999"},
		"NaN":                   {register, `{"identity": "a", "metadata": {"n": NaN}}`, 400, "NaN"},
		"Infinity":              {find, `{"filter": {"n": Infinity}}`, 400, "Infinity"},
		"NaN as TTL":            {register, `{"identity": "a", "ttl": "NaNs"}`, 400, "Duration"},
		"negative TTL":          {register, `{"identity": "a", "ttl": "-1s"}`, 400, "ttl: must not be negative"},
		"TTL of -1 ns":          {register, `{"identity": "a", "ttl": "-0.000000001s"}`, 400, "ttl: must not be negative"},
		"overflowing TTL":       {register, `{"identity": "a", "ttl": "9223372037s"}`, 400, "ttl"},
		"TTL beyond durations":  {register, `{"identity": "a", "ttl": "315576000001s"}`, 400, "Duration"},
		"negative timeout":      {send, `{"timeout": "-1s"}`, 400, "timeout"},
		"overflowing timeout":   {send, `{"timeout": "315576000000s"}`, 400, "timeout"},
		"overflowing delay":     {send, `{"retry_attempts": 3, "retry_delay": "315576000000s"}`, 400, "retry_delay"},
		"retry attempts":        {send, `{"retry_attempts": 4294967295}`, 400, "retry_attempts"},
		"more than 32 bits":     {send, `{"max_targets": 4294967296}`, 400, "maxTargets"},
		"negative limit":        {send, `{"max_targets": -1}`, 400, "maxTargets"},
		"page size":             {find, `{"page_size": 2147483647}`, 400, "page_size"},
		"negative page size":    {find, `{"page_size": -1}`, 400, "page_size"},
		"groups":                {find, `{"count_by": ["a"], "max_groups": 2147483647}`, 400, "max_groups"},
		"near misses":           {base + "/identities:explain", `{"near_misses": 4294967295}`, 400, "near_misses"},
		"duplicate field":       {register, `{"identity": "a", "identity": "b"}`, 400, "duplicate field"},
		"both spellings":        {find, `{"page_size": 1, "pageSize": 2}`, 400, "duplicate field"},
		"duplicate metadata":    {register, `{"identity": "a", "metadata": {"a": 1, "a": 2}}`, 400, "duplicate map key"},
		"escaped duplicate":     {find, `{"filter": {"a": 1, "\u0061": 2}}`, 400, "duplicate map key"},
		"a value behind":        {register, `{"identity": "a"} {"identity": "b"}`, 400, "unexpected token"},
		"invalid UTF-8":         {register, "{\"identity\": \"a\xff\"}", 400, "UTF-8"},
		"half a character":      {register, `{"identity": "\ud800"}`, 400, ""},
		"a raw NUL":             {register, "{\"identity\": \"a\x00b\"}", 400, ""},
		"NUL":                   {register, `{"identity": "a\u0000b", "metadata": {"\u0000": "\u0000"}}`, 201, `a\u0000b`},
		"CR and LF":             {register, `{"identity": "a\r\nSet-Cookie: b=c"}`, 201, `a\r\nSet-Cookie: b=c`},
		"bidi":                  {register, `{"identity": "\u202egnp.exe", "metadata": {"\u2066": "\u202e"}}`, 201, "\u202egnp.exe"},
		"long error":            {register, `{"identity": "a", "mode": "` + strings.Repeat("x", 1<<20) + `"}`, 400, "…"},
	} {
		resp, text := b.do("POST", tt.path, tt.body)
		if resp.StatusCode != tt.code || !strings.Contains(text, tt.want) || len(text) > 3*maxText && tt.code != 201 {
			t.Errorf("%s: %d %.300s", name, resp.StatusCode, text)
		}
		for field := range resp.Header {
			if field == "Set-Cookie" {
				t.Errorf("%s: header %s", name, field)
			}
		}
	}
	for _, query := range []string{
		"page_size=1e400", "page_size=-1", "page_size=4294967296", "min_revision=18446744073709551616", "max_groups=NaN", "page_size=1&page_size=2",
		"page_token=%00", "page_token=%ff", "%ff=1", "sort_by=%ed%a0%80", "page_size=1%0d%0aSet-Cookie:a=b", "page_size=%zz", "a=1;b=2",
	} {
		if resp, text := b.do("GET", base+"/identities?"+query, ""); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d %s", query, resp.StatusCode, text)
		}
	}
	for _, path := range []string{
		"/identities:watch?filter=" + strings.Repeat("%5B", 1000), "/identities:watch?filter=%7B%22a%22%3A1e400%7D", "/identities:watch?resume_token=%ff",
		"/identities:watch?filter=%ff", "/identities:watch?filter=[" + strings.Repeat("1,", 60_000) + "1]", "/messages?identity=%ff", "/identities/%ff:subscribe",
	} {
		if resp, text := b.do("GET", base+path, ""); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d %s", path, resp.StatusCode, text)
		}
	}
	b.alive()
}

// TestCompressedBodies refuses what would be larger than it looks.
func TestCompressedBodies(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	var bomb bytes.Buffer
	packer := gzip.NewWriter(&bomb)
	if _, err := packer.Write(bytes.Repeat([]byte(" "), 1<<20)); err != nil {
		t.Fatal(err)
	}
	_ = packer.Close()
	for _, coding := range []string{"gzip", "deflate", "br", "zstd", "gzip, gzip", "x\"\u202e"} {
		resp, text := b.do("POST", base+"/identities", bomb.String(), "Content-Encoding", coding)
		if resp.StatusCode != http.StatusUnsupportedMediaType || !strings.Contains(text, "encoded") {
			t.Errorf("%s: %d %s", coding, resp.StatusCode, text)
		}
	}
	if resp, text := b.do("POST", base+"/identities", `{"identity": "a"}`, "Content-Encoding", "Identity"); resp.StatusCode != http.StatusCreated {
		t.Errorf("identity: %d %s", resp.StatusCode, text)
	}
	b.alive()
}

// TestPipelined has a connection that sends many requests at once and reads none of the answers.
func TestPipelined(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{WriteTimeout: 200 * time.Millisecond})
	conn := b.dial(b.url)
	_ = conn.SetWriteDeadline(time.Now().Add(patience))
	var err error
	for err == nil { // until the server has closed it
		_, err = io.WriteString(conn, strings.Repeat("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 100))
	}
	if nerr, ok := errors.AsType[net.Error](err); ok && nerr.Timeout() {
		t.Error("the server goes on with a client that does not read")
	}
	b.alive()
}

// TestSmuggled refuses requests that another server on the way might understand differently.
func TestSmuggled(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{BodyTimeout: 100 * time.Millisecond})
	for name, headers := range map[string]string{
		"two lengths":       "Content-Length: 2\r\nContent-Length: 3\r\n",
		"length and chunks": "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
		"another coding":    "Transfer-Encoding: gzip, chunked\r\n",
		"negative length":   "Content-Length: -1\r\n",
		"a bare CR":         "A: b\rContent-Length: 2\r\n",
		"NUL":               "A: b\x00c\r\n",
		"no host":           "Host: y\r\n",
		"folded":            " A: b\r\n",
	} {
		conn := b.dial(b.url)
		fmt.Fprintf(conn, "POST %s/identities HTTP/1.1\r\nHost: localhost\r\n%sConnection: close\r\n\r\n{}", base, headers)
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode < 400 || resp.StatusCode > 501 || resp.StatusCode == http.StatusInternalServerError {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
	b.alive()
}
