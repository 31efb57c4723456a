package client

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// How joining works. A membership owns one stream after the other. On each it first attaches the identities, then
// registers them, then attaches them again with keepAlive: so nobody can find an identity whose messages would not arrive,
// and no lease is renewed that does not exist yet. Messages that are no repeats (window.go) go through a bounded buffer to the
// workers, which call the handler and ack on the streams that the message came from. When a stream ends, the membership goes on
// from the start after a wait that grows with each failure in a row (backoff.go), for as long as the fault is one that can
// heal.

const (
	// buffered is how many messages wait for the handler before a membership stops reading its stream.
	buffered = 256
	// registerAtOnce bounds the registrations of one membership that are under way at the same time.
	registerAtOnce = 32
	// leaveGrace bounds the unregistering after the context has ended.
	leaveGrace = 3 * time.Second
	// steady is how long a stream must have lasted for the next failure to count as the first.
	steady = 2 * time.Second
)

// Handler is called with each message, and not with repeats of one that it has taken or is busy with: see WithWindow. A nil
// error acknowledges the message, with what Message.Reply has set; with an error it is not acknowledged: the sender learns that
// nobody took it, or hands it over again, or a durable queue delivers it again. The context ends with the membership's. A panic
// is the program's own and is not recovered.
type Handler func(ctx context.Context, m Message) error

// JoinOption changes how Join, JoinAll and Receive work.
type JoinOption func(*membership)

// WithConcurrency lets up to n calls of the handler run at once. Default: 1, which keeps the messages of a sender in order.
func WithConcurrency(n int) JoinOption { return func(m *membership) { m.workers = max(n, 1) } }

// WithoutUnregister leaves the identities registered when the context ends, until their leases do. What a durability
// backend stores for them stays too.
func WithoutUnregister() JoinOption { return func(m *membership) { m.stay = true } }

// WithKeepAlive makes Receive keep the leases of its identities alive, wherever they were registered. Join always does.
func WithKeepAlive() JoinOption { return func(m *membership) { m.keepAlive = true } }

// OnJoined is called whenever everything is in place: registered, attached, receiving. The hooks are called one at a time
// and hold up the membership, so they should return soon.
func OnJoined(f func()) JoinOption { return func(m *membership) { m.onJoined = f } }

// OnLeft is called once for each outage, with its reason: when a stream that was joined ends, or when the first attempt to
// join fails. It is not called for the context's end.
func OnLeft(f func(error)) JoinOption { return func(m *membership) { m.onLeft = f } }

// OnDropped is called with the number of messages that the server dropped because they were not handled fast enough.
func OnDropped(f func(messages uint64)) JoinOption { return func(m *membership) { m.onDropped = f } }

// OnLeasesLost is called with the identities that were not registered any more when their leases were to be renewed. Join
// registers them again by itself.
func OnLeasesLost(f func(ids []string)) JoinOption { return func(m *membership) { m.onLost = f } }

// Join makes this program the identity: it registers it (replacing an older registration), keeps its lease alive, hands
// every message to the handler, and acknowledges those that it handles without an error. After an outage, a drained
// server, or the loss of the lease it registers and attaches by itself again. It returns only when the context ends, whose
// error it returns after unregistering the identity; or when going on is pointless, with an error such as ErrInvalid,
// ErrUnsupported, or ErrNotFound for the namespace.
func (c *Client) Join(ctx context.Context, r Registration, handle Handler, opts ...JoinOption) error {
	return c.JoinAll(ctx, []Registration{r}, handle, opts...)
}

// JoinAll is Join for many identities over one stream.
func (c *Client) JoinAll(ctx context.Context, all []Registration, handle Handler, opts ...JoinOption) error {
	m := newMembership(c, handle, append(slices.Clip(opts), WithKeepAlive()))
	for _, r := range all {
		r.Mode = Replace
		if _, err := c.registerRequest(r); err != nil {
			return err
		}
		m.ids = append(m.ids, r.ID)
		m.registrations[r.ID] = r
	}
	return m.run(ctx)
}

