package redis

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
	mr "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// together puts identities with one script: each "id ttl", and "!" behind it to create it. It returns what becomes of each.
func together(t *testing.T, r *Registry, puts ...string) string {
	t.Helper()
	var calls []*sharedCall
	for _, p := range puts {
		id, ttl, _ := strings.Cut(p, " ")
		length, create := strings.CutSuffix(ttl, "!")
		mode := "0"
		if create {
			mode = "1"
		}
		calls = append(calls, &sharedCall{args: []string{mr.EncodeName(id), `{"of":"` + p + `"}`, length, mode}})
	}
	noError(t, r.runTogether(t.Context(), &r.puts, calls))
	var out []string
	for _, call := range calls {
		if call.reply[0] != 1 && call.reply[1]+call.reply[2]+call.reply[3] != 0 {
			t.Errorf("refused, but %v", call.reply)
		}
		out = append(out, fmt.Sprintf("%d@%d", call.reply[0], call.reply[1]))
	}
	return strings.Join(out, " ")
}

// TestPutsTogether registers several identities with one script: the later see what the earlier have done.
func TestPutsTogether(t *testing.T) {
	t.Parallel()
	const hour, ever = "3600000", "-1"
	c := shared(t)
	r := unswept(t, c, RegistryConfig{})
	for _, row := range []struct {
		puts []string
		want string
	}{
		{[]string{"a " + hour + "!"}, "1@1"},
		{[]string{"b " + hour + "!", "b " + hour + "!", "a " + hour + "!", "c " + ever}, "1@2 0@0 0@0 1@3"},
		{[]string{"a " + hour, "a " + ever, "a " + hour, "c " + hour, "a " + ever}, "1@4 1@5 1@6 1@7 1@8"},
		{[]string{"a 1!", "b 1!"}, "0@0 0@0"},
	} {
		if got := together(t, r, row.puts...); got != row.want {
			t.Errorf("%q: %s, want %s", row.puts, got, row.want)
		}
	}
	wantEntries(t, r, "1 p a", "2 p b", "3 p c", "4 p a", "5 p a", "6 p a", "7 p c", "8 p a")
	if ms, err := do(t, c, "PTTL", r.keys.of("a")).AsInt64(); ms != -1 || err != nil {
		t.Errorf("Redis ends a in %d ms, though its last registration never expires; %v", ms, err)
	}
	if of := text(t, c, "HGET", r.keys.of("c"), "m"); of != `{"of":"c `+hour+`"}` {
		t.Errorf("c is %s", of)
	}

	expired(t, r, "d") // 9
	if got := together(t, r, "e "+hour, "d "+hour+"!", "d "+hour+"!", "f "+hour); got != "1@10 1@12 0@0 1@13" {
		t.Errorf("over one that has expired: %s", got)
	}
	if log := strings.Join(entries(t, r)[9:], "; "); log != "10 p e; 11 x d; 12 p d; 13 p f" {
		t.Errorf("over one that has expired: %s", log)
	}
}

// TestPutsQuota registers more identities with one script than the namespace may have.
func TestPutsQuota(t *testing.T) {
	t.Parallel()
	r := unswept(t, shared(t), RegistryConfig{MaxIdentities: 3})
	const hour = " 3600000"
	if got := together(t, r, "a"+hour, "b"+hour, "a"+hour, "c"+hour, "d"+hour, "c"+hour, "d"+hour+"!"); got != "1@1 1@2 1@3 1@4 2@0 1@5 2@0" {
		t.Errorf("into an empty namespace: %s", got)
	}
	if got := together(t, r, "e"+hour, "a"+hour+"!", "b"+hour); got != "2@0 0@0 1@6" {
		t.Errorf("into a full one: %s", got)
	}
	expired(t, r, "c")
	if got := together(t, r, "e"+hour, "c"+hour); !strings.HasSuffix(got, " 2@0") || strings.HasPrefix(got, "2") {
		t.Errorf("in the place of one that has expired: %s", got)
	}
	if n, err := r.Count(t.Context()); n != 3 || err != nil {
		t.Errorf("%d identities, %v", n, err)
	}
}

// TestPutsApart has a key of another type be in the way of one identity: those that share its script do not suffer.
func TestPutsApart(t *testing.T) {
	t.Parallel()
	c := shared(t)
	r := unswept(t, c, RegistryConfig{})
	noError(t, do(t, c, "SET", r.keys.of("bad"), "not a hash").Error())
	var calls []*sharedCall
	for _, id := range []string{"a", "bad", "b"} {
		calls = append(calls, &sharedCall{ctx: t.Context(), args: []string{id, "{}", "1000", "1"}, done: make(chan struct{})})
	}
	left, leave := context.WithCancel(t.Context())
	leave()
	gone := &sharedCall{ctx: left, args: []string{"gone", "{}", "1000", "1"}}
	r.puts.waiting, r.puts.scripts = append([]*sharedCall{gone}, calls...), 1
	r.runShared(&r.puts)
	for i, call := range calls {
		<-call.done
		if bad := i == 1; (call.err != nil) != bad || !bad && call.reply[0] != 1 {
			t.Errorf("%s: %v, %v", call.args[0], call.reply, call.err)
		}
	}
	wantEntries(t, r, "1 p a", "2 p b")
	if waiting, scripts := r.puts.held(); waiting+scripts != 0 {
		t.Errorf("%d calls wait, %d scripts are under way", waiting, scripts)
	}
}

// TestSharedSize has calls of many bytes share scripts of bounded size, and one that is larger have its own.
func TestSharedSize(t *testing.T) {
	t.Parallel()
	s := sharing{atOnce: 3, scripts: 1}
	for _, size := range []int{2 * sharedBytes, 1, sharedBytes - 1, 1, 2, 3, 4} {
		s.waiting = append(s.waiting, &sharedCall{ctx: t.Context(), args: []string{strings.Repeat("x", size)}})
	}
	var got []int
	for calls := s.take(); len(calls) > 0; calls = s.take() {
		got = append(got, len(calls))
	}
	if fmt.Sprint(got) != "[1 2 3 1]" || s.scripts != 0 {
		t.Errorf("calls of each script: %v; %d scripts are under way", got, s.scripts)
	}
}

// TestPutsMeanwhile registers from many callers at once while Redis is slow to answer; each hears of its own.
func TestPutsMeanwhile(t *testing.T) {
	t.Parallel()
	fault := testenv.NewFault(t, testenv.Redis(t).Addr)
	r := NewRegistry(connect(t, Config{Host: fault.Addr, Timeout: 30 * time.Second}), RegistryConfig{Namespace: testenv.Prefix(t)})
	fault.Stall()
	done := make(chan error)
	const n = 3 * putAtOnce
	for i := range n {
		go func() {
			id := fmt.Sprint("id ", i)
			stored, err := r.Put(t.Context(), mr.Identity{ID: id, Metadata: map[string]any{"n": int64(i)}, TTL: time.Hour}, mr.Create)
			if err == nil && (stored.ID != id || stored.Metadata["n"] != int64(i) || stored.Revision == 0) {
				err = fmt.Errorf("%s: got %v", id, stored)
			}
			done <- err
		}()
	}
	eventually(t, "the calls wait", func() bool {
		waiting, scripts := r.puts.held()
		return scripts == putScripts && waiting > n/2
	})
	fault.Heal()
	for range n {
		noError(t, <-done)
	}
	if head, err := r.Head(t.Context()); head != n || err != nil {
		t.Errorf("revision %d, %v", head, err)
	}
}
