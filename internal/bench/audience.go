package bench

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prism-data-layer/prism/client"
)

// audience is the subscribers: of all identities that multicasts go to, on a few streams, and on streams of their own those that
// come and go. Each stream counts what arrives before it acknowledges it.
type audience struct {
	tally    *tally
	recorder *recorder

	streams    []*listener
	stop       context.CancelFunc
	listening  sync.WaitGroup
	dropped    atomic.Uint64
	reconnects atomic.Uint64
}

// listener is one stream, which is opened anew when it ends.
type listener struct {
	client *client.Client
	ids    []string

	mu     sync.Mutex
	stream *client.Stream
}

// retryStream is how long a listener waits before it opens a stream that has ended.
const retryStream = 100 * time.Millisecond

// listen attaches to identities, so many on each of the streams in turn, and returns when all are attached. A stream without
// identities is open for those that come and go.
func (a *audience) listen(ctx context.Context, clients []*client.Client, streams int, ids []string, attached func(n int)) error {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	a.stop = stop
	share := (len(ids) + streams - 1) / streams
	for i := range streams {
		l := &listener{client: clients[i%len(clients)], ids: ids[min(i*share, len(ids)):min((i+1)*share, len(ids))]}
		if err := l.open(ctx, life); err != nil {
			return err
		}
		attached(len(l.ids))
		a.streams = append(a.streams, l)
		a.listening.Go(func() { a.follow(life, l) })
	}
	return nil
}

// open opens the stream, which lives as long as life.
func (l *listener) open(ctx, life context.Context) error {
	stream, err := l.client.Subscribe(life)
	if err != nil {
		return err
	}
	if err := stream.Attach(ctx, true, l.ids...); err != nil {
		_ = stream.Close() // it is of no use, and why has been said
		return err
	}
	l.mu.Lock()
	l.stream = stream
	l.mu.Unlock()
	return nil
}

func (l *listener) current() *client.Stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stream
}

// follow takes in what arrives, on one stream after the other.
func (a *audience) follow(ctx context.Context, l *listener) {
	for {
		a.read(ctx, l.current())
		for err := ctx.Err(); err == nil; err = ctx.Err() {
			a.reconnects.Add(1)
			if l.open(ctx, ctx) == nil {
				break
			}
			select {
			case <-time.After(retryStream):
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}

func (a *audience) read(ctx context.Context, stream *client.Stream) {
	for {
		event, err := stream.Next(ctx)
		if err != nil {
			_ = stream.Close() // it has ended
			return
		}
		a.dropped.Add(event.Dropped)
		now := time.Now()
		names := make([]client.MessageName, 0, len(event.Messages))
		for i := range event.Messages {
			m := &event.Messages[i]
			if due, ok := a.tally.received(m.Identity, m.Payload); ok {
				a.recorder.ended(Arrival, due, due, now, "")
			}
			if m.AckWanted {
				names = append(names, m.Name())
			}
		}
		if len(names) > 0 && stream.Ack(names...) != nil {
			return // Next tells why
		}
	}
}

// close ends all streams.
func (a *audience) close() {
	if a.stop == nil {
		return
	}
	a.stop()
	a.listening.Wait()
}
