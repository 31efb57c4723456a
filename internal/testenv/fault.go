package testenv

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Fault is a TCP proxy on loopback that misbehaves on request: clients connect to Addr instead of to the server. It starts
// healthy. Its methods may be called from any goroutine and take effect before they return; it ends with the test.
//
// A server that tells its clients about other addresses (NATS and Redis clusters do) leads them around the proxy.
type Fault struct {
	// Addr is "127.0.0.1:port", the same before and after Cut.
	Addr string

	t        testing.TB
	upstream string
	wg       sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil while cut
	links    map[*link]struct{}
	delay    time.Duration
	open     chan struct{} // closed while bytes may pass
	stalled  bool
	ended    bool
}

// NewFault starts a proxy to upstream, "host:port".
func NewFault(t testing.TB, upstream string) *Fault {
	t.Helper()
	f := &Fault{t: t, upstream: upstream, links: make(map[*link]struct{}), open: make(chan struct{})}
	close(f.open)
	for f.listener == nil {
		port, err := freePort()
		if err != nil {
			t.Fatal(err)
		}
		f.Addr = loopback(port)
		if err := f.listen(); err != nil && !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatalf("testenv: fault: %v", err)
		}
	}
	t.Cleanup(func() {
		f.mu.Lock()
		f.ended = true
		f.mu.Unlock()
		f.Cut()
		f.wg.Wait()
	})
	return f
}

// Cut closes all connections and refuses new ones.
func (f *Fault) Cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listener != nil {
		_ = f.listener.Close()
		f.listener = nil
	}
	f.drop(false)
}

// Reset ends all connections with a TCP reset, as a server or a firewall does that has forgotten them: what was on its way is
// lost. New connections are served.
func (f *Fault) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drop(true)
}

// Delay holds back every chunk of bytes, in both directions, for d: a round trip takes at least 2d. Chunks of one direction
// wait one after the other. Zero ends it.
func (f *Fault) Delay(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay = d
}

// Stall keeps connections, accepts new ones and forwards nothing, not even that a side has closed, as a network does that loses
// every packet. What was sent meanwhile passes after Heal.
func (f *Fault) Stall() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.stalled {
		f.stalled, f.open = true, make(chan struct{})
	}
}

// Heal ends whatever fault there is.
func (f *Fault) Heal() {
	f.t.Helper()
	if err := await(f.heal); err != nil {
		f.t.Errorf("testenv: fault: listen on %s again: %v", f.Addr, err)
	}
}

func (f *Fault) heal() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay = 0
	if f.stalled {
		f.stalled = false
		close(f.open)
	}
	if f.listener != nil || f.ended {
		return nil
	}
	return f.listen()
}

// listen opens Addr and serves it. The lock is held, or nobody else knows the proxy yet.
func (f *Fault) listen() error {
	l, err := net.Listen("tcp", f.Addr) //nolint:noctx // a bind to a number does not block
	if err != nil {
		return err
	}
	f.listener = l
	f.wg.Go(func() { f.accept(l) })
	return nil
}

// accept serves one listener until it is closed.
func (f *Fault) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			f.t.Errorf("testenv: fault: accept on %s: %v", f.Addr, err)
			return
		}
		f.admit(l, conn)
	}
}

// admit starts to serve a connection, unless the proxy was cut since it came in.
func (f *Fault) admit(l net.Listener, conn net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listener != l {
		_ = conn.Close()
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	k := &link{ctx: ctx, cancel: cancel, conns: []net.Conn{conn}}
	f.links[k] = struct{}{}
	f.wg.Go(func() {
		f.serve(k, conn)
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.links, k)
	})
}

// serve forwards both directions until both have ended.
func (f *Fault) serve(k *link, client net.Conn) {
	defer k.close(false)
	server, err := new(net.Dialer).DialContext(k.ctx, "tcp", f.upstream)
	if err != nil {
		k.close(true) // the server refused: so does the proxy, as far as it can
		return
	}
	if !k.add(server) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { f.pump(k, server, client) })
	both.Go(func() { f.pump(k, client, server) })
	both.Wait()
}

// pump forwards one direction. A side that has closed is passed on as such; a broken connection breaks the other side too.
func (f *Fault) pump(k *link, to, from net.Conn) {
	chunk := make([]byte, 32<<10)
	for {
		n, readErr := from.Read(chunk)
		if !f.pass(k) {
			return
		}
		if _, err := to.Write(chunk[:n]); err != nil {
			k.close(true)
			return
		}
		switch {
		case errors.Is(readErr, io.EOF):
			_ = to.(*net.TCPConn).CloseWrite()
			return
		case readErr != nil:
			k.close(true)
			return
		}
	}
}

// pass waits until the next chunk may be forwarded; it returns false if the connection is closed first.
func (f *Fault) pass(k *link) bool {
	f.mu.Lock()
	open, delay := f.open, f.delay
	f.mu.Unlock()
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-k.ctx.Done():
			return false
		}
		f.mu.Lock()
		open = f.open
		f.mu.Unlock()
	}
	for {
		select {
		case <-open:
		case <-k.ctx.Done():
			return false
		}
		f.mu.Lock()
		again := f.open
		f.mu.Unlock()
		if again == open {
			return k.ctx.Err() == nil
		}
		open = again // stalled once more
	}
}

// drop closes all connections. The lock is held.
func (f *Fault) drop(reset bool) {
	for k := range f.links {
		k.close(reset)
	}
	clear(f.links)
}

// link is one connection through the proxy: the client's side and, once it is dialled, the server's.
type link struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	conns  []net.Conn
	closed bool
}

// add takes a connection over; it returns false, and closes it, if the link is closed.
func (k *link) add(conn net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		_ = conn.Close()
		return false
	}
	k.conns = append(k.conns, conn)
	return true
}

// close closes both sides, once; reset drops what is on its way and tells so by a TCP reset.
func (k *link) close(reset bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return
	}
	k.closed = true
	k.cancel()
	for _, conn := range k.conns {
		if tcp, ok := conn.(*net.TCPConn); ok && reset {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
}
