package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestEnumerateSortedAndCounted(t *testing.T) {
	addr, _ := server(t)
	for i, room := range []string{"lab", "hall", "lab"} {
		ok(t, addr, "register", fmt.Sprint("dev-", i), "--meta", "room="+room, "--meta", fmt.Sprint("at.n:=", i))
	}
	ok(t, addr, "register", "other")
	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"--sort-by", "room,-at.n", "-q"}, "dev-1\ndev-2\ndev-0\nother\n"},
		{[]string{"--sort-by", "room", "--sort-by=-at.n", "--limit", "2", "--strong", "-q"}, "dev-1\ndev-2\n"},
		{[]string{"--filter", `{"at.n": 2}`, "--fields", "at.n", "-o", "jsonl", "--min-revision", "4"}, `"metadata":{"at":{"n":2}}`},
		{[]string{"--count"}, "4\n"},
		{[]string{"--count", "-o", "jsonl"}, "{\"total\":4}\n"},
		{[]string{"--count-by", "room"}, "ROOM    COUNT\nlab     2\nhall    1\n(none)  1\n"},
		{[]string{"--count-by", "at.n,room", "--groups", "1", "-o", "jsonl"}, `{"total":4,"counts":[` +
			`{"field":"at.n","groups":[{"value":0,"count":1}],"omitted_groups":2,"missing":1},` +
			`{"field":"room","groups":[{"value":"lab","count":2}],"omitted_groups":1,"missing":1}]}` + "\n"},
	} {
		if out := ok(t, addr, append([]string{"enumerate"}, row.args...)...); !strings.Contains(out, row.want) {
			t.Errorf("prism enumerate %q prints\n%s, want\n%s", row.args, out, row.want)
		}
	}
	for _, row := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--groups", "1001"}, 1, "--groups must be"},
		{[]string{"--count", "--count-by", "x"}, 1, "exclude each other"},
		{[]string{"--sort-by", "a..b"}, 1, `sort_by: "a..b"`},
		{[]string{"--min-revision", "99999"}, 1, "revision"},
	} {
		if r := prism(t, addr, "", append([]string{"enumerate"}, row.args...)...); r.code != row.code || !strings.Contains(r.err, row.want) {
			t.Errorf("prism enumerate %q: exit %d, %s", row.args, r.code, r.err)
		}
	}
}
