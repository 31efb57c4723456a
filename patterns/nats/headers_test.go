package nats

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func TestEscape(t *testing.T) {
	for _, row := range []struct{ text, escaped string }{
		{"", ""},
		{"a b", "a b"},
		{" a ", "%20a%20"},
		{" ", "%20"},
		{"a%b", "a%25b"},
		{"a\r\nb", "a%0D%0Ab"},
		{"é", "%C3%A9"},
		{"\x00\x7f", "%00%7F"},
		{"text/plain; charset=utf-8", "text/plain; charset=utf-8"},
		{"%41", "%2541"},
		{"\xff", "%FF"},
	} {
		if got := escape(row.text); got != row.escaped {
			t.Errorf("%q becomes %q, want %q", row.text, got, row.escaped)
		}
		if got := unescape(row.escaped); got != row.text {
			t.Errorf("%q comes back as %q", row.text, got)
		}
	}
	for text, want := range map[string]string{"100%": "100%", "%4": "%4", "%zz": "%zz", "%c3%a9": "é", "50%25": "50%"} {
		if got := unescape(text); got != want {
			t.Errorf("a foreign %q is read as %q", text, got)
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("a b%\r\né")
	f.Fuzz(func(t *testing.T, text string) {
		escaped := escape(text)
		for i := range len(escaped) {
			if escaped[i] < ' ' || escaped[i] > '~' {
				t.Fatalf("%q becomes %q", text, escaped)
			}
		}
		if got := unescape(escaped); got != text {
			t.Fatalf("%q comes back as %q", text, got)
		}
	})
}

// TestHeaderWriter writes different messages with one writer: nothing of one is left in the next.
func TestHeaderWriter(t *testing.T) {
	var w headerWriter
	var r headerReader
	at := time.UnixMilli(1_700_000_000_123)
	for i, sent := range []mr.Message{
		{ID: "1", ContentType: "a", SentAt: at},
		{ID: "1", ContentType: "a", SentAt: at},
		{ID: "2", SentAt: at},
		{ID: "2", ContentType: "b", SentAt: at.Add(time.Millisecond)},
		{ID: "2", ContentType: "b"},
		{ID: "2", ContentType: "b", TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
		{ID: "2", ContentType: "b", SentAt: at},
	} {
		var got mr.Message
		r.read(w.of(&sent), &got)
		if got.ID != sent.ID || got.ContentType != sent.ContentType || got.TraceParent != sent.TraceParent || !got.SentAt.Equal(sent.SentAt) && !sent.SentAt.IsZero() {
			t.Errorf("message %d: %+v, want %+v", i, got, sent)
		}
	}
}

func TestTakesAcks(t *testing.T) {
	c := &Conn{cfg: Config{InboxPrefix: "mine.in"}}
	for address, want := range map[string]bool{
		"_INBOX.a": true, "_INBOX.a.b.c": true, "mine.in.x": true, "_R_.a.b": true, "_GR_.a.b.c": true,
		"": false, "_INBOX": false, "_INBOX.": false, "_INBOX..a": false, "_INBOX.*": false, "_INBOX.>": false, "_INBOX.a b": false,
		"_INBOX.a\r\n": false, "_INBOX.é": false, "prism.a.b": false, "$SYS.x": false, "$JS.API.STREAM.DELETE.x": false, "orders.new": false,
		"mine.x": false, "mine.in": false, "_inbox.a": false, "_INBOXES.a": false,
	} {
		if got := c.takesAcks(address); got != want {
			t.Errorf("%q: %t", address, got)
		}
	}
}

func TestWrap(t *testing.T) {
	if wrap("x", "", nil) != nil {
		t.Error("nothing is wrapped")
	}
	api := func(status int, code jetstream.ErrorCode) error {
		return &jetstream.APIError{Code: status, ErrorCode: code}
	}
	for _, row := range []struct{ err, want error }{
		{nats.ErrConnectionClosed, mr.ErrUnavailable},
		{nats.ErrNoServers, mr.ErrUnavailable},
		{nats.ErrDisconnected, mr.ErrUnavailable},
		{nats.ErrReconnectBufExceeded, mr.ErrUnavailable},
		{nats.ErrTimeout, mr.ErrUnavailable},
		{nats.ErrNoResponders, mr.ErrUnavailable},
		{&silentError{after: time.Second}, mr.ErrUnavailable},
		{nats.ErrMaxPayload, mr.ErrTooLarge},
		{nats.ErrHeadersNotSupported, mr.ErrUnsupported},
		{fmt.Errorf("%w: x", nats.ErrPermissionViolation), mr.ErrUnsupported},
		{nats.ErrMaxSubscriptionsExceeded, mr.ErrQuota},
		{api(503, 10_008), mr.ErrUnavailable},
		{api(503, 10_047), mr.ErrQuota},
		{api(503, 10_023), mr.ErrQuota},
		{api(400, 10_054), mr.ErrTooLarge},
		{jetstream.ErrJetStreamNotEnabled, mr.ErrUnsupported},
		{api(400, 10_071), nil},
		{context.Canceled, context.Canceled},
	} {
		got := wrap("put", "dev-7", row.err)
		if !errors.Is(got, row.err) || row.want != nil && !errors.Is(got, row.want) {
			t.Errorf("%v becomes %v", row.err, got)
		}
		for _, sentinel := range []error{mr.ErrUnavailable, mr.ErrQuota, mr.ErrTooLarge, mr.ErrUnsupported} {
			if errors.Is(got, sentinel) && !errors.Is(row.want, sentinel) {
				t.Errorf("%v becomes %v, which is %v", row.err, got, sentinel)
			}
		}
	}
	if got := wrap("put", "dev-7", nats.ErrDisconnected).Error(); got != `nats: put "dev-7": unavailable: nats: server is disconnected` {
		t.Error(got)
	}
	for _, cause := range []error{nats.ErrDisconnected, errLostWrites, context.DeadlineExceeded, &silentError{}} {
		err := error(&unknownError{identity: "a", cause: cause})
		if errors.Is(err, mr.ErrUnavailable) || errors.Is(cause, context.DeadlineExceeded) != errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	}
	c := &Conn{cfg: Config{Timeout: time.Second}}
	if err := c.ended(t.Context(), context.DeadlineExceeded); !errors.Is(err, mr.ErrUnavailable) {
		t.Error(err)
	}
	if err := c.ended(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

func TestPause(t *testing.T) {
	for rounds := range 100 {
		if p := pause(rounds); p < firstPause/2 || p > lastPause {
			t.Errorf("round %d: %s", rounds, p)
		}
	}
}

func TestTimeOf(t *testing.T) {
	t.Parallel()
	const id = "019aa0f1-2b3c-7def-8123-456789abcdef"
	if at, ok := timeOf(id); !ok || at.UnixMilli() != 0x019aa0f12b3c {
		t.Errorf("%v, %v", at, ok)
	}
	for _, other := range []string{
		"", "x", "019aa0f1-2b3c-4def-8123-456789abcdef", "019aa0f1-2b3c-7def-8123-456789abcdeg", "019aa0f1+2b3c-7def-8123-456789abcdef",
		id + "0", id[:35],
	} {
		if at, ok := timeOf(other); ok {
			t.Errorf("%q tells the time %v", other, at)
		}
	}
}

// TestHeadersLeftOut sends what the reader fills in by itself: the usual content type, and the time that the id tells.
func TestHeadersLeftOut(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(0x019aa0f12b3c)
	for name, row := range map[string]struct {
		sent    mr.Message
		headers int
	}{
		"all left out":       {mr.Message{ID: "019aa0f1-2b3c-7def-8123-456789abcdef", ContentType: unmarked, SentAt: at}, 1},
		"another time":       {mr.Message{ID: "019aa0f1-2b3c-7def-8123-456789abcdef", ContentType: unmarked, SentAt: at.Add(time.Hour)}, 2},
		"another type":       {mr.Message{ID: "019aa0f1-2b3c-7def-8123-456789abcdef", ContentType: "text/plain", SentAt: at}, 2},
		"an id of their own": {mr.Message{ID: "x", ContentType: unmarked, SentAt: at}, 2},
		"no type at all":     {mr.Message{ID: "x", SentAt: at}, 3},
	} {
		var w headerWriter
		var r headerReader
		var got mr.Message
		header := w.of(&row.sent)
		r.read(header, &got)
		if len(header) != row.headers || got.ID != row.sent.ID || got.ContentType != row.sent.ContentType || !got.SentAt.Equal(row.sent.SentAt) {
			t.Errorf("%s: %v became %+v", name, header, got)
		}
	}
}
