package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

const (
	// pingInterval and pingsOut say when a silent server is given up: after 20 to 30 seconds, or after Timeout if somebody
	// waits for it.
	pingInterval = 10 * time.Second
	pingsOut     = 2
	// The pause between two rounds of attempts to reconnect doubles from the first to the last of these, less up to half of it.
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
	// closeTimeout bounds what Close waits for the server to take what was written.
	closeTimeout = time.Second
)

// Conn is a connection to NATS that slots share. It reconnects for ever, until Close. All methods may be called concurrently.
type Conn struct {
	nc     *nats.Conn
	cfg    Config
	log    *slog.Logger
	closed chan struct{} // by the driver, after its last callback

	broken atomic.Uint64 // writes that failed, see epoch
	watch  watches       // of refusals by the server
	router *router       // brings messages to subscriptions
	pipe   pipe          // of requests
}

// Open connects to one of the servers. The first connection must succeed, within the context and Timeout: ErrUnavailable
// otherwise, or, when a server refuses the credentials, an error that says so. The caller closes the connection.
func Open(ctx context.Context, cfg Config) (*Conn, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return open(ctx, cfg)
}

// open is Open after validation, with options that Config does not have.
func open(ctx context.Context, cfg Config, more ...nats.Option) (*Conn, error) {
	cfg = cfg.withDefaults()
	opening, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	dial := newDialer(opening, cfg)
	c := &Conn{cfg: cfg, log: cfg.Log, closed: make(chan struct{})}
	options, err := cfg.options()
	if err != nil {
		return nil, err
	}
	options = append(options, c.resilience()...)
	options = append(options, nats.SetCustomDialer(dial))
	c.nc, err = nats.Connect(strings.Join(cfg.Servers, ","), append(options, more...)...)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, fmt.Errorf("nats: connect to %s: %w", cfg.where(), ctx.Err())
	case refused(err):
		return nil, fmt.Errorf("nats: connect to %s: the credentials are refused: %w", cfg.where(), err)
	case opening.Err() != nil:
		return nil, fmt.Errorf("nats: connect to %s: %w: no answer within %s",
			cfg.where(), multicastregistry.ErrUnavailable, cfg.Timeout)
	default:
		return nil, fmt.Errorf("nats: connect to %s: %w: %w", cfg.where(), multicastregistry.ErrUnavailable, err)
	}
	dial.letGo() //nolint:contextcheck // it forgets the context of Open
	c.router = newRouter()
	return c, nil
}

// resilience returns the options that keep the connection alive and its results honest.
func (c *Conn) resilience() []nats.Option {
	return []nats.Option{
		nats.Timeout(c.cfg.perServer()),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(pause),
		nats.IgnoreAuthErrorAbort(), // credentials may be put right while the connection is away
		nats.ReconnectBufSize(-1),   // nothing is queued during an outage
		nats.PingInterval(pingInterval), nats.MaxPingsOutstanding(pingsOut),
		nats.FlusherTimeout(c.cfg.Timeout), nats.ReconnectOnFlusherError(),
		nats.ErrorHandler(c.onError),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				c.log.Warn("nats: connection lost", slog.Any("error", err))
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			c.log.Info("nats: connected again", slog.String("server", nc.ConnectedUrlRedacted()))
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(c.closed) }),
	}
}

// pause returns how long to wait after all servers were tried in vain for the given number of rounds.
func pause(rounds int) time.Duration {
	longest := min(firstPause<<min(max(rounds-1, 0), 10), lastPause)
	return longest/2 + rand.N(longest/2)
}

// Close waits, for a second at most, until the server has taken what was written, and closes the connection. Subscriptions and
// inboxes end. Closing again does nothing.
func (c *Conn) Close() {
	if c.nc.IsConnected() {
		_ = c.nc.FlushTimeout(closeTimeout) // what could not be flushed was reported to whoever wrote it
	}
	c.nc.Close()
	<-c.closed
	c.router.stop()
}

