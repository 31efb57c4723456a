//go:build unix

package nats

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	multicastregistry "github.com/prism-data-layer/prism/patterns/multicast_registry"
)

// lockStore makes sure that no other server, of this process or another, has the folder: two would each overwrite what the
// other keeps. The lock ends with the returned file, or with the process.
func lockStore(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, "prism.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return file, nil
	}
	_ = file.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w: another server uses the store folder %s; give each a folder of its own",
			multicastregistry.ErrUnavailable, dir)
	}
	return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
}
