package acceptance

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// redis returns the addresses of the Redis that a combination keeps its identities in, if it does.
func (c combination) redis(t testing.TB) []string {
	t.Helper()
	if strings.HasPrefix(c.name, "redis") {
		return []string{testenv.Redis(t).Addr}
	}
	return nil
}

// three are three proxies over one set of backends.
func three(t testing.TB, slots string) [3]*proxy {
	t.Helper()
	namespace := testenv.Prefix(t)
	var p [3]*proxy
	for i := range p {
		p[i] = dial(t, serve(t, config(namespace, slots)).GRPC, namespace)
	}
	return p
}

// onShared runs a scenario for each combination that proxies can share.
func onShared(t *testing.T, scenario func(t *testing.T, slots string, redis ...string)) {
	t.Helper()
	t.Parallel()
	for _, combined := range shared() {
		t.Run(combined.name, func(t *testing.T) {
			t.Parallel()
			scenario(t, combined.slots(t), combined.redis(t)...)
		})
	}
}

// TestSeveralProxies registers through one proxy, enumerates through another, subscribes through the third: one system.
func TestSeveralProxies(t *testing.T) { onShared(t, severalProxies) }

func severalProxies(t *testing.T, slots string, _ ...string) {
	t.Helper()
	p := three(t, slots)
	p[0].register(t, 100, func(i int) map[string]any { return map[string]any{"even": i%2 == 0} })
	if found := p[1].find(t, `{}`); len(found) != 100 {
		t.Fatalf("the second proxy sees %d of 100 identities", len(found))
	}
	_, err := p[2].Register(t.Context(), client.Registration{ID: name(0)})
	wantError(t, err, client.ErrAlreadyExists)
	_, err = p[1].Heartbeat(t.Context(), name(1), time.Hour)
	must(t, err)
	if found := p[2].find(t, `{"even":false}`); len(found) != 50 || found[0].TTL != time.Hour {
		t.Errorf("the third proxy sees %d, the first with a TTL of %v", len(found), found[0].TTL)
	}
	audience := p[2].attach(t, names(100)...)
	for _, from := range p {
		result := from.multicast(t, client.MulticastRequest{Payload: []byte("through any proxy")})
		checkAllAcked(t, result, names(100))
		audience.checkReceived(t, result.ID, names(100))
	}
	for i := range 100 {
		if existed, err := p[i%3].Unregister(t.Context(), name(i)); !existed || err != nil {
			t.Errorf("%s: %v, %v", name(i), existed, err)
		}
	}
	for _, one := range p {
		if found := one.find(t, `{}`); len(found) != 0 {
			t.Errorf("%d are left", len(found))
		}
	}
}

// TestOneWins lets all proxies create the same identities at once.
func TestOneWins(t *testing.T) {
	onShared(t, func(t *testing.T, slots string, _ ...string) {
		p := three(t, slots)
		var won, lost int
		var mu sync.Mutex
		var all sync.WaitGroup
		for i := range 90 {
			all.Go(func() {
				_, err := p[i%3].Register(t.Context(), client.Registration{ID: name(i / 9)})
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
	checkExpiries(t, []string{redis.Addr}, "presence", 10)
}

// TestDemo runs the demonstration on the specification's YAML file, with the addresses of the test's servers: it reaches
// everybody, and leaves nobody behind.
func TestDemo(t *testing.T) {
	t.Parallel()
	path, err := binary()
	must(t, err)
	specified, err := os.ReadFile("../../examples/redis-nats.yaml")
	must(t, err)
	namespace, redis, nats := testenv.Prefix(t), testenv.Redis(t).Addr, testenv.NATS(t).URL
	text := strings.NewReplacer("presence", namespace, "localhost:6379", redis, "nats://localhost:4222", nats).Replace(string(specified))
	for _, word := range []string{namespace, redis, nats} {
		if !strings.Contains(text, word) {
			t.Fatalf("the file does not name %s: %s", word, text)
		}
	}
	file := filepath.Join(t.TempDir(), "prism.yaml")
	must(t, os.WriteFile(file, []byte(text), 0o600))
	out, err := exec.CommandContext(t.Context(), path, "demo", "--config", file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "every one of them got it") || !strings.Contains(string(out), namespace) {
		t.Errorf("the demo: %v: %s", err, out)
	}
	if found := dial(t, serve(t, text).GRPC, namespace).find(t, `{}`); len(found) != 0 {
		t.Errorf("it has left %d identities", len(found))
	}
	checkNothingLeft(t, []string{redis}, namespace)
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
