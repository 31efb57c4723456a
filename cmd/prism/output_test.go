package main

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/prism-data-layer/prism/client"
)

func TestPrintable(t *testing.T) {
	for _, row := range []struct{ give, want string }{
		{"", ""},
		{"plain ünïcode 日本", "plain ünïcode 日本"},
		{"a\nb\tc\r", `a\nb\tc\r`},
		{"\x1b[31mred", `\x1b[31mred`},
		{"a\xffb", `a\xffb`},
		{"\u202eevil", `\u202eevil`},
		{"\u0085", `\u0085`},
	} {
		if got := printable(row.give, false); got != row.want {
			t.Errorf("%q is shown as %s, want %s", row.give, got, row.want)
		}
	}
	if got := printable("a\nb\x00", true); got != "a\nb\\x00" {
		t.Errorf("got %q", got)
	}
	if cell("") != "-" {
		t.Error("an empty cell is invisible")
	}
}

func TestSpan(t *testing.T) {
	for give, want := range map[time.Duration]string{
		client.NoExpiry: "never", 0: "0s", time.Second: "1s", 90 * time.Second: "1m30s", 5 * time.Minute: "5m", time.Hour: "1h",
		time.Hour + time.Second: "1h0m1s", 100 * time.Minute: "1h40m", 10 * time.Minute: "10m", 1500 * time.Millisecond: "1.5s",
	} {
		got := span(give)
		if got != want {
			t.Errorf("%d is shown as %s, want %s", give, got, want)
		}
		if back, err := ttlOf(got); give != 0 && (err != nil || back != give) {
			t.Errorf("%s is read as %s, %v", got, back, err)
		}
	}
	if left(time.Now().Add(-time.Hour)) != "0s" || left(time.Time{}) != "never" {
		t.Error("what is left of a lease is wrong")
	}
}

func TestFit(t *testing.T) {
	rows := func() [][]string {
		return [][]string{{"dev-1", "never", strings.Repeat("ü", 50)}, {"d", "5m", "short"}}
	}
	head := []string{"IDENTITY", "LEFT", "METADATA"}
	for width, want := range map[int]int{0: 50, 200: 50, 40: 23, 1: 10} { // 8+2 and 5+2 are taken
		got := rows()
		fit(head, got, width)
		if n := len([]rune(got[0][2])); n != want || got[1][2] != "short" {
			t.Errorf("%d columns leave %d for the metadata, want %d", width, n, want)
		}
	}
}

