package acceptance

import (
	"fmt"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/testenv"
)

// The benchmarks measure through the client against a server in this process, over gRPC on loopback. Each states the
// specification's limit beside its own time, in percent of it, and the floor under all of them: an
// empty call over the same connection.

// BenchmarkCall is the floor: a call that asks for next to nothing.
func BenchmarkCall(b *testing.B) {
	benchEach(b, func(b *testing.B, p *proxy) {
		for b.Loop() {
			_, err := p.Unregister(b.Context(), "nobody")
			must(b, err)
		}
	})
}

// BenchmarkRegister registers one identity with five fields after the other.
func BenchmarkRegister(b *testing.B) {
	benchEach(b, func(b *testing.B, p *proxy) {
		metadata := fields(7)
		for i := 0; b.Loop(); i++ {
			_, err := p.Register(b.Context(), client.Registration{ID: fmt.Sprintf("dev-%d", i), Metadata: metadata})
			must(b, err)
		}
	})
}

// BenchmarkEnumerate asks for all that match in a registry of 1,000; the specification allows 20 ms.
func BenchmarkEnumerate(b *testing.B) {
	for matches, filter := range map[int]map[string]any{
		10:   {"n": map[string]any{"$lt": 10}, "room": "engineering"},
		1000: {"status": map[string]any{"$in": []any{"online", "away"}}, "room": "engineering"},
	} {
		b.Run(fmt.Sprintf("matches=%d", matches), func(b *testing.B) {
			benchEach(b, func(b *testing.B, p *proxy) {
				p.register(b, 1000, fields)
				for b.Loop() {
					page, err := p.Enumerate(b.Context(), client.Query{Filter: filter, PageSize: 1000})
					must(b, err)
					if len(page.Identities) != matches {
						b.Fatalf("%d identities", len(page.Identities))
					}
				}
				ofLimit(b, 20*time.Millisecond)
			})
		})
	}
}

// BenchmarkMulticast delivers to subscribers that acknowledge over a gRPC stream; the specification allows 100 ms for 100.
func BenchmarkMulticast(b *testing.B) {
	for _, targets := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("targets=%d", targets), func(b *testing.B) {
			benchEach(b, func(b *testing.B, p *proxy) { benchMulticast(b, p, client.AtLeastOnce, targets, targets) })
		})
	}
}

// BenchmarkMulticastOverGRPC is what BenchmarkMulticast of patterns/nats measures inside a process, over gRPC at both ends:
// a registry in memory, messaging on NATS, all targets on one stream; without acks, with acks, and with acks of all but one
// target in a hundred, for which nobody is there.
func BenchmarkMulticastOverGRPC(b *testing.B) {
	for _, targets := range []int{10, 100, 1000, 10_000} {
		for name, run := range map[string]func(b *testing.B, p *proxy){
			"at-most-once":  func(b *testing.B, p *proxy) { benchMulticast(b, p, client.AtMostOnce, targets, targets) },
			"at-least-once": func(b *testing.B, p *proxy) { benchMulticast(b, p, client.AtLeastOnce, targets, targets) },
			"1%-dead": func(b *testing.B, p *proxy) {
				benchMulticast(b, p, client.AtLeastOnce, targets, targets-max(targets/100, 1))
			},
		} {
			b.Run(fmt.Sprintf("%s/targets=%d", name, targets), func(b *testing.B) {
				b.ReportAllocs()
				const slots = "{registry: {type: memory}, messaging: {type: nats, servers: [%q], buffer: 65536}}"
				namespace := testenv.Prefix(b)
				run(b, dial(b, serve(b, config(namespace, fmt.Sprintf(slots, testenv.NATS(b).URL))).GRPC, namespace))
			})
		}
	}
}

// benchMulticast multicasts to targets, of which so many are attached.
func benchMulticast(b *testing.B, p *proxy, mode client.DeliveryMode, targets, attached int) {
	b.Helper()
	p.register(b, targets, fields)
	p.attach(b, names(targets)[:attached]...)
	want := attached
	if mode == client.AtMostOnce {
		want = targets
	}
	request := client.MulticastRequest{Payload: []byte("Hello!"), Delivery: mode, Report: client.ReportUndelivered}
	for b.Loop() {
		result, err := p.Multicast(b.Context(), request)
		must(b, err)
		if result.Delivered != want {
			b.Fatalf("delivered %d of %d", result.Delivered, targets)
		}
	}
	ofLimit(b, time.Duration(targets)*time.Millisecond)
}

func fields(i int) map[string]any {
	return map[string]any{"n": i, "status": "online", "room": "engineering", "battery": 0.5, "fw": "1.4.2"}
}

func ofLimit(b *testing.B, limit time.Duration) {
	b.Helper()
	b.ReportMetric(100*float64(b.Elapsed())/float64(b.N)/float64(limit), "%-of-limit")
}

// benchEach runs a benchmark on every combination.
func benchEach(b *testing.B, run func(b *testing.B, p *proxy)) {
	b.Helper()
	for _, c := range combinations() {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			namespace := testenv.Prefix(b)
			run(b, dial(b, serve(b, config(namespace, c.slots(b))).GRPC, namespace))
		})
	}
}
