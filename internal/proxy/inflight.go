package proxy

import (
	"context"
	"reflect"
	"sync"

	"github.com/prism-data-layer/prism/internal/auth"
)

// inflight is one call of the service, for what must know of it while it lasts.
type inflight struct {
	admitted

	op      auth.Operation
	endless bool                    // a stream without an end of its own
	cancel  context.CancelCauseFunc // of a stream

	mu     sync.Mutex
	over   bool
	in     *drainer // of the namespace that it has entered
	forget func() bool
}

type inflightKey struct{}

// callOf returns the call that an interceptor has put into a context.
func callOf(ctx context.Context) *inflight {
	c, _ := ctx.Value(inflightKey{}).(*inflight)
	return c
}

// enter counts the call in a namespace, once, until it leaves. A goroutine of a stream may come when the stream has ended.
func (c *inflight) enter(in *drainer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.over:
		return context.Canceled
	case c.in != nil:
		return nil
	}
	if err := in.begin(c.endless); err != nil {
		return err
	}
	c.in = in
	if c.cancel != nil {
		c.forget = context.AfterFunc(in.whole, func() { c.cancel(errMoved) })
	}
	return nil
}

func (c *inflight) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if c.forget != nil {
		c.forget()
	}
	if c.in != nil {
		c.in.end(c.endless)
	}
}

// calls are the streams that are open.
type calls struct {
	mu  sync.Mutex
	all map[*inflight]struct{}
}

// add notes a stream.
func (s *calls) add(c *inflight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[*inflight]struct{})
	}
	s.all[c] = struct{}{}
}

// remove forgets a stream.
func (s *calls) remove(c *inflight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, c)
}

// recheck ends the streams whose credentials the authenticator, or nil, does not accept, or not for the same caller.
func (s *calls) recheck(ctx context.Context, authenticator *auth.Authenticator) {
	s.mu.Lock()
	open := make([]*inflight, 0, len(s.all))
	for c := range s.all {
		open = append(open, c)
	}
	s.mu.Unlock()
	for _, c := range open {
		c.recheck(ctx, authenticator)
	}
}

func (c *inflight) recheck(ctx context.Context, authenticator *auth.Authenticator) {
	if !c.accepted(ctx, authenticator) {
		c.cancel(errRevoked)
	}
}

// accepted tells whether another authenticator finds the same caller.
func (a *admitted) accepted(ctx context.Context, authenticator *auth.Authenticator) bool {
	if a.by == authenticator {
		return true
	}
	var now auth.Caller
	var err error
	if authenticator != nil {
		now, err = authenticator.Authenticate(ctx, a.shown)
	}
	return err == nil && reflect.DeepEqual(now, a.caller)
}
