//go:build !unix || solaris || aix

package main

import "os"

// tryLock locks nothing: this platform has no flock.
func tryLock(*os.File) bool { return true }
