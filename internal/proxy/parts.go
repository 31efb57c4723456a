package proxy

import (
	"fmt"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// maxParts bounds what a message consists of, fields or values, because each takes many times more memory than the two bytes that
// it may have on the wire. The largest metadata that can be allowed have fewer.
const maxParts = 1_000_000

var errParts = fmt.Errorf("has more than %d fields and values", maxParts)

// maxDepth is how deep protobuf reads.
const maxDepth = 10_000

// checkParts refuses a message of too many parts before it is decoded.
func checkParts(data mem.BufferSlice, v any) error {
	message, ok := v.(proto.Message)
	if !ok || data.Len() < 2*maxParts {
		return nil
	}
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	if left := maxParts; !fewParts(buffer.ReadOnlyData(), message.ProtoReflect().Descriptor(), maxDepth, &left) {
		return errParts
	}
	return nil
}

// fewParts tells whether a message has no more parts than are left. What cannot be read is left to the decoder.
func fewParts(b []byte, of protoreflect.MessageDescriptor, depth int, left *int) bool {
	for len(b) > 0 && depth > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return true
		}
		if *left--; *left < 0 {
			return false
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return true
		}
		field := of.Fields().ByNumber(number)
		if kind == protowire.BytesType && field != nil && field.Message() != nil {
			inner, _ := protowire.ConsumeBytes(b)
			if !fewParts(inner, field.Message(), depth-1, left) {
				return false
			}
		}
		b = b[n:]
	}
	return true
}
