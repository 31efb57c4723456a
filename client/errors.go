package client

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// The sentinels, the very ones that the server's layers use.
var (
	// ErrInvalid says that the call sent something that can never work. See InvalidError for the field.
	ErrInvalid = multicastregistry.ErrInvalid
	// ErrNotFound says that the identity, or the namespace, does not exist (any more).
	ErrNotFound = multicastregistry.ErrNotFound
	// ErrAlreadyExists says that a live identity of that name exists.
	ErrAlreadyExists = multicastregistry.ErrAlreadyExists
	// ErrQuota says that a limit of the namespace, the server or its backend is reached.
	ErrQuota = multicastregistry.ErrQuota
	// ErrUnsupported says that the namespace's configuration, or the server's version, does not offer what was asked for.
	ErrUnsupported = multicastregistry.ErrUnsupported
	// ErrUnavailable says that the server, or a backend behind it, cannot be reached now. Trying again later may help.
	ErrUnavailable = multicastregistry.ErrUnavailable

	// ErrUnauthenticated says that the server does not know who is calling: no credentials, or not good ones (any more).
	ErrUnauthenticated = errors.New("unauthenticated")
	// ErrPermissionDenied says that the caller may not do this.
	ErrPermissionDenied = errors.New("permission denied")

	// ErrNoSubscriber says that nobody receives an identity's messages. It is in a Target's Err, never a call's error.
	ErrNoSubscriber = multicastregistry.ErrNoSubscriber
	// ErrGone says that a target left during the call. It is in a Target's Err, never a call's error.
	ErrGone = multicastregistry.ErrGone
	// ErrQueueFull says that a buffer or queue has no room. It is in a Target's Err, never a call's error.
	ErrQueueFull = multicastregistry.ErrQueueFull
	// ErrTooLarge says that a backend refuses messages of this size. It is in a Target's Err, never a call's error.
	ErrTooLarge = multicastregistry.ErrTooLarge

	// ErrClosed says that the client was closed.
	ErrClosed = errors.New("the client is closed")
)

// InvalidError is an ErrInvalid that names the field at fault.
type InvalidError = multicastregistry.InvalidError

// callError is what a call came back with: the server's words, the sentinel that they mean, and the status as it came.
type callError struct {
	text   string
	kind   error // a sentinel, an *InvalidError, a context's error, or nil for what has no sentinel
	status *status.Status
}

func (e *callError) Error() string { return e.text }

func (e *callError) Unwrap() error { return e.kind }

// GRPCStatus lets google.golang.org/grpc/status read the error.
func (e *callError) GRPCStatus() *status.Status { return e.status }

// failed turns the error of a call or a stream into one of this package's.
func (c *Client) failed(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) { // a stream that the server ended without a fault, though we did not ask for it
		err = status.Error(codes.Unavailable, "the server ended the stream")
	}
	s, _ := status.FromError(err)
	e := &callError{text: s.Message(), status: s}
	switch s.Code() {
	case codes.InvalidArgument, codes.OutOfRange:
		invalid := invalidError(s)
		e.kind, e.text = invalid, invalid.Error()
		if invalid.Field == "" {
			e.kind, e.text = ErrInvalid, s.Message()
		}
	case codes.NotFound:
		e.kind = ErrNotFound
	case codes.AlreadyExists:
		e.kind = ErrAlreadyExists
	case codes.ResourceExhausted:
		e.kind = ErrQuota
	case codes.FailedPrecondition, codes.Unimplemented:
		e.kind = ErrUnsupported
	case codes.Unauthenticated:
		e.kind = ErrUnauthenticated
	case codes.PermissionDenied:
		e.kind = ErrPermissionDenied
	case codes.Unavailable:
		e.kind, e.text = ErrUnavailable, "server "+c.server+": "+plain(s.Message())
	case codes.DeadlineExceeded:
		e.kind, e.text = context.DeadlineExceeded, "server "+c.server+": "+plain(s.Message())
	case codes.Canceled:
		e.kind = context.Canceled
		if strings.Contains(s.Message(), "client connection is closing") {
			e.kind, e.text = ErrClosed, ErrClosed.Error()
		}
	}
	if e.text == "" {
		e.text = strings.ToLower(s.Code().String())
	}
	return e
}

// Code returns gRPC's name of the status that an error came back with, such as UNAVAILABLE or DEADLINE_EXCEEDED: OK for nil,
// UNKNOWN for an error that is none of this package's.
func Code(err error) string {
	switch s, known := status.FromError(err); {
	case known:
		return code.Code(s.Code()).String()
	case errors.Is(err, context.DeadlineExceeded):
		return code.Code_DEADLINE_EXCEEDED.String()
	case errors.Is(err, context.Canceled):
		return code.Code_CANCELLED.String()
	}
	return code.Code_UNKNOWN.String()
}

// invalidError reads the field at fault from the status' details. Without details the message may still begin with it.
func invalidError(s *status.Status) *InvalidError {
	for _, detail := range s.Details() {
		request, ok := detail.(*errdetails.BadRequest)
		if !ok || len(request.GetFieldViolations()) == 0 {
			continue
		}
		v := request.GetFieldViolations()[0]
		problem := v.GetDescription()
		if problem == "" {
			problem = s.Message()
		}
		return &InvalidError{Field: v.GetField(), Problem: problem}
	}
	return &InvalidError{Problem: s.Message()}
}

// Unreachable tells whether an error is an ErrUnavailable because the server itself is away, and not a backend behind it.
func Unreachable(err error) bool {
	var call *callError
	if !errors.As(err, &call) || !errors.Is(err, ErrUnavailable) {
		return false
	}
	// Then the words are the client's own transport's.
	words := call.status.Message()
	for _, sign := range []string{
		"connection error", "last connection error", "name resolver error", "last resolver error", "error reading from server",
		"closing transport", "keepalive ping failed", "error reading server preface",
	} {
		if strings.HasPrefix(words, sign) {
			return true
		}
	}
	return false
}

// plain takes gRPC's wrapping off a message about the connection, down to what a person wants to read.
func plain(message string) string {
	const dialing = "Error while dialing: "
	if _, rest, found := strings.Cut(message, dialing); found {
		message = strings.TrimSuffix(rest, `"`)
	}
	return message
}

// endless tells whether trying again can never help this client.
func (c *Client) endless(err error) bool {
	return endless(err) && (!c.renews || !errors.Is(err, ErrUnauthenticated))
}

// endless tells whether trying again can never help.
func endless(err error) bool {
	for _, never := range []error{ErrInvalid, ErrNotFound, ErrUnsupported, ErrClosed} {
		if errors.Is(err, never) {
			return true
		}
	}
	code := status.Code(err)
	return code == codes.PermissionDenied || code == codes.Unauthenticated
}

// targetError is why one target was not delivered, in the server's words.
type targetError struct {
	text string
	kind error
}

func (e *targetError) Error() string { return e.text }

func (e *targetError) Unwrap() error { return e.kind }

// targetErr returns nil for a target without a reason.
func targetErr(reason Reason, text string) error {
	kinds := map[Reason]error{
		NoSubscriber: ErrNoSubscriber, QueueFull: ErrQueueFull, PayloadTooLarge: ErrTooLarge, Gone: ErrGone,
	}
	if reason == 0 && text == "" {
		return nil
	}
	return &targetError{text: text, kind: kinds[reason]}
}
