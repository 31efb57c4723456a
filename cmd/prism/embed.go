package main

import (
	"context"

	"github.com/prism-data-layer/prism/internal/app"
)

// embed serves a configuration in this process, on free ports, until stop is called. It waits for no backend.
func embed(ctx context.Context, cfg app.Config) (at app.Addresses, stop func() error, err error) {
	cfg.Listen.GRPC, cfg.Listen.HTTP, cfg.StartupTimeout = "127.0.0.1:0", "127.0.0.1:0", 0
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ready, ended := make(chan app.Addresses, 1), make(chan error, 1)
	go func() { ended <- app.Run(serving, cfg, nil, func(at app.Addresses) { ready <- at }) }()
	select {
	case at = <-ready:
		return at, func() error { cancel(); return <-ended }, nil
	case err = <-ended:
		cancel()
		return at, nil, err
	}
}
