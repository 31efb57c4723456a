package app

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"

	"github.com/prism-data-layer/prism/patterns/nats"
	"github.com/prism-data-layer/prism/patterns/redis"
)

// connections are what the slots of all namespaces stand on, each opened once however many slots name it, and the loops
// that slots need. They close in the reverse order of opening.
type connections struct {
	redis     map[string]*redis.Conn // by configuration
	messaging map[redisMessaging]*redis.Messaging
	nats      map[string]*nats.Conn
	embedded  map[embedded]*nats.Server

	logger  *slog.Logger
	life    context.Context // of the loops
	stop    context.CancelFunc
	running sync.WaitGroup
	closers []func()
}

// embedded is what makes a NATS server in this process another one.
type embedded struct{ listen, storeDir string }

// redisMessaging is what makes a messaging slot on Redis another one: the namespaces of one share its subscriptions.
type redisMessaging struct {
	conn *redis.Conn
	cfg  redis.MessagingConfig
}

// newConnections returns no connections yet. The context is left when the loops begin, so that they end with close only.
func newConnections(ctx context.Context, logger *slog.Logger) *connections {
	c := &connections{
		logger: logger, redis: make(map[string]*redis.Conn), nats: make(map[string]*nats.Conn),
		messaging: make(map[redisMessaging]*redis.Messaging), embedded: make(map[embedded]*nats.Server),
	}
	c.life, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	return c
}

// run runs a loop of a slot until close.
func (c *connections) run(loop func(ctx context.Context) error) {
	c.running.Go(func() { _ = loop(c.life) }) // it ends with its context
}

func (c *connections) closeLater(closer func()) { c.closers = append(c.closers, closer) }

func (c *connections) toRedis(ctx context.Context, cfg redis.Config) (*redis.Conn, error) {
	plain := cfg
	plain.TLS = nil
	key := identify(plain, cfg.TLS)
	if conn := c.redis[key]; conn != nil {
		return conn, nil
	}
	conn, err := redis.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	c.redis[key] = conn
	c.closeLater(conn.Close)
	return conn, nil
}

func (c *connections) redisMessaging(ctx context.Context, conn *redis.Conn, cfg redis.MessagingConfig) (*redis.Messaging, error) {
	key := redisMessaging{conn, cfg}
	if m := c.messaging[key]; m != nil {
		return m, nil
	}
	m, err := redis.OpenMessaging(ctx, conn, cfg)
	if err != nil {
		return nil, err
	}
	c.messaging[key] = m
	c.closeLater(m.Close)
	return m, nil
}

func (c *connections) toNATS(ctx context.Context, cfg NATS) (*nats.Conn, error) {
	plain := cfg
	plain.TLS = nil
	key := identify(plain, cfg.TLS)
	if conn := c.nats[key]; conn != nil {
		return conn, nil
	}
	cfg.Log = c.logger
	conn, err := c.dialNATS(ctx, cfg)
	if err != nil {
		return nil, err
	}
	c.nats[key] = conn
	c.closeLater(conn.Close)
	return conn, nil
}

func (c *connections) dialNATS(ctx context.Context, cfg NATS) (*nats.Conn, error) {
	if !cfg.Embedded {
		return nats.Open(ctx, cfg.Config)
	}
	which := embedded{listen: cfg.Listen, storeDir: cfg.StoreDir}
	server := c.embedded[which]
	if server == nil {
		var err error
		server, err = nats.StartEmbedded(ctx, nats.EmbeddedConfig{Listen: cfg.Listen, StoreDir: cfg.StoreDir, Log: c.logger})
		if err != nil {
			return nil, err
		}
		if host, _, _ := net.SplitHostPort(cfg.Listen); cfg.Listen != "" && !net.ParseIP(host).IsLoopback() && host != "localhost" {
			c.logger.LogAttrs(ctx, slog.LevelWarn, "the NATS server in this process takes everybody who can reach it, without a password",
				slog.String("listen", cfg.Listen))
		}
		c.embedded[which] = server
		c.closeLater(server.Shutdown)
	}
	return server.Connect(ctx, cfg.Config)
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

func (c *connections) close() {
	c.stop()
	c.running.Wait()
	for _, closer := range slices.Backward(c.closers) {
		closer()
	}
}
