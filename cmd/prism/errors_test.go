package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"

	"github.com/prism-data-layer/prism/client"
)

// Every verb that waits for an answer says that it was interrupted, and what that leaves behind.
func TestInterruptedVerbs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // a server that accepts and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"multicast", "--all", "--payload", "x"}, "interrupted; messages may have been delivered"},
		{[]string{"register", "a"}, "interrupted; a may have been registered"},
		{[]string{"heartbeat", "a", "b"}, "interrupted; a may have been done, and none after it"},
		{[]string{"unregister", "a", "b"}, "interrupted; a may have been done, and none after it"},
		{[]string{"enumerate"}, "interrupted"},
		{[]string{"enumerate", "-q"}, "interrupted"},
		{[]string{"namespaces"}, "interrupted"},
		{[]string{"multicasts"}, "interrupted"},
		{[]string{"multicasts", "get", "x"}, "interrupted"},
		{[]string{"multicasts", "cancel", "x"}, "interrupted; it may have been withdrawn"},
	} {
		ctx, interrupt := context.WithCancel(t.Context())
		var out, errOut bytes.Buffer
		ended := make(chan int, 1)
		go func() {
			ended <- run(ctx, append([]string{"--server", l.Addr().String()}, row.args...), strings.NewReader(""), &out, &errOut)
		}()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		interrupt()
		if code := <-ended; code != 1 || out.String() != "" || errOut.String() != "prism: "+row.want+"\n" {
			t.Errorf("prism %q: exit %d, %s%s; want %q", row.args, code, &out, &errOut, row.want)
		}
		conn.Close()
	}
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	var out, errOut bytes.Buffer
	if code := run(ctx, []string{"demo"}, nil, &out, &errOut); code != 1 || errOut.String() != "prism: interrupted\n" {
		t.Errorf("prism demo: exit %d, %s", code, &errOut)
	}
}

// A multicast whose messages are out, and whose acks are not in.
func TestMulticastInterrupted(t *testing.T) {
	addr, _ := server(t)
	out, notes, _ := background(t, addr, "subscribe", "deaf", "--register", "--no-ack")
	notes.await("receiving for deaf", 1)
	_, said, interrupt := background(t, addr, "multicast", "--all", "--payload", "x", "--wait-timeout", "1m")
	out.await("deaf  x", 1)
	// The message may be faster than the news of the multicast's id.
	want := regexp.MustCompile(`^prism: interrupted; messages( of multicast [0-9a-f-]{36})? may have been delivered\n$`)
	if code := interrupt(); code != 1 || !want.MatchString(said.String()) {
		t.Errorf("exit %d, %s", code, said)
	}
}

func TestInterrupted(t *testing.T) {
	running := t.Context()
	ended, end := context.WithCancel(running)
	end()
	wrapped := fmt.Errorf("--payload: %w", context.Canceled)
	other := errors.New("bad disk")
	for _, row := range []struct {
		ctx    context.Context
		err    error
		leaves string
		want   string
	}{
		{ended, nil, "x", "<nil>"},
		{ended, other, "x", "bad disk"},
		{ended, context.DeadlineExceeded, "x", "context deadline exceeded"},
		{ended, wrapped, "x", "interrupted; x"},
		{ended, wrapped, "", "interrupted"},
		{running, wrapped, "x", "--payload: context canceled"}, // it was not us
	} {
		if got := fmt.Sprint(interrupted(row.ctx, row.err, row.leaves)); got != row.want {
			t.Errorf("%v, %q: %q, want %q", row.err, row.leaves, got, row.want)
		}
	}
}

// What quotes its input is cut; the end, which says what is wrong, stays.
func TestLongErrors(t *testing.T) {
	addr, _ := server(t)
	deep := strings.Repeat(`{"$not": `, 5000) + `{"a": {"$ltt": 1}}` + strings.Repeat("}", 5000)
	for _, args := range [][]string{
		{"enumerate", "--filter", deep},
		{"multicast", "--filter", deep, "--payload", "x"},
		{"register", "a", "--json", strings.Repeat(`{"level": `, 3000) + "1" + strings.Repeat("}", 3000)},
		{"register", "a", "--meta", strings.Repeat("long", 5000)},
		{"unregister", strings.Repeat("long", 5000)},
	} {
		r := prism(t, addr, "", args...)
		if r.code != 1 || r.out != "" || len([]rune(r.err)) > longestError+len("prism: ")+100 { // advice may follow
			t.Errorf("prism %s: exit %d, %d characters: %.600s", args[0], r.code, len([]rune(r.err)), r.err)
		}
	}
}

func TestAdvice(t *testing.T) {
	for _, row := range []struct {
		err  error
		want string
	}{
		{errors.New("x"), ""},
		{client.ErrUnavailable, ""}, // a backend behind the server
		{fmt.Errorf("x: %w", client.ErrAlreadyExists), "Use --replace"},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), "--timeout and, for multicast, --wait-timeout"},
	} {
		if got := advice(row.err); !strings.Contains(got, row.want) || (got == "") != (row.want == "") {
			t.Errorf("%v: %q, want %q", row.err, got, row.want)
		}
	}
}
