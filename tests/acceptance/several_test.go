package acceptance

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/app"
	"github.com/prism-data-layer/prism/internal/testenv"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/filter"
)

// shared are the combinations whose backends several proxies can share.
func shared() []combination {
	return slices.DeleteFunc(combinations(), func(c combination) bool { return strings.HasPrefix(c.name, "memory") })
}

// onShared runs a scenario with three proxies over one set of backends, for each combination.
func onShared(t *testing.T, scenario func(t *testing.T, a, b, c *proxy)) {
	t.Helper()
	t.Parallel()
	for _, combined := range shared() {
		t.Run(combined.name, func(t *testing.T) {
			t.Parallel()
			namespace := testenv.Prefix(t)
			var proxies [3]*proxy
			for i := range proxies {
				proxies[i] = dial(t, serve(t, config(namespace, combined.slots(t))).GRPC, namespace)
			}
			scenario(t, proxies[0], proxies[1], proxies[2])
		})
	}
}

// TestSeveralProxies registers through one proxy, enumerates through another, subscribes through the third: one system.
func TestSeveralProxies(t *testing.T) {
	onShared(t, func(t *testing.T, a, b, c *proxy) {
		a.register(t, 100, func(i int) map[string]any { return map[string]any{"even": i%2 == 0} })
		if found := b.find(t, `{}`); len(found) != 100 {
			t.Fatalf("the second proxy sees %d of 100 identities", len(found))
		}
		_, err := c.Register(t.Context(), client.Registration{ID: name(0)})
		wantError(t, err, client.ErrAlreadyExists)
		_, err = b.Heartbeat(t.Context(), name(1), time.Hour)
		must(t, err)
		if found := c.find(t, `{"even":false}`); len(found) != 50 || found[0].TTL != time.Hour {
			t.Errorf("the third proxy sees %d, the first with a TTL of %v", len(found), found[0].TTL)
		}
		audience := c.attach(t, names(100)...)
		for _, from := range []*proxy{a, b, c} {
			result := from.multicast(t, client.MulticastRequest{Payload: []byte("through any proxy")})
			checkAllAcked(t, result, names(100))
			audience.checkReceived(t, result.ID, names(100))
		}
		for i := range 100 {
			if existed, err := []*proxy{a, b, c}[i%3].Unregister(t.Context(), name(i)); !existed || err != nil {
				t.Errorf("%s: %v, %v", name(i), existed, err)
			}
		}
		for _, p := range []*proxy{a, b, c} {
			if found := p.find(t, `{}`); len(found) != 0 {
				t.Errorf("%d are left", len(found))
			}
		}
	})
}

