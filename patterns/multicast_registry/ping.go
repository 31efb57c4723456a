package multicastregistry

import (
	"context"
	"errors"
	"fmt"
)

// FilledSlot is a slot of a namespace that has a backend.
type FilledSlot struct {
	// Name is "registry", "messaging" or "durability".
	Name string
	// Pinger asks the backend. Nil: it cannot be asked.
	Pinger Pinger
}

// Slots returns the slots that are filled, for who asks their backends one by one.
func (c *Coordinator) Slots() []FilledSlot {
	var filled []FilledSlot
	add := func(name string, slot any) {
		pinger, _ := slot.(Pinger)
		filled = append(filled, FilledSlot{name, pinger})
	}
	add("registry", c.bare.Registry)
	add("messaging", c.bare.Messaging)
	if c.bare.Durability != nil {
		add("durability", c.bare.Durability)
	}
	return filled
}

// Ping asks every slot that can be asked whether its backend answers, and joins the errors.
func (c *Coordinator) Ping(ctx context.Context) error {
	var errs []error
	for _, slot := range c.Slots() {
		if slot.Pinger == nil {
			continue
		}
		if err := slot.Pinger.Ping(ctx); err != nil {
			errs = append(errs, fmt.Errorf("namespace %s: %s: %w", c.cfg.Namespace, slot.Name, err))
		}
	}
	return errors.Join(errs...)
}
