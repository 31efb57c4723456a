package docs_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prism-data-layer/prism/internal/testenv"
)

const (
	quickStart = "docs-cms/guides/quick-start.md"
	patience   = 60 * time.Second
)

// TestQuickStart does what the page says, in order, and compares what is printed. A heading of level 2 ends what runs in the
// background.
func TestQuickStart(t *testing.T) {
	r := &runner{t: t, dir: t.TempDir(), addresses: make(map[string]string)}
	for _, port := range []string{"8980", "8981", "8990", "8991"} {
		r.addresses[port] = portOf(t, testenv.FreeAddress(t))
	}
	r.addresses["6379"] = portOf(t, testenv.Redis(t).Addr)
	r.addresses["4222"] = portOf(t, strings.TrimPrefix(testenv.NATS(t).URL, "nats://"))
	if err := os.Mkdir(filepath.Join(r.dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(prism(t), filepath.Join(r.dir, "bin", "prism")); err != nil {
		t.Fatal(err)
	}
	defer r.endAll()
	section := ""
	for _, b := range pages(t)[quickStart].blocks {
		if b.section != section {
			r.endAll()
			section = b.section
		}
		switch {
		case b.skipped:
		case b.language == "sh":
			r.foreground(b.text, "", b.line)
		case b.language == "console":
			r.console(b)
		case b.language == "go":
			r.build(b)
		}
		if t.Failed() {
			return // what follows depends on it
		}
	}
}

// TestPrograms vets each whole program in every page. Those in guides are whole.
func TestPrograms(t *testing.T) {
	t.Parallel()
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			switch whole := strings.HasPrefix(b.text, "package "); {
			case b.language != "go":
				continue
			case !whole && strings.HasPrefix(p.path, "docs-cms/guides/"):
				t.Errorf("%s:%d: a program in a guide is whole, so that it can be compiled", p.path, b.line)
				continue
			case !whole:
				continue
			}
			if out, err := goTool(t, b.text, "vet"); err != nil {
				t.Errorf("%s:%d: %v\n%s", p.path, b.line, err, out)
			}
		}
	}
}

// goTool runs a command of go on a program, as a package of this module.
func goTool(t *testing.T, program string, args ...string) ([]byte, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", append(args, file)...)
	cmd.Dir = root
	return cmd.CombinedOutput()
}

// runner runs the blocks of a page.
type runner struct {
	t         *testing.T
	dir       string
	addresses map[string]string // ports that the page names, and those that are meant
	program   string            // what "go run ." runs
	running   []*process
}

// process is what runs in the background.
type process struct {
	cmd  *exec.Cmd
	out  *output
	done chan struct{}
}

// output collects what a process prints.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// console runs the commands of a console, each with the lines below it that it prints.
func (r *runner) console(b block) {
	command, want, line := "", "", b.line
	run := func() {
		if command == "" {
			return
		}
		if background, ok := strings.CutSuffix(command, " &"); ok {
			r.background(background, want, line)
		} else {
			r.foreground(command, want, line)
		}
	}
	for i, text := range strings.Split(strings.TrimRight(b.text, "\n"), "\n") {
		next, prompted := strings.CutPrefix(text, "$ ")
		if !prompted {
			want += text + "\n"
			continue
		}
		run()
		command, want, line = next, "", b.line+i
	}
	run()
}

// shell is a command with the ports that are meant.
func (r *runner) shell(ctx context.Context, command string) *exec.Cmd {
	command = strings.ReplaceAll(command, "go run .", r.program)
	if strings.HasPrefix(command, "bin/prism serve") && !strings.Contains(command, "--grpc-addr") {
		command += " --grpc-addr 127.0.0.1:8980 --http-addr 127.0.0.1:8981"
	}
	cmd := exec.CommandContext(ctx, "sh", "-euc", r.translate(command))
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "PRISM_SERVER=127.0.0.1:"+r.addresses["8980"])
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	return cmd
}

func (r *runner) translate(text string) string {
	for named, meant := range r.addresses {
		text = regexp.MustCompile(`\b`+named+`\b`).ReplaceAllString(text, meant)
	}
	return text
}

func (r *runner) foreground(command, want string, line int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	out, err := r.shell(ctx, command).CombinedOutput()
	if err != nil {
		r.t.Errorf("%s:%d: %s\n%v\n%s", quickStart, line, command, err, out)
		return
	}
	if missing := r.missing(string(out), want); missing != "" {
		r.t.Errorf("%s:%d: %s\nprints\n%sand lacks\n%s", quickStart, line, command, out, missing)
	}
}

func (r *runner) background(command, want string, line int) {
	r.t.Helper()
	p := &process{cmd: r.shell(r.t.Context(), "exec "+command), out: new(output), done: make(chan struct{})}
	if serve, ok := strings.CutPrefix(command, "bin/prism serve"); ok {
		p.cmd = r.shell(r.t.Context(), "bin/prism serve"+serve)
	}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // it ends by a signal
	}()
	r.running = append(r.running, p)
	for deadline := time.Now().Add(patience); ; {
		missing := r.missing(p.out.String(), want)
		if missing == "" {
			return
		}
		select {
		case <-p.done:
		case <-time.After(20 * time.Millisecond):
			if time.Now().Before(deadline) {
				continue
			}
		}
		r.t.Errorf("%s:%d: %s\nprints\n%sand lacks\n%s", quickStart, line, command, p.out, missing)
		return
	}
}

// endAll ends what runs in the background, servers last.
func (r *runner) endAll() {
	for _, p := range slices.Backward(r.running) {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM) // it may have ended
		select {
		case <-p.done:
		case <-time.After(patience):
			_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
			<-p.done
		}
	}
	r.running = nil
}

func (r *runner) build(b block) {
	r.t.Helper()
	r.program = filepath.Join(r.dir, "program-"+strconv.Itoa(b.line))
	if out, err := goTool(r.t, r.translate(b.text), "build", "-o", r.program); err != nil {
		r.t.Errorf("%s:%d: %v\n%s", quickStart, b.line, err, out)
	}
}

var (
	number = regexp.MustCompile(`[0-9]+(\.[0-9]+)?(µs|ms|s|m)\b`)
	spaces = regexp.MustCompile(`\s+`)
)

// normal takes out of a line what differs each time.
func normal(line string) string {
	return strings.TrimSpace(spaces.ReplaceAllString(number.ReplaceAllString(line, "0s"), " "))
}

// missing returns the lines that a page shows and that were not printed in that order. A line may show the beginning only.
func (r *runner) missing(printed, want string) string {
	lines := strings.Split(printed, "\n")
	out, at := "", 0
	for line := range strings.SplitSeq(strings.TrimSpace(want), "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		wanted, found := normal(r.translate(line)), false
		for i := at; i < len(lines) && !found; i++ {
			if found = strings.HasPrefix(normal(lines[i]), wanted); found {
				at = i + 1
			}
		}
		if !found {
			out += line + "\n"
		}
	}
	return out
}

func portOf(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return port
}
