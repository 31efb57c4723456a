package redis

import (
	"bytes"
	"strings"
	"testing"
	"time"

	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func sameFrame(a, b mr.Message) bool {
	return a.ID == b.ID && a.ContentType == b.ContentType && a.AckTo == b.AckTo && a.SentAt.Equal(b.SentAt) && a.Once == b.Once &&
		a.TraceParent == b.TraceParent && bytes.Equal(a.Payload, b.Payload)
}

func TestFrame(t *testing.T) {
	for _, message := range []mr.Message{
		{ID: "x"},
		{ID: "x", Once: true},
		{ID: "x", Once: true, ContentType: "a/b", Payload: []byte("p")},
		{ID: "x", TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Payload: []byte("p")},
		{ID: "x", SentAt: time.UnixMilli(0)},
		{ID: "x", SentAt: time.UnixMilli(-1)},
		{ID: "x", SentAt: time.UnixMilli(1<<62 - 1)},
		{ID: strings.Repeat("id ", 1000), ContentType: "text/plain", AckTo: "prism-ack.A x", SentAt: time.UnixMilli(1), Payload: []byte("\r\n\x00")},
		{ID: "x", Payload: bytes.Repeat([]byte{frameVersion}, 1<<20)},
	} {
		frame := string(encodeFrame(&message))
		got, ok := parseFrame(frame)
		if !ok || !sameFrame(got, message) {
			t.Errorf("%v, %+v comes back as %+v", ok, message, got)
		}
		for cut := range min(len(frame)-len(message.Payload), 100) {
			if _, ok := parseFrame(frame[:cut]); ok {
				t.Errorf("%d bytes of %q are a frame", cut, frame)
			}
		}
	}
	if got := decodeFrame(string(encodeFrame(&mr.Message{ID: "x"}))); !got.SentAt.IsZero() {
		t.Errorf("no time becomes %v", got.SentAt)
	}
}

func TestNoFrame(t *testing.T) {
	seen := map[string]bool{}
	for _, text := range []string{
		"", "hello", "\xa1", "\xa1\x00", "\xa1\x00\x00", "\xa1\x00\x00\x00\x00\x00", "\xa1\x00\x00\x01", "\xa1\x00\x00\x01x\x05", "\xa1\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
		"\xa1\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02\x01x\x00\x00", "\xa1" + strings.Repeat("\xff", 20), "\xa2\x00\x00\x01x\x00\x00",
	} {
		if _, ok := parseFrame(text); ok {
			t.Errorf("%q is a frame", text)
		}
		got := decodeFrame(text)
		if string(got.Payload) != text || got.ID == "" || seen[got.ID] || got.AckTo != "" || time.Since(got.SentAt) > time.Minute {
			t.Errorf("%q comes as %+v", text, got)
		}
		seen[got.ID] = true
	}
}

func FuzzFrame(f *testing.F) {
	f.Add("")
	f.Add("hello")
	f.Add("\xa1\x01\x00\x01x\x00\x00payload")
	f.Add("\xa1\x02\x00\x01x\x00\x00\x05tracepayload")
	f.Add(string(encodeFrame(&mr.Message{ID: "id", ContentType: "a/b", AckTo: "prism-ack.A x", Payload: []byte("p"), SentAt: time.UnixMilli(1 << 40)})))
	f.Fuzz(func(t *testing.T, text string) {
		message, ok := parseFrame(text)
		if !ok {
			if got := decodeFrame(text); string(got.Payload) != text || got.ID == "" || got.AckTo != "" {
				t.Fatalf("%q comes as %+v", text, got)
			}
			return
		}
		again, ok := parseFrame(string(encodeFrame(&message)))
		if !ok || !sameFrame(again, message) {
			t.Fatalf("%q: %+v, then %+v", text, message, again)
		}
	})
}
