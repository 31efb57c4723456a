package proxy

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/auth"
)

// TestAudit has changes, and calls that were denied, noted, and nothing else.
func TestAudit(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	b := serve(t, Config{Audit: slog.New(slog.NewJSONHandler(&log, nil))}, durable())
	secret := &structpb.Struct{Fields: map[string]*structpb.Value{"password": structpb.NewStringValue("hunter2")}}
	if _, err := b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Identity: "a", Metadata: secret}); err != nil {
		t.Fatal(err)
	}
	_, _ = b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Identity: "a", Mode: patternpb.RegisterRequest_CREATE})
	_, _ = b.rpc.Heartbeat(b.ctx, &patternpb.HeartbeatRequest{Identity: "a"})
	_, _ = b.rpc.Enumerate(b.ctx, &patternpb.EnumerateRequest{})
	room := &structpb.Struct{Fields: map[string]*structpb.Value{"room": structpb.NewStringValue("lab")}}
	sent, err := b.rpc.Multicast(b.ctx, &patternpb.MulticastRequest{Payload: []byte("hunter2"), Filter: room})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := b.rpc.MulticastStream(b.ctx, &patternpb.MulticastStreamRequest{Request: &patternpb.MulticastRequest{Payload: []byte("hunter2")}})
	for err == nil {
		_, err = stream.Recv()
	}
	_, _ = b.rpc.CancelMulticast(b.ctx, &patternpb.CancelMulticastRequest{MulticastId: sent.GetMulticastId()})
	resp, err := b.http.Post(b.url+"/v1/namespaces/nope/identities", "application/json", strings.NewReader(`{"identity":"c"}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	_, _ = b.rpc.Unregister(b.ctx, &patternpb.UnregisterRequest{Identity: "a"})

	var got []string
	for line := range strings.Lines(log.String()) {
		var e struct {
			Msg, Outcome, Namespace, Identity, Filter, From string
			Targets, Pending                                int
			Request                                         string `json:"request_id"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil { //nolint:musttag // names that differ by case only
			t.Fatalf("%s: %v", line, err)
		}
		if e.Request == "" || !strings.HasPrefix(e.From, "127.0.0.1") {
			t.Errorf("without a request id, or an address: %s", line)
		}
		got = append(got, strings.Join([]string{
			e.Msg, e.Outcome, e.Namespace, e.Identity, strings.ReplaceAll(e.Filter, " ", ""), strings.Repeat("p", e.Pending),
		}, " "))
	}
	want := []string{
		"Register OK default a  ", "Register ALREADY_EXISTS default a  ", `Multicast OK default  {"room":"lab"} `,
		"MulticastStream OK default  {} p", "CancelMulticast OK default   ", "Register NOT_FOUND nope c  ", "Unregister OK default a  ",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if strings.Contains(log.String(), "hunter2") {
		t.Errorf("the log has what is secret:\n%s", log.String())
	}
}

// TestAuditOfTheDenied has calls noted that nobody was found to make, or that their caller may not make.
func TestAuditOfTheDenied(t *testing.T) {
	t.Parallel()
	token, hash := auth.NewToken()
	asks, err := auth.Open(t.Context(), auth.Config{Tokens: []auth.Token{{Name: "alice", Hash: hash}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(asks.Close)
	var log syncBuffer
	b := serve(t, Config{Authenticator: asks, Audit: slog.New(slog.NewJSONHandler(&log, nil))}, fill{})
	_, _ = b.rpc.Enumerate(b.ctx, &patternpb.EnumerateRequest{})
	if sub, err := b.rpc.Subscribe(b.ctx); err == nil {
		_, _ = sub.Recv()
	}
	for _, bearer := range []string{"", token, token + "x"} {
		req, err := http.NewRequestWithContext(b.ctx, http.MethodDelete, b.url+"/v1/namespaces/default/identities/bob", nil)
		if err != nil {
			t.Fatal(err)
		}
		if bearer != "" {
			req.Header.Set("Authorization", "Bearer "+bearer)
		}
		resp, err := b.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	var got []string
	for line := range strings.Lines(log.String()) {
		var e struct {
			Msg, Outcome, Identity, Path, Reason string
			Caller                               struct{ Subject string }
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil { //nolint:musttag // names that differ by case only
			t.Fatalf("%s: %v", line, err)
		}
		if e.Reason == "" {
			t.Errorf("without a reason: %s", line)
		}
		got = append(got, strings.Join([]string{e.Msg, e.Outcome, e.Caller.Subject, e.Identity, e.Path}, " "))
	}
	want := []string{
		"Enumerate UNAUTHENTICATED   ", "Subscribe UNAUTHENTICATED   ", "HTTP UNAUTHENTICATED   /v1/namespaces/default/identities/bob",
		"Unregister PERMISSION_DENIED alice bob ", "HTTP UNAUTHENTICATED   /v1/namespaces/default/identities/bob",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if strings.Contains(log.String(), token[8:]) {
		t.Errorf("the log has a token:\n%s", log.String())
	}
}
