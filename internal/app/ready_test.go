package app_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/app"
	"github.com/prism-data-layer/prism/internal/testenv"
)

// ready is what /readyz answers.
type ready struct {
	Status     string `json:"status"`
	Namespaces map[string]struct {
		Status string `json:"status"`
		Slots  map[string]struct {
			Type   string `json:"type"`
			Status string `json:"status"`
			Error  string `json:"error"`
		} `json:"slots"`
	} `json:"namespaces"`
}

// TestReadyTellsWhich takes one of three backends of a namespace away, and gives it back: first Redis, then NATS. The operators'
// probe tells which, the public one, with authentication, only that something is wrong.
func TestReadyTellsWhich(t *testing.T) {
	t.Parallel()
	redis, nats := testenv.Redis(t), testenv.NATS(t)
	toRedis, toNATS := testenv.NewFault(t, redis.Addr), testenv.NewFault(t, strings.TrimPrefix(nats.URL, "nats://"))
	name := testenv.Prefix(t)
	cfg, err := app.Parse("test", fmt.Appendf(nil, `
listen: {grpc: "127.0.0.1:0", http: "127.0.0.1:0", admin: "127.0.0.1:0"}
auth: {tokens: [{name: a, hash: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}]}
namespaces:
  - name: %s
    pattern: multicast-registry
    access: [{subject: a, roles: admin}]
    backend_slots:
      registry: {type: redis, host: %q, enumerate: scan}
      messaging: {type: nats, servers: [%q]}
      durability: {type: redis, host: %q}
  - name: well
    pattern: multicast-registry
    access: [{subject: a, roles: admin}]
    backend_slots: {registry: {type: memory}, messaging: {type: memory}}
`, name, redis.Addr, toNATS.Addr, toRedis.Addr))
	if err != nil {
		t.Fatal(err)
	}
	at, _ := run(t, cfg)
	// until asks until a slot has a state, and all others are well.
	until := func(slot, kind, want, why string) {
		t.Helper()
		deadline := time.Now().Add(20 * time.Second)
		for {
			code, body := get(t, "http://"+at.Admin+"/readyz", closing)
			var got ready
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatalf("%s: %v", body, err)
			}
			n := got.Namespaces[name]
			wantCode, overall := http.StatusOK, "ready"
			if want != "ok" {
				wantCode, overall = http.StatusServiceUnavailable, want
			}
			fine := code == wantCode && got.Status == overall && n.Status == want && len(n.Slots) == 3 && got.Namespaces["well"].Status == "ok" &&
				n.Slots[slot].Type == kind && n.Slots[slot].Status == want && strings.Contains(n.Slots[slot].Error, why)
			for other, state := range n.Slots {
				fine = fine && (other == slot || state.Status == "ok" && state.Error == "")
			}
			if fine {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s is not %s: %d %s", slot, want, code, body)
			}
			<-time.After(20 * time.Millisecond)
		}
	}
	strangers := func(want int) {
		t.Helper()
		code, body := get(t, "http://"+at.HTTP+"/readyz", closing)
		for _, secret := range []string{name, "well", "redis", "127.0.0.1"} {
			if strings.Contains(body, secret) {
				t.Errorf("strangers are told of %s: %s", secret, body)
			}
		}
		if code != want {
			t.Errorf("strangers get %d, want %d", code, want)
		}
	}
	until("durability", "redis", "ok", "")
	strangers(http.StatusOK)
	toRedis.Cut()
	until("durability", "redis", "unavailable", "redis: ping")
	strangers(http.StatusServiceUnavailable)
	toRedis.Heal()
	until("durability", "redis", "ok", "")
	toRedis.Stall()
	until("durability", "redis", "unavailable", "")
	toRedis.Heal()
	until("durability", "redis", "ok", "")
	toNATS.Cut()
	until("messaging", "nats", "unavailable", "nats: ping")
	toNATS.Heal()
	until("messaging", "nats", "ok", "")
}
