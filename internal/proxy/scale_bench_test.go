package proxy

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"

	patternpb "github.com/prism-data-layer/prism/gen/prism/pattern"
	"github.com/prism-data-layer/prism/patterns/memory"
	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// How scale is tested and measured: the server and the sender are in this process, the subscribers in another one, which is this
// program run once more. So what this process takes is what the server takes, its slots on memory included, and the subscribers'
// share of gRPC is not.

const (
	// crowdEnv tells this program to be the subscribers.
	crowdEnv = "PRISM_TEST_CROWD"
	// streamsEach is how many streams of the crowd share a connection.
	streamsEach = 1000
	// stalledID is an identity of a subscriber that does not read, besides those of the crowd.
	stalledID = "stalled"
)

// crowd says what the subscribers are: Streams with Each identities, all acknowledged at once, or never read.
type crowd struct {
	Addr    string `json:"addr"`
	Streams int    `json:"streams"`
	Each    int    `json:"each"`
	Stalled bool   `json:"stalled"`
}

// ids are the identities of one stream.
func (c crowd) ids(stream int) []string {
	ids := make([]string, 0, c.Each+1)
	for i := range c.Each {
		ids = append(ids, fmt.Sprintf("dev-%05d", stream*c.Each+i))
	}
	if c.Stalled {
		ids = append(ids, stalledID)
	}
	return ids
}

// beCrowd is what the other process does, until its standard input ends. It says "attached" when it is.
func beCrowd(env string) error {
	var c crowd
	if err := json.Unmarshal([]byte(env), &c); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var attached sync.WaitGroup
	var rpc patternpb.MulticastRegistryPatternClient // its connections last as long as the process
	for i := range c.Streams {
		if i%streamsEach == 0 {
			conn, err := grpc.NewClient(c.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				return err
			}
			rpc = patternpb.NewMulticastRegistryPatternClient(conn)
		}
		on := rpc
		attached.Add(1)
		go func() { cancel(c.stream(ctx, on, i, attached.Done)) }()
	}
	all := make(chan struct{})
	go func() {
		attached.Wait()
		close(all)
	}()
	select {
	case <-all:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	fmt.Fprintln(os.Stdout, "attached")
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		cancel(err)
	}()
	<-ctx.Done()
	if err := context.Cause(ctx); err != context.Canceled { //nolint:errorlint // what cancel(nil) sets, and no stream's error
		return err
	}
	return nil
}

// stream is one subscriber of the crowd.
func (c crowd) stream(ctx context.Context, rpc patternpb.MulticastRegistryPatternClient, n int, attached func()) error {
	wire, err := rpc.Subscribe(ctx)
	if err != nil {
		return err
	}
	// With the stalled one there is one more than a request may name.
	waiting := 0
	for ids := range slices.Chunk(c.ids(n), maxAttach) {
		if err := wire.Send(attachOf("", false, ids...)); err != nil {
			return err
		}
		waiting++
	}
	for !c.Stalled || waiting > 0 {
		r, err := wire.Recv()
		if err != nil {
			return err
		}
		if r.GetAttached() != nil { // what was stored may come before it
			if waiting--; waiting == 0 {
				attached()
			}
		}
		if c.Stalled || r.GetMessages() == nil {
			continue
		}
		acks := &patternpb.Acks{}
		for _, m := range r.GetMessages().GetMessages() {
			acks.Acks = append(acks.Acks, &patternpb.Ack{Identity: m.GetIdentity(), MessageId: m.GetMessageId()})
		}
		if err := wire.Send(&patternpb.SubscribeRequest{Request: &patternpb.SubscribeRequest_Acks{Acks: acks}}); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// scaled is a server with n registered identities of a crowd, and one that is stalled.
type scaled struct {
	tb   testing.TB
	addr string
	rpc  patternpb.MulticastRegistryPatternClient
}

func serveScaled(tb testing.TB, n int, stored bool) *scaled {
	tb.Helper()
	slots := multicastregistry.Slots{
		Registry: memory.NewRegistry(memory.RegistryConfig{}), Messaging: memory.NewMessaging(memory.MessagingConfig{}),
	}
	if stored {
		slots.Durability = memory.NewDurability(memory.DurabilityConfig{})
	}
	c, err := multicastregistry.Open(tb.Context(), multicastregistry.Config{Timeout: patience}, slots)
	if err != nil {
		tb.Fatal(err)
	}
	register := func(id, who string) {
		if _, err := c.Register(tb.Context(), multicastregistry.Registration{
			ID: id, TTL: multicastregistry.NoExpiry, Metadata: map[string]any{"who": who},
		}); err != nil {
			tb.Fatal(err)
		}
	}
	register(stalledID, "stalled")
	for _, id := range (crowd{Each: n}).ids(0) {
		register(id, "crowd")
	}
	s, err := New(Config{Namespaces: []Namespace{{Coordinator: c, Registry: "memory", Messaging: "memory"}}})
	if err != nil {
		tb.Fatal(err)
	}
	listener, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(listener, nil) }()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = conn.Close()
		drain, done := context.WithTimeout(context.Background(), patience)
		defer done()
		if err := s.Drain(drain); err != nil {
			tb.Errorf("drain: %v", err)
		}
		if err := <-served; err != nil {
			tb.Errorf("serve: %v", err)
		}
		_ = c.Close()
	})
	return &scaled{tb: tb, addr: listener.Addr().String(), rpc: patternpb.NewMulticastRegistryPatternClient(conn)}
}

