package proxy

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/limits"
	"github.com/prism-data-layer/prism/internal/metrics"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// How a stream flows. Three goroutines and the handler share it, so that a client that is slow in one direction holds up
// nothing in the other:
//
//	receive   reads requests: attaches, detaches, acks. Confirmations go into a short queue.
//	pump      takes events from the coordinator's subscriber, one at a time.
//	send      writes confirmations and events, in frames of bounded size, and the notice that the server is leaving.
//
// A client that stops reading blocks send, then pump, and then the subscription's own buffer drops and counts: that client
// loses messages, nobody else waits, and its acks are still taken. The handler opens the subscriber, waits for the first
// end (client gone, fault, shutdown), closes the subscriber and returns. A Recv or Send of grpc-go that is blocked ends
// when the handler has returned and not before, so the server waits for receive and send when it drains.
const (
	// maxAttach is the most identities in one attach or detach.
	maxAttach = 10_000
	// frameMessages and frameBytes bound one frame; a single larger message travels alone.
	frameMessages = 256
	frameBytes    = 1 << 20
	// maxConfirmations bounds the confirmations that wait for a client to read. Behind them receive waits.
	maxConfirmations = 16
	// ackGrace is how long a stream outlives the last call of a server that is leaving, when acks are still on their way.
	ackGrace = time.Second
	// settleGrace is how long a stream waits then for messages that were accepted and are not written yet.
	settleGrace = 50 * time.Millisecond
	// farewell bounds the wait for a client that does not read to take what was sent last.
	farewell = time.Second
)

// subscription is one Subscribe stream.
type subscription struct {
	server *Server
	wire   grpc.BidiStreamingServer[patternpb.SubscribeRequest, patternpb.SubscribeResponse]
	life   context.Context
	end    context.CancelCauseFunc

	confirmations chan *patternpb.SubscribeResponse
	wanted        chan *served  // the namespace of the first attach; receive asks, the handler opens
	open          chan struct{} // closed when sub and drain are set
	sub           *multicastregistry.Subscriber
	drain         *drainer           // of the namespace
	metrics       *metrics.Namespace // set before the namespace is wanted

	unacked atomic.Int64  // messages that were sent and want an ack, less the acks that came
	acked   chan struct{} // an ack came

	// Of receive alone.
	namespace string
	attached  map[string]struct{}
	taken     *limits.Stream // of the namespace's limits
	badAcks   int
}

var (
	// errServed ends a stream whose client has closed its side and is attached to nothing: nothing more can arrive.
	errServed = errors.New("served")
	errGone   = status.Error(codes.Unavailable, "the server is shutting down, or the namespace is being changed; attach again")
)

// Subscribe implements the RPC.
func (s *service) Subscribe(wire grpc.BidiStreamingServer[patternpb.SubscribeRequest, patternpb.SubscribeResponse]) error {
	life, end := context.WithCancelCause(wire.Context())
	defer end(nil)
	u := &subscription{
		server: s.Server, wire: wire, life: life, end: end, attached: make(map[string]struct{}),
		confirmations: make(chan *patternpb.SubscribeResponse, maxConfirmations),
		wanted:        make(chan *served, 1), open: make(chan struct{}), acked: make(chan struct{}, 1),
	}
	events, sent := make(chan multicastregistry.Event), make(chan struct{})
	s.streams.Go(func() {
		u.guard(u.receive)
		<-life.Done() // a client may have nothing more to say, and listen
		u.metrics.Attached(-len(u.attached))
		u.taken.End()
	})
	s.streams.Go(func() {
		defer close(sent)
		u.guard(func() error { return u.send(events) })
	})

	var pump sync.WaitGroup
	quiet := s.drain.quiet
	select {
	case n := <-u.wanted:
		sub, err := n.Coordinator.Subscribe(life)
		if err != nil {
			end(err)
			break
		}
		u.sub, u.drain = sub, n.drain
		u.metrics.Streams(1)
		defer u.metrics.Streams(-1)
		close(u.open)
		pump.Go(func() { u.guard(func() error { return u.pump(events) }) })
	case <-life.Done():
	case <-quiet:
	case <-time.After(s.cfg.AttachTimeout):
		end(status.Errorf(codes.Unavailable, "nothing was attached within %s; open the stream again", s.cfg.AttachTimeout))
	}
	if u.sub != nil {
		quiet = u.drain.quiet
	}
	u.untilTheEnd(quiet)
	pump.Wait()
	if u.sub != nil {
		if err := u.sub.Close(); err != nil {
			s.sparing.write(life, slog.LevelWarn, kindName{what: "close"}, "subscriber did not close cleanly",
				slog.String("request_id", requestID(life)), slog.Any("error", err))
		}
	}
	wait(sent, farewell)
	if why := context.Cause(life); !errors.Is(why, errServed) {
		return why
	}
	return nil
}

