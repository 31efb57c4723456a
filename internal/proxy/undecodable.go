package proxy

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A message that cannot be decoded is the caller's fault, which gRPC answers with INTERNAL as soon as its codec says so, before
// any interceptor. So the codec says nothing: it hands on an empty message that carries what was wrong with it, and the
// interceptors, who find out first who is calling, refuse it.

// fieldFault is the number of the unknown fields that carry a fault. The first of them is a word that no caller knows.
const fieldFault = 1 << 28

var faultMark = appendText(nil, newToken())

func appendText(b []byte, text string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, fieldFault, protowire.BytesType), text)
}

// Unmarshal implements encoding.CodecV2.
func (c wireCodec) Unmarshal(data mem.BufferSlice, v any) error {
	err := checkParts(data, v)
	if err == nil {
		err = c.CodecV2.Unmarshal(data, v)
	}
	message, ok := v.(proto.Message)
	if err == nil || !ok {
		return err
	}
	reflected := message.ProtoReflect()
	of := reflected.Descriptor()
	field, problem := "request", "is no "+string(of.Name())+": "+clean(protoPrefix.ReplaceAllString(err.Error(), ""))
	if strings.Contains(problem, "UTF-8") {
		if bad := badText(data.Materialize(), of, maxNesting); bad != nil && bad.Message() != nil {
			field, problem = string(bad.Name()), "has a text that is not valid UTF-8"
		} else if bad != nil {
			field, problem = string(bad.Name()), "is not valid UTF-8"
		}
	}
	proto.Reset(message)
	reflected.SetUnknown(appendText(appendText(bytes.Clone(faultMark), field), problem))
	return nil
}

// decoded returns an InvalidError for a message that could not be decoded.
func decoded(v any) error {
	message, ok := v.(proto.Message)
	if !ok {
		return nil
	}
	fault, ok := bytes.CutPrefix(message.ProtoReflect().GetUnknown(), faultMark)
	if !ok {
		return nil
	}
	var texts [2]string
	for i := range texts {
		_, _, tag := protowire.ConsumeTag(fault)
		text, n := protowire.ConsumeString(fault[tag:])
		texts[i], fault = text, fault[tag+n:]
	}
	return invalid(texts[0], texts[1])
}

// badText returns the first field of a message that is no UTF-8 or has such a field. Nil: none, or not found.
func badText(b []byte, of protoreflect.MessageDescriptor, depth int) protoreflect.FieldDescriptor {
	for len(b) > 0 && depth > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return nil
		}
		if field := of.Fields().ByNumber(number); kind == protowire.BytesType && field != nil {
			content, _ := protowire.ConsumeBytes(b)
			switch {
			case field.Kind() == protoreflect.StringKind && !utf8.Valid(content),
				field.Message() != nil && badText(content, field.Message(), depth-1) != nil:
				return field
			}
		}
		b = b[n:]
	}
	return nil
}
