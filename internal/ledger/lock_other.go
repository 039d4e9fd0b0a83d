//go:build !unix || solaris || aix

package ledger

import "os"

// lockFile makes the file, and locks nothing: this platform has no flock. That one server at a time writes a directory is then
// the operator's to see to.
func lockFile(path string) (*os.File, error) { return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) }
