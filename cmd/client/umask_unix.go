//go:build unix

package main

import (
	"os"
	"syscall"
)

// umask is what the user takes away from the mode of new files. It can only be read by setting it, hence once, at the start.
var umask = func() os.FileMode {
	mask := syscall.Umask(0o077)
	syscall.Umask(mask)
	return os.FileMode(mask)
}()
