package proxy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"runtime/debug"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// requestIDHeader carries the id of a call, in both directions: the caller's own or one made here.
const requestIDHeader = "x-request-id"

// requestIDHTTP is the same in HTTP.
const requestIDHTTP = "X-Request-ID"

type requestIDKey struct{}

func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// withRequestID puts the caller's request id into ctx, or a new one when it has none that is fit to be logged.
func withRequestID(ctx context.Context) (context.Context, string) {
	var id string
	if given := metadata.ValueFromIncomingContext(ctx, requestIDHeader); len(given) > 0 {
		id = given[0]
	}
	if !validRequestID(id) {
		id = newToken()
	}
	return context.WithValue(ctx, requestIDKey{}, id), id
}

func validRequestID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	return !strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' })
}

// newToken returns 128 random bits in hexadecimal: too many to guess.
func newToken() string {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // documented never to fail
	return hex.EncodeToString(raw[:])
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	arrived(ctx)
	ctx, id := withRequestID(ctx)
	_ = grpc.SetHeader(ctx, metadata.Pairs(requestIDHeader, id)) // fails only when the call has ended already

	var span *callSpan // of those who are admitted: others do not decide what is recorded
	rpc := s.metrics.Begin(info.FullMethod)
	defer func() { ended(rpc, span, err); span.end(req, resp, err) }()
	defer func() { err = s.failed(ctx, info.FullMethod, err) }()
	defer func() { s.blame(ctx, req, err) }()
	defer func() { s.audit(ctx, info.FullMethod, req, resp, err) }()
	defer func() { err = recovered(recover(), err) }()
	if public(info.FullMethod) {
		if err := decoded(req); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
	var c inflight
	if ctx, err = s.admit(ctx, info.FullMethod, &c); err != nil {
		return nil, err
	}
	ctx, span = s.traced(ctx, info.FullMethod)
	if err := s.drain.begin(false); err != nil {
		return nil, err
	}
	defer s.drain.end(false)
	defer c.leave()
	if err := decoded(req); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	ctx, id := withRequestID(stream.Context())
	_ = stream.SetHeader(metadata.Pairs(requestIDHeader, id)) // see unary
	var span *callSpan                                        // see unary
	metered := &meteredStream{ServerStream: stream, parked: &s.parked}
	rpc := s.metrics.Begin(info.FullMethod)
	defer func() { ended(rpc, span, err); span.end(metered, nil, err) }()
	defer func() { err = s.failed(ctx, info.FullMethod, err) }()
	defer func() { s.blame(ctx, metered, err) }()
	defer func() { s.audit(ctx, info.FullMethod, nil, nil, err) }()
	defer func() { err = recovered(recover(), err) }()
	if public(info.FullMethod) {
		if err := s.parked.enterPublic(); err != nil {
			return err
		}
		defer s.parked.leavePublic()
		return next(srv, &contextStream{ServerStream: metered, ctx: ctx})
	}
	// A stream that only the server sends on is one call with a long answer: it is waited for like a unary one. Watch has no
	// end of its own.
	c := inflight{endless: endless(info)}
	if ctx, err = s.admit(ctx, info.FullMethod, &c); err != nil {
		return err
	}
	ctx, span = s.traced(ctx, info.FullMethod)
	metered.ServerStream = span.follow(stream, c.endless)
	ctx, cancel := untilExpiry(ctx)
	defer cancel()
	ctx, c.cancel = context.WithCancelCause(ctx)
	defer c.cancel(nil)
	s.open.add(&c)
	defer s.open.remove(&c)
	c.recheck(ctx, s.serving.Load().authenticator) // it may have changed before the stream was noted
	defer func() {
		if ends(context.Cause(ctx)) {
			err = context.Cause(ctx)
		}
	}()
	if err := s.drain.begin(c.endless); err != nil {
		return err
	}
	defer s.drain.end(c.endless)
	defer c.leave()
	return next(srv, &contextStream{ServerStream: metered, ctx: ctx})
}

// contextStream is a stream with a context of its own.
type contextStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context returns the context with the request id.
func (s *contextStream) Context() context.Context { return s.ctx }

// recovered makes an error of a panic: a fault in one call must not end the others.
func recovered(panicked any, err error) error {
	if panicked == nil {
		return err
	}
	return fmt.Errorf("panic: %v\n%s", panicked, debug.Stack())
}
