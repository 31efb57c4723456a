package main

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, child := range cmd.Commands() {
		walk(child, visit)
	}
}

func TestEveryVerbHasHelp(t *testing.T) {
	walk(newRootCmd(&program{}), func(cmd *cobra.Command) {
		path := strings.Fields(cmd.CommandPath())[1:]
		if len(path) > 0 && (path[0] == "completion" || path[0] == "help") {
			return // cobra's own
		}
		if cmd.HasParent() && !cmd.HasSubCommands() && (cmd.Short == "" || cmd.Long == "" || !strings.Contains(cmd.Example, "prism "+path[0])) {
			t.Errorf("%s: it lacks a text or an example", cmd.CommandPath())
		}
		r := prism(t, "", "", append(path, "--help")...)
		if r.code != 0 || r.err != "" || !strings.Contains(r.out, "Usage:") {
			t.Errorf("%s --help: exit %d, %s", cmd.CommandPath(), r.code, r.err)
		}
		for line := range strings.SplitSeq(r.out, "\n") {
			if len(line) > 140 {
				t.Errorf("%s: a line of %d columns: %s", cmd.CommandPath(), len(line), line)
			}
		}
	})
}

func TestHelp(t *testing.T) {
	for _, row := range []struct {
		args      string
		want, not string
	}{
		{"", "Quick start", ""},
		{"help", "Quick start", ""},
		{"config", "validate", "--server"},
		{"serve --help", "--grpc-addr", "--namespace"},
		{"serve --help", "a second signal", "--output"},
		{"version --help", "--output", "--server"},
		{"register --help", "--server", ""},
	} {
		r := prism(t, "", "", strings.Fields(row.args)...)
		if r.code != 0 || r.err != "" || !strings.Contains(strings.ToLower(r.out), strings.ToLower(row.want)) || row.not != "" && strings.Contains(r.out, row.not) {
			t.Errorf("prism %s: exit %d, want %q and not %q in:\n%s%s", row.args, r.code, row.want, row.not, r.out, r.err)
		}
	}
}

