package client

import (
	"context"
	"time"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
)

// NamespaceInfo describes one namespace of a server.
type NamespaceInfo struct {
	// Name, as WithNamespace and In take it.
	Name string
	// Pattern it runs: always "multicast-registry".
	Pattern string
	// Registry, Messaging and Durability are the types of the backends in the slots, such as "memory". An empty Durability
	// means that there is none.
	Registry, Messaging, Durability string
	// TTLDefault is the lease of identities that do not name one, or NoExpiry.
	TTLDefault time.Duration
	// Delivery is the mode of multicasts that do not name one.
	Delivery DeliveryMode
	// Timeout is the longest wait of multicasts that do not name one.
	Timeout time.Duration
	// IdentityCount counts the live identities, if Counted.
	IdentityCount uint64
	// Counted tells whether the backend can count.
	Counted bool
}

// Namespaces returns the namespaces that the server serves, ordered by name.
func (c *Client) Namespaces(ctx context.Context) ([]NamespaceInfo, error) {
	response, err := c.rpc.ListNamespaces(ctx, &patternpb.ListNamespacesRequest{})
	if err != nil {
		return nil, c.failed(err)
	}
	infos := make([]NamespaceInfo, len(response.GetNamespaces()))
	for i, n := range response.GetNamespaces() {
		infos[i] = NamespaceInfo{
			Name: n.GetName(), Pattern: n.GetPattern(),
			Registry: n.GetRegistry(), Messaging: n.GetMessaging(), Durability: n.GetDurability(),
			TTLDefault: fromTTL(n.GetTtlDefault()), Delivery: fromDelivery(n.GetDelivery()), Timeout: n.GetTimeout().AsDuration(),
			IdentityCount: n.GetIdentityCount(), Counted: n.IdentityCount != nil,
		}
	}
	return infos, nil
}
