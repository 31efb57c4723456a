package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// sentinels are the errors of the driver, as far as they mean one of our sentinels.
var sentinels = []struct{ driver, ours error }{
	{nats.ErrConnectionClosed, multicastregistry.ErrUnavailable},
	{nats.ErrConnectionDraining, multicastregistry.ErrUnavailable},
	{nats.ErrConnectionReconnecting, multicastregistry.ErrUnavailable},
	{nats.ErrDisconnected, multicastregistry.ErrUnavailable},
	{nats.ErrNoServers, multicastregistry.ErrUnavailable},
	{nats.ErrReconnectBufExceeded, multicastregistry.ErrUnavailable},
	{nats.ErrStaleConnection, multicastregistry.ErrUnavailable},
	{nats.ErrTimeout, multicastregistry.ErrUnavailable},
	{nats.ErrNoResponders, multicastregistry.ErrUnavailable}, // JetStream has no leader, or is not there
	{jetstream.ErrNoStreamResponse, multicastregistry.ErrUnavailable},
	{nats.ErrMaxPayload, multicastregistry.ErrTooLarge},
	{nats.ErrMaxSubscriptionsExceeded, multicastregistry.ErrQuota},
	{nats.ErrPermissionViolation, multicastregistry.ErrUnsupported},
	{nats.ErrAuthorization, multicastregistry.ErrUnsupported},
	{nats.ErrHeadersNotSupported, multicastregistry.ErrUnsupported},
	{jetstream.ErrJetStreamNotEnabled, multicastregistry.ErrUnsupported},
	{jetstream.ErrJetStreamNotEnabledForAccount, multicastregistry.ErrUnsupported},
}

// apiCodes are JetStream's error codes that its status alone does not explain.
var apiCodes = map[jetstream.ErrorCode]error{
	10_002: multicastregistry.ErrQuota, // resource limits exceeded for account
	10_023: multicastregistry.ErrQuota, // insufficient resources
	10_028: multicastregistry.ErrQuota, // memory resources exceeded
	10_047: multicastregistry.ErrQuota, // insufficient storage resources available
	10_054: multicastregistry.ErrTooLarge,
	10_077: multicastregistry.ErrQuota, // maximum messages, bytes or the like of the stream
}

// wrap turns an error of the driver into one of ours: `nats: put "dev-7": unavailable: …`. The id names the identity, if any.
// A nil error stays nil.
func wrap(op, id string, err error) error {
	if err == nil {
		return nil
	}
	if id != "" {
		op = fmt.Sprintf("%s %q", op, id)
	}
	if ours := sentinelOf(err); ours != nil && !errors.Is(err, ours) {
		return fmt.Errorf("nats: %s: %w: %w", op, ours, err)
	}
	return fmt.Errorf("nats: %s: %w", op, err)
}

// sentinelOf returns the sentinel that an error of the driver means, or nil.
func sentinelOf(err error) error {
	for _, s := range sentinels {
		if errors.Is(err, s.driver) {
			return s.ours
		}
	}
	var reply jetstream.JetStreamError
	if errors.As(err, &reply) && reply.APIError() != nil {
		api := reply.APIError()
		if ours := apiCodes[api.ErrorCode]; ours != nil {
			return ours
		}
		if api.Code == 503 || api.Code == 429 {
			return multicastregistry.ErrUnavailable
		}
	}
	return nil
}

// silentError says that the server did not answer within our own timeout; the caller's context had not ended.
type silentError struct{ after time.Duration }

// Error returns the text.
func (e *silentError) Error() string { return fmt.Sprintf("no answer within %s", e.after) }

// Is makes it an ErrUnavailable. Publish, to which that would mean "not sent", puts it into an unknownError.
func (e *silentError) Is(target error) bool { return target == multicastregistry.ErrUnavailable }

// within returns a context that ends with the timeout, or earlier with the given one. What then fails goes to ended.
func (c *Conn) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.cfg.Timeout)
}

// ended tells the caller's context, whose error stays what it is, from our timeout, which becomes ErrUnavailable.
func (c *Conn) ended(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return &silentError{after: c.cfg.Timeout}
	}
	return err
}

// unknownError says that a message may have reached the server or not. It hides the sentinel of its cause, of which
// ErrUnavailable would say that the message did not.
type unknownError struct {
	op       string
	identity string
	cause    error
}

// Error returns the text.
func (e *unknownError) Error() string {
	return fmt.Sprintf("nats: %s %q: the outcome is unknown: %v", e.op, e.identity, e.cause)
}

// Is holds for the error of a context that ended.
func (e *unknownError) Is(target error) bool {
	return (target == context.Canceled || target == context.DeadlineExceeded) && errors.Is(e.cause, target)
}

// refused tells whether a server does not accept who we are.
func refused(err error) bool {
	return errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || errors.Is(err, nats.ErrAuthRevoked) ||
		errors.Is(err, nats.ErrAccountAuthExpired)
}

// refusedSubject returns what a violation of permissions is about: the quoted subject at its end.
func refusedSubject(err error) string {
	_, rest, _ := strings.Cut(err.Error(), `"`)
	subject, _, _ := strings.Cut(rest, `"`)
	return subject
}
