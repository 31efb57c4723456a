package main

import (
	"regexp"
	"strings"
	"testing"
)

// registerLab registers four devices, one of them hostile.
func registerLab(t *testing.T, addr string) {
	t.Helper()
	ok(t, addr, "register", "dev-1", "--meta", "room=lab", "--meta", "battery:=0.1", "--meta", "tags:=[\"gps\"]")
	ok(t, addr, "register", "dev-2", "--meta", "room=lab", "--meta", "battery:=0.5")
	ok(t, addr, "register", "dev-3", "--meta", "room=hall", "--meta", "battery:=null")
	ok(t, addr, "register", "dev-\x1b[2J", "--meta", "room=la\x1b[31mb", "--meta", "odd\x1b\\.one:=1")
}

func TestExplain(t *testing.T) {
	addr, _ := server(t)
	registerLab(t, addr)
	out := ok(t, addr, "explain", "--filter", `{"room": "lab", "battery.lt": 0.05, "tags": {"$ne": 1}}`)
	out = regexp.MustCompile(`in [0-9.]+(µs|ms|s)\.`).ReplaceAllString(out, "in TIME.")
	const want = `{"battery":{"$lt":0.05},"room":"lab","tags":{"$ne":1}}
0 of 4 identities match; found with an index in TIME.

MATCHES  HAVE IT  VALUES  TYPE              CONDITION
0                                           {"battery":{"$lt":0.05},"room":"lab","tags":{"$ne":1}}
0        3        3       number 2, null 1    {"battery":{"$lt":0.05}}
2        4        3       string              {"room":"lab"}
4        1        1       array               {"tags":{"$ne":1}}

warning: $ne looks for a number, and the field "tags" never is or has one: it is an array of strings

NEARLY MATCHES  BUT NOT
dev-1           {"battery":{"$lt":0.05}}: battery is 0.1
dev-2           {"battery":{"$lt":0.05}}: battery is 0.5
dev-\x1b[2J     {"battery":{"$lt":0.05}}: battery is missing; {"room":"lab"}: room is "la\u001b[31mb"
dev-3           {"battery":{"$lt":0.05}}: battery is null; {"room":"lab"}: room is "hall"
`
	if out != want {
		t.Errorf("prints\n%s, want\n%s", out, want)
	}
	for _, row := range []struct {
		args []string
		want string
	}{
		{nil, "{}\n4 of 4 identities match; "},
		{[]string{"--filter", `{"batery": 1}`}, `warning: no identity has the field "batery"; did you mean "battery"?`},
		{[]string{"--filter", `{"odd\u001b\\.won": 1}`}, `warning: no identity has the field "odd\x1b\\.won"; did you mean "odd\x1b\\.one"?`},
		{[]string{"--filter", `{"room": "x\u007fy"}`}, `{"room":"x\x7fy"}`},
		{
			[]string{"--filter", `{"room": "lab", "$or": [{"battery": 7}, {"tags": "x"}]}`, "--near-misses", "1", "--strong"},
			`dev-1           {"$or":[{"battery":7},{"tags":"x"}]}: battery is 0.1, tags is ["gps"]` + "\n",
		},
		{[]string{"--filter", `{"battery.lt": 0.2}`, "-o", "jsonl", "--min-revision", "4"}, `"clauses":[{"pointer":"/battery.lt",` +
			`"filter":"{\"battery\":{\"$lt\":0.2}}","depth":0,"match_count":1,"field":"battery","present_count":3,` +
			`"types":{"null":1,"number":2},"distinct_count":3}],"warnings":[],"near_misses":[],"source":"INDEX","elapsed_ms":`},
		{[]string{"--filter", `{"none": 1, "room": "hall"}`, "-o", "jsonl"}, `"warnings":[{"kind":"UNKNOWN_FIELD","field":"none",` +
			`"pointer":"/none","message":"no identity has the field \"none\""}],"near_misses":[{"identity":{"identity":"dev-3",`},
		{[]string{"--filter", `{"room": 1}`, "-o", "yaml"}, "kind: TYPE_MISMATCH"},
	} {
		out := ok(t, addr, append([]string{"explain"}, row.args...)...)
		if !strings.Contains(out, row.want) || strings.Contains(out, "\x1b") {
			t.Errorf("prism explain %q prints\n%s, want\n%s", row.args, out, row.want)
		}
	}
	if out := ok(t, addr, "explain", "--filter", `{"room": "x", "battery": 1}`, "--near-misses", "0"); strings.Contains(out, "NEARLY") {
		t.Errorf("near misses that nobody asked for:\n%s", out)
	}
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"--near-misses", "101"}, "--near-misses must be"},
		{[]string{"--filter", `{"room": {"$lk": 1}}`}, "unknown operator"},
		{[]string{"--min-revision", "99999"}, "revision"},
		{[]string{"x"}, "expected no arguments"},
	} {
		if r := prism(t, addr, "", append([]string{"explain"}, row.args...)...); r.code != exitError || !strings.Contains(r.err, row.want) {
			t.Errorf("prism explain %q: exit %d, %s", row.args, r.code, r.err)
		}
	}
}

// TestWarned has the verbs that apply a filter: what is suspicious about it goes where no pipe reads.
func TestWarned(t *testing.T) {
	addr, _ := server(t)
	registerLab(t, addr)
	const warning = "warning: no identity has the field \"batery\"; did you mean \"battery\"?\n"
	const match = `{"$or": [{"batery": 1}, {"room": "hall"}]}`
	for _, row := range []struct {
		args []string
		out  string
	}{
		{[]string{"enumerate", "-q"}, "dev-3\n"},
		{[]string{"enumerate", "--count"}, "1\n"},
		{[]string{"multicast", "--dry-run"}, "dev-3\n"},
		{[]string{"multicast", "--payload", "x", "--delivery", "at-most-once"}, "1 target: 1 accepted"},
	} {
		r := prism(t, addr, "", append(row.args, "--filter", match)...)
		if r.code != exitOK || !strings.HasPrefix(r.out, row.out) || !strings.HasPrefix(r.err, warning) {
			t.Errorf("prism %q: exit %d\n%s%s", row.args, r.code, r.out, r.err)
		}
		r = prism(t, addr, "", append(row.args, "--filter", `{"room": "hall"}`)...)
		if r.code != exitOK || strings.Contains(r.err, "warning") {
			t.Errorf("prism %q without anything suspicious: exit %d\n%s%s", row.args, r.code, r.out, r.err)
		}
	}
}
