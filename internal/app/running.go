package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"time"

	"github.com/prism-data-layer/prism/internal/auth"
	"github.com/prism-data-layer/prism/internal/proxy"
	"github.com/prism-data-layer/prism/internal/schema"
	"github.com/prism-data-layer/prism/internal/tracing"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// running is what is open of a configuration. It is for one goroutine.
type running struct {
	cfg           Config
	namespaces    []*namespace
	authenticator *auth.Authenticator

	connections *connections
	traces      *tracing.Tracing // nil: none are made
	logger      *slog.Logger
}

// namespace is one namespace, open.
type namespace struct {
	cfg   Namespace
	slots [3]*slot // registry, messaging, durability
	on    multicastregistry.Slots
	proxy.Namespace
}

// next opens what a configuration needs and r has not open, and leaves r as it is: a slot, or a coordinator, whose configuration
// is the same is used again, and so are policies and what checks credentials. Of the two, one is to be closed but for the other.
func (r *running) next(ctx context.Context, cfg Config) (_ *running, err error) {
	now := &running{cfg: cfg, connections: r.connections, traces: r.traces, logger: r.logger, authenticator: r.authenticator}
	defer func() {
		if err != nil {
			err = errors.Join(err, now.closeBut(r))
		}
	}()
	policies, err := cfg.policies()
	if err != nil {
		return nil, err
	}
	if !reflect.DeepEqual(cfg.Auth, r.cfg.Auth) {
		if now.authenticator = nil; cfg.Auth != nil {
			if now.authenticator, err = r.authenticator.With(ctx, *cfg.Auth, r.logger); err != nil {
				return nil, fmt.Errorf("auth: %w", err)
			}
			if err := now.authenticator.Ready(); err != nil && r.ready() {
				return nil, fmt.Errorf("auth.jwt: %w", err) // who is accepted now would be refused
			}
		}
	}
	for i, n := range cfg.Namespaces {
		n.Config = n.WithDefaults()
		if err := now.add(ctx, n, policies[i], r.find(n.Namespace)); err != nil {
			return nil, fmt.Errorf("open namespace %q: %w", n.Namespace, err)
		}
	}
	return now, nil
}

// ready tells whether something is served, and credentials can be checked.
func (r *running) ready() bool {
	return len(r.namespaces) > 0 && (r.authenticator == nil || r.authenticator.Ready() == nil)
}

// copied waits until the backends of namespaces that were opened answer, and the copies of registries are complete: who reads
// from the ones before notices nothing then.
func (r *running) copied(ctx context.Context, before *running) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(r.cfg.StartupTimeout, DefaultStartupTimeout))
	defer cancel()
	for _, n := range r.namespaces {
		if before.find(n.cfg.Namespace).Coordinator == n.Coordinator {
			continue
		}
		for {
			err := n.Coordinator.Ping(ctx)
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("open namespace %q: %w", n.cfg.Namespace, err)
			case <-time.After(copiedPause):
			}
		}
	}
	return nil
}

// copiedPause is between two looks whether a copy is complete.
const copiedPause = 20 * time.Millisecond

func (r *running) find(name string) *namespace {
	for _, n := range r.namespaces {
		if n.cfg.Namespace == name {
			return n
		}
	}
	return &namespace{}
}

// add opens a namespace that was another before, or none.
func (r *running) add(ctx context.Context, cfg Namespace, policy *auth.Policy, was *namespace) (err error) {
	n := &namespace{cfg: cfg, Namespace: proxy.Namespace{
		Registry: cfg.Registry.Type, Messaging: cfg.Messaging.Type, Durability: cfg.Durability.Type,
	}}
	r.namespaces = append(r.namespaces, n)
	for i, which := range []struct {
		name string
		same bool
		open func(s *slot) error
	}{
		{slotRegistry, reflect.DeepEqual(cfg.Registry, was.cfg.Registry), func(s *slot) (err error) {
			n.on.Registry, err = openRegistry(ctx, cfg, s)
			return err
		}},
		{slotMessaging, reflect.DeepEqual(cfg.Messaging, was.cfg.Messaging), func(s *slot) (err error) {
			n.on.Messaging, err = openMessaging(ctx, cfg, s)
			return err
		}},
		{slotDurability, reflect.DeepEqual(cfg.Durability, was.cfg.Durability), func(s *slot) (err error) {
			n.on.Durability, err = openDurability(ctx, cfg, s)
			return err
		}},
	} {
		if was.slots[i] != nil && which.same {
			n.slots[i] = was.slots[i]
			n.reuse(i, was)
			continue
		}
		n.slots[i] = r.connections.slot(ctx)
		if err := which.open(n.slots[i]); err != nil {
			return slotError(which.name, err)
		}
	}
	n.on.Tracer = r.traces.Slots(cfg.Namespace, n.Registry, n.Messaging, n.Durability)
	if n.slots == was.slots && cfg.Config == was.cfg.Config {
		n.Coordinator = was.Coordinator
	} else if n.Coordinator, err = multicastregistry.Open(ctx, cfg.Config, n.on); err != nil {
		return err
	}
	if cfg.Schema != nil {
		if n.Schema, err = schema.New(*cfg.Schema); err != nil {
			return fmt.Errorf("identity_schema: %w", err)
		}
	}
	if n.Limits = was.Limits; n.Limits == nil || !reflect.DeepEqual(cfg.Limits, was.cfg.Limits) {
		n.Limits = was.Limits.With(cfg.Limits)
	}
	if n.Policy = policy; was.Policy != nil && policy != nil && reflect.DeepEqual(cfg.Access, was.cfg.Access) &&
		cfg.Filter == was.cfg.Filter {
		n.Policy = was.Policy
	}
	return nil
}

// reuse takes what fills the slot with the number from another.
func (n *namespace) reuse(i int, was *namespace) {
	switch i {
	case 0:
		n.on.Registry = was.on.Registry
	case 1:
		n.on.Messaging = was.on.Messaging
	default:
		n.on.Durability = was.on.Durability
	}
}

// served are the namespaces for a server.
func (r *running) served() []proxy.Namespace {
	out := make([]proxy.Namespace, len(r.namespaces))
	for i, n := range r.namespaces {
		out[i] = n.Namespace
	}
	return out
}

// closeBut closes the coordinators, then what they stand on, but for what the other uses.
func (r *running) closeBut(other *running) error { return r.rest(other)() }

// rest returns what closes what the other does not use.
func (r *running) rest(other *running) func() error {
	kept, slots := make(map[*multicastregistry.Coordinator]bool), make(map[*slot]bool)
	for _, n := range other.namespaces {
		kept[n.Coordinator] = true
		for _, s := range n.slots {
			slots[s] = true
		}
	}
	authenticator := other.authenticator
	return func() error {
		var errs []error
		for _, n := range slices.Backward(r.namespaces) {
			if n.Coordinator != nil && !kept[n.Coordinator] {
				errs = append(errs, n.Coordinator.Close())
			}
		}
		for _, n := range slices.Backward(r.namespaces) {
			for _, s := range slices.Backward(n.slots[:]) {
				if s != nil && !slots[s] {
					s.close()
				}
			}
		}
		if r.authenticator != nil && r.authenticator != authenticator {
			r.authenticator.Close()
		}
		return errors.Join(errs...)
	}
}
