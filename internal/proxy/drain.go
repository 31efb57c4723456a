package proxy

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// lastWords bounds what comes after the last call has ended: sending trailers and closing idle connections.
const lastWords = time.Second

// drainer counts the calls in flight and knows whether the server, or a namespace of it, is leaving.
type drainer struct {
	leaving chan struct{}   // closed when draining begins
	serving context.Context //nolint:containedctx // ends when draining begins; of no request
	depart  context.CancelFunc
	quiet   chan struct{}   // closed when, while draining, the last call has ended
	empty   chan struct{}   // closed when, while draining, the last call and the last stream have ended
	whole   context.Context //nolint:containedctx // ends when the streams that are left are cut off; of no request
	cut     context.CancelFunc

	mu       sync.Mutex
	left     bool
	calls    int
	streams  int // of subscribers, which end when nothing more can come
	children map[*drainer]struct{}
}

func newDrainer() *drainer {
	d := &drainer{
		leaving: make(chan struct{}), quiet: make(chan struct{}), empty: make(chan struct{}), children: make(map[*drainer]struct{}),
	}
	d.serving, d.depart = context.WithCancel(context.Background())
	d.whole, d.cut = context.WithCancel(context.Background())
	return d
}

// child returns a drainer of a part: its streams are told also when the whole leaves, which refuses no call of the part that has
// begun with the whole.
func (d *drainer) child() *drainer {
	c := newDrainer()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.children[c] = struct{}{}
	d.tell(c)
	return c
}

// forget lets go of a child.
func (d *drainer) forget(c *drainer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.children, c)
	c.depart()
	c.cut()
}

// tell passes on to a child what has come true. The caller holds d.mu.
func (d *drainer) tell(c *drainer) {
	if !d.left {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	closeOnce(c.leaving)
	c.depart()
	if d.calls == 0 {
		closeOnce(c.quiet)
	}
}

// errLeft refuses a call that comes too late.
var errLeft = status.Error(codes.Unavailable, "the server is shutting down; call again, perhaps elsewhere")

// begin counts a call, or an endless stream, in; end must be called when it has ended. It refuses once draining has begun.
func (d *drainer) begin(endless bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left {
		return errLeft
	}
	d.count(endless, 1)
	return nil
}

// end counts out what begin counted in.
func (d *drainer) end(endless bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count(endless, -1)
	d.settle()
}

func (d *drainer) count(endless bool, by int) {
	if endless {
		d.streams += by
	} else {
		d.calls += by
	}
}

// untilLeaving returns a context that ends when draining begins.
func (d *drainer) untilLeaving(ctx context.Context) (context.Context, context.CancelFunc) {
	life, cancel := context.WithCancel(ctx)
	forget := context.AfterFunc(d.serving, cancel)
	return life, func() {
		forget()
		cancel()
	}
}

// leave begins draining.
func (d *drainer) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = true
	closeOnce(d.leaving)
	d.depart()
	d.settle()
}

// settle closes what has come true. The caller holds d.mu.
func (d *drainer) settle() {
	if !d.left {
		return
	}
	for c := range d.children {
		d.tell(c)
	}
	if d.calls > 0 {
		return
	}
	closeOnce(d.quiet)
	if d.streams == 0 {
		closeOnce(d.empty)
	}
}

func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// Drain ends the server. From its first moment health says NOT_SERVING and /readyz 503, new calls are refused with
// UNAVAILABLE and every stream is told Closing. Calls in flight finish; streams go on delivering and taking acks for them
// and end when the last one has, or a moment later. When ctx ends, whatever still runs is cut off. Drain returns when
// everything has ended, with the context's error if something had to be cut. Calling it again waits for the same end.
func (s *Server) Drain(ctx context.Context) error {
	s.drainOnce.Do(func() { s.drainErr = s.drainNow(ctx) })
	return s.drainErr
}

func (s *Server) drainNow(ctx context.Context) error {
	s.health.Shutdown()
	s.drain.leave()
	var cut error
	select {
	case <-s.drain.empty:
	case <-ctx.Done():
		cut = ctx.Err()
	}
	last, cancel := context.WithTimeout(ctx, lastWords)
	defer cancel()
	if err := s.http.Shutdown(last); err != nil {
		_ = s.http.Close() // says again that connections were cut
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.grpc.GracefulStop()
	}()
	select {
	case <-stopped:
	case <-last.Done():
		s.grpc.Stop()
		<-stopped
	}
	_ = s.conn.Close()
	_ = s.pipe.Close()
	s.requests.Wait()
	s.streams.Wait()
	s.sparing.flush() //nolint:contextcheck // of calls that have ended
	return cut
}
