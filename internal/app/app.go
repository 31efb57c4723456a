// Package app puts the server together: it reads the configuration, opens what fills the slots, serves, and ends in order.
package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"
	"time"

	"github.com/prism-data-layer/prism/internal/proxy"
	"github.com/prism-data-layer/prism/internal/tracing"
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
func Run(ctx context.Context, cfg Config, logger *slog.Logger, ready func(Addresses), with ...Option) (err error) {
	var o options
	for _, option := range with {
		option(&o)
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	if err := cfg.validate(); err != nil {
		return err
	}
	if err := cfg.Listen.check(ctx); err != nil {
		return err
	}
	secured, err := secure(ctx, cfg, logger)
	if err != nil {
		return err
	}
	defer secured.close()
	traces, err := tracing.Open(ctx, cfg.Tracing, cfg.Version, logger)
	if err != nil {
		return fmt.Errorf("tracing: %w", err)
	}
	defer traces.Close() //nolint:contextcheck // it ends when ctx has ended
	follower := newReloader(o.reload, cfg.DrainTimeout, logger)
	if follower.running, err = start(ctx, cfg, logger, traces); ctx.Err() != nil && err != nil {
		return nil // told to end while it waited
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, follower.running.closeBut(&running{})) }()
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
	defer admin.close() //nolint:contextcheck // it ends when ctx has ended, before what it tells about

	server, err := proxy.New(proxy.Config{ //nolint:contextcheck // it outlives ctx by its drain; each call has its own context
		Namespaces: follower.running.served(), Authenticator: follower.running.authenticator, TLS: secured.tls,
		Tracer: traces.Tracer(), Audit: traces.Logger(secured.audit), Logger: traces.Logger(logger),
		Hosts: cfg.Listen.Hosts, Version: cfg.Version,
	})
	if err != nil {
		return err
	}
	follower.server = server
	admin.serve(server.Admin(), logger)
	served := make(chan error, 1)
	go func() { served <- server.Serve(grpcListener, httpListener) }() //nolint:contextcheck // see New
	at := Addresses{GRPC: grpcListener.Addr().String(), HTTP: httpListener.Addr().String(), Admin: admin.address()}
	logger.LogAttrs(ctx, slog.LevelInfo, "serving", slog.String("grpc", at.GRPC), slog.String("http", at.HTTP),
		slog.String("admin", cmp.Or(at.Admin, "none")), slog.Int("namespaces", len(cfg.Namespaces)))
	if ready != nil {
		ready(at)
	}
	stop := follower.start(ctx)
	defer stop() // before what it may have opened is closed
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	drain(ctx, server, time.Duration(follower.drainTimeout.Load()), logger)
	return <-served
}

// drain ends a server, and what a reload waits for.
func drain(ctx context.Context, server *proxy.Server, timeout time.Duration, logger *slog.Logger) {
	logger.LogAttrs(ctx, slog.LevelInfo, "draining", slog.Duration("timeout", timeout))
	until, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	if err := server.Drain(until); err != nil {
		logger.LogAttrs(ctx, slog.LevelWarn, "calls were cut off", slog.Duration("after", timeout))
	}
}

// check tells whether the addresses can be had. They are not held while backends are waited for: who comes meanwhile is refused,
// and finds another proxy.
func (l Listen) check(ctx context.Context) error {
	for _, at := range []struct{ which, address string }{{"grpc", l.GRPC}, {"http", l.HTTP}} {
		listener, err := listen(ctx, at.address, at.which)
		if err != nil {
			return err
		}
		_ = listener.Close() // nothing came
	}
	admin, err := listenAdmin(ctx, l.Admin)
	if err != nil {
		return err
	}
	admin.close() //nolint:contextcheck // it serves nothing
	return nil
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
