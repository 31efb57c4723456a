package proxy

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// TestWireCodec reads what the codec writes with the generated code: small and large pages, by themselves and in a stream,
// out of buffers that have been used before.
func TestWireCodec(t *testing.T) {
	t.Parallel()
	codec := newWireCodec()
	for _, n := range []int{0, 1, 20, 1000, 20, 3} {
		var page multicastregistry.Page
		for i := range n {
			page.Identities = append(page.Identities, multicastregistry.Identity{ID: fmt.Sprint(n, "-", i, strings.Repeat("x", i)), Revision: 7})
		}
		page.Total = n
		build := func() *patternpb.EnumerateResponse {
			shown, err := shownPage(&patternpb.EnumerateRequest{}, &page)
			if err != nil {
				t.Fatal(err)
			}
			return shown
		}
		send := func(in, out proto.Message) {
			sent, err := codec.Marshal(in)
			if err != nil {
				t.Fatal(err)
			}
			if err := proto.Unmarshal(sent.Materialize(), out); err != nil {
				t.Fatalf("%d identities in a %T: %v", n, in, err)
			}
			sent.Free()
		}
		var alone patternpb.EnumerateResponse
		var streamed patternpb.EnumerateStreamResponse
		send(build(), &alone)
		send(&patternpb.EnumerateStreamResponse{Page: build()}, &streamed)
		for _, got := range []*patternpb.EnumerateResponse{&alone, streamed.GetPage()} {
			if got.GetTotalCount() != uint64(n) || len(got.GetIdentities()) != n {
				t.Errorf("%d of %d identities, total %d", len(got.GetIdentities()), n, got.GetTotalCount())
			}
			for i, identity := range got.GetIdentities() {
				if identity.GetIdentity() != page.Identities[i].ID || identity.GetRevision() != 7 {
					t.Errorf("%q, want %q", identity.GetIdentity(), page.Identities[i].ID)
				}
			}
		}
	}
}

// TestWireCodecOther leaves what is not of this API to gRPC's own codec.
func TestWireCodecOther(t *testing.T) {
	t.Parallel()
	if _, err := newWireCodec().Marshal("no message"); err == nil {
		t.Error("no error")
	}
	if got := (&patternpb.EnumerateStreamResponse{}).ProtoReflect().Descriptor().Fields().ByName("page").Number(); got != fieldPage {
		t.Errorf("page is field %d", got)
	}
}
