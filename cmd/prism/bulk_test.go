package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// lines builds a file of identities, in which some lines, by their numbers from 1, are something else.
func lines(n int, instead map[int]string) string {
	var b strings.Builder
	for i := 1; i <= n; i++ {
		if other, ok := instead[i]; ok {
			b.WriteString(other + "\n")
			continue
		}
		fmt.Fprintf(&b, `{"identity": "dev-%d", "metadata": {"room": "lab", "n": %d}, "ttl": "5m"}`+"\n", i, i)
	}
	return b.String()
}

func TestRegisterTenThousandLines(t *testing.T) {
	addr, _ := server(t)
	ok(t, addr, "register", "dev-4000")
	bad := map[int]string{
		1:     `{bad`,
		17:    `{"identity": "x", "meta": {}}`,
		500:   `{"identity": "", "metadata": {}}`,
		501:   ``, // passed over
		502:   `  `,
		777:   `[]`,
		1000:  `{"identity": "x", "ttl": "soon"}`,
		2000:  `{"identity": "x", "metadata": {"n": 9007199254740993}}`,
		3000:  `{"identity": "x"} {"identity": "y"}`,
		5000:  `{"identity": "` + strings.Repeat("x", 257) + `"}`,
		10000: `{"identity": 7}`,
	}
	file := filepath.Join(t.TempDir(), "f.jsonl")
	if err := os.WriteFile(file, []byte(lines(10_000, bad)), 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	r := prism(t, addr, "", "register", "--file", file)
	t.Logf("10,000 lines in %s", time.Since(began))
	if r.code != 1 || !regexp.MustCompile(`^registered 9988 of 9998 identities in \S+ \(\d+ a second\); 10 failed\n$`).MatchString(r.out) {
		t.Errorf("exit %d, printed %q", r.code, r.out)
	}
	for number, words := range map[int]string{
		1: "invalid character", 17: `unknown field "meta"; a line has`, 500: `"identity" is missing or empty`, 777: "expected an object such as",
		1000: `ttl "soon": expected a duration`, 2000: "x: metadata/n: the integer 9007199254740993", 3000: "there is more behind the first value",
		4000: "dev-4000: ", 5000: "identity: is 257 bytes long", 10000: "identity: expected text such as",
	} {
		if !regexp.MustCompile(`(?m)^prism: ` + regexp.QuoteMeta(fmt.Sprintf("%s:%d: ", file, number)) + `.*` + regexp.QuoteMeta(words)).MatchString(r.err) {
			t.Errorf("line %d is not reported with %q", number, words)
		}
	}
	if n := strings.Count(r.err, "\n"); n != 10 {
		t.Errorf("%d lines on stderr, want 10:\n%s", n, r.err)
	}
	if out := ok(t, addr, "namespaces", "-o", "jsonl"); !strings.Contains(out, `"identity_count":9989`) {
		t.Errorf("the server has %s", out)
	}
	// Again: each is there already, unless they may be replaced.
	if r := prism(t, addr, lines(100, nil), "register", "--file", "-"); r.code != 1 || !strings.Contains(r.out, "registered ") || !strings.Contains(r.err, "standard input:") {
		t.Errorf("exit %d, %s%s", r.code, r.out, r.err)
	}
	out := prism(t, addr, lines(100, nil), "register", "--file", "-", "--replace", "-o", "json")
	if got := decode[map[string]any](t, out.out); out.code != 0 || got["registered"] != 100.0 || got["failed"] != 0.0 || !got["complete"].(bool) {
		t.Errorf("exit %d, %s", out.code, out.out)
	}
}

func TestRegisterFileDefaultTTL(t *testing.T) {
	addr, _ := server(t)
	in := `{"identity": "a"}` + "\r\n" + `{"identity": "b", "ttl": "7s"}` // DOS line ends, and none at the end
	if r := prism(t, addr, in, "register", "--file", "-", "--ttl", "never"); r.code != 0 {
		t.Fatal(r.err)
	}
	if out := ok(t, addr, "enumerate", "-o", "jsonl"); !strings.Contains(out, `"a","ttl":"never"`) || !strings.Contains(out, `"b","ttl":"7s"`) {
		t.Errorf("registered:\n%s", out)
	}
}

func TestRegisterFileFaults(t *testing.T) {
	addr, stop := server(t)
	for _, row := range []struct {
		args  []string
		stdin string
		want  string
	}{
		{[]string{"--file", "/no/such/file"}, "", "no such file"},
		{[]string{"--file", "-", "--ttl", "soon"}, "", `--ttl "soon"`},
		{[]string{"--file", "-", "-n", "nowhere"}, lines(500, nil), "gave up: namespace \"nowhere\": not found"},
		{[]string{"--file", "-"}, `{"identity": "a"}` + "\n" + strings.Repeat("x", maxLine+1), "standard input:2: is longer than 4 MiB"},
	} {
		r := prism(t, addr, row.stdin, append([]string{"register"}, row.args...)...)
		if r.code != 1 || !strings.Contains(r.err, row.want) || strings.Count(r.err, "prism: ") != 1 {
			t.Errorf("register %q: exit %d, %s; want %q once", row.args, r.code, r.err, row.want)
		}
	}
	stop()
	r := prism(t, addr, lines(5000, nil), "register", "--file", "-")
	if r.code != 1 || strings.Count(r.err, "\n") != 2 || !strings.Contains(r.err, "gave up: server "+addr) || !strings.Contains(r.err, "Is `prism serve` running") {
		t.Errorf("without a server: exit %d, %s", r.code, r.err)
	}
}

func TestRegisterFileInterrupted(t *testing.T) {
	addr, _ := server(t)
	ctx, interrupt := context.WithCancel(t.Context())
	in, feed := io.Pipe()
	var out, errOut bytes.Buffer
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, []string{"--server", addr, "register", "--file", "-"}, in, &out, &errOut) }()
	io.WriteString(feed, lines(300, nil)) // returns when all is read, though not all may be registered
	awaitIdentity(t, addr)
	interrupt()
	code := <-ended
	feed.Close()
	var n int
	if _, err := fmt.Sscanf(out.String(), "registered %d of", &n); err != nil || code != 1 || n == 0 ||
		errOut.String() != "prism: interrupted; the lines that were begun were finished\n" {
		t.Errorf("exit %d, %s%s", code, out.String(), errOut.String())
	}
	if got := strings.Count(ok(t, addr, "enumerate", "-q"), "\n"); got != n {
		t.Errorf("it says that %d were registered, the server has %d", n, got)
	}
}

