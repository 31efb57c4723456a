package nats

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// pings counts the PINGs, which flushes consist of, that go through it.
type pings struct {
	addr string
	n    atomic.Int64
}

func newPings(t *testing.T, upstream string) *pings {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &pings{addr: l.Addr().String()}
	var running sync.WaitGroup
	t.Cleanup(running.Wait)
	t.Cleanup(func() { _ = l.Close() })
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", upstream)
			if err != nil {
				t.Error(err)
				return
			}
			running.Go(func() {
				_, _ = io.Copy(client, server)
				_ = client.Close()
			})
			running.Go(func() {
				_, _ = io.Copy(server, io.TeeReader(client, p))
				_ = server.Close()
			})
		}
	})
	return p
}

// Write counts; a PING is small and the last that a flush writes, so it comes whole.
func (p *pings) Write(b []byte) (int, error) {
	p.n.Add(int64(bytes.Count(b, []byte("PING\r\n"))))
	return len(b), nil
}

// TestOneFlushForABatch pins a fault of an earlier attempt, which flushed for each target.
func TestOneFlushForABatch(t *testing.T) {
	p := newPings(t, strings.TrimPrefix(testenv.NATS(t).URL, "nats://"))
	c, err := Open(t.Context(), Config{Servers: []string{"nats://" + p.addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := NewMessaging(c, MessagingConfig{})
	batch := make([]mr.Message, 1000)
	for i := range batch {
		id := fmt.Sprint(i)
		batch[i] = mr.Message{Topic: mr.Topic(testenv.Prefix(t), id), Identity: id, ID: "x", Payload: []byte("hello")}
	}
	before := p.n.Load()
	if err := errors.Join(m.Publish(t.Context(), batch)...); err != nil {
		t.Fatal(err)
	}
	if flushes := p.n.Load() - before; flushes < 1 || flushes > 2 { // a keep-alive may fall in between
		t.Errorf("%d flushes for one batch", flushes)
	}
}

// TestReconnectsForEver pins another: a server that was away for 30 seconds was never found again.
func TestReconnectsForEver(t *testing.T) {
	c, err := Open(t.Context(), Config{Servers: []string{testenv.NATS(t).URL}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if o := c.nc.Opts; !o.AllowReconnect || o.MaxReconnect != -1 {
		t.Errorf("reconnects: %v, at most %d times; want for ever", o.AllowReconnect, o.MaxReconnect)
	}
	longest := c.nc.Opts.CustomReconnectDelayCB(1000)
	if longest <= 0 || longest > 10*time.Second {
		t.Errorf("after 1,000 attempts in vain the next comes after %v", longest)
	}
}