// What YAML could take for something else comes back as it was.
func TestYAMLKeepsStrings(t *testing.T) {
	values := []string{
		"yes", "no", "null", "~", "1", "1.5", "1e3", "0x1f", "0o17", ".inf", "- a", "a: b", "a #b", "", " ", "two\nlines", "tab\t", "'", `"`, `\`,
		"2026-01-02", "2026-01-02T03:04:05Z", "@x", "`x`", "!x", "&x", "*x", "{x", "[x", "|", ">", "%x", "?x", "\x1b", "ünï", "---", "...", "<<", "=", "y", "ON", "Off", "TRUE", "a:", "/x y.z", "a  b", "a\u2028b", "\u007f", "😀", "1_000", "12:30:45",
	}
	for _, want := range values {
		text, err := yamlOf(map[string]any{"x": want, "l": []any{want}})
		if err != nil {
			t.Errorf("%q: %v", want, err)
			continue
		}
		var got map[string]any
		if err := yaml.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, map[string]any{"x": want, "l": []any{want}}) {
			t.Errorf("%q came back as %#v, %v from:\n%s", want, got, err, text)
		}
	}
}

func TestYAML(t *testing.T) {
	for give, want := range map[string]string{
		`1`:                               "1\n",
		`{}`:                              "{}\n",
		`[]`:                              "[]\n",
		`{"a":{},"b":[],"c":null}`:        "a: {}\nb: []\nc: null\n",
		`{"a":{"b":{"c":1}},"d":2}`:       "a:\n  b:\n    c: 1\nd: 2\n",
		`[[1,[2]],{"a":[{"b":1,"c":2}]}]`: "- - 1\n  - - 2\n- a:\n    - b: 1\n      c: 2\n",
		`{"x y":"a","1":true}`:            "x y: a\n\"1\": true\n",
	} {
		text, err := yamlOf(json.RawMessage(give))
		if err != nil || string(text) != want {
			t.Errorf("%s is\n%s%v, want\n%s", give, text, err, want)
		}
		var fromJSON, fromYAML any
		json.Unmarshal([]byte(give), &fromJSON)
		if err := yaml.Unmarshal(text, &fromYAML); err != nil || compactJSON(fromYAML) != compactJSON(fromJSON) {
			t.Errorf("%s means %v, %v", text, fromYAML, err)
		}
	}
	if _, err := yamlOf(func() {}); err == nil {
		t.Error("a function is YAML")
	}
}

func compactJSON(v any) string {
	var text strings.Builder
	writeJSON(&text, v, "")
	return text.String()
}

func TestListsForMachines(t *testing.T) {
	for _, row := range []struct {
		format string
		n      int
		want   string
	}{
		{"json", 0, "[]\n"},
		{"json", 1, "[\n  {\n    \"a\": 1\n  }\n]\n"},
		{"json", 2, "[\n  {\n    \"a\": 1\n  },\n  {\n    \"a\": 1\n  }\n]\n"},
		{"jsonl", 2, "{\"a\":1}\n{\"a\":1}\n"},
		{"yaml", 0, "[]\n"},
		{"yaml", 2, "- a: 1\n- a: 1\n"},
	} {
		var out bytes.Buffer
		if err := each(&program{out: &out, format: row.format}, make([]one, row.n)); err != nil || out.String() != row.want {
			t.Errorf("%d in %s: %q, %v; want %q", row.n, row.format, out.String(), err, row.want)
		}
	}
	for _, format := range formats {
		p := &program{out: broken{}, format: format}
		if each(p, []one{{}}) == nil || p.show(one{}) == nil || p.table([]string{"A"}, nil) == nil {
			t.Errorf("in %s, what could not be written is not reported", format)
		}
	}
}

type one struct{}

func (one) MarshalJSON() ([]byte, error) { return []byte(`{"a":1}`), nil }

func TestMetadataFlags(t *testing.T) {
	for _, row := range []struct {
		json string
		meta []string
		want map[string]any
	}{
		{"", nil, map[string]any{}},
		{"", []string{"a=b", "c=", "d=e=f", "g=:=1"}, map[string]any{"a": "b", "c": "", "d": "e=f", "g": ":=1"}},
		{"", []string{"a.b=1", "a.c=2"}, map[string]any{"a": map[string]any{"b": "1", "c": "2"}}},
		{"", []string{`a\.b=1`, `c\\=2`}, map[string]any{"a.b": "1", `c\`: "2"}},
		{"", []string{`a:=true`, `b:=null`, `c:={"d": []}`, `e:="x=y"`}, map[string]any{"a": true, "b": nil, "c": map[string]any{"d": []any{}}, "e": "x=y"}},
		{`{"a": {"b": "x"}}`, []string{"a.b=y", "a.c=z"}, map[string]any{"a": map[string]any{"b": "y", "c": "z"}}},
		{`{"a": 1}`, []string{"a=2"}, map[string]any{"a": "2"}},
	} {
		got, err := metadataOf(row.json, row.meta)
		if err != nil || !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s %q: %v, %v; want %v", row.json, row.meta, got, err, row.want)
		}
	}
	for _, row := range []struct {
		json string
		meta []string
		want string
	}{
		{"", []string{"a"}, "--meta a: expected KEY=TEXT or KEY:=JSON"},
		{"", []string{"=a"}, "expected KEY=TEXT"},
		{"", []string{":=a"}, "expected KEY=TEXT"},
		{"", []string{"a:="}, "it is empty"},
		{"", []string{"a:=1 2"}, "more behind"},
		{"", []string{"a:=nope"}, "invalid character"},
		{"", []string{"a=1", "a=2"}, "a is given twice"},
		{"", []string{"a=1", "a.b=2"}, "a is not an object"},
		{"", []string{"a..b=2"}, "a part of the key is empty"},
		{`{"a": 1}`, []string{"a.b=2"}, "a is not an object"},
		{`{"a"`, nil, "--json: expected a JSON object"},
		{`null`, nil, "--json: expected a JSON object"},
		{`{} {}`, nil, "more behind"},
		{`[1]`, nil, "--json: expected a JSON object, got an array"},
		{`"a"`, nil, "--json: expected a JSON object, got text"},
		{`1`, nil, "--json: expected a JSON object, got a number"},
		{`true`, nil, "--json: expected a JSON object, got true or false"},
		{"{\"a\xc3\": 1}", nil, "it is not valid UTF-8: byte 4 is 0xc3"},
		{`{"a": "\udfff"}`, nil, `\udfff, at byte 8, is half of a character`},
		{"", []string{"a\xff=1"}, "it is not valid UTF-8"},
		{"", []string{"a=\xff"}, "it is not valid UTF-8"},
		{"", []string{"a:=\"\xff\""}, "it is not valid UTF-8"},
		{"", []string{`a:="\ud83d"`}, `\ud83d, at byte 2, is half of a character`},
	} {
		if got, err := metadataOf(row.json, row.meta); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s %q: %v, %v; want %q", row.json, row.meta, got, err, row.want)
		}
	}
}

func TestCheckText(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"", ""},
		{`{"a": "ü日😀` + "\uFFFD" + `"}`, ""},
		{`"\ud83d\ude00 \u00e4 \uFFFD \n \\"`, ""},
		{`"\\ud83d"`, ""}, // a backslash, and letters
		{`"\`, ""},        // the decoder refuses these
		{`"\u12"`, ""},
		{`"\u12xy"`, ""},
		{"a\x80", "it is not valid UTF-8: byte 2 is 0x80"},
		{"a\xed\xa0\x80", "it is not valid UTF-8: byte 2 is 0xed"},
		{`"\ud83d"`, `\ud83d, at byte 2, is half of a character`},
		{`"\ud83d\u0041"`, `\ud83d, at byte 2, is half of a character`},
		{`"\ud83d\ud83d\ude00"`, `\ud83d, at byte 2, is half of a character`},
		{`"\\\ude00\ud83d"`, `\ude00, at byte 4, is half of a character`},
	} {
		got := ""
		if err := checkText([]byte(row.text)); err != nil {
			got = err.Error()
		}
		if got != row.want {
			t.Errorf("%q: %q, want %q", row.text, got, row.want)
		}
	}
}

// Text is either refused or read as it is: two that differ stay different.
func FuzzCheckText(f *testing.F) {
	for _, s := range []string{`a`, "\xff", `\ud800`, `\ud83d\ude00`, `\\ud800`, `\u0041\udfff`, "\uFFFD", `\ufffd`, `\n\"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var text string
		if err := decodeStrict([]byte(`"`+s+`"`), &text); err != nil {
			return
		}
		written := strings.Count(s, "\uFFFD") + strings.Count(strings.ToLower(s), `\ufffd`) // or a few more: \\ufffd is none
		if n := strings.Count(text, "\uFFFD"); n > written {
			t.Errorf("%q is read as %q", s, text)
		}
	})
}

func TestBrief(t *testing.T) {
	for _, row := range []struct{ give, want string }{
		{"", ""},
		{"short\nand \x1b", "short\nand \\x1b"},
		{strings.Repeat("ü", longestError), strings.Repeat("ü", longestError)},
		{strings.Repeat("ü", longestError) + "b", strings.Repeat("ü", longestError/2-1) + "…" + strings.Repeat("ü", longestError/2-1) + "b"},
	} {
		if got := brief(row.give); got != row.want {
			t.Errorf("%q is cut to %q, want %q", row.give, got, row.want)
		}
	}
}

// The tables of every verb are cut to the terminal.
func TestTablesFitTheTerminal(t *testing.T) {
	addr, _ := server(t)
	ok(t, addr, "register", "dev-1", "--meta", "text="+strings.Repeat("long ", 50))
	for _, args := range [][]string{{"enumerate"}, {"multicast", "--all", "--payload", "x"}} {
		for _, columns := range []int{0, 60} {
			var out, errOut bytes.Buffer
			p := &program{out: &out, err: &errOut, columns: columns}
			p.run(t.Context(), append([]string{"--server", addr}, args...))
			widest := 0
			for line := range strings.SplitSeq(out.String(), "\n") {
				if strings.HasPrefix(line, "dev-1") {
					widest = len([]rune(line))
				}
			}
			if widest == 0 || (columns > 0) != (widest == columns) || columns == 0 && strings.Contains(out.String(), "…") {
				t.Errorf("%s in %d columns is %d wide:\n%s%s", args[0], columns, widest, &out, &errOut)
			}
		}
	}
}
