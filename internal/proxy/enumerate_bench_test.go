package proxy

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/encoding"
	encodingproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/protobuf/types/known/structpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// BenchmarkShownPage makes what goes over the wire out of a page of 1,000 identities with five fields each, through the codec
// of the server. The peer is the same page made of generated messages, a Struct for each metadata, out of metadata that is
// decoded already: x-generated is how many times as fast it is, and is to be 5.
func BenchmarkShownPage(b *testing.B) {
	page, metadata := thousand(b)
	send := func(b *testing.B, codec encoding.CodecV2, build func() (*patternpb.EnumerateResponse, error)) (each time.Duration) {
		b.Helper()
		b.ReportAllocs()
		for b.Loop() {
			response, err := build()
			if err != nil {
				b.Fatal(err)
			}
			sent, err := codec.Marshal(response)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(sent.Len()))
			sent.Free()
		}
		return b.Elapsed() / time.Duration(b.N)
	}
	var peer time.Duration
	b.Run("generated", func(b *testing.B) {
		peer = send(b, encoding.GetCodecV2(encodingproto.Name), func() (*patternpb.EnumerateResponse, error) { return generatedPage(&page, metadata) })
	})
	b.Run("by-hand", func(b *testing.B) {
		took := send(b, newWireCodec(), func() (*patternpb.EnumerateResponse, error) { return shownPage(&patternpb.EnumerateRequest{}, &page) })
		if peer > 0 {
			b.ReportMetric(float64(peer)/float64(took), "x-generated")
		}
	})
}

// thousand is a page as an index returns it, and the metadata of its identities as maps.
func thousand(b *testing.B) (page multicastregistry.Page, metadata []map[string]any) {
	b.Helper()
	for i := range 1000 {
		m := map[string]any{"n": float64(i), "status": "online", "room": "engineering", "battery": 0.5, "fw": "1.4.2"}
		metadata = append(metadata, m)
		page.Identities = append(page.Identities, multicastregistry.Identity{
			ID: fmt.Sprintf("device-%07d", i), Encoded: string(multicastregistry.AppendMetadata(nil, m)), TTL: time.Minute,
			RegisteredAt: time.Unix(1_700_000_000, 5), ExpiresAt: time.Unix(1_700_000_060, 5), Revision: multicastregistry.Revision(i + 1),
		})
	}
	page.Total, page.Revision = len(page.Identities), multicastregistry.Revision(len(page.Identities))
	return page, metadata
}

// generatedPage is shownPage as the generated code would have it.
func generatedPage(page *multicastregistry.Page, metadata []map[string]any) (*patternpb.EnumerateResponse, error) {
	out := &patternpb.EnumerateResponse{TotalCount: uint64(page.Total), Revision: uint64(page.Revision)}
	for i := range page.Identities {
		shown, err := structpb.NewStruct(metadata[i])
		if err != nil {
			return nil, err
		}
		out.Identities = append(out.Identities, identity(page.Identities[i], shown))
	}
	return out, nil
}
