package proxy

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// countTimeout bounds what ListNamespaces waits for one namespace's count.
const countTimeout = 2 * time.Second

// service is the gRPC service. It returns the errors of the layers below as they are; the interceptors convert them.
type service struct {
	patternpb.UnimplementedMulticastRegistryPatternServer
	*Server
}

// Register implements the RPC.
func (s *service) Register(ctx context.Context, req *patternpb.RegisterRequest) (*patternpb.RegisterResponse, error) {
	n, err := s.namespace(req.GetNamespace())
	if err != nil {
		return nil, err
	}
	mode, err := putMode(req.GetMode())
	if err != nil {
		return nil, err
	}
	ttl, err := span("ttl", req.GetTtl())
	if err != nil {
		return nil, err
	}
	if req.GetNeverExpires() {
		if ttl != 0 {
			return nil, invalid("never_expires", "must not be set together with ttl: choose one of them")
		}
		ttl = multicastregistry.NoExpiry
	}
	stored, err := n.Coordinator.Register(ctx, multicastregistry.Registration{
		ID: req.GetIdentity(), Metadata: object(req.GetMetadata()), TTL: ttl, Mode: mode,
	})
	if err != nil {
		return nil, err
	}
	metadata := req.GetMetadata()
	if metadata == nil {
		metadata = &structpb.Struct{}
	}
	return &patternpb.RegisterResponse{Identity: identity(stored, metadata)}, nil
}

// Heartbeat implements the RPC.
func (s *service) Heartbeat(ctx context.Context, req *patternpb.HeartbeatRequest) (*patternpb.HeartbeatResponse, error) {
	n, err := s.namespace(req.GetNamespace())
	if err != nil {
		return nil, err
	}
	ttl, err := span("ttl", req.GetTtl())
	if err != nil {
		return nil, err
	}
	renewed, err := n.Coordinator.Heartbeat(ctx, req.GetIdentity(), ttl)
	if err != nil {
		return nil, err
	}
	return &patternpb.HeartbeatResponse{ExpiresAt: moment(renewed.ExpiresAt), Ttl: lease(renewed.TTL)}, nil
}

// Unregister implements the RPC.
func (s *service) Unregister(ctx context.Context, req *patternpb.UnregisterRequest) (*patternpb.UnregisterResponse, error) {
	n, err := s.namespace(req.GetNamespace())
	if err != nil {
		return nil, err
	}
	existed, err := n.Coordinator.Unregister(ctx, req.GetIdentity(), multicastregistry.Revision(req.GetRevision()))
	if err != nil {
		return nil, err
	}
	return &patternpb.UnregisterResponse{Existed: existed}, nil
}

// ListNamespaces implements the RPC. A namespace whose backend does not answer is listed without its count.
func (s *service) ListNamespaces(
	ctx context.Context, _ *patternpb.ListNamespacesRequest,
) (*patternpb.ListNamespacesResponse, error) {
	out := &patternpb.ListNamespacesResponse{}
	for _, name := range s.names {
		n := s.namespaces[name]
		cfg := n.Coordinator.Config()
		shown := &patternpb.Namespace{
			Name: name, Pattern: Pattern, Registry: n.Registry, Messaging: n.Messaging, Durability: n.Durability,
			TtlDefault: lease(cfg.TTLDefault), Delivery: deliveryOf(cfg.Delivery), Timeout: durationpb.New(cfg.Timeout),
		}
		count, ok, err := s.count(ctx, n)
		if err != nil {
			s.log.LogAttrs(ctx, slog.LevelWarn, "identities could not be counted", slog.String("namespace", name),
				slog.String("request_id", requestID(ctx)), slog.Any("error", err))
		} else if ok {
			shown.IdentityCount = new(uint64(count))
		}
		out.Namespaces = append(out.Namespaces, shown)
	}
	return out, nil
}

func (s *service) count(ctx context.Context, n Namespace) (count int, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	return n.Coordinator.Count(ctx)
}

// Pattern is the name of the pattern that every namespace runs.
const Pattern = "multicast-registry"
