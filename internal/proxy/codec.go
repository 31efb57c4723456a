package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// codec is the JSON of the API: field names as in the .proto, zero counts visible, unset messages left out, and nothing
// passed over that a caller sent.
type codec struct {
	runtime.JSONPb
}

func newCodec() *codec {
	return &codec{JSONPb: runtime.JSONPb{
		MarshalOptions: protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true},
	}}
}

// Marshal ends the JSON with a line break, for those who read it in a terminal.
func (c *codec) Marshal(v any) ([]byte, error) {
	out, err := c.JSONPb.Marshal(v)
	return append(out, '\n'), err
}

// NewDecoder returns a decoder of one request. It reads everything: what stands behind the first value is an error too.
func (c *codec) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		raw, err := readAll(r)
		if err != nil {
			return fmt.Errorf("body: %w", err)
		}
		if len(bytes.TrimSpace(raw)) == 0 {
			return io.EOF // no body means that every field has its default
		}
		msg, ok := v.(proto.Message)
		if !ok {
			return fmt.Errorf("body: cannot be read into a %T", v)
		}
		if err := checkJSON(raw); err != nil {
			return fmt.Errorf("body: %w", err)
		}
		if err := protojson.Unmarshal(raw, msg); err != nil {
			return explain(err, msg.ProtoReflect().Descriptor())
		}
		if body, ok := r.(*bodyOf); ok {
			return body.agrees(msg.ProtoReflect())
		}
		return nil
	})
}

// bodyOf is a body with the variables of the path it was sent to.
type bodyOf struct {
	io.ReadCloser
	path map[string]string
}

// agrees refuses a body that names another namespace or identity than the path. Unnamed is fine.
func (b *bodyOf) agrees(msg protoreflect.Message) error {
	for name, inPath := range b.path {
		field := msg.Descriptor().Fields().ByName(protoreflect.Name(name))
		if field == nil || field.Kind() != protoreflect.StringKind {
			continue
		}
		if inBody := msg.Get(field).String(); inBody != "" && inBody != inPath {
			return fmt.Errorf("body: %s is %q, but the path says %q; leave it out of the body", name, shorten(inBody), shorten(inPath))
		}
	}
	return nil
}

var (
	protoPrefix  = regexp.MustCompile(`^proto:[\s\p{Zs}]*`)
	unknownField = regexp.MustCompile(`unknown field "`)
)

// explain makes protojson's error one for callers: without its prefix, and with the legal names for an unknown one.
func explain(err error, of protoreflect.MessageDescriptor) error {
	text := protoPrefix.ReplaceAllString(err.Error(), "")
	switch {
	case strings.Contains(text, "google.protobuf.Duration"):
		text += `; durations are seconds, such as "90s" or "0.5s"`
	case strings.Contains(text, "bytes field"):
		text += "; bytes are base64 in JSON"
	}
	if !unknownField.MatchString(text) {
		return errors.New("body: expected a JSON object of " + string(of.Name()) + ": " + text)
	}
	var names []string
	for i := range of.Fields().Len() {
		names = append(names, string(of.Fields().Get(i).Name()))
	}
	return fmt.Errorf("body: %s; legal fields: %s", text, strings.Join(names, ", "))
}
