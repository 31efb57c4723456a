package main

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/prism-data-layer/prism/client"
)

func TestRegister(t *testing.T) {
	addr, _ := server(t)
	if out := ok(t, addr, "register", "dev-1", "--meta", "status=online", "--meta", "floor:=3", "--ttl", "30s"); out != "registered dev-1, lease: 30s\n" {
		t.Errorf("printed %q", out)
	}
	r := prism(t, addr, "", "register", "dev-1")
	if r.code != 1 || r.out != "" || !strings.Contains(r.err, "already exists") || !strings.Contains(r.err, "Use --replace") {
		t.Errorf("registering again: exit %d, %s%s", r.code, r.out, r.err)
	}
	out := ok(t, addr, "register", "dev-1", "--replace", "--json", `{"pos": {"lat": 1, "lon": 2}, "n": 1}`, "--meta", "pos.lat:=52.5", "--meta", `a\.b=c=d`, "--ttl", "never", "-o", "json")
	got := decode[map[string]any](t, out)
	want := map[string]any{"pos": map[string]any{"lat": 52.5, "lon": 2.0}, "n": 1.0, "a.b": "c=d"}
	if got["identity"] != "dev-1" || got["ttl"] != "never" || got["expires_at"] != nil || !reflect.DeepEqual(got["metadata"], want) {
		t.Errorf("printed %s", out)
	}
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"register", ""}, "prism: identity: must not be empty\n"},
		{[]string{"register", "x", "--meta", "n:=9007199254740993"}, "prism: metadata/n: the integer 9007199254740993 cannot travel exactly"},
		{[]string{"register", "x", "-n", "nowhere"}, "not found; this server has: default"},
		{[]string{"register", "x", "--ttl", "2000000h"}, "prism: ttl: "},
	} {
		if r := prism(t, addr, "", row.args...); r.code != 1 || !strings.Contains(r.err, row.want) {
			t.Errorf("prism %q: exit %d, %s; want %q", row.args, r.code, r.err, row.want)
		}
	}
}

func TestHeartbeatAndUnregister(t *testing.T) {
	addr, _ := server(t)
	ok(t, addr, "register", "a", "--ttl", "1h")
	ok(t, addr, "register", "b", "--ttl", "never")
	if out := ok(t, addr, "heartbeat", "a", "b"); out != "IDENTITY  TTL    LEFT\na         1h     1h\nb         never  never\n" { //nolint:dupword // a table
		t.Errorf("printed:\n%s", out)
	}
	if out := ok(t, addr, "heartbeat", "a", "--ttl", "90s", "-o", "jsonl"); !strings.HasPrefix(out, `{"identity":"a","ttl":"1m30s","expires_at":"20`) {
		t.Errorf("printed %s", out)
	}
	r := prism(t, addr, "", "heartbeat", "a", "--ttl", "never")
	if want := "prism: a: ttl: a heartbeat cannot end the lease's expiry; register the identity again\n"; r.code != 1 || r.out != "" || r.err != want {
		t.Errorf("exit %d, %q, %q; want %q", r.code, r.out, r.err, want)
	}
	r = prism(t, addr, "", "heartbeat", "nobody", "a")
	if r.code != 1 || !strings.Contains(r.err, "prism: nobody: ") || !strings.Contains(r.err, "`prism register`") || !strings.Contains(r.out, "a         1m30s") {
		t.Errorf("exit %d\n%s%s", r.code, r.out, r.err)
	}
	if r := prism(t, addr, "", "heartbeat", "nobody"); r.code != 1 || r.out != "" {
		t.Errorf("exit %d, printed %q", r.code, r.out)
	}
	if out := ok(t, addr, "unregister", "a", "nobody"); out != "unregistered a\nnobody was not registered\n" {
		t.Errorf("printed %q", out)
	}
	if out := ok(t, addr, "unregister", "a", "b", "-o", "yaml"); out != "- identity: a\n  existed: false\n- identity: b\n  existed: true\n" {
		t.Errorf("printed %q", out)
	}
}

