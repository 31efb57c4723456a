// Package app puts the server together: it reads the configuration, opens what fills the slots, serves, and ends in order.
package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"syscall"

	"github.com/prism-data-layer/prism/internal/limits"
	"github.com/prism-data-layer/prism/internal/proxy"
	"github.com/prism-data-layer/prism/internal/schema"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// Addresses are where a running server can be reached, as host:port with the ports that were really taken.
type Addresses struct {
	// GRPC serves the gRPC API.
	GRPC string
	// HTTP serves the JSON API.
	HTTP string
	// Admin serves metrics, health and profiles. Empty when nothing does.
	Admin string
}

// Run serves a configuration until ctx ends, then drains within the configuration's drain timeout and returns nil. It calls
// ready, if there is one, once everything is open and connections are accepted. Any number of Runs may share a process.
// A nil logger logs nothing.
func Run(ctx context.Context, cfg Config, logger *slog.Logger, ready func(Addresses)) (err error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	if err := cfg.validate(); err != nil {
		return err
	}
	grpcListener, err := listen(ctx, cfg.Listen.GRPC, "grpc")
	if err != nil {
		return err
	}
	defer grpcListener.Close() //nolint:errcheck // it matters only before Serve owns it
	httpListener, err := listen(ctx, cfg.Listen.HTTP, "http")
	if err != nil {
		return err
	}
	defer httpListener.Close() //nolint:errcheck // see above
	admin, err := listenAdmin(ctx, cfg.Listen.Admin)
	if err != nil {
		return err
	}
	defer admin.close() //nolint:contextcheck // it ends when ctx has ended

	secured, err := secure(ctx, cfg, logger)
	if err != nil {
		return err
	}
	defer secured.close()
	running, err := start(ctx, cfg, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, running.close()) }()
	serving := proxy.Config{Namespaces: running.namespaces, Version: cfg.Version, Logger: logger}
	secured.apply(&serving)
	server, err := proxy.New(serving) //nolint:contextcheck // a server outlives ctx by its drain; each call has its own context
	if err != nil {
		return err
	}
	admin.serve(server.Admin(), logger)
	defer admin.close() //nolint:contextcheck // see above; and before what it tells about
	served := make(chan error, 1)
	go func() { served <- server.Serve(grpcListener, httpListener) }() //nolint:contextcheck // see New
	at := Addresses{GRPC: grpcListener.Addr().String(), HTTP: httpListener.Addr().String(), Admin: admin.address()}
	logger.LogAttrs(ctx, slog.LevelInfo, "serving", slog.String("grpc", at.GRPC), slog.String("http", at.HTTP),
		slog.String("admin", cmp.Or(at.Admin, "none")), slog.Int("namespaces", len(cfg.Namespaces)))
	if ready != nil {
		ready(at)
	}
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	logger.LogAttrs(ctx, slog.LevelInfo, "draining", slog.Duration("timeout", cfg.DrainTimeout))
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.DrainTimeout)
	defer cancel()
	if err := server.Drain(drain); err != nil {
		logger.LogAttrs(ctx, slog.LevelWarn, "calls were cut off", slog.Duration("after", cfg.DrainTimeout))
	}
	return <-served
}

func listen(ctx context.Context, address, which string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen on %s: %w; is another server running there? Choose another address with --%s-addr, "+
			"or listen.%s in the configuration", address, err, which, which)
	}
	return nil, fmt.Errorf("listen on %s: %w; choose another address with --%s-addr, or listen.%s in the configuration",
		address, err, which, which)
}

// runningNamespaces are the namespaces of a configuration, open.
type runningNamespaces struct {
	namespaces  []proxy.Namespace
	connections *connections
}

// start opens every namespace, or none.
func start(ctx context.Context, cfg Config, logger *slog.Logger) (*runningNamespaces, error) {
	r := &runningNamespaces{connections: newConnections(ctx, logger)}
	for _, n := range cfg.Namespaces {
		if err := r.add(ctx, n); err != nil {
			return nil, errors.Join(fmt.Errorf("open namespace %q: %w", n.Namespace, err), r.close())
		}
		logger.LogAttrs(ctx, slog.LevelInfo, "namespace open", slog.String("namespace", n.Namespace),
			slog.String("registry", n.Registry.Type), slog.String("messaging", n.Messaging.Type),
			slog.String("durability", n.Durability.Type))
	}
	return r, nil
}

func (r *runningNamespaces) add(ctx context.Context, n Namespace) error {
	slots, err := open(ctx, n, r.connections)
	if err != nil {
		return err
	}
	c, err := multicastregistry.Open(ctx, n.Config, slots)
	if err != nil {
		return err
	}
	var described *schema.Schema
	if n.Schema != nil {
		if described, err = schema.New(*n.Schema); err != nil {
			return errors.Join(fmt.Errorf("identity_schema: %w", err), c.Close())
		}
	}
	r.namespaces = append(r.namespaces, proxy.Namespace{
		Coordinator: c, Schema: described, Limits: limits.New(n.Limits),
		Registry: n.Registry.Type, Messaging: n.Messaging.Type, Durability: n.Durability.Type,
	})
	return nil
}

// close closes the coordinators, then what they stand on.
func (r *runningNamespaces) close() error {
	var errs []error
	for _, n := range slices.Backward(r.namespaces) {
		errs = append(errs, n.Coordinator.Close())
	}
	r.connections.close()
	return errors.Join(errs...)
}
