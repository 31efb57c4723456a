package auth

import (
	"errors"
	"fmt"
	"strings"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// The sentinels that every refusal wraps.
var (
	// ErrUnauthenticated says that it is not known who is calling.
	ErrUnauthenticated = errors.New("unauthenticated")
	// ErrPermissionDenied says that the caller may not do this.
	ErrPermissionDenied = errors.New("permission denied")
)

// Fault is all that a caller learns about credentials that were not accepted.
type Fault string

// The faults.
const (
	Missing Fault = "missing"
	Invalid Fault = "invalid"
	Expired Fault = "expired"
)

// UnauthenticatedError is an ErrUnauthenticated. Its text is for the caller.
type UnauthenticatedError struct {
	// Fault is what the caller may know.
	Fault Fault
	// Detail is for the log, and holds nothing secret.
	Detail string
}

// Error tells the fault and nothing more.
func (e *UnauthenticatedError) Error() string {
	return ErrUnauthenticated.Error() + ": credentials are " + string(e.Fault)
}

// Is makes errors.Is(err, ErrUnauthenticated) hold.
func (e *UnauthenticatedError) Is(target error) bool { return target == ErrUnauthenticated }

func unauthenticated(fault Fault, format string, args ...any) error {
	return &UnauthenticatedError{Fault: fault, Detail: shorten(fmt.Sprintf(format, args...))}
}

// DeniedError is an ErrPermissionDenied. Its text is for the caller.
type DeniedError struct {
	// Operation and Namespace are what was called.
	Operation Operation
	Namespace string
	// Identity is the one that the caller named, if it is what was refused.
	Identity string
	// Field says that a field which may not be used is what was refused.
	Field bool
	// Detail is for the log.
	Detail string
}

// Error names the operation, the namespace and the identity that the caller named.
func (e *DeniedError) Error() string {
	text := fmt.Sprintf("%v: %s in namespace %q", ErrPermissionDenied, e.Operation, e.Namespace)
	switch {
	case e.Field:
		return text + ": a field may not be used"
	case e.Identity != "":
		return text + fmt.Sprintf(": identity %q", shorten(e.Identity))
	}
	return text
}

// Is makes errors.Is(err, ErrPermissionDenied) hold.
func (e *DeniedError) Is(target error) bool { return target == ErrPermissionDenied }

// Reason returns what the log should know of a refusal, which the error's text does not tell the caller. It is "" for other
// errors.
func Reason(err error) string {
	if e, ok := errors.AsType[*UnauthenticatedError](err); ok {
		return e.Detail
	}
	if e, ok := errors.AsType[*DeniedError](err); ok {
		return e.Detail
	}
	return ""
}

// invalid is an error about a configuration, which names the field.
func invalid(field, format string, args ...any) error {
	return &multicastregistry.InvalidError{Field: field, Problem: fmt.Sprintf(format, args...)}
}

// within puts the field of an error about a configuration under another one.
func within(field string, err error) error {
	if inner, ok := errors.AsType[*multicastregistry.InvalidError](err); ok {
		return &multicastregistry.InvalidError{Field: field + "." + inner.Field, Problem: inner.Problem}
	}
	return err
}

// shorten keeps what a caller chose, or a library says about it, to a readable length.
func shorten(s string) string {
	const most = 256
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
