package acceptance

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/redis/rueidis"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/testenv"
)

// BenchmarkPath measures the hot paths through gRPC against proxies that are processes of their own, and in turns with each the
// floors under it: raw Redis with the same driver and the same callers, raw NATS with as many subscribers, and an empty call of
// grpc-go. Beside the wall time, which a busy machine stretches, is the CPU time of each server process by the kernel's count.
// An iteration is a round of all of them; what is reported of rounds is the median. Run it with -benchtime=5x or so.
func BenchmarkPath(b *testing.B) {
	b.Run("register", benchRegisterPath)
	b.Run("multicast", benchMulticastPath)
	b.Run("heartbeats", benchHeartbeatsPath)
}

// pathCallers is how many callers share the calls of a path.
const pathCallers = 16

// emptyAddress makes the test binary serveEmpty there, and run no test.
const emptyAddress = "PRISM_TEST_EMPTY_SERVER"

// serveEmpty is the process under the floor of gRPC: it answers every call with nothing, until it is killed.
func serveEmpty(address string) error {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "floor.Floor", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Call",
		Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			request := new(emptypb.Empty)
			return request, decode(request)
		},
	}}}, nil)
	return server.Serve(listener)
}

// emptyCalls returns an empty call of a server in a process of its own.
func emptyCalls(b *testing.B) (call func() error, server *child) {
	b.Helper()
	at := testenv.FreeAddress(b)
	b.Setenv(emptyAddress, at)
	server = &child{t: b, binary: os.Executable, listens: at}
	server.launch()
	conn, err := grpc.NewClient(at, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(b, err)
	b.Cleanup(func() { check(b, conn.Close()) })
	return func() error {
		return conn.Invoke(b.Context(), "/floor.Floor/Call", new(emptypb.Empty), new(emptypb.Empty))
	}, server
}

// rawRedis is a driver's client as the registry configures its own, and the server's process.
type rawRedis struct {
	rueidis.Client

	pid int
}

func dialRedis(b *testing.B, addr string) rawRedis {
	b.Helper()
	conn, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{addr}, AlwaysPipelining: true, PipelineMultiplex: -1, DisableCache: true, ForceSingleClient: true,
	})
	must(b, err)
	b.Cleanup(conn.Close)
	r := rawRedis{Client: conn}
	r.pid = int(r.info(b, "server", "process_id:"))
	return r
}

// info returns the number behind a text in a section of INFO, 0 when there is none.
func (r rawRedis) info(b *testing.B, section, before string) int64 {
	b.Helper()
	text, err := r.Do(b.Context(), r.B().Info().Section(section).Build()).ToString()
	must(b, err)
	_, rest, _ := strings.Cut(text, before)
	n, _ := strconv.ParseInt(rest[:max(0, strings.IndexFunc(rest, func(c rune) bool { return c < '0' || c > '9' }))], 10, 64)
	return n
}

// write stores what a registration stores, or as much of it as a heartbeat does, and when it ends.
func (r rawRedis) write(ctx context.Context, key, metadata string) error {
	set := r.B().Hset().Key(key).FieldValue().FieldValue("t", "30000").FieldValue("e", "1764000030000")
	if metadata != "" {
		set = set.FieldValue("m", metadata).FieldValue("r", "1764000000000").FieldValue("v", "1000000")
	}
	for _, result := range r.DoMulti(ctx, set.Build(), r.B().Pexpire().Key(key).Milliseconds(86_400_000).Build()) {
		if err := result.Error(); err != nil {
			return err
		}
	}
	return nil
}

