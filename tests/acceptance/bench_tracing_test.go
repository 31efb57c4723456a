package acceptance

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/prism-data-layer/prism/client"
)

// BenchmarkTracing is what traces cost a call over gRPC, on memory: none of them; none recorded; one in ten, as one would set it;
// all; and all, made by the client too. The peer is the same server without.
func BenchmarkTracing(b *testing.B) {
	sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer sink.Close()
	on := "tracing: {endpoint: '" + sink.URL + "', sample_ratio: "
	for work, run := range map[string]func(b *testing.B, p *proxy){
		"call": func(b *testing.B, p *proxy) {
			for b.Loop() {
				_, err := p.Unregister(b.Context(), "nobody")
				must(b, err)
			}
		},
		"enumerate": func(b *testing.B, p *proxy) {
			p.register(b, 1000, fields)
			query := client.Query{Filter: map[string]any{"n": map[string]any{"$lt": 10}, "room": "engineering"}}
			for b.Loop() {
				_, err := p.Enumerate(b.Context(), query)
				must(b, err)
			}
		},
		"multicast": func(b *testing.B, p *proxy) { benchMulticast(b, p, client.AtLeastOnce, 100, 100) },
	} {
		peer := 0.0
		for _, row := range []struct {
			name, tracing string
			options       []client.Option
		}{
			{"off", "", nil},
			{"recorded=0", on + "0}\n", nil},
			{"recorded=0.1", on + "0.1}\n", nil},
			{"recorded=1", on + "1}\n", nil},
			{"client-too", on + "1}\n", []client.Option{client.WithTracing(sdktrace.NewTracerProvider())}},
		} {
			b.Run(work+"/"+row.name, func(b *testing.B) {
				b.ReportAllocs()
				at := serve(b, row.tracing+config("bench", combination{name: "memory+memory"}.slots(b))).GRPC
				connection, err := client.Dial(at, append(row.options, client.WithNamespace("bench"))...)
				must(b, err)
				defer connection.Close()
				run(b, &proxy{Client: connection, namespace: "bench", at: at})
				each := float64(b.Elapsed()) / float64(b.N)
				if row.tracing == "" {
					peer = each
				}
				if peer > 0 {
					b.ReportMetric(each/peer, "x-off")
				}
			})
		}
	}
}
