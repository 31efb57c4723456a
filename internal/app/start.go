package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prism-data-layer/prism/internal/tracing"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	// startPause is the first wait for a backend that cannot be reached; it doubles each time, up to maxStartPause.
	startPause    = 250 * time.Millisecond
	maxStartPause = 4 * time.Second
)

// start opens what a configuration needs. Backends that cannot be reached are waited for, as long as the start may take.
func start(ctx context.Context, cfg Config, logger *slog.Logger, traces *tracing.Tracing) (*running, error) {
	none := &running{connections: newConnections(logger), logger: logger, traces: traces}
	began, pause := time.Now(), startPause
	for {
		now, err := none.next(ctx, cfg)
		if err == nil {
			for _, n := range now.namespaces {
				logger.LogAttrs(ctx, slog.LevelInfo, "namespace open", slog.String("namespace", n.cfg.Namespace),
					slog.String("registry", n.Registry), slog.String("messaging", n.Messaging), slog.String("durability", n.Durability))
			}
			return now, nil
		}
		left := cfg.StartupTimeout - time.Since(began)
		switch {
		case !errors.Is(err, multicastregistry.ErrUnavailable) || cfg.StartupTimeout == 0 || ctx.Err() != nil:
			return nil, err
		case left <= 0:
			return nil, fmt.Errorf("%w; waited %s for it, see startup_timeout", err, time.Since(began).Round(time.Millisecond))
		}
		logger.LogAttrs(ctx, slog.LevelWarn, "waiting for a backend", slog.Duration("at_most", left.Round(time.Millisecond)),
			slog.Any("error", err))
		select {
		case <-time.After(min(pause, left)):
		case <-ctx.Done():
			return nil, err
		}
		pause = min(2*pause, maxStartPause)
	}
}
