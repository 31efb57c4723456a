package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/prism-data-layer/prism/patterns/memory"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/replica"
	"github.com/prism-data-layer/prism/patterns/nats"
	"github.com/prism-data-layer/prism/patterns/redis"
)

// The slots of a namespace, as the configuration calls them.
const (
	slotRegistry   = "registry"
	slotMessaging  = "messaging"
	slotDurability = "durability"
)

// The types of backend.
const (
	typeMemory = "memory" // in this process, and ends with it
	typeRedis  = "redis"
	typeNATS   = "nats"
)

// Where reads are answered.
const (
	enumerateReplica = "replica" // from a copy in this process
	enumerateNative  = "native"  // in the backend
	enumerateScan    = "scan"    // by fetching everything
)

// How each slot is opened, on what it is given. They are the only places that know every backend.

func openRegistry(ctx context.Context, n Namespace, s *slot) (multicastregistry.Registry, error) {
	r := n.Registry
	if err := r.validate(r.Type, n.Namespace); err != nil {
		return nil, err
	}
	switch r.Type {
	case typeMemory:
		return memory.NewRegistry(r.Memory), nil
	case typeRedis:
		conn, err := s.toRedis(ctx, r.Redis.Conn)
		if err != nil {
			return nil, err
		}
		r.Redis.Namespace, r.Redis.Log = n.Namespace, s.logger
		if r.Enumerate == enumerateScan {
			r.Redis.Enumerate = redis.EnumerateScan
		}
		registry, err := redis.OpenRegistry(conn, r.Redis.RegistryConfig)
		if err != nil {
			return nil, err
		}
		s.run(registry.Sweep)
		r.Replica.Partitioned = r.Redis.Shards > 1
		return r.copied(registry, n.Namespace, s)
	case typeNATS:
		conn, err := s.toNATS(ctx, r.NATS.Conn)
		if err != nil {
			return nil, err
		}
		r.NATS.Namespace = n.Namespace
		registry, err := nats.OpenRegistry(ctx, conn, r.NATS.RegistryConfig)
		if err != nil {
			return nil, err
		}
		return r.copied(registry, n.Namespace, s)
	}
	return nil, unknownType(slotRegistry, r.Type)
}

// copied returns the registry itself, or a copy of it that is kept from now on.
func (r Registry) copied(source replica.Source, namespace string, s *slot) (multicastregistry.Registry, error) {
	if r.Enumerate != "" && r.Enumerate != enumerateReplica {
		return source, nil
	}
	r.Replica.Log = s.logger.With(slog.String("namespace", namespace))
	registry, err := replica.New(source, r.Replica)
	if err != nil {
		return nil, err
	}
	s.run(registry.Run)
	return registry, nil
}

func openMessaging(ctx context.Context, n Namespace, s *slot) (multicastregistry.Messaging, error) {
	m := n.Messaging
	if err := m.validate(m.Type); err != nil {
		return nil, err
	}
	switch m.Type {
	case typeMemory:
		return memory.NewMessaging(m.Memory), nil
	case typeRedis:
		conn, err := s.toRedis(ctx, m.Redis.Conn)
		if err != nil {
			return nil, err
		}
		return s.redisMessaging(ctx, conn, m.Redis.MessagingConfig)
	case typeNATS:
		conn, err := s.toNATS(ctx, m.NATS.Conn)
		if err != nil {
			return nil, err
		}
		return nats.NewMessaging(conn, m.NATS.MessagingConfig), nil
	}
	return nil, unknownType(slotMessaging, m.Type)
}

