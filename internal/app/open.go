package app

import (
	"context"
	"fmt"

	"github.com/prism-data-layer/prism/patterns/memory"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// The slots of a namespace, as the configuration calls them.
const (
	slotRegistry   = "registry"
	slotMessaging  = "messaging"
	slotDurability = "durability"
)

// typeMemory is the backend in the memory of this process: it ends with it.
const typeMemory = "memory"

// opened is a namespace whose slots are filled.
type opened struct {
	slots multicastregistry.Slots
	close func() error // ends what was opened for the slots; call it once, last
}

// open fills the slots of a namespace. It is the only place that knows every backend.
func open(_ context.Context, n Namespace) (opened, error) {
	out := opened{close: func() error { return nil }}
	switch n.Registry.Type {
	case typeMemory:
		if err := n.Registry.Memory.Validate(); err != nil {
			return out, err
		}
		out.slots.Registry = memory.NewRegistry(n.Registry.Memory)
	default:
		return out, unknownType(slotRegistry, n.Registry.Type)
	}
	switch n.Messaging.Type {
	case typeMemory:
		if err := n.Messaging.Memory.Validate(); err != nil {
			return out, err
		}
		out.slots.Messaging = memory.NewMessaging(n.Messaging.Memory)
	default:
		return out, unknownType(slotMessaging, n.Messaging.Type)
	}
	switch n.Durability.Type {
	case "":
	case typeMemory:
		if err := n.Durability.Memory.Validate(); err != nil {
			return out, err
		}
		out.slots.Durability = memory.NewDurability(n.Durability.Memory)
	default:
		return out, unknownType(slotDurability, n.Durability.Type)
	}
	return out, nil
}

func unknownType(slot, backend string) error {
	return fmt.Errorf("%q is not a backend of the %s slot", backend, slot)
}
