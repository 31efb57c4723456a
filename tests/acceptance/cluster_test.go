package acceptance

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
	"github.com/prism-data-layer/prism/internal/testenv"
)

// TestClusters runs three proxies over a Redis Cluster and a NATS cluster of three nodes each, and kills a node of each on
// the way: identities stay, and everything works again without anybody's help.
func TestClusters(t *testing.T) {
	redis, nats := testenv.RedisCluster(t), testenv.NATSCluster(t)
	registry := fmt.Sprintf("{type: redis, addresses: [%s], cluster: true, shards: 6, ttl_default: 300}", quoted(redis.Addrs))
	for name, messaging := range map[string]string{
		"redis+nats":  fmt.Sprintf("{type: nats, servers: [%s]}", quoted(nats.URLs)),
		"redis+redis": fmt.Sprintf("{type: redis, addresses: [%s], cluster: true}", quoted(redis.Addrs)),
	} {
		t.Run(name, func(t *testing.T) {
			namespace := testenv.Prefix(t)
			var p [3]*proxy
			for i := range p {
				slots := fmt.Sprintf("{registry: %s, messaging: %s}", registry, messaging)
				p[i] = dial(t, serve(t, config(namespace, slots)).GRPC, namespace)
			}
			const n = 120
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

			awaitReplication(t, redis)
			redis.Nodes[0].Kill()
			nats.Nodes[0].Stop()
			patiently(t, "everything works without the nodes that died", works)
			for i := range p {
				if found := p[i].find(t, `{}`); len(found) != n {
					t.Errorf("proxy %d sees %d of %d after the fail-over", i, len(found), n)
				}
			}
			_, err := p[0].Register(t.Context(), client.Registration{ID: "after the fail-over"})
			must(t, err)
			redis.Nodes[0].Start()
			nats.Nodes[0].Start()
			_, err = p[0].Unregister(t.Context(), "after the fail-over")
			must(t, err)
			patiently(t, "everything works with all nodes again", works)
		})
	}
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
	eventually(t, "the replicas have everything", func() bool {
		for _, addr := range c.Addrs {
			info := ask(t, addr, "INFO", "replication")[0]
			if !strings.Contains(info, "role:master") {
				continue
			}
			_, after, _ := strings.Cut(info, "master_repl_offset:")
			offset, _, _ := strings.Cut(after, "\r\n")
			if !strings.Contains(info, "offset="+offset+",") {
				return false
			}
		}
		return true
	})
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
