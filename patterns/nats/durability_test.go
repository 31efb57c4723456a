package nats

import (
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
	"github.com/prism-data-layer/prism/patterns/multicast_registry/slottest"
)

// testBound and testBytes bound the queues of the suite.
const (
	testBound = 100
	testBytes = 4 << 20
)

// durability opens a durability slot that ends with the test.
func durability(t testing.TB, c *Conn, cfg DurabilityConfig) *Durability {
	t.Helper()
	d, err := OpenDurability(within(t), c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func durabilityOptions(
	t *testing.T, namespace string, replicas int, urls ...string,
) (func(t *testing.T) mr.Durability, slottest.DurabilityOptions) {
	t.Helper()
	node := 0
	with := func(t *testing.T, cfg DurabilityConfig) *Durability {
		node++
		cfg.Replicas, cfg.MaxMessages, cfg.MaxBytes = replicas, testBound, testBytes
		return durability(t, opening(t, urls[node%len(urls)]), cfg)
	}
	open := func(t *testing.T) mr.Durability { return with(t, DurabilityConfig{Namespace: namespace}) }
	return open, slottest.DurabilityOptions{
		QueueBound: testBound, MaxBytes: testBytes, MaxPayload: opening(t, urls[0]).MaxPayload(),
		OpenPair: func(t *testing.T) (a, b mr.Durability) { return open(t), open(t) },
		OpenAged: func(t *testing.T, maxAge time.Duration) mr.Durability {
			return with(t, DurabilityConfig{Namespace: testenv.Prefix(t), MaxAge: maxAge})
		},
	}
}

func TestDurability(t *testing.T) {
	t.Parallel()
	open, options := durabilityOptions(t, testenv.Prefix(t), 1, testenv.NATS(t).URL)
	slottest.Durability(t, open, options)
}

// TestDurabilityCluster runs the brief suite on three replicas, through all servers in turn.
func TestDurabilityCluster(t *testing.T) {
	t.Parallel()
	cluster := testenv.NATSCluster(t)
	open, options := durabilityOptions(t, testenv.Prefix(t), len(cluster.URLs), cluster.URLs...)
	options.Brief = true
	slottest.Durability(t, open, options)
}
