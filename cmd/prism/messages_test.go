package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/client"
)

func TestMulticast(t *testing.T) {
	addr, _ := server(t)
	if r := prism(t, addr, "", "multicast", "--all", "--payload", "x"); r.code != 3 || r.out != "no identity matches; nothing was sent\n" || r.err != "" {
		t.Errorf("nobody there: exit %d, %q, %q", r.code, r.out, r.err)
	}
	ok(t, addr, "register", "off", "--meta", "kind=off", "--meta", "all:=true")
	out, errOut, _ := background(t, addr, "subscribe", "on", "--register", "--meta", "kind=on", "--meta", "all:=true", "-o", "jsonl")
	errOut.await("receiving for on", 1)

	file := filepath.Join(t.TempDir(), "payload")
	if err := os.WriteFile(file, []byte("from a\xff file"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, row := range []struct {
		args                string
		code                int
		want, content, body string
	}{
		{`--filter {"kind":"on"} --payload hi`, 0, "1 target: 1 delivered, 0 pending, 0 failed, 0 timeout, in", "text/plain; charset=utf-8", `"payload":"hi"`},
		{`--filter {"all":true} --payload -`, 2, "2 targets: 1 delivered, 0 pending, 1 failed, 0 timeout, in", "application/octet-stream", `"payload":"from stdin"`},
		{`--all --payload @` + file, 2, "off       FAILED  NO_SUBSCRIBER  1", "application/octet-stream", `"payload_base64":"ZnJvbSBh/yBmaWxl"`},
		{`--all --payload  --content-type application/json`, 2, "IDENTITY  STATUS  REASON", "application/json", `"payload":""`},
		{`--filter {"kind":"on"} --payload x --delivery at-most-once`, 0, "1 accepted (not acknowledged)", "text/plain; charset=utf-8", `"ack_wanted":false`},
	} {
		args := strings.Split(row.args, " ")
		r := prism(t, addr, "from stdin", append([]string{"multicast"}, args...)...)
		if r.code != row.code || !strings.Contains(r.out, row.want) || r.err != "" {
			t.Errorf("multicast %s: exit %d, want %d and %q in:\n%s%s", row.args, r.code, row.code, row.want, r.out, r.err)
		}
		received := strings.Split(out.await("\n", i+1), "\n")[i]
		if !strings.Contains(received, row.body) || !strings.Contains(received, `"content_type":"`+row.content+`"`) || !strings.Contains(received, `"identity":"on"`) {
			t.Errorf("multicast %s: received %s", row.args, received)
		}
	}
	if r := prism(t, addr, "", "multicast", "--filter", `{"kind":"off"}`, "--payload", "x"); r.code != 3 {
		t.Errorf("only one that is off: exit %d", r.code)
	}
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"--all", "--payload", "@/no/such/file"}, "prism: --payload: open /no/such/file"},
		{[]string{"--all", "--payload", "x", "--delivery", "maybe"}, `prism: delivery: "maybe" is not a delivery mode`},
		{[]string{"--filter", "{", "--payload", "x"}, "prism: filter: "},
		{[]string{"--all", "--payload", "x", "-n", "nowhere"}, `namespace "nowhere": not found`},
	} {
		if r := prism(t, addr, "", append([]string{"multicast"}, row.args...)...); r.code != 1 || r.out != "" || !strings.Contains(r.err, row.want) {
			t.Errorf("multicast %q: exit %d, %s%s", row.args, r.code, r.out, r.err)
		}
	}
}

