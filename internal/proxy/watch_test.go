package proxy

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func object1(t *testing.T, key string, value any) *structpb.Struct {
	t.Helper()
	s, err := structpb.NewStruct(map[string]any{key: value})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (b *bench) put(id, room string) {
	b.t.Helper()
	if _, err := b.rpc.Register(b.ctx, &patternpb.RegisterRequest{
		Identity: id, Metadata: object1(b.t, "room", room), Mode: patternpb.RegisterRequest_REPLACE,
	}); err != nil {
		b.t.Fatal(err)
	}
}

// newsOf returns the next events of a watch as text, and the token behind them.
func newsOf(t *testing.T, w grpc.ServerStreamingClient[patternpb.WatchResponse]) (events []string, token string) {
	t.Helper()
	news, err := w.Recv()
	if err != nil {
		t.Fatalf("receive news: %v", err)
	}
	for _, e := range news.GetEvents() {
		events = append(events, e.GetType().String()+" "+e.GetIdentity().GetIdentity())
	}
	return events, news.GetResumeToken()
}

func wantNews(t *testing.T, w grpc.ServerStreamingClient[patternpb.WatchResponse], want ...string) (token string) {
	t.Helper()
	for len(want) > 0 {
		var events []string
		events, token = newsOf(t, w)
		for _, e := range events {
			if len(want) == 0 || e != want[0] {
				t.Fatalf("got %q, want %q", e, want)
			}
			want = want[1:]
		}
	}
	return token
}

func TestWatchRPC(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	b.put("a", "lab")
	w, err := b.rpc.Watch(b.ctx, &patternpb.WatchRequest{Filter: object1(t, "room", "lab")})
	if err != nil {
		t.Fatal(err)
	}
	wantNews(t, w, "PRESENT a", "SYNCED ")
	b.put("b", "lab")
	news, err := w.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if e := news.GetEvents()[0]; e.GetIdentity().GetMetadata().GetFields()["room"].GetStringValue() != "lab" ||
		e.GetIdentity().GetTtl() == nil || e.GetIdentity().GetRevision() == 0 || e.GetReason() != 0 {
		t.Errorf("JOINED is %v", e)
	}
	if _, err := b.rpc.Unregister(b.ctx, &patternpb.UnregisterRequest{Identity: "b"}); err != nil {
		t.Fatal(err)
	}
	if news, err = w.Recv(); err != nil || news.GetEvents()[0].GetReason() != patternpb.WatchEvent_UNREGISTERED {
		t.Errorf("LEFT is %v, %v", news, err)
	}
	bare, err := b.rpc.Watch(b.ctx, &patternpb.WatchRequest{IncludeMetadata: new(false), ResumeToken: ""})
	if err != nil {
		t.Fatal(err)
	}
	if news, err = bare.Recv(); err != nil || news.GetEvents()[0].GetIdentity().GetMetadata() != nil {
		t.Errorf("without metadata: %v, %v", news, err)
	}
	for _, row := range []struct {
		req         *patternpb.WatchRequest
		code        codes.Code
		field, text string
	}{
		{&patternpb.WatchRequest{Namespace: "nowhere"}, codes.NotFound, "", "nowhere"},
		{&patternpb.WatchRequest{ResumeToken: "x"}, codes.InvalidArgument, "resume_token", "token"},
		{&patternpb.WatchRequest{Filter: object1(t, "a", map[string]any{"$x": 1})}, codes.InvalidArgument, "filter/a/$x", "operator"},
	} {
		w, err := b.rpc.Watch(b.ctx, row.req)
		if err == nil {
			_, err = w.Recv()
		}
		wantError(t, err, row.code, row.field, row.text)
	}
}

// TestWatchUnsupported watches a registry that keeps no copy.
func TestWatchUnsupported(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{}, fill{registry: &brokenRegistry{}})
	w, err := b.rpc.Watch(b.ctx, &patternpb.WatchRequest{})
	if err == nil {
		_, err = w.Recv()
	}
	wantError(t, err, codes.FailedPrecondition, "", "watch")
}

