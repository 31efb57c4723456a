package client

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// How a stream works: one goroutine receives and one sends (outbox.go). What arrives is queued for Next, within bounds:
// a full queue stops the receiving, so that the server's own bounded buffers fill up and it counts what it drops. Only
// while a confirmation of Attach or Detach is awaited is the queue filled beyond, since the confirmation stands behind the
// messages in the stream and whoever awaits it may be the one who would call Next.

const (
	// maxAttach is how many identities one request to the server names.
	maxAttach = 10_000
	// maxQueued and maxQueuedBytes bound the messages, and their payloads, that wait for Next.
	maxQueued      = 1024
	maxQueuedBytes = 1 << 20
	// closeGrace is how long Close waits for the server to take the last acks.
	closeGrace = 2 * time.Second
)

// Stream receives the messages of any number of identities. All methods may be called concurrently; who calls Next must
// go on calling it, or the server begins to drop messages.
type Stream struct {
	c       *Client
	rpc     grpc.BidiStreamingClient[patternpb.SubscribeRequest, patternpb.SubscribeResponse]
	ctx     context.Context
	cancel  context.CancelFunc
	release context.CancelFunc // of the context that it was opened with; may be nil
	running sync.WaitGroup
	out     *outbox

	arrived chan struct{} // there is something for Next
	room    chan struct{} // the queue got shorter, or must be filled beyond its bounds
	ended   chan struct{} // closed when err is set: nothing arrives any more

	mu          sync.Mutex
	queue       []Event
	queued      int // messages in the queue
	queuedBytes int
	attaching   []chan struct{} // the Attach calls that wait for confirmation, oldest first
	detaching   []chan struct{}
	attached    map[string]struct{}
	closing     string // why the server said that it is about to end the stream
	closed      bool   // by Close
	err         error
}

// Subscribe opens a stream with no identities attached yet. It lives until Close, or until the context ends.
func (c *Client) Subscribe(ctx context.Context) (*Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	rpc, err := c.rpc.Subscribe(ctx)
	if err != nil {
		cancel()
		return nil, c.failed(err)
	}
	s := &Stream{
		c: c, rpc: rpc, ctx: ctx, cancel: cancel, out: newOutbox(), attached: make(map[string]struct{}),
		arrived: make(chan struct{}, 1), room: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	s.running.Go(s.receive)
	s.running.Go(func() { s.out.run(s.rpc, s.ended) })
	return s, nil
}

// Attach starts receiving the messages of identities, which need not be registered. When it returns, every message that
// is sent from now on arrives. With keepAlive the server renews their leases for as long as the stream lives; without,
// that ends. Attaching again only changes keepAlive. Messages of one sender to one identity arrive in the order of sending;
// what is sent while stored messages catch up waits for them.
func (s *Stream) Attach(ctx context.Context, keepAlive bool, ids ...string) error {
	return s.request(ctx, ids, &s.attaching, func(ids []string) *patternpb.SubscribeRequest {
		for _, id := range ids {
			s.attached[id] = struct{}{}
		}
		return &patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Attach{
			Attach: &patternpb.Attach{Namespace: s.c.namespace, Identities: ids, KeepAlive: keepAlive},
		}}
	})
}

// Detach stops receiving the messages of identities and keeping their leases alive. Messages that arrived before may still
// come out of Next.
func (s *Stream) Detach(ctx context.Context, ids ...string) error {
	return s.request(ctx, ids, &s.detaching, func(ids []string) *patternpb.SubscribeRequest {
		for _, id := range ids {
			delete(s.attached, id)
		}
		return detach(ids)
	})
}

func detach(ids []string) *patternpb.SubscribeRequest {
	return &patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Detach{Detach: &patternpb.Detach{Identities: ids}}}
}

