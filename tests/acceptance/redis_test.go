package acceptance

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// identityKeys asks Redis, as redis-cli would, for the keys of a namespace's identities, of all its shards, and for the time
// that each has left.
func identityKeys(t testing.TB, addrs []string, namespace string) map[string]string {
	t.Helper()
	left := make(map[string]string)
	for _, addr := range masters(t, addrs) {
		for _, key := range ask(t, addr, "KEYS", "{prism:"+namespace+"*}:id:*") {
			left[key] = ask(t, addr, "PTTL", key)[0]
		}
	}
	return left
}

// checkExpiries checks that Redis has so many identities of a namespace, and that every one of them has an expiry.
func checkExpiries(t testing.TB, addrs []string, namespace string, want int) {
	t.Helper()
	keys := identityKeys(t, addrs, namespace)
	if len(keys) != want {
		t.Errorf("Redis has %d identities, want %d", len(keys), want)
	}
	for key, left := range keys {
		if ms, err := strconv.Atoi(left); err != nil || ms < 0 {
			t.Errorf("%q has a PTTL of %s", key, left)
		}
	}
}

// checkNothingLeft waits until Redis has neither an identity nor a lease of a namespace.
func checkNothingLeft(t testing.TB, addrs []string, namespace string) {
	t.Helper()
	left := func() (leases int) {
		for _, addr := range masters(t, addrs) {
			for _, key := range ask(t, addr, "KEYS", "{prism:"+namespace+"*}:leases") {
				n, err := strconv.Atoi(ask(t, addr, "ZCARD", key)[0])
				must(t, err)
				leases += n
			}
		}
		return leases
	}
	eventually(t, "the leases are swept", func() bool { return left() == 0 })
	if keys := identityKeys(t, addrs, namespace); len(keys) != 0 {
		t.Errorf("%d identities are left without a lease: %v", len(keys), keys)
	}
}

// masters returns those of some nodes that are masters; a single server is one.
func masters(t testing.TB, addrs []string) []string {
	t.Helper()
	var all []string
	for _, addr := range addrs {
		if strings.Contains(ask(t, addr, "INFO", "replication")[0], "role:master") {
			all = append(all, addr)
		}
	}
	return all
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
