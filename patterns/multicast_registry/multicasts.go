package multicastregistry

import (
	"context"
	"fmt"
	"time"
)

// State says how far a multicast is.
type State uint8

// The states.
const (
	// Running means that the call is under way, or that the process which ran it is gone.
	Running State = iota + 1
	// Returned means that the call has returned. Pending targets may become Delivered still.
	Returned
	// WithdrawnByID means that CancelMulticast was called.
	WithdrawnByID
)

// MulticastRecord is what is kept of a multicast.
type MulticastRecord struct {
	// State says how far it is.
	State State
	// CreatedAt is when it was sent, by the sender's clock.
	CreatedAt time.Time
	// Filter is the request's, as canonical JSON. Empty: every identity.
	Filter string
	// PayloadBytes is the size of the payload, which itself is not kept.
	PayloadBytes int
	// ContentType is the media type of the payload.
	ContentType string
	// IdempotencyKey is the request's. Empty: none.
	IdempotencyKey string
	// Result is what has become of it by now. While Running it has the ID and the Delivery only.
	Result Result
}

// GetMulticast returns what has become of a multicast by now, target by target. ErrNotFound when it is unknown or older than
// the retention, ErrUnsupported when the durability slot keeps no multicasts.
func (c *Coordinator) GetMulticast(ctx context.Context, id string) (*MulticastRecord, error) {
	return nil, c.keepsNone()
}

// ListMulticasts returns kept multicasts, latest first, up to limit (1 to 1,000), from before the given id on; empty: from
// the latest. Their results have counts and no targets. Errors as for GetMulticast.
func (c *Coordinator) ListMulticasts(ctx context.Context, before string, limit int) ([]*MulticastRecord, error) {
	return nil, c.keepsNone()
}

// CancelMulticast withdraws what is stored and not delivered, and ends the multicast if it is under way in this process. It
// tells how many messages it has withdrawn, and what has become of the multicast. Errors as for GetMulticast.
func (c *Coordinator) CancelMulticast(ctx context.Context, id string) (withdrawn int, record *MulticastRecord, err error) {
	return 0, nil, c.keepsNone()
}

func (c *Coordinator) keepsNone() error {
	return fmt.Errorf("multicasts: %w: they are kept only in a namespace with a durability slot", ErrUnsupported)
}
