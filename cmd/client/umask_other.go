//go:build !unix

package main

import "os"

// umask is nothing here: files have no modes.
const umask os.FileMode = 0
