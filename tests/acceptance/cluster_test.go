package acceptance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/testenv"
)

// TestClusters runs the scenarios with several proxies over a Redis Cluster and a NATS cluster, and kills a node of each
// under load.
func TestClusters(t *testing.T) {
	t.Parallel()
	redis, nats := testenv.RedisCluster(t), startNATSCluster(t)
	inRedis := fmt.Sprintf("{type: redis, addresses: [%s], cluster: true, shards: 6, ttl_default: 300}", quoted(redis.Addrs))
	inNATS := fmt.Sprintf("{type: nats, servers: [%s], replicas: 3, ttl_default: 300}", quoted(nats.urls))
	overRedis := fmt.Sprintf("{type: redis, addresses: [%s], cluster: true}", quoted(redis.Addrs))
	overNATS := fmt.Sprintf("{type: nats, servers: [%s]}", quoted(nats.urls))
	slots := func(registry, messaging string) string {
		return fmt.Sprintf("{registry: %s, messaging: %s}", registry, messaging)
	}
	redisNATS := slots(inRedis, overNATS)
	for _, scenario := range []struct {
		name string
		run  func(t *testing.T, slots string, redis ...string)
	}{
		{"several proxies", severalProxies},
		{"killed in mid-multicast", killedInMidMulticast},
		{"rolling restart", rollingRestart},
	} {
		t.Run(scenario.name, func(t *testing.T) { scenario.run(t, redisNATS, redis.Addrs...) })
	}
	for _, lost := range []struct {
		name, slots string
		redis       *testenv.RedisClusterProcess
		nats        *natsCluster
	}{
		{"nodes lost, redis+nats", redisNATS, redis, nats},
		{"nodes lost, redis+redis", slots(inRedis, overRedis), redis, nil},
		{"nodes lost, nats+nats", slots(inNATS, overNATS), nil, nats},
	} {
		t.Run(lost.name, func(t *testing.T) { nodesLost(t, lost.slots, lost.redis, lost.nats) })
	}
}

// nodesLost kills a Redis master and a NATS node, of the clusters that are given, while proxies work on them: identities stay,
// and everything works again without anybody's help.
func nodesLost(t *testing.T, slots string, redis *testenv.RedisClusterProcess, nats *natsCluster) {
	t.Helper()
	const n = 120
	p := three(t, slots)
	p[0].register(t, n, func(i int) map[string]any { return map[string]any{"even": i%2 == 0} })
	for i := range p {
		if found := p[i].find(t, `{"even":true}`); len(found) != n/2 {
			t.Fatalf("proxy %d sees %d of %d", i, len(found), n/2)
		}
	}
	audience := p[2].attach(t, names(n)...)
	works := func() bool {
		result, err := p[1].Multicast(t.Context(), client.MulticastRequest{Timeout: 2 * time.Second})
		return err == nil && result.TargetCount == n && result.Delivered == n
	}
	eventually(t, "interest has reached every node", works)
	result := p[0].multicast(t, client.MulticastRequest{})
	checkAllAcked(t, result, names(n))
	audience.checkReceived(t, result.ID, names(n))

	var back []func()
	if redis != nil {
		awaitReplication(t, redis)
	}
	flows, end := burden(t, p, n)
	flows()
	if redis != nil {
		master := aMaster(t, redis)
		master.Kill()
		back = append(back, master.Start)
	}
	if nats != nil {
		node := nats.leader(t, p[0].namespace)
		node.kill()
		back = append(back, node.launch)
	}
	patiently(t, "everything works without the nodes that died", works)
	flows()
	for i := range p {
		patiently(t, fmt.Sprintf("proxy %d reads what is written", i), func() bool {
			_, err := p[i].Enumerate(t.Context(), client.Query{CountOnly: true, Consistency: client.Strong})
			return err == nil
		})
		if found := p[i].find(t, `{}`); len(found) != n {
			t.Errorf("proxy %d sees %d of %d after the fail-over", i, len(found), n)
		}
	}
	_, err := p[0].Register(t.Context(), client.Registration{ID: "after the fail-over"})
	must(t, err)
	_, err = p[1].Unregister(t.Context(), "after the fail-over")
	must(t, err)
	for _, start := range back {
		start()
	}
	patiently(t, "everything works with all nodes again", works)
	flows()
	end()
	if redis != nil {
		awaitReplication(t, redis)
	}
	if nats != nil {
		nats.awaitAll(t)
	}
}

