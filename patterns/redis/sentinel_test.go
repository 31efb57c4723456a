package redis

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/prism-data-layer/prism/internal/testenv"
)

// sentinel starts a Sentinel that watches over a master, and returns a client of it and its address.
func sentinel(t *testing.T, master string) (rueidis.Client, string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	noError(t, err)
	addr := listener.Addr().String()
	noError(t, listener.Close())
	_, port, err := net.SplitHostPort(addr)
	noError(t, err)
	host, masterPort, err := net.SplitHostPort(master)
	noError(t, err)
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	noError(t, os.WriteFile(file, fmt.Appendf(nil, "bind 127.0.0.1\nport %s\nsentinel monitor prism %s %s 1\n"+
		"sentinel down-after-milliseconds prism 1000\nsentinel failover-timeout prism 10000\n", port, host, masterPort), 0o600))
	process := exec.Command("redis-server", file, "--sentinel")
	noError(t, process.Start())
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	})
	var client rueidis.Client
	eventually(t, "the Sentinel answers", func() bool {
		client, err = rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true, DisableCache: true})
		if err != nil && client != nil {
			client.Close()
		}
		return err == nil
	})
	t.Cleanup(client.Close)
	return client, addr
}

// TestSentinel has Sentinels promote a replica: the registry is where the master is.
func TestSentinel(t *testing.T) {
	t.Parallel()
	master := testenv.NewRedis(t)
	host, port, err := net.SplitHostPort(master.Addr)
	noError(t, err)
	testenv.NewRedis(t, "--replicaof", host, port)
	client, addr := sentinel(t, master.Addr)
	c := connect(t, Config{Addresses: []string{addr}, Sentinel: Sentinel{Master: "prism"}})
	r := registry(t, c, RegistryConfig{})
	put(t, r, "a", time.Hour)
	replicated, err := do(t, c, "WAIT", "1", "20000").AsInt64()
	if replicated != 1 || err != nil {
		t.Fatalf("%d replicas, %v", replicated, err)
	}
	eventually(t, "the Sentinel promotes the replica", func() bool {
		return client.Do(t.Context(), client.B().Arbitrary("SENTINEL", "FAILOVER", "prism").Build()).Error() == nil
	})
	eventually(t, "the replica is master", func() bool {
		at, err := client.Do(t.Context(), client.B().Arbitrary("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "prism").Build()).AsStrSlice()
		return err == nil && at[1] != port
	})
	master.Kill()
	eventually(t, "changes reach the new master", func() bool {
		lease, err := r.Renew(t.Context(), "a", time.Minute)
		return err == nil && lease.TTL == time.Minute
	})
}