// Receive is Join for identities that somebody else registers: it attaches them, hands their messages to the handler, and
// attaches them again after an outage. It registers and unregisters nothing.
func (c *Client) Receive(ctx context.Context, ids []string, handle Handler, opts ...JoinOption) error {
	m := newMembership(c, handle, opts)
	m.ids, m.stay = slices.Clone(ids), true
	return m.run(ctx)
}

// membership is one Join under way.
type membership struct {
	c             *Client
	ids           []string
	registrations map[string]Registration // by id; none when somebody else registers
	handle        Handler
	keepAlive     bool
	workers       int
	stay          bool
	onJoined      func()
	onLeft        func(error)
	onDropped     func(uint64)
	onLost        func([]string)

	window     *window
	work       chan delivery
	serving    sync.WaitGroup // the workers
	joined     bool           // on the present stream
	registered bool           // something may be left to unregister
	revisions  sync.Map       // Revision of what was registered, by id
}

// delivery is a message on its way to the handler.
type delivery struct {
	message Message
	stream  *Stream
	tracked bool // the window knows it
}

func newMembership(c *Client, handle Handler, opts []JoinOption) *membership {
	m := &membership{
		c: c, handle: handle, workers: 1, registrations: make(map[string]Registration), work: make(chan delivery, buffered),
		window:   newWindow(DefaultWindowMessages, DefaultWindowAge),
		onJoined: func() {}, onLeft: func(error) {}, onDropped: func(uint64) {}, onLost: func([]string) {},
	}
	for _, set := range opts {
		set(m)
	}
	return m
}

// run joins again and again until the context ends or a fault cannot heal.
func (m *membership) run(ctx context.Context) error {
	if m.handle == nil {
		return &InvalidError{Field: "handle", Problem: "must not be nil"}
	}
	if len(m.ids) == 0 {
		return &InvalidError{Field: "identity", Problem: "at least one is required"}
	}
	ctx, stop := context.WithCancel(ctx)
	for range m.workers {
		m.serving.Go(func() { m.serve(ctx) })
	}
	defer m.serving.Wait()
	defer stop()
	defer m.leave(ctx)

	var wait retry
	outage := false
	for {
		m.joined = false
		began := time.Now()
		err := m.once(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if m.c.endless(err) {
			return err
		}
		if m.joined || !outage {
			m.onLeft(err)
		}
		outage = true
		if m.joined && time.Since(began) > steady {
			wait = retry{}
		}
		if err := m.c.pause(ctx, wait.next()); err != nil {
			return err
		}
	}
}

// serve is one worker.
func (m *membership) serve(ctx context.Context) {
	for {
		select {
		case d := <-m.work:
			if ctx.Err() != nil {
				return
			}
			m.deliver(ctx, d)
		case <-ctx.Done():
			return
		}
	}
}

// deliver calls the handler and acknowledges what it takes.
func (m *membership) deliver(ctx context.Context, d delivery) {
	name := d.message.Name()
	for {
		d.message.answer = new(answer)
		err := m.call(ctx, d.message)
		reply := d.message.answer.take()
		switch {
		case err == nil && d.tracked:
			for _, stream := range m.window.done(name, reply) {
				respond(stream, name, reply)
			}
			return
		case err == nil && d.message.AckWanted:
			respond(d.stream, name, reply)
			return
		case !d.tracked || !m.window.failed(name) || ctx.Err() != nil:
			return
		}
		d.message.Redelivered = true
	}
}

// respond acknowledges a message. That the stream has ended is noticed by the one who reads it, and the message comes again.
func respond(stream *Stream, name MessageName, reply *Reply) {
	if reply == nil {
		reply = new(Reply)
	}
	_ = stream.Answer(name, *reply)
}

// once joins over one stream and stays until that ends. Its error is why. The stream outlives the context by a little, so
// that the last acks, and the unregistering, come before its end.
func (m *membership) once(ctx context.Context) error {
	s, err := m.open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // whose error is always nil
	err = m.stayOn(ctx, s)
	if ctx.Err() != nil {
		m.windUp(ctx, s)
	}
	return err
}

// windUp waits for the handlers and unregisters. A target that unregisters before its ack has arrived counts as gone: so the
// acks come first, unless a handler takes too long.
func (m *membership) windUp(ctx context.Context, s *Stream) {
	if m.stay || !m.registered {
		m.serving.Wait()
		return
	}
	idle := make(chan struct{})
	go func() {
		m.serving.Wait()
		close(idle)
	}()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveGrace)
	defer cancel()
	select {
	case <-idle:
		_ = s.Detach(grace, m.ids...) // confirmed when every ack before it has been passed on
	case <-grace.Done():
	}
	m.leave(ctx)
	<-idle
}

