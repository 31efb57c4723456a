package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

func TestOddReplies(t *testing.T) {
	refused := "group without an end, end without a group, field 0, large field number, wire type 6, cut off, cut-off number, " +
		"long varint, name not UTF-8, key not UTF-8, text not UTF-8, deep"
	for name, raw := range odd() {
		err := new(enumerateReply).decode(sized(1, raw))
		if (err != nil) != strings.Contains(refused, name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var reply enumerateReply
	if err := reply.decode(nil); err != nil || reply.identities == nil {
		t.Errorf("of nothing: %v, %v", reply.identities, err)
	}
}

func TestIdentityMetadata(t *testing.T) {
	raw := odd()["metadata"]
	identity, err := decodeIdentity(string(raw))
	if err != nil {
		t.Fatal(err)
	}
	first := identity.Metadata()
	for key, want := range map[string]any{
		"null": nil, "yes": true, "text": "ü", "": "no name", "n": int64(-7), "u": uint64(1 << 63), "f": 0.5,
		"large": int64(1<<53 + 1), "huge": uint64(math.MaxUint64),
	} {
		if got, present := identity.Lookup(key); !present || got != want || first[key] != want {
			t.Errorf("%q is %#v and %#v, want %#v", key, got, first[key], want)
		}
	}
	for _, path := range [][]string{nil, {"nobody"}, {"text", "x"}, {"object", "x"}, {"list", "0"}, {"object", "in", "in", "x"}} {
		if got, present := identity.Lookup(path...); present || got != nil {
			t.Errorf("at %q is %v", path, got)
		}
	}
	first["text"] = "changed"
	first["object"].(map[string]any)["in"] = nil
	if again := identity.Metadata(); again["text"] != "ü" || again["object"].(map[string]any)["in"] == nil {
		t.Error("two callers share metadata")
	}
	decoded, err := multicastregistry.DecodeMetadata(identity.Encoded())
	if err != nil || !reflect.DeepEqual(decoded, identity.Metadata()) {
		t.Errorf("encoded it is %v, %v", decoded, err)
	}
	out, err := json.Marshal(identity)
	if err != nil || !strings.Contains(string(out), `"list":[null,1,["x"],{"y":true}]`) {
		t.Errorf("in JSON it is %s, %v", out, err)
	}
	if without := (Identity{}); without.Metadata() != nil || without.Encoded() != "" {
		t.Error("an identity without metadata has some")
	}
}

// TestLazyCodec takes a message in pieces, as gRPC does, and one that is malformed.
func TestLazyCodec(t *testing.T) {
	codec := lazyCodec{encoding.GetCodecV2("proto")}
	raw := response(t, 3)
	pieces := func() mem.BufferSlice { return mem.BufferSlice{mem.SliceBuffer(raw[:100]), mem.SliceBuffer(raw[100:])} }
	var lazy enumerateReply
	var generated patternpb.EnumerateResponse
	if err := codec.Unmarshal(pieces(), &lazy); err != nil || lazy.identities[2].ID != "dev-0002" || lazy.others.GetTotalCount() != 5 {
		t.Errorf("lazily: %+v, %v", &lazy, err)
	}
	if err := codec.Unmarshal(pieces(), &generated); err != nil || len(generated.GetIdentities()) != 3 {
		t.Errorf("generated: %v, %v", &generated, err)
	}
	if err := codec.Unmarshal(pieces()[:1], &lazy); !errors.Is(err, errMalformed) {
		t.Errorf("half of it: %v", err)
	}
}

// TestWhatIdentitiesHold checks that identities which arrived together hold no more of each other than promised.
func TestWhatIdentitiesHold(t *testing.T) {
	raw := response(t, 2000)
	c := cutter{message: raw}
	chunks := map[string]int{}
	for c.next() {
		if s := c.string(); !bytes.Equal([]byte(s), c.bytes()) {
			t.Fatalf("%x, want %x", s, c.bytes())
		}
		if len(c.text) > chunk {
			t.Fatalf("a chunk of %d bytes", len(c.text))
		}
		chunks[c.text]++
	}
	if most := len(raw)/(chunk-200) + 1; len(chunks) > most {
		t.Errorf("%d bytes are in %d chunks, want at most %d", len(raw), len(chunks), most)
	}
	large := cutter{message: append(sized(1, make([]byte, 3*chunk)), sized(1, []byte("x"))...)}
	for _, want := range []int{3 * chunk, 1} {
		if !large.next() || len(large.string()) != want {
			t.Errorf("cut %d bytes, want %d", len(large.string()), want)
		}
	}
}

// response is an EnumerateResponse with identities of five fields, as a server sends it.
func response(tb testing.TB, n int) []byte {
	tb.Helper()
	var raw []byte
	now := timestamppb.Now()
	for i := range n {
		identity, err := proto.Marshal(&patternpb.Identity{
			Identity: fmt.Sprintf("dev-%04d", i), RegisteredAt: now, ExpiresAt: now, Ttl: durationpb.New(time.Minute), Revision: uint64(i),
		})
		if err != nil {
			tb.Fatal(err)
		}
		raw = append(raw, sized(1, append(identity, sized(2, multicastregistry.AppendMetadata(nil, map[string]any{
			"n": int64(i), "status": "online", "room": "engineering", "battery": 0.5, "fw": "1.4.2",
		}))...))...)
	}
	return append(raw, 3<<3, 5) // total_count
}

// BenchmarkReply decodes a reply with 1,000 identities, and says how many times as long the generated decoder takes, with its
// Structs made into maps, and how long both take when all metadata is asked for after all.
func BenchmarkReply(b *testing.B) {
	raw := response(b, 1000)
	eagerly := func(b *testing.B) time.Duration {
		b.Helper()
		const rounds = 20
		began := time.Now()
		for range rounds {
			var reply patternpb.EnumerateResponse
			if err := proto.Unmarshal(raw, &reply); err != nil {
				b.Fatal(err)
			}
			for _, identity := range reply.GetIdentities() {
				fromStruct(identity.GetMetadata())
			}
		}
		return time.Since(began) / rounds
	}
	for name, use := range map[string]func(Identity){
		"received":        func(Identity) {},
		"one-field-read":  func(i Identity) { i.Lookup("room") },
		"metadata-as-map": func(i Identity) { i.Metadata() },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var reply enumerateReply
				if err := reply.decode(raw); err != nil {
					b.Fatal(err)
				}
				for _, identity := range reply.identities {
					use(identity)
				}
			}
			b.ReportMetric(float64(eagerly(b))/(float64(b.Elapsed())/float64(b.N)), "x-generated")
		})
	}
}
