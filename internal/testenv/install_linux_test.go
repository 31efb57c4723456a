package testenv

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestServerEndsWithTestBinary kills a test binary that has started a server.
func TestServerEndsWithTestBinary(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), holdEnv+"=1", "PRISM_TEST_REDIS=", "TMPDIR="+t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	addr := strings.TrimSpace(line)
	if err == nil {
		err = answers(addr)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err != nil {
		t.Fatalf("the other binary said %q: %v", line, err)
	}
	if err := await(func() error {
		if err := answers(addr); !errors.Is(err, syscall.ECONNREFUSED) {
			return errors.New("the server lives on")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// TestInstall installs with an apt-get that knows no package until its lists are updated.
func TestInstall(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	t.Setenv("TMPDIR", dir)
	script := `#!/bin/sh
cd ` + dir + `
echo "$@" >>calls
case $1 in
update) : >lists ;;
install) [ -e lists ] || { echo unable to locate; exit 100; }
  [ "$4" = good ] || { echo no such package; exit 100; }
  echo '#!/bin/sh' >tool; /bin/chmod +x tool ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "apt-get"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		if _, err := program("tool", "good"); err == nil || !strings.Contains(err.Error(), "not root") {
			t.Fatalf("got %v, want that only root installs", err)
		}
		return
	}
	if _, err := program("tool", "bad"); err == nil || !strings.Contains(err.Error(), "no such package") {
		t.Errorf("got %v, want the output of apt-get", err)
	}
	for range 2 {
		if path, err := program("tool", "good"); err != nil || path != filepath.Join(dir, "tool") {
			t.Errorf("got %q, %v", path, err)
		}
	}
	if err := install("good", "tool"); err != nil { // another binary was faster
		t.Error(err)
	}
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	if want := "install -y --no-install-recommends bad\nupdate\ninstall -y --no-install-recommends bad\n" +
		"install -y --no-install-recommends good\n"; err != nil || string(calls) != want {
		t.Errorf("apt-get was called with %q, %v, want %q", calls, err, want)
	}
}
