package proxy

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/patterns/memory"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// slowDurability has a Ping of its own.
type slowDurability struct {
	multicastregistry.Durability
	ping func(ctx context.Context) error
}

func (d *slowDurability) Ping(ctx context.Context) error { return d.ping(ctx) }

// mute is a messaging slot that cannot be asked.
type mute struct{ multicastregistry.Messaging }

// TestHangingSlots has one slot that hangs, one that does not even heed its context, and one that cannot be asked, beside others:
// the answer is there in time, and tells all of that.
func TestHangingSlots(t *testing.T) {
	hang := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	released, ended := make(chan struct{}), make(chan struct{})
	deaf := func(context.Context) error {
		defer close(ended)
		<-released
		return nil
	}
	stored := func(ping func(context.Context) error) multicastregistry.Durability {
		return &slowDurability{memory.NewDurability(memory.DurabilityConfig{}), ping}
	}
	b := serve(t, Config{}, fill{durability: stored(deaf)}, fill{
		cfg: multicastregistry.Config{Namespace: "hangs"}, registry: &brokenRegistry{fail: hang}, durability: stored(hang),
	}, fill{
		cfg: multicastregistry.Config{Namespace: "mute"}, messaging: mute{memory.NewMessaging(memory.MessagingConfig{})},
	})
	began := time.Now()
	resp, body := b.do(http.MethodGet, "/readyz", "")
	took := time.Since(began)
	close(released)
	<-ended
	if took < slotTimeout || took > readyTimeout+time.Second { // what is above is the machine's
		t.Errorf("took %s", took)
	}
	var got readiness
	if err := json.Unmarshal([]byte(body), &got); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("%d %s: %v", resp.StatusCode, body, err)
	}
	for namespace, want := range map[string]map[string]string{
		"default": {"": stateUnavailable, "registry": stateOK, "messaging": stateOK, "durability": stateUnavailable},
		"hangs":   {"": stateUnavailable, "registry": stateUnavailable, "messaging": stateOK, "durability": stateUnavailable},
		"mute":    {"": stateOK, "registry": stateOK, "messaging": stateUnknown},
	} {
		n := got.Namespaces[namespace]
		if n.Status != want[""] || len(n.Slots) != len(want)-1 {
			t.Errorf("%s: %+v", namespace, n)
		}
		for slot, state := range n.Slots {
			if state.Status != want[slot] || (state.Error == "") != (state.Status != stateUnavailable) {
				t.Errorf("%s: %s: %+v, want %s", namespace, slot, state, want[slot])
			}
		}
	}
}