// TestWatchDrains ends a watch at once when the server drains.
func TestWatchDrains(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	w, err := b.rpc.Watch(b.ctx, &patternpb.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	wantNews(t, w, "SYNCED ")
	s := b.events("/v1/namespaces/default/identities:watch")
	if e := s.next(); e.name != "synced" {
		t.Fatalf("got %+v", e)
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := b.Drain(ctx); err != nil {
		t.Errorf("drain: %v", err)
	}
	_, err = w.Recv()
	wantError(t, err, codes.Unavailable, "", "shutting down")
	if e := s.next(); e.name != "error" {
		t.Errorf("the last event is %+v", e)
	}
}

// TestWatchEvents watches by server-sent events, and goes on as a browser does.
func TestWatchEvents(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	b.put("a", "lab")
	path := "/v1/namespaces/default/identities:watch?filter=" + url.QueryEscape(`{"room":"lab"}`)
	s := b.events(path)
	if e := s.next(); e.name != "present" || e.id != unfinished {
		t.Errorf("got %+v", e)
	}
	synced := s.next()
	if synced.name != "synced" || synced.id == "" {
		t.Errorf("got %+v", synced)
	}
	b.put("a", "hall")
	left := s.next()
	if left.name != "left" || left.id == "" || left.id == synced.id {
		t.Errorf("got %+v", left)
	}
	s.close()
	b.put("b", "lab")
	again := b.get(path, lastEventID, left.id)
	if e := again.next(); e.name != "joined" {
		t.Errorf("got %+v", e)
	}
	if e := again.next(); e.name != "synced" {
		t.Errorf("got %+v", e)
	}
	for _, row := range [][2]string{
		{"?filter=x", "filter"}, {"?resume_token=x", "resume_token"}, {"?omit_snapshot=yes", "omit_snapshot"}, {"?other=1", "query"},
	} {
		a, body := b.do(http.MethodGet, "/v1/namespaces/default/identities:watch"+row[0], "")
		if a.StatusCode != http.StatusBadRequest || !strings.Contains(body, `"field": "`+row[1]) {
			t.Errorf("%s: %d %s", row[0], a.StatusCode, body)
		}
	}
}

// TestNewsNumbers holds shownNews and the .proto together.
func TestNewsNumbers(t *testing.T) {
	t.Parallel()
	fields := (&patternpb.WatchResponse{}).ProtoReflect().Descriptor().Fields()
	event := (&patternpb.WatchEvent{}).ProtoReflect().Descriptor().Fields()
	for name, same := range map[string]bool{
		"events":   fields.ByName("events").Number() == fieldEvents,
		"type":     event.ByName("type").Number() == fieldType,
		"identity": event.ByName("identity").Number() == fieldIdentity,
		"reason":   event.ByName("reason").Number() == fieldReason,
	} {
		if !same {
			t.Errorf("%s has another number", name)
		}
	}
	for n, name := range patternpb.WatchEvent_Type_name {
		if n != 0 && multicastregistry.WatchEventType(n).String() != name {
			t.Errorf("type %d is %s on the wire and %s here", n, name, multicastregistry.WatchEventType(n))
		}
	}
	for n, name := range patternpb.WatchEvent_Reason_name {
		if n != 0 && multicastregistry.LeftReason(n).String() != name {
			t.Errorf("reason %d is %s on the wire and %s here", n, name, multicastregistry.LeftReason(n))
		}
	}
}

// TestWatchUnread drains although a client does not read its watch.
func TestWatchUnread(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	w, err := b.rpc.Watch(b.ctx, &patternpb.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	wantNews(t, w, "SYNCED ")
	for i := range 400 {
		b.put(fmt.Sprint("a", i), strings.Repeat("x", 10_000))
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := b.Drain(ctx); err != nil {
		t.Errorf("drain: %v", err)
	}
}

// TestWatchEventsCut has a browser come back that was cut off in the middle of a snapshot.
func TestWatchEventsCut(t *testing.T) {
	t.Parallel()
	b := serve(t, Config{})
	b.put("a", "lab")
	s := b.events("/v1/namespaces/default/identities:watch")
	e := s.next()
	if e.name != "present" || e.id != unfinished {
		t.Errorf("got %+v", e)
	}
	s.close()
	again := b.get("/v1/namespaces/default/identities:watch", lastEventID, e.id)
	for _, want := range []string{"reset", "present", "synced"} {
		if e := again.next(); e.name != want {
			t.Errorf("got %+v, want %s", e, want)
		}
	}
}