func TestMulticastForMachines(t *testing.T) {
	addr, _ := server(t)
	ok(t, addr, "register", "off")
	_, errOut, _ := background(t, addr, "subscribe", "deaf", "--register", "--no-ack")
	errOut.await("receiving for deaf", 1)
	r := prism(t, addr, "", "multicast", "--all", "--payload", "x", "--wait-timeout", "50ms", "--retry-attempts", "1", "-o", "json")
	got := decode[resultOut](t, r.out)
	if r.code != 3 || got.TargetCount != 2 || got.FailedCount != 1 || got.TimeoutCount != 1 || got.Ended != "DEADLINE" || got.MulticastID == "" || len(got.Statuses) != 2 {
		t.Fatalf("exit %d, %s", r.code, r.out)
	}
	deaf, off := got.Statuses[0], got.Statuses[1]
	if deaf.Identity != "deaf" || deaf.Status != "TIMEOUT" || deaf.Reason != "NO_ACK" || deaf.LatencyMS < 40 || off.Reason != "NO_SUBSCRIBER" || off.Error == "" {
		t.Errorf("%+v %+v", deaf, off)
	}
	r = prism(t, addr, "", "multicast", "--all", "--payload", "x", "--wait-timeout", "50ms")
	if !strings.Contains(r.out, "(the time was up)") {
		t.Errorf("printed %s", r.out)
	}
	if r := prism(t, addr, "", "multicast", "--all", "--payload", "x", "--wait-timeout", "50ms", "-o", "jsonl"); strings.Count(r.out, "\n") != 1 {
		t.Errorf("JSONL is %q", r.out)
	}
}