// awaitIdentity returns once any identity is registered.
func awaitIdentity(t *testing.T, addr string) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ok(t, addr, "enumerate", "-q", "--limit", "1") == ""; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("nothing is registered")
		}
	}
}

// What is wrong with a line is said with its number and in the words of the file, and the rest goes on.
// The last line of an identity wins, however many are registered at once.
func TestRegisterFileKeepsTheOrder(t *testing.T) {
	addr, _ := server(t)
	var lines strings.Builder
	for v := range 200 {
		for _, id := range []string{"a", "b", "c"} {
			fmt.Fprintf(&lines, `{"identity":%q,"metadata":{"v":%d}}`+"\n", id, v)
		}
	}
	if r := prism(t, addr, lines.String(), "register", "--replace", "--file", "-"); r.code != 0 {
		t.Fatalf("exit %d: %s", r.code, r.err)
	}
	if r := prism(t, addr, "", "enumerate", "-q", "--filter", `{"v":199}`); r.out != "a\nb\nc\n" {
		t.Errorf("the last ones are not there: %q %s", r.out, r.err)
	}
}

func TestRegisterFileBadLines(t *testing.T) {
	addr, _ := server(t)
	for _, row := range []struct{ name, line, want string }{
		{"ttl is a number", `{"identity": "x", "ttl": 30}`, `ttl: expected text such as "30s" or "never", got a number`},
		{"ttl is an object", `{"identity": "x", "ttl": {}}`, `ttl: expected text such as "30s" or "never", got an object`},
		{"identity is a number", `{"identity": 7}`, `identity: expected text such as "dev-1", got a number`},
		{"identity is a boolean", `{"identity": true}`, `identity: expected text such as "dev-1", got true or false`},
		{"metadata is text", `{"identity": "x", "metadata": "a"}`, `metadata: expected an object such as {"room": "lab"}, got text`},
		{"metadata is an array", `{"identity": "x", "metadata": []}`, `metadata: expected an object such as {"room": "lab"}, got an array`},
		{"a ttl that is none", `{"identity": "two\nlines", "ttl": "soon"}`, `two\nlines: ttl "soon": expected a duration such as 30s or 5m, or never`},
		{"mode is no field", `{"identity": "x", "mode": 1}`, `unknown field "mode"; a line has identity, metadata and ttl`},
		{"an array", `[]`, `expected an object such as {"identity": "dev-1"}, got an array`},
		{"text", `"x"`, `expected an object such as {"identity": "dev-1"}, got text`},
		{"a byte", `{"identity": "x` + "\xff" + `"}`, "it is not valid UTF-8: byte 16 is 0xff"},
		{"half a character", `{"identity": "x\ud800"}`, `\ud800, at byte 16, is half of a character`},
		{"a long line", `{"identity": "` + strings.Repeat("x", maxLine) + `"}`, "is longer than 4 MiB"},
		{"a very long line", strings.Repeat("x", 5*maxLine), "is longer than 4 MiB"},
	} {
		r := prism(t, addr, lines(3, map[int]string{2: row.line}), "register", "--file", "-", "--replace")
		if want := "prism: standard input:2: " + row.want + "\n"; r.code != 1 || r.err != want || !strings.HasPrefix(r.out, "registered 2 of 3 ") {
			t.Errorf("%s: exit %d, %.500q, %.500q; want %q", row.name, r.code, r.out, r.err, want)
		}
	}
	if out := ok(t, addr, "enumerate", "-q"); out != "dev-1\ndev-3\n" {
		t.Errorf("registered:\n%s", out)
	}
}

// A long identity and a long pointer are cut out of what is printed.
func TestRegisterFileLongError(t *testing.T) {
	addr, _ := server(t)
	deep := `{"identity": "x", "metadata": {"m": ` + strings.Repeat(`{"level": `, 4000) + "1" + strings.Repeat("}", 4002)
	long := `{"identity": "` + strings.Repeat("x", 1<<20) + `"}`
	r := prism(t, addr, deep+"\n"+long+"\n", "register", "--file", "-")
	said := strings.Split(strings.TrimSuffix(r.err, "\n"), "\n")
	if r.code != 1 || len(said) != 2 {
		t.Fatalf("exit %d, %.2000s", r.code, r.err)
	}
	for _, line := range said {
		if n := len([]rune(line)); n > longestError+len("prism: standard input:1: ") {
			t.Errorf("%d characters: %s", n, line)
		}
	}
}
