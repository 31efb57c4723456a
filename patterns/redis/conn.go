package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	// DefaultTimeout is how long an operation waits for Redis.
	DefaultTimeout = 5 * time.Second

	defaultPort = "6379"
	clientName  = "prism"
	minMajor    = 7
	// topologyEvery is how often a Sentinel group or a Cluster is asked who is who, besides when something fails.
	topologyEvery = 2 * time.Second
	// bufferBytes is what a connection reads and writes at once, at most.
	bufferBytes = 128 << 10
	// blockingConns bounds the connections for commands that wait: one for each change feed, and of a sharded registry one for
	// each shard. They are opened when they are needed.
	blockingConns = 1024
)

// Config says where a Redis is and how to connect to it.
type Config struct {
	// Host is the server, "localhost:6379" or without the port, which is 6379 then.
	Host string
	// Addresses are, in place of Host, some nodes of a Cluster, or the Sentinels.
	Addresses []string
	// Username and Password are those of a Redis user. Default: the user "default", without a password.
	Username, Password string
	// PasswordFile is, in place of Password, a file that holds it. It is read anew for each connection.
	PasswordFile string
	// Database is the number of the database. A Cluster has only 0.
	Database int
	// Cluster says that the server is a node of a Redis Cluster.
	Cluster bool
	// Sentinel names the master that Sentinels at Addresses, or at Host, watch over.
	Sentinel Sentinel
	// TLS encrypts the connections when it is not nil.
	TLS *TLS
	// Timeout bounds each operation whose context has no earlier deadline; then it is ErrUnavailable. Default: 5 seconds.
	Timeout time.Duration
}

