package client

import (
	"sync"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
)

// acksAtOnce and ackBytesAtOnce keep a request of acks well below gRPC's limit of 4 MiB. A single ack is never larger than
// its identity, its id and MaxReplyBytes.
const (
	acksAtOnce     = 4096
	ackBytesAtOnce = 1 << 20
)

// outbox holds what a stream is to send, in order. Acks are batched without a clock: all that gather at the end of the
// outbox while something else is being sent make up one request.
type outbox struct {
	filled chan struct{}

	mu       sync.Mutex
	requests []*patternpb.SubscribeRequest
	ackBytes int // of the acks in the last request
	closed   bool
}

// sender is the sending half of the stream.
type sender interface {
	Send(*patternpb.SubscribeRequest) error
	CloseSend() error
}

func newOutbox() *outbox { return &outbox{filled: make(chan struct{}, 1)} }

func (o *outbox) put(request *patternpb.SubscribeRequest) {
	o.mu.Lock()
	o.requests = append(o.requests, request)
	o.mu.Unlock()
	signal(o.filled)
}

func (o *outbox) ack(names []MessageName, reply Reply) {
	o.mu.Lock()
	for _, name := range names {
		last := o.lastAcks()
		last.Acks = append(last.Acks, &patternpb.Ack{
			Identity: name.Identity, MessageId: name.ID, ReplyCode: reply.Code, ReplyBody: reply.Body,
		})
		o.ackBytes += len(name.Identity) + len(name.ID) + len(reply.Body)
	}
	o.mu.Unlock()
	signal(o.filled)
}

// lastAcks returns the request of acks that the outbox ends with and that has room, which it makes if need be. The caller
// holds o.mu.
func (o *outbox) lastAcks() *patternpb.Acks {
	if len(o.requests) > 0 {
		acks := o.requests[len(o.requests)-1].GetAcks()
		if acks != nil && len(acks.GetAcks()) < acksAtOnce && o.ackBytes < ackBytesAtOnce {
			return acks
		}
	}
	acks := new(patternpb.Acks)
	o.ackBytes = 0
	o.requests = append(o.requests, &patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Acks{Acks: acks}})
	return acks
}

// close ends the sending once everything is sent.
func (o *outbox) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	signal(o.filled)
}

// run sends until the outbox is closed and empty, or the stream has ended.
func (o *outbox) run(to sender, ended <-chan struct{}) {
	for {
		request, last := o.next()
		switch {
		case request != nil:
			if to.Send(request) != nil {
				return // the receiving half learns why
			}
			continue
		case last:
			_ = to.CloseSend() // documented never to fail
			return
		}
		select {
		case <-o.filled:
		case <-ended:
			return
		}
	}
}

// next takes what to send now: nil when there is nothing, and last when there will not be anything either.
func (o *outbox) next() (request *patternpb.SubscribeRequest, last bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.requests) == 0 {
		return nil, o.closed
	}
	request = o.requests[0]
	o.requests[0] = nil
	o.requests = o.requests[1:]
	return request, false
}