// attach starts a crowd in another process, and returns when all of its identities are attached.
func (s *scaled) attach(c crowd) {
	s.tb.Helper()
	c.Addr = s.addr
	env, err := json.Marshal(c)
	if err != nil {
		s.tb.Fatal(err)
	}
	// The test that it is told to run is the one that looks at the environment first.
	cmd := exec.CommandContext(context.Background(), os.Args[0], "-test.run=^TestManyStreams$")
	cmd.Env = append(os.Environ(), crowdEnv+"="+string(env))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		s.tb.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		s.tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			s.tb.Errorf("the subscribers: %v", err)
		}
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "attached\n" {
		s.tb.Fatalf("the subscribers said %q, %v", line, err)
	}
}

// multicast sends to all who are who.
func (s *scaled) multicast(who string, request *patternpb.MulticastRequest) *patternpb.MulticastResponse {
	s.tb.Helper()
	request.Filter = &structpb.Struct{Fields: map[string]*structpb.Value{"who": structpb.NewStringValue(who)}}
	got, err := s.rpc.Multicast(s.tb.Context(), request)
	if err != nil {
		s.tb.Fatal(err)
	}
	return got
}

// reachAll has a multicast acknowledged by all n of the crowd, and returns how long that took.
func (s *scaled) reachAll(n int) time.Duration {
	s.tb.Helper()
	start := time.Now()
	got := s.multicast("crowd", &patternpb.MulticastRequest{Payload: []byte("hello"), Report: patternpb.MulticastRequest_UNDELIVERED})
	took := time.Since(start)
	if got.GetTargetCount() != uint32(n) || got.GetDeliveredCount() != uint32(n) || got.GetEnded() != patternpb.MulticastResponse_COMPLETE {
		s.tb.Fatalf("of %d: %d targets, %d delivered, %s; %v", n, got.GetTargetCount(), got.GetDeliveredCount(), got.GetEnded(), got.GetStatuses())
	}
	return took
}

// stall attaches a stream that does not read to all identities of the crowd, and sends to its own one until nothing more fits.
func (s *scaled) stall(n int) (fitted int) {
	s.tb.Helper()
	s.attach(crowd{Streams: 1, Each: n, Stalled: true})
	request := &patternpb.MulticastRequest{
		Payload: make([]byte, 512<<10), Delivery: patternpb.Delivery_AT_MOST_ONCE, RetryAttempts: 1,
	}
	const most = 500
	for fitted = range most {
		got := s.multicast("stalled", request)
		if got.GetFailedCount() > 0 {
			if reason := got.GetStatuses()[0].GetReason(); reason != patternpb.DeliveryStatus_QUEUE_FULL {
				s.tb.Fatalf("the stalled subscriber: %s", reason)
			}
			return fitted
		}
	}
	s.tb.Fatalf("%d messages of 512 KiB fit a subscriber that does not read", most)
	return 0
}

