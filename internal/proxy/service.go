package proxy

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/auth"
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
	n, err := s.enter(ctx, req.GetNamespace())
	if err != nil {
		return nil, err
	}
	registered, err := n.registered(req.GetIdentity(), object(req.GetMetadata()))
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
	if err := n.Limits.CheckTTL(ttl); err != nil {
		return nil, err
	}
	if err := n.Limits.Metadata(n.owner, registered); err != nil {
		return nil, err
	}
	stored, err := n.Coordinator.Register(ctx, multicastregistry.Registration{
		ID: req.GetIdentity(), Metadata: registered, TTL: ttl, Mode: mode,
	})
	if err != nil {
		return nil, err
	}
	metadata := req.GetMetadata()
	switch {
	case n.Schema != nil:
		if metadata, err = structpb.NewStruct(n.grant.Redact(registered)); err != nil {
			return nil, err
		}
	case metadata == nil:
		metadata = &structpb.Struct{}
	}
	return &patternpb.RegisterResponse{Identity: identity(stored, metadata)}, nil
}

// registered completes metadata, and checks that the caller may register an identity with them.
func (e *entered) registered(identity string, given map[string]any) (map[string]any, error) {
	if err := e.grant.CheckIdentity(identity); err != nil {
		return nil, err
	}
	if err := e.grant.CheckFields(given); err != nil {
		return nil, err
	}
	completed, err := e.Schema.Complete(given, time.Now())
	if err != nil {
		return nil, err
	}
	if err := e.grant.CheckMetadata(identity, completed); err != nil {
		return nil, err
	}
	return completed, nil
}

// Heartbeat implements the RPC.
func (s *service) Heartbeat(ctx context.Context, req *patternpb.HeartbeatRequest) (*patternpb.HeartbeatResponse, error) {
	n, err := s.enter(ctx, req.GetNamespace())
	if err == nil {
		err = n.grant.CheckIdentity(req.GetIdentity())
	}
	if err != nil {
		return nil, err
	}
	ttl, err := span("ttl", req.GetTtl())
	if err != nil {
		return nil, err
	}
	if err := n.Limits.CheckTTL(ttl); err != nil {
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
	n, err := s.enter(ctx, req.GetNamespace())
	if err == nil {
		err = n.grant.CheckIdentity(req.GetIdentity())
	}
	if err != nil {
		return nil, err
	}
	existed, err := n.Coordinator.Unregister(ctx, req.GetIdentity(), multicastregistry.Revision(req.GetRevision()))
	if err != nil {
		return nil, err
	}
	return &patternpb.UnregisterResponse{Existed: existed}, nil
}

// ListNamespaces implements the RPC: it lists those in which the caller may do something. One whose backend does not answer, or
// whose identities the caller may not count, is listed without its count.
func (s *service) ListNamespaces(
	ctx context.Context, _ *patternpb.ListNamespacesRequest,
) (*patternpb.ListNamespacesResponse, error) {
	out := &patternpb.ListNamespacesResponse{}
	caller, _ := auth.FromContext(ctx)
	now := s.serving.Load()
	for _, name := range now.names {
		n := now.namespaces[name]
		if len(n.Policy.Roles(caller)) == 0 {
			continue
		}
		cfg := n.Coordinator.Config()
		shown := &patternpb.Namespace{
			Name: name, Pattern: Pattern, Registry: n.Registry, Messaging: n.Messaging, Durability: n.Durability,
			TtlDefault: lease(cfg.TTLDefault), Delivery: deliveryOf(cfg.Delivery), Timeout: durationpb.New(cfg.Timeout),
		}
		if grant, err := n.Policy.Grant(caller, auth.OpCount); err != nil || grant.Filter() != nil {
			out.Namespaces = append(out.Namespaces, shown)
			continue
		}
		count, ok, err := s.count(ctx, n)
		if err != nil {
			s.sparing.write(ctx, slog.LevelWarn, kindName{"count", name}, "identities could not be counted",
				slog.String("namespace", name),
				slog.String("request_id", requestID(ctx)), slog.Any("error", err))
		} else if ok {
			shown.IdentityCount = new(uint64(count))
		}
		out.Namespaces = append(out.Namespaces, shown)
	}
	return out, nil
}

func (s *service) count(ctx context.Context, n *served) (count int, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	return n.Coordinator.Count(ctx)
}

// Pattern is the name of the pattern that every namespace runs.
const Pattern = "multicast-registry"
