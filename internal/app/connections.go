package app

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"

	"github.com/prism-data-layer/prism/patterns/nats"
	"github.com/prism-data-layer/prism/patterns/redis"
)

// connections are what the slots of all namespaces stand on, each opened once however many slots name it, and closed when the
// last one of them has ended.
type connections struct {
	logger *slog.Logger

	mu   sync.Mutex          // also while one is opened: who comes meanwhile wants the same
	open map[any]*connection // by redisKey, natsKey, redisMessaging and embedded
}

// connection is something that slots share.
type connection struct {
	value any
	users int
	close func()
}

// The keys say what makes a connection another one.
type (
	redisKey string // its configuration
	natsKey  string
	// embedded is a NATS server in this process.
	embedded struct{ listen, storeDir string }
	// redisMessaging is a messaging slot on Redis: the namespaces of one share its subscriptions.
	redisMessaging struct {
		conn *redis.Conn
		cfg  redis.MessagingConfig
	}
)

func newConnections(logger *slog.Logger) *connections {
	return &connections{logger: logger, open: make(map[any]*connection)}
}

// slot is what one slot of a namespace has opened: connections, of which it may have some to itself, and loops. They end in the
// reverse order.
type slot struct {
	connections *connections
	logger      *slog.Logger

	life    context.Context //nolint:containedctx // of the loops
	stop    context.CancelFunc
	running sync.WaitGroup
	closers []func()
	passing bool // what it keeps ends with a server in this process
}

// slot returns one that has opened nothing yet. The context is left when the loops begin, so that they end with close only.
func (c *connections) slot(ctx context.Context) *slot {
	s := &slot{connections: c, logger: c.logger}
	s.life, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	return s
}

// run runs a loop of the slot until close.
func (s *slot) run(loop func(ctx context.Context) error) {
	s.running.Go(func() { _ = loop(s.life) }) // it ends with its context
}

func (s *slot) closeLater(closer func()) { s.closers = append(s.closers, closer) }

func (s *slot) close() {
	s.stop()
	s.running.Wait()
	for _, closer := range slices.Backward(s.closers) {
		closer()
	}
}

// share returns what is open under the key, or opens it, for the slot until its close.
func share[T any](s *slot, key any, open func() (value T, closer func(), err error)) (T, error) {
	mu, all := &s.connections.mu, s.connections.open
	mu.Lock()
	defer mu.Unlock()
	c := all[key]
	if c == nil {
		value, closer, err := open()
		if err != nil {
			return value, err
		}
		c = &connection{value: value, close: closer}
		all[key] = c
	}
	c.users++
	s.closeLater(func() {
		mu.Lock()
		defer mu.Unlock()
		if c.users--; c.users == 0 {
			delete(all, key)
			c.close()
		}
	})
	return c.value.(T), nil
}

func (s *slot) toRedis(ctx context.Context, cfg redis.Config) (*redis.Conn, error) {
	plain := cfg
	plain.TLS = nil
	return share(s, redisKey(identify(plain, cfg.TLS)), func() (*redis.Conn, func(), error) {
		conn, err := redis.Open(ctx, cfg)
		if err != nil {
			return nil, nil, err
		}
		return conn, conn.Close, nil
	})
}

func (s *slot) redisMessaging(ctx context.Context, conn *redis.Conn, cfg redis.MessagingConfig) (*redis.Messaging, error) {
	return share(s, redisMessaging{conn, cfg}, func() (*redis.Messaging, func(), error) {
		m, err := redis.OpenMessaging(ctx, conn, cfg)
		if err != nil {
			return nil, nil, err
		}
		return m, m.Close, nil
	})
}

func (s *slot) toNATS(ctx context.Context, cfg NATS) (*nats.Conn, error) {
	plain := cfg
	plain.TLS = nil
	cfg.Log = s.logger
	dial := func() (*nats.Conn, error) { return nats.Open(ctx, cfg.Config) }
	if cfg.Embedded {
		s.passing = cfg.StoreDir == ""
		server, err := s.embedded(ctx, cfg)
		if err != nil {
			return nil, err
		}
		dial = func() (*nats.Conn, error) { return server.Connect(ctx, cfg.Config) }
	}
	return share(s, natsKey(identify(plain, cfg.TLS)), func() (*nats.Conn, func(), error) {
		conn, err := dial()
		if err != nil {
			return nil, nil, err
		}
		return conn, conn.Close, nil
	})
}

func (s *slot) embedded(ctx context.Context, cfg NATS) (*nats.Server, error) {
	dir := cfg.StoreDir
	if whole, err := filepath.Abs(dir); dir != "" && err == nil {
		dir = whole
	}
	return share(s, embedded{listen: cfg.Listen, storeDir: dir}, func() (*nats.Server, func(), error) {
		server, err := nats.StartEmbedded(ctx, nats.EmbeddedConfig{Listen: cfg.Listen, StoreDir: cfg.StoreDir, Log: s.logger})
		if err != nil {
			return nil, nil, err
		}
		if cfg.Listen != "" && !loopback(cfg.Listen) {
			s.logger.LogAttrs(ctx, slog.LevelWarn, "the NATS server in this process takes everybody who can reach it, without a password",
				slog.String("listen", cfg.Listen))
		}
		return server, server.Shutdown, nil
	})
}

// identify returns the same text for the same configuration. The part about TLS comes without its pointer, whose address
// says nothing.
func identify[C, T any](cfg C, tls *T) string {
	text := fmt.Sprintf("%#v", cfg)
	if tls != nil {
		text += fmt.Sprintf("%#v", *tls)
	}
	return text
}
