package client

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	encodingproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
)

// lazily is the option of calls and streams whose replies have identities. They are received into a lazyReply.
var lazily = grpc.ForceCodecV2(lazyCodec{encoding.GetCodecV2(encodingproto.Name)})

// invoke makes a call whose reply has identities.
func (c *Client) invoke(ctx context.Context, method string, request proto.Message, reply lazyReply) error {
	return c.failed(c.conn.Invoke(ctx, method, request, reply, grpc.StaticMethod(), lazily))
}

// lazyReply is a message from the server that reads itself off the wire. It keeps nothing of the bytes.
type lazyReply interface{ decode(message []byte) error }

// lazyCodec is gRPC's codec, except for lazyReplies.
type lazyCodec struct{ encoding.CodecV2 }

// Unmarshal implements encoding.CodecV2.
func (c lazyCodec) Unmarshal(data mem.BufferSlice, v any) error {
	reply, ok := v.(lazyReply)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	return reply.decode(buffer.ReadOnlyData())
}

// message makes a lazyReply a message too, without fields, for interceptors that take nothing else.
type message struct{ emptypb.Empty }

// enumerateReply is an EnumerateResponse: its identities, and everything else.
type enumerateReply struct {
	message

	identities []Identity
	others     patternpb.EnumerateResponse
}

// streamReply is an EnumerateStreamResponse.
type streamReply struct {
	message

	page enumerateReply
}

// registerReply is a RegisterResponse.
type registerReply struct {
	message

	identity Identity
}

// watchReply is a WatchResponse.
type watchReply struct {
	message

	events []watchEvent
	token  string
}

// watchEvent is a WatchEvent. The zero Identity stands for none.
type watchEvent struct {
	kind     patternpb.WatchEvent_Type
	reason   patternpb.WatchEvent_Reason
	identity Identity
}

func (r *enumerateReply) decode(message []byte) error {
	n, others, err := split(message)
	if err != nil {
		return err
	}
	r.identities = make([]Identity, 0, n)
	for c := (cutter{message: message}); c.next(); {
		identity, err := decodeIdentity(c.string())
		if err != nil {
			return err
		}
		r.identities = append(r.identities, identity)
	}
	return proto.Unmarshal(others, &r.others)
}

func (r *streamReply) decode(message []byte) error {
	page, err := joined(message)
	if err != nil {
		return err
	}
	return r.page.decode(page)
}

func (r *registerReply) decode(message []byte) error {
	identity, err := joined(message)
	if err != nil {
		return err
	}
	r.identity, err = decodeIdentity(string(identity))
	return err
}

func (r *watchReply) decode(message []byte) error {
	n, others, err := split(message)
	if err != nil {
		return err
	}
	r.events = make([]watchEvent, 0, n)
	for c := (cutter{message: message}); c.next(); {
		var event watchEvent
		if err := event.decode(c.string()); err != nil {
			return err
		}
		r.events = append(r.events, event)
	}
	var rest patternpb.WatchResponse
	err = proto.Unmarshal(others, &rest)
	r.token = rest.GetResumeToken()
	return err
}

func (e *watchEvent) decode(message string) error {
	identity, has := "", false
	r := wireReader{message: message}
	for r.next() {
		switch r.tag {
		case 1<<3 | varintType:
			e.kind = patternpb.WatchEvent_Type(r.number)
		case 2<<3 | bytesType:
			if has && !wellFormed(identity) {
				return errMalformed
			}
			identity, has = join(identity, r.content()), true
		case 3<<3 | varintType:
			e.reason = patternpb.WatchEvent_Reason(r.number)
		}
	}
	if r.bad || !has {
		return r.err()
	}
	var err error
	e.identity, err = decodeIdentity(identity)
	return err
}
