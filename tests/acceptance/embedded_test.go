package acceptance

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/testenv"
)

// TestEmbeddedKilled kills a proxy with NATS in its own process, in the midst of multicasts and registrations. What it had
// answered for is still there when it runs again: identities, stored messages in order, kept multicasts and their keys.
func TestEmbeddedKilled(t *testing.T) {
	t.Parallel()
	namespace := testenv.Prefix(t)
	backend := fmt.Sprintf("type: nats, embedded: true, store_dir: %q", t.TempDir())
	slots := fmt.Sprintf("{registry: {%s, ttl_default: 300}, messaging: {%s}, durability: {%s}}", backend, backend, backend)
	p := start(t, namespace, config(namespace, slots))
	p.register(t, 3, func(i int) map[string]any { return map[string]any{"n": i} })
	request := client.MulticastRequest{Payload: []byte("key"), IdempotencyKey: "order 7"}
	first := p.multicast(t, request)
	if first.Pending != 3 {
		t.Fatalf("%+v", first)
	}
	sent, registered := []*client.Result{first}, names(3)
	for round := range 3 {
		var working sync.WaitGroup
		enough := make(chan struct{}, 2)
		working.Go(func() {
			for n := 0; ; n++ {
				result, err := p.Multicast(t.Context(), client.MulticastRequest{
					Filter: map[string]any{"n": map[string]any{"$lt": 3}}, Payload: fmt.Appendf(nil, "%d.%d", round, n),
				})
				if err != nil {
					wantError(t, err, client.ErrUnavailable)
					return
				}
				if sent = append(sent, result); n == 20 {
					enough <- struct{}{}
				}
			}
		})
		working.Go(func() {
			for n := 0; ; n++ {
				id := fmt.Sprintf("r%d-%d", round, n)
				if _, err := p.Register(t.Context(), client.Registration{ID: id}); err != nil {
					wantError(t, err, client.ErrUnavailable)
					return
				}
				if registered = append(registered, id); n == 20 {
					enough <- struct{}{}
				}
			}
		})
		<-enough
		<-enough
		p.kill()
		working.Wait()
		p.launch()
		eventually(t, "the proxy works again", func() bool {
			_, err := p.Enumerate(t.Context(), client.Query{PageSize: 1})
			return err == nil
		})
	}
	found := make(map[string]bool)
	for _, identity := range p.find(t, `{}`) {
		found[identity.ID] = true
	}
	for _, id := range registered {
		if !found[id] {
			t.Errorf("%s was registered and is lost", id)
		}
	}
	again := p.multicast(t, request)
	if again.ID != first.ID || !again.Replayed || again.Pending != 3 {
		t.Errorf("the request with a key, again: %+v", again)
	}
	for _, result := range sent {
		record, err := p.GetMulticast(t.Context(), result.ID)
		if err != nil || record.State != client.Returned || record.Result.Pending != 3 {
			t.Errorf("multicast %s: %+v, %v", result.ID, record, err)
		}
	}
	checkBacklog(t, p.proxy, sent)
}

// checkBacklog receives what is stored for one identity, which is every one of some multicasts, in order, and perhaps more.
func checkBacklog(t *testing.T, p *proxy, sent []*client.Result) {
	t.Helper()
	stream := p.silent(t, name(1))
	limited, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []string
	last := sent[len(sent)-1].ID
	for !slices.Contains(got, last) {
		event, err := stream.Next(limited)
		if err != nil {
			t.Fatalf("after %d of %d messages: %v", len(got), len(sent), err)
		}
		for _, m := range event.Messages {
			got = append(got, m.ID)
			must(t, stream.Ack(m.Name()))
		}
	}
	if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
		t.Errorf("they arrive as %v", got)
	}
	for _, result := range sent {
		if !slices.Contains(got, result.ID) {
			t.Errorf("message %s was stored and is lost", result.ID)
		}
		eventually(t, "it counts as delivered", func() bool {
			record, err := p.GetMulticast(t.Context(), result.ID)
			return err == nil && record.Result.Delivered == 1 && record.Result.Pending == 2
		})
	}
}