// untilTheEnd returns when the stream's life has ended. A server or a namespace that leaves ends it through send; should send be
// stuck with a client that does not read, it is ended here.
func (u *subscription) untilTheEnd(quiet <-chan struct{}) {
	select {
	case <-u.life.Done():
		return
	case <-quiet:
	}
	wait(u.life.Done(), ackGrace+farewell)
	u.end(errGone)
}

// wait returns when done is closed or the time is over.
func wait(done <-chan struct{}, most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// guard runs a goroutine's work and ends the stream with its error, if it has one.
func (u *subscription) guard(work func() error) {
	var err error
	defer func() {
		if err = recovered(recover(), err); err != nil {
			u.end(err)
		}
	}()
	err = work()
}

// pump takes events from the subscriber as fast as send writes them.
func (u *subscription) pump(events chan<- multicastregistry.Event) error {
	for {
		event, err := u.sub.Next(u.life)
		if err != nil {
			return err
		}
		select {
		case events <- event:
		case <-u.life.Done():
			return nil
		}
	}
}

// send writes what there is to write until the stream ends, or the server leaves, or the namespace.
func (u *subscription) send(events <-chan multicastregistry.Event) error {
	from, opened := u.server.drain, u.open
	leaving := from.leaving
	var quiet, acked <-chan struct{}
	var settled <-chan time.Time // all that was accepted by then is written
	grace := time.NewTimer(time.Hour)
	grace.Stop() // until it is quiet
	defer grace.Stop()
	for {
		var err error
		select {
		case confirmation := <-u.confirmations:
			err = u.wire.Send(confirmation)
		case event := <-events:
			err = u.sendEvent(event)
		case <-opened:
			if opened = nil; leaving != nil {
				from, leaving = u.drain, u.drain.leaving
			}
		case <-leaving:
			leaving, quiet = nil, from.quiet
			err = u.wire.Send(&patternpb.SubscribeResponse{Response: &patternpb.SubscribeResponse_Closing{
				Closing: &patternpb.Closing{Reason: u.server.whyClosing()},
			}})
		case <-quiet:
			quiet, settled = nil, time.After(settleGrace)
			grace.Reset(ackGrace)
		case <-settled:
			acked = u.acked
			if u.unacked.Load() <= 0 {
				return errGone
			}
		case <-acked:
			if u.unacked.Load() <= 0 {
				return errGone
			}
		case <-grace.C:
			return errGone
		case <-u.life.Done():
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// sendEvent writes one event in frames.
func (u *subscription) sendEvent(event multicastregistry.Event) error {
	u.metrics.Lost(event.Dropped, len(event.LeasesLost))
	dropped := event.Dropped
	rest := event.Messages
	for len(rest) > 0 || dropped > 0 {
		n := frame(rest)
		out := &patternpb.Messages{Dropped: dropped, Messages: make([]*patternpb.Message, n)}
		for i := range n {
			out.Messages[i] = message(&rest[i])
			if rest[i].AckTo != "" {
				u.unacked.Add(1)
			}
		}
		rest, dropped = rest[n:], 0
		if err := u.wire.Send(&patternpb.SubscribeResponse{
			Response: &patternpb.SubscribeResponse_Messages{Messages: out},
		}); err != nil {
			return err
		}
		u.metrics.Sent(n)
	}
	if len(event.LeasesLost) == 0 {
		return nil
	}
	return u.wire.Send(&patternpb.SubscribeResponse{Response: &patternpb.SubscribeResponse_LeaseLost{
		LeaseLost: &patternpb.LeaseLost{Identities: event.LeasesLost},
	}})
}

// frame returns how many of the messages travel together.
func frame(messages []multicastregistry.Message) int {
	size := 0
	for i := range min(len(messages), frameMessages) {
		size += len(messages[i].Payload)
		if size > frameBytes && i > 0 {
			return i
		}
	}
	return min(len(messages), frameMessages)
}