// raceDetector tells whether this program has the race detector, which bears 8,128 goroutines at once.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// TestManyStreams has thousands of streams with an identity each, without and with a durability slot.
func TestManyStreams(t *testing.T) {
	if env := os.Getenv(crowdEnv); env != "" {
		if err := beCrowd(env); err != nil {
			fmt.Fprintln(os.Stderr, "subscribers:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	n := 2000
	if raceDetector() {
		n = 800
	}
	for _, stored := range []bool{false, true} {
		t.Run("durability="+strconv.FormatBool(stored), func(t *testing.T) {
			s := serveScaled(t, n, stored)
			s.attach(crowd{Streams: n, Each: 1})
			for range 3 {
				s.reachAll(n)
			}
		})
	}
}

// TestManyIdentities has 10,000 identities on one stream, and beside it one that is attached to the same and reads nothing: its
// own messages are refused, and nobody else notices. With a durability slot what was stored before comes first.
func TestManyIdentities(t *testing.T) {
	n := 10_000
	if raceDetector() {
		n = 4000
	}
	for _, stored := range []bool{false, true} {
		t.Run("durability="+strconv.FormatBool(stored), func(t *testing.T) {
			s := serveScaled(t, n, stored)
			var early string
			if stored {
				got := s.multicast("crowd", &patternpb.MulticastRequest{Payload: []byte("early")})
				if early = got.GetMulticastId(); got.GetPendingCount() != uint32(n) {
					t.Fatalf("%d of %d pending", got.GetPendingCount(), n)
				}
			}
			s.attach(crowd{Streams: 1, Each: n})
			s.reachAll(n)
			if stored {
				eventually(t, "all that was stored is delivered", func() bool {
					got, err := s.rpc.GetMulticast(t.Context(), &patternpb.GetMulticastRequest{MulticastId: early})
					if err != nil {
						t.Fatal(err)
					}
					return got.GetMulticast().GetResult().GetDeliveredCount() == uint32(n)
				})
			}
			t.Logf("%d messages of 512 KiB until the stalled subscriber was full", s.stall(n))
			for range 3 {
				s.reachAll(n)
			}
		})
	}
}

// taken is what this process takes after a collection: heap and stacks, and goroutines.
func taken() (bytes uint64, goroutines int) {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse, runtime.NumGoroutine()
}

// perStream returns how much more there is than before, for each of n.
func perStream[N int | uint64](now, before N, n int) float64 {
	return (float64(now) - float64(before)) / float64(n)
}

// BenchmarkStreams takes the time of a multicast that everybody acknowledges, each on a stream of its own, and tells what the
// server takes for a stream: heap and stacks when it is attached and when it has been used, and goroutines.
func BenchmarkStreams(b *testing.B) {
	for _, stored := range []bool{false, true} {
		for _, n := range []int{100, 1000, 10_000} {
			b.Run(fmt.Sprintf("durability=%t/streams=%d", stored, n), func(b *testing.B) {
				s := serveScaled(b, n, stored)
				before, goroutinesBefore := taken()
				start := time.Now()
				s.attach(crowd{Streams: n, Each: 1})
				attach := time.Since(start)
				idle, goroutines := taken()
				for b.Loop() {
					s.reachAll(n)
				}
				used, _ := taken()
				b.ReportMetric(float64(attach.Milliseconds()), "attach-ms")
				b.ReportMetric(perStream(idle, before, n), "B/stream")
				b.ReportMetric(perStream(used, before, n), "B/used-stream")
				b.ReportMetric(perStream(goroutines, goroutinesBefore, n), "goroutines/stream")
			})
		}
	}
}

// BenchmarkOneStream takes the time of a multicast that one stream acknowledges for 10,000 identities, while another one is
// attached to them all and reads nothing; x-alone is how many times as long that takes as without the other.
func BenchmarkOneStream(b *testing.B) {
	const n, rounds = 10_000, 9
	for _, stored := range []bool{false, true} {
		b.Run("durability="+strconv.FormatBool(stored), func(b *testing.B) {
			s := serveScaled(b, n, stored)
			before, _ := taken()
			start := time.Now()
			s.attach(crowd{Streams: 1, Each: n})
			attach := time.Since(start)
			idle, _ := taken()
			median := func() time.Duration {
				var took []time.Duration
				for range rounds {
					took = append(took, s.reachAll(n))
				}
				slices.Sort(took)
				return took[rounds/2]
			}
			alone := median()
			s.stall(n)
			beside := median()
			for b.Loop() {
				s.reachAll(n)
			}
			b.ReportMetric(float64(attach.Milliseconds()), "attach-ms")
			b.ReportMetric(perStream(idle, before, n), "B/identity")
			b.ReportMetric(float64(beside)/float64(alone), "x-alone")
			b.ReportMetric(float64(alone.Microseconds())/1000, "alone-ms")
		})
	}
}
