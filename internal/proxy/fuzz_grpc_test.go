package proxy

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// wire is a codec for messages that are bytes already.
type wire struct{}

func (wire) Name() string { return "proto" }

func (wire) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (wire) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// method is one that a server serves, whosever it is.
type method struct {
	name   string
	stream grpc.StreamDesc
	input  protoreflect.MessageType
}

// methods lists what a server serves.
func methods(tb testing.TB, s *Server) []method {
	tb.Helper()
	var out []method
	for service, info := range s.grpc.GetServiceInfo() {
		described, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
		if err != nil {
			tb.Fatal(err)
		}
		for _, m := range info.Methods {
			of := described.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(m.Name))
			input, err := protoregistry.GlobalTypes.FindMessageByName(of.Input().FullName())
			if err != nil {
				tb.Fatal(err)
			}
			out = append(out, method{
				name: "/" + service + "/" + m.Name, input: input,
				stream: grpc.StreamDesc{ClientStreams: m.IsClientStream, ServerStreams: m.IsServerStream},
			})
		}
	}
	slices.SortFunc(out, func(a, b method) int { return strings.Compare(a.name, b.name) })
	return out
}

// send sends one message and returns how the call ended, which is OK for one that does not end by itself.
func (m *method) send(ctx context.Context, conn grpc.ClientConnInterface, message []byte) error {
	ctx, cancel := context.WithTimeout(ctx, limitOf)
	defer cancel()
	stream, err := conn.NewStream(ctx, &m.stream, m.name, grpc.ForceCodecV2(wire{}))
	if err != nil {
		return err
	}
	if err := stream.SendMsg(message); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	enough := false
	for {
		var answer []byte
		switch err := stream.RecvMsg(&answer); {
		case errors.Is(err, io.EOF), enough && status.Code(err) == codes.Canceled:
			return nil
		case err != nil:
			return err
		}
		if m.stream.ServerStreams && !enough {
			enough = true
			time.AfterFunc(5*time.Millisecond, cancel)
		}
	}
}

// blameless wants an end that blames nobody but the caller.
func (m *method) blameless(t *testing.T, err error) {
	t.Helper()
	switch status.Code(err) {
	case codes.Internal, codes.Unknown, codes.DataLoss, codes.Canceled:
		t.Errorf("%s: %v", m.name, err)
	case codes.DeadlineExceeded:
		if !strings.Contains(err.Error(), "nothing was sent: the timeout of") { // the request's own
			t.Errorf("%s: %v", m.name, err)
		}
	}
	if text := status.Convert(err).Message(); len(text) > maxText+len("…") {
		t.Errorf("%s: a text of %d bytes", m.name, len(text))
	}
}

// FuzzGRPCBytes sends any bytes as the request of each method.
func FuzzGRPCBytes(f *testing.F) {
	s := target(f)
	all := methods(f, s)
	for i := range all {
		for seed := range byte(6) {
			whole, err := proto.Marshal(all[i].hostile([]byte(strings.Repeat(string(rune('a'+seed)), 40*int(seed)))))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(byte(i), whole)
			f.Add(byte(i), whole[:len(whole)*2/3])
		}
		f.Add(byte(i), []byte("\x0a\x01\xff"))
		f.Add(byte(i), []byte("\x12\x01\xff\x1a\x02\x0a\xff"))
		f.Add(byte(i), []byte(strings.Repeat("\x0b", 20_000)))
		f.Add(byte(i), []byte(strings.Repeat("\xff", 12)))
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(nil, nil) }()
	f.Fuzz(func(t *testing.T, which byte, message []byte) {
		m := &all[int(which)%len(all)]
		m.blameless(t, m.send(t.Context(), s.conn, message))
	})
}

// FuzzGRPCRequest sends requests that can be decoded, with hostile values, to each method.
func FuzzGRPCRequest(f *testing.F) {
	s := target(f)
	all := methods(f, s)
	for i := range all {
		for seed := range byte(16) {
			choices := make([]byte, 60)
			for n := range choices {
				choices[n] = seed * byte(n) * 7
			}
			f.Add(byte(i), choices)
		}
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(nil, nil) }()
	f.Fuzz(func(t *testing.T, which byte, choices []byte) {
		m := &all[int(which)%len(all)]
		message, err := proto.Marshal(m.hostile(choices))
		if err != nil {
			t.Fatal(err)
		}
		m.blameless(t, m.send(t.Context(), s.conn, message))
	})
}

