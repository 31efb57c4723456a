package multicastregistry

import (
	"slices"
	"time"

	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// DeliveryMode says how much a multicast promises.
type DeliveryMode string

const (
	// AtMostOnce is fire and forget: DELIVERED means that the messaging backend accepted the message.
	AtMostOnce DeliveryMode = "at-most-once"
	// AtLeastOnce waits for acks: DELIVERED means that a subscriber acknowledged the message.
	AtLeastOnce DeliveryMode = "at-least-once"
	// ExactlyOnce is AtLeastOnce, and the recipient's library hands each message to the application once: within a window
	// it drops repeats, which it acknowledges again.
	ExactlyOnce DeliveryMode = "exactly-once"
)

// DeliveryModes returns the legal modes.
func DeliveryModes() []DeliveryMode { return []DeliveryMode{AtMostOnce, AtLeastOnce, ExactlyOnce} }

// acked tells whether multicasts of a mode wait for acks.
func (m DeliveryMode) acked() bool { return m == AtLeastOnce || m == ExactlyOnce }

// Defaults of Config.
const (
	DefaultNamespace  = "default"
	DefaultTTL        = 5 * time.Minute
	DefaultDelivery   = AtLeastOnce
	DefaultTimeout    = 5 * time.Second
	DefaultMaxPayload = 1 << 20
	// DefaultRetryAttempts and DefaultRetryDelay hand a message over three times at most, the second time after a quarter of
	// a second if the first did not succeed, the third time half a second later.
	DefaultRetryAttempts = 3
	DefaultRetryDelay    = 250 * time.Millisecond
	// DefaultMaxMetadata lets a page of 100 identities stay well below gRPC's default message size.
	DefaultMaxMetadata = 64 << 10
)

// MaxRetryAttempts bounds RetryAttempts.
const MaxRetryAttempts = 20

// Config is the configuration of one namespace. Zero fields take their defaults.
type Config struct {
	// Namespace is the name: 1 to 63 lower-case letters, digits, '-' and '_', starting with a letter or digit. Default:
	// "default".
	Namespace string
	// TTLDefault is the lease of identities that do not name one: at least a millisecond, or NoExpiry. Default: 5 minutes.
	TTLDefault time.Duration
	// Delivery is the mode of multicasts that do not name one. Default: at-least-once.
	Delivery DeliveryMode
	// Timeout is the longest wait of multicasts that do not name one. Default: 5 seconds.
	Timeout time.Duration
	// RetryAttempts is how often a message is handed over at most while its target has not acknowledged it and may still;
	// 1 means no retry. Default: 3.
	RetryAttempts int
	// RetryDelay is the wait before a message that could not be handed over is handed over again; it doubles each time, give
	// or take a quarter. Default: 250 ms.
	RetryDelay time.Duration
	// AttemptTimeout is the wait for the ack of one attempt before the next. Default: Timeout divided by RetryAttempts.
	AttemptTimeout time.Duration
	// MaxPayload is the largest payload of a multicast in bytes. Default: 1 MiB.
	MaxPayload int
	// MaxMetadata is the largest metadata of one identity in bytes: of its keys and strings, with 12 for each value and 4 for
	// each key on top. Default: 64 KiB.
	MaxMetadata int
	// Filter bounds the filters of this namespace. Default: filter.DefaultLimits.
	Filter filter.Limits
}

// WithDefaults returns the configuration with its zero fields set.
func (c Config) WithDefaults() Config {
	if c.Namespace == "" {
		c.Namespace = DefaultNamespace
	}
	if c.TTLDefault == 0 {
		c.TTLDefault = DefaultTTL
	}
	if c.Delivery == "" {
		c.Delivery = DefaultDelivery
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.RetryAttempts == 0 {
		c.RetryAttempts = DefaultRetryAttempts
	}
	if c.RetryDelay == 0 {
		c.RetryDelay = DefaultRetryDelay
	}
	if c.MaxPayload == 0 {
		c.MaxPayload = DefaultMaxPayload
	}
	if c.MaxMetadata == 0 {
		c.MaxMetadata = DefaultMaxMetadata
	}
	return c
}

// Validate returns an InvalidError that names the first field with an impossible value.
func (c Config) Validate() error {
	c = c.WithDefaults()
	if !validNamespace(c.Namespace) {
		return invalid("name", "%q is not a namespace: 1 to 63 lower-case letters, digits, '-' and '_', "+
			"starting with a letter or digit", c.Namespace)
	}
	if c.TTLDefault != NoExpiry && c.TTLDefault < time.Millisecond {
		return invalid("ttl_default", "must be at least 1ms, or \"never\"")
	}
	if !slices.Contains(DeliveryModes(), c.Delivery) {
		return invalid("delivery", "%q is not a delivery mode; legal values: %v", c.Delivery, DeliveryModes())
	}
	if c.Timeout < time.Millisecond {
		return invalid("timeout", "must be at least 1ms")
	}
	if c.RetryAttempts < 1 || c.RetryAttempts > MaxRetryAttempts {
		return invalid("retry_attempts", "must be 1 to %d", MaxRetryAttempts)
	}
	if c.RetryDelay < time.Millisecond {
		return invalid("retry_delay", "must be at least 1ms")
	}
	if c.AttemptTimeout != 0 && c.AttemptTimeout < time.Millisecond {
		return invalid("attempt_timeout", "must be at least 1ms")
	}
	if c.MaxPayload < 1 {
		return invalid("max_payload", "must be at least 1 byte")
	}
	if c.MaxMetadata < 1 {
		return invalid("max_metadata", "must be at least 1 byte")
	}
	return nil
}

func validNamespace(name string) bool {
	if name == "" || len(name) > 63 || name[0] == '-' || name[0] == '_' {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}
