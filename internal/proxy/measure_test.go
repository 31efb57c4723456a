package proxy

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/patterns/memory"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// failing is a registry whose backend has one fault or another.
type failing struct {
	*memory.Registry

	err error
}

func (f failing) Put(context.Context, multicastregistry.Identity, multicastregistry.PutMode) (multicastregistry.Identity, error) {
	return multicastregistry.Identity{}, f.err
}

func (f failing) Query(context.Context, multicastregistry.Selection) (multicastregistry.Selected, error) {
	return multicastregistry.Selected{}, f.err
}

func (f failing) Find(context.Context, *filter.Expr) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) { yield("", f.err) }
}

func (f failing) Watch(context.Context, multicastregistry.Watch) iter.Seq2[multicastregistry.News, error] {
	return func(yield func(multicastregistry.News, error) bool) { yield(multicastregistry.News{}, f.err) }
}

func metricsOf(b *bench) string {
	w := httptest.NewRecorder()
	b.Admin().ServeHTTP(w, httptest.NewRequestWithContext(b.ctx, http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// TestBlame counts calls and streams that a backend's fault ends, where it happened, and no others.
func TestBlame(t *testing.T) {
	b := serve(t, Config{},
		fill{registry: failing{memory.NewRegistry(memory.RegistryConfig{}), fmt.Errorf("away: %w", multicastregistry.ErrUnavailable)}},
		fill{
			cfg:      multicastregistry.Config{Namespace: "other"},
			registry: failing{memory.NewRegistry(memory.RegistryConfig{}), errors.New("a fault")},
		})
	for _, name := range []string{"", "other", "nobody"} {
		if _, err := b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Namespace: name, Identity: "a"}); err == nil {
			t.Error("registered")
		}
		if _, err := b.rpc.Register(b.ctx, &patternpb.RegisterRequest{Namespace: name}); err == nil { // no backend's fault
			t.Error("registered")
		}
		watch, err := b.rpc.Watch(b.ctx, &patternpb.WatchRequest{Namespace: name})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := watch.Recv(); err == nil {
			t.Error("watching")
		}
		pages, err := b.rpc.EnumerateStream(b.ctx, &patternpb.EnumerateStreamRequest{Request: &patternpb.EnumerateRequest{Namespace: name}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pages.Recv(); err == nil {
			t.Error("enumerated")
		}
		steps, err := b.rpc.MulticastStream(b.ctx, &patternpb.MulticastStreamRequest{Request: &patternpb.MulticastRequest{Namespace: name}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := steps.Recv(); err == nil {
			t.Error("multicast")
		}
	}
	got := metricsOf(b)
	for _, want := range []string{
		`prism_backend_errors_total{code="UNAVAILABLE",namespace="default"} 4`,
		`prism_backend_errors_total{code="INTERNAL",namespace="default"} 0`,
		`prism_backend_errors_total{code="INTERNAL",namespace="other"} 4`,
		`prism_backend_errors_total{code="UNAVAILABLE",namespace="other"} 0`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("there is no %s", want)
		}
	}
	if strings.Contains(got, "nobody") {
		t.Error("a namespace that is not served has a series")
	}
}

// TestEveryMethodIsMeasured holds the methods of the metrics to those of the service.
func TestEveryMethodIsMeasured(t *testing.T) {
	got := metricsOf(serve(t, Config{}))
	desc := patternpb.MulticastRegistryPattern_ServiceDesc
	if n := strings.Count(got, "prism_rpcs_in_flight{"); n != len(desc.Methods)+len(desc.Streams) {
		t.Errorf("%d methods", n)
	}
	if strings.Contains(got, "grpc.health") {
		t.Error("health is measured")
	}
}