// A command line that cannot be understood is said to be so once, with the way to the help.
func TestUsageErrors(t *testing.T) {
	for _, row := range []struct {
		args []string
		want string
		help string
	}{
		{[]string{"frobnicate"}, `unknown command "frobnicate"`, "prism"},
		{[]string{"enumrate"}, `unknown command "enumrate"; did you mean enumerate?`, "prism"},
		{[]string{"config", "validat"}, `unknown command "validat"; did you mean validate?`, "prism config"},
		{[]string{"--bogus"}, "unknown flag: --bogus", "prism"},
		{[]string{"enumerate", "--bogus"}, "unknown flag: --bogus", "prism enumerate"},
		{[]string{"enumerate", "-o", "xml"}, `--output "xml" is not one of table, json, jsonl, yaml`, "prism enumerate"},
		{[]string{"enumerate", "--timeout", "0s"}, "--timeout must be longer than 0", "prism enumerate"},
		{[]string{"enumerate", "--timeout", "soon"}, `invalid argument "soon"`, "prism enumerate"},
		{[]string{"enumerate", "x"}, "expected no arguments, got 1", "prism enumerate"},
		{[]string{"enumerate", "--limit", "-1"}, "--limit must not be negative", "prism enumerate"},
		{[]string{"register"}, "expected an ID or --file", "prism register"},
		{[]string{"register", "a", "b"}, "expected one ID, got 2", "prism register"},
		{[]string{"register", "a", "--file", "f"}, "--file takes identities", "prism register"},
		{[]string{"register", "--file", "f", "--meta", "a=1"}, "--file takes identities", "prism register"},
		{[]string{"register", "a", "--meta", "x"}, "--meta x: expected KEY=TEXT or KEY:=JSON", "prism register"},
		{[]string{"register", "a", "--meta", "x:=["}, "expected JSON after :=", "prism register"},
		{[]string{"register", "a", "--json", "[]"}, "--json: expected a JSON object, got an array", "prism register"},
		{[]string{"register", "a", "--json", "{\"a\": \"\xff\"}"}, "--json: expected a JSON object: it is not valid UTF-8: byte 8 is 0xff", "prism register"},
		{[]string{"register", "a", "--ttl", "-5s"}, `--ttl "-5s": expected a duration`, "prism register"},
		{[]string{"heartbeat"}, "expected at least one ID", "prism heartbeat"},
		{[]string{"heartbeat", "a", "--ttl", "-1s"}, `--ttl "-1s": expected a duration`, "prism heartbeat"},
		{[]string{"heartbeat", "a", "--ttl", "soon"}, `--ttl "soon": expected a duration`, "prism heartbeat"},
		{[]string{"unregister"}, "expected at least one ID", "prism unregister"},
		{[]string{"multicast", "--payload", "x"}, "say who is meant: --filter JSON, or --all", "prism multicast"},
		{[]string{"multicast", "--filter", "{}", "--payload", "x"}, "the filter {} means every identity; say --all", "prism multicast"},
		{[]string{"multicast", "--filter", "{}", "--all", "--payload", "x"}, "--filter and --all exclude each other", "prism multicast"},
		{[]string{"enumerate", "--limit", "3", "--all"}, "--all and --limit exclude each other", "prism enumerate"},
		{[]string{"multicast", "--all"}, "say what to deliver: --payload TEXT", "prism multicast"},
		{[]string{"multicast", "--all", "--payload", "x", "--wait-timeout", "-1s"}, "--wait-timeout must be longer than 0", "prism multicast"},
		{[]string{"multicast", "--all", "--dry-run", "--replies"}, "--dry-run sends nothing", "prism multicast"},
		{[]string{"multicast", "--all", "--dry-run", "--wait"}, "--dry-run sends nothing", "prism multicast"},
		{[]string{"multicast", "--all", "--payload", "x", "--replies", "--delivery", "at-most-once"}, "nobody replies to --delivery at-most-once", "prism multicast"},
		{[]string{"multicast", "--all", "--payload", "x", "--wait-for", "1s"}, "add --wait", "prism multicast"},
		{[]string{"multicast", "--all", "--payload", "x", "--wait", "--wait-for", "0s"}, "--wait-for must be longer than 0", "prism multicast"},
		{[]string{"multicast", "--all", "--payload", "x", "--max-targets", "-1"}, "--max-targets must not be negative", "prism multicast"},
		{[]string{"multicast", "--all", "--payload", "x", "--retry-attempts", "-1"}, "--retry-attempts must not be negative", "prism multicast"},
		{[]string{"multicast", "--all", "--payload", "x", "--retry-delay", "-1s"}, "--retry-delay must not be negative", "prism multicast"},
		{[]string{"multicast", "--all", "--payload", "x", "--timeout", "1s", "--wait-timeout", "2s"}, "ends the call before --wait-timeout 2s can", "prism multicast"},
		{[]string{"multicasts", "gett", "x"}, `unknown command "gett"; did you mean get?`, "prism multicasts"},
		{[]string{"multicasts", "--limit", "-1"}, "--limit must not be negative", "prism multicasts"},
		{[]string{"multicasts", "--limit", "1", "--all"}, "--all and --limit exclude each other", "prism multicasts"},
		{[]string{"multicasts", "get"}, "expected one ID, got 0", "prism multicasts get"},
		{[]string{"multicasts", "cancel", "a", "b"}, "expected one ID, got 2", "prism multicasts cancel"},
		{[]string{"subscribe", "a", "--no-ack", "--reply-code", "0"}, "a reply goes with the ack", "prism subscribe"},
		{[]string{"subscribe", "a", "--no-ack", "--reply", "x"}, "a reply goes with the ack", "prism subscribe"},
		{[]string{"subscribe", "a", "--reply-code", "-1"}, `invalid argument "-1"`, "prism subscribe"},
		{[]string{"subscribe"}, "expected at least one ID", "prism subscribe"},
		{[]string{"subscribe", "a", "--meta", "x=1"}, "add --register", "prism subscribe"},
		{[]string{"subscribe", "a", "--register", "--meta", "x"}, "expected KEY=TEXT", "prism subscribe"},
		{[]string{"subscribe", "a", "--count", "-1"}, "--count must not be negative", "prism subscribe"},
		{[]string{"serve", "--log-level", "loud"}, `--log-level "loud" is not one of debug, info, warn, error`, "prism serve"},
		{[]string{"serve", "--log-format", "xml"}, `--log-format "xml" is not one of text, json`, "prism serve"},
		{[]string{"serve", "x"}, "expected no arguments", "prism serve"},
		{[]string{"config", "validate"}, "expected at least one FILE", "prism config validate"},
		{[]string{"version", "x"}, "expected no arguments", "prism version"},
		{[]string{"namespaces", "x"}, "expected no arguments", "prism namespaces"},
	} {
		r := prism(t, "", "", row.args...)
		want := "prism: " + row.want
		if r.code != 1 || r.out != "" || !strings.Contains(r.err, row.want) || !strings.HasPrefix(r.err, "prism: ") ||
			!strings.HasSuffix(r.err, "\nSee `"+row.help+" --help`.\n") || strings.Count(r.err, "\n") != 2 {
			t.Errorf("prism %s: exit %d, stdout %q, stderr:\n%swant %q and the way to the help of %s", strings.Join(row.args, " "), r.code, r.out, r.err, want, row.help)
		}
	}
}

func TestServerAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	for _, args := range [][]string{
		{"namespaces"},
		{"enumerate"},
		{"enumerate", "-o", "json"},
		{"register", "a"},
		{"heartbeat", "a", "b"},
		{"unregister", "a"},
		{"multicast", "--all", "--payload", "x"},
		{"multicasts"},
		{"multicasts", "get", "x"},
		{"multicasts", "cancel", "x"},
	} {
		r := prism(t, addr, "", args...)
		if r.code != 1 || r.out != "" && r.out != "[]\n" || strings.Count(r.err, addr) != 2 ||
			!strings.Contains(r.err, "Is `prism serve` running there? --server and PRISM_SERVER say where to look.") {
			t.Errorf("prism %s: exit %d, stdout %q, stderr:\n%s", strings.Join(args, " "), r.code, r.out, r.err)
		}
	}
	if r := prism(t, "http://127.0.0.1:8981", "", "enumerate"); r.code != 1 || !strings.Contains(r.err, "is a URL") {
		t.Errorf("a URL for a server: exit %d, %s", r.code, r.err)
	}
}

func TestEnvironment(t *testing.T) {
	addr, _ := server(t)
	t.Setenv("PRISM_SERVER", addr)
	if r := prism(t, "", "", "namespaces"); r.code != 0 {
		t.Errorf("PRISM_SERVER is not used: %s", r.err)
	}
	t.Setenv("PRISM_NAMESPACE", "nowhere")
	if r := prism(t, "", "", "enumerate"); r.code != 1 || !strings.Contains(r.err, `namespace "nowhere": not found; this server has: default`) {
		t.Errorf("PRISM_NAMESPACE is not used: exit %d, %s", r.code, r.err)
	}
	if r := prism(t, "", "", "enumerate", "-n", "default"); r.code != 0 {
		t.Errorf("--namespace does not override PRISM_NAMESPACE: %s", r.err)
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		r := prism(t, "", "", "completion", shell)
		if r.code != 0 || r.err != "" || !strings.Contains(r.out, "__complete") {
			t.Errorf("completion %s: exit %d, %s", shell, r.code, r.err)
		}
	}
	addr, stop := server(t)
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"enumerate", "--namespace", ""}, "default\n:4"},
		{[]string{"enumerate", "--output", ""}, "table\njson\njsonl\nyaml\n:4"},
		{[]string{"multicast", "--delivery", ""}, "at-most-once\nat-least-once\nexactly-once\n:4"},
		{[]string{"multicasts", ""}, "cancel\tWithdraw what was not delivered of a multicast\nget\tShow"},
		{[]string{"multicasts", "get", ""}, ":4"}, // none is kept here
		{[]string{"serve", "--log-level", ""}, "debug\ninfo\nwarn\nerror\n:4"},
		{[]string{"register", "--file", ""}, "jsonl\nndjson\njson\n:8"},
		{[]string{"reg"}, "register\tRegister an identity, or a file of them\n:4"},
	} {
		if out := ok(t, addr, append([]string{"__complete"}, row.args...)...); !strings.HasPrefix(out, row.want) {
			t.Errorf("completing %q: %q, want %q", row.args, out, row.want)
		}
	}
	stop()
	if out := ok(t, addr, "__complete", "enumerate", "--namespace", ""); !strings.HasPrefix(out, ":4") {
		t.Errorf("completing without a server: %q", out)
	}
}

func TestTimeout(t *testing.T) {
	addr, _ := server(t)
	var out, errOut bytes.Buffer
	code := run(t.Context(), []string{"--server", addr, "enumerate", "--timeout", "1ns"}, nil, &out, &errOut)
	if code != 1 || !strings.Contains(errOut.String(), "There was no answer in time; --timeout and, for multicast, --wait-timeout say how long to wait.") {
		t.Errorf("exit %d, %s", code, errOut.String())
	}
}
