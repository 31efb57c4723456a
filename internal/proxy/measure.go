package proxy

import (
	"context"
	"sync/atomic"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/metrics"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// newMetrics returns the metrics of a server: it knows methods and codes, which the metrics do not.
func newMetrics(cfg Config, sources map[string]metrics.Source) *metrics.Metrics {
	desc := patternpb.MulticastRegistryPattern_ServiceDesc
	var methods, names []string
	for _, m := range desc.Methods {
		methods = append(methods, "/"+desc.ServiceName+"/"+m.MethodName)
	}
	for _, s := range desc.Streams {
		methods = append(methods, "/"+desc.ServiceName+"/"+s.StreamName)
	}
	for c := codes.OK; c <= codes.Unauthenticated; c++ {
		names = append(names, code.Code(c).String())
	}
	return metrics.New(metrics.Config{
		Version: cfg.Version, Methods: methods, Codes: names, Namespaces: sources, Logger: cfg.Logger,
	})
}

// measured is where a namespace is counted.
func (s *Server) measured(c *multicastregistry.Coordinator) *metrics.Namespace {
	return s.metrics.Namespace(c.Config().Namespace)
}

func ended(call metrics.RPC, span *callSpan, err error) {
	call.TraceID = span.traceID()
	call.End(uint32(status.Code(err)))
}

// blame counts a call that a backend's fault ends. The request, or the stream that it came by, tells the namespace.
func (s *Server) blame(ctx context.Context, request any, err error) {
	if err == nil {
		return
	}
	if _, own := status.FromError(err); own { // such as while draining
		return
	}
	if name, ok := namespaceOf(request); ok {
		s.metrics.Namespace(name).BackendError(uint32(convert(ctx, err).Code()))
	}
}

// namespaceOf tells which namespace a request names, whether it is served or not.
func namespaceOf(request any) (name string, ok bool) {
	switch r := request.(type) {
	case *meteredStream:
		if first := r.namespace.Load(); first != nil {
			return *first, true
		}
		return "", false
	case *patternpb.EnumerateStreamRequest:
		name = r.GetRequest().GetNamespace()
	case *patternpb.MulticastStreamRequest:
		name = r.GetRequest().GetNamespace()
	case *patternpb.SubscribeRequest:
		if r.GetAttach() == nil { // of the others, none names one
			return "", false
		}
		name = r.GetAttach().GetNamespace()
	case interface{ GetNamespace() string }:
		name = r.GetNamespace()
	default:
		return "", false
	}
	if name == "" {
		name = multicastregistry.DefaultNamespace
	}
	return name, true
}

// meteredStream remembers which namespace the first request of a stream names.
type meteredStream struct {
	grpc.ServerStream

	parked    *parked // nil once the first request is there
	namespace atomic.Pointer[string]
}

// RecvMsg implements grpc.ServerStream.
func (m *meteredStream) RecvMsg(msg any) error {
	p := m.parked
	if p != nil {
		p.calls.Add(1)
	}
	err := m.ServerStream.RecvMsg(msg)
	if p != nil {
		m.parked = nil
		p.calls.Add(-1)
		arrived(m.Context())
	}
	if err == nil {
		err = decoded(msg)
	}
	if err == nil && m.namespace.Load() == nil {
		if name, ok := namespaceOf(msg); ok {
			m.namespace.Store(&name)
		}
	}
	return err
}
