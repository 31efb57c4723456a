package nats

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// Defaults of Config.
const (
	DefaultName        = "prism"
	DefaultTimeout     = 5 * time.Second
	DefaultInboxPrefix = "_INBOX"
)

const (
	// shortestTry and longestTry bound the part of Timeout that each server of a list gets for the first connection.
	shortestTry = 250 * time.Millisecond
	longestTry  = 2 * time.Second
)

// Config says where NATS is and who we are. At most one of User, Token, Credentials and NKey is set.
type Config struct {
	// Servers are the servers to connect to, as host:port or URL ("nats://", "tls://", "ws://", "wss://"): any of a cluster,
	// whose others are found by themselves. Required.
	Servers []string
	// Name is what the server's monitoring shows. Default: "prism".
	Name string
	// User and Password are those of a NATS user.
	User, Password string
	// PasswordFile is, in place of Password, a file that holds it. It is read anew for each connection.
	PasswordFile string
	// Token is a token that the server asks for instead of a user.
	Token string
	// Credentials is the path of a credentials file, with a user's JWT and seed.
	Credentials string
	// NKey is the path of a file with an nkey's seed.
	NKey string
	// TLS encrypts the connection when it is not nil.
	TLS *TLS
	// Timeout bounds each operation whose context has no earlier deadline; then it is ErrUnavailable. Default: 5 seconds.
	Timeout time.Duration
	// InboxPrefix is the subject below which replies and acks come in, and the only one besides "_INBOX" to which acks go: the
	// same in every process. Default: "_INBOX".
	InboxPrefix string
	// Log hears of outages and of what a server refuses. Default (nil): nobody does.
	Log *slog.Logger
}

// TLS is how connections are encrypted. All fields are optional.
type TLS struct {
	// CA is the path of a file of certificates, in PEM form, to trust instead of the system's.
	CA string
	// Cert and Key are the paths of a certificate of our own and its key.
	Cert, Key string
	// ServerName is whom the server's certificate must name, if not the host of its address.
	ServerName string
	// Insecure accepts any certificate.
	Insecure bool
}

func invalid(field, format string, args ...any) error {
	return &multicastregistry.InvalidError{Field: field, Problem: fmt.Sprintf(format, args...)}
}

// Validate returns an InvalidError that names the field with an impossible value.
func (c Config) Validate() error {
	if len(c.Servers) == 0 {
		return invalid("servers", "at least one is required")
	}
	for i, server := range c.Servers {
		if !validServer(server) {
			return invalid("servers/"+strconv.Itoa(i), "%q is not a host:port or a URL such as nats://localhost:4222", redact(server))
		}
	}
	return c.validateRest()
}

// validateRest checks everything but the servers.
func (c Config) validateRest() error {
	ways := 0
	for _, set := range []bool{c.User != "", c.Token != "", c.Credentials != "", c.NKey != ""} {
		if set {
			ways++
		}
	}
	switch {
	case c.Password != "" && c.PasswordFile != "":
		return invalid("password_file", "stands in place of password; give one of them")
	case c.User == "" && (c.Password != "" || c.PasswordFile != ""):
		return invalid("user", "is required with a password")
	case ways > 1:
		return invalid("user", "user, token, credentials and nkey are four ways to say who we are; give one of them")
	case c.TLS != nil && (c.TLS.Cert == "") != (c.TLS.Key == ""):
		return invalid("tls/key", "cert and key go together")
	case c.Timeout < 0 || c.Timeout > 0 && c.Timeout < time.Millisecond:
		return invalid("timeout", "must be at least 1ms")
	case c.InboxPrefix != "" && !validReply(c.InboxPrefix):
		return invalid("inbox_prefix", "%q is not a subject without wildcards outside of \"prism\" and \"$\"", c.InboxPrefix)
	}
	return nil
}

func validServer(server string) bool {
	if strings.ContainsAny(server, ", \t\r\n") {
		return false
	}
	if !strings.Contains(server, "://") {
		server = "nats://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Hostname() == "" {
		return false
	}
	switch u.Scheme {
	case "nats", "tls", "ws", "wss":
		return true
	}
	return false
}

