package main

import "os"

// hasTerminal reports whether the process has a controlling terminal. When that is closed, the process gets a hangup.
func hasTerminal() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	tty.Close()
	return true
}
