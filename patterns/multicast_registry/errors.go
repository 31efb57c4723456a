package multicastregistry

import (
	"errors"
	"fmt"
)

// The sentinels that every layer speaks. Backends wrap their driver's errors in them, the proxy maps them to gRPC codes,
// and the client maps those back to the same sentinels: errors.Is holds from one end to the other.
var (
	// ErrInvalid says that the caller sent something that can never work. See InvalidError for the field.
	ErrInvalid = errors.New("invalid argument")
	// ErrNotFound says that the identity, or the namespace, does not exist (any more).
	ErrNotFound = errors.New("not found")
	// ErrAlreadyExists says that a live identity of that name exists.
	ErrAlreadyExists = errors.New("already exists")
	// ErrQuota says that a limit of the namespace or of the backend is reached.
	ErrQuota = errors.New("quota exceeded")
	// ErrUnsupported says that this namespace's configuration does not offer what was asked for.
	ErrUnsupported = errors.New("not supported by this namespace")
	// ErrUnavailable says that a backend cannot be reached now. Trying again later may help.
	ErrUnavailable = errors.New("unavailable")

	// ErrNoSubscriber says that nobody receives a topic. It is the outcome of one message, never of a call.
	ErrNoSubscriber = errors.New("no subscriber")
	// ErrGone says that the subscriber which received a message left without acknowledging it, or that its target is no
	// longer registered. It is the outcome of one message, never of a call.
	ErrGone = errors.New("gone")
	// ErrQueueFull says that a bounded buffer or queue has no room. It is the outcome of one message, never of a call.
	ErrQueueFull = errors.New("queue full")
	// ErrTooLarge says that a backend refuses a message of this size. It is the outcome of one message, never of a call.
	ErrTooLarge = errors.New("payload too large")
)

// InvalidError is an ErrInvalid that names the field at fault.
type InvalidError struct {
	// Field is the request's field, with a JSON pointer behind it where the fault lies deeper: "metadata/floor".
	Field string
	// Problem says what is wrong and what would be right.
	Problem string
}

// Error returns the field and the problem.
func (e *InvalidError) Error() string { return e.Field + ": " + e.Problem }

// Is makes errors.Is(err, ErrInvalid) hold.
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

func invalid(field, format string, args ...any) error {
	return &InvalidError{Field: field, Problem: fmt.Sprintf(format, args...)}
}
