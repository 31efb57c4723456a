package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
)

const (
	// DefaultServer is where a server listens that was told nothing else.
	DefaultServer = "127.0.0.1:8980"
	// DefaultPort is the port of an address that names none.
	DefaultPort = "8980"

	// maxReceive bounds one message from the server: a page of 10,000 identities, or the report on as many targets.
	maxReceive = 64 << 20
	// reconnectWithin is the longest wait between two attempts to reach a server that is away.
	reconnectWithin = time.Second
)

// Client speaks to one server, for one namespace. It holds one connection, which is made with the first call and restored
// by itself. All methods may be called concurrently.
type Client struct {
	conn      *grpc.ClientConn
	rpc       patternpb.MulticastRegistryPatternClient
	server    string
	namespace string
	renews    bool         // tokens: one that is not accepted may be followed by one that is
	tracer    trace.Tracer // nil without WithTracing
}

// Option changes what Dial does.
type Option func(*options)

type options struct {
	namespace string
	tls       *tls.Config
	token     func(ctx context.Context) (string, error)
	renews    bool // there are new tokens
	plaintext bool // tokens may go without TLS
	tracer    trace.Tracer
	grpc      []grpc.DialOption
}

// WithNamespace says which namespace the client works in. Default: "default".
func WithNamespace(name string) Option {
	return func(o *options) { o.namespace = name }
}

// WithGRPC adds options of the gRPC connection, such as interceptors. They override this package's own: credentials, keepalive
// pings, messages of up to 64 MiB.
func WithGRPC(opts ...grpc.DialOption) Option {
	return func(o *options) { o.grpc = append(o.grpc, opts...) }
}

// Dial returns a client of the server at an address such as "host:port" or "host"; an empty one means DefaultServer. It
// does not block and does not need the server yet: a server that cannot be reached is the first call's ErrUnavailable.
func Dial(server string, opts ...Option) (*Client, error) {
	var o options
	for _, set := range opts {
		set(&o)
	}
	target, err := address(server)
	if err != nil {
		return nil, err
	}
	dialOptions, err := o.credentials(target)
	if err != nil {
		return nil, err
	}
	dialOptions = append(dialOptions,
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReceive)),
		// A peer that vanished without a word is noticed within half a minute, while calls or streams are open.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectWithin},
			MinConnectTimeout: 5 * time.Second,
		}),
	)
	dialOptions = append(dialOptions, o.traced()...)
	conn, err := grpc.NewClient(target, append(dialOptions, o.grpc...)...)
	if err != nil {
		return nil, &InvalidError{Field: "server", Problem: err.Error()}
	}
	c := &Client{
		conn: conn, rpc: patternpb.NewMulticastRegistryPatternClient(conn), server: target, renews: o.renews, tracer: o.tracer,
	}
	return c.In(o.namespace), nil
}

// address completes a server's address. One with a scheme, such as "dns:///prism.internal:8980", is gRPC's to read.
func address(server string) (string, error) {
	server = strings.TrimSpace(server)
	if server == "" {
		return DefaultServer, nil
	}
	if strings.Contains(server, "://") || strings.HasPrefix(server, "unix:") {
		if strings.HasPrefix(server, "http://") || strings.HasPrefix(server, "https://") {
			return "", &InvalidError{Field: "server", Problem: fmt.Sprintf(
				"%q is a URL; give the gRPC address as host:port, such as %s", server, DefaultServer)}
		}
		return server, nil
	}
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		bare := strings.TrimSuffix(strings.TrimPrefix(server, "["), "]")
		if strings.Contains(bare, ":") && net.ParseIP(bare) == nil {
			return "", &InvalidError{Field: "server", Problem: fmt.Sprintf(
				"%q is not an address; give host:port, such as %s", server, DefaultServer)}
		}
		host, port = bare, DefaultPort
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// In returns a client of another namespace over the same connection. An empty name means "default". Close the client that
// came from Dial; the ones made by In need no Close.
func (c *Client) In(namespace string) *Client {
	other := *c
	if other.namespace = strings.ToValidUTF8(namespace, "\uFFFD"); namespace == "" {
		other.namespace = DefaultNamespace
	}
	return &other
}

// Namespace returns the namespace that the client works in.
func (c *Client) Namespace() string { return c.namespace }

// Server returns the address of the server, complete with its port.
func (c *Client) Server() string { return c.server }

// Close ends the connection, for every client that shares it. Calls and streams that are open end with ErrClosed.
func (c *Client) Close() error {
	_ = c.conn.Close() // its only error is that it was closed before
	return nil
}
