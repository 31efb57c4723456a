package main

import (
	"strings"
	"testing"
)

func TestWatch(t *testing.T) {
	addr, stopServer := server(t)
	ok(t, addr, "register", "a", "--meta", "room=lab")
	out, errOut, stop := background(t, addr, "watch", "--filter", `{"room":"lab"}`)
	errOut.await("prism: watching: 1 identity matches now; Ctrl-C ends\n", 1)
	machine, _, _ := background(t, addr, "watch", "-o", "jsonl", "--no-metadata", "--count", "3")
	machine.await(`"type":"SYNCED"`, 1)
	ok(t, addr, "register", "b\x1b[31m", "--meta", "room=lab")
	ok(t, addr, "register", "a", "--meta", "room=hall", "--replace")
	ok(t, addr, "unregister", "b\x1b[31m")
	lines := strings.Split(strings.TrimSpace(out.await("\n", 4)), "\n")
	for n, want := range []string{
		`  PRESENT  a  {"room":"lab"}`, `  JOINED   b\x1b[31m  {"room":"lab"}`, `  LEFT     a  NO_LONGER_MATCHES`,
		`  LEFT     b\x1b[31m  UNREGISTERED`,
	} {
		if !strings.HasSuffix(lines[n], want) {
			t.Errorf("line %d is %q, want ...%q", n, lines[n], want)
		}
	}
	events := strings.Split(strings.TrimSpace(machine.await("\n", 5)), "\n")
	last := decode[watchOut](t, events[4])
	if last.Type != "LEFT" || last.Reason != "UNREGISTERED" || last.Identity.Metadata != nil || last.ResumeToken == "" {
		t.Errorf("the last event is %s", events[4])
	}
	before := decode[watchOut](t, events[2])
	resumed := ok(t, addr, "watch", "--resume", before.ResumeToken, "--count", "2", "-o", "jsonl")
	if !strings.Contains(resumed, "LEFT") || strings.Contains(resumed, "PRESENT") {
		t.Errorf("resumed: %s", resumed)
	}
	for _, row := range []struct{ args, want string }{
		{"--resume x", "prism: resume_token: is not a token"},
		{"--filter {", "prism: filter"},
		{"--count -1", "--count must not be negative"},
		{"x", "no arguments"},
		{"-n nowhere", `namespace "nowhere": not found`},
	} {
		r := prism(t, addr, "", append([]string{"watch"}, strings.Split(row.args, " ")...)...)
		if r.code == 0 || !strings.Contains(r.err, row.want) {
			t.Errorf("watch %s: exit %d, %s", row.args, r.code, r.err)
		}
	}
	stopServer()
	errOut.await("trying again", 1)
	if code := stop(); code != 0 {
		t.Errorf("Ctrl-C: exit %d", code)
	}
}
