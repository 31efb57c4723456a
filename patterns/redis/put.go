package redis

import (
	"context"
	"fmt"
	"time"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	// putAtOnce is how many identities one script registers.
	putAtOnce = 32
	// putScripts is how many of these scripts are under way at once.
	putScripts = 2
	// putFields is how many numbers put.lua tells of each identity.
	putFields = 4
)

// What put.lua says of an identity.
const (
	putInTheWay = 0
	putQuota    = 2
)

// Put implements multicastregistry.Registry.
func (r *Registry) Put(
	ctx context.Context, identity multicastregistry.Identity, mode multicastregistry.PutMode,
) (multicastregistry.Identity, error) {
	stored, err := r.put(ctx, identity, mode)
	if err != nil {
		return multicastregistry.Identity{}, r.conn.wrap(ctx, "put", identity.ID, err)
	}
	return stored, nil
}

func (r *Registry) put(
	ctx context.Context, identity multicastregistry.Identity, mode multicastregistry.PutMode,
) (multicastregistry.Identity, error) {
	metadata, err := multicastregistry.CopyMetadata(identity.Metadata)
	if err != nil {
		return identity, err
	}
	text, err := encodeMetadata(metadata)
	if err != nil {
		return identity, err
	}
	create := "0"
	if mode == multicastregistry.Create {
		create = "1"
	}
	reply, err := r.share(ctx, &r.puts, multicastregistry.EncodeName(identity.ID), text, millis(identity.TTL), create)
	if err != nil {
		return identity, err
	}
	switch reply[0] {
	case putInTheWay:
		return identity, multicastregistry.ErrAlreadyExists
	case putQuota:
		return identity, fmt.Errorf("%w: the namespace has its %d identities", multicastregistry.ErrQuota, r.cfg.MaxIdentities)
	}
	return multicastregistry.Identity{
		ID: identity.ID, Metadata: metadata, TTL: roundUp(identity.TTL), RegisteredAt: time.UnixMilli(reply[2]),
		ExpiresAt: instant(reply[3]), Revision: r.seen(reply[1]),
	}, nil
}
