package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

func TestReplies(t *testing.T) {
	addr, _ := server(t)
	file := filepath.Join(t.TempDir(), "reply")
	if err := os.WriteFile(file, []byte("\xff"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"dev-1", "--reply", "open\n"}, {"dev-2", "--reply-code", "7", "--reply", "@" + file}, {"dev-3"},
	} {
		_, errOut, _ := background(t, addr, append([]string{"subscribe", "--register"}, args...)...)
		errOut.await("receiving for", 1)
	}
	ok(t, addr, "register", "off")
	r := prism(t, addr, "", "multicast", "--all", "--payload", "status?", "--replies")
	lines := strings.Split(r.out, "\n")
	slices.Sort(lines[:3])
	if r.code != 2 || lines[0] != `dev-1  0  open\n` || lines[1] != "dev-2  7  base64:/w==" || lines[2] != "dev-3  0  " ||
		!strings.HasPrefix(lines[3], "4 targets: 3 delivered, 0 pending, 1 failed, 0 timeout, in ") || lines[4] != "2 replied 0, 1 replied 7" ||
		!strings.HasPrefix(lines[7], "off       FAILED  NO_SUBSCRIBER") || len(lines) != 9 {
		t.Errorf("exit %d:\n%s%s", r.code, r.out, r.err)
	}

	for _, format := range []string{"json", "jsonl"} {
		r = prism(t, addr, "", "multicast", "--all", "--payload", "status?", "--replies", "-o", format)
		lines = strings.Split(r.out, "\n")
		slices.Sort(lines[:3])
		if r.code != 2 || len(lines) != 5 || !strings.HasPrefix(lines[0], `{"identity":"dev-1","reply_code":0,"reply":"open\n","latency_ms":`) ||
			!strings.HasPrefix(lines[1], `{"identity":"dev-2","reply_code":7,"reply_base64":"/w==","latency_ms":`) {
			t.Fatalf("exit %d:\n%s%s", r.code, r.out, r.err)
		}
		got := decode[resultOut](t, lines[3])
		if got.DeliveredCount != 3 || got.ReplyCounts[0] != 2 || got.ReplyCounts[7] != 1 || len(got.Statuses) != 1 || got.Statuses[0].Identity != "off" {
			t.Errorf("the summary is %s", lines[3])
		}
	}
	r = prism(t, addr, "", "multicast", "--all", "--payload", "status?", "--replies", "-o", "yaml")
	documents := yaml.NewDecoder(strings.NewReader(r.out))
	n := 0
	for ; ; n++ {
		var document map[string]any
		if err := documents.Decode(&document); err != nil {
			break
		}
	}
	if n != 4 {
		t.Errorf("%d documents in:\n%s", n, r.out)
	}

	r = prism(t, addr, "", "multicast", "--all", "--payload", "status?", "-o", "json")
	got := decode[resultOut](t, r.out)
	if s := got.Statuses[1]; s.Identity != "dev-2" || *s.ReplyCode != 7 || string(s.ReplyBase64) != "\xff" || got.Statuses[3].ReplyCode != nil {
		t.Errorf("printed %s", r.out)
	}
}

// Nobody reads the replies: the multicast goes on, and the program says so in the end.
func TestRepliesWithoutReader(t *testing.T) {
	addr, _ := server(t)
	_, errOut, _ := background(t, addr, "subscribe", "dev-1", "--register")
	errOut.await("receiving for", 1)
	said := newOutput(t)
	args := []string{"--server", addr, "multicast", "--all", "--payload", "x", "--replies"}
	if code := run(t.Context(), args, nil, broken{}, said); code != 1 || said.String() != "prism: the pipe is broken\n" {
		t.Errorf("exit %d, %s", code, said)
	}
}