// open opens a stream that does not end with the context, though opening it does.
func (m *membership) open(ctx context.Context) (*Stream, error) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	abandon := context.AfterFunc(ctx, cancel)
	s, err := m.c.Subscribe(life)
	abandon()
	if err != nil {
		cancel()
		return nil, err
	}
	s.release = cancel
	return s, nil
}

func (m *membership) stayOn(ctx context.Context, s *Stream) error {
	if err := s.Attach(ctx, false, m.ids...); err != nil {
		return err
	}
	if err := m.register(ctx, m.ids); err != nil {
		return err
	}
	if m.keepAlive {
		if err := s.Attach(ctx, true, m.ids...); err != nil {
			return err
		}
	}
	m.joined = true
	m.onJoined()
	for {
		event, err := s.Next(ctx)
		if err != nil {
			return err
		}
		if err := m.take(ctx, s, event); err != nil {
			return err
		}
	}
}

func (m *membership) take(ctx context.Context, s *Stream, event Event) error {
	if event.Dropped > 0 {
		m.onDropped(event.Dropped)
	}
	for _, message := range event.Messages {
		tracked := message.AckWanted && message.ID != ""
		if tracked {
			verdict, reply := m.window.arrive(message.Name(), s)
			switch verdict {
			case fresh:
			case again:
				message.Redelivered = true
			case handled:
				respond(s, message.Name(), reply)
				continue
			case dropped:
				continue
			}
		}
		select {
		case m.work <- delivery{message, s, tracked}:
			continue
		case <-s.ended: // what is left is delivered again, or was never more than live
		case <-ctx.Done():
		}
		if tracked {
			m.window.drop(message.Name())
		}
		return cmp.Or(ctx.Err(), s.reason())
	}
	if len(event.LeasesLost) == 0 {
		return nil
	}
	m.onLost(event.LeasesLost)
	if len(m.registrations) == 0 {
		return nil
	}
	if err := m.register(ctx, event.LeasesLost); err != nil {
		return err
	}
	return s.Attach(ctx, true, event.LeasesLost...)
}

// register registers those of the identities that are this membership's to register.
func (m *membership) register(ctx context.Context, ids []string) error {
	m.registered = true
	return m.each(ctx, ids, func(ctx context.Context, r Registration) error {
		stored, err := m.c.Register(ctx, r)
		if err == nil {
			m.revisions.Store(r.ID, stored.Revision)
		}
		return err
	})
}

// leave unregisters what this membership registered, as far as that is possible in a short time, and leaves alone what
// another program has taken over since. Nobody waits for its errors: leases end by themselves.
func (m *membership) leave(ctx context.Context) {
	if m.stay || !m.registered {
		return
	}
	m.registered = false
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveGrace)
	defer cancel()
	_ = m.each(ctx, m.ids, func(ctx context.Context, r Registration) error {
		revision, ours := m.revisions.Load(r.ID)
		if !ours { // no registration of ours is known to have succeeded: what is there may be another program's
			return nil
		}
		_, err := m.c.UnregisterIf(ctx, r.ID, revision.(Revision))
		if errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		return nil
	})
}

func (m *membership) each(ctx context.Context, ids []string, do func(context.Context, Registration) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(registerAtOnce)
	for _, id := range ids {
		r, ours := m.registrations[id]
		if !ours {
			continue
		}
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return do(ctx, r)
		})
	}
	return group.Wait()
}
