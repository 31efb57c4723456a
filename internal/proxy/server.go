// Package proxy is the network face of the multicast registry: the gRPC service, the HTTP/JSON API with server-sent
// events in front of it, and the one place that turns errors into codes.
//
// # Flow
//
//	gRPC client ──────────────────────────► interceptors ─► service ─► coordinator of the namespace
//	HTTP client ─► gateway ─► memory pipe ──┘
//
// The HTTP side calls the gRPC side through a connection in memory, so whatever an interceptor does (request ids, limits,
// draining, logging) is done once and holds for both.
//
// # Life
//
// New builds a Server, Serve accepts until Drain is called. Reconfigure replaces what is served meanwhile. Drain refuses new
// calls, tells streams that the server is about to leave, lets calls in flight finish and waits for every goroutine.
package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/test/bufconn"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/auth"
	"github.com/prism-data-layer/prism/internal/limits"
	"github.com/prism-data-layer/prism/internal/metrics"
	"github.com/prism-data-layer/prism/internal/schema"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// gRPC and grpc-gateway write what they think of a connection to stderr, past every logger. Their faults that matter come
// back as errors; GRPC_GO_LOG_SEVERITY_LEVEL brings the rest back for those who debug a transport.
//
//nolint:gochecknoinits // grpclog must be set before anything uses gRPC
func init() {
	if os.Getenv("GRPC_GO_LOG_SEVERITY_LEVEL") == "" {
		grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	}
}

// Namespace is one namespace that a Server serves.
type Namespace struct {
	// Coordinator runs the namespace. Its configuration holds the name. Whoever opened it closes it, after Drain.
	Coordinator *multicastregistry.Coordinator
	// Registry, Messaging and Durability are the types of the backends in the slots, as ListNamespaces shows them.
	// Durability is empty when the slot is.
	Registry, Messaging, Durability string
	// Policy says who may do what. Nil: without an Authenticator everybody may do everything, with one nobody anything.
	Policy *auth.Policy
	// Schema completes and checks metadata. Nil: nothing does.
	Schema *schema.Schema
	// Limits bound what callers take. Nil: nothing does.
	Limits *limits.Limits
}

// Config is what New takes. Zero fields take their defaults.
type Config struct {
	// Namespaces are the namespaces to serve: at least one, with distinct names.
	Namespaces []Namespace
	// Authenticator finds out who is calling. Nil: nobody is asked.
	Authenticator *auth.Authenticator
	// TLS secures connections. Nil: they are not.
	TLS *auth.Reloader
	// Hosts are names under which the HTTP API may be asked for at an address of this machine alone, besides localhost and
	// addresses. They matter where nobody is asked who is calling.
	Hosts []string
	// Version is what the binary calls itself, for metrics. Default: what Go noted.
	Version string
	// Tracer makes the spans of calls. Nil: nothing is traced.
	Tracer trace.Tracer
	// Audit gets an entry for each change and each call that was denied. Nil: nothing does.
	Audit *slog.Logger
	// Logger gets what the caller of an RPC must not see, and the server's life. Default: nothing is logged.
	Logger *slog.Logger
	// MaxAttached bounds the identities that one stream may have attached. Default: 100,000.
	MaxAttached int
	// AttachTimeout bounds how long a stream may be attached to nothing from its beginning. Default: 30 s.
	AttachTimeout time.Duration
	// SSEHeartbeat is the time between two comments that keep an idle event stream open. Default: 15 s.
	SSEHeartbeat time.Duration
	// HandshakeTimeout bounds what comes before a request: handshakes, and its headers; and the wait for the request behind the
	// headers of a gRPC call, when many calls wait for theirs. Default: 10 s.
	HandshakeTimeout time.Duration
	// BodyTimeout bounds the time in which the body of an HTTP request must have arrived. Default: 30 s.
	BodyTimeout time.Duration
	// WriteTimeout bounds one write to an HTTP client that does not read. Default: 30 s.
	WriteTimeout time.Duration
}

const (
	defaultMaxAttached      = 100_000
	defaultAttachTimeout    = 30 * time.Second
	defaultSSEHeartbeat     = 15 * time.Second
	defaultHandshakeTimeout = 10 * time.Second
	defaultBodyTimeout      = 30 * time.Second
	defaultWriteTimeout     = 30 * time.Second

	// minMessageBytes is the least bound of one gRPC message; a namespace that allows larger payloads raises it, by what comes
	// around a payload too.
	minMessageBytes = 16 << 20
	messageOverhead = 1 << 20
	// maxHeaderBytes bounds the headers of a call: a token of 16 KiB fits. maxRequestBytes bounds those of an HTTP request together
	// with its URL, which may hold a filter, or thousands of identities.
	maxHeaderBytes  = 64 << 10
	maxRequestBytes = 256 << 10
	// pipeBytes is the buffer of the connection in memory between gateway and service.
	pipeBytes = 1 << 18
)

