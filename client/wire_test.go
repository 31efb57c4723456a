package client

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// FuzzReplies reads a message lazily and with the generated decoder: both take it and find the same, or both refuse it.
func FuzzReplies(f *testing.F) {
	for _, seed := range odd() {
		identity := sized(1, seed)
		f.Add(seed)
		f.Add(identity)
		f.Add(append(sized(1, identity), identity...))
		f.Add(append([]byte{8, 3, 24, 2}, sized(2, seed)...))
		f.Add(sized(1, append([]byte{8, 3, 24, 2}, sized(2, seed)...)))
		if half := len(seed) / 2; half > 0 {
			f.Add(append(sized(1, seed[:half]), sized(1, seed[half:])...))
			f.Add(sized(1, append(sized(1, seed[:half]), sized(1, seed[half:])...)))
			f.Add(sized(1, append(sized(2, seed[:half]), sized(2, seed[half:])...)))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var enumerated enumerateReply
		var wantEnumerated patternpb.EnumerateResponse
		if decoded(t, raw, &enumerated, &wantEnumerated) {
			sameReply(t, &enumerated, &wantEnumerated)
		}
		var streamed streamReply
		var wantStreamed patternpb.EnumerateStreamResponse
		if decoded(t, raw, &streamed, &wantStreamed) {
			sameReply(t, &streamed.page, wantStreamed.GetPage())
		}
		var registered registerReply
		var wantRegistered patternpb.RegisterResponse
		if decoded(t, raw, &registered, &wantRegistered) {
			sameIdentity(t, registered.identity, wantRegistered.GetIdentity())
		}
		var watched watchReply
		var wantWatched patternpb.WatchResponse
		if decoded(t, raw, &watched, &wantWatched) {
			sameEvents(t, &watched, &wantWatched)
		}
	})
}

// decoded decodes in both ways and tells whether there is something to compare.
func decoded(t *testing.T, raw []byte, lazy lazyReply, generated proto.Message) bool {
	t.Helper()
	before := bytes.Clone(raw)
	err, want := lazy.decode(raw), proto.Unmarshal(raw, generated)
	if !bytes.Equal(raw, before) {
		t.Fatalf("%T changes what it reads", lazy)
	}
	if (err == nil) != (want == nil) && !errors.Is(err, errTooDeep) {
		t.Fatalf("%T: %v, but generated: %v, for %x", lazy, err, want, raw)
	}
	clear(raw) // nothing may hold on to it: gRPC takes it back
	defer copy(raw, before)
	return err == nil
}

func sameReply(t *testing.T, got *enumerateReply, want *patternpb.EnumerateResponse) {
	t.Helper()
	if len(got.identities) != len(want.GetIdentities()) {
		t.Fatalf("%d identities, want %d", len(got.identities), len(want.GetIdentities()))
	}
	for i, identity := range want.GetIdentities() {
		sameIdentity(t, got.identities[i], identity)
	}
	others := &patternpb.EnumerateResponse{}
	if want != nil {
		others = want
		others.Identities = nil
	}
	if !proto.Equal(&got.others, others) {
		t.Fatalf("besides the identities %v, want %v", &got.others, others)
	}
}

func sameEvents(t *testing.T, got *watchReply, want *patternpb.WatchResponse) {
	t.Helper()
	if len(got.events) != len(want.GetEvents()) || got.token != want.GetResumeToken() {
		t.Fatalf("%d events, token %q, want %v", len(got.events), got.token, want)
	}
	for i, event := range want.GetEvents() {
		if got.events[i].kind != event.GetType() || got.events[i].reason != event.GetReason() {
			t.Fatalf("event %+v, want %v", got.events[i], event)
		}
		if event.GetIdentity() != nil {
			sameIdentity(t, got.events[i].identity, event.GetIdentity())
		} else if got.events[i].identity != (Identity{}) {
			t.Fatalf("an event has the identity %+v", got.events[i].identity)
		}
	}
}

