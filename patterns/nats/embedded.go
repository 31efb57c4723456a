package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// DefaultMaxPayload is the largest message of an embedded server, headers included.
const DefaultMaxPayload = 8 << 20

const (
	startTimeout = 10 * time.Second
	startLook    = 20 * time.Millisecond
	scrapTries   = 50
)

// EmbeddedConfig is the configuration of a server in this process.
type EmbeddedConfig struct {
	// Listen is the address, as host:port, at which the server takes other clients; port 0 takes a free one. They are asked for
	// no credentials. Empty: none, only this process reaches it.
	Listen string
	// StoreDir is the folder for what JetStream keeps; one server at a time has it. What was acknowledged survives the
	// end of the process, also a killed one; after a loss of power the last two minutes may be missing, which is how long the
	// server may leave data to the operating system. Empty: a temporary folder, deleted by Shutdown.
	StoreDir string
	// MaxPayload is the largest message in bytes, headers included. Default: 8 MiB.
	MaxPayload int
	// Log hears the server's warnings and errors. Default (nil): nobody does.
	Log *slog.Logger
}

// Validate returns an InvalidError that names the field with an impossible value.
func (c EmbeddedConfig) Validate() error {
	if c.Listen != "" {
		if _, _, err := c.address(); err != nil {
			return err
		}
	}
	if c.MaxPayload < 0 || c.MaxPayload > 0 && c.MaxPayload <= headerReserve || c.MaxPayload > 64<<20 {
		return invalid("max_payload", "must be above %d bytes, which are for headers, and at most 64 MiB", headerReserve)
	}
	return nil
}

func (c EmbeddedConfig) address() (host string, port int, err error) {
	host, text, err := net.SplitHostPort(c.Listen)
	if err == nil {
		port, err = strconv.Atoi(text)
	}
	if err != nil || port < 0 || port >= 1<<16 {
		return "", 0, invalid("listen", "%q is not a host:port", c.Listen)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// Server is a NATS server with JetStream in this process.
type Server struct {
	server *server.Server
	scrap  string   // folder to delete, if any
	lock   *os.File // on the store folder
	once   sync.Once
}

// StartEmbedded starts a server and waits until it is ready. It installs no signal handlers. The caller shuts it down.
func StartEmbedded(ctx context.Context, cfg EmbeddedConfig) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("nats: start the embedded server: %w", err)
	}
	options := &server.Options{
		ServerName: "prism-embedded", DontListen: cfg.Listen == "",
		NoSigs: true, JetStream: true, StoreDir: cfg.StoreDir, MaxPayload: DefaultMaxPayload,
	}
	if cfg.Listen != "" {
		options.Host, options.Port, _ = cfg.address()
	}
	if cfg.MaxPayload > 0 {
		options.MaxPayload = int32(cfg.MaxPayload)
	}
	s := &Server{}
	if cfg.StoreDir == "" {
		dir, err := os.MkdirTemp("", "prism-nats-")
		if err != nil {
			return nil, fmt.Errorf("nats: start the embedded server: %w", err)
		}
		s.scrap, options.StoreDir = dir, dir
	}
	var err error
	if s.lock, err = lockStore(options.StoreDir); err == nil {
		err = s.start(ctx, cfg, options)
	}
	if err != nil {
		s.Shutdown()
		return nil, fmt.Errorf("nats: start the embedded server: %w", err)
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, cfg EmbeddedConfig, options *server.Options) error {
	if cfg.Listen != "" && options.Port > 0 { // the server itself would try for long
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(options.Host, strconv.Itoa(options.Port)))
		if err != nil {
			return fmt.Errorf("%w: %w", multicastregistry.ErrUnavailable, err)
		}
		_ = l.Close()
	}
	var err error
	if s.server, err = server.NewServer(options); err != nil {
		return err
	}
	log := &serverLog{log: cfg.Log, fatal: make(chan string, 1)}
	if log.log == nil {
		log.log = slog.New(slog.DiscardHandler)
	}
	s.server.SetLogger(log, false, false)
	s.server.Start()
	limited, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for !s.server.ReadyForConnections(startLook) || !s.server.JetStreamEnabled() {
		select {
		case fault := <-log.fatal:
			return errors.New(fault)
		case <-limited.Done():
			return fmt.Errorf("not ready: %w", limited.Err())
		default:
		}
	}
	return nil
}

// URL returns the address for other clients, or "" when the server does not listen.
func (s *Server) URL() string {
	if addr := s.server.Addr(); addr != nil {
		return "nats://" + addr.String()
	}
	return ""
}

// Connect opens a connection that stays inside the process. Of the configuration it needs no servers, credentials or TLS. The
// caller closes the connection, before it shuts the server down.
func (s *Server) Connect(ctx context.Context, cfg Config) (*Conn, error) {
	cfg.Servers = nil
	if err := cfg.validateRest(); err != nil {
		return nil, err
	}
	return open(ctx, cfg, nats.InProcessServer(s.server))
}

// Shutdown stops the server, waits until it has, and deletes its temporary folder. Doing it again does nothing.
func (s *Server) Shutdown() {
	s.once.Do(func() {
		if s.server != nil {
			s.server.Shutdown()
			s.server.WaitForShutdown()
		}
		if s.lock != nil {
			_ = s.lock.Close()
		}
		// What the server still writes behind its end would leave the folder there.
		for range scrapTries {
			if s.scrap == "" || os.RemoveAll(s.scrap) == nil {
				break
			}
			<-time.After(startLook)
		}
	})
}

// serverLog passes on what the server complains about, and keeps the fault that stops it.
type serverLog struct {
	log   *slog.Logger
	fatal chan string
}

func (l *serverLog) write(level slog.Level, format string, args []any) string {
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	l.log.Log(context.Background(), level, "nats: the embedded server reports", slog.String("text", text))
	return text
}

// Fatalf keeps a fault that stops the server.
func (l *serverLog) Fatalf(format string, args ...any) {
	select {
	case l.fatal <- l.write(slog.LevelError, format, args):
	default:
	}
}

// Errorf passes an error on.
func (l *serverLog) Errorf(format string, args ...any) { l.write(slog.LevelError, format, args) }

// Warnf passes a warning on.
func (l *serverLog) Warnf(format string, args ...any) { l.write(slog.LevelWarn, format, args) }

// Noticef drops a line.
func (*serverLog) Noticef(string, ...any) {}

// Debugf drops a line.
func (*serverLog) Debugf(string, ...any) {}

// Tracef drops a line.
func (*serverLog) Tracef(string, ...any) {}