func TestDryRun(t *testing.T) {
	addr, _ := server(t)
	if r := prism(t, addr, "", "multicast", "--all", "--dry-run"); r.code != 3 || r.out != "" || r.err != "0 targets; nothing was sent\n" {
		t.Errorf("nobody there: exit %d, %q, %q", r.code, r.out, r.err)
	}
	ok(t, addr, "register", "b")
	ok(t, addr, "register", "a")
	if r := prism(t, addr, "", "multicast", "--all", "--dry-run"); r.code != 0 || r.out != "a\nb\n" || r.err != "2 targets; nothing was sent\n" {
		t.Errorf("exit %d, %q, %q", r.code, r.out, r.err)
	}
	got := decode[resultOut](t, ok(t, addr, "multicast", "--all", "--dry-run", "-o", "json"))
	if got.Ended != "DRY_RUN" || got.TargetCount != 2 || got.Revision == 0 || got.MulticastID != "" || len(got.Statuses) != 2 ||
		!reflect.DeepEqual(got.Statuses[0], statusOut{Identity: "a"}) {
		t.Errorf("%+v", got)
	}
}

func TestGuards(t *testing.T) {
	addr, _ := server(t)
	ok(t, addr, "register", "a")
	ok(t, addr, "register", "b")
	for _, row := range []struct{ args, want string }{
		{"--max-targets 1", "2 identities match"},
		{"--retry-attempts 21", "retry_attempts: "},
		{"--idempotency-key k", "they are kept only in a namespace"},
		{"--max-targets 5000000000", "max_targets: must be 0 to 4294967295"},
	} {
		args := append([]string{"multicast", "--all", "--payload", "x"}, strings.Fields(row.args)...)
		if r := prism(t, addr, "", args...); r.code != 1 || r.out != "" || !strings.Contains(r.err, row.want) {
			t.Errorf("%s: exit %d, %s%s", row.args, r.code, r.out, r.err)
		}
	}
}

func TestIdempotencyKey(t *testing.T) {
	addr, _ := server(t, durable)
	ok(t, addr, "register", "a")
	args := []string{"multicast", "--all", "--payload", "x", "--idempotency-key", "k", "-o", "json"}
	first := decode[resultOut](t, prism(t, addr, "", args...).out)
	again := decode[resultOut](t, prism(t, addr, "", args...).out)
	if first.Replayed || !again.Replayed || again.MulticastID != first.MulticastID || again.PendingCount != 1 {
		t.Errorf("%+v, and then %+v", first, again)
	}
	r := prism(t, addr, "", args[:6]...)
	if r.code != 3 || !strings.Contains(r.out, " (the result of the first request with this key)\n") {
		t.Errorf("exit %d, %s", r.code, r.out)
	}
	if r := prism(t, addr, "", "multicast", "--all", "--payload", "y", "--idempotency-key", "k"); r.code != 1 || !strings.Contains(r.err, "idempotency_key: ") {
		t.Errorf("exit %d, %s%s", r.code, r.out, r.err)
	}
}