func sameIdentity(t *testing.T, got Identity, from *patternpb.Identity) {
	t.Helper()
	want, metadata := fromIdentity(from), objectOf(from.GetMetadata())
	if got.ID != want.ID || got.TTL != want.TTL || got.RegisteredAt != want.RegisteredAt || got.ExpiresAt != want.ExpiresAt ||
		got.Revision != want.Revision {
		t.Fatalf("%+v, want %v", got, from)
	}
	for _, identity := range []Identity{got, want} {
		if !reflect.DeepEqual(withoutNaN(identity.Metadata()), withoutNaN(metadata)) {
			t.Fatalf("metadata %#v, want %#v", identity.Metadata(), metadata)
		}
		sameLookups(t, identity, nil, metadata)
	}
}

// sameLookups looks up everything in an object, and as much that is not there.
func sameLookups(t *testing.T, identity Identity, path []string, object map[string]any) {
	t.Helper()
	for key, want := range object {
		inner := slices.Concat(path, []string{key})
		got, present := identity.Lookup(inner...)
		if !present || !reflect.DeepEqual(withoutNaN(got), withoutNaN(want)) {
			t.Fatalf("at %q is %#v, want %#v", inner, got, want)
		}
		object, _ := want.(map[string]any)
		sameLookups(t, identity, inner, object)
	}
	missing := slices.Concat(path, []string{"no such key"})
	if got, present := identity.Lookup(missing...); present != (object["no such key"] != nil) {
		t.Fatalf("at %q is %#v", missing, got)
	}
}

// objectOf is fromStruct with the integers that travel beside their doubles.
func objectOf(s *structpb.Struct) map[string]any {
	if s == nil {
		return nil
	}
	object := map[string]any{}
	for key, value := range s.GetFields() {
		object[key] = valueOf(value)
	}
	return object
}

func valueOf(v *structpb.Value) any {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_StructValue:
		return objectOf(kind.StructValue)
	case *structpb.Value_ListValue:
		list := []any{}
		for _, inner := range kind.ListValue.GetValues() {
			list = append(list, valueOf(inner))
		}
		return list
	case *structpb.Value_NumberValue:
		var exact any
		for unknown := v.ProtoReflect().GetUnknown(); len(unknown) > 0; {
			number, kind, size := protowire.ConsumeField(unknown)
			_, _, tag := protowire.ConsumeTag(unknown)
			if n, _ := protowire.ConsumeVarint(unknown[tag:]); kind == protowire.VarintType && number == 15 {
				exact = protowire.DecodeZigZag(n)
			} else if kind == protowire.VarintType && number == 16 {
				if exact = n; n <= math.MaxInt64 {
					exact = int64(n)
				}
			}
			unknown = unknown[size:]
		}
		if i, ok := exact.(int64); ok && float64(i) == kind.NumberValue {
			return exact
		}
		if u, ok := exact.(uint64); ok && float64(u) == kind.NumberValue {
			return exact
		}
	}
	return fromValue(v)
}

// withoutNaN makes not-a-numbers equal.
func withoutNaN(value any) any {
	switch v := value.(type) {
	case float64:
		if math.IsNaN(v) {
			return "not a number"
		}
	case []any:
		list := make([]any, len(v))
		for i, inner := range v {
			list[i] = withoutNaN(inner)
		}
		return list
	case map[string]any:
		if v == nil {
			return nil
		}
		object := make(map[string]any, len(v))
		for key, inner := range v {
			object[key] = withoutNaN(inner)
		}
		return object
	}
	return value
}

// sized is a field with a length.
func sized(number protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), content)
}

