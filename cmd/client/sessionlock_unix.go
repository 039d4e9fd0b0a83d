//go:build unix && !solaris && !aix

package main

import (
	"errors"
	"os"
	"syscall"
)

// tryLock locks a file until it is closed. It returns false if another open file has the lock.
func tryLock(f *os.File) bool {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	return !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) // other errors: the file system has no locks
}
