//go:build !linux

package testenv

import (
	"errors"
	"syscall"
)

// childAttributes returns nothing special: only Linux ends a child together with its parent.
func childAttributes() *syscall.SysProcAttr { return nil }

// install installs packages on Linux only.
func install(_, _ string) error { return errors.New("packages are installed on Linux only") }
