package acceptance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	encodingproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/prism-data-layer/prism/client"
	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/internal/testenv"
)

// benchLimit is the specification's bound for an Enumerate of 1,000, and ours for the longest wait of a reader.
const benchLimit = 20 * time.Millisecond

// overRedis runs proxies over one Redis, each a process of its own, so that their time is not this process's.
func overRedis(b *testing.B, proxies int) []process {
	b.Helper()
	namespace := testenv.Prefix(b)
	slots := fmt.Sprintf("{registry: {type: redis, host: %q}, messaging: {type: memory}}", testenv.NewRedis(b).Addr)
	var all []process
	for range proxies {
		all = append(all, start(b, namespace, config(namespace, slots)))
	}
	return all
}

// registerAll registers names(n) from many callers at once.
func (p *proxy) registerAll(b *testing.B, n int, metadata func(i int) map[string]any) {
	b.Helper()
	shareOut(b, 64, n, func(i int) error {
		r := client.Registration{ID: name(i), Metadata: metadata(i), TTL: time.Hour, Mode: client.Replace}
		_, err := p.Register(b.Context(), r)
		return err
	})
}

// awaitAll waits until the proxy counts n identities.
func (p *proxy) awaitAll(b *testing.B, n int) {
	b.Helper()
	patiently(b, fmt.Sprintf("the proxy counts %d identities", n), func() bool {
		page, err := p.Enumerate(b.Context(), client.Query{CountOnly: true, Consistency: client.Strong})
		return err == nil && page.Total == n
	})
}

// BenchmarkEnumerateOverGRPC asks one of two proxies over Redis for a page of 1,000 with metadata, of 1,000 and of 10,000
// identities that were registered through the other one. An operation is 500 calls, one after the other. The client's part is in
// "client"; in "received" the reply is received and not decoded. "floor" is a gRPC server that looks up nothing and sends as many
// bytes: what stands beside x- is how many times that. The specification's limit is 20 ms; ours at the 99th percentile is a tenth
// of that.
func BenchmarkEnumerateOverGRPC(b *testing.B) {
	const calls, matches = 500, 1000
	match := map[string]any{"n": map[string]any{"$lt": matches}, "room": "engineering"}
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprintf("1000-of-%d", n), func(b *testing.B) {
			proxies := overRedis(b, 2)
			proxies[0].registerAll(b, n, fields)
			p := proxies[1]
			p.awaitAll(b, n)
			measure := func(b *testing.B, call func() (got int, err error)) (took times) {
				b.Helper()
				for b.Loop() {
					for range calls {
						took.timed(func() {
							if got, err := call(); err != nil || got != matches {
								b.Fatalf("%d identities, want %d: %v", got, matches, err)
							}
						})
					}
				}
				took.report(b, benchLimit)
				return took
			}
			enumerate := receiving(b, p.at, p.namespace, match, matches)
			size, err := enumerate(b.Context())
			must(b, err)
			received := func(b *testing.B, call func(context.Context) (int, error)) times {
				b.Helper()
				return measure(b, func() (int, error) {
					if got, err := call(b.Context()); err != nil || got != size {
						return got, err
					}
					return matches, nil
				})
			}
			var floor times
			beside := func(b *testing.B, took times) {
				b.Helper()
				if len(floor) > 0 {
					b.ReportMetric(float64(took.at(0.5))/float64(floor.at(0.5)), "p50-x-floor")
					b.ReportMetric(float64(took.at(0.99))/float64(floor.at(0.99)), "p99-x-floor")
				}
			}
			b.Run("floor", func(b *testing.B) {
				floor = received(b, receiving(b, sending(b, size), "", match, matches))
				b.ReportMetric(float64(size), "B/reply")
			})
			b.Run("received", func(b *testing.B) { beside(b, received(b, enumerate)) })
			b.Run("client", func(b *testing.B) {
				beside(b, measure(b, func() (int, error) {
					page, err := p.Enumerate(b.Context(), client.Query{Filter: match, PageSize: matches})
					return len(page.Identities), err
				}))
			})
		})
	}
}

// sending runs a gRPC server, in this process, that answers every call with a message of so many bytes, and returns its address.
func sending(b *testing.B, size int) string {
	b.Helper()
	reply := wrapperspb.Bytes(make([]byte, size))
	reply.Value = reply.GetValue()[:2*size-proto.Size(reply)] // without what stands before them
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, call grpc.ServerStream) error {
		var request patternpb.EnumerateRequest
		return errors.Join(call.RecvMsg(&request), call.SendMsg(reply))
	}))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(b, err)
	var serving sync.WaitGroup
	serving.Go(func() { check(b, server.Serve(listener)) })
	b.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	return listener.Addr().String()
}

// receiving returns a call of Enumerate that decodes nothing and returns how long the reply is.
func receiving(
	b *testing.B, addr, namespace string, match map[string]any, page int,
) (call func(ctx context.Context) (int, error)) {
	b.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(b, err)
	b.Cleanup(func() { check(b, conn.Close()) })
	wire, err := structpb.NewStruct(match)
	must(b, err)
	request := &patternpb.EnumerateRequest{Namespace: namespace, Filter: wire, PageSize: int32(page)}
	codec := grpc.ForceCodecV2(measuring{encoding.GetCodecV2(encodingproto.Name)})
	return func(ctx context.Context) (int, error) {
		var size replySize
		err := conn.Invoke(ctx, patternpb.MulticastRegistryPattern_Enumerate_FullMethodName, request, &size, codec)
		return int(size), err
	}
}

// replySize is how many bytes a reply has.
type replySize int

// measuring is gRPC's codec, except that of a reply it tells no more than the size.
type measuring struct{ encoding.CodecV2 }

// Unmarshal implements encoding.CodecV2.
func (m measuring) Unmarshal(data mem.BufferSlice, v any) error {
	if size, ok := v.(*replySize); ok {
		*size = replySize(data.Len())
		return nil
	}
	return m.CodecV2.Unmarshal(data, v)
}
