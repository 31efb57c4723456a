package proxy

import (
	"sync"

	"google.golang.org/grpc/encoding"
	encodingproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
)

// wireCodec is gRPC's codec, except that what a message carries along as it goes over the wire, a page of identities for
// instance, is sent from where it stands and not copied. The message has lost it then.
type wireCodec struct{ encoding.CodecV2 }

func newWireCodec() wireCodec { return wireCodec{encoding.GetCodecV2(encodingproto.Name)} }

// Marshal implements encoding.CodecV2.
func (c wireCodec) Marshal(v any) (mem.BufferSlice, error) {
	message, ok := v.(proto.Message)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	var outer []byte
	if streamed, ok := v.(*patternpb.EnumerateStreamResponse); ok && streamed.GetPage() != nil {
		message = streamed.GetPage()
		outer = protowire.AppendTag(nil, fieldPage, protowire.BytesType)
	}
	written := message.ProtoReflect().GetUnknown()
	if len(written) < copied {
		return c.CodecV2.Marshal(v)
	}
	message.ProtoReflect().SetUnknown(nil)
	out, err := c.CodecV2.Marshal(message)
	if err != nil {
		return nil, err
	}
	page := (*[]byte)(&written)
	out = append(out, mem.NewBuffer(page, pages))
	if outer != nil {
		outer = protowire.AppendVarint(outer, uint64(out.Len()))
		out = append(mem.BufferSlice{mem.SliceBuffer(outer)}, out...)
	}
	return out, nil
}

// copied is the size in bytes up to which it is cheaper to copy.
const copied = 4 << 10

// fieldPage is the number of EnumerateStreamResponse.page in the .proto; a test holds them together.
const fieldPage = 1

// pages are buffers of pages that have been sent.
var pages = &pagePool{}

// pagePool is a mem.BufferPool of buffers that are written to from their start, so that none is ever cleared.
type pagePool struct{ buffers sync.Pool }

// mostPooled is the largest buffer that is kept, in bytes.
const mostPooled = 1 << 20

// Get returns a buffer of length 0 with room for n bytes.
func (p *pagePool) Get(n int) *[]byte {
	if n >= copied {
		if buffer, ok := p.buffers.Get().(*[]byte); ok && cap(*buffer) >= n {
			return buffer
		}
	}
	fresh := make([]byte, 0, n)
	return &fresh
}

// Put takes a buffer back.
func (p *pagePool) Put(buffer *[]byte) {
	if c := cap(*buffer); c >= copied && c <= mostPooled {
		*buffer = (*buffer)[:0]
		p.buffers.Put(buffer)
	}
}
