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
		1: "invalid character", 17: `unknown field "meta"`, 500: `"identity" is missing or empty`, 777: "cannot unmarshal array",
		1000: `ttl "soon": expected a duration`, 2000: "x: metadata/n: the integer 9007199254740993", 3000: "there is more behind the first value",
		4000: "dev-4000: ", 5000: "identity: is 257 bytes long", 10000: "cannot unmarshal number",
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
		{[]string{"--file", "-"}, `{"identity": "a"}` + "\n" + strings.Repeat("x", maxLine+1), "standard input:2: the line is longer than"},
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
