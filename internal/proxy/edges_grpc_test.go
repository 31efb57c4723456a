package proxy

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
)

// field is a length-delimited field of a message.
func field(number protowire.Number, content ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), bytes.Join(content, nil))
}

// nestedStruct is a google.protobuf.Struct of so many levels: {"": {"": …}}.
func nestedStruct(levels int) []byte {
	var sizes []int
	size := 0
	for range levels { // from the inside: entry{2: value{5: struct}}
		value := 1 + protowire.SizeBytes(size)
		entry := 1 + protowire.SizeBytes(value)
		sizes = append(sizes, size, value, entry)
		size = 1 + protowire.SizeBytes(entry)
	}
	out := make([]byte, 0, size)
	for _, n := range slices.Backward(slices.Collect(slices.Chunk(sizes, 3))) {
		for i, number := range []protowire.Number{1, 2, 5} {
			out = protowire.AppendTag(out, number, protowire.BytesType)
			out = protowire.AppendVarint(out, uint64(n[2-i]))
		}
	}
	return out
}

// TestUndecodable sends every method what cannot be decoded: it is the caller's fault, and the connection lives on.
func TestUndecodable(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	b.alive()
	for _, m := range methods(t, b.Server) {
		for _, message := range [][]byte{[]byte("\xff"), []byte("\x0a\x05abc"), bytes.Repeat([]byte("\x0b"), 20_000)} {
			err := m.send(b.ctx, b.conn, message)
			wantError(t, err, codes.InvalidArgument, "request", "is no "+string(m.input.Descriptor().Name()))
		}
	}
	const service = "/prism.pattern.MulticastRegistryPattern/"
	all := methods(t, b.Server)
	for _, tt := range []struct {
		method  string
		message []byte
		field   string
		text    string
	}{
		{"Register", field(2, []byte("a\xff")), "identity", "is not valid UTF-8"},
		{"Register", field(1, []byte("\xed\xa0\x80")), "namespace", "is not valid UTF-8"},
		{"Register", append(field(2, []byte("a")), field(3, field(1, field(1, []byte("\xc0\x80"))))...), "metadata", "has a text that is not valid UTF-8"},
		{"Register", field(3, nestedStruct(100_000)), "request", "is no RegisterRequest"},
		{"Enumerate", field(2, nestedStruct(100_000)), "request", "is no EnumerateRequest"},
		{"EnumerateStream", field(1, field(1, []byte("\xff"))), "request", "has a text that is not valid UTF-8"},
		{"Watch", field(1, []byte("\xff")), "namespace", "is not valid UTF-8"},
		{"Subscribe", field(1, field(1, []byte("\xff"))), "attach", "has a text that is not valid UTF-8"},
		{"Subscribe", field(1, field(2, []byte("\xff"))), "attach", "has a text that is not valid UTF-8"},
	} {
		m := all[slices.IndexFunc(all, func(m method) bool { return m.name == service+tt.method })]
		wantError(t, m.send(b.ctx, b.conn, tt.message), codes.InvalidArgument, tt.field, tt.text)
	}
	if state := b.conn.GetState(); state != connectivity.Ready {
		t.Errorf("the connection is %s", state)
	}
	b.alive()
}

// TestUndecodableLater ends a stream that was well until then.
func TestUndecodableLater(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	b.register("a")
	stream, err := b.conn.NewStream(b.ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true},
		patternpb.MulticastRegistryPattern_Subscribe_FullMethodName, grpc.ForceCodecV2(wire{}))
	if err != nil {
		t.Fatal(err)
	}
	var answer []byte
	if err := stream.SendMsg(field(1, field(2, []byte("a")))); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&answer); err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg([]byte("\xff")); err != nil {
		t.Fatal(err)
	}
	wantError(t, stream.RecvMsg(&answer), codes.InvalidArgument, "request", "is no SubscribeRequest")
	b.alive()
}

