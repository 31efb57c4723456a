//go:build !unix

package nats

import "os"

// lockStore does nothing where the system has no locks that end with the process.
func lockStore(string) (*os.File, error) { return nil, nil }