func TestEnumerate(t *testing.T) {
	addr, _ := server(t)
	if r := prism(t, addr, "", "enumerate"); r.code != 0 || r.out != "" || r.err != "No identity matches.\n" {
		t.Errorf("nothing there: exit %d, %q, %q", r.code, r.out, r.err)
	}
	for format, want := range map[string]string{"json": "[]\n", "jsonl": "", "yaml": "[]\n"} {
		if out := ok(t, addr, "enumerate", "-o", format); out != want {
			t.Errorf("nothing there, in %s: %q", format, out)
		}
	}
	ok(t, addr, "register", "a", "--meta", "room=lab", "--meta", "n:=1", "--ttl", "never")
	ok(t, addr, "register", "b\n\x1b[31m", "--meta", "room=<office>\u202e", "--ttl", "never")
	if out := ok(t, addr, "enumerate"); out != "IDENTITY     LEFT   METADATA\na            never  {\"n\":1,\"room\":\"lab\"}\nb\\n\\x1b[31m  never  {\"room\":\"<office>\\u202e\"}\n" {
		t.Errorf("printed:\n%s", out)
	}
	if out := ok(t, addr, "ls", "--no-metadata"); out != "IDENTITY     LEFT\na            never\nb\\n\\x1b[31m  never\n" {
		t.Errorf("without metadata:\n%s", out)
	}
	for _, row := range []struct{ args, want string }{
		{`--filter {"room":"lab"} -q`, "a\n"},
		{`--filter {"n.lte":1} -q -o json`, "[\n  \"a\"\n]\n"},
		{`-q -o jsonl`, "\"a\"\n\"b\\n\\u001b[31m\"\n"},
		{`-q --limit 1`, "a\n"},
		{`-q --filter {"room":"nowhere"}`, ""},
		{`-q -o yaml --limit 1`, "- a\n"},
	} {
		if out := ok(t, addr, append([]string{"enumerate"}, strings.Fields(row.args)...)...); out != row.want {
			t.Errorf("enumerate %s: %q, want %q", row.args, out, row.want)
		}
	}
	list := decode[[]identityOut](t, ok(t, addr, "enumerate", "-o", "json"))
	if len(list) != 2 || list[1].Identity != "b\n\x1b[31m" || list[1].Metadata["room"] != "<office>\u202e" || list[0].TTL != "never" {
		t.Errorf("%+v", list)
	}
	var fromYAML []identityOut
	if err := yaml.Unmarshal([]byte(ok(t, addr, "enumerate", "-o", "yaml")), &fromYAML); err != nil || !reflect.DeepEqual(fromYAML[1].Metadata, list[1].Metadata) {
		t.Errorf("YAML differs from JSON: %+v, %v", fromYAML, err)
	}
	for _, row := range []struct{ filter, want string }{
		{`{"n": {"$ltt": 1}}`, "prism: filter/n/$ltt: unknown operator \"$ltt\": did you mean $lt?\n"},
		{`{"n"`, "prism: filter/n: expected a JSON value, got the end of the text\n"},
		{`{"a": {"$in": [` + strings.Repeat("1,", 1000) + `1]}}`, "prism: filter/a/$in: "}, // the server's limit
	} {
		if r := prism(t, addr, "", "enumerate", "--filter", row.filter); r.code != 1 || r.out != "" || !strings.HasPrefix(r.err, row.want) {
			t.Errorf("exit %d, %q, want %q", r.code, r.err, row.want)
		}
	}
}