func TestSubscribe(t *testing.T) {
	addr, _ := server(t)
	ok(t, addr, "register", "a")
	ok(t, addr, "register", "b", "--ttl", "1h")
	out, errOut, stop := background(t, addr, "subscribe", "a", "b", "c", "--keep-alive")
	errOut.await("receiving for 3 identities; Ctrl-C ends", 1)
	errOut.await("not registered (any more): c; register it to be found by filters", 1)
	ok(t, addr, "multicast", "--all", "--payload", "two\nlines \x1b[31m")
	text := out.await("\n", 2)
	if !regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.\d{3}  a  two\\nlines \\x1b\[31m$`).MatchString(text) || !strings.Contains(text, "  b  ") {
		t.Errorf("printed:\n%s", text)
	}
	if code := stop(); code != 0 {
		t.Errorf("interrupted: exit %d, want 0", code)
	}
	if n := strings.Count(ok(t, addr, "enumerate", "-q"), "\n"); n != 2 {
		t.Errorf("%d identities are left, want 2", n)
	}
}

// untilEnded repeats something until a command has ended.
func untilEnded(ended <-chan result, again func()) result {
	for {
		select {
		case r := <-ended:
			return r
		default:
			again()
		}
	}
}

func TestSubscribeCount(t *testing.T) {
	addr, _ := server(t)
	for _, format := range []string{"table", "json", "yaml"} {
		ended := make(chan result, 1)
		go func() { ended <- prism(t, addr, "", "subscribe", "a", "--register", "--count", "2", "-o", format) }()
		r := untilEnded(ended, func() { prism(t, addr, "", "multicast", "--all", "--payload", "x") })
		if r.code != 0 || strings.Count(r.out, "\n") < 2 || format == "json" && strings.Count(r.out, `"payload":"x"`) != 2 ||
			format == "yaml" && strings.Count(r.out, "---\nreceived_at: ") != 2 {
			t.Errorf("in %s: exit %d, printed:\n%s%s", format, r.code, r.out, r.err)
		}
		if out := ok(t, addr, "enumerate", "-q"); out != "" {
			t.Errorf("%s is left registered", out)
		}
	}
}

// What is not acknowledged comes again, and is marked; what is acknowledged is printed once.
func TestSubscribeShowsRepeats(t *testing.T) {
	addr, _ := server(t, durable)
	ok(t, addr, "register", "dev-1")
	if r := prism(t, addr, "", "multicast", "--all", "--payload", "stored", "--delivery", "exactly-once"); r.code != 3 {
		t.Fatalf("exit %d, %s", r.code, r.out)
	}
	deaf, _, stop := background(t, addr, "subscribe", "dev-1", "--no-ack", "-o", "json")
	deaf.await(`"payload":"stored","ack_wanted":true,"redelivered":true,"once":true}`, 1)
	prism(t, addr, "", "multicast", "--all", "--payload", "deaf", "--wait-timeout", "300ms", "--retry-attempts", "2", "--retry-delay", "1ms")
	deaf.await(`"payload":"deaf","ack_wanted":true}`, 1)
	deaf.await(`"payload":"deaf","ack_wanted":true,"redelivered":true}`, 1) // by the retry, or when it was stored
	stop()
	out, errOut, _ := background(t, addr, "subscribe", "dev-1")
	errOut.await("receiving for dev-1", 1)
	out.await("  dev-1  stored  (redelivered)\n", 1)
	out.await("  dev-1  deaf  (redelivered)\n", 1)
	ok(t, addr, "multicast", "--all", "--payload", "fresh")
	if text := out.await("  dev-1  fresh\n", 1); strings.Count(text, "\n") != 3 {
		t.Errorf("printed:\n%s", text)
	}
}

func TestSubscribeFaults(t *testing.T) {
	addr, _ := server(t)
	for _, args := range [][]string{{"a", "-n", "nowhere"}, {"a", "-n", "nowhere", "--register"}, {""}, {"a", "--reply", "@/no/such/file"}, {"a", "--reply", strings.Repeat("x", 4097)}} {
		if r := prism(t, addr, "", append([]string{"subscribe"}, args...)...); r.code != 1 || strings.Count(r.err, "prism: ") != 1 {
			t.Errorf("subscribe %q: exit %d, %s", args, r.code, r.err)
		}
	}
}

// Nobody reads what subscribe prints.
func TestSubscribeEndsWithItsReader(t *testing.T) {
	addr, _ := server(t)
	errOut := newOutput(t)
	ended := make(chan int, 1)
	go func() {
		ended <- run(t.Context(), []string{"--server", addr, "subscribe", "a", "--register"}, nil, broken{}, errOut)
	}()
	errOut.await("receiving for a", 1)
	if r := prism(t, addr, "", "multicast", "--all", "--payload", "x", "--wait-timeout", "1s"); r.code != 3 {
		t.Errorf("what could not be printed was acknowledged: exit %d, %s", r.code, r.out)
	}
	if code := <-ended; code != 1 || !strings.Contains(errOut.String(), "prism: the pipe is broken") {
		t.Errorf("exit %d, %s", code, errOut)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("the pipe is broken") }

func TestNames(t *testing.T) {
	for _, row := range []struct{ got, want string }{
		{client.Reason(0).String(), ""},
		{client.QueueFull.String(), "QUEUE_FULL"},
		{client.Gone.String() + client.Expired.String() + client.Withdrawn.String(), "GONEEXPIREDWITHDRAWN"},
		{client.Reason(77).String(), "77"},
		{stateName(client.Running) + stateName(client.Returned) + stateName(client.WithdrawnByID), "RUNNINGRETURNEDWITHDRAWN"},
		{statusName(0), ""},
		{statusName(client.Timeout), "TIMEOUT"},
		{endedName(client.DryRun), "DRY_RUN"},
		{created(time.Time{}), "-"},
		{filterText(nil), "-"},
		{replyCounts(nil), "no replies"},
		{replyCounts(map[uint32]int{7: 1, 0: 3}), "3 replied 0, 1 replied 7"},
		{evidenceName(client.Stored), "STORED"},
		{endedName(client.Cancelled), "CANCELLED"},
		{endedWords(client.Cancelled), " (cancelled)"},
		{endedWords(client.Complete), ""},
		{payloadText([]byte("\xff\x00")), "base64:/wA="},
		{fmt.Sprint(exit{3}), "exit 3"},
	} {
		if row.got != row.want {
			t.Errorf("got %q, want %q", row.got, row.want)
		}
	}
}

// TestTraceParent has the environment say where in a trace a verb is: what it sends is in the same trace.
func TestTraceParent(t *testing.T) {
	addr, _ := server(t)
	c, err := client.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	stream, err := c.Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if err := stream.Attach(t.Context(), false, "a"); err != nil {
		t.Fatal(err)
	}
	ok(t, addr, "register", "a")
	for _, given := range []string{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "", "none"} {
		t.Setenv("TRACEPARENT", given)
		ok(t, addr, "multicast", "--all", "--delivery", "at-most-once", "--payload", "x")
		event, err := stream.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.TrimPrefix(given, "none"); event.Messages[0].TraceParent != want {
			t.Errorf("with %q it is at %q", given, event.Messages[0].TraceParent)
		}
	}
}