func TestHostileValues(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	for name, n := range map[string]float64{"NaN": math.NaN(), "+Inf": math.Inf(1), "-Inf": math.Inf(-1)} {
		odd := &structpb.Struct{Fields: map[string]*structpb.Value{"a": structpb.NewListValue(&structpb.ListValue{
			Values: []*structpb.Value{structpb.NewNumberValue(n)},
		})}}
		_, err := b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Identity: "a", Metadata: odd})
		wantError(t, err, codes.InvalidArgument, "metadata/a/0", "")
		odd.Fields["a"] = structpb.NewNumberValue(n)
		if _, err = b.rpc.Enumerate(b.ctx, &patternpb.EnumerateRequest{Filter: odd}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s in a filter: %v", name, err)
		}
	}
	for _, d := range []*durationpb.Duration{
		{Seconds: -1},
		{Nanos: -1},
		{Nanos: math.MaxInt32},
		{Seconds: 1, Nanos: -1},
		{Seconds: math.MaxInt64},
		{Seconds: math.MinInt64},
		{Seconds: 315_576_000_000},
		{Seconds: 9_223_372_037},
	} {
		_, err := b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Identity: "a", Ttl: d})
		wantError(t, err, codes.InvalidArgument, "ttl", "")
		_, err = b.rpc.Heartbeat(b.ctx, &patternpb.HeartbeatRequest{Identity: "a", Ttl: d})
		wantError(t, err, codes.InvalidArgument, "ttl", "")
		_, err = b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Timeout: d})
		wantError(t, err, codes.InvalidArgument, "timeout", "")
		_, err = b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{RetryAttempts: 2, RetryDelay: d})
		wantError(t, err, codes.InvalidArgument, "retry_delay", "")
	}
	for _, levels := range []int{100, 3000} { // protobuf itself reads these
		for _, m := range methods(t, b.Server) {
			var where protowire.Number
			switch m.name {
			case patternpb.MulticastRegistryPattern_Register_FullMethodName:
				where = 3
			case patternpb.MulticastRegistryPattern_Enumerate_FullMethodName, patternpb.MulticastRegistryPattern_Multicast_FullMethodName:
				where = 2
			default:
				continue
			}
			if err := m.send(b.ctx, b.conn, append(field(2, []byte("{}")), field(where, nestedStruct(levels))...)); status.Code(err) != codes.InvalidArgument {
				t.Errorf("%s with %d levels: %v", m.name, levels, err)
			}
		}
	}
	b.alive()
}

// TestManyParts refuses messages that take many times the memory that they take on the wire, before they are decoded.
func TestManyParts(t *testing.T) { // alone: it measures
	b := serve(t, Config{})
	b.alive()
	values := field(3, field(1, field(2, field(6, bytes.Repeat([]byte("\x0a\x02\x08\x00"), 9<<16))))) // {"": [null, null, …]}
	acks := field(3, bytes.Repeat([]byte("\x0a\x00"), 17<<16))
	for name, message := range map[string][]byte{"Register": values, "Subscribe": acks} {
		all := methods(t, b.Server)
		m := all[slices.IndexFunc(all, func(m method) bool { return strings.HasSuffix(m.name, "Pattern/"+name) })]
		var err error
		grown := allocated(func() { err = m.send(b.ctx, b.conn, message) })
		wantError(t, err, codes.InvalidArgument, "request", "has more than")
		t.Logf("%s: a message of %d bytes, %d allocated", name, len(message), grown)
		if grown > uint64(8*len(message)) {
			t.Errorf("%s: a message of %d bytes, %d allocated", name, len(message), grown)
		}
	}
	b.alive()
}

// raw is a client of gRPC that may do as it likes.
func (b *bench) raw() *http.Client {
	b.t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	b.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// frameOf is a message of gRPC as it goes over the wire.
func frameOf(flag byte, announced int, message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{flag}, uint32(announced)), message...)
}

