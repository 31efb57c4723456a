package testenv

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// echo is a server that returns what it gets; it ends with the test.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	// Registered before the proxy's, so it runs after: by then all connections are closed.
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// talker is a client of the echo.
type talker struct {
	*net.TCPConn
	t *testing.T
}

func dial(t *testing.T, addr string) talker {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return talker{conn.(*net.TCPConn), t}
}

// say sends a word.
func (k talker) say(word string) {
	k.t.Helper()
	if _, err := io.WriteString(k, word); err != nil {
		k.t.Fatalf("say %q: %v", word, err)
	}
}

// hear waits for a word.
func (k talker) hear(word string) {
	k.t.Helper()
	got := make([]byte, len(word))
	_ = k.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(k, got); err != nil || string(got) != word {
		k.t.Fatalf("heard %q, %v, want %q", got, err, word)
	}
}

// silence returns how reading ends within d.
func (k talker) silence(d time.Duration) error {
	k.t.Helper()
	_ = k.SetReadDeadline(time.Now().Add(d))
	n, err := k.Read(make([]byte, 1))
	if n > 0 {
		k.t.Fatal("heard something")
	}
	return err
}

func TestFaultForwards(t *testing.T) {
	f := NewFault(t, echo(t))
	k := dial(t, f.Addr)
	k.say("hello")
	k.hear("hello")
	k.say("last words")
	if err := k.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	k.hear("last words")
	if err := k.silence(patience); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v, want EOF", err)
	}
}

func TestFaultCut(t *testing.T) {
	f := NewFault(t, echo(t))
	addr := f.Addr
	k := dial(t, addr)
	k.say("a")
	k.hear("a")
	for range 3 {
		f.Cut()
		f.Cut()
		if err := k.silence(patience); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("connection after the cut: %v", err)
		}
		if conn, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
			if err == nil {
				conn.Close()
			}
			t.Errorf("new connection after the cut: %v, want refused", err)
		}
		f.Heal()
		k = dial(t, addr)
		k.say("b")
		k.hear("b")
	}
	if f.Addr != addr {
		t.Errorf("address %s, was %s", f.Addr, addr)
	}
}

func TestFaultReset(t *testing.T) {
	f := NewFault(t, echo(t))
	k := dial(t, f.Addr)
	k.say("a")
	k.hear("a")
	f.Reset()
	if err := k.silence(patience); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("connection after the reset: %v, want reset by peer", err)
	}
	k = dial(t, f.Addr)
	k.say("b")
	k.hear("b")
}

func TestFaultDelay(t *testing.T) {
	f := NewFault(t, echo(t))
	k := dial(t, f.Addr)
	const d = 60 * time.Millisecond
	f.Delay(d)
	start := time.Now()
	k.say("a")
	k.hear("a")
	if took := time.Since(start); took < 2*d {
		t.Errorf("a round trip took %s, want at least %s", took, 2*d)
	}
	f.Delay(time.Hour)
	k.say("b")
	if err := k.silence(50 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an hour's delay: %v, want nothing", err)
	}
	f.Reset() // does not wait for the hour
	f.Heal()
	k = dial(t, f.Addr)
	k.say("c")
	k.hear("c")
}

func TestFaultStall(t *testing.T) {
	f := NewFault(t, echo(t))
	old := dial(t, f.Addr)
	old.say("a")
	old.hear("a")
	f.Stall()
	f.Stall()
	fresh := dial(t, f.Addr)
	for _, k := range []talker{old, fresh} {
		k.say("b")
		if err := k.silence(50 * time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("stalled connection: %v, want nothing", err)
		}
	}
	f.Heal()
	old.hear("b")
	fresh.hear("b")
	f.Stall()
	old.say("c") // ends while stalled
}

func TestFaultWithoutServer(t *testing.T) {
	gone, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	f := NewFault(t, loopback(gone))
	conn, err := net.Dial("tcp", f.Addr)
	if err == nil {
		defer conn.Close()
		err = talker{conn.(*net.TCPConn), t}.silence(patience)
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want reset by peer", err)
	}
}

// TestFaultUnderLoad breaks connections in every way while many clients talk; the race detector and the leak check look on.
func TestFaultUnderLoad(t *testing.T) {
	f := NewFault(t, echo(t))
	end := make(chan struct{})
	var wg sync.WaitGroup
	var heard, broken atomic.Int64
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				conn, err := net.Dial("tcp", f.Addr)
				if err != nil {
					broken.Add(1)
					continue
				}
				_ = conn.SetDeadline(time.Now().Add(20 * time.Millisecond))
				_, _ = io.WriteString(conn, "word")
				if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
					broken.Add(1)
				} else {
					heard.Add(1)
				}
				_ = conn.Close()
			}
		})
	}
	tick := time.NewTicker(2 * time.Millisecond) // the clients' chance to get between
	defer tick.Stop()
	for range 20 {
		for _, fault := range []func(){f.Cut, f.Heal, f.Reset, f.Stall, func() { f.Delay(time.Millisecond) }, f.Reset, f.Heal} {
			fault()
			<-tick.C
		}
	}
	close(end)
	wg.Wait()
	if heard.Load() == 0 || broken.Load() == 0 {
		t.Errorf("%d round trips, %d broken: want some of both", heard.Load(), broken.Load())
	}
	f.Heal()
	k := dial(t, f.Addr)
	k.say("still here")
	k.hear("still here")
}