// choices decide what is put into a request; when they are used up, each is 0.
type choices struct{ left []byte }

func (c *choices) next(n int) int {
	if len(c.left) == 0 {
		return 0
	}
	first := c.left[0]
	c.left = c.left[1:]
	return int(first) % n
}

func (m *method) hostile(from []byte) proto.Message {
	out := m.input.New()
	c := choices{from}
	c.fill(out, 0)
	return out.Interface()
}

const maxHostileDepth = 12

func (c *choices) fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	chosen := make(map[protoreflect.OneofDescriptor]int)
	for i := range fields.Len() {
		field := fields.Get(i)
		if one := field.ContainingOneof(); one != nil && !one.IsSynthetic() {
			if _, ok := chosen[one]; !ok {
				chosen[one] = one.Fields().Get(c.next(one.Fields().Len())).Index()
			}
			if chosen[one] != i {
				continue
			}
		} else if c.next(4) == 0 || field.Name() == "namespace" && c.next(8) != 0 {
			continue
		}
		if field.Message() != nil && depth == maxHostileDepth {
			continue
		}
		switch {
		case field.IsMap():
			for range c.next(4) {
				v := m.Mutable(field).Map().NewValue()
				if field.MapValue().Message() != nil {
					c.fill(v.Message(), depth+1)
				} else {
					v = c.scalar(field.MapValue())
				}
				m.Mutable(field).Map().Set(c.scalar(field.MapKey()).MapKey(), v)
			}
		case field.IsList():
			for range c.next(4) {
				v := m.Mutable(field).List().NewElement()
				if field.Message() != nil {
					c.fill(v.Message(), depth+1)
				} else {
					v = c.scalar(field)
				}
				m.Mutable(field).List().Append(v)
			}
		case field.Message() != nil:
			c.fill(m.Mutable(field).Message(), depth+1)
		default:
			m.Set(field, c.scalar(field))
		}
	}
}

var (
	hostileStrings = []string{
		"", "a", "b", "default", "\x00", "a\r\nb: c", "..", "*", ">", "a.b", "$or", "$not", "a.lt", "room", "-room", "{}", "\u202eabc",
		"\ufeff", "\U0001f984", strings.Repeat("x", 257), strings.Repeat("ü.", 200), "01a21467-69f7-7000-8520-08f23b558582", "%s%n",
		"18446744073709551616", "(a+)+$", `a\`, "$$", "1.2.3", "2026-11-29T04:23:23Z", "'; --",
	}
	hostileInts   = []int64{1, 0, -1, 2, 5, 99, 1000, 100_000, math.MaxInt32, math.MinInt32, math.MaxInt64, math.MinInt64, 315_576_000_001}
	hostileFloats = []float64{
		0, 1, -1, 0.5, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, math.SmallestNonzeroFloat64, math.Copysign(0, -1), 1<<53 + 2,
	}
)

func (c *choices) scalar(field protoreflect.FieldDescriptor) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(c.next(2) == 1)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(c.next(8) - 1))
	case protoreflect.StringKind:
		if n := c.next(len(hostileStrings) + 8); n < len(hostileStrings) {
			return protoreflect.ValueOfString(hostileStrings[n])
		}
		return protoreflect.ValueOfString(strings.ToValidUTF8(string(c.some()), "\uFFFD"))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(slices.Repeat(c.some(), 1+c.next(2)*1000))
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(hostileFloats[c.next(len(hostileFloats))]))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(hostileFloats[c.next(len(hostileFloats))])
	}
	n := hostileInts[c.next(len(hostileInts))]
	switch field.Kind() {
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(uint64(n))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	}
	return protoreflect.ValueOfInt64(n)
}

// some takes a few of the choices as they are.
func (c *choices) some() []byte {
	n := min(c.next(12), len(c.left))
	out := c.left[:n]
	c.left = c.left[n:]
	return out
}