func TestHostileFrames(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	client := b.raw()
	var bomb bytes.Buffer
	packer := gzip.NewWriter(&bomb)
	if _, err := packer.Write(field(2, bytes.Repeat([]byte("a"), 1<<20))); err != nil {
		t.Fatal(err)
	}
	_ = packer.Close()
	good := field(2, []byte("framed"))
	for name, tt := range map[string]struct {
		headers []string
		body    []byte
		want    []codes.Code
	}{
		"a good one":            {nil, frameOf(0, len(good), good), []codes.Code{codes.OK}},
		"gzip":                  {[]string{"Grpc-Encoding", "gzip"}, frameOf(1, bomb.Len(), bomb.Bytes()), []codes.Code{codes.Unimplemented}},
		"an encoding of nobody": {[]string{"Grpc-Encoding", "\"x"}, frameOf(1, len(good), good), []codes.Code{codes.Unimplemented}},
		"four gigabytes":        {nil, frameOf(0, math.MaxUint32, good), []codes.Code{codes.ResourceExhausted}},
		"too large":             {nil, frameOf(0, minMessageBytes+1<<20+1, good), []codes.Code{codes.ResourceExhausted}},
		// Faults of the framing are INTERNAL by gRPC's own specification.
		"compressed with nothing": {nil, frameOf(1, len(good), good), []codes.Code{codes.Internal}},
		"an unknown flag":         {nil, frameOf(7, len(good), good), []codes.Code{codes.Internal}},
		"cut":                     {nil, frameOf(0, 100, good), []codes.Code{codes.Internal}},
		"cut in its head":         {nil, []byte{0, 0}, []codes.Code{codes.Internal}},
		"two messages":            {nil, append(frameOf(0, len(good), good), frameOf(0, len(good), good)...), []codes.Code{codes.Internal}},
		"no message":              {nil, nil, []codes.Code{codes.Internal}},
		"a timeout of nonsense":   {[]string{"Grpc-Timeout", "1x"}, frameOf(0, len(good), good), []codes.Code{codes.Internal}},
		"a negative timeout":      {[]string{"Grpc-Timeout", "-1S"}, frameOf(0, len(good), good), []codes.Code{codes.Internal, codes.DeadlineExceeded}},
		"bytes that are not":      {[]string{"X-Bin", "?"}, frameOf(0, len(good), good), []codes.Code{codes.Internal}},
		"large headers":           {[]string{"X", strings.Repeat("x", maxHeaderBytes)}, frameOf(0, len(good), good), []codes.Code{99}},
		"many headers":            {manyHeaders(1000), frameOf(0, len(good), good), []codes.Code{99}},
	} {
		req, err := http.NewRequestWithContext(b.ctx, http.MethodPost,
			"http://"+b.conn.Target()+patternpb.MulticastRegistryPattern_Unregister_FullMethodName, bytes.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("TE", "trailers")
		for i := 0; i < len(tt.headers); i += 2 {
			req.Header[tt.headers[i]] = []string{tt.headers[i+1]}
		}
		if got, text := grpcStatus(client, req); !slices.Contains(tt.want, got) {
			t.Errorf("%s: %d %s, want %v", name, got, text, tt.want)
		}
	}
	b.alive()
}

// grpcStatus sends a request and returns its status. 99: there is none, the stream was cut off.
func grpcStatus(client *http.Client, req *http.Request) (codes.Code, string) {
	resp, err := client.Do(req)
	if err != nil {
		return 99, err.Error()
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	for _, h := range []http.Header{resp.Header, resp.Trailer} {
		if s := h.Get("Grpc-Status"); s != "" {
			n, _ := strconv.Atoi(s)
			return codes.Code(n), h.Get("Grpc-Message")
		}
	}
	return 99, resp.Status
}

func TestSlowConnections(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{HandshakeTimeout: 100 * time.Millisecond})
	for name, tt := range map[string]struct{ begin, drip string }{
		"nothing":           {},
		"half a preface":    {begin: http2.ClientPreface[:10]},
		"a preface, slowly": {drip: "P"},
		"no settings":       {begin: http2.ClientPreface},
		"HTTP/1.1":          {begin: "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", drip: "x"},
		"TLS":               {begin: "\x16\x03\x01\x02\x00\x01"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := b.dial(b.conn.Target())
			if _, err := io.WriteString(conn, tt.begin); err != nil {
				t.Fatal(err)
			}
			drip(t, conn, tt.drip)
		})
	}
	t.Cleanup(b.alive)
}

// TestSlowHandshakes begins TLS and does not go on, on both ports.
func TestSlowHandshakes(t *testing.T) {
	t.Parallel()
	secured := newAuthority(t).reloader(t, slog.New(slog.DiscardHandler))
	t.Cleanup(secured.Close)
	b := serve(t, Config{HandshakeTimeout: 100 * time.Millisecond, TLS: secured})
	for _, address := range []string{b.url, b.conn.Target()} {
		for _, begin := range []string{"", "\x16\x03\x01\x02\x00\x01", "GET / HTTP/1.1\r\n"} {
			conn := b.dial(address)
			if _, err := io.WriteString(conn, begin); err != nil {
				t.Fatal(err)
			}
			drip(t, conn, "\x00")
		}
	}
}

// TestParked has calls that begin and never say what they want.
func TestParked(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{HandshakeTimeout: 500 * time.Millisecond, AttachTimeout: patience})
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	const more = 50
	ended := make(chan error, parkedFree+more)
	park := func(method string, desc *grpc.StreamDesc) {
		stream, err := b.conn.NewStream(ctx, desc, method)
		if err != nil {
			t.Fatal(err)
		}
		go func() { ended <- stream.RecvMsg(&patternpb.RegisterResponse{}) }()
	}
	for n := range parkedFree {
		switch n % 3 {
		case 0:
			park(patternpb.MulticastRegistryPattern_Register_FullMethodName, &grpc.StreamDesc{ClientStreams: true})
		case 1:
			park(patternpb.MulticastRegistryPattern_Watch_FullMethodName, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true})
		case 2:
			park(healthpb.Health_Check_FullMethodName, &grpc.StreamDesc{ClientStreams: true})
		}
	}
	eventually(t, "calls wait for their requests", func() bool { return b.parked.calls.Load() == parkedFree })
	for range more {
		park(patternpb.MulticastRegistryPattern_Heartbeat_FullMethodName, &grpc.StreamDesc{ClientStreams: true})
	}
	for range more {
		if err := <-ended; status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("one call too many: %v", err)
		}
	}
	b.register("a")
	stream := b.attach("a") // began while many waited; it is not cut off
	<-time.After(600 * time.Millisecond)
	stream.send(attachOf("", false, "a"))
	if got := stream.recv().GetAttached().GetIdentities(); len(got) != 1 {
		t.Errorf("attached %v", got)
	}
	b.alive()
	select {
	case err := <-ended:
		t.Errorf("a call of the first ones: %v", err)
	default:
	}
	b.parked.calls.Add(parkedMost)
	_, err := b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Identity: "x"})
	wantError(t, err, codes.ResourceExhausted, "", "headers and no request")
	b.parked.calls.Add(-parkedMost)
	cancel()
	eventually(t, "nobody waits", func() bool { return b.parked.calls.Load() == 0 })
}

