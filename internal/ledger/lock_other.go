//go:build !unix || solaris || aix

package ledger

import "os"

// lockFile creates the file but does not lock it: this platform has no flock. The operator must make sure that only one server
// uses a directory.
func lockFile(path string) (*os.File, error) { return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) }