// redact returns a server's address without a password that it may hold.
func redact(server string) string {
	if at := strings.LastIndexByte(server, '@'); at >= 0 {
		scheme, _, _ := strings.Cut(server[:at], "://")
		if scheme == server[:at] {
			return "…" + server[at:]
		}
		return scheme + "://…" + server[at:]
	}
	return server
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = DefaultName
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.InboxPrefix == "" {
		c.InboxPrefix = DefaultInboxPrefix
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// where returns the servers for a message.
func (c Config) where() string {
	if len(c.Servers) == 0 {
		return "the embedded server"
	}
	shown := make([]string, len(c.Servers))
	for i, server := range c.Servers {
		shown[i] = redact(server)
	}
	return strings.Join(shown, ", ")
}

// perServer returns how long one server may take to answer, so that one that is silent leaves time for the others.
func (c Config) perServer() time.Duration {
	share := c.Timeout / time.Duration(max(len(c.Servers), 1))
	if len(c.Servers) > 1 {
		share = min(share, longestTry)
	}
	return min(max(share, shortestTry), c.Timeout)
}

// options returns the options that say who we are.
func (c Config) options() ([]nats.Option, error) {
	options := []nats.Option{nats.Name(c.Name), nats.CustomInboxPrefix(c.InboxPrefix)}
	if c.TLS != nil {
		secure, err := c.TLS.config()
		if err != nil {
			return nil, err
		}
		options = append(options, nats.Secure(secure))
	}
	switch {
	case c.PasswordFile != "":
		if _, err := readPassword(c.PasswordFile); err != nil {
			return nil, err
		}
		return append(options, nats.UserInfoHandler(func() (string, string) {
			password, err := readPassword(c.PasswordFile)
			if err != nil {
				c.Log.Warn("nats: no password", slog.Any("error", err))
			}
			return c.User, password
		})), nil
	case c.User != "":
		return append(options, nats.UserInfo(c.User, c.Password)), nil
	case c.Token != "":
		return append(options, nats.Token(c.Token)), nil
	case c.Credentials != "":
		if _, err := os.ReadFile(c.Credentials); err != nil {
			return nil, invalid("credentials", "cannot be read: %v", err)
		}
		return append(options, nats.UserCredentials(c.Credentials)), nil
	case c.NKey != "":
		key, err := nats.NkeyOptionFromSeed(c.NKey)
		if err != nil {
			return nil, invalid("nkey", "cannot be used: %v", err)
		}
		return append(options, key), nil
	}
	return options, nil
}

func readPassword(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", invalid("password_file", "cannot be read: %v", err)
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}

func (t *TLS) config() (*tls.Config, error) {
	out := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: t.ServerName,
		InsecureSkipVerify: t.Insecure, //nolint:gosec // the operator asks for it by name
	}
	if t.CA != "" {
		text, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, invalid("tls/ca", "cannot be read: %v", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(text) {
			return nil, invalid("tls/ca", "%s holds no certificate in PEM form", t.CA)
		}
	}
	if t.Cert != "" {
		own, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, invalid("tls/cert", "cannot be used: %v", err)
		}
		out.Certificates = []tls.Certificate{own}
	}
	return out, nil
}

// dialer opens the connections to servers. The first one ends with the context of Open, whatever it waits for.
type dialer struct {
	timeout time.Duration
	opening atomic.Pointer[context.Context] // nil once the first connection stands
	release atomic.Pointer[func() bool]
}

func newDialer(opening context.Context, cfg Config) *dialer {
	d := &dialer{timeout: cfg.perServer()}
	d.opening.Store(&opening)
	return d
}

// Dial implements nats.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	ctx := context.Background()
	opening := d.opening.Load()
	if opening != nil {
		ctx = *opening
	}
	conn, err := (&net.Dialer{Timeout: d.timeout}).DialContext(ctx, network, address)
	if err == nil && opening != nil {
		release := context.AfterFunc(ctx, func() { _ = conn.Close() })
		d.release.Store(&release)
	}
	return conn, err
}

// letGo ends the influence of Open's context.
func (d *dialer) letGo() {
	d.opening.Store(nil)
	if release := d.release.Load(); release != nil {
		(*release)()
	}
}
