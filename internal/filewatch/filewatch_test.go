package filewatch

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const every = 5 * time.Second

// A folder has the files of a test, and a Watcher of those in watched.
type folder struct {
	t       *testing.T
	path    string
	watched []string
	*Watcher
	calls  atomic.Int64
	onCall func()
}

// inFolder runs a test in a bubble. start begins to watch files.
func inFolder(t *testing.T, test func(t *testing.T, f *folder)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		test(t, &folder{t: t, path: dir, onCall: func() {}})
	})
}

func (f *folder) file(name string) string { return filepath.Join(f.path, name) }

// write replaces a file at once.
func (f *folder) write(name, text string) {
	f.t.Helper()
	if err := os.WriteFile(f.file(".new"), []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(f.file(".new"), f.file(name)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *folder) start(names ...string) {
	for _, name := range names {
		f.watched = append(f.watched, f.file(name))
	}
	f.Watcher = New(every, func() []string { return f.watched }, func() {
		f.calls.Add(1)
		f.onCall()
	})
	ctx, cancel := context.WithCancel(f.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.Run(ctx)
	}()
	f.t.Cleanup(func() {
		cancel()
		<-ended
	})
}

// polls waits for so many polls, and checks how often changed was called until then.
func (f *folder) polls(n int, want int64) {
	f.t.Helper()
	time.Sleep(time.Duration(n) * every)
	synctest.Wait()
	if got := f.calls.Load(); got != want {
		f.t.Errorf("changed was called %d times, want %d", got, want)
	}
}

func TestWatcher_CallsOncePerContent(t *testing.T) {
	inFolder(t, func(t *testing.T, f *folder) {
		f.write("a", "1")
		f.write("b", "1")
		f.start("a", "b")
		f.polls(3, 0)
		f.write("a", "1") // another file with the same content
		f.polls(3, 0)
		f.write("a", "2")
		f.polls(1, 0)
		f.polls(1, 1)
		f.polls(3, 1)
		f.write("b", "2")
		f.polls(2, 2)
		if err := os.Chmod(f.file("b"), 0o640); err != nil {
			t.Fatal(err)
		}
		f.polls(2, 3)
	})
}

func TestWatcher_WaitsForStableContent(t *testing.T) {
	inFolder(t, func(t *testing.T, f *folder) {
		f.write("cert", "1")
		f.write("key", "1")
		f.start("cert", "key")
		f.write("cert", "2")
		f.polls(1, 0)
		f.write("key", "2")
		f.polls(1, 0)
		f.polls(1, 1)
		// Content that returns to what it was is not reported.
		f.write("key", "3")
		f.polls(1, 1)
		f.write("key", "2")
		f.polls(3, 1)
	})
}

func TestWatcher_MissingFile(t *testing.T) {
	inFolder(t, func(t *testing.T, f *folder) {
		f.write("a", "1")
		f.start("a")
		if err := os.Remove(f.file("a")); err != nil {
			t.Fatal(err)
		}
		f.polls(2, 1)
		f.polls(3, 1)
		f.write("a", "1")
		f.polls(2, 2)
	})
}

func TestWatcher_Mark(t *testing.T) {
	inFolder(t, func(t *testing.T, f *folder) {
		f.write("a", "1")
		f.start("a")
		f.write("a", "2")
		f.Mark()
		f.polls(3, 0)
		f.write("a", "3")
		f.polls(1, 0)
		f.Mark() // between the two reads that report it
		f.polls(3, 0)
		f.write("a", "4")
		f.polls(2, 1)
	})
}

// The function that is called may read other files than before.
func TestWatcher_OtherPaths(t *testing.T) {
	inFolder(t, func(t *testing.T, f *folder) {
		f.write("a", "1")
		f.write("b", "1")
		f.write("c", "1")
		f.start("a", "b")
		f.onCall = func() { f.watched = []string{f.file("a"), f.file("c")} }
		f.write("a", "2")
		f.polls(2, 1)
		f.polls(2, 2) // c is new, and may have changed since it was read
		f.polls(3, 2)
		f.write("b", "2")
		f.polls(3, 2)
		f.write("c", "2")
		f.polls(2, 3)
	})
}

// Kubernetes replaces a link to the folder of all files.
func TestWatcher_ReplacedLink(t *testing.T) {
	inFolder(t, func(t *testing.T, f *folder) {
		for _, version := range []string{"v1", "v2"} {
			if err := os.Mkdir(f.file(version), 0o700); err != nil {
				t.Fatal(err)
			}
			f.write(version+"/a", version)
		}
		if err := os.Symlink("v1", f.file("data")); err != nil {
			t.Fatal(err)
		}
		f.start("data/a")
		if err := os.Symlink("v2", f.file("next")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(f.file("next"), f.file("data")); err != nil {
			t.Fatal(err)
		}
		f.polls(2, 1)
	})
}
