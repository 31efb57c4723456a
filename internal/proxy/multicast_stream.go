package proxy

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// How a MulticastStream flows. The handler runs the multicast, which tells of outcomes as they become final and must not
// wait for a client that reads slowly: they go into a queue, which holds each target once at the most, as the result does
// anyway. A second goroutine sends what waits there, in frames of bounded size. When the multicast has ended and all is
// sent, the handler sends the summary. A client that leaves ends the context, and with it the multicast.

// frameStatuses bounds the statuses in one frame; frameBytes bounds their size.
const frameStatuses = 1024

// MulticastStream implements the RPC.
func (s *service) MulticastStream(
	req *patternpb.MulticastStreamRequest, wire grpc.ServerStreamingServer[patternpb.MulticastStreamResponse],
) error {
	if req.GetRequest() == nil {
		return invalid("request", "must be the multicast")
	}
	n, call, err := s.multicastCall(wire.Context(), req.GetRequest())
	if err != nil {
		return err
	}
	life, leave := context.WithCancelCause(wire.Context())
	defer leave(nil)
	q := &steps{wire: wire, report: req.GetRequest().GetReport(), news: make(chan struct{}, 1)}
	if !call.DryRun {
		call.Began, call.Settled = q.began, q.settled
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		if err := q.send(); err != nil {
			leave(err)
		}
	})
	defer sending.Wait()
	result, err := q.run(life, n.Coordinator, call)
	if err != nil {
		s.audit(life, patternpb.MulticastRegistryPattern_MulticastStream_FullMethodName, req.GetRequest(), nil, err)
		return err
	}
	s.audit(life, patternpb.MulticastRegistryPattern_MulticastStream_FullMethodName, req.GetRequest(), n.summary(result), nil)
	s.measured(n.Coordinator).Multicast(result, s.traceID(life))
	s.logUnrecorded(life, result)
	sending.Wait()
	if life.Err() != nil {
		return context.Cause(life)
	}
	return wire.Send(&patternpb.MulticastStreamResponse{
		Step: &patternpb.MulticastStreamResponse_Ended{Ended: n.summary(result)},
	})
}

// steps are what a MulticastStream has to send before its summary.
type steps struct {
	wire   grpc.ServerStreamingServer[patternpb.MulticastStreamResponse]
	report patternpb.MulticastRequest_Report
	news   chan struct{} // something waits

	mu       sync.Mutex
	first    *patternpb.MulticastBegan
	targets  []multicastregistry.Target
	told     bool // of any target
	finished bool // nothing more comes
}

func (q *steps) began(id string, revision multicastregistry.Revision, targets int) {
	q.add(func() {
		q.first = &patternpb.MulticastBegan{MulticastId: id, Revision: uint64(revision), TargetCount: uint32(targets)}
	})
}

func (q *steps) settled(targets []multicastregistry.Target) {
	q.add(func() {
		q.told = true
		for i := range targets {
			if t := &targets[i]; reported(t, q.report) {
				q.targets = append(q.targets, *t)
			}
		}
	})
}

// run runs the multicast, and adds what it does not tell of while it runs: the targets of a dry run and of a replayed result.
func (q *steps) run(
	ctx context.Context, c *multicastregistry.Coordinator, call multicastregistry.Request,
) (*multicastregistry.Result, error) {
	defer q.add(func() { q.finished = true })
	result, err := c.Multicast(ctx, call)
	if err != nil {
		return nil, err
	}
	if call.DryRun {
		q.began(result.ID, result.Revision, result.TargetCount)
	}
	q.mu.Lock()
	told := q.told
	q.mu.Unlock()
	if !told {
		q.settled(result.Targets)
	}
	return result, nil
}

func (q *steps) add(change func()) {
	q.mu.Lock()
	change()
	q.mu.Unlock()
	select {
	case q.news <- struct{}{}:
	default: // send has not looked yet
	}
}

// send sends what waits until nothing more comes, or the stream has ended.
func (q *steps) send() (err error) {
	defer func() { err = recovered(recover(), err) }()
	for {
		select {
		case <-q.news:
		case <-q.wire.Context().Done():
			return q.wire.Context().Err()
		}
		q.mu.Lock()
		first, targets, finished := q.first, q.targets, q.finished
		q.first, q.targets = nil, nil
		q.mu.Unlock()
		if first != nil {
			if err := q.wire.Send(&patternpb.MulticastStreamResponse{
				Step: &patternpb.MulticastStreamResponse_Began{Began: first},
			}); err != nil {
				return err
			}
		}
		if err := q.sendTargets(targets); err != nil || finished {
			return err
		}
	}
}

func (q *steps) sendTargets(targets []multicastregistry.Target) error {
	for len(targets) > 0 {
		out := &patternpb.DeliveryStatuses{}
		size := 0
		for i := range min(len(targets), frameStatuses) {
			status := deliveryStatus(&targets[i])
			if size += proto.Size(status); size > frameBytes && i > 0 {
				break
			}
			out.Statuses = append(out.Statuses, status)
		}
		targets = targets[len(out.GetStatuses()):]
		if err := q.wire.Send(&patternpb.MulticastStreamResponse{
			Step: &patternpb.MulticastStreamResponse_Statuses{Statuses: out},
		}); err != nil {
			return err
		}
	}
	return nil
}