// TestOneWins lets all proxies create the same identities at once.
func TestOneWins(t *testing.T) {
	onShared(t, func(t *testing.T, a, b, c *proxy) {
		var won, lost int
		var mu sync.Mutex
		var all sync.WaitGroup
		for i := range 90 {
			all.Go(func() {
				_, err := []*proxy{a, b, c}[i%3].Register(t.Context(), client.Registration{ID: name(i / 9)})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won++
				case errors.Is(err, client.ErrAlreadyExists):
					lost++
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if won != 10 || lost != 80 {
			t.Errorf("%d registrations won and %d lost, for 10 identities", won, lost)
		}
	})
}

// TestSpecifiedConfiguration runs the specification's YAML file as it is printed; only the addresses are those of the
// test's servers.
func TestSpecifiedConfiguration(t *testing.T) {
	cfg, err := app.Load("../../examples/redis-nats.yaml")
	must(t, err)
	n := &cfg.Namespaces[0]
	if n.Namespace != "presence" || n.Registry.Redis.Conn.Host != "localhost:6379" || n.TTLDefault != 5*time.Minute ||
		!slices.Equal(n.Messaging.NATS.Conn.Servers, []string{"nats://localhost:4222"}) || n.Delivery != client.AtMostOnce {
		t.Errorf("the file says %+v", n)
	}
	redis := testenv.NewRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	n.Registry.Redis.Conn.Host, n.Messaging.NATS.Conn.Servers = redis.Addr, []string{testenv.NATS(t).URL}
	p := dial(t, run(t, cfg).GRPC, "presence")
	var users []string
	for i := range 10 {
		stored, err := p.Register(t.Context(), client.Registration{
			ID: fmt.Sprintf("user-%d", i), Metadata: map[string]any{"status": "online", "room": "engineering"},
		})
		must(t, err)
		if stored.TTL != 5*time.Minute {
			t.Errorf("the default lease is %v", stored.TTL)
		}
		users = append(users, stored.ID)
	}
	if found := p.find(t, `{"status":"online","room":"engineering"}`); len(found) != 10 {
		t.Errorf("%d users are online in engineering", len(found))
	}
	audience := p.attach(t, users...)
	result := p.multicast(t, client.MulticastRequest{Filter: map[string]any{"status": "online"}, Payload: []byte("Hello!")})
	if result.TargetCount != 10 || result.Delivered != 10 || result.Targets[0].Evidence != client.Accepted {
		t.Errorf("%+v", result)
	}
	audience.checkReceived(t, result.ID, users)

	redis.Stop()
	redis.Start()
	again := dial(t, run(t, cfg).GRPC, "presence")
	if found := again.find(t, `{"status":"online"}`); len(found) != 10 {
		t.Errorf("after a restart of Redis and the proxy %d users are left", len(found))
	}
	checkExpiries(t, redis.Addr, "presence", 10)
}

// checkExpiries asks Redis, as redis-cli would, whether every identity of a namespace has an expiry.
func checkExpiries(t testing.TB, addr, namespace string, want int) {
	t.Helper()
	keys := ask(t, addr, "KEYS", "{prism:"+namespace+"}:id:*")
	if len(keys) != want {
		t.Errorf("Redis has %d identities, want %d", len(keys), want)
	}
	for _, key := range keys {
		if ttl := ask(t, addr, "PTTL", key); strings.HasPrefix(ttl[0], "-1") {
			t.Errorf("%q never expires", key)
		}
	}
}

// ask sends one command to Redis and returns the elements of its reply.
func ask(t testing.TB, addr string, command ...string) []string {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(command))
	for _, word := range command {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(word), word)
	}
	_, err = io.WriteString(conn, b.String())
	must(t, err)
	in := bufio.NewReader(conn)
	var out []string
	for left := 1; left > 0; left-- {
		line, err := in.ReadString('\n')
		must(t, err)
		line = strings.TrimSuffix(line, "\r\n")
		size, _ := strconv.Atoi(line[1:])
		switch line[0] {
		case '*':
			left += size
		case '$':
			text := make([]byte, max(size, 0)+2)
			if size >= 0 {
				_, err = io.ReadFull(in, text)
				must(t, err)
			}
			out = append(out, string(text[:max(size, 0)]))
		case '-':
			t.Fatalf("redis: %v: %s", command, line)
		default:
			out = append(out, line[1:])
		}
	}
	return out
}

// ledger is what a number of programs received, by identity and message.
type ledger struct {
	mu    sync.Mutex
	times map[client.MessageName]int
}

func (l *ledger) handle(_ context.Context, m client.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times[m.Name()]++
	return nil
}

// checkOnce checks that nothing came twice.
func (l *ledger) checkOnce(t testing.TB) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, times := range l.times {
		if times != 1 {
			t.Errorf("%s received message %s %d times", name.Identity, name.ID, times)
		}
	}
}

// join makes programs out of identities, as an application does, until the returned function is called.
func (p *proxy) join(t testing.TB, l *ledger, ttl time.Duration, ids ...string) (leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var all []client.Registration
	for _, id := range ids {
		all = append(all, client.Registration{ID: id, TTL: ttl})
	}
	joined, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		ended <- p.JoinAll(ctx, all, l.handle, client.WithoutUnregister(), client.OnJoined(func() {
			select {
			case joined <- struct{}{}:
			default:
			}
		}))
	}()
	left := false
	leave = func() {
		if !left {
			left = true
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("join: %v", err)
			}
		}
	}
	t.Cleanup(leave)
	select {
	case <-joined:
	case err := <-ended:
		ended <- err
		t.Fatalf("join: %v", err)
	}
	return leave
}