// request sends identities in as many requests as it takes and waits for the confirmation of the last: the server
// confirms in order. build is called under s.mu.
func (s *Stream) request(
	ctx context.Context, ids []string, waiting *[]chan struct{}, build func([]string) *patternpb.SubscribeRequest,
) error {
	if len(ids) == 0 {
		return nil
	}
	for _, id := range ids {
		if err := multicastregistry.CheckIdentity(id); err != nil {
			return err
		}
	}
	var confirmed chan struct{}
	s.mu.Lock()
	for len(ids) > 0 {
		n := min(len(ids), maxAttach)
		confirmed = make(chan struct{})
		*waiting = append(*waiting, confirmed)
		s.out.put(build(ids[:n])) // under the lock, so that requests go out in the order of those who wait
		ids = ids[n:]
	}
	s.mu.Unlock()
	signal(s.room)
	select {
	case <-confirmed:
		return nil
	case <-s.ended:
		return s.reason()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Next waits for the next event. When the stream has ended it returns what arrived before, and then the reason:
// ErrUnavailable when the server drains or went away, io.EOF after Close. The context's error when the context ends; no
// message is lost by that.
func (s *Stream) Next(ctx context.Context) (Event, error) {
	for {
		if event, ok := s.take(); ok {
			return event, nil
		}
		select {
		case <-s.arrived:
		case <-s.ended:
			if event, ok := s.take(); ok {
				return event, nil
			}
			return Event{}, s.reason()
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

func (s *Stream) take() (Event, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 || s.closed {
		return Event{}, false
	}
	event := s.queue[0]
	s.queue[0] = Event{}
	s.queue = s.queue[1:]
	s.queued -= len(event.Messages)
	s.queuedBytes -= size(event)
	if len(s.queue) > 0 {
		signal(s.arrived) // for another caller of Next
	}
	signal(s.room)
	return event, true
}

func size(e Event) (bytes int) {
	for _, m := range e.Messages {
		bytes += len(m.Payload)
	}
	return bytes
}

// Ack acknowledges messages that this stream received. It does not wait: what gathers while the acks before are on their
// way goes out together. One that was acknowledged before is passed over by the server. The error is the reason why the
// stream has ended.
func (s *Stream) Ack(names ...MessageName) error { return s.send(names, Reply{}) }

// Answer is Ack for one message, with a reply to its sender. A body of more than MaxReplyBytes is an InvalidError, and the
// message is not acknowledged. The body must not be changed afterwards.
func (s *Stream) Answer(name MessageName, reply Reply) error {
	if err := checkReply(reply.Body); err != nil {
		return err
	}
	return s.send([]MessageName{name}, reply)
}

func (s *Stream) send(names []MessageName, reply Reply) error {
	if s.over() {
		return s.reason()
	}
	s.out.ack(names, reply)
	return nil
}

// over tells whether the stream has ended.
func (s *Stream) over() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// Close sends the acks that are waiting and ends the stream. Closing again does nothing.
func (s *Stream) Close() error {
	s.mu.Lock()
	s.closed = true
	s.queue = nil
	// A stream that only ends its sending goes on receiving what is attached; one with nothing attached is over.
	for ids := range slices.Chunk(slices.Collect(maps.Keys(s.attached)), maxAttach) {
		s.out.put(detach(ids))
	}
	clear(s.attached)
	s.mu.Unlock()
	signal(s.room)
	s.out.close()
	grace := time.NewTimer(closeGrace)
	defer grace.Stop()
	select {
	case <-s.ended:
	case <-grace.C:
	}
	s.cancel()
	s.running.Wait()
	if s.release != nil {
		s.release()
	}
	return nil
}

func (s *Stream) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return io.EOF
	}
	return s.err
}

// receive takes in what the server sends until the stream ends.
func (s *Stream) receive() {
	defer s.cancel()
	defer close(s.ended)
	for {
		response, err := s.rpc.Recv()
		if err != nil {
			s.mu.Lock()
			s.err = s.endedBy(err)
			s.mu.Unlock()
			return
		}
		s.dispatch(response)
		for !s.hasRoom() {
			select {
			case <-s.room:
			case <-s.ctx.Done(): // the next Recv says so
			}
			if s.ctx.Err() != nil {
				break
			}
		}
	}
}

// endedBy turns the error that ended the stream into the one that callers see. The caller holds s.mu.
func (s *Stream) endedBy(err error) error {
	if s.closing != "" && (errors.Is(err, io.EOF) || status.Code(err) == codes.Unavailable) {
		err = status.Error(codes.Unavailable, s.closing)
	}
	return s.c.failed(err)
}

func (s *Stream) hasRoom() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed || len(s.attaching)+len(s.detaching) > 0 || s.queued < maxQueued && s.queuedBytes < maxQueuedBytes
}

func (s *Stream) dispatch(response *patternpb.SubscribeResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r := response.GetResponse().(type) {
	case *patternpb.SubscribeResponse_Attached:
		confirm(&s.attaching)
	case *patternpb.SubscribeResponse_Detached:
		confirm(&s.detaching)
	case *patternpb.SubscribeResponse_Messages:
		event := Event{Messages: make([]Message, len(r.Messages.GetMessages())), Dropped: r.Messages.GetDropped()}
		for i, m := range r.Messages.GetMessages() {
			event.Messages[i] = fromMessage(m)
		}
		s.enqueue(event)
	case *patternpb.SubscribeResponse_LeaseLost:
		s.enqueue(Event{LeasesLost: r.LeaseLost.GetIdentities()})
	case *patternpb.SubscribeResponse_Closing:
		s.closing = r.Closing.GetReason()
	}
}

func (s *Stream) enqueue(event Event) {
	if s.closed {
		return
	}
	s.queue = append(s.queue, event)
	s.queued += len(event.Messages)
	s.queuedBytes += size(event)
	signal(s.arrived)
}

// confirm tells the one who has waited longest.
func confirm(waiting *[]chan struct{}) {
	if len(*waiting) > 0 {
		close((*waiting)[0])
		*waiting = (*waiting)[1:]
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