// One connection that has too many such calls locks out no other.
func TestParkedOnOneConnection(t *testing.T) {
	p := parked{timeout: time.Hour}
	p.calls.Store(parkedFree)
	from := func(ctx context.Context, at net.Addr) error {
		_, err := p.tap(peer.NewContext(ctx, &peer.Peer{Addr: at}), &tap.Info{})
		return err
	}
	greedy, other := &net.TCPAddr{Port: 1}, &net.TCPAddr{Port: 1}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range parkedEach {
		if err := from(ctx, greedy); err != nil {
			t.Fatal(err)
		}
	}
	if err := from(ctx, greedy); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one more: %v", err)
	}
	if err := from(t.Context(), other); err != nil {
		t.Errorf("another connection: %v", err)
	}
	cancel()
	eventually(t, "its calls have ended", func() bool { return from(t.Context(), greedy) == nil })
}

func TestPublicStreams(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	b.parked.public.Add(maxPublic - 1)
	health := healthpb.NewHealthClient(b.conn)
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	first, err := health.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err == nil {
		_, err = first.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	second, err := health.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err == nil {
		_, err = second.Recv()
	}
	wantError(t, err, codes.ResourceExhausted, "", "need no credentials")
	if _, err := health.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("a probe: %v", err)
	}
	cancel()
	eventually(t, "the stream is given back", func() bool { return b.parked.public.Load() == maxPublic-1 })
}

// http2Conn opens a connection of HTTP/2 to the port of gRPC.
func (b *bench) http2Conn() *http2.Framer {
	b.t.Helper()
	conn := b.dial(b.conn.Target())
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		b.t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		b.t.Fatal(err)
	}
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			b.t.Fatal(err)
		}
		if s, ok := f.(*http2.SettingsFrame); ok && s.IsAck() {
			return framer
		}
	}
}

// TestIdleConnections measures what a connection costs on which nothing happens, on both sides of it.
func TestIdleConnections(t *testing.T) { // alone: it measures
	b := serve(t, Config{})
	b.alive()
	const n = 200
	before := heap()
	for range n {
		b.http2Conn()
	}
	if each := int64(heap()-before) / n; each > 200<<10 {
		t.Errorf("a connection to gRPC takes %d bytes of heap", each)
	} else {
		t.Logf("a connection to gRPC takes %d bytes of heap", each)
	}
	before = heap()
	for range n {
		conn := b.dial(b.url)
		if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if each := int64(heap()-before) / n; each > 100<<10 {
		t.Errorf("a connection to HTTP takes %d bytes of heap", each)
	} else {
		t.Logf("a connection to HTTP takes %d bytes of heap", each)
	}
	b.alive()
}

// TestRapidReset opens streams and resets them at once.
func TestRapidReset(t *testing.T) { // alone: it measures
	b := serve(t, Config{})
	b.alive()
	framer := b.http2Conn()
	var block bytes.Buffer
	pack := hpack.NewEncoder(&block)
	before := heap()
	const n = 1000
	began := time.Now()
	for i := range uint32(n) {
		block.Reset()
		for _, h := range [][2]string{
			{":method", "POST"},
			{":scheme", "http"},
			{":path", patternpb.MulticastRegistryPattern_Subscribe_FullMethodName},
			{":authority", "x"},
			{"content-type", "application/grpc"},
			{"te", "trailers"},
		} {
			_ = pack.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		id := 2*i + 1
		if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
			t.Fatal(err)
		}
		if err := framer.WriteRSTStream(id, http2.ErrCodeCancel); err != nil {
			t.Fatal(err)
		}
	}
	if err := framer.WritePing(false, [8]byte{1}); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if p, ok := f.(*http2.PingFrame); ok && p.IsAck() {
			break
		}
	}
	b.alive()
	eventually(t, "all calls have ended", func() bool { return b.parked.calls.Load() == 0 })
	grown := int64(heap()) - int64(before)
	t.Logf("%d streams were reset in %s; the heap has grown by %d bytes", n, time.Since(began), grown)
	if grown > 32<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
}
