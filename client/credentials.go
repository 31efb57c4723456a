package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// WithTLS secures the connection. The configuration says which authorities are trusted (default: those of the system) and, for a
// server that asks for them, holds the client's certificate; an empty one will do for most servers.
func WithTLS(cfg *tls.Config) Option {
	return func(o *options) { o.tls = cfg.Clone() }
}

// WithToken sends a bearer token with every call: a static one of the server's configuration, or a JSON web token. Without TLS it
// is sent to this machine only, because it could be read on the way; see WithPlaintextToken.
func WithToken(token string) Option {
	return func(o *options) {
		o.token, o.renews = func(context.Context) (string, error) { return token, nil }, false
	}
}

// WithTokenSource is WithToken for tokens that do not last: the source is asked for one before each call and each stream, by any
// number of goroutines, and should remember it while it is good. A stream ends when its token expires; Join and Receive open it
// again, with a new one.
func WithTokenSource(source func(ctx context.Context) (string, error)) Option {
	return func(o *options) { o.token, o.renews = source, true }
}

// WithPlaintextToken allows a token to be sent without TLS to other machines, where something on the way secures it.
func WithPlaintextToken() Option {
	return func(o *options) { o.plaintext = true }
}

// credentials are the gRPC options for what was asked for.
func (o *options) credentials(target string) ([]grpc.DialOption, error) {
	secured := insecure.NewCredentials()
	if o.tls != nil {
		secured = credentials.NewTLS(o.tls)
	}
	out := []grpc.DialOption{grpc.WithTransportCredentials(secured)}
	if o.token == nil {
		return out, nil
	}
	if o.tls == nil && !o.plaintext && !local(target) {
		return nil, &InvalidError{Field: "token", Problem: fmt.Sprintf(
			"is not sent in plain text to %s: use TLS, or allow it if something on the way secures the connection", target)}
	}
	return append(out, grpc.WithPerRPCCredentials(bearer{o.token})), nil
}

// local tells whether an address is on this machine.
func local(target string) bool {
	if strings.HasPrefix(target, "unix:") || strings.HasPrefix(target, "unix-abstract:") {
		return true
	}
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// bearer sends tokens.
type bearer struct {
	source func(ctx context.Context) (string, error)
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := b.source(ctx)
	if err != nil {
		return nil, fmt.Errorf("get a token: %w", err)
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials. Dial has seen to it.
func (bearer) RequireTransportSecurity() bool { return false }