// openDurability returns nil, which is no error, when nothing fills the slot.
func openDurability(ctx context.Context, n Namespace, s *slot) (multicastregistry.Durability, error) {
	q := n.Durability
	if err := q.validate(q.Type, n.Namespace); err != nil {
		return nil, err
	}
	switch q.Type {
	case "":
		return nil, nil
	case typeMemory:
		return memory.NewDurability(q.Memory), nil
	case typeRedis:
		conn, err := s.toRedis(ctx, q.Redis.Conn)
		if err != nil {
			return nil, err
		}
		q.Redis.Namespace, q.Redis.Log = n.Namespace, s.logger
		durability, err := redis.OpenDurability(ctx, conn, q.Redis.DurabilityConfig)
		if err != nil {
			return nil, err
		}
		s.closeLater(durability.Close)
		return durability, nil
	case typeNATS:
		conn, err := s.toNATS(ctx, q.NATS.Conn)
		if err != nil {
			return nil, err
		}
		q.NATS.Namespace = n.Namespace
		durability, err := nats.OpenDurability(ctx, conn, q.NATS.DurabilityConfig)
		if err != nil {
			return nil, err
		}
		s.closeLater(durability.Close)
		return durability, nil
	}
	return nil, unknownType(slotDurability, q.Type)
}

// validate checks the options of a type.
func (r Registry) validate(typ, namespace string) error {
	switch typ {
	case typeMemory:
		return r.Memory.Validate()
	case typeRedis:
		r.Redis.Namespace = namespace
		return errors.Join(r.Redis.Conn.Validate(), r.Redis.Validate(), r.Replica.Validate())
	case typeNATS:
		r.NATS.Namespace = namespace
		return errors.Join(r.Replica.Validate(), r.NATS.Conn.replicated(r.NATS.Replicas), r.NATS.Conn.validate(), r.NATS.Validate())
	}
	return unknownType(slotRegistry, typ)
}

func (m Messaging) validate(typ string) error {
	switch typ {
	case typeMemory:
		return m.Memory.Validate()
	case typeRedis:
		return errors.Join(m.Redis.Conn.Validate(), m.Redis.Validate())
	case typeNATS:
		return errors.Join(m.NATS.Conn.validate(), m.NATS.Validate())
	}
	return unknownType(slotMessaging, typ)
}

func (q Durability) validate(typ, namespace string) error {
	switch typ {
	case "":
		return nil
	case typeMemory:
		return q.Memory.Validate()
	case typeRedis:
		q.Redis.Namespace = namespace
		return errors.Join(q.Redis.Conn.Validate(), q.Redis.Validate())
	case typeNATS:
		q.NATS.Namespace = namespace
		return errors.Join(q.NATS.Conn.replicated(q.NATS.Replicas), q.NATS.Conn.validate(), q.NATS.Validate())
	}
	return unknownType(slotDurability, typ)
}

// validate checks that either servers or the embedded one is meant.
func (c NATS) validate() error {
	bad := func(field, problem string) error {
		return &multicastregistry.InvalidError{Field: field, Problem: problem}
	}
	switch {
	case !c.Embedded && c.Listen != "":
		return bad("listen", `is for the server in this process; say "embedded: true" too`)
	case !c.Embedded && c.StoreDir != "":
		return bad("store_dir", `is for the server in this process; say "embedded: true" too`)
	case !c.Embedded:
		return c.Validate()
	case len(c.Servers) > 0:
		return bad("servers", "name servers elsewhere, and embedded runs one here: use one of the two")
	case c.TLS != nil || c.User+c.Password+c.PasswordFile+c.Token+c.Credentials+c.NKey != "":
		return bad("embedded", "the server in this process asks nobody for credentials or TLS: leave those keys out")
	}
	return nil
}

// replicated refuses copies where there is one server.
func (c NATS) replicated(replicas int) error {
	if !c.Embedded || replicas <= 1 {
		return nil
	}
	const problem = "the server in this process is one: leave it out, or use servers"
	return &multicastregistry.InvalidError{Field: "replicas", Problem: problem}
}

func slotError(slot string, err error) error {
	if _, ok := errors.AsType[*multicastregistry.InvalidError](err); ok {
		return fmt.Errorf("backend_slots.%s.%w", slot, err)
	}
	return fmt.Errorf("backend_slots.%s: %w", slot, err)
}

func unknownType(slot, backend string) error {
	return fmt.Errorf("%q is not a backend of the %s slot", backend, slot)
}