// TestKilledInMidMulticast kills the proxy that programs are attached to, then the one that multicasts, in the middle of it.
// When both run again every program is registered and reached, none has received anything twice, and when the programs have
// gone their leases end.
func TestKilledInMidMulticast(t *testing.T) {
	t.Parallel()
	for _, combined := range shared() {
		t.Run(combined.name, func(t *testing.T) {
			t.Parallel()
			namespace := testenv.Prefix(t)
			var p [3]*process
			for i := range p {
				p[i] = start(t, namespace, config(namespace, combined.slots(t)))
			}
			const n, ttl = 200, 4 * time.Second
			l := &ledger{times: make(map[client.MessageName]int)}
			leaveB := p[1].join(t, l, ttl, names(n)[:n/2]...)
			leaveC := p[2].join(t, l, ttl, names(n)[n/2:]...)

			ctx, stop := context.WithCancel(t.Context())
			var sending sync.WaitGroup
			defer sending.Wait()
			defer stop()
			killed := make(chan struct{}, 1)
			sending.Go(func() {
				for ctx.Err() == nil {
					select {
					case killed <- struct{}{}: // a multicast is about to be under way
					default:
					}
					result, err := p[0].Multicast(ctx, client.MulticastRequest{Timeout: 500 * time.Millisecond})
					if err != nil {
						if ctx.Err() == nil && !errors.Is(err, client.ErrUnavailable) {
							t.Errorf("multicast: %v", err)
						}
						continue
					}
					if sum := result.Delivered + result.Pending + result.Failed + result.TimedOut; sum != result.TargetCount {
						t.Errorf("the counts add up to %d of %d", sum, result.TargetCount)
					}
				}
			})
			for _, victim := range []*process{p[2], p[0]} {
				<-killed
				<-killed
				victim.kill()
				victim.launch()
			}
			all := func() bool {
				result, err := p[1].Multicast(t.Context(), client.MulticastRequest{Timeout: 2 * time.Second})
				return err == nil && result.Delivered == n && result.TargetCount == n
			}
			eventually(t, "every program is registered and reached again", all)
			stop()
			sending.Wait()
			l.checkOnce(t)
			leaveB()
			leaveC()
			eventually(t, "the leases of the programs that have gone end", func() bool { return len(p[1].find(t, `{}`)) == 0 })
		})
	}
}

// TestRollingRestart restarts one proxy after the other under load: no registration that was acknowledged is lost.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	for _, combined := range shared() {
		t.Run(combined.name, func(t *testing.T) {
			t.Parallel()
			namespace := testenv.Prefix(t)
			var p [3]*process
			for i := range p {
				p[i] = start(t, namespace, config(namespace, combined.slots(t)))
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var working sync.WaitGroup
			acknowledged := make([][]string, 24)
			for w := range acknowledged {
				working.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						id := fmt.Sprintf("w%d-%d", w, i)
						call, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
						_, err := p[(w+i)%3].Register(call, client.Registration{ID: id, TTL: time.Hour})
						cancel()
						switch {
						case err == nil:
							acknowledged[w] = append(acknowledged[w], id)
						case !errors.Is(err, client.ErrUnavailable):
							t.Errorf("register %s: %v", id, err)
						}
						<-time.After(time.Millisecond)
					}
				})
			}
			for _, one := range p {
				one.restart()
			}
			stop()
			working.Wait()
			found := make(map[string]bool)
			for _, identity := range p[0].find(t, `{}`) {
				found[identity.ID] = true
			}
			total := 0
			for _, ids := range acknowledged {
				total += len(ids)
				for _, id := range ids {
					if !found[id] {
						t.Errorf("%s was acknowledged and is lost", id)
					}
				}
			}
			if total < 50 {
				t.Errorf("only %d registrations were made: that is no load", total)
			}
		})
	}
}

// TestSameFilterEverywhere compares what each combination finds with what the filter says.
func TestSameFilterEverywhere(t *testing.T) {
	onEach(t, func(t *testing.T, p *proxy) {
		metadata := func(i int) map[string]any {
			return map[string]any{"n": i, "room": []string{"a", "b", ""}[i%3], "tags": []any{i % 2, "x"}, "deep": map[string]any{"n": float64(i) / 2}}
		}
		p.register(t, 60, metadata)
		for _, source := range []string{
			`{"n.gte":50}`, `{"room":"a","n":{"$lt":30}}`, `{"tags":1}`, `{"deep.n":{"$gt":14.5}}`, `{"$not":{"room":""}}`,
			`{"room.in":["a",""]}`, `{"$or":[{"n":7},{"deep.n":7}]}`, `{"absent.exists":false}`, `{"room.regex":"^[ab]$"}`,
		} {
			match, err := filter.Parse(source)
			must(t, err)
			var want []string
			for i := range 60 {
				if filter.Match(match, metadata(i)) {
					want = append(want, name(i))
				}
			}
			var got []string
			for _, identity := range p.find(t, source) {
				got = append(got, identity.ID)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", source, got, want)
			}
		}
	})
}
