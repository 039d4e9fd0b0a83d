//go:build unix

package filewatch

import (
	"syscall"
	"testing"
)

// A pipe must not stop the polls of other files.
func TestWatcher_Pipe(t *testing.T) {
	inFolder(t, func(t *testing.T, f *folder) {
		if err := syscall.Mkfifo(f.file("pipe"), 0o600); err != nil {
			t.Fatal(err)
		}
		f.write("a", "1")
		f.start("pipe", "a")
		f.write("a", "2")
		f.polls(2, 1)
	})
}
