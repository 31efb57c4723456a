package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
)

// Server-sent events stand in front of a Subscribe stream of the gRPC side: one HTTP request is one stream. A client that
// reads too slowly blocks the write, the stream behind it fills up, and the subscription drops and counts; a write that
// takes longer than the write timeout ends the request.

// maxEarly bounds the frames that wait for the confirmation of the attach, so that the first event is always "attached".
const maxEarly = 64

// events are the event streams that take acks by POST.
type events struct {
	mu sync.Mutex
	by map[string]*eventStream
}

// eventStream is one HTTP request that receives events.
type eventStream struct {
	id        string
	namespace string
	owner     string // of whom acks are taken
	stream    grpc.BidiStreamingClient[patternpb.SubscribeRequest, patternpb.SubscribeResponse]
	auto      bool // acks are sent here, after the write

	sending sync.Mutex // of stream

	*sseWriter
}

// subscribe serves both forms: identities in the query, or one in the path.
func (g *gateway) subscribe(w http.ResponseWriter, r *http.Request, vars map[string]string) {
	attach, auto, err := readSubscribe(r, vars)
	if err != nil {
		g.fail(w, r, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	ctx, err = runtime.AnnotateContext(ctx, g.mux, r, patternpb.MulticastRegistryPattern_Subscribe_FullMethodName)
	if err != nil {
		g.fail(w, r, err)
		return
	}
	stream, err := g.client.Subscribe(ctx)
	if err == nil {
		err = stream.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Attach{Attach: attach}})
	}
	if err != nil && !errors.Is(err, io.EOF) { // EOF: the first Recv says why
		g.fail(w, r, err)
		return
	}
	early, err := untilAttached(stream)
	if err != nil {
		g.fail(w, r, err)
		return
	}
	e := &eventStream{
		id: newToken(), namespace: attach.GetNamespace(), owner: ownerIn(r.Context()), stream: stream, auto: auto,
		sseWriter: newSSEWriter(w),
	}
	if !auto {
		g.server.events.add(e)
		defer g.server.events.remove(e)
	}
	e.start(attach.GetIdentities())
	err = e.flush()
	for _, resp := range early {
		if err == nil {
			err = e.write(resp)
		}
	}
	if err == nil {
		relay(g, r, e.sseWriter, stream, e.write, cancel)
	}
}

func readSubscribe(r *http.Request, vars map[string]string) (attach *patternpb.Attach, auto bool, err error) {
	query := r.URL.Query()
	attach = &patternpb.Attach{Namespace: vars["namespace"], Identities: query["identity"]}
	if id, ok := vars["identity"]; ok {
		attach.Identities = []string{id}
	}
	if len(attach.GetIdentities()) == 0 {
		return nil, false, invalid("identity", "must be given at least once: ?identity=a&identity=b")
	}
	switch v := query.Get("keep_alive"); v {
	case "", "false":
	case "true":
		attach.KeepAlive = true
	default:
		return nil, false, invalid("keep_alive", fmt.Sprintf("%q is neither true nor false", shorten(v)))
	}
	switch v := query.Get("ack"); v {
	case "", "auto":
		auto = true
	case "manual":
	default:
		return nil, false, invalid("ack", fmt.Sprintf("%q is neither auto nor manual", shorten(v)))
	}
	return attach, auto, nil
}

// untilAttached waits for the confirmation, and keeps what comes before it.
func untilAttached(
	stream grpc.BidiStreamingClient[patternpb.SubscribeRequest, patternpb.SubscribeResponse],
) (early []*patternpb.SubscribeResponse, err error) {
	for len(early) < maxEarly {
		resp, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		if resp.GetAttached() != nil {
			return early, nil
		}
		early = append(early, resp)
	}
	return nil, status.Error(codes.Unavailable, "the attach was not confirmed in time; try again")
}

// start writes the headers and the first event.
func (e *eventStream) start(identities []string) {
	e.begin()
	data := struct {
		Identities []string `json:"identities"`
		Stream     string   `json:"stream,omitempty"` // what acks must name
	}{Identities: identities}
	if !e.auto {
		data.Stream = e.id
	}
	e.event("attached", "", data)
}

// write writes one response as events, and acks its messages once they are flushed, if that is its business.
func (e *eventStream) write(resp *patternpb.SubscribeResponse) error {
	var acks []*patternpb.Ack
	switch r := resp.GetResponse().(type) {
	case *patternpb.SubscribeResponse_Messages:
		acks = e.messages(r.Messages)
	case *patternpb.SubscribeResponse_LeaseLost:
		e.event("lease_lost", "", map[string]any{"identities": r.LeaseLost.GetIdentities()})
	case *patternpb.SubscribeResponse_Closing:
		e.event("closing", "", map[string]any{"reason": r.Closing.GetReason()})
	}
	if err := e.flush(); err != nil || !e.auto || len(acks) == 0 {
		return err
	}
	return e.ack(acks)
}

// eventMessage is the data of a message event.
type eventMessage struct {
	Identity    string    `json:"identity"`
	MessageID   string    `json:"message_id"`
	ContentType string    `json:"content_type"`
	SentAt      time.Time `json:"sent_at"`
	Payload     []byte    `json:"payload"`        // base64
	Text        *string   `json:"text,omitempty"` // the payload once more, where it is UTF-8
	AckWanted   bool      `json:"ack_wanted"`
	Redelivered bool      `json:"redelivered"`
	Once        bool      `json:"once,omitempty"` // who has handled it acks it again and does nothing else
	TraceParent string    `json:"traceparent,omitempty"`
}

// messages writes a batch and returns the acks that its messages want.
func (e *eventStream) messages(batch *patternpb.Messages) (acks []*patternpb.Ack) {
	if n := batch.GetDropped(); n > 0 {
		e.event("dropped", "", map[string]any{"count": n})
	}
	for _, m := range batch.GetMessages() {
		data := eventMessage{
			Identity: m.GetIdentity(), MessageID: m.GetMessageId(), ContentType: m.GetContentType(),
			SentAt: m.GetSentAt().AsTime(), Payload: m.GetPayload(), AckWanted: m.GetAckWanted(), Redelivered: m.GetRedelivered(),
			Once: m.GetOnce(), TraceParent: m.GetTraceparent(),
		}
		if data.Payload == nil {
			data.Payload = []byte{} // null would be no base64
		}
		if utf8.Valid(data.Payload) {
			text := string(data.Payload)
			data.Text = &text
		}
		e.event("message", m.GetMessageId(), data)
		if m.GetAckWanted() {
			acks = append(acks, &patternpb.Ack{Identity: m.GetIdentity(), MessageId: m.GetMessageId()})
		}
	}
	return acks
}

// ack sends acks on the stream. It may be called concurrently.
func (e *eventStream) ack(acks []*patternpb.Ack) error {
	e.sending.Lock()
	defer e.sending.Unlock()
	return e.stream.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Acks{
		Acks: &patternpb.Acks{Acks: acks},
	}})
}