// odd returns identities on the wire, of all shapes that a decoder has to stand.
func odd() map[string][]byte {
	metadata := func(object map[string]any) []byte {
		return sized(2, multicastregistry.AppendMetadata(nil, object))
	}
	entry := func(key string, values ...[]byte) []byte {
		out := sized(1, []byte(key))
		for _, value := range values {
			out = append(out, sized(2, value)...)
		}
		return sized(2, sized(1, out))
	}
	text := sized(3, []byte("text"))
	five := protowire.AppendFixed64([]byte{2<<3 | 1}, math.Float64bits(5))
	inner := multicastregistry.AppendMetadata(nil, map[string]any{"a": "b", "c": int64(1)})
	whole, err := proto.Marshal(&patternpb.Identity{
		Identity: "dev-1", RegisteredAt: timestamppb.New(time.Unix(1, 2)), ExpiresAt: timestamppb.New(time.Unix(-3, 4)),
		Ttl: durationpb.New(90 * time.Second), Revision: 1 << 63, Metadata: &structpb.Struct{},
	})
	if err != nil {
		panic(err)
	}
	deep := []byte{}
	for range maxNesting + 1 {
		deep = sized(1, append(sized(1, []byte("k")), sized(2, sized(5, deep))...))
	}
	return map[string][]byte{
		"empty": {},
		"whole": whole,
		"metadata": metadata(map[string]any{
			"null": nil, "yes": true, "no": false, "text": "ü", "": "no name", "n": int64(-7), "u": uint64(1 << 63), "f": 0.5,
			"large": int64(1<<53 + 1), "huge": uint64(math.MaxUint64), "object": map[string]any{"in": map[string]any{"in": []any{}}},
			"list": []any{nil, int64(1), []any{"x"}, map[string]any{"y": true}},
		}),
		"twice":                append(metadata(map[string]any{"a": int64(1), "b": true}), metadata(map[string]any{"a": "2"})...),
		"no value":             entry("a"),
		"value without a kind": entry("a", nil),
		"a later kind":         entry("a", text, five),
		"objects in parts":     entry("a", sized(5, inner), sized(5, multicastregistry.AppendMetadata(nil, map[string]any{"c": nil}))),
		"object after text":    entry("a", sized(5, entry("no such key", five)[2:]), text, sized(5, nil)),
		"lists in parts":       entry("a", sized(6, sized(1, text)), append(sized(6, sized(1, five)), sized(6, nil)...)),
		"integer of a string":  entry("a", append(protowire.AppendVarint([]byte{15 << 3}, 10), text...)),
		"another integer":      entry("a", append(protowire.AppendVarint([]byte{15 << 3}, 12), five...)),
		"integer before":       entry("a", append(protowire.AppendVarint([]byte{15 << 3}, 10), five...)),
		"not a number":         entry("a", protowire.AppendFixed64([]byte{2<<3 | 1}, math.Float64bits(math.NaN()))),
		"unknown fields":       append(sized(99, []byte("x")), 99<<3&0x7f|0x80|5, 6, 1, 2, 3, 4, 98<<3&0x7f|0x80|1, 6, 1, 2, 3, 4, 5, 6, 7, 8),
		"unknown group":        {7<<3 | 3, 1 << 3, 1, 7<<3 | 4},
		"group without an end": {7<<3 | 3, 1 << 3, 1},
		"end without a group":  {7<<3 | 4},
		"another wire type":    {1 << 3, 1, 2<<3 | 5, 1, 2, 3, 4},
		"long tag":             {1<<3 | 2 | 0x80, 0x80, 0, 1, 'x'},
		"field 0":              {2, 0},
		"large field number":   append(protowire.AppendVarint(nil, 1<<32|2), 0),
		"wire type 6":          {1<<3 | 6, 0},
		"cut off":              {1<<3 | 2, 9, 'x'},
		"cut-off number":       {2<<3 | 2, 8, 1<<3 | 2, 6, 2<<3 | 2, 4, 2<<3 | 1, 0, 0, 0},
		"long varint":          append([]byte{6 << 3}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2),
		"name not UTF-8":       sized(1, []byte{0xff}),
		"key not UTF-8":        entry("\xff"),
		"text not UTF-8":       entry("a", sized(3, []byte{0xff})),
		"deep":                 sized(2, deep),
	}
}
