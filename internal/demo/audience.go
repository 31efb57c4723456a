package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/prism-data-layer/prism/client"
)

// audience is the subscribers of all stations, on a few streams. It counts what arrives before it acknowledges it.
type audience struct {
	streams []*client.Stream
	stop    context.CancelFunc
	reading sync.WaitGroup

	mu    sync.Mutex
	names map[string]map[string]struct{} // the identities that a multicast came for, by its id: a repeat counts once
}

// attach subscribes for every registration and keeps the leases alive.
func attach(ctx context.Context, c *client.Client, registrations []client.Registration, p *Printer) (*audience, error) {
	if len(registrations) == 0 {
		return nil, errNoStations
	}
	words := fmt.Sprintf("for all of them, on %d streams that also keep the leases alive", streams)
	step := p.begin("subscribe", words, len(registrations))
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	a := &audience{stop: stop, names: make(map[string]map[string]struct{})}
	for share := range slices.Chunk(registrations, (len(registrations)+streams-1)/streams) {
		stream, err := c.Subscribe(life)
		if err != nil {
			a.close()
			return nil, fmt.Errorf("subscribe: %w", err)
		}
		a.streams = append(a.streams, stream)
		a.reading.Go(func() { a.read(life, stream) })
		ids := make([]string, len(share))
		for i, r := range share {
			ids[i] = r.ID
		}
		if err := stream.Attach(ctx, true, ids...); err != nil {
			a.close()
			return nil, fmt.Errorf("subscribe: %w", err)
		}
		step.advance(len(ids))
	}
	step.endf("%s subscribers attached", thousands(len(registrations)))
	return a, nil
}

// read counts and acknowledges messages until the stream ends.
func (a *audience) read(ctx context.Context, stream *client.Stream) {
	for {
		event, err := stream.Next(ctx)
		if err != nil {
			return
		}
		names := make([]client.MessageName, len(event.Messages))
		a.mu.Lock()
		for i, m := range event.Messages {
			if a.names[m.ID] == nil {
				a.names[m.ID] = make(map[string]struct{})
			}
			a.names[m.ID][m.Identity] = struct{}{}
			names[i] = client.MessageName{Identity: m.Identity, ID: m.ID}
		}
		a.mu.Unlock()
		if err := stream.Ack(names...); err != nil {
			return
		}
	}
}

// received returns how many messages of a multicast arrived.
func (a *audience) received(id string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.names[id])
}

func (a *audience) close() {
	var errs []error
	for _, s := range a.streams {
		errs = append(errs, s.Close())
	}
	a.stop()
	a.reading.Wait()
	_ = errors.Join(errs...) // the demo is over; a stream that fails to close has nobody to tell
}