// cpu returns the CPU time of processes, to the kernel's hundredth of a second. This process is number 0.
func cpu(b *testing.B, pids ...int) (total time.Duration) {
	b.Helper()
	for _, pid := range pids {
		of := "self"
		if pid != 0 {
			of = strconv.Itoa(pid)
		}
		text, err := os.ReadFile("/proc/" + of + "/stat")
		must(b, err)
		_, rest, _ := strings.Cut(string(text), ") ") // behind the name, which may have spaces
		fields := strings.Fields(rest)
		for _, field := range fields[11:13] { // utime and stime
			ticks, err := strconv.Atoi(field)
			must(b, err)
			total += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return total
}

func (c *child) pid() int { return c.command.Process.Pid }

// path is one way to do something, measured round after round.
type path struct {
	calls times
	used  []map[string]float64 // of each round: µs of CPU time for each operation, by the name of the processes
}

// round measures n operations, which do does; processes are those that work for it.
func (p *path) round(b *testing.B, n int, processes map[string][]int, do func() times) {
	b.Helper()
	before := make(map[string]time.Duration)
	for name, pids := range processes {
		before[name] = cpu(b, pids...)
	}
	p.calls = append(p.calls, do()...)
	used := make(map[string]float64)
	for name, pids := range processes {
		used[name] = (cpu(b, pids...) - before[name]).Seconds() * 1e6 / float64(n)
	}
	p.used = append(p.used, used)
}

// median returns the median over the rounds of a process' CPU time for an operation, in µs.
func (p *path) median(process string) float64 {
	var all []float64
	for _, used := range p.used {
		all = append(all, used[process])
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// report reports times and CPU times.
func (p *path) report(b *testing.B, name string) {
	b.Helper()
	if len(p.calls) > 0 {
		b.ReportMetric(ms(p.calls.at(0.5)), name+"-p50-ms")
		b.ReportMetric(ms(p.calls.at(0.99)), name+"-p99-ms")
	}
	for process := range p.used[0] {
		b.ReportMetric(p.median(process), name+"-"+process+"-cpu-µs")
	}
}

// timedCalls has callers make n calls between them and returns how long each took.
func timedCalls(b *testing.B, callers, n int, call func(i int) error) times {
	b.Helper()
	took := make(times, n)
	shareOut(b, callers, n, func(i int) error {
		start := time.Now()
		err := call(i)
		took[i] = time.Since(start)
		return err
	})
	return took
}

// benchRegisterPath registers new identities with five fields, from 16 callers.
func benchRegisterPath(b *testing.B) {
	const calls = 5000
	addr := testenv.NewRedis(b).Addr
	raw := dialRedis(b, addr)
	namespace := testenv.Prefix(b)
	slots := fmt.Sprintf("{registry: {type: redis, host: %q}, messaging: {type: memory}}", addr)
	p := start(b, namespace, config(namespace, slots))
	call, empty := emptyCalls(b)
	var ours, redis, nothing path
	const metadata = `{"battery":0.5,"fw":"1.4.2","n":7,"room":"engineering","status":"online"}`
	for round := 0; b.Loop(); round++ {
		redis.round(b, calls, map[string][]int{"redis": {raw.pid}}, func() times {
			return timedCalls(b, pathCallers, calls, func(i int) error {
				return raw.write(b.Context(), fmt.Sprintf("floor-%d-%d", round, i), metadata)
			})
		})
		nothing.round(b, calls, map[string][]int{"server": {empty.pid()}}, func() times {
			return timedCalls(b, pathCallers, calls, func(int) error { return call() })
		})
		ours.round(b, calls, map[string][]int{"proxy": {p.pid()}, "redis": {raw.pid}}, func() times {
			return timedCalls(b, pathCallers, calls, func(i int) error {
				r := client.Registration{ID: fmt.Sprintf("dev-%d-%d", round, i), Metadata: fields(i), TTL: time.Hour}
				_, err := p.Register(b.Context(), r)
				return err
			})
		})
	}
	ours.report(b, "ours")
	redis.report(b, "raw")
	nothing.report(b, "empty-call")
	b.ReportMetric(ours.median("redis")/redis.median("redis"), "redis-cpu-x-raw")
	b.ReportMetric(ours.median("proxy")/nothing.median("server"), "proxy-cpu-x-empty-call")
	b.ReportMetric(float64(ours.calls.at(0.5))/float64(redis.calls.at(0.5)+nothing.calls.at(0.5)), "p50-x-floors")
}

// startNATS runs a NATS server in a process of its own.
func startNATS(b *testing.B) (url string, server *child) {
	b.Helper()
	at := testenv.FreeAddress(b)
	host, port, err := net.SplitHostPort(at)
	must(b, err)
	server = &child{t: b, binary: natsBinary, args: []string{"-a", host, "-p", port}, listens: at}
	server.launch()
	return "nats://" + at, server
}

// benchMulticastPath multicasts to a thousand identities that are attached through three proxies, and acknowledge. The CPU times
// are those for one target.
func benchMulticastPath(b *testing.B) {
	const targets, calls = 1000, 50
	url, server := startNATS(b)
	namespace := testenv.Prefix(b)
	const form = "{registry: {type: redis, host: %q}, messaging: {type: nats, servers: [%q]}}"
	slots := fmt.Sprintf(form, testenv.NewRedis(b).Addr, url)
	var proxies []process
	var pids []int
	for range 3 {
		p := start(b, namespace, config(namespace, slots))
		proxies, pids = append(proxies, p), append(pids, p.pid())
	}
	proxies[0].registerAll(b, targets, fields)
	for i, p := range proxies {
		p.awaitAll(b, targets)
		p.attach(b, names(targets)[i*targets/3:(i+1)*targets/3]...)
	}
	floor := rawMulticast(b, url, names(targets))
	call, empty := emptyCalls(b)
	request := client.MulticastRequest{Payload: []byte("Hello!"), Delivery: client.AtLeastOnce, Report: client.ReportUndelivered}
	var ours, raw, nothing path
	for b.Loop() {
		raw.round(b, calls*targets, map[string][]int{"nats": {server.pid()}, "ends": {0}}, func() (took times) {
			for range calls {
				took.timed(func() { floor(request.Payload) })
			}
			return took
		})
		nothing.round(b, calls*20, map[string][]int{"server": {empty.pid()}}, func() times {
			return timedCalls(b, 1, calls*20, func(int) error { return call() })
		})
		processes := map[string][]int{"nats": {server.pid()}, "proxies": pids, "client": {0}}
		ours.round(b, calls*targets, processes, func() (took times) {
			for range calls {
				took.timed(func() {
					result, err := proxies[0].Multicast(b.Context(), request)
					must(b, err)
					if result.Delivered != targets {
						b.Fatalf("delivered %d of %d", result.Delivered, targets)
					}
				})
			}
			return took
		})
	}
	ours.report(b, "ours")
	raw.report(b, "raw")
	nothing.report(b, "empty-call")
	b.ReportMetric(ours.median("nats")/raw.median("nats"), "nats-cpu-x-raw")
	b.ReportMetric(ours.median("proxies")/raw.median("ends"), "proxies-cpu-x-raw-ends")
	b.ReportMetric(float64(ours.calls.at(0.5))/float64(raw.calls.at(0.5)+nothing.calls.at(0.5)), "p50-x-floors")
}

// rawMulticast returns what publishes a payload to a subject for each name, whose subscribers, on three connections, answer, and
// returns when all have.
func rawMulticast(b *testing.B, url string, names []string) func(payload []byte) {
	b.Helper()
	connect := func() *nats.Conn {
		conn, err := nats.Connect(url)
		must(b, err)
		b.Cleanup(conn.Close)
		return conn
	}
	publisher, ends := connect(), []*nats.Conn{connect(), connect(), connect()}
	for i, name := range names {
		end := ends[3*i/len(names)]
		_, err := end.Subscribe("floor."+name, func(m *nats.Msg) { check(b, end.Publish(m.Reply, nil)) })
		must(b, err)
	}
	for _, end := range ends {
		must(b, end.Flush())
	}
	answered := make(chan struct{}, len(names))
	inbox := nats.NewInbox()
	_, err := publisher.Subscribe(inbox+".*", func(*nats.Msg) { answered <- struct{}{} })
	must(b, err)
	return func(payload []byte) {
		for i, name := range names {
			must(b, publisher.PublishRequest("floor."+name, inbox+"."+strconv.Itoa(i), payload))
		}
		for range names {
			select {
			case <-answered:
			case <-time.After(20 * time.Second):
				b.Fatal("not all have answered")
			}
		}
	}
}

// benchHeartbeatsPath keeps 100,000 leases through one proxy: by calls of Heartbeat, 3,300 a second, beside as many raw writes
// and empty calls; and by ten streams with keep-alive, where they last 30 seconds and the server renews each three times in that. It
// reports what share of a core each server takes, how many scripts Redis runs for one renewal, how often it is asked for its head
// besides, and how many leases were lost, which is to be none. The calls ask for leases of an hour: at that rate each identity's
// turn comes after 30.3 seconds.
func benchHeartbeatsPath(b *testing.B) {
	const many, ttl, perSecond, measured = 100_000, 30 * time.Second, 3300, 10 * time.Second
	for b.Loop() {
		addr := testenv.NewRedis(b).Addr
		raw := dialRedis(b, addr)
		namespace := testenv.Prefix(b)
		slots := fmt.Sprintf("{registry: {type: redis, host: %q}, messaging: {type: memory}}", addr)
		p := start(b, namespace, config(namespace, slots))
		call, empty := emptyCalls(b)

		rate := paced(b, perSecond, measured/2, func(i int) error { return raw.write(b.Context(), fmt.Sprint("floor-", i), "") },
			map[string]int{"raw-redis": raw.pid})
		b.ReportMetric(rate, "raw/s")
		rate = paced(b, perSecond, measured/2, func(int) error { return call() }, map[string]int{"empty-call-server": empty.pid()})
		b.ReportMetric(rate, "empty-call/s")

		p.registerAll(b, many, fields) // for an hour; the first heartbeat shortens that
		head := func() int64 {
			revision, err := raw.Do(b.Context(), raw.B().Hget().Key("{prism:"+namespace+"}:head").Field("revision").Build()).AsInt64()
			must(b, err)
			return revision
		}
		ran := func(command string) int64 { return raw.info(b, "commandstats", "cmdstat_"+command+":calls=") }
		both := map[string]int{"calls-proxy": p.pid(), "calls-redis": raw.pid}
		rate = paced(b, perSecond, measured, func(i int) error {
			_, err := p.Heartbeat(b.Context(), name(i%many), time.Hour)
			return err
		}, both)
		b.ReportMetric(rate, "calls/s")

		lost := p.keepAll(b, many, ttl)
		revisions, scripts, heads := head(), ran("evalsha"), ran("hget")
		both = map[string]int{"streams-proxy": p.pid(), "streams-redis": raw.pid}
		shares(b, both, func() { <-time.After(measured) })
		renewed := float64(head() - revisions)
		b.ReportMetric(renewed/measured.Seconds(), "streams/s")
		b.ReportMetric(float64(ran("evalsha")-scripts)/renewed, "streams-scripts/renewal")
		b.ReportMetric(float64(ran("hget")-heads)/renewed, "streams-heads/renewal")
		page, err := p.Enumerate(b.Context(), client.Query{CountOnly: true, Consistency: client.Strong})
		must(b, err)
		b.ReportMetric(float64(max(many-page.Total, int(lost.Load()))), "streams-lost")
	}
}

// keepAll attaches names(n) with keep-alive to ten streams, with leases of the given length, and counts those that are lost. It
// does so a few at a time, so that no lease is old when the server begins to keep it.
func (p process) keepAll(b *testing.B, n int, ttl time.Duration) *atomic.Int64 {
	b.Helper()
	const block = 1000
	lost := new(atomic.Int64)
	streams := make([]*client.Stream, 10)
	for i := range streams {
		stream, err := p.Subscribe(context.WithoutCancel(b.Context()))
		must(b, err)
		streams[i] = stream
		var reading sync.WaitGroup
		reading.Go(func() {
			for {
				event, err := stream.Next(context.Background())
				if err != nil {
					return
				}
				lost.Add(int64(len(event.LeasesLost)))
			}
		})
		b.Cleanup(func() {
			check(b, stream.Close())
			reading.Wait()
		})
	}
	for from := 0; from < n; from += block {
		ids := make([]string, block)
		for i := range ids {
			ids[i] = name(from + i)
		}
		shareOut(b, 64, block, func(i int) error {
			_, err := p.Heartbeat(b.Context(), ids[i], ttl)
			return err
		})
		must(b, streams[from/block%len(streams)].Attach(b.Context(), true, ids...))
	}
	<-time.After(ttl / 3) // the first renewals, which come at once, are over
	return lost
}

// shares reports which share of a core processes take while something is done.
func shares(b *testing.B, processes map[string]int, do func()) {
	b.Helper()
	before := make(map[string]time.Duration)
	for name, pid := range processes {
		before[name] = cpu(b, pid)
	}
	start := time.Now()
	do()
	took := time.Since(start)
	for name, pid := range processes {
		b.ReportMetric(100*(cpu(b, pid)-before[name]).Seconds()/took.Seconds(), name+"-cpu-%")
	}
}

// paced makes so many calls a second for a while, from 64 callers, and returns how many a second there were.
func paced(b *testing.B, perSecond int, during time.Duration, call func(i int) error, processes map[string]int) float64 {
	b.Helper()
	n := perSecond * int(during/time.Second)
	due := make(chan struct{}, n)
	began := time.Now()
	shares(b, processes, func() {
		var pacing sync.WaitGroup
		pacing.Go(func() {
			for sent := 0; sent < n; {
				<-time.After(10 * time.Millisecond)
				for want := min(n, int(time.Since(began).Seconds()*float64(perSecond))); sent < want; sent++ {
					due <- struct{}{}
				}
			}
		})
		shareOut(b, 64, n, func(i int) error {
			<-due
			return call(i)
		})
		pacing.Wait()
	})
	return float64(n) / time.Since(began).Seconds()
}
