package proxy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
)

// A call begins with its headers. Until its request follows it holds a goroutine, and nobody has been asked yet who is calling. A
// few such calls may wait for as long as they like, which costs a call that sends both at once nothing; beyond, they have a
// deadline, and beyond that new ones are refused.
const (
	parkedFree = 200
	parkedMost = 10_000
)

// maxPublic bounds the streams that need no credentials: health's and reflection's.
const maxPublic = 1000

// parked are the calls whose request has not arrived.
type parked struct {
	timeout time.Duration
	calls   atomic.Int64
	public  atomic.Int64 // streams that need no credentials, whether they wait or not
	pool    sync.Pool    // of *arrival
}

// tap is asked for each call when its headers have arrived, on the goroutine that reads from the connection.
func (p *parked) tap(ctx context.Context, _ *tap.Info) (context.Context, error) {
	switch n := p.calls.Load(); {
	case n < parkedFree:
		return ctx, nil
	case n >= parkedMost:
		return ctx, status.Errorf(codes.ResourceExhausted,
			"%d calls have sent headers and no request, at most %d may; try again", n, parkedMost)
	}
	held, cancel := context.WithCancel(ctx)
	d := &dated{Context: held}
	d.timer = time.AfterFunc(p.timeout, func() {
		d.late.Store(true)
		cancel()
	})
	return context.WithValue(d, datedKey{}, d), nil
}

type datedKey struct{}

// dated is the context of a call whose request must come in time.
type dated struct {
	context.Context

	timer *time.Timer
	late  atomic.Bool
}

// Err implements context.Context.
func (d *dated) Err() error {
	if d.late.Load() {
		return context.DeadlineExceeded
	}
	return d.Context.Err()
}

// arrived takes the deadline from a call whose request is there.
func arrived(ctx context.Context) {
	if d, ok := ctx.Value(datedKey{}).(*dated); ok {
		d.timer.Stop()
	}
}

// arrival is the wait for the request of one unary call. It is used again: a call costs no allocation.
type arrival struct {
	parked *parked
	dec    func(any) error
	decode func(any) error // the method of that name
}

func (a *arrival) wait(request any) error {
	a.parked.calls.Add(1)
	err := a.dec(request)
	a.parked.calls.Add(-1)
	a.dec = nil
	a.parked.pool.Put(a)
	return err
}

// registrar registers services whose unary calls are counted while they wait. Streams count in their interceptor.
type registrar struct {
	*grpc.Server

	parked *parked
}

// RegisterService implements grpc.ServiceRegistrar.
func (r registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	counted := *desc
	counted.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	for i, m := range desc.Methods {
		counted.Methods[i] = grpc.MethodDesc{MethodName: m.MethodName, Handler: func(
			srv any, ctx context.Context, dec func(any) error, intercept grpc.UnaryServerInterceptor,
		) (any, error) {
			a, ok := r.parked.pool.Get().(*arrival)
			if !ok {
				a = &arrival{parked: r.parked}
				a.decode = a.wait
			}
			a.dec = dec
			return m.Handler(srv, ctx, a.decode, intercept)
		}}
	}
	r.Server.RegisterService(&counted, impl)
}

// enterPublic counts a stream that needs no credentials in, and leavePublic out.
func (p *parked) enterPublic() error {
	if n := p.public.Add(1); n > maxPublic {
		p.public.Add(-1)
		return status.Errorf(codes.ResourceExhausted,
			"%d streams that need no credentials are open, at most %d may; try again", n-1, maxPublic)
	}
	return nil
}

func (p *parked) leavePublic() { p.public.Add(-1) }