// Sentinel is a master under the watch of Sentinels.
type Sentinel struct {
	// Master is the name of the master. Empty: there are no Sentinels.
	Master string
	// Username and Password are those of the Sentinels themselves.
	Username, Password string
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

// Validate returns an InvalidError that names the field with an impossible value.
func (c Config) Validate() error {
	if err := c.validateWhere(); err != nil {
		return err
	}
	switch {
	case c.Password != "" && c.PasswordFile != "":
		return invalid("password_file", "stands in place of password; give one of them")
	case c.Username != "" && c.Password == "" && c.PasswordFile == "":
		return invalid("username", "needs a password or a password_file")
	case c.Database < 0:
		return invalid("database", "must not be negative")
	case c.Cluster && c.Database != 0:
		return invalid("database", "must be 0: a Redis Cluster has no other")
	case c.Timeout < 0 || c.Timeout > 0 && c.Timeout < time.Millisecond:
		return invalid("timeout", "must be at least 1ms")
	case c.TLS != nil && (c.TLS.Cert == "") != (c.TLS.Key == ""):
		return invalid("tls/key", "cert and key go together")
	}
	return nil
}

// validateWhere looks at what says where the server is.
func (c Config) validateWhere() error {
	switch {
	case c.Host == "" && len(c.Addresses) == 0:
		return invalid("host", "is required, or addresses")
	case c.Host != "" && len(c.Addresses) > 0:
		return invalid("addresses", "stands in place of host; give one of them")
	case len(c.Addresses) > 1 && !c.Cluster && c.Sentinel.Master == "":
		return invalid("addresses", "more than one makes sense with cluster or sentinel only")
	case c.Cluster && c.Sentinel.Master != "":
		return invalid("sentinel", "a Redis Cluster has no Sentinels")
	case c.Sentinel.Master == "" && (c.Sentinel.Username != "" || c.Sentinel.Password != ""):
		return invalid("sentinel/master", "is required with the other fields of sentinel")
	}
	for i, address := range c.addresses() {
		_, port, err := net.SplitHostPort(address)
		if n, bad := strconv.Atoi(port); err == nil && bad == nil && n > 0 && n < 1<<16 {
			continue
		}
		if c.Host != "" {
			return badAddress("host", c.Host)
		}
		return badAddress("addresses/"+strconv.Itoa(i), c.Addresses[i])
	}
	return nil
}

// badAddress says what is wrong with an address, and not what it is when that may hold a password.
func badAddress(field, address string) error {
	if strings.Contains(address, "@") || strings.Contains(address, "://") {
		return invalid(field, "is not host:port; write user and password under username and password")
	}
	return invalid(field, "%q is not a host or host:port", address)
}

// addresses returns all addresses, each with a port.
func (c Config) addresses() []string {
	list := c.Addresses
	if c.Host != "" {
		list = []string{c.Host}
	}
	out := make([]string, len(list))
	for i, address := range list {
		out[i] = withPort(address)
	}
	return out
}

func withPort(address string) string {
	if strings.ContainsAny(address, "/@ ") || address == "" {
		return ""
	}
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	host := strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
	if strings.Contains(host, ":") && net.ParseIP(host) == nil {
		return ""
	}
	return net.JoinHostPort(host, defaultPort)
}

// Conn is a connection to Redis, shared by all slots that one configuration names. Changes and reads have a client each, so
// that a change that Redis holds back stalls no reader.
type Conn struct {
	write   rueidis.Client // everything that changes data, and publishing
	read    rueidis.Client // scans, counts, change feeds
	timeout time.Duration
}

// Open connects to Redis and makes sure that it answers and is new enough. The context covers the call; Close ends the
// connection. An InvalidError names a field that does not fit; ErrUnavailable says that Redis cannot be reached, and
// ErrUnsupported that it refuses us or is too old.
func Open(ctx context.Context, cfg Config) (*Conn, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	opening := &opening{}
	opening.ctx.Store(&ctx)
	defer opening.ctx.Store(nil) //nolint:contextcheck // the context of Open ends with it
	option, err := cfg.option(opening)
	if err != nil {
		return nil, err
	}
	c := &Conn{timeout: cfg.Timeout}
	if c.write, err = newClient(option); err == nil {
		if c.read, err = newClient(option); err == nil {
			err = c.check(ctx, cfg)
		}
	}
	if err != nil {
		c.Close()
		if isReply(err) && strings.Contains(err.Error(), "DB index is out of range") {
			err = invalid("database", "the server has no database %d", cfg.Database)
		}
		return nil, c.wrap(ctx, "connect to "+strings.Join(option.InitAddress, ", "), "", err)
	}
	return c, nil
}

// retryDelay lets the driver repeat a read at growing intervals for about a second: who asks while Redis is away is told so soon.
func retryDelay(attempts int, _ rueidis.Completed, _ error) time.Duration {
	const first, doublings, most = time.Millisecond, 8, 11
	if attempts > most {
		return -1
	}
	delay := first << min(attempts-1, doublings)
	return delay/2 + rand.N(delay/2+1)
}

// option returns what the driver takes.
func (c Config) option(o *opening) (rueidis.ClientOption, error) {
	option := rueidis.ClientOption{
		InitAddress: c.addresses(), SelectDB: c.Database, ClientName: clientName,
		Username: c.Username, Password: c.Password,
		Dialer:    net.Dialer{Timeout: c.Timeout, KeepAlive: time.Second},
		DialCtxFn: o.dial,
		// An answer that takes longer than any operation waits means that the connection is dead.
		ConnWriteTimeout: c.Timeout,
		// Only so does a call end with its context and leave the connection to the others.
		AlwaysPipelining: true,
		// One connection for each client: the more calls share one, the larger the batches.
		PipelineMultiplex:  -1,
		ReadBufferEachConn: bufferBytes, WriteBufferEachConn: bufferBytes,
		BlockingPoolSize: blockingConns,
		DisableCache:     true,
		RetryDelay:       retryDelay,
	}
	if c.PasswordFile != "" {
		option.AuthCredentialsFn = func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
			password, err := readPassword(c.PasswordFile)
			return rueidis.AuthCredentials{Username: c.Username, Password: password}, err
		}
		if _, err := readPassword(c.PasswordFile); err != nil {
			return option, err
		}
	}
	var err error
	if c.TLS != nil {
		if option.TLSConfig, err = c.TLS.config(); err != nil {
			return option, err
		}
	}
	switch {
	case c.Sentinel.Master != "":
		option.Sentinel = rueidis.SentinelOption{
			Dialer: option.Dialer, TLSConfig: option.TLSConfig, MasterSet: c.Sentinel.Master, ClientName: clientName,
			Username: c.Sentinel.Username, Password: c.Sentinel.Password, TopologyRefreshInterval: topologyEvery,
		}
	case c.Cluster:
		option.ClusterOption = rueidis.ClusterOption{ShardsRefreshInterval: topologyEvery}
	default:
		option.ForceSingleClient = true
	}
	return option, nil
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

// opening lets the driver's dialling end with the context of Open while that runs.
type opening struct {
	ctx atomic.Pointer[context.Context]
}

// dial connects to a server. Whoever calls first after a connection broke dials for all, so the dialer's time counts, not the
// first caller's.
func (o *opening) dial(ctx context.Context, address string, dialer *net.Dialer, secure *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if outer := o.ctx.Load(); outer != nil {
		stop := context.AfterFunc(*outer, cancel) //nolint:contextcheck // Open's, next to the driver's
		defer stop()
	}
	if secure != nil {
		return (&tls.Dialer{NetDialer: dialer, Config: secure}).DialContext(ctx, "tcp", address)
	}
	return dialer.DialContext(ctx, "tcp", address)
}

// check finds out whether the server is one that serves.
func (c *Conn) check(ctx context.Context, cfg Config) error {
	bounded, cancel, err := c.bound(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if err := c.write.Do(bounded, c.write.B().Ping().Build()).Error(); err != nil {
		return err
	}
	hello, err := c.read.Do(bounded, c.read.B().Arbitrary("HELLO").Build()).AsStrMap()
	if err != nil {
		return err
	}
	return checkServer(hello["version"], hello["mode"], cfg.Cluster)
}

// checkServer looks at what a server tells about itself.
func checkServer(version, mode string, cluster bool) error {
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < minMajor {
		return fmt.Errorf("%w: it runs version %s; Redis %d.0 or newer is needed", multicastregistry.ErrUnsupported, version, minMajor)
	}
	if cluster != (mode == "cluster") {
		if cluster {
			return invalid("cluster", "the server is not a node of a Redis Cluster (mode %s)", mode)
		}
		return invalid("cluster", "the server is a node of a Redis Cluster: set it to true")
	}
	return nil
}

// Close ends the connection. Calls that are under way fail.
func (c *Conn) Close() {
	for _, client := range []rueidis.Client{c.read, c.write} {
		if client != nil {
			client.Close()
		}
	}
}

// Ping makes a round trip over the connections that changes use and over those that reads use.
func (c *Conn) Ping(ctx context.Context) error {
	bounded, cancel, err := c.bound(ctx)
	if err == nil {
		defer cancel()
		err = errors.Join(
			c.write.Do(bounded, c.write.B().Ping().Build()).Error(),
			c.read.Do(bounded, c.read.B().Ping().Build()).Error())
	}
	return c.wrap(ctx, "ping", "", err)
}

// bound returns a context that ends with the given one, and at the latest when an operation has taken its time. The error is
// the context's, when it has ended already: then nothing was begun, and there is nothing to cancel.
func (c *Conn) bound(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	return bounded, cancel, nil
}

// background runs a task that changes something, for which Close waits. It returns false after Close.
func (c *Conn) background(task func()) bool {
	write, ok := c.write.(*client)
	return ok && write.background(task)
}

// waitAtMost shortens how long Redis may hold back an answer, so that it comes before the operation has taken its time.
func (c *Conn) waitAtMost(wait time.Duration) time.Duration {
	return max(min(wait, c.timeout/2), time.Millisecond)
}

// run runs a script that returns integers, at least one.
func (c *Conn) run(
	ctx context.Context, client rueidis.Client, script *rueidis.Lua, keys, args []string,
) ([]int64, error) {
	bounded, cancel, err := c.bound(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	reply, err := script.Exec(bounded, client, keys, args).AsIntSlice()
	if err == nil && len(reply) == 0 {
		err = fmt.Errorf("%w: nothing", errReply)
	}
	return reply, err
}