// Ping makes one round trip to the server. ErrUnavailable when that fails.
func (c *Conn) Ping(ctx context.Context) error { return c.flush(ctx, "ping", "") }

// MaxPayload returns the largest payload that is sure to pass: the server's max_payload less headerReserve for the headers.
func (c *Conn) MaxPayload() int { return max(0, int(c.nc.MaxPayload())-headerReserve) }

// flush waits until the server has processed all that was written before. It is ErrUnavailable without a connection, when
// that breaks, and when there is no answer within the timeout.
func (c *Conn) flush(ctx context.Context, op, id string) error { return wrap(op, id, c.roundTrip(ctx)) }

// roundTrip is flush with the bare error.
func (c *Conn) roundTrip(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !c.nc.IsConnected() {
		return c.down()
	}
	limited, cancel := c.within(ctx) // the driver wants a deadline
	defer cancel()
	before := c.nc.Stats().InBytes
	err := c.nc.FlushWithContext(limited)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case limited.Err() != nil:
		if c.nc.Stats().InBytes == before { // not slow but silent: somebody else may serve us
			_ = c.nc.ForceReconnect()
		}
	case errors.Is(err, nats.ErrConnectionClosed) && !c.nc.IsClosed():
		return nats.ErrDisconnected
	}
	return c.ended(ctx, err)
}

// down returns why there is no connection.
func (c *Conn) down() error {
	if c.nc.IsClosed() {
		return nats.ErrConnectionClosed
	}
	return nats.ErrDisconnected
}

// epoch changes whenever something that was written may not have reached the server although a later flush succeeds.
func (c *Conn) epoch() uint64 { return c.nc.Stats().Reconnects + c.broken.Load() }

// onError hears what the driver finds out by itself.
func (c *Conn) onError(_ *nats.Conn, _ *nats.Subscription, err error) {
	if c.watch.tell(err) {
		return
	}
	c.log.Warn("nats: the server or the connection reports an error", slog.Any("error", err))
}

// refusals returns what the server has refused since a call under watch began, with the given last error. The call has made
// a round trip: the driver knows of every refusal, and tells us before long.
func (c *Conn) refusals(ctx context.Context, w *watch, last error) []error {
	now := c.nc.LastError()
	if !isRefusal(now) || isRefusal(last) && now == last { //nolint:errorlint // the very same one
		return w.until(ctx, nil)
	}
	limited, cancel := c.within(ctx)
	defer cancel()
	return w.until(limited, now)
}

func isRefusal(err error) bool {
	return errors.Is(err, nats.ErrPermissionViolation) || errors.Is(err, nats.ErrMaxSubscriptionsExceeded)
}

// watches hands refusals, which the server sends when it likes, to the calls under way.
type watches struct {
	mu  sync.Mutex
	all map[*watch]struct{}
}

// watch collects the refusals during one call.
type watch struct {
	of      *watches
	news    chan struct{}
	refused []error
}

func (w *watches) open() *watch {
	one := &watch{of: w, news: make(chan struct{}, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = make(map[*watch]struct{})
	}
	w.all[one] = struct{}{}
	return one
}

func (w *watch) close() {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	delete(w.of.all, w)
}

// tell passes an error on and returns whether somebody takes care of it.
func (w *watches) tell(err error) bool {
	if !isRefusal(err) {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for one := range w.all {
		one.refused = append(one.refused, err)
		select {
		case one.news <- struct{}{}:
		default:
		}
	}
	return len(w.all) > 0
}

// until returns the refusals up to the given one, which is on its way; those that are there already when it is nil.
func (w *watch) until(ctx context.Context, last error) []error {
	for {
		w.of.mu.Lock()
		got := w.refused
		w.of.mu.Unlock()
		if last == nil || len(got) > 0 && got[len(got)-1] == last { //nolint:errorlint // the very same one
			return got
		}
		select {
		case <-w.news:
		case <-ctx.Done():
			return got
		}
	}
}
