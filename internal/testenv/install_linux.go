package testenv

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// childAttributes puts a server into its own process group, out of reach of a Ctrl-C that is meant for the tests, and has the
// kernel kill it when the thread that started it ends: at the latest with the test binary, even if that is killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// install installs a Debian package where that is possible: as root, with apt-get. Test binaries that run side by side take
// turns, and those which find the program present afterwards have nothing left to do. Debian's redis-server starts a service
// on port 6379, which is left alone: tests start servers of their own.
func install(pkg, program string) error {
	if os.Geteuid() != 0 {
		return errors.New("not root")
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "prism-testenv-apt.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // which unlocks
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := exec.LookPath(program); err == nil {
		return nil
	}
	get := func(args ...string) error {
		cmd := exec.Command(apt, args...) //nolint:gosec,noctx // ours; cut short it would leave a broken package
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %v: %w: %.2000s", args, err, out)
		}
		return nil
	}
	if get("install", "-y", "--no-install-recommends", pkg) == nil {
		return nil
	}
	if err := get("update"); err != nil {
		return err
	}
	return get("install", "-y", "--no-install-recommends", pkg)
}
