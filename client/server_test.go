package client_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/app"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for something that is bound to happen.
const patience = time.Minute

// server is a real server in this process, on memory.
type server struct {
	addr string
	stop func() // drains; calling it again does nothing
}

func serve(tb testing.TB, grpcAddr string, change ...func(*app.Config)) *server {
	tb.Helper()
	s, err := start(grpcAddr, change...)
	if err != nil {
		tb.Fatalf("start the server: %v", err)
	}
	tb.Cleanup(s.stop)
	return s
}

func start(grpcAddr string, change ...func(*app.Config)) (*server, error) {
	cfg := app.Default()
	for _, f := range change {
		f(&cfg)
	}
	cfg.Listen.GRPC, cfg.Listen.HTTP = grpcAddr, "127.0.0.1:0"
	cfg.DrainTimeout = 2 * time.Second
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- app.Run(ctx, cfg, nil, func(at app.Addresses) { ready <- at.GRPC }) }()
	select {
	case addr := <-ready:
		return &server{addr: addr, stop: sync.OnceFunc(func() { cancel(); <-ended })}, nil
	case err := <-ended:
		cancel()
		return nil, err
	}
}

func dial(tb testing.TB, addr string, opts ...client.Option) *client.Client {
	tb.Helper()
	c, err := client.Dial(addr, opts...)
	if err != nil {
		tb.Fatalf("Dial(%q): %v", addr, err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

// newClient is a client of a server of its own.
func newClient(tb testing.TB) *client.Client {
	tb.Helper()
	return dial(tb, serve(tb, "127.0.0.1:0").addr)
}

// durable fills the durability slot, which also keeps multicasts.
func durable(cfg *app.Config) { cfg.Namespaces[0].Durability.Type = "memory" }

// newDurableClient is a client of a server of its own that keeps what was not acknowledged.
func newDurableClient(tb testing.TB) *client.Client {
	tb.Helper()
	return dial(tb, serve(tb, "127.0.0.1:0", durable).addr)
}

func withPatience(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	tb.Cleanup(cancel)
	return ctx
}

// eventually polls until a condition holds.
func eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			tb.Fatalf("waited %s in vain: %s", patience, what)
		}
		<-tick.C
	}
}

// wire is a cable between clients and a server that can be cut and joined again, always at the same address.
type wire struct {
	tb   testing.TB
	addr string

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]bool
	running  sync.WaitGroup
}

func newWire(tb testing.TB, to string) *wire {
	tb.Helper()
	w := &wire{tb: tb, addr: "127.0.0.1:0", conns: make(map[net.Conn]bool)}
	w.join(to)
	tb.Cleanup(w.cut)
	return w
}

// join lets connections through to a server.
func (w *wire) join(to string) {
	w.tb.Helper()
	var l net.Listener
	eventually(w.tb, "the address is free again", func() (ok bool) {
		var err error
		l, err = net.Listen("tcp", w.addr)
		return err == nil
	})
	w.addr = l.Addr().String()
	w.mu.Lock()
	w.listener = l
	w.mu.Unlock()
	w.running.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			w.running.Go(func() { w.carry(from, to) })
		}
	})
}

func (w *wire) carry(from net.Conn, addr string) {
	defer from.Close()
	to, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer to.Close()
	w.mu.Lock()
	if w.listener == nil {
		w.mu.Unlock()
		return
	}
	w.conns[from], w.conns[to] = true, true
	w.mu.Unlock()
	w.running.Go(func() {
		io.Copy(to, from)
		to.Close()
	})
	io.Copy(from, to)
}

// cut breaks every connection and refuses new ones, as the death of a process does.
func (w *wire) cut() {
	w.mu.Lock()
	if w.listener != nil {
		w.listener.Close()
		w.listener = nil
	}
	for conn := range w.conns {
		conn.Close()
	}
	clear(w.conns)
	w.mu.Unlock()
	w.running.Wait()
}

func isInvalid(err error, field string) bool {
	var invalid *client.InvalidError
	return errors.As(err, &invalid) && invalid.Field == field && errors.Is(err, client.ErrInvalid)
}