// Server serves namespaces over gRPC and HTTP.
type Server struct {
	cfg        Config
	log        *slog.Logger
	sparing    *sparing // the same, for what may come again and again
	serving    atomic.Pointer[serving]
	open       calls // streams that are open
	maxMessage int   // bytes of one gRPC message
	metrics    *metrics.Metrics

	health *health.Server
	grpc   *grpc.Server
	http   *http.Server
	pipe   *bufconn.Listener
	conn   *grpc.ClientConn // through the pipe
	events *events

	tickets tickets
	parked  parked

	drain     *drainer
	drainOnce sync.Once
	drainErr  error
	requests  sync.WaitGroup // HTTP handlers
	streams   sync.WaitGroup // goroutines that outlive the handler of their stream by a moment
}

// New returns a server of namespaces. It listens nowhere yet; see Serve. A server that was made must be drained, whether
// it served or not.
func New(cfg Config) (*Server, error) {
	cfg.MaxAttached = cmp.Or(cfg.MaxAttached, defaultMaxAttached)
	cfg.AttachTimeout = cmp.Or(cfg.AttachTimeout, defaultAttachTimeout)
	cfg.SSEHeartbeat = cmp.Or(cfg.SSEHeartbeat, defaultSSEHeartbeat)
	cfg.HandshakeTimeout = cmp.Or(cfg.HandshakeTimeout, defaultHandshakeTimeout)
	cfg.BodyTimeout = cmp.Or(cfg.BodyTimeout, defaultBodyTimeout)
	cfg.WriteTimeout = cmp.Or(cfg.WriteTimeout, defaultWriteTimeout)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg: cfg, log: cfg.Logger, sparing: newSparing(cfg.Logger), maxMessage: minMessageBytes,
		health: health.NewServer(), pipe: bufconn.Listen(pipeBytes), drain: newDrainer(),
		events: &events{by: make(map[string]*eventStream)},
	}
	now, err := s.newServing(cfg.Namespaces, cfg.Authenticator, &serving{})
	if err != nil {
		return nil, err
	}
	s.serving.Store(now)
	for _, n := range cfg.Namespaces {
		s.maxMessage = max(s.maxMessage, messageBytes(n))
	}
	s.metrics = newMetrics(cfg, now.sources())
	s.newGRPC()
	if err := s.newHTTP(); err != nil {
		return nil, err
	}
	return s, nil
}

// streamWorkers is how many goroutines wait for calls, with stacks that have grown already: one that begins with its call
// spends a tenth of the call on that. Calls beyond have goroutines of their own.
const streamWorkers = 64

func (s *Server) newGRPC() {
	s.parked.timeout = s.cfg.HandshakeTimeout
	edge := edgeCredentials{insecure.NewCredentials()}
	if s.cfg.TLS != nil {
		edge.TransportCredentials = credentials.NewTLS(s.cfg.TLS.Config("h2"))
	}
	s.grpc = grpc.NewServer(
		grpc.Creds(edge),
		grpc.ForceServerCodecV2(newWireCodec()),
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.stream),
		grpc.MaxRecvMsgSize(s.maxMessage),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxConcurrentStreams(math.MaxUint32),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.InTapHandle(s.parked.tap),
		grpc.ConnectionTimeout(s.cfg.HandshakeTimeout),
		grpc.WaitForHandlers(true),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	)
	services := registrar{Server: s.grpc, parked: &s.parked}
	patternpb.RegisterMulticastRegistryPatternServer(services, &service{Server: s})
	grpc_health_v1.RegisterHealthServer(services, s.health)
	s.health.SetServingStatus(patternpb.MulticastRegistryPattern_ServiceDesc.ServiceName, grpc_health_v1.HealthCheckResponse_SERVING)
	reflection.Register(services)
}

func (s *Server) newHTTP() error {
	var err error
	s.conn, err = grpc.NewClient("passthrough:///memory",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.pipe.DialContext(ctx) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)),
		grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
	)
	if err != nil {
		return fmt.Errorf("connect the gateway: %w", err)
	}
	handler, err := s.newGateway(patternpb.NewMulticastRegistryPatternClient(s.conn))
	if err != nil {
		return errors.Join(err, s.conn.Close())
	}
	s.http = &http.Server{
		Handler: handler, ReadHeaderTimeout: s.cfg.HandshakeTimeout, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: maxRequestBytes,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	if s.cfg.TLS != nil {
		s.http.TLSConfig = s.cfg.TLS.Config("h2", "http/1.1")
	}
	return nil
}

// Serve accepts gRPC calls on one listener and HTTP requests on the other, either of which may be nil, until Drain has
// been called or a listener fails. It closes the listeners. It must be called once at most.
func (s *Server) Serve(grpcListener, httpListener net.Listener) error {
	errs := make(chan error, 3)
	serving := 1
	go func() { errs <- s.grpc.Serve(s.pipe) }()
	if grpcListener != nil {
		serving++
		go func() { errs <- s.grpc.Serve(grpcListener) }()
	}
	if httpListener != nil {
		serving++
		if s.cfg.TLS != nil {
			httpListener = tls.NewListener(httpListener, s.http.TLSConfig)
		}
		go func() { errs <- s.http.Serve(httpListener) }()
	}
	var failed error
	for range serving {
		err := <-errs
		if err == nil || errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) || failed != nil {
			continue
		}
		failed = fmt.Errorf("accept connections: %w", err)
		gone, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Drain(gone) // nothing to wait for: the server cannot serve
	}
	return failed
}