func TestMulticasts(t *testing.T) {
	addr, _ := server(t, durable)
	if r := prism(t, addr, "", "multicasts"); r.code != 0 || r.out != "" || r.err != "No multicast is kept.\n" {
		t.Errorf("exit %d, %s%s", r.code, r.out, r.err)
	}
	if out := ok(t, addr, "multicasts", "-o", "json"); out != "[]\n" {
		t.Errorf("printed %q", out)
	}
	ok(t, addr, "register", "dev-1", "--meta", "room=lab")
	ok(t, addr, "register", "dev-2")
	hint := regexp.MustCompile(`(?m)^What becomes of those pending: prism multicasts get ([0-9a-f-]{36})$`)
	r := prism(t, addr, "", "multicast", "--filter", `{"room": "lab"}`, "--payload", "charge")
	found := hint.FindStringSubmatch(r.out)
	if r.code != 3 || found == nil || !strings.Contains(r.out, "1 target: 0 delivered, 1 pending, 0 failed, 0 timeout, in ") {
		t.Fatalf("exit %d, %s", r.code, r.out)
	}
	id := found[1]
	second := decode[resultOut](t, prism(t, addr, "", "multicast", "--all", "--payload", "x", "--idempotency-key", "key-1", "-o", "json").out)

	table := ok(t, addr, "multicasts")
	rows := regexp.MustCompile(`^ID +CREATED +STATE +TARGETS +DELIVERED +PENDING +FAILED +TIMEOUT +FILTER\n` +
		second.MulticastID + `  \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  RETURNED  2 +0 +2 +0 +0 +-\n` +
		id + `  \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  RETURNED  1 +0 +1 +0 +0 +\{"room":"lab"\}\n$`)
	if !rows.MatchString(table) {
		t.Errorf("printed:\n%s", table)
	}
	if r := prism(t, addr, "", "multicasts", "--limit", "1"); strings.Count(r.out, "\n") != 2 || !strings.HasPrefix(r.err, "1 shown; --all") {
		t.Errorf("printed:\n%s%s", r.out, r.err)
	}
	list := decode[[]recordOut](t, ok(t, addr, "multicasts", "-o", "json"))
	if len(list) != 2 || list[1].Result.MulticastID != id || list[1].State != "RETURNED" || list[1].Filter["room"] != "lab" ||
		list[1].PayloadBytes != 6 || list[1].CreatedAt == nil || list[1].Result.Statuses != nil || list[0].IdempotencyKey != "key-1" {
		t.Errorf("%+v", list)
	}

	out := ok(t, addr, "multicasts", "get", id)
	for _, want := range []string{
		"multicast " + id + ", RETURNED, created 2", `filter {"room":"lab"}, payload of 6 bytes, text/plain; charset=utf-8, at-least-once`,
		"1 target: 0 delivered, 1 pending", "dev-1     PENDING  NO_SUBSCRIBER",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	received, errOut, stop := background(t, addr, "subscribe", "dev-1", "--reply-code", "3", "--reply", "charging")
	errOut.await("receiving for", 1)
	received.await("\n", 2)
	stop()
	out = ok(t, addr, "multicasts", "get", id)
	if !strings.Contains(out, "1 target: 1 delivered, 0 pending") || !strings.Contains(out, "\n1 replied 3\n") || strings.Contains(out, "dev-1") {
		t.Errorf("printed:\n%s", out)
	}
	one := decode[recordOut](t, ok(t, addr, "multicasts", "get", id, "-o", "json"))
	if len(one.Result.Statuses) != 1 || one.Result.Statuses[0].Status != "DELIVERED" || one.Result.Statuses[0].Reply != "charging" {
		t.Errorf("%+v", one)
	}
	if out := ok(t, addr, "multicasts", "get", second.MulticastID); !strings.Contains(out, "\nidempotency key key-1\n") {
		t.Errorf("printed:\n%s", out)
	}

	if out := ok(t, addr, "multicasts", "cancel", second.MulticastID); out != "withdrew 1 message; 2 targets: 1 delivered, 0 pending, 1 failed, 0 timeout\n" {
		t.Errorf("printed %q", out)
	}
	again := decode[cancelOut](t, ok(t, addr, "multicasts", "cancel", second.MulticastID, "-o", "json"))
	if again.WithdrawnCount != 0 || again.Multicast.State != "WITHDRAWN" || again.Multicast.Result.FailedCount != 1 {
		t.Errorf("%+v", again)
	}
	if out := ok(t, addr, "multicasts", "get", second.MulticastID); !strings.Contains(out, "dev-2     FAILED  WITHDRAWN") {
		t.Errorf("printed:\n%s", out)
	}
	if out := ok(t, addr, "__complete", "multicasts", "get", ""); !strings.HasPrefix(out, second.MulticastID+"\t2") || !strings.Contains(out, id+"\t2") {
		t.Errorf("completing: %s", out)
	}
	if out := ok(t, addr, "__complete", "multicasts", "get", id, ""); !strings.HasPrefix(out, ":4") {
		t.Errorf("completing a second ID: %s", out)
	}
}

func TestMulticastsFaults(t *testing.T) {
	plain, _ := server(t)
	kept, _ := server(t, durable)
	const id = "01890a5d-ac96-774b-bcce-b302099a8057"
	for _, row := range []struct {
		addr string
		args []string
		want string
	}{
		{plain, []string{"multicasts"}, "they are kept only in a namespace"},
		{plain, []string{"multicasts", "-o", "json"}, "they are kept only in a namespace"},
		{plain, []string{"multicasts", "get", id}, "they are kept only in a namespace"},
		{plain, []string{"multicasts", "cancel", id}, "they are kept only in a namespace"},
		{kept, []string{"multicasts", "get", id}, "not found"},
		{kept, []string{"multicasts", "cancel", id}, "not found"},
		{kept, []string{"multicasts", "get", ""}, "multicast_id: "},
	} {
		if r := prism(t, row.addr, "", row.args...); r.code != 1 || r.out != "" || !strings.Contains(r.err, row.want) {
			t.Errorf("prism %q: exit %d, %s%s", row.args, r.code, r.out, r.err)
		}
	}
}

// --wait ends when the last pending target has come, with the exit code of the final state.
func TestWait(t *testing.T) {
	addr, _ := server(t, durable)
	ok(t, addr, "register", "dev-1")
	ok(t, addr, "register", "dev-2")
	ended := make(chan result, 1)
	errOut := newOutput(t)
	var out strings.Builder
	go func() {
		args := []string{"--server", addr, "multicast", "--all", "--payload", "x", "--wait", "--replies"}
		code := run(t.Context(), args, nil, &out, errOut)
		ended <- result{code: code}
	}()
	errOut.await("2 targets: 0 delivered, 2 pending, 0 failed, 0 timeout; waiting for those pending, Ctrl-C ends\n", 1)
	background(t, addr, "subscribe", "dev-1", "--reply-code", "1", "--reply", "here")
	errOut.await("1 delivered, 1 pending, 0 failed, 0 timeout\n", 1)
	background(t, addr, "subscribe", "dev-2", "--reply-code", "2")
	r := <-ended
	lines := strings.Split(out.String(), "\n")
	if r.code != 0 || len(lines) != 5 || lines[0] != "dev-1  1  here" || lines[1] != "dev-2  2  " ||
		!strings.HasPrefix(lines[2], "2 targets: 2 delivered, 0 pending") || lines[3] != "1 replied 1, 1 replied 2" {
		t.Errorf("exit %d, printed:\n%s%s", r.code, out.String(), errOut)
	}
}

func TestWaitEnds(t *testing.T) {
	addr, _ := server(t, durable)
	ok(t, addr, "register", "dev-1")
	r := prism(t, addr, "", "multicast", "--all", "--payload", "x", "--wait", "--wait-for", "100ms", "-o", "json")
	if got := decode[resultOut](t, r.out); r.code != 3 || got.PendingCount != 1 || len(got.Statuses) != 1 {
		t.Errorf("the time is up: exit %d, %s%s", r.code, r.out, r.err)
	}
	out, errOut, interrupt := background(t, addr, "multicast", "--all", "--payload", "x", "--wait")
	errOut.await("waiting for those pending", 1)
	if code := interrupt(); code != 3 || !strings.Contains(out.String(), "1 target: 0 delivered, 1 pending") || strings.Contains(errOut.String(), "interrupted") {
		t.Errorf("Ctrl-C: exit %d, %s%s", code, out, errOut)
	}
	out, errOut, _ = background(t, addr, "multicast", "--all", "--payload", "x", "--wait", "-o", "jsonl", "--idempotency-key", "k")
	errOut.await("waiting for those pending", 1)
	id := decode[[]recordOut](t, ok(t, addr, "multicasts", "-o", "json", "--limit", "1"))[0].Result.MulticastID
	ok(t, addr, "multicasts", "cancel", id)
	if got := decode[resultOut](t, out.await("\n", 1)); got.FailedCount != 1 || got.Statuses[0].Reason != "WITHDRAWN" {
		t.Errorf("cancelled meanwhile: %s", out)
	}
	_, errOut, _ = background(t, addr, "subscribe", "dev-1")
	errOut.await("receiving for", 1)
	if r := prism(t, addr, "", "multicast", "--all", "--payload", "x", "--wait"); r.code != 0 || r.err != "" {
		t.Errorf("nothing to wait for: exit %d, %s%s", r.code, r.out, r.err)
	}
}

// The server goes away while the program waits: what is known is printed.
func TestWaitWithoutServer(t *testing.T) {
	addr, stop := server(t, durable)
	ok(t, addr, "register", "dev-1")
	out, errOut, interrupt := background(t, addr, "multicast", "--all", "--payload", "x", "--wait", "-o", "json")
	errOut.await("waiting for those pending", 1)
	stop()
	errOut.await("; trying again\n", 1)
	code := interrupt()
	var got resultOut
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil || code != 1 || got.PendingCount != 1 ||
		!strings.Contains(errOut.String(), "what has become of it since: server "+addr) {
		t.Errorf("exit %d, %v, %s%s", code, err, out, errOut)
	}
}
