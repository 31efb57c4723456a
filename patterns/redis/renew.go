package redis

import (
	"context"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	// renewedAtOnce is how many leases one script renews.
	renewedAtOnce = 50
	// renewScripts is how many of these scripts are under way at once.
	renewScripts = 4
	// renewFields is how many numbers renew.lua tells of each lease.
	renewFields = 5
)

// Renew implements multicastregistry.Registry.
func (r *Registry) Renew(ctx context.Context, id string, ttl time.Duration) (multicastregistry.Lease, error) {
	length := "0"
	if ttl != 0 {
		length = millis(ttl)
	}
	reply, err := r.share(ctx, &r.renewals, multicastregistry.EncodeName(id), length)
	if err == nil && reply[0] == 0 {
		err = multicastregistry.ErrNotFound
	}
	if err != nil {
		return multicastregistry.Lease{}, r.conn.wrap(ctx, "renew", id, err)
	}
	r.seen(reply[1])
	return multicastregistry.Lease{
		TTL: duration(reply[2]), ExpiresAt: instant(reply[3]), Of: multicastregistry.Revision(reply[4]),
	}, nil
}
