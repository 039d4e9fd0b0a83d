// Package filewatch notices changed files by reading them at an interval, for programs that get no signal when their configuration
// changes. Events of the file system are not enough: they are lost on network file systems, and Kubernetes replaces a link in the path.
package filewatch

import (
	"context"
	"crypto/sha256"
	"io"
	"maps"
	"os"
	"sync"
	"time"
)

// maxBytes is how much of a file is compared.
const maxBytes = 16 << 20

// A Watcher notices that files which belong together have changed.
type Watcher struct {
	every   time.Duration
	paths   func() []string
	changed func()

	mu     sync.Mutex
	known  contents
	latest contents // of the latest poll; nil if they were known
}

// contents are the hashes of files by path.
type contents map[string]string

// New reads the files and returns a Watcher that calls changed after their content has changed. paths returns the
// files, and may return others later: what changed has read, for example. A file that paths returns for the first time has changed, because
// it may have become another one since changed has read it.
func New(every time.Duration, paths func() []string, changed func()) *Watcher {
	w := &Watcher{every: every, paths: paths, changed: changed}
	w.Mark()
	return w
}

// Run reads the files at each interval until ctx ends, and calls changed in the same goroutine. It calls changed when two reads in a
// row returned the same new content, so that a file in the middle of being written, or a certificate without its new key, is not used.
// A file that cannot be read any more has changed.
func (w *Watcher) Run(ctx context.Context) {
	ticker := time.NewTicker(w.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if w.poll() {
			w.changed()
		}
	}
}

// Mark makes the current content the one that later content is compared with. Programs call it before they read the files for another
// reason than changed, so that they do not read them twice.
func (w *Watcher) Mark() {
	now := read(w.paths())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known, w.latest = now, nil
}

// poll reports whether the files have new content that did not change since the last poll. It is then known.
func (w *Watcher) poll() bool {
	now := read(w.paths())
	w.mu.Lock()
	defer w.mu.Unlock()
	changed := false
	for path, content := range now {
		changed = changed || w.known[path] != content
	}
	switch {
	case !changed:
		w.known, w.latest = now, nil
		return false
	case !maps.Equal(now, w.latest):
		w.latest = now
		return false
	}
	w.known, w.latest = now, nil
	return true
}

func read(paths []string) contents {
	all := make(contents, len(paths))
	for _, path := range paths {
		all[path] = hash(path)
	}
	return all
}

// hash returns a hash of a file's content, which may be a secret, and its mode, which may be why the file was not accepted. It returns the
// same for all files that cannot be read. It does not read pipes and devices, whose content can be read only once.
func hash(path string) string {
	const unreadable, special = "unreadable", "special"
	info, err := os.Stat(path)
	if err != nil {
		return unreadable
	}
	if !info.Mode().IsRegular() {
		return special
	}
	f, err := os.Open(path)
	if err != nil {
		return unreadable
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, maxBytes)); err != nil {
		return unreadable
	}
	return info.Mode().String() + string(h.Sum(nil))
}