func TestEnumerateManyPages(t *testing.T) {
	addr, _ := server(t)
	var lines strings.Builder
	const all = 2345
	for i := range all {
		fmt.Fprintf(&lines, `{"identity": "dev-%04d", "metadata": {"i": %d}}`+"\n", i, i)
	}
	if r := prism(t, addr, lines.String(), "register", "--file", "-"); r.code != 0 {
		t.Fatal(r.err)
	}
	for _, row := range []struct {
		args  string
		lines int
		note  string
	}{
		{"", 101, "100 of 2345 shown; --all prints them all, --limit N so many.\n"},
		{"--limit 7", 8, "7 of 2345 shown"},
		{"--limit 1500", 1501, "1500 of 2345 shown"},
		{"--limit 9999", all + 1, ""},
		{"--all", all + 1, ""},
		{"-q", all, ""},
		{"-q --limit 1000", 1000, ""},
		{"-o jsonl", all, ""},
		{"-o jsonl --limit 1001", 1001, ""},
	} {
		r := prism(t, addr, "", append([]string{"enumerate"}, strings.Fields(row.args)...)...)
		if r.code != 0 || strings.Count(r.out, "\n") != row.lines || !strings.HasPrefix(r.err, row.note) || (row.note == "") != (r.err == "") {
			t.Errorf("enumerate %s: exit %d, %d lines, stderr %q; want %d lines and %q", row.args, r.code, strings.Count(r.out, "\n"), r.err, row.lines, row.note)
		}
	}
	// What one namespace prints another can register.
	other, _ := server(t)
	export := ok(t, addr, "enumerate", "-o", "jsonl")
	if r := prism(t, other, export, "register", "--file", "-"); r.code != 0 {
		t.Fatal(r.err)
	}
	if n := strings.Count(ok(t, other, "enumerate", "-q"), "\n"); n != all {
		t.Errorf("%d identities were registered from the export, want %d", n, all)
	}
}

// Pages are as large as the server gives them; one that it ends early is not the last.
func TestWalkPages(t *testing.T) {
	const all = 25_000
	for _, row := range []struct {
		name           string
		limit, ceiling int   // of a page, at the server
		sizes          []int // asked for
	}{
		{"everything", 0, 10_000, []int{10_000, 10_000, 10_000}},
		{"everything, in short pages", 0, 7000, []int{10_000, 10_000, 10_000, 10_000}},
		{"some", 100, 10_000, []int{100}},
		{"some, in short pages", 100, 60, []int{100, 40}},
		{"more than a page", 12_000, 10_000, []int{10_000, 2000}},
		{"more than there are", 30_000, 10_000, []int{10_000, 10_000, 10_000}},
	} {
		var sizes []int
		at, shown := 0, 0
		total, err := walkPages(func(q client.Query) (client.Page, error) {
			sizes = append(sizes, q.PageSize)
			page := client.Page{Total: all, Identities: make([]client.Identity, min(q.PageSize, row.ceiling, all-at))}
			if at += len(page.Identities); at < all {
				page.NextPageToken = "more"
			}
			return page, nil
		}, client.Query{}, row.limit, func(client.Identity) error { shown++; return nil })
		want := all
		if row.limit > 0 {
			want = min(row.limit, all)
		}
		if err != nil || total != all || shown != want || !slices.Equal(sizes, row.sizes) {
			t.Errorf("%s: %d of %d shown in pages of %v, %v; want %d in %v", row.name, shown, total, sizes, err, want, row.sizes)
		}
	}
	away := errors.New("away")
	_, err := walkPages(func(client.Query) (client.Page, error) { return client.Page{}, away }, client.Query{}, 0, nil)
	if !errors.Is(err, away) {
		t.Errorf("%v, want %v", err, away)
	}
}

func TestNamespaces(t *testing.T) {
	addr, _ := server(t)
	ok(t, addr, "register", "a")
	want := "NAME     IDENTITIES  REGISTRY  MESSAGING  DURABILITY  TTL  DELIVERY       TIMEOUT\ndefault  1           memory    memory     -           5m   at-least-once  5s\n" //nolint:dupword // a table
	if out := ok(t, addr, "namespaces"); out != want {
		t.Errorf("printed:\n%s", out)
	}
	got := decode[[]namespaceOut](t, ok(t, addr, "namespaces", "-o", "json"))
	if len(got) != 1 || got[0].Pattern != "multicast-registry" || *got[0].IdentityCount != 1 {
		t.Errorf("%+v", got)
	}
}