// burden is a light load: heartbeats through each proxy, and multicasts, until the test ends or end is called. What fails says
// that a backend is away, and what works is for the first n identities, none of which is missing. Function flows waits until
// each of the calls has worked anew.
func burden(t *testing.T, p [3]*proxy, n int) (flows, end func()) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var working sync.WaitGroup
	var worked [4]atomic.Int64
	keep := func(count *atomic.Int64, what string, call func(ctx context.Context) error) {
		working.Go(func() {
			for ctx.Err() == nil {
				bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 6*time.Second)
				err := call(bounded)
				cancel()
				switch {
				case err == nil:
					count.Add(1)
				case !errors.Is(err, client.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded):
					t.Errorf("%s: %v", what, err)
				}
				select {
				case <-time.After(40 * time.Millisecond):
				case <-ctx.Done():
				}
			}
		})
	}
	for i, one := range p {
		keep(&worked[i], fmt.Sprintf("heartbeat through proxy %d", i), func(ctx context.Context) error {
			_, err := one.Heartbeat(ctx, name(i), 0)
			return err
		})
	}
	keep(&worked[3], "multicast", func(ctx context.Context) error {
		all := map[string]any{"even": map[string]any{"$exists": true}}
		result, err := p[0].Multicast(ctx, client.MulticastRequest{Filter: all, Timeout: 500 * time.Millisecond})
		if err == nil && result.TargetCount != n {
			return fmt.Errorf("%d targets of %d", result.TargetCount, n)
		}
		return err
	})
	flows = func() {
		t.Helper()
		for i := range worked {
			before := worked[i].Load() // the next one may have begun already
			patiently(t, fmt.Sprintf("call %d of the load works", i), func() bool { return worked[i].Load() > before+1 })
		}
	}
	end = func() {
		stop()
		working.Wait()
	}
	t.Cleanup(end)
	return flows, end
}

// aMaster returns a node of a Redis Cluster that is a master at the moment.
func aMaster(t testing.TB, c *testenv.RedisClusterProcess) *testenv.RedisProcess {
	t.Helper()
	addr := masters(t, c.Addrs)[0]
	return c.Nodes[slices.Index(c.Addrs, addr)]
}

func quoted(words []string) string {
	out := make([]string, len(words))
	for i, word := range words {
		out[i] = fmt.Sprintf("%q", word)
	}
	return strings.Join(out, ", ")
}

// awaitReplication waits until the replicas have what their masters have: what a master acknowledged and did not pass on
// dies with it, as Redis documents.
func awaitReplication(t testing.TB, c *testenv.RedisClusterProcess) {
	t.Helper()
	wanted := make(map[string]int) // of each master, where its replicas have to be; it goes on writing meanwhile
	eventually(t, "the replicas have everything", func() bool {
		for _, addr := range c.Addrs {
			info := ask(t, addr, "INFO", "replication")[0]
			if !strings.Contains(info, "role:master") {
				continue
			}
			if _, ok := wanted[addr]; !ok {
				wanted[addr] = number(t, info, "master_repl_offset:")
			}
			if !strings.Contains(info, "state=online") || number(t, info, ",offset=") < wanted[addr] {
				return false
			}
		}
		return true
	})
}

// number is the one that stands behind a word.
func number(t testing.TB, text, behind string) int {
	t.Helper()
	_, after, _ := strings.Cut(text, behind)
	digits := strings.IndexFunc(after, func(r rune) bool { return r < '0' || r > '9' })
	n, err := strconv.Atoi(after[:max(digits, 0)])
	must(t, err)
	return n
}

// patiently is eventually for what takes a fail-over.
func patiently(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	for !holds() {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			t.Fatalf("it does not happen that %s", what)
		}
	}
}
