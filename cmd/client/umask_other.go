//go:build !unix

package main

import "os"

// umask is 0: files have no modes.
const umask os.FileMode = 0
