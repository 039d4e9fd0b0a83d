//go:build unix

package main

import (
	"os"
	"syscall"
)

// umask is the umask of the process. It can be read only by setting it, so that is done once, at the start.
var umask = func() os.FileMode {
	mask := syscall.Umask(0o077)
	syscall.Umask(mask)
	return os.FileMode(mask)
}()
