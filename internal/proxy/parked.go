package proxy

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
)

// A call begins with its headers. Until its request follows it holds a goroutine, and nobody has been asked yet who is calling. A
// few such calls may wait for as long as they like, which costs a call that sends both at once nothing; beyond, they have a
// deadline, and beyond that new ones are refused: first on the connection that has most of them, so that it locks nobody out.
const (
	parkedFree = 200
	parkedEach = 500 // of one connection, of those with a deadline
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
	conns   sync.Map     // net.Addr, a pointer that a connection has for itself -> *atomic.Int64, of calls with a deadline
}

// tap is asked for each call when its headers have arrived, on the goroutine that reads from the connection.
func (p *parked) tap(ctx context.Context, _ *tap.Info) (context.Context, error) {
	n := p.calls.Load()
	if n < parkedFree {
		return ctx, nil
	}
	from, ok := peer.FromContext(ctx)
	if !ok || fromMemory(from.Addr) { // the gateway sends both at once
		return ctx, nil
	}
	entry, _ := p.conns.LoadOrStore(from.Addr, new(atomic.Int64))
	own := entry.(*atomic.Int64)
	if of := own.Add(1); of > parkedEach || n >= parkedMost {
		p.unpark(from.Addr, own)
		return ctx, status.Errorf(codes.ResourceExhausted, "calls have sent headers and no request: %d of this connection, of which "+
			"%d may, %d of all, of which %d may; try again", of-1, parkedEach, n, parkedMost)
	}
	held, cancel := context.WithCancel(ctx)
	d := &dated{Context: held}
	d.settle = sync.OnceFunc(func() { p.unpark(from.Addr, own) })
	context.AfterFunc(held, d.settle)
	d.timer = time.AfterFunc(p.timeout, func() {
		d.late.Store(true)
		cancel()
	})
	return context.WithValue(d, datedKey{}, d), nil
}

// unpark counts a call of a connection out.
func (p *parked) unpark(at net.Addr, own *atomic.Int64) {
	if own.Add(-1) == 0 {
		p.conns.CompareAndDelete(at, own) // who has it still counts on a number that nobody finds: a few calls too many
	}
}

type datedKey struct{}

// dated is the context of a call whose request must come in time.
type dated struct {
	context.Context

	timer  *time.Timer
	late   atomic.Bool
	settle func()
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
		d.settle()
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
